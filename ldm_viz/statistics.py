"""Figures of a run: latents and noise predictions over its steps, and the noise level in words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ldm_viz.latent_layouts import LatentLayout, guess_layout

if TYPE_CHECKING:
    from ldm_viz.trajectory import Trajectory

__all__ = [
    "LatentStatistics",
    "PredictionStatistics",
    "channel_maps",
    "expected_std",
    "format_figure",
    "format_timestep",
    "guidance_delta",
    "latent_statistics",
    "noise_words",
    "prediction_statistics",
    "step_words",
    "video_frames",
]


@dataclass(frozen=True, eq=False)
class LatentStatistics:
    """Statistics of one sample's latents, before every step and after the last.

    Each figure is of the finite values alone; ``nonfinite`` counts the others. A figure with no finite
    value is NaN.
    """

    mean: np.ndarray  # (steps + 1, channels) float64
    std: np.ndarray  # (steps + 1, channels) float64, of the population (divided by n)
    minimum: np.ndarray  # (steps + 1,) float64
    maximum: np.ndarray  # (steps + 1,) float64
    norm: np.ndarray  # (steps + 1,) float64, Euclidean, over all values
    nonfinite: np.ndarray  # (steps + 1,) int64: how many values are NaN or infinite


@dataclass(frozen=True, eq=False)
class PredictionStatistics:
    """Statistics of one sample's noise predictions, at every step. Absent ones are None."""

    norms: Mapping[str, np.ndarray]  # branch -> (steps,) float64, Euclidean
    between_branches: np.ndarray | None  # (steps,) cosine of unconditional and conditional
    between_steps: np.ndarray | None  # (steps,) cosine with the step before; NaN at step 0


def channel_maps(
    values: np.ndarray,
    latent_shape: tuple[int, ...],
    settings: Mapping[str, Any] | None = None,
    at: float = 0.5,
) -> tuple[np.ndarray | None, str]:
    """Lay latents out as one map a channel.

    Plain latents ``(channels, h, w)`` are maps already. Packed ones, as Flux has them, are unpacked as the
    run's ``latent_layout`` says or, without it, when the picture's ``height`` and ``width`` tell how. Of a
    video one frame is taken.

    Args:
        values: array of shape ``(…, *latent_shape)``.
        latent_shape: shape of one sample's latents.
        settings: the run's settings; ``latent_layout``, ``height`` and ``width`` are read.
        at: which frame of a video, from 0 for the first to 1 for the last; the one in the middle by default.

    Returns:
        The maps ``(…, channels, h, w)``, or None where there is no such layout, and a note in words
        on what was done (empty for plain latents).
    """
    layout = _layout(latent_shape, settings or {})
    shape = "×".join(map(str, latent_shape)) or "scalar"
    if layout is None:
        if len(latent_shape) == 2:
            return None, f"Packed latents ({shape}) with no known grid: there are no maps."
        return None, f"Latents of shape {shape} have no layout in space: there are no maps."
    maps = layout.unpack(values)
    note = f"Packed latents ({shape}), unpacked for the maps." if "(" in layout.pattern else ""
    if layout.is_video:
        count = maps.shape[-3]
        frame = math.floor(at * (count - 1) + 0.5)
        note = f"Video latents: frame {frame} of {count} is shown as maps."
        maps = maps[..., frame, :, :]
    return maps, note


def video_frames(latent_shape: tuple[int, ...], settings: Mapping[str, Any] | None = None) -> int:
    """How many frames of a video latents of this shape hold; 0 where they are no video's.

    Args:
        latent_shape: shape of one sample's latents.
        settings: the run's settings, as for `channel_maps`.
    """
    layout = _layout(latent_shape, settings or {})
    if layout is None or not layout.is_video:
        return 0
    return int(layout.unpack(np.empty(latent_shape, np.bool_)).shape[-3])


def _layout(latent_shape: tuple[int, ...], settings: Mapping[str, Any]) -> LatentLayout | None:
    """The layout that a run says it has, if it fits; else the likeliest."""
    told = LatentLayout.read(settings.get("latent_layout"))
    if told is not None:
        try:
            told.unpack(np.empty(latent_shape, np.bool_))
            return told
        except ValueError:
            pass
    height, width = settings.get("height"), settings.get("width")
    if isinstance(height, int) and isinstance(width, int):
        return guess_layout(latent_shape, picture=(height, width))
    return guess_layout(latent_shape)


