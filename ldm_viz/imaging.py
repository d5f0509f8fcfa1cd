"""Pictures as arrays: encoding, safe decoding, resizing, colour tables and contact sheets."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import (
    Image,
    ImageDraw,
    ImageFont,
    UnidentifiedImageError,
    WebPImagePlugin,  # noqa: F401 - else Pillow loads all of its plugins
)

__all__ = [
    "DIVERGING_DARK",
    "DIVERGING_LIGHT",
    "SEQUENTIAL",
    "colour_table",
    "colourise",
    "contact_sheet",
    "decode_image",
    "encode_image",
    "fit_image",
]

FORMATS = ("webp", "png")

# Negative is blue, positive is orange-red: told apart under every common colour-vision deficiency.
# The middle of a diverging scale is the page's own background, so zero recedes in either theme.
DIVERGING_LIGHT = (
    "#12336b", "#2160a8", "#4f93cf", "#9cc6e6", "#dcebf5", "#fbfaf7",
    "#fbe5d3", "#f5b98d", "#e58350", "#c24d27", "#7d2312",
)  # fmt: skip
DIVERGING_DARK = (
    "#b9ddff", "#74b6f2", "#3d87cc", "#255d95", "#19395a", "#15171b",
    "#4a2415", "#8a3f1d", "#cc6a32", "#f29d62", "#ffd6b4",
)  # fmt: skip
SEQUENTIAL = (
    "#10121f", "#2b1d4f", "#57257a", "#86308a", "#b33f86", "#dc5a72", "#f5835c", "#fcb565",
    "#fbe69a",
)  # fmt: skip


def _pixels(array: Any) -> np.ndarray:
    """Check that ``array`` is a picture of shape (h, w, 3), uint8."""
    pixels = np.asarray(array)
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise ValueError(
            f"a picture must be a uint8 array of shape (height, width, 3), "
            f"but this one is {pixels.dtype} of shape {pixels.shape}; "
            f"convert floats in 0..1 with (255 * x).round().astype('uint8')"
        )
    if 0 in pixels.shape:
        raise ValueError(f"a picture needs at least one pixel, but this one has {pixels.shape}")
    return np.ascontiguousarray(pixels)


def encode_image(array: np.ndarray, format: str = "webp", quality: int | None = None) -> bytes:
    """Write a picture as WebP or PNG bytes.

    Args:
        array: picture of shape ``(height, width, 3)``, uint8.
        format: ``"webp"`` or ``"png"``.
        quality: 0 to 100 for lossy WebP; ``None`` keeps every pixel exactly. PNG is always exact.

    Returns:
        The encoded file.

    Raises:
        ValueError: the array is no uint8 picture, or format or quality is unknown.

    Example:
        >>> data = encode_image(np.zeros((8, 8, 3), np.uint8), "png")
        >>> decode_image(data).shape
        (8, 8, 3)
    """
    if format not in FORMATS:
        raise ValueError(f"unknown picture format {format!r}; known formats: {', '.join(FORMATS)}")
    if quality is not None and not 0 <= quality <= 100:
        raise ValueError(f"quality must be between 0 and 100, or None for exact, not {quality!r}")
    picture = Image.fromarray(_pixels(array), "RGB")
    buffer = io.BytesIO()
    if format == "png":
        picture.save(buffer, "PNG", optimize=False, compress_level=6)
    elif quality is None:
        picture.save(buffer, "WEBP", lossless=True, quality=25, method=1, exact=True)
    else:
        # Slower methods gain less than a hundredth of the size on noisy pictures.
        picture.save(buffer, "WEBP", quality=int(quality), method=1)
    return buffer.getvalue()


def decode_image(data: bytes, max_pixels: int = 64_000_000) -> np.ndarray:
    """Read WebP or PNG bytes, which may come from anywhere, into an array.

    The size is read from the file's head and checked before any pixel is unpacked, so that a small
    file cannot fill the memory.

    Args:
        data: the encoded file.
        max_pixels: the largest ``width * height`` that is accepted.

    Returns:
        The picture, shape ``(height, width, 3)``, uint8.

    Raises:
        TypeError: these are no bytes.
        ValueError: the bytes are no WebP or PNG picture, are damaged, or hold too many pixels.
    """
    if not isinstance(data, bytes | bytearray | memoryview):
        raise TypeError(f"an encoded picture must be bytes, not {type(data).__name__}")
    try:
        with warnings.catch_warnings():
            # Pillow's own limit only warns at first; ours below is the one that counts.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            picture = Image.open(io.BytesIO(bytes(data)), formats=("WEBP", "PNG"))
            width, height = picture.size
            if width * height > max_pixels:
                raise ValueError(
                    f"the picture has {width}×{height} pixels, more than the {max_pixels} "
                    f"accepted here; pass max_pixels= if it can be trusted"
                )
            return np.array(picture.convert("RGB"), dtype=np.uint8)
    except UnidentifiedImageError:
        raise ValueError(
            f"these {len(data)} bytes are no WebP or PNG picture (they begin with "
            f"{bytes(data[:8])!r})"
        ) from None
    except Image.DecompressionBombError as error:
        raise ValueError(f"the picture is too large to be read safely: {error}") from None
    except (OSError, SyntaxError, EOFError, OverflowError, MemoryError) as error:
        raise ValueError(f"the picture is damaged and cannot be read: {error}") from None


def fit_image(array: np.ndarray, side: int) -> np.ndarray:
    """Shrink a picture so that its longer side is at most ``side`` pixels; never enlarge it.

    Args:
        array: picture of shape ``(height, width, 3)``, uint8.
        side: the longest side allowed, in pixels.

    Returns:
        The picture, shape ``(h, w, 3)`` with ``max(h, w) <= side``, uint8.
    """
    pixels = _pixels(array)
    height, width = pixels.shape[:2]
    if side < 1:
        raise ValueError(f"side must be at least 1 pixel, not {side!r}")
    longest = max(height, width)
    if longest <= side:
        return pixels
    size = (max(1, round(width * side / longest)), max(1, round(height * side / longest)))
    resized = Image.fromarray(pixels, "RGB").resize(size, Image.Resampling.BICUBIC)
    return np.asarray(resized, dtype=np.uint8)


def colour_table(stops: Sequence[str], size: int = 256) -> np.ndarray:
    """Interpolate ``#rrggbb`` stops, evenly spaced, into a table of shape ``(size, 3)``, uint8."""
    colours = np.array([[int(stop[i : i + 2], 16) for i in (1, 3, 5)] for stop in stops], float)
    at = np.linspace(0, len(stops) - 1, size)
    table = [np.interp(at, np.arange(len(stops)), colours[:, k]) for k in range(3)]
    return np.stack(table, axis=1).round().astype(np.uint8)


