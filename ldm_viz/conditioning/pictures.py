"""Pictures as users hand them over, made ready to be embedded."""

from __future__ import annotations

import hashlib
import os
import sys
import warnings
from typing import TYPE_CHECKING, Any

from PIL import Image, ImageOps, UnidentifiedImageError

if TYPE_CHECKING:
    import numpy as np

__all__ = ["as_picture", "digest"]

MOST_PIXELS = 64_000_000
LARGEST = 1024  # what an encoder of 224 to 448 pixels is given at most


def as_picture(picture: Any) -> Image.Image:
    """A picture in RGB, upright, on white where it is transparent, and no larger than needed.

    Args:
        picture: a PIL picture; an array of uint8, ``(height, width, 3)`` or, of greys,
            ``(height, width)``; or a file's path.

    Raises:
        TypeError: it is something else.
        ValueError: it cannot be read, has no pixels, or more than 64 million.
    """
    import numpy as np

    if isinstance(picture, np.ndarray):
        picture = _of_array(picture)
    if isinstance(picture, (str, os.PathLike)):
        picture = _open(picture)
    if not isinstance(picture, Image.Image):
        raise TypeError(
            "a picture is a PIL picture, a uint8 array of shape (height, width, 3) or a path, but "
            f"this is a {_described(picture)}"
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


def _of_array(array: np.ndarray) -> Image.Image:
    steps, shape = _to_channels_last(array.shape, ".transpose(1, 2, 0)")
    if array.dtype.name == "uint8" and not steps and shape:
        return Image.fromarray(array)
    code = f"array{steps}"
    cures = {"f": "(255 * {}).round().astype('uint8')", "b": "255 * {}.astype('uint8')"}
    said = ""
    if array.dtype.kind in cures:
        code = cures[array.dtype.kind].format(code)
        said = ", where its numbers go from 0 to 1" if array.dtype.kind == "f" else ""
    elif array.dtype.name != "uint8":
        code = f"{code}.astype('uint8')"
        said = ", where its numbers go from 0 to 255"
    raise ValueError(
        "a picture as an array is uint8 of shape (height, width, 3), but this one is "
        f"{array.dtype} of shape {array.shape}" + (f"; give {code}{said}" if shape else "")
    )


def _to_channels_last(shape: tuple[int, ...], turn: str) -> tuple[str, tuple[int, ...]]:
    """What makes an array of some shape one that can be a picture.

    Args:
        shape: the array's.
        turn: what moves its first axis to the end.

    Returns:
        What is to be written behind its name, and the shape it has then; ``()`` where nothing helps.
    """
    steps = ""
    if len(shape) == 4 and shape[0]:  # a batch, whose first picture it is
        steps, shape = "[0]", shape[1:]
    if len(shape) == 3 and shape[2] not in (3, 4) and shape[0] in (3, 4):
        steps, shape = f"{steps}{turn}", (*shape[1:], shape[0])
    elif len(shape) == 3 and shape[2] == 1:
        steps, shape = f"{steps}[..., 0]", shape[:2]
    elif len(shape) == 3 and shape[0] == 1 and shape[2] not in (3, 4):
        steps, shape = f"{steps}[0]", shape[1:]
    fits = len(shape) == 2 or (len(shape) == 3 and shape[2] in (3, 4))
    return steps, shape if fits else ()


def _described(value: Any) -> str:
    """What something that is no picture is, and how a tensor becomes one."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(value, torch.Tensor):
        return type(value).__name__
    steps, shape = _to_channels_last(tuple(value.shape), ".permute(1, 2, 0)")
    what = f"{type(value).__name__}, {str(value.dtype).removeprefix('torch.')} of shape {tuple(value.shape)}"
    if not shape:
        return what
    scaled = ".mul(255).round()" if value.is_floating_point() else ""
    said = ", where its numbers go from 0 to 1" if scaled else ""
    scaled = ".mul(255)" if value.dtype == torch.bool else scaled
    detached = ".detach()" if value.requires_grad else ""
    return f"{what}; give tensor{detached}{steps}{scaled}.byte().cpu().numpy(){said}"


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