def _by_channel(
    values: np.ndarray, latent_shape: tuple[int, ...], settings: Mapping[str, Any]
) -> np.ndarray:
    """Rearrange ``(n, *latent_shape)`` to ``(n, channels, values)``; with no layout, channels last."""
    n, layout = len(values), _layout(latent_shape, settings)
    if layout is not None:
        planes = layout.unpack(values)
        return planes.reshape(n, planes.shape[1], math.prod(planes.shape[2:]))
    if len(latent_shape) == 2:
        return values.transpose(0, 2, 1)
    return values.reshape(n, 1, math.prod(latent_shape))


def _check_sample(trajectory: Trajectory, sample: int) -> int:
    size = trajectory.latents.shape[1]
    if isinstance(sample, bool) or not isinstance(sample, int | np.integer):
        raise TypeError(f"sample must be an integer, not {type(sample).__name__}")
    if not 0 <= sample < size:
        raise IndexError(f"sample must be between 0 and {size - 1}, not {sample}")
    return int(sample)


def latent_statistics(trajectory: Trajectory, sample: int = 0) -> LatentStatistics:
    """Mean and std by channel, extremes and norm of the latents before every step and after the last.

    Args:
        trajectory: the run.
        sample: position in the batch.

    Returns:
        The statistics, each over ``steps + 1`` positions.

    Raises:
        IndexError: there is no such sample.

    Example:
        >>> latent_statistics(trajectory).std[-1]  # doctest: +SKIP
        array([0.91, 1.02, 0.88, 1.13])
    """
    sample = _check_sample(trajectory, sample)
    latents = np.asarray(trajectory.latents[:, sample])
    groups = _by_channel(latents, latents.shape[1:], trajectory.settings)
    n, channels = groups.shape[:2]
    mean, std = np.full((n, channels), np.nan), np.full((n, channels), np.nan)
    minimum, maximum, norm = (np.full(n, np.nan) for _ in range(3))
    nonfinite = np.zeros(n, dtype=np.int64)
    for i in range(n):
        data = groups[i].astype(np.float64)
        finite = np.isfinite(data)
        nonfinite[i] = data.size - np.count_nonzero(finite)
        if nonfinite[i] == 0 and data.size:
            mean[i], std[i] = data.mean(axis=1), data.std(axis=1)
        else:
            for c in range(channels):
                kept = data[c][finite[c]]
                if kept.size:
                    mean[i, c], std[i, c] = kept.mean(), kept.std()
        kept = data[finite]
        if kept.size:
            minimum[i], maximum[i], norm[i] = kept.min(), kept.max(), np.sqrt(np.square(kept).sum())
    return LatentStatistics(mean, std, minimum, maximum, norm, nonfinite)


