"""Pictures as users hand them over, made ready to be embedded."""

from __future__ import annotations

import hashlib
import os
import warnings
from typing import Any

from PIL import Image, ImageOps, UnidentifiedImageError

__all__ = ["as_picture", "digest"]

MOST_PIXELS = 64_000_000
LARGEST = 1024  # what an encoder of 224 to 448 pixels is given at most


def as_picture(picture: Any) -> Image.Image:
    """A picture in RGB, upright, on white where it is transparent, and no larger than needed.

    Args:
        picture: a PIL picture; an array ``(height, width, 3)`` of uint8; or a file's path.

    Raises:
        TypeError: it is something else.
        ValueError: it cannot be read, has no pixels, or more than 64 million.
    """
    import numpy as np

    if isinstance(picture, np.ndarray):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] not in (3, 4):
            raise ValueError(
                "a picture as an array is uint8 of shape (height, width, 3), but this one is "
                f"{picture.dtype} of shape {picture.shape}; convert floats in 0..1 with "
                "(255 * x).round().astype('uint8')"
            )
        picture = Image.fromarray(picture)
    if isinstance(picture, (str, os.PathLike)):
        picture = _open(picture)
    if not isinstance(picture, Image.Image):
        raise TypeError(
            "a picture is a PIL picture, a uint8 array of shape (height, width, 3) or a path, but "
            f"this is a {type(picture).__name__}"
        )
    if not 0 < picture.width * picture.height <= MOST_PIXELS:
        raise ValueError(
            f"the picture has {picture.width} × {picture.height} pixels; expected at least one and "
            f"at most {MOST_PIXELS:,}: make it smaller first"
        )
    try:
        picture = ImageOps.exif_transpose(picture)
    except (OSError, SyntaxError) as error:  # pictures are read when they are first looked at
        raise ValueError(f"the picture cannot be read: {error}") from error
    picture = _of_bytes(picture)
    if picture.has_transparency_data:
        clear = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear)
    picture = picture.convert("RGB")
    if max(picture.size) > LARGEST:
        picture = picture.copy()
        picture.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    return picture


def _of_bytes(picture: Image.Image) -> Image.Image:
    """A picture of 16 bits a pixel with 8, where Pillow would cut off what is above 255."""
    import numpy as np

    if picture.mode == "F":
        raise ValueError(
            "the picture's pixels are floats (mode F), whose range is not known; scale them to 0..255 "
            'and convert with picture.convert("L")'
        )
    if not picture.mode.startswith("I"):
        return picture
    grey = np.asarray(picture).astype(np.int64)
    if grey.min() < 0 or grey.max() > 65535:
        raise ValueError(
            f"the picture's pixels (mode {picture.mode}) go from {grey.min()} to {grey.max()}; "
            "expected 16 bits, 0 to 65535: scale them first"
        )
    return Image.fromarray((grey / 257).round().astype(np.uint8))


def _open(path: str | os.PathLike[str]) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                if picture.width * picture.height > MOST_PIXELS:  # before they are unpacked
                    raise Image.DecompressionBombError
                picture.load()
                return picture
    except FileNotFoundError:
        raise ValueError(f"there is no picture {os.fspath(path)!r}") from None
    except (UnidentifiedImageError, OSError, SyntaxError) as error:
        raise ValueError(f"{os.fspath(path)!r} cannot be read as a picture: {error}") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError):
        raise ValueError(
            f"the picture {os.fspath(path)!r} has too many pixels, more than {MOST_PIXELS:,}; make it "
            "smaller first"
        ) from None


def digest(picture: Image.Image) -> str:
    """A short name of its pixels."""
    content = f"{picture.size}".encode() + picture.tobytes()
    return hashlib.sha256(content).hexdigest()[:16]
