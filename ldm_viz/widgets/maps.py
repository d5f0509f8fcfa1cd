"""Latents and noise predictions as compact codes, laid out as one map a channel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ldm_viz.statistics import channel_maps, guidance_delta, video_frames

if TYPE_CHECKING:
    from ldm_viz.trajectory import Trajectory

DELTA = "guidance delta"
LATENTS = "latents"

BUDGET = 3_300_000  # bytes: 50 steps × 4 stacks × 4 × 64 × 64 fits exactly as it is
FINE_BUDGET = 900_000  # up to here a value gets 16 bits, else 8

_OUTLYING = 30  # times the 99th percentile


def pack_maps(
    trajectory: Trajectory, notes: list[str], at: float = 0.5
) -> tuple[bytes, dict[str, Any]]:
    """Quantise the noise predictions and the latents, stack after stack, sample after sample, step after step.

    A value v is sent as the unsigned integer ``half + round(v / scale · (half − 3))`` of ``bits`` bits, where
    ``half = 2^(bits − 1)`` and the scale is that step's largest magnitude. Codes 0, 1 and ``2^bits − 1`` are NaN,
    −∞ and +∞. Where a few huge outliers would cost the rest its resolution, the scale is smaller, and what lies
    beyond it gets the codes 2 and ``2^bits − 2``.

    Where space is short, the conditional prediction is not sent: it is the unconditional one plus the guidance
    delta, and the delta, being small, is coded much more finely.

    Args:
        trajectory: the run.
        notes: what is worth saying about the maps is added to it.
        at: which frame of a video, from 0 for the first to 1 for the last.

    Returns:
        The codes, and a header with ``shape`` (channels, h, w), ``bits``, the area ``factor`` that values were averaged
        over, ``steps``, ``batch`` and ``stacks``: a name, and scales ``[sample][step]`` or the two stacks it is the
        sum of.
    """
    steps, batch = len(trajectory), trajectory.batch_size
    header: dict[str, Any] = {"shape": [0, 0, 0], "bits": 8, "factor": 1}
    header |= {"steps": steps, "batch": batch, "stacks": []}
    if not steps:
        return b"", header
    if not trajectory.noise_prediction:
        notes.append("The run was recorded without noise predictions.")
    maps, note = _laid_out(trajectory, at)
    if note and not (maps and video_frames(trajectory.latent_shape, trajectory.settings)):
        notes.append(note)  # which frame of a video is shown, the view tells
    if not maps:
        return b"", header
    channels, height, width = next(iter(maps.values())).shape[2:]
    summed = _is_sum(maps)

    def size(factor: int, coded: int) -> int:
        sides = -(-height // factor) * -(-width // factor)
        return coded * steps * batch * channels * sides

    bits = 16 if 2 * size(1, len(maps)) <= FINE_BUDGET else 8
    summed &= bits == 8
    factor, coded = 1, len(maps) - summed
    while size(factor, coded) > BUDGET and factor < max(height, width):
        factor *= 2
    if factor > 1:
        notes.append(f"To stay small, maps show the mean of each {factor}×{factor} values.")
    chunks = []
    for name, values in maps.items():
        if summed and name == "conditional":
            header["stacks"].append({"name": name, "sum": ["unconditional", DELTA]})
            continue
        scales: list[list[float]] = []
        for b in range(batch):
            scales.append([])
            for i in range(steps):
                codes, scale = quantise(area_mean(values[i, b], factor), bits)
                chunks.append(codes.tobytes())
                scales[-1].append(scale)
        header["stacks"].append({"name": name, "scales": scales})
    header["shape"] = [channels, -(-height // factor), -(-width // factor)]
    return b"".join(chunks), header | {"bits": bits, "factor": factor}


def _laid_out(trajectory: Trajectory, at: float) -> tuple[dict[str, np.ndarray], str]:
    """Stacks ``(steps, batch, channels, h, w)`` by name, and what there is to say about their layout."""
    stacks: dict[str, np.ndarray] = dict(trajectory.noise_prediction)
    delta = guidance_delta(trajectory)
    if delta is not None:
        stacks[DELTA] = delta
    stacks[LATENTS] = trajectory.latents[: len(trajectory)]
    maps: dict[str, np.ndarray] = {}
    note = ""
    for name, values in stacks.items():
        laid, note = channel_maps(values, trajectory.latent_shape, trajectory.settings, at)
        if laid is None or not laid.size:
            return {}, note
        maps[name] = laid
    return maps, note


def _is_sum(maps: dict[str, np.ndarray]) -> bool:
    """Whether the conditional prediction can be had from the other two: no value is bad or an outlier."""
    if DELTA not in maps:
        return False
    for name in ("unconditional", DELTA):
        sizes = np.abs(maps[name]).reshape(*maps[name].shape[:2], -1)
        with np.errstate(invalid="ignore"):
            largest = sizes.max(axis=-1)
        if not np.isfinite(largest).all():
            return False
        # Where a scale leaves outliers out, a sum would not know of them.
        usual = np.quantile(sizes, 0.99, axis=-1)
        if (largest > _OUTLYING * usual).any():
            return False
    return True


def quantise(
    values: np.ndarray, bits: int, outlying: float = _OUTLYING
) -> tuple[np.ndarray, float]:
    """Code values as unsigned integers of ``bits`` bits, as `pack_maps` describes, with their scale.

    Args:
        values: what is coded.
        bits: 8 or 16.
        outlying: how many times the 99th percentile the largest may be before it is left out of the scale.
    """
    data = np.asarray(values, dtype=np.float64)
    half = 1 << (bits - 1)
    finite = np.isfinite(data)
    sizes = np.abs(data[finite])
    scale = float(sizes.max()) if sizes.size else 0.0
    # With so large a mean the 99th percentile cannot be that small: saves most of the time.
    if sizes.size and (sizes.size < 200 or sizes.mean() < scale * (1 / outlying + 0.02)):
        usual = float(np.quantile(sizes, 0.99))
        if usual > 0 and scale > outlying * usual:
            scale = 4 * usual
    # Seven digits are what the header can carry, so quantise with exactly what the view will read.
    scale = float(f"{scale:.7g}")
    span = half - 3
    ratio = np.where(finite, data, 0) / (scale or 1.0)
    codes = half + np.rint(np.clip(ratio, -1, 1) * span)
    # A hundredth of a code beyond is rounding of the scale, not an outlier.
    beyond = np.abs(ratio) > 1 + 0.01 / span
    codes[beyond] = half + np.sign(ratio[beyond]) * (half - 2)
    codes[np.isnan(data)] = 0
    codes[np.isneginf(data)] = 1
    codes[np.isposinf(data)] = 2 * half - 1
    return codes.astype("<u1" if bits == 8 else "<u2"), scale


def area_mean(values: np.ndarray, factor: int) -> np.ndarray:
    """Mean over squares of ``factor`` of ``(channels, h, w)``; edges are padded with their own values."""
    if factor == 1:
        return values
    channels, height, width = values.shape
    padding = ((0, 0), (0, -height % factor), (0, -width % factor))
    padded = np.pad(np.asarray(values, dtype=np.float32), padding, mode="edge")
    rows, columns = padded.shape[1] // factor, padded.shape[2] // factor
    with np.errstate(invalid="ignore", over="ignore"):
        return padded.reshape(channels, rows, factor, columns, factor).mean(axis=(2, 4))
