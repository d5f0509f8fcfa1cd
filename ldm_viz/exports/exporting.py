"""`export` and `animate`: a run as a file, or as frames for a writer of one's own."""

from __future__ import annotations

import math
import operator
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ldm_viz.imaging import contact_sheet, encode_image
from ldm_viz.trajectory.model import steps_in_words

from .film import Film, Words, describe_steps, plain_text
from .panels import Panel, checked_sample, make_panels, make_video_panel
from .writers import (
    check_memory,
    make_palette,
    write_gif,
    write_mp4,
    write_webp,
    written_whole,
)

if TYPE_CHECKING:
    from ldm_viz.trajectory import Trajectory

SUFFIXES = {
    ".gif": "an animation that everything shows",
    ".webp": "an animation, smaller and with all colours",
    ".mp4": "a video, written by the ffmpeg on PATH",
    ".png": "a contact sheet",
    ".html": "the explorer on one page",
}
"""What `export` can write, by the ending of the file's name."""

_SIZES = (16, 4096)  # pixels
_SHEET_SIZE = 192  # pixels
_SHEET_STEPS = 7  # and the end
_ROW_LABEL = 13  # characters that fit beside a row
_PALETTE_FRAMES = 12
_QUALITY = {".webp": 80, ".mp4": 80}


def export(
    run: Trajectory,
    path: str | os.PathLike[str],
    *,
    series: str | Sequence[str] | None = None,
    sample: int = 0,
    steps: int | Sequence[int] | None = None,
    size: int | None = None,
    fps: float = 8.0,
    hold: float | None = None,
    labels: bool = True,
    quality: int | None = None,
    channel: int = 0,
    video: str = "middle",
    progress: bool | None = None,
) -> Path:
    """Write a run as an animation, a contact sheet or a page; the file's ending tells which.

    The file appears whole or not at all: one that was there before stays until the new one is done.

    Args:
        run: the run, as `record` returns it or `open_trajectory` reads it.
        path: where to; ``.gif``, ``.webp``, ``.mp4`` (needs ffmpeg on PATH), ``.png`` (a contact sheet)
            or ``.html`` (the explorer, for which only ``sample`` and ``fps`` count).
        series: what is shown, side by side or row by row: ``"latents"`` (the sample, decoded),
            ``"x0"`` (the predicted clean picture), a branch of the noise prediction such as
            ``"guided"``, or ``"guidance delta"``. Latents and x0 by default. Where a run has no
            pictures, they are shown as heatmaps.
        sample: position in the batch.
        steps: how many steps, evenly apart, or which ones, counted from 0; all by default, of a contact
            sheet seven. The end of the run is always shown after them.
        size: the longer side of each picture in pixels; by default as they are, but within 256 to 512,
            and 192 in a contact sheet.
        fps: steps a second, 0.1 to 60, and in a GIF 50 at most.
        hold: seconds that the last frame stays; 1 by default, and 0 for a finished video.
        labels: whether titles, the words of the step and a line of progress are drawn.
        quality: 0 to 100, of WebP and MP4 only; 80 by default.
        channel: the latent channel of heatmaps.
        video: of a run that made a video, ``"middle"`` shows the frame in the middle at every step,
            ``"final"`` plays the finished video's own frames instead.
        progress: whether to show a progress bar; by default when it takes longer than a second.

    Returns:
        The path written.

    Raises:
        ValueError: the ending, a series or another argument is unknown or out of bounds, or the run has
            no step.
        IndexError: there is no such sample, step or channel.
        TypeError: this is no run, or an argument is no number.
        OSError: there is no such folder, or nothing can be written there.
        ExportError: there is no ffmpeg, or it failed.

    Example:
        >>> export(run, "boat.gif", series=("latents", "x0", "guided"))  # doctest: +SKIP
        PosixPath('boat.gif')
    """
    path = Path(path)
    suffix = checked_target(path)
    _check_run(run)
    fps, hold = _checked_times(suffix, fps, hold, video)
    quality = _checked_quality(suffix, quality)
    if suffix == ".html":
        _refuse_for_pages(series=series, steps=steps, size=size)
        return _write_page(run, path, sample, fps)
    if suffix == ".png" and steps is None and video != "final":
        steps = _SHEET_STEPS
    film, panels = _make_film(run, series, sample, steps, size, labels, channel, video)
    if suffix == ".png":
        sheet = _make_sheet(run, film, panels, sample, size or _SHEET_SIZE, labels)
        with written_whole(path) as part:
            part.write_bytes(encode_image(sheet, "png"))
        return path
    seconds = [1 / fps] * (len(film) - 1) + [max(hold, 1 / fps)]
    write_film(path, suffix, film, seconds, fps=fps, quality=quality, progress=progress)
    return path


