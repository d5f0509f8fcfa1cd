"""Frames to files: GIF and WebP by Pillow, MP4 by the ffmpeg on PATH."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from .film import ACCENT, INK, PAPER, QUIET, TRACK

_COLOURS = 255  # of a GIF; one of the 256 is left for "as in the frame before"
_PALETTE_PIXELS = 60_000  # that a palette is made from
_APART = 8  # of 255: how far its colours keep from the fixed ones
_DITHER = 8  # of 255: about how far 250 colours lie apart in a picture
_MEMORY = 2 << 30  # bytes of frames that Pillow may be given to hold


def _bayer(side: int) -> np.ndarray:
    """Bayer's threshold matrix, centred at zero."""
    matrix = np.zeros((1, 1))
    while len(matrix) < side:
        matrix = np.block([[4 * matrix, 4 * matrix + 2], [4 * matrix + 3, 4 * matrix + 1]])
    return (matrix + 0.5) / side**2 - 0.5


_BAYER = _DITHER * _bayer(8)

_FFMPEG_CURE = (
    "MP4 is written by ffmpeg, which is not on PATH. Install it (Debian: apt install ffmpeg, macOS: "
    "brew install ffmpeg, Windows: winget install ffmpeg, conda: conda install -c conda-forge ffmpeg), "
    "or export .webp or .gif, which need nothing more."
)


