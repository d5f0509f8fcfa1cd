"""A trajectory as the few compact bytes a view draws from: pictures, maps, charts and words.

Everything is bounded, whatever the run's size: pictures are shrunk and maps averaged until they fit. What was
given up is told in the header's notes.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ldm_viz.imaging import (
    DIVERGING_DARK,
    DIVERGING_LIGHT,
    SEQUENTIAL,
    encode_image,
    fit_image,
)
from ldm_viz.statistics import (
    channel_maps,
    guidance_delta,
    latent_statistics,
    prediction_statistics,
    step_words,
)
from ldm_viz.trajectory.frames import middle_frame
from ldm_viz.trajectory.model import steps_in_words

if TYPE_CHECKING:
    from ldm_viz.trajectory import Trajectory

DELTA = "guidance delta"

# Bytes. Together under 6 MB, so that a saved notebook or an exported page stays easy to send.
FRAMES_BUDGET = 1_200_000  # each of the two series of pictures
MAPS_BUDGET = 3_300_000  # 50 steps × 4 branches × 4 × 64 × 64 bytes fits exactly as it is
FINE_MAPS_BUDGET = 900_000  # up to here a value gets 16 bits, else 8

# Longest side in pixels and WebP quality, from best to smallest.
FRAME_LADDER = (
    (384, 84), (384, 72), (320, 72), (256, 72), (256, 60), (192, 60), (160, 55), (128, 50), (96, 50), (64, 50),
    (48, 40), (32, 40), (16, 30),
)  # fmt: skip
EXACT_SIDE = 160  # pictures up to this size are kept to the pixel where they fit


@dataclass(frozen=True)
class Packed:
    """What goes over the wire."""

    header: dict[str, Any]  # JSON values only; says where everything in the bytes is
    frames: bytes  # WebP files end to end
    maps: bytes  # unsigned integer codes, see pack_maps
    charts: bytes  # float32, little-endian
    branches: tuple[str, ...]
    channels: int  # 0 where there are no maps


def pack(trajectory: Trajectory) -> Packed:
    """Pack a run for the explorer's view.

    Args:
        trajectory: the run.

    Returns:
        Header and bytes, under 6 MB together.
    """
    notes: list[str] = []
    frames, frames_header = pack_frames(trajectory, notes)
    maps, maps_header = pack_maps(trajectory, notes)
    charts, charts_header = pack_charts(trajectory)
    steps = len(trajectory)
    if not steps:
        notes.insert(0, "No step was recorded.")
    header = {
        "steps": steps,
        "batch": trajectory.batch_size,
        "samples": [_sample_text(trajectory, b) for b in range(trajectory.batch_size)],
        "facts": _facts(trajectory),
        "settings": _settings(trajectory.settings),
        "status": trajectory.status,
        "error": _cut(trajectory.error, 2000),
        "notes": notes,
        "words": [step_words(trajectory, i) for i in range(steps)],
        "frames_source": trajectory.frames_source,
        "frames": frames_header,
        "maps": maps_header,
        "charts": charts_header,
        "colours": {
            "light": list(DIVERGING_LIGHT),
            "dark": list(DIVERGING_DARK),
            "sequential": list(SEQUENTIAL),
        },
    }
    names = tuple(branch["name"] for branch in maps_header["branches"])
    return Packed(header, frames, maps, charts, names, maps_header["shape"][0] if names else 0)


def _cut(value: Any, limit: int) -> str:
    text = str(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _sample_text(trajectory: Trajectory, sample: int) -> dict[str, str]:
    """Prompt, negative prompt and seed of one sample."""

    def one(name: str) -> str:
        value = trajectory.settings.get(name)
        if isinstance(value, list | tuple) and value:
            value = value[min(sample * len(value) // trajectory.batch_size, len(value) - 1)]
        return "" if value is None else _cut(value, 4000)

    return {"prompt": one("prompt"), "negative": one("negative_prompt"), "seed": one("seed")}


def _facts(trajectory: Trajectory) -> list[list[str]]:
    """The settings worth a glance, as label and value; the seed comes with the sample."""
    settings = trajectory.settings
    count = steps_in_words(trajectory)
    planned = settings.get("num_inference_steps")
    whole = trajectory.part is None
    if whole and isinstance(planned, int) and planned != len(trajectory):
        count += f" ({planned} asked for)"
    facts = [["", count]]
    if settings.get("scheduler"):
        facts.insert(0, ["", _cut(settings["scheduler"], 80)])
    for name, label in (("guidance_scale", "guidance"), ("strength", "strength"), ("eta", "eta")):
        value = settings.get(name)
        if isinstance(value, int | float) and (value or name != "eta"):
            facts.append([label, f"{value:g}"])
    if settings.get("pipeline"):
        facts.append(["", _cut(settings["pipeline"], 80)])
    return facts


def _settings(settings: Mapping[str, Any]) -> list[list[str]]:
    """All settings, one line each, nested ones joined."""
    lines = []
    for name in settings:
        if name == "part":  # among the facts
            continue
        value = settings[name]
        if isinstance(value, Mapping):
            text = ", ".join(f"{key} {item}" for key, item in value.items())
        elif isinstance(value, list | tuple):
            text = ", ".join(map(str, value))
        else:
            text = str(value)
        lines.append([_cut(name, 60), _cut(text, 2000)])
    return lines


def pack_frames(trajectory: Trajectory, notes: list[str]) -> tuple[bytes, dict[str, Any]]:
    """Encode the pictures, series after series, sample after sample, step after step.

    Returns:
        The bytes, and for each series its size in pixels (``width``, ``height`` as sent, ``full`` as recorded)
        and the files' ``lengths``, one list a sample.
    """
    chunks: list[bytes] = []
    header: dict[str, Any] = {}
    series: dict[str, Any] = dict(trajectory.frames)
    if trajectory.images is not None:
        series["images"] = trajectory.images[None]
    for name, every in series.items():
        if not every.size:
            continue
        if every.ndim > 5:
            count = every.shape[2]
            _add_note(notes, f"Of the video, frame {count // 2} of {count} is shown.")
        pictures = np.asarray(every if every.ndim == 5 else middle_frame(every))
        encoded, shape = _encode_series(pictures, FRAMES_BUDGET if name != "images" else 150_000)
        chunks += [data for sample in encoded for data in sample]
        header[name] = {
            "width": shape[1],
            "height": shape[0],
            "full": [int(pictures.shape[3]), int(pictures.shape[2])],
            "lengths": [[len(data) for data in sample] for sample in encoded],
        }
    if "latents" not in header and "x0" not in header:
        notes.append("The run was recorded without pictures: its numbers are shown.")
    return b"".join(chunks), header


def _add_note(notes: list[str], note: str) -> None:
    if note not in notes:
        notes.append(note)


def _encode_series(pictures: np.ndarray, budget: int) -> tuple[list[list[bytes]], tuple[int, int]]:
    """Encode ``(n, batch, h, w, 3)`` at the best quality whose total stays within ``budget`` bytes."""
    n, batch, height, width = pictures.shape[:4]
    per_picture = budget / (n * batch)
    probes = [pictures[i, 0] for i in sorted({round(k * (n - 1) / 4) for k in range(5)})]
    ladder: list[tuple[int, int | None]] = list(FRAME_LADDER)
    if max(height, width) <= EXACT_SIDE:
        ladder.insert(0, (EXACT_SIDE, None))

    def encode(picture: np.ndarray, side: int, quality: int | None) -> bytes:
        return encode_image(fit_image(picture, side), "webp", quality)

    tried: set[tuple[int, int | None]] = set()
    for side, quality in ladder:
        rung = (min(side, max(height, width)), quality)
        if rung in tried:
            continue
        tried.add(rung)
        last = (side, quality) == ladder[-1]
        probed = sum(len(encode(probe, *rung)) for probe in probes) / len(probes)
        if probed > per_picture and not last:
            continue
        with ThreadPoolExecutor(min(os.cpu_count() or 1, 4)) as pool:
            places = [(i, b) for b in range(batch) for i in range(n)]
            files = list(pool.map(lambda place, rung=rung: encode(pictures[place], *rung), places))
        encoded = [files[b * n : (b + 1) * n] for b in range(batch)]
        if last or sum(len(data) for sample in encoded for data in sample) <= 1.1 * budget:
            return encoded, fit_image(pictures[0, 0], rung[0]).shape[:2]
    raise AssertionError("the last rung always returns")


def pack_maps(trajectory: Trajectory, notes: list[str]) -> tuple[bytes, dict[str, Any]]:
    """Quantise the noise predictions, branch after branch, sample after sample, step after step.

    A value v is sent as the unsigned integer ``half + round(v / scale · (half − 3))`` of ``bits`` bits, where
    ``half = 2^(bits − 1)`` and the scale is that step's largest magnitude. Codes 0, 1 and ``2^bits − 1`` are NaN,
    −∞ and +∞. Where a few huge outliers would cost the rest its resolution, the scale is smaller, and what lies
    beyond it gets the codes 2 and ``2^bits − 2``.

    Returns:
        The codes, and a header with ``shape`` (channels, h, w), ``bits``, the area ``factor`` that values were averaged
        over, and ``branches``: name and scales ``[sample][step]``.
    """
    stacks: dict[str, np.ndarray] = dict(trajectory.noise_prediction)
    delta = guidance_delta(trajectory)
    if delta is not None:
        stacks[DELTA] = delta
    empty: dict[str, Any] = {"shape": [0, 0, 0], "bits": 8, "factor": 1, "branches": []}
    if not stacks or not len(trajectory):
        if len(trajectory):
            notes.append("The run was recorded without noise predictions.")
        return b"", empty
    maps: dict[str, np.ndarray] = {}
    for name, values in stacks.items():
        laid, note = channel_maps(values, trajectory.latent_shape, trajectory.settings)
        if laid is None or not laid.size:
            notes.append(note)
            return b"", empty
        maps[name] = laid
    if note:
        notes.append(note)
    first = next(iter(maps.values()))
    steps, batch, channels, height, width = first.shape
    count, factor = len(maps), 1

    def size(factor: int) -> int:
        return count * steps * batch * channels * -(-height // factor) * -(-width // factor)

    while size(factor) > MAPS_BUDGET and factor < max(height, width):
        factor *= 2
    bits = 16 if 2 * size(factor) <= FINE_MAPS_BUDGET else 8
    if factor > 1:
        notes.append(f"To stay small, maps show the mean of each {factor}×{factor} values.")
    chunks, branches = [], []
    for name, values in maps.items():
        scales: list[list[float]] = []
        for b in range(batch):
            scales.append([])
            for i in range(steps):
                codes, scale = quantise(_area_mean(values[i, b], factor), bits)
                chunks.append(codes.tobytes())
                scales[-1].append(scale)
        branches.append({"name": name, "scales": scales})
    shape = [channels, -(-height // factor), -(-width // factor)]
    return b"".join(chunks), {"shape": shape, "bits": bits, "factor": factor, "branches": branches}


def quantise(values: np.ndarray, bits: int) -> tuple[np.ndarray, float]:
    """Code values as unsigned integers of ``bits`` bits, as `pack_maps` describes, with their scale."""
    data = np.asarray(values, dtype=np.float64)
    half = 1 << (bits - 1)
    finite = np.isfinite(data)
    sizes = np.abs(data[finite])
    scale = float(sizes.max()) if sizes.size else 0.0
    if sizes.size:
        usual = float(np.quantile(sizes, 0.99))
        if usual > 0 and scale > 30 * usual:
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


def _area_mean(values: np.ndarray, factor: int) -> np.ndarray:
    """Mean over squares of ``factor`` of ``(channels, h, w)``; edges are padded with their own values."""
    if factor == 1:
        return values
    channels, height, width = values.shape
    padding = ((0, 0), (0, -height % factor), (0, -width % factor))
    padded = np.pad(np.asarray(values, dtype=np.float32), padding, mode="edge")
    rows, columns = padded.shape[1] // factor, padded.shape[2] // factor
    with np.errstate(invalid="ignore", over="ignore"):
        return padded.reshape(channels, rows, factor, columns, factor).mean(axis=(2, 4))


def pack_charts(trajectory: Trajectory) -> tuple[bytes, list[dict[str, Any]]]:
    """Statistics as curves: float32 values, chart after chart, sample after sample, series after series.

    Returns:
        The values, and one header a chart: ``title``, ``hint``, ``kind`` (``channels``, ``band``, ``lines``), ``log``,
        ``series`` (labels) and ``points`` (how many values a series has).
    """
    charts: list[dict[str, Any]] = []
    chunks: list[np.ndarray] = []
    batch, steps = trajectory.batch_size, len(trajectory)
    latents = [latent_statistics(trajectory, b) for b in range(batch)]
    predictions = [prediction_statistics(trajectory, b) for b in range(batch)]

    def add(
        title: str,
        hint: str,
        kind: str,
        labels: Sequence[str],
        curves: Iterator[Sequence[np.ndarray]],
        log: bool = False,
    ) -> None:
        stacked = np.array([list(sample) for sample in curves], dtype=np.float64)
        if not stacked.size or not np.isfinite(stacked).any():
            return
        with np.errstate(over="ignore"):
            chunks.append(stacked.astype("<f4").ravel())
        charts.append(
            {"title": title, "hint": hint, "kind": kind, "log": log}
            | {"series": list(labels), "points": stacked.shape[2]}
        )

    if latents:
        numbers = [str(c) for c in range(latents[0].mean.shape[1])]
        each = "a line each channel" if len(numbers) > 1 else "one channel"
        add("Latents: mean", each, "channels", numbers, (list(s.mean.T) for s in latents))
        add("Latents: std", each, "channels", numbers, (list(s.std.T) for s in latents))
        ends = ("min", "max")
        add("Latents: range", "", "band", ends, ((s.minimum, s.maximum) for s in latents))
        add("Latents: norm", "Euclidean", "lines", ["norm"], ((s.norm,) for s in latents))
        if any(s.nonfinite.any() for s in latents):
            hint = "NaN or infinite"
            add("Latents: bad values", hint, "lines", ["count"], ((s.nonfinite,) for s in latents))
    if predictions and predictions[0].between_branches is not None:
        add(
            "Guidance agreement",
            "cosine of unconditional and conditional",
            "lines",
            ["cosine"],
            ((p.between_branches,) for p in predictions if p.between_branches is not None),
        )
    elif predictions and predictions[0].between_steps is not None:
        add(
            "Prediction against the step before",
            "cosine",
            "lines",
            ["cosine"],
            ((p.between_steps,) for p in predictions if p.between_steps is not None),
        )
    snrs = np.where(trajectory.snrs > 0, trajectory.snrs, np.nan)
    if steps and np.isfinite(snrs).any():
        hint = "power, logarithmic"
        add("Signal to noise", hint, "lines", ["SNR"], ((snrs,) for _ in range(batch)), log=True)
    return (np.concatenate(chunks).tobytes() if chunks else b""), charts


def shown_steps(steps: int, count: int = 6) -> list[int]:
    """At most ``count`` steps spread evenly over a run, first and last among them."""
    if steps <= 0:
        return []
    count = min(steps, count)
    return [math.floor(k * (steps - 1) / max(count - 1, 1) + 0.5) for k in range(count)]