def write_film(
    path: Path,
    suffix: str,
    film: Film,
    seconds: Sequence[float],
    *,
    fps: float,
    quality: int = 80,
    progress: bool | None = False,
) -> None:
    """Write a film as an animation, which appears whole or not at all.

    Args:
        path: where to.
        suffix: what to write: ``".gif"``, ``".webp"`` or ``".mp4"``.
        film: its frames.
        seconds: how long each is shown, ``1 / fps`` or more.
        fps: frames a second of an MP4, in which a frame is repeated as long as it is shown.
        quality: 0 to 100, of WebP and MP4.
        progress: whether to show a progress bar; None when it takes longer than a second.

    Raises:
        ValueError: a GIF or WebP would be too large.
        ExportError: there is no ffmpeg, or it failed.
    """
    if suffix != ".mp4":
        check_memory(film.nbytes)
    with written_whole(path) as part:
        frames = _told(film, len(film), progress, f"Writing {path.name}")
        if suffix == ".gif":
            palette = make_palette(film.frames(_spread(len(film), _PALETTE_FRAMES)))
            write_gif(part, frames, palette, seconds)
        elif suffix == ".webp":
            write_webp(part, frames, seconds, quality)
        else:
            repeats = [max(1, round(time * fps)) for time in seconds]
            write_mp4(part, frames, repeats, fps, quality)


def animate(
    run: Trajectory,
    *,
    series: str | Sequence[str] | None = None,
    sample: int = 0,
    steps: int | Sequence[int] | None = None,
    size: int | None = None,
    labels: bool = True,
    channel: int = 0,
    video: str = "middle",
    progress: bool | None = False,
) -> Iterator[np.ndarray]:
    """The frames that `export` writes, for a writer of your own; arguments as there.

    Returns:
        One frame a step and one for the end, each of the same shape ``(height, width, 3)``, uint8. They
        are drawn when they are asked for.

    Raises:
        ValueError: a series or another argument is unknown or out of bounds, or the run has no step.
        IndexError: there is no such sample, step or channel.

    Example:
        >>> for frame in animate(run, series="x0"):  # doctest: +SKIP
        ...     writer.append_data(frame)
    """
    _check_run(run)
    film, _ = _make_film(run, series, sample, steps, size, labels, channel, video)
    return _told(film, len(film), progress, "Drawing frames")


def _make_film(
    run: Trajectory,
    series: str | Sequence[str] | None,
    sample: int,
    steps: int | Sequence[int] | None,
    size: int | None,
    labels: bool,
    channel: int,
    video: str,
) -> tuple[Film, list[Panel]]:
    if size is not None:
        size = _whole("size", size)
        if not _SIZES[0] <= size <= _SIZES[1]:
            raise ValueError(f"size must be {_SIZES[0]} to {_SIZES[1]} pixels, not {size}.")
    if video == "final":
        if series is not None:
            raise ValueError("video='final' plays the finished video alone; leave series out.")
        panel, count = make_video_panel(run, sample)
        panels, places = [panel], _chosen(steps, count, "frame")
        words = [Words(f"frame {place} of {count}", ("",), f"frame {place}") for place in places]
    elif video == "middle":
        if not len(run):
            raise ValueError("This run has no step: nothing was recorded before it stopped.")
        panels = make_panels(run, series, sample, _whole("channel", channel))
        places = _chosen(steps, len(run), "step")
        words = describe_steps(run, places)
        places = [*places, len(run)]
    else:
        raise ValueError(f"video must be 'middle' or 'final', not {video!r}.")
    return Film(panels, places, words, size=size, labels=labels), panels


def _make_sheet(
    run: Trajectory, film: Film, panels: Sequence[Panel], sample: int, tile: int, labels: bool
) -> np.ndarray:
    rows = film.pictures(tile)
    if not labels:
        return contact_sheet([("", row) for row in rows], tile=tile)
    names = [_row_label(panel) for panel in panels]
    settings = run.select(sample).settings
    title = settings.get("prompt")
    title = ", ".join(map(str, title)) if isinstance(title, list) else str(title or "")
    return contact_sheet(
        list(zip(names, rows, strict=True)),
        column_labels=film.labels,
        title=plain_text(title) or "A recorded run",
        caption=plain_text(_facts(run, settings)),
        tile=tile,
    )


def _row_label(panel: Panel) -> str:
    lines = [*panel.short.splitlines()[:3], panel.scale]
    return "\n".join(plain_text(line)[:_ROW_LABEL] for line in lines if line)


