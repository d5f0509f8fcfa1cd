"""Noise levels and the predicted clean sample, from what a scheduler says about itself.

Every schedule here is ``x_t = alpha * x0 + scale * noise``. What differs is how a scheduler stores
it:

- *variance preserving* (DDIM, DDPM, PNDM, DPM-Solver, UniPC ...): ``alpha**2 + scale**2 = 1``;
- *variance exploding* (Euler, Heun, LMS, KDPM2 and EDM, as in k-diffusion): ``alpha = 1``;
- *flow* (flow matching): ``alpha = 1 - scale``.

The noise level ``sigma`` is ``scale / alpha`` for the first two (Karras et al., 2022,
https://arxiv.org/abs/2206.00364) and ``scale`` for flow; the signal-to-noise ratio is, for all,
``(alpha / scale)**2``.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

PRESERVING = "variance preserving"
EXPLODING = "variance exploding"
FLOW = "flow"
UNKNOWN = "unknown"

X0_NAMES = ("pred_original_sample", "denoised")


@dataclass(frozen=True)
class NoiseLevel:
    """Where on its schedule a sample is: ``x_t = alpha * x0 + scale * noise``."""

    family: str
    alpha: float
    scale: float

    @property
    def sigma(self) -> float:
        """Noise level in the family's own terms."""
        if self.family == FLOW:
            return self.scale
        return self.scale / self.alpha if self.alpha else math.inf

    @property
    def snr(self) -> float:
        """Signal-to-noise ratio, in power."""
        return (self.alpha / self.scale) ** 2 if self.scale else math.inf


NOWHERE = NoiseLevel(UNKNOWN, math.nan, math.nan)


@dataclass(frozen=True)
class Clock:
    """What a scheduler's clock showed at one step; its tensors wait to be read until the end."""

    timestep: Any
    index: int | None
    sigmas: Any
    midpoint: Any


def read_midpoint(scheduler: Any) -> Any:
    """The noise level a second-order scheduler is at between two of its own; else None."""
    if getattr(scheduler, "state_in_first_order", True):
        return None
    interpolated = getattr(scheduler, "sigmas_interpol", None)
    if interpolated is not None:
        # KDPM2; the ancestral one keeps it at the place of the first-order step before.
        return interpolated[scheduler.step_index - hasattr(scheduler, "sigmas_down")]
    return getattr(scheduler, "mid_point_sigma", None)  # DPMSolverSDE


def noise_level(scheduler: Any, clock: Clock) -> NoiseLevel:
    """Noise level of the sample that a step received.

    Args:
        scheduler: Any object with the attributes diffusers' schedulers have.
        clock: Its reading at that step.

    Returns:
        The level; :data:`NOWHERE` where the scheduler does not say.
    """
    if isinstance(clock.sigmas, torch.Tensor) and clock.index is not None:
        if not 0 <= clock.index < len(clock.sigmas):
            return NOWHERE
        sigma = float(clock.sigmas[clock.index] if clock.midpoint is None else clock.midpoint)
        if hasattr(scheduler, "_sigma_to_alpha_sigma_t"):
            pair = scheduler._sigma_to_alpha_sigma_t(torch.tensor(sigma, dtype=torch.float64))
            alpha, scale = float(pair[0]), float(pair[1])
            if _config(scheduler, "use_flow_sigmas"):
                return NoiseLevel(FLOW, alpha, scale)
            # A variance-preserving one scales sigma by its alpha; the EDM family keeps alpha = 1.
            return NoiseLevel(EXPLODING if alpha == 1.0 and sigma else PRESERVING, alpha, scale)
        if hasattr(scheduler, "alphas_cumprod") or _config(scheduler, "sigma_data"):
            return NoiseLevel(EXPLODING, 1.0, sigma)
        if float(clock.sigmas.max()) <= 1.0:
            return NoiseLevel(FLOW, 1.0 - sigma, sigma)
        return NOWHERE
    cumulative = getattr(scheduler, "alphas_cumprod", None)
    if isinstance(cumulative, torch.Tensor):
        timestep = as_number(clock.timestep)
        if timestep.is_integer() and 0 <= timestep < len(cumulative):
            squared = float(cumulative[int(timestep)])
            return NoiseLevel(PRESERVING, math.sqrt(squared), math.sqrt(max(0.0, 1.0 - squared)))
    return NOWHERE


