"""Noise levels and the predicted clean sample, from what a scheduler says about itself.

Every schedule here is ``x_t = alpha * x0 + scale * noise``. What differs is how a scheduler stores
it:

- *variance preserving* (DDIM, DDPM, PNDM, DPM-Solver, UniPC ...): ``alpha**2 + scale**2 = 1``;
- *variance exploding* (Euler, Heun, LMS, KDPM2 and EDM, as in k-diffusion): ``alpha = 1``;
- *flow* (flow matching): ``alpha = 1 - scale``.

The noise level ``sigma`` is ``scale / alpha`` for the first two (Karras et al., 2022,
https://arxiv.org/abs/2206.00364) and ``scale`` for flow; the signal-to-noise ratio is, for all,
``(alpha / scale)**2``.

What a scheduler is, is told by its attributes, by the arguments of its step and by those entries of
its configuration that its own code reads: ``from_config`` keeps entries of other schedulers too.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

PRESERVING = "variance preserving"
EXPLODING = "variance exploding"
FLOW = "flow"
UNKNOWN = "unknown"
TOKENS = "none: the samples are tokens"

X0_NAMES = ("pred_original_sample", "denoised")


@dataclass(frozen=True)
class NoiseLevel:
    """Where on its schedule a sample is: ``x_t = alpha * x0 + scale * noise``.

    Attributes:
        family: How the schedule is stored.
        alpha: What is left of the clean sample.
        scale: The noise's standard deviation.
        predicts: What the model predicts if the scheduler leaves no choice: its prediction type.
        to_data: Whether a flow's velocity points to the data, and not to the noise.
        token_scales: ``(batch, tokens)``, where each token has a ``scale`` of its own; else None.
    """

    family: str
    alpha: float
    scale: float
    predicts: str = ""
    to_data: bool = False
    token_scales: np.ndarray | None = dataclasses.field(default=None, compare=False)

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
    """What a scheduler's clock showed at one step; its tensors wait to be read until the end.

    Attributes:
        timestep: What the step was given.
        index: The step's place in ``sigmas``.
        sigmas: The scheduler's own.
        midpoint: As from :func:`read_midpoint`.
        token_timesteps: ``(batch, tokens)``, where a step was given a time for each token.
    """

    timestep: Any
    index: int | None
    sigmas: Any
    midpoint: Any
    token_timesteps: Any = None


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
    arguments = _step_arguments(scheduler.__class__)
    if "LongTensor" in arguments.get("sample", ""):
        return NoiseLevel(TOKENS, math.nan, math.nan)
    if "sigma_hat" in arguments:  # KarrasVe is told the noise level instead of the time
        return NoiseLevel(EXPLODING, 1.0, as_number(clock.timestep))
    if (_config(scheduler, "stages") or 1) > 1:
        return NOWHERE  # a pyramid's flow leads from one noisy size to the next, not to x0
    if isinstance(clock.sigmas, torch.Tensor) and clock.index is not None:
        if not 0 <= clock.index < len(clock.sigmas):
            return NOWHERE
        sigma = float(clock.sigmas[clock.index] if clock.midpoint is None else clock.midpoint)
        return _level_of_sigma(scheduler, clock, sigma)
    return _level_of_time(scheduler, clock)


def _level_of_sigma(scheduler: Any, clock: Clock, sigma: float) -> NoiseLevel:
    """Noise level by the sigma that a scheduler's clock points to."""
    if hasattr(scheduler, "_sigma_to_alpha_sigma_t"):
        try:
            pair = scheduler._sigma_to_alpha_sigma_t(sigma)
        except TypeError:  # Helios clamps it, as a tensor
            pair = scheduler._sigma_to_alpha_sigma_t(torch.tensor(sigma, dtype=torch.float64))
        alpha, scale = float(pair[0]), float(pair[1])
        if _config(scheduler, "use_flow_sigmas"):
            return NoiseLevel(FLOW, alpha, scale)
        # A variance-preserving one scales sigma by its alpha; the EDM family keeps alpha = 1.
        return NoiseLevel(EXPLODING if alpha == 1.0 and sigma else PRESERVING, alpha, scale)
    if hasattr(scheduler, "alphas_cumprod") or _config(scheduler, "sigma_data"):
        return NoiseLevel(EXPLODING, 1.0, sigma)
    if float(getattr(scheduler, "init_noise_sigma", 1.0)) != 1.0:
        return NOWHERE
    if float(clock.sigmas.max()) > 1.0001:
        # A flow's sigmas end at 1, but for a rounding. Cosmos gives a flow's scheduler those of
        # EDM, and a step along dx / dsigma then takes the noise.
        return NoiseLevel(EXPLODING, 1.0, sigma, "epsilon")
    if _config(scheduler, "invert_sigmas"):
        # With Mochi sigma counts from the noise. Steps that add noise by sigma contradict that.
        along = _config(scheduler, "stochastic_sampling") is False
        return _flow(1.0 - sigma, to_data=True) if along else NOWHERE
    if clock.token_timesteps is not None:  # each token goes down from its own to the next sigma
        times = clock.token_timesteps.detach().double().cpu().numpy()
        scales = times / _config(scheduler, "num_train_timesteps")
        return dataclasses.replace(_flow(sigma, to_data=True), token_scales=scales)
    if "r_timestep" in _step_arguments(
        scheduler.__class__
    ):  # a flow map goes by the time it is given
        sigma = as_number(clock.timestep) / _config(scheduler, "num_train_timesteps")
    return _flow(sigma, _is_time_of_data(scheduler, clock.sigmas))