class ExportError(RuntimeError):
    """A run could not be written as a file, for a reason that lies outside the run."""


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Gives a name in the same folder to write to; what is there becomes ``path`` if all goes well."""
    part = path.with_name(f".ldm_viz-{os.getpid()}-{threading.get_ident()}.part")
    try:
        yield part
        os.replace(part, path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def check_memory(nbytes: int) -> None:
    """Refuses what a GIF or WebP would have to hold in memory all at once.

    Raises:
        ValueError: The frames take more than 2 GiB.
    """
    if nbytes > _MEMORY:
        raise ValueError(
            f"These frames take {nbytes / 2**30:.1f} GiB, and a GIF or WebP of more than "
            f"{_MEMORY >> 30} GiB is too large; make size smaller, choose fewer steps, or export .mp4."
        )


def make_palette(samples: Iterable[np.ndarray]) -> Image.Image:
    """A palette for all frames, from some of them; the colours of what is drawn around are in it.

    Args:
        samples: Frames ``(h, w, 3)`` uint8.

    Returns:
        An image of mode P that has it.
    """
    fixed = np.array([PAPER, INK, QUIET, TRACK, ACCENT])
    pixels = np.concatenate([frame.reshape(-1, 3) for frame in samples])
    # Paper is most of a frame and has its colour already.
    pixels = pixels[(pixels != PAPER).any(axis=1)]
    pixels = pixels[:: max(1, len(pixels) // _PALETTE_PIXELS)]
    colours = fixed
    if len(pixels):
        # Refined until few pixels change their colour: to the last one would take five times as long.
        chosen = Image.fromarray(np.ascontiguousarray(pixels[None])).quantize(
            _COLOURS - len(fixed), Image.Quantize.MEDIANCUT, kmeans=max(1, len(pixels) // 40)
        )
        found = np.reshape(chosen.getpalette() or [], (-1, 3))
        # Pillow takes the first colour that is near enough: none may be mistaken for one of ours.
        apart = (abs(found[:, None] - fixed).max(axis=2) > _APART).all(axis=1)
        colours = np.concatenate([fixed, found[apart]])
    palette = Image.new("P", (1, 1))
    palette.putpalette(colours.astype(int).ravel().tolist())
    return palette


def write_gif(
    path: Path, frames: Iterable[np.ndarray], palette: Image.Image, seconds: Sequence[float]
) -> None:
    """Write an animated GIF that plays for ever.

    Args:
        path: Where to.
        frames: ``(h, w, 3)`` uint8 each.
        palette: As `make_palette` makes it.
        seconds: How long each is shown, to a hundredth on the whole.
    """
    images = (
        Image.fromarray(_dithered(frame)).quantize(palette=palette, dither=Image.Dither.NONE)
        for frame in frames
    )
    next(images).save(
        path,
        "GIF",
        save_all=True,
        append_images=images,
        duration=_whole_times(seconds, 10),
        loop=0,
        palette=bytes(palette.getpalette() or []),  # one for all frames, not one each
        optimize=True,  # what stays the same from frame to frame is left out
    )


def _dithered(frame: np.ndarray) -> np.ndarray:
    """The frame with a fixed pattern added, so that colours between two of a palette's are mixed.

    A pattern that stands still looks calmer in motion than diffused errors, which change all over with
    every frame, and makes files a third smaller. The pattern is Bayer's (1973).
    """
    height, width = frame.shape[:2]
    tiles = np.tile(_BAYER, (-(-height // 8), -(-width // 8)))[:height, :width, None]
    mixed = np.rint(frame + tiles).clip(0, 255).astype(np.uint8)
    return np.where((frame == PAPER).all(axis=2, keepdims=True), frame, mixed)


def write_webp(
    path: Path, frames: Iterable[np.ndarray], seconds: Sequence[float], quality: int
) -> None:
    """Write an animated WebP that plays for ever; arguments as in `write_gif`, quality 0 to 100."""
    images = (Image.fromarray(frame) for frame in frames)
    next(images).save(
        path,
        "WEBP",
        save_all=True,
        append_images=images,
        duration=_whole_times(seconds, 1),
        loop=0,
        quality=quality,
        method=4,
    )


def _whole_times(seconds: Sequence[float], unit: int) -> list[int]:
    """Durations in milliseconds, whole multiples of ``unit``, whose roundings do not add up."""
    ends = np.rint(np.cumsum([0.0, *seconds]) * 1000 / unit).astype(int)
    return [unit * max(1, int(length)) for length in np.diff(ends)]


def find_ffmpeg() -> str:
    """Path of the ffmpeg on PATH.

    Raises:
        ExportError: There is none.
    """
    found = shutil.which("ffmpeg")
    if found is None:
        raise ExportError(_FFMPEG_CURE)
    return found


def write_mp4(
    path: Path, frames: Iterable[np.ndarray], repeats: Sequence[int], fps: float, quality: int
) -> None:
    """Write H.264 in MP4, which every browser and slide plays.

    Args:
        path: Where to.
        frames: ``(h, w, 3)`` uint8 each. An odd side gets one pixel more, as H.264 wants it.
        repeats: How many times each is written.
        fps: Frames a second.
        quality: 0 to 100.

    Raises:
        ExportError: There is no ffmpeg, or it failed.
    """
    ffmpeg = find_ffmpeg()
    pictures = map(_even, frames)
    first = next(pictures)
    command = _ffmpeg_command(ffmpeg, path, first.shape[1], first.shape[0], fps, quality)
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=said
        )
        try:
            taken = _feed(process, zip(itertools.chain([first], pictures), repeats, strict=True))
            status = process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise
        if status or not taken:
            said.seek(0)
            raise ExportError(_ffmpeg_words(status, said.read()))


def _feed(process: subprocess.Popen[bytes], frames: Iterable[tuple[np.ndarray, int]]) -> bool:
    """Give frames, each so many times, to a process, and say whether it took them all."""
    pipe = process.stdin
    assert pipe is not None
    try:
        for frame, count in frames:
            for _ in range(count):
                try:
                    pipe.write(frame.data)
                except OSError:  # it has ended; its own words tell why
                    return False
    finally:
        try:
            pipe.close()
        except OSError:
            pass
    return True


def _ffmpeg_command(
    ffmpeg: str, path: Path, width: int, height: int, fps: float, quality: int
) -> list[str]:
    # Players take what is not labelled for BT.709 or BT.601 by its size: so it is converted to one and
    # labelled.
    colours = ["-colorspace", "bt709", "-color_primaries", "bt709", "-color_trc", "bt709"]
    return [
        *(ffmpeg, "-hide_banner", "-loglevel", "error", "-y"),
        *("-f", "rawvideo", "-pix_fmt", "rgb24", "-video_size", f"{width}x{height}"),
        *("-framerate", f"{fps:.6g}", "-i", "pipe:0", "-an"),
        *("-vf", "scale=out_color_matrix=bt709:out_range=tv:flags=accurate_rnd+full_chroma_int"),
        *("-c:v", "libx264", "-crf", str(round(40 - 0.28 * quality)), "-pix_fmt", "yuv420p"),
        *(*colours, "-color_range", "tv", "-movflags", "+faststart"),
        *("-f", "mp4", str(path.absolute())),
    ]


def _ffmpeg_words(status: int, said: bytes) -> str:
    lines = said.decode(errors="replace").strip().splitlines()[-8:]
    tail = "\n".join(f"  {line[:200]}" for line in lines) or "  (it said nothing)"
    return (
        f"ffmpeg ended with status {status}. A cause may be a build without H.264 (libx264) or a full "
        f"disk. Its last words:\n{tail}"
    )


def _even(frame: np.ndarray) -> np.ndarray:
    """The frame with an even number of rows and columns, the last ones doubled."""
    height, width = frame.shape[:2]
    if height % 2 or width % 2:
        frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    return np.ascontiguousarray(frame)