def _facts(run: Trajectory, settings: Any) -> str:
    parts = [steps_in_words(run)]
    for name, text in (
        ("pipeline", "{}"),
        ("scheduler", "{}"),
        ("guidance_scale", "guidance {}"),
        ("seed", "seed {}"),
    ):
        value = settings.get(name)
        if isinstance(value, str | int | float):
            parts.append(text.format(value))
    if not run.complete:
        parts.append(": ".join(text for text in (run.status, run.error) if text))
    return " · ".join(parts)


def _write_page(run: Trajectory, path: Path, sample: int, fps: float) -> Path:
    from ldm_viz.widgets.explorer import explore

    page = explore(run, sample=checked_sample(run, sample), speed=fps)
    with written_whole(path) as part:
        page.to_html(part)
    return path


def _told(
    frames: Iterable[np.ndarray], count: int, progress: bool | None, what: str
) -> Iterator[np.ndarray]:
    """The frames, with a progress bar while they are drawn."""
    from tqdm.auto import tqdm

    delay = 1.0 if progress is None else 0.0
    hidden = progress is False
    yield from tqdm(frames, what, count, leave=False, disable=hidden, delay=delay)


def _chosen(steps: int | Sequence[int] | None, count: int, what: str) -> list[int]:
    """Which of ``count`` steps, in the order asked for."""
    if steps is None:
        return list(range(count))
    if isinstance(steps, Iterable) and not isinstance(steps, str):
        chosen = [_whole("steps", step) for step in steps]
        if not chosen:
            raise ValueError("steps is empty; name at least one, or leave it out for all.")
        for step in chosen:
            if not -count <= step < count:
                raise IndexError(f"There is no {what} {step}: there are {count}, counted from 0.")
        return [step % count for step in chosen]
    if (wanted := _whole("steps", steps)) < 1:
        raise ValueError(f"steps must be at least 1, or which ones as a list, not {steps!r}.")
    return _spread(count, wanted)


def _spread(count: int, wanted: int) -> list[int]:
    """At most ``wanted`` of ``count`` places, evenly apart, first and last among them."""
    wanted = min(count, wanted)
    if wanted == 1:
        return [0]
    return [math.floor(k * (count - 1) / (wanted - 1) + 0.5) for k in range(wanted)]


def _whole(name: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name} must be a whole number, not {value!r}.") from None


def _check_run(run: Any) -> None:
    needed = ("latents", "timesteps", "noise_prediction", "frames", "settings")
    if not all(hasattr(run, name) for name in needed):
        raise TypeError(
            f"a Trajectory can be exported, not {type(run).__name__}; record one with "
            "lv.record(pipe, prompt), or open a saved one with lv.open_trajectory(path)"
        )


def checked_target(path: Path, suffixes: dict[str, str] = SUFFIXES) -> str:
    """The ending of a file that can be written.

    Args:
        path: the file.
        suffixes: the endings that are known, and what each is.

    Raises:
        ValueError: it ends otherwise.
        OSError: there is no such folder, or it is a folder itself.
    """
    suffix = path.suffix.lower()
    suffix = ".html" if suffix == ".htm" else suffix
    if suffix not in suffixes:
        known = ", ".join(f"{known} ({what})" for known, what in suffixes.items())
        raise ValueError(f"{path.name!r} ends in no format that can be written; there are {known}.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} to write {path.name} into")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file")
    return suffix


def _checked_times(suffix: str, fps: float, hold: float | None, video: str) -> tuple[float, float]:
    most = 50 if suffix == ".gif" else 60
    if hold is None:
        hold = 0.0 if video == "final" else 1.0
    try:
        fps, hold = float(fps), float(hold)
    except (TypeError, ValueError):
        raise TypeError(f"fps and hold must be numbers, not {fps!r} and {hold!r}.") from None
    if not 0.1 <= fps <= most:
        raise ValueError(f"fps must be 0.1 to {most} steps a second for {suffix}, not {fps:g}.")
    if not 0 <= hold <= 60:
        raise ValueError(f"hold must be 0 to 60 seconds, not {hold:g}.")
    return fps, hold


def _checked_quality(suffix: str, quality: int | None) -> int:
    if quality is None:
        return _QUALITY.get(suffix, 0)
    if suffix not in _QUALITY:
        raise ValueError(
            f"quality is for {' and '.join(_QUALITY)}, not for {suffix}; leave it out."
        )
    if not 0 <= (whole := _whole("quality", quality)) <= 100:
        raise ValueError(f"quality must be 0 to 100, not {quality}.")
    return whole


def _refuse_for_pages(**given: Any) -> None:
    for name, value in given.items():
        if value is not None:
            raise ValueError(
                f"{name} has no meaning for a page, which holds all steps and series; leave it out."
            )