def guidance_delta(trajectory: Trajectory) -> np.ndarray | None:
    """The direction guidance pushes in: conditional − unconditional noise prediction.

    Returns:
        Array of shape ``(steps, batch, *latent)``, or None when the run did not record both branches.
    """
    branches = trajectory.noise_prediction
    if "conditional" not in branches or "unconditional" not in branches:
        return None
    conditional = np.asarray(branches["conditional"], dtype=np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        return conditional - np.asarray(branches["unconditional"], dtype=np.float32)


def _norms(rows: np.ndarray) -> np.ndarray:
    """Euclidean norms of rows; not by BLAS, whose threads take longer to start than this takes."""
    return np.sqrt(np.square(rows).sum(axis=1))


def _cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosine of the angle between the rows of ``(n, values)``; NaN where one is zero or not finite."""
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        product = np.einsum("ij,ij->i", a, b)
        return product / (_norms(a) * _norms(b))


def prediction_statistics(trajectory: Trajectory, sample: int = 0) -> PredictionStatistics:
    """Norms of the noise predictions and how much they agree, at every step.

    Args:
        trajectory: the run.
        sample: position in the batch.

    Raises:
        IndexError: there is no such sample.
    """
    sample = _check_sample(trajectory, sample)
    size = math.prod(trajectory.latents.shape[2:])
    flat = {
        branch: np.asarray(values[:, sample], dtype=np.float64).reshape(len(values), size)
        for branch, values in trajectory.noise_prediction.items()
    }
    with np.errstate(invalid="ignore", over="ignore"):
        norms = {branch: _norms(values) for branch, values in flat.items()}
    between_branches = between_steps = None
    if "unconditional" in flat and "conditional" in flat:
        between_branches = _cosines(flat["unconditional"], flat["conditional"])
    if "guided" in flat and len(flat["guided"]):
        guided = flat["guided"]
        between_steps = np.concatenate([[np.nan], _cosines(guided[:-1], guided[1:])])
    return PredictionStatistics(norms, between_branches, between_steps)


def expected_std(trajectory: Trajectory) -> np.ndarray:
    """Standard deviation that the noise schedule gives latents whose clean form has unit variance.

    A sample is ``alpha * x0 + scale * noise``, and autoencoders are scaled so that ``x0`` has a
    variance of about 1: the sample's is then ``alpha**2 + scale**2``. That is 1 throughout for
    variance-preserving schedules, ``1 + sigma**2`` for exploding ones (Karras et al., 2022,
    https://arxiv.org/abs/2206.00364) and ``(1 - sigma)**2 + sigma**2`` for flow matching.

    Args:
        trajectory: the run; its ``sigmas`` and ``settings["noise_schedule"]`` are read.

    Returns:
        Shape ``(steps + 1,)``, float64, before every step and after the last. NaN where the noise
        level is not known.

    Example:
        >>> expected_std(trajectory)[-1]  # doctest: +SKIP
        1.0
    """
    sigmas = np.asarray(trajectory.sigmas, dtype=np.float64)
    family = trajectory.settings.get("noise_schedule")
    if family == "variance preserving":
        variances = np.where(np.isnan(sigmas), np.nan, 1.0)
    elif family == "variance exploding":
        variances = 1 + sigmas**2
    elif family == "flow":
        variances = (1 - sigmas) ** 2 + sigmas**2
    else:
        return np.full(len(sigmas) + 1, np.nan)
    part = trajectory.part
    clean = trajectory.complete and len(sigmas) > 0 and (part is None or part[1] == part[2])
    return np.sqrt(np.append(variances, 1.0 if clean else np.nan))


_WORDS = (
    (0.01, "almost pure noise"),
    (0.4, "mostly noise"),
    (2.5, "noise and picture in equal parts"),
    (100.0, "mostly picture"),
    (math.inf, "almost clean"),
)


def noise_words(snr: float) -> str:
    """Say a signal-to-noise ratio (a ratio of powers) in words; empty when it is not known."""
    if math.isnan(snr):
        return ""
    return next(words for bound, words in _WORDS if snr <= bound)


def format_figure(value: float) -> str:
    """Write a number with three significant figures: ``3.12``, ``0.100``, ``721``, ``1.2e-5``."""
    value = float(value)
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if value == 0:
        return "0"
    if not 1e-3 <= abs(value) < 1e5:
        digits, exponent = f"{value:.1e}".split("e")
        return f"{digits.replace('-', '−')}e{int(exponent)}"
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{decimals}f}".replace("-", "−")


def format_timestep(timestep: float) -> str:
    """Write a scheduler's timestep: whole ones with no fraction, others with one digit or three figures."""
    timestep = float(timestep)
    if math.isfinite(timestep) and timestep == round(timestep):
        return f"{timestep:.0f}"
    return f"{timestep:.1f}" if abs(timestep) >= 100 else format_figure(timestep)


def step_words(trajectory: Trajectory, step: int) -> str:
    """Say where a step stands: its timestep, noise level and signal-to-noise ratio.

    Example:
        >>> step_words(trajectory, 7)  # doctest: +SKIP
        'step 7 of 25 · timestep 721 · σ 3.12 · SNR 0.103: mostly noise'
    """
    parts = [f"step {step} of {len(trajectory.timesteps)}"]
    timestep = float(trajectory.timesteps[step])
    if not math.isnan(timestep):
        parts.append(f"timestep {format_timestep(timestep)}")
    sigma, snr = float(trajectory.sigmas[step]), float(trajectory.snrs[step])
    if not math.isnan(sigma):
        parts.append(f"σ {format_figure(sigma)}")
    if not math.isnan(snr):
        parts.append(f"SNR {format_figure(snr)}: {noise_words(snr)}")
    return " · ".join(parts)
