"""What an export shows: for every series one picture at each step, and one at the end.

Positions count the steps of a run from 0; the position after the last step is its end.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ldm_viz.imaging import colourise
from ldm_viz.statistics import channel_maps, format_figure
from ldm_viz.trajectory.frames import FrameSeries

if TYPE_CHECKING:
    from ldm_viz.trajectory import Trajectory

DELTA = "guidance delta"

_QUANTILE = 0.998  # of the magnitudes gets the strongest colour, as in the explorer
_LIMIT_VALUES = 2**18  # values that are looked at for it
_NOT_COMPUTED = 232  # grey
_NOISE = "noise prediction, "


@dataclass(frozen=True)
class Panel:
    """One of the pictures side by side.

    Attributes:
        symbol: Letter and index of what is shown, such as ``("x", "t")``; empty where it has none.
        titles: What is shown, in ever fewer words.
        short: The same, as a contact sheet has room for it.
        scale: What the strongest colour of a heatmap stands for, such as ``"±2.91"``; else empty.
        size: Height and width of a picture as ``read`` gives it.
        sharp: Whether its pixels are values, whose edges stay sharp when it is enlarged.
        count: How many positions have a picture of their own; those beyond repeat the last.
        read: Takes positions, returns as many pictures ``(n, h, w, 3)``, uint8.
    """

    symbol: tuple[str, str]
    titles: tuple[str, ...]
    short: str
    scale: str
    size: tuple[int, int]
    sharp: bool
    count: int
    read: Callable[[Sequence[int]], np.ndarray]


def checked_sample(run: Trajectory, sample: int) -> int:
    """A position in the batch.

    Raises:
        IndexError: There is no such sample.
        TypeError: It is no whole number.
    """
    try:
        index = operator.index(sample)
    except TypeError:
        raise TypeError(f"sample must be an integer, not {sample!r}.") from None
    if not 0 <= index < run.batch_size:
        raise IndexError(f"sample must be between 0 and {run.batch_size - 1}, not {sample}.")
    return index


def known_series(run: Trajectory) -> tuple[str, ...]:
    """The names of what can be shown of a run."""
    names = ["latents"]
    if run.x0 is not None or "x0" in run.frames:
        names.append("x0")
    names += run.noise_prediction
    if {"conditional", "unconditional"} <= set(run.noise_prediction):
        names.append(DELTA)
    return tuple(names)


def make_panels(
    run: Trajectory, series: str | Sequence[str] | None, sample: int, channel: int
) -> list[Panel]:
    """Panels of the series named; of latents and x0 where None.

    Raises:
        IndexError: There is no such sample or channel.
        ValueError: There is no such series, or it can be shown neither as a picture nor as a map.
    """
    sample = checked_sample(run, sample)
    known = known_series(run)
    names = (series,) if isinstance(series, str) else series
    if names is None:
        names = [name for name in ("latents", "x0") if name in (run.frames or known)]
    if not names:
        raise ValueError(f"series is empty; this run has {', '.join(known)}.")
    for name in names:
        if name not in known:
            raise ValueError(f"unknown series {name!r}; this run has {', '.join(known)}.")
    return [
        _picture_panel(run, name, sample)
        if name in run.frames
        else _map_panel(run, name, sample, channel)
        for name in names
    ]


def make_video_panel(run: Trajectory, sample: int) -> tuple[Panel, int]:
    """A panel of the finished video's own frames, whose positions count these, and how many they are.

    Raises:
        IndexError: There is no such sample.
        ValueError: The run has no finished video.
    """
    sample = checked_sample(run, sample)
    if run.images is not None and run.images.ndim == 5:
        video = run.images[sample]
    elif "latents" in run.frames and run.frames["latents"].ndim == 6:
        video = run.frames["latents"][len(run), sample]
    else:
        raise ValueError(
            "video='final' exports the frames of a finished video, but this run has none; "
            "video='middle' exports its steps."
        )

    def read(positions: Sequence[int]) -> np.ndarray:
        return video[list(positions)]

    size = (video.shape[1], video.shape[2])
    count = len(video)
    return Panel(
        ("", ""), ("finished video",), "finished\nvideo", "", size, False, count, read
    ), count


def _picture_panel(run: Trajectory, name: str, sample: int) -> Panel:
    series, end = run.frames[name], len(run)
    middle = (series.shape[2] // 2,) if series.ndim == 6 else ()

    finished = _finished(run, sample)

    def read(positions: Sequence[int]) -> np.ndarray:
        numbers = [min(position, len(series) - 1) for position in positions]
        # The export's own progress counts these too.
        quiet = series.source.quietly() if isinstance(series, FrameSeries) else nullcontext()
        with quiet:
            pictures = np.array(series[(numbers, sample, *middle)])
        if end in positions and finished is not None:
            source, place = finished
            pictures[[position == end for position in positions]] = source[(*place, *middle)]
        return pictures

    index, titles, short = {
        "latents": ("t", ("the sample",), "x_t"),
        "x0": ("0", ("predicted clean picture", "predicted"), "predicted\nx0"),
    }[name]
    size = (series.shape[-3], series.shape[-2])
    count = len(series) if finished is None else end + 1
    return Panel(("x", index), titles, short, "", size, False, count, read)


def _finished(run: Trajectory, sample: int) -> tuple[Any, tuple[int, ...]] | None:
    """The pictures in which the finished one is, and where; None where the run broke off."""
    if not run.complete or (run.part is not None and run.part[1] != run.part[2]):
        return None
    shape = next(iter(run.frames.values())).shape[2:]
    if run.images is not None and run.images.shape[1:] == shape:
        return run.images, (sample,)
    if "latents" in run.frames:
        return run.frames["latents"], (len(run), sample)
    return None


def _map_panel(run: Trajectory, name: str, sample: int, channel: int) -> Panel:
    values, count = _values(run, name, sample)
    maps, note = channel_maps(values(0), run.latent_shape, run.settings)
    if maps is None or not maps.size:
        raise ValueError(f"{name!r} has neither pictures nor maps. {note}")
    if not 0 <= channel < len(maps):
        raise IndexError(f"channel must be between 0 and {len(maps) - 1}, not {channel}.")

    def one(step: int) -> np.ndarray:
        maps, _ = channel_maps(values(step), run.latent_shape, run.settings)
        return np.asarray(maps[channel], np.float64)  # type: ignore[index]

    limit = _robust_limit(one, count, math.prod(maps.shape[-2:]))
    branch = name not in ("latents", "x0", "guided")

    def paint(step: int) -> np.ndarray:
        data = one(step)
        if branch and np.isnan(data).all():
            return np.full((*data.shape, 3), _NOT_COMPUTED, np.uint8)
        return colourise(data, limit)

    def read(positions: Sequence[int]) -> np.ndarray:
        return np.stack([paint(min(position, count - 1)) for position in positions])

    symbol, words = {
        "latents": (("x", "t"), "latents"),
        "x0": (("x", "0"), "predicted latents"),
        DELTA: (("", ""), "guidance delta"),
    }.get(name, (("", ""), f"{_NOISE}{name}"))
    which = f", channel {channel}" if len(maps) > 1 else ""
    titles = (f"{words}{which}", f"{words.removeprefix(_NOISE)}{which}", words.removeprefix(_NOISE))
    short = {
        "latents": "x_t, latents",
        "x0": "x0, latents",
        DELTA: "guidance\ndelta",
        # In one line it would be a little too wide for a contact sheet's margin.
        "unconditional": "uncon-\nditional",
    }.get(name, name)
    size = (maps.shape[-2], maps.shape[-1])
    scale = f"±{format_figure(limit)}"
    return Panel(symbol, titles, short, scale, size, True, count, read)


def _values(run: Trajectory, name: str, sample: int) -> tuple[Callable[[int], np.ndarray], int]:
    """One sample's values of a series by step, and how many steps it has."""
    if name == DELTA:
        conditional = run.noise_prediction["conditional"]
        unconditional = run.noise_prediction["unconditional"]

        def difference(step: int) -> np.ndarray:
            with np.errstate(invalid="ignore", over="ignore"):
                return conditional[step, sample].astype(np.float32) - unconditional[step, sample]

        return difference, len(run)
    if name == "latents" and run.settings.get("noise_schedule") == "variance exploding":
        # In one scale with the first, the last would be too pale to see.
        scales = np.append(1 / np.sqrt(1 + np.nan_to_num(run.sigmas) ** 2), 1.0)
        return (lambda step: run.latents[step, sample] * scales[step]), len(run) + 1
    stored: Any = {"latents": run.latents, "x0": run.x0}.get(name)
    array = run.noise_prediction[name] if stored is None else stored
    return (lambda step: array[step, sample]), len(array)


def _robust_limit(one: Callable[[int], np.ndarray], count: int, area: int) -> float:
    """The magnitude that nearly all values of all steps stay below."""
    stride = max(1, math.ceil(count * area / _LIMIT_VALUES))
    values = np.concatenate([one(step).ravel() for step in range(0, count, stride)])
    magnitudes = np.abs(values[np.isfinite(values)])
    return float(np.quantile(magnitudes, _QUANTILE)) if magnitudes.size else 0.0