def _level_of_time(scheduler: Any, clock: Clock) -> NoiseLevel:
    """Noise level by the time that a step was given."""
    time = _common_time(clock.timestep)
    cumulative = getattr(scheduler, "alphas_cumprod", None)
    if isinstance(cumulative, torch.Tensor):
        first = getattr(scheduler, "initial_alpha_cumprod", None)
        if first is not None:
            # An inversion is told the time it goes to: its sample is one step nearer to the data.
            last = _config(scheduler, "num_train_timesteps")
            time = min(time - last // scheduler.num_inference_steps, last - 1)
            if time < 0:
                return _preserving(float(first))
        if time.is_integer() and 0 <= time < len(cumulative):
            return _preserving(float(cumulative[int(time)]))
    elif hasattr(scheduler, "_alpha_cumprod"):  # a function of time, as with Würstchen
        moment = torch.tensor([time], dtype=torch.float64)
        squared = float(scheduler._alpha_cumprod(moment, moment.device))
        return dataclasses.replace(_preserving(squared), predicts="epsilon")
    elif hasattr(scheduler, "discrete_sigmas"):  # score-based, with time from 1 to 0
        low, high = _config(scheduler, "sigma_min"), _config(scheduler, "sigma_max")
        return NoiseLevel(EXPLODING, 1.0, low * (high / low) ** time, "score")
    elif (
        _config(scheduler, "prediction_type") == "trigflow"
    ):  # both of standard deviation sigma_data
        deviation = _config(scheduler, "sigma_data")
        return NoiseLevel(PRESERVING, max(0.0, math.cos(time)), deviation * math.sin(time))
    elif _config(scheduler, "tsr_k"):  # rescaled by the ratio of time to what is left of it
        return _flow(1.0 - time, to_data=True)
    elif clock.index is not None and hasattr(scheduler, "alphas") and hasattr(scheduler, "betas"):
        alpha, beta = (float(values[clock.index]) for values in (scheduler.alphas, scheduler.betas))
        if math.isclose(alpha**2 + beta**2, 1.0, abs_tol=1e-5):  # IPNDM; a variance elsewhere
            return NoiseLevel(PRESERVING, alpha, beta, "v_prediction")
    return NOWHERE


def _preserving(squared: float) -> NoiseLevel:
    return NoiseLevel(PRESERVING, math.sqrt(squared), math.sqrt(max(0.0, 1.0 - squared)))


def _flow(scale: float, to_data: bool) -> NoiseLevel:
    return NoiseLevel(FLOW, max(0.0, 1.0 - scale), scale, "flow_prediction", to_data)


def _is_time_of_data(scheduler: Any, sigmas: torch.Tensor) -> bool:
    """Whether time grows as noise goes; a model's velocity follows the time it is shown."""
    times = getattr(scheduler, "timesteps", None)
    if not isinstance(times, torch.Tensor) or not len(times):
        return False
    if len(times) == 1:
        return float(times[0]) < float(sigmas[0])
    last = min(len(times), len(sigmas)) - 1
    return float(times[0]) < float(times[last]) and float(sigmas[0]) > float(sigmas[last])


def prediction_type(scheduler: Any, level: NoiseLevel) -> str:
    """What the model predicts, in diffusers' words: ``epsilon``, ``v_prediction`` ..."""
    named = _config(scheduler, "prediction_type")
    if named is None:
        return level.predicts
    return "sample" if named == "original_sample" else str(named)


def predict_x0(
    scheduler: Any, kind: str, level: NoiseLevel, sample: np.ndarray, model_output: np.ndarray
) -> np.ndarray | None:
    """Clean sample predicted from a sample and the model's output.

    Args:
        scheduler: Consulted for its preconditioning and for the limits it works within.
        kind: As from :func:`prediction_type`.
        level: Noise level of ``sample``.
        sample: ``(batch, *latent)``, x_t.
        model_output: ``(batch, *latent)``.

    Returns:
        ``(batch, *latent)`` in ``sample``'s type, or None where the rule is not known.
    """
    if hasattr(scheduler, "_to_grid") and model_output.ndim == sample.ndim:
        # A policy predicts x0 for several times to come; the last is the one the sample is at.
        grid = scheduler._to_grid(torch.from_numpy(model_output), torch.from_numpy(sample))
        model_output = grid[:, -1].numpy()
    shares = _shares(scheduler, kind, level)
    if shares is None or model_output.shape != sample.shape:
        return None
    of_sample, of_output = shares
    # Out of much noise x0 is the small difference of large numbers; else float32 does.
    gain = abs(of_output) if isinstance(of_output, float) else 1.0
    exact = sample.dtype == np.float64 or not max(abs(of_sample), gain) < 32
    dtype = np.float64 if exact else np.float32
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        x0 = np.multiply(model_output, of_output, dtype=dtype)
        if of_sample:
            x0 += np.multiply(sample, of_sample, dtype=dtype)
        if _is_thresholded(scheduler):
            x0 = scheduler._threshold_sample(torch.from_numpy(x0)).numpy()
        elif limit := _clip_range(scheduler):
            np.clip(x0, -limit, limit, out=x0)
        return x0.astype(sample.dtype, copy=False)


def _shares(scheduler: Any, kind: str, level: NoiseLevel) -> tuple[float, Any] | None:
    """What of the sample, and what of the model's output, makes x0; None if that is not known."""
    alpha, scale = level.alpha, level.scale
    if math.isnan(alpha) or math.isnan(scale):
        return None
    if hasattr(scheduler, "precondition_outputs"):  # EDM; linear in both
        of_sample = scheduler.precondition_outputs(1.0, 0.0, level.sigma)
        return float(of_sample), float(scheduler.precondition_outputs(0.0, 1.0, level.sigma))
    if hasattr(scheduler, "get_scalings_for_boundary_condition"):  # consistency models
        of_sample, of_output = scheduler.get_scalings_for_boundary_condition(level.sigma)
        return float(of_sample), float(of_output)
    if kind == "epsilon":
        return (1.0 / alpha, -scale / alpha) if alpha else (math.nan, math.nan)
    if kind == "sample":
        return 0.0, 1.0
    if kind == "score":
        return 1.0 / alpha, scale**2 / alpha
    if kind == "flow_prediction" and level.family == FLOW:
        step = scale if level.token_scales is None else level.token_scales[..., None]
        return 1.0, step if level.to_data else -step
    if kind == "v_prediction" and level.family != FLOW:
        norm = math.hypot(alpha, scale)  # the v target is defined in the variance-preserving scale
        return alpha / norm**2, -scale / norm
    return None


def limits_of_x0(scheduler: Any) -> str:
    """How a scheduler limits the clean sample it works on; empty if it does not."""
    if _is_thresholded(scheduler):
        return "limited by the scheduler's dynamic thresholding"
    limit = _clip_range(scheduler)
    return f"clipped by the scheduler to ±{limit:g}" if limit else ""


def _is_thresholded(scheduler: Any) -> bool:
    # With predict_x0 off, UniPC works on the noise and leaves x0 alone.
    wanted = _config(scheduler, "thresholding") and _config(scheduler, "predict_x0") is not False
    return bool(wanted) and hasattr(scheduler, "_threshold_sample")


def _clip_range(scheduler: Any) -> float:
    if _config(scheduler, "clip_sample"):
        return float(_config(scheduler, "clip_sample_range") or 1.0)
    return 1.0 if _config(scheduler, "clip_denoised") else 0.0


def named_outputs(output: Any, names: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """A step's outputs by name, whether it returned its output class or the tuple of its fields.

    Args:
        output: What the step returned.
        names: The fields of its output class, as from :func:`output_names`.

    Returns:
        At least ``prev_sample``; no x0 of tokens, which are no quantities.
    """
    if hasattr(output, "keys"):
        named = {name: output[name] for name in list(output)}
    else:
        values = [output] if isinstance(output, torch.Tensor) else list(output)
        named = dict(zip(names, values, strict=True)) if len(names) == len(values) else {}
        named["prev_sample"] = values[0]
    for name in X0_NAMES:
        if isinstance(named.get(name), torch.Tensor) and not named[name].is_floating_point():
            del named[name]
    return named


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


def _common_time(timestep: Any) -> float:
    """The timestep that all samples share; nan if they do not."""
    if isinstance(timestep, torch.Tensor) and timestep.numel() > 1:
        flat = timestep.detach().reshape(-1)
        return float(flat[0]) if bool((flat == flat[0]).all()) else math.nan
    return as_number(timestep)


def _config(scheduler: Any, name: str) -> Any:
    """An entry of a scheduler's configuration, None if there is none or its code does not read it."""
    config: Any = getattr(scheduler, "config", None)
    value = config.get(name) if hasattr(config, "get") else getattr(config, name, None)
    read = value is None or name in _names_in_code(scheduler.__class__)
    # What is no scheduler of diffusers' may hand its configuration on to one that is.
    return value if read or not hasattr(scheduler, "register_to_config") else None


@functools.cache
def _names_in_code(scheduler: type) -> frozenset[str]:
    """All names that the methods of a class look up."""
    codes = [
        inspect.unwrap(getattr(method, "fget", None) or getattr(method, "__func__", method))
        for owner in scheduler.__mro__
        for method in vars(owner).values()
        if callable(method) or isinstance(method, property | classmethod | staticmethod)
    ]
    return frozenset(
        name
        for function in codes
        if isinstance(function, types.FunctionType)
        for code in _nested(function.__code__)
        for name in (*code.co_names, *code.co_consts)
        if isinstance(name, str)
    )


def _nested(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _nested(constant)


@functools.cache
def _step_arguments(scheduler: type) -> dict[str, str]:
    """The arguments of a scheduler's step, and how they are annotated."""
    step = getattr(scheduler, "step", None)
    if step is None:
        return {}
    return {name: str(p.annotation) for name, p in inspect.signature(step).parameters.items()}