def colourise(values: np.ndarray, limit: float | None = None) -> np.ndarray:
    """Paint signed values as a picture: blue below zero, pale at zero, orange above.

    Args:
        values: array of shape ``(h, w)``.
        limit: the magnitude that gets the strongest colour; the largest finite one by default.

    Returns:
        Picture of shape ``(h, w, 3)``, uint8. NaN and infinity are magenta.
    """
    data = np.asarray(values, dtype=np.float64)
    if data.ndim != 2:
        raise ValueError(f"colourise needs values of shape (h, w), not {data.shape}")
    finite = np.isfinite(data)
    if limit is None:
        limit = float(np.abs(data[finite]).max()) if finite.any() else 0.0
    limit = limit or 1.0
    position = np.clip(np.where(finite, data, 0.0) / limit, -1, 1) * 127.5 + 127.5
    picture = colour_table(DIVERGING_LIGHT)[position.round().astype(np.intp).clip(0, 255)]
    picture[~finite] = (214, 36, 159)
    return picture


def _shorten(draw: ImageDraw.ImageDraw, text: str, font: Any, width: float) -> str:
    """Cut ``text`` with an ellipsis so that it is at most ``width`` pixels wide."""
    if draw.textlength(text, font=font) <= width:
        return text
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        if draw.textlength(text[:middle].rstrip() + "…", font=font) <= width:
            low = middle
        else:
            high = middle - 1
    return text[:low].rstrip() + "…"


def contact_sheet(
    rows: Sequence[tuple[str, Sequence[np.ndarray]]],
    *,
    column_labels: Sequence[str] = (),
    title: str = "",
    caption: str = "",
    tile: int = 128,
) -> np.ndarray:
    """Lay pictures out in labelled rows and columns, with a title above and a caption below.

    Args:
        rows: ``(label, pictures)`` pairs; the pictures are uint8 of shape ``(h, w, 3)``.
        column_labels: one label a column, under the pictures.
        title: one line, cut where it does not fit.
        caption: one line, cut where it does not fit.
        tile: side of a picture's square, in pixels. Small pictures are enlarged into it.

    Returns:
        The sheet, shape ``(height, width, 3)``, uint8.
    """
    large, small = ImageFont.load_default(16), ImageFont.load_default(12)
    columns = max((len(pictures) for _, pictures in rows), default=0)
    gap, margin = 6, 16
    gutter = 76 if any(label for label, _ in rows) else 0
    width = max(2 * margin + gutter + columns * (tile + gap) - gap, 420)
    top = margin + (30 if title else 0)
    bottom = (20 if any(column_labels) else 0) + (28 if caption else 8)
    height = top + max(len(rows) * (tile + gap) - gap, 0) + bottom + margin - 4
    sheet = Image.new("RGB", (width, height), (255, 255, 255))
    draw = ImageDraw.Draw(sheet)
    room = width - 2 * margin
    ink, quiet = (28, 30, 34), (104, 109, 118)

    def line(text: str) -> str:
        return " ".join(text.split())

    if title:
        draw.text((margin, margin - 2), _shorten(draw, line(title), large, room), ink, large)
    for r, (label, pictures) in enumerate(rows):
        y = top + r * (tile + gap)
        draw.text((margin, y + tile / 2 - 8), label, quiet, small)
        for c, array in enumerate(pictures):
            picture = Image.fromarray(_pixels(array), "RGB")
            scale = tile / max(picture.size)
            size = tuple(max(1, round(side * scale)) for side in picture.size)
            way = Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.LANCZOS
            picture = picture.resize((size[0], size[1]), way)
            x = margin + gutter + c * (tile + gap)
            sheet.paste(picture, (x + (tile - size[0]) // 2, y + (tile - size[1]) // 2))
    y = top + len(rows) * (tile + gap)
    for c, label in enumerate(column_labels[:columns]):
        x = margin + gutter + c * (tile + gap)
        draw.text((x, y - 2), _shorten(draw, line(label), small, tile), quiet, small)
    if caption:
        y += 20 if any(column_labels) else 0
        draw.text((margin, y + 2), _shorten(draw, line(caption), small, room), quiet, small)
    return np.asarray(sheet, dtype=np.uint8)