def prediction_type(scheduler: Any, level: NoiseLevel) -> str:
    """What the model predicts, in diffusers' words: ``epsilon``, ``v_prediction`` ..."""
    named = _config(scheduler, "prediction_type")
    if named is None:
        return "flow_prediction" if level.family == FLOW else ""
    return "sample" if named == "original_sample" else str(named)


def predict_x0(
    scheduler: Any, kind: str, level: NoiseLevel, sample: np.ndarray, model_output: np.ndarray
) -> np.ndarray | None:
    """Clean sample predicted from a sample and the model's output.

    Args:
        scheduler: Consulted for EDM's preconditioning and for thresholding.
        kind: As from :func:`prediction_type`.
        level: Noise level of ``sample``.
        sample: ``(batch, *latent)``, x_t.
        model_output: ``(batch, *latent)``.

    Returns:
        ``(batch, *latent)`` in ``sample``'s type, or None where the rule is not known.
    """
    alpha, scale = level.alpha, level.scale
    x, output = sample.astype(np.float64), model_output.astype(np.float64)
    if level.family == UNKNOWN:
        return None
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if hasattr(scheduler, "precondition_outputs"):
            sigma = torch.tensor(level.sigma, dtype=torch.float64)
            x0 = scheduler.precondition_outputs(
                torch.from_numpy(x), torch.from_numpy(output), sigma
            ).numpy()
        elif kind == "epsilon":
            x0 = (x - scale * output) / np.float64(alpha)
        elif kind == "sample":
            x0 = output
        elif kind == "flow_prediction" and level.family == FLOW:
            x0 = x - scale * output
        elif kind == "v_prediction" and level.family != FLOW:
            norm = math.hypot(
                alpha, scale
            )  # the v target is defined in the variance-preserving scale
            x0 = (alpha / norm) * (x / norm) - (scale / norm) * output
        else:
            return None
        if _config(scheduler, "thresholding") and hasattr(scheduler, "_threshold_sample"):
            x0 = scheduler._threshold_sample(torch.from_numpy(x0)).numpy()
        return x0.astype(sample.dtype)


def limits_of_x0(scheduler: Any) -> str:
    """How a scheduler limits the clean sample it works on; empty if it does not."""
    if _config(scheduler, "thresholding"):
        return "limited by the scheduler's dynamic thresholding"
    if _config(scheduler, "clip_sample"):
        return f"clipped by the scheduler to ±{_config(scheduler, 'clip_sample_range') or 1.0:g}"
    return ""


def named_outputs(output: Any, names: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """A step's outputs by name, whether it returned its output class or the tuple of its fields.

    Args:
        output: What the step returned.
        names: The fields of its output class, as from :func:`output_names`.

    Returns:
        At least ``prev_sample``.
    """
    if hasattr(output, "keys"):
        return {name: output[name] for name in list(output)}
    values = [output] if isinstance(output, torch.Tensor) else list(output)
    if len(names) != len(values):
        return {"prev_sample": values[0]}
    return dict(zip(names, values, strict=True)) | {"prev_sample": values[0]}


def output_names(step: Any) -> tuple[str, ...]:
    """The fields of the output class in a step's return annotation, in the tuple's order.

    A tuple has no names, and position misleads: TCD's second output is not x0.
    """
    try:
        annotation = typing.get_type_hints(step).get("return")
    except Exception:  # noqa: BLE001  # evaluating other people's annotations may raise anything
        return ()
    for candidate in (annotation, *typing.get_args(annotation)):
        if isinstance(candidate, type) and dataclasses.is_dataclass(candidate):
            return tuple(field.name for field in dataclasses.fields(candidate))
    return ()


def as_number(timestep: Any) -> float:
    """A timestep, which may be a number or a tensor (one, or one for each sample), as a number."""
    if isinstance(timestep, torch.Tensor):
        return float(timestep.detach().reshape(-1)[0]) if timestep.numel() else math.nan
    return float(timestep)


def _config(scheduler: Any, name: str) -> Any:
    config: Any = getattr(scheduler, "config", None)
    return config.get(name) if hasattr(config, "get") else getattr(config, name, None)
