"""How families of models lay out their latents, and how to lay them out as channels of pictures.

Most keep latents as ``(channels, h, w)``, or ``(channels, frames, h, w)`` for videos. Transformers
often take them packed: each token holds a square of neighbouring values of all channels. A layout is
one line of a table, written as in einops (https://einops.rocks): the axes as the sampling loop has
them, and the same axes as channels of pictures.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["LatentLayout", "add_layout", "fitting_layouts", "guess_layout", "known_layouts"]

_TABLE: dict[str, tuple[str, dict[str, int]]] = {
    "planes": ("c h w -> c h w", {}),
    "video": ("c f h w -> c f h w", {}),
    "video, frames first": ("f c h w -> c f h w", {}),
    "video, channels last": ("f h w c -> c f h w", {}),
    "one frame": ("c f h w -> (c f) h w", {"f": 1}),
    "packed 2×2": ("(h w) (c p q) -> c (h p) (w q)", {"p": 2, "q": 2}),
    "packed 2×2, channels last": ("(h w) (p q c) -> c (h p) (w q)", {"p": 2, "q": 2}),
    "tokens": ("(h w) c -> c h w", {}),
    "video tokens": ("(f h w) c -> c f h w", {}),
    "video packed 2×2": ("(f h w) (c p q) -> c f (h p) (w q)", {"p": 2, "q": 2}),
    "patches in channels": ("(c p q) h w -> c (h p) (w q)", {"p": 2, "q": 2}),
}

_AXES_LIMIT = 12
_PATTERN = re.compile(r"[a-z() ]{1,100}->[a-z() ]{1,100}")


@dataclass(frozen=True)
class LatentLayout:
    """How one sample's latents become ``(c, h, w)``, or ``(c, f, h, w)`` for a video.

    Attributes:
        name: The table's line.
        pattern: ``"axes in the loop -> axes of pictures"``, as einops writes it.
        sizes: What each axis of the pattern holds.
    """

    name: str
    pattern: str
    sizes: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, described: Any) -> LatentLayout | None:
        """A layout from a trajectory's settings; None where they hold none that makes sense."""
        match described:
            case {"name": str(name), "pattern": str(pattern), "sizes": dict(sizes)}:
                whole = all(type(n) is int and 0 < n < 2**31 for n in sizes.values())
                if whole and _PATTERN.fullmatch(pattern) and _axes_agree(pattern):
                    return cls(name, pattern, dict(sizes))
        return None

    def describe(self) -> dict[str, Any]:
        """The layout as plain values, as :meth:`read` takes them."""
        return {"name": self.name, "pattern": self.pattern, "sizes": dict(self.sizes)}

    def unpack(self, latents: Any) -> Any:
        """Lays out latents as channels of pictures.

        Args:
            latents: Array or tensor ``(..., *latent)``.

        Returns:
            ``(..., c, h, w)``, or ``(..., c, f, h, w)`` for a video; a view where that can be.

        Raises:
            ValueError: The latents do not have this layout.
        """
        left, right = _sides(self.pattern)
        return self._rearranged(latents, left, right)

    def pack(self, planes: Any) -> Any:
        """Undoes :meth:`unpack`."""
        left, right = _sides(self.pattern)
        return self._rearranged(planes, right, left)

    def _rearranged(self, array: Any, before: str, after: str) -> Any:
        left, right = _groups(before), _groups(after)
        lead, shape = tuple(array.shape[: -len(left)]), tuple(array.shape[-len(left) :])
        sizes = _sizes(left, shape, self.sizes)
        if sizes is None:
            raise ValueError(
                f"Latents of shape {shape} are not laid out as {self.name!r} ({self.pattern})."
            )
        axes = [axis for group in left for axis in group]
        order = [axes.index(axis) for group in right for axis in group]
        split = array.reshape(-1, *(sizes[axis] for axis in axes))
        order = [0, *(1 + place for place in order)]
        moved = split.permute(order) if hasattr(split, "permute") else split.transpose(order)
        return moved.reshape(*lead, *(math.prod(sizes[axis] for axis in g) for g in right))

    @property
    def is_video(self) -> bool:
        """Whether there is an axis of frames."""
        return len(_groups(_sides(self.pattern)[1])) == 4


def add_layout(name: str, pattern: str, **sizes: int) -> None:
    """Adds a line to the table, for a model that lays out its latents in a way of its own.

    Args:
        name: What it is called; a line of that name is replaced.
        pattern: Of one sample, as einops writes it: on the left the axes as ``scheduler.step``
            receives them, on the right ``c h w`` or ``c f h w`` (channels, frames, height, width),
            each of which may be a product.
        **sizes: Sizes of axes that do not follow from the shapes, such as those of a patch.

    Raises:
        ValueError: The pattern cannot be read, or a size is no positive integer.

    Example:
        >>> add_layout("patches of four", "(h w) (c p q) -> c (h p) (w q)", p=4, q=4)
    """
    if not _PATTERN.fullmatch(pattern) or not _axes_agree(pattern):
        raise ValueError(
            f"{pattern!r} is no layout. Expected the axes as the loop has them, '->', and the same "
            "axes as 'c h w' or 'c f h w', such as '(h w) (c p q) -> c (h p) (w q)'."
        )
    for axis, size in sizes.items():
        if type(size) is not int or size < 1:
            raise ValueError(f"The size of {axis} must be a positive integer, not {size!r}.")
    _TABLE[name] = (pattern, dict(sizes))


def known_layouts() -> dict[str, str]:
    """The table: names and patterns."""
    return {name: pattern for name, (pattern, _) in _TABLE.items()}


def fitting_layouts(latent_shape: tuple[int, ...], planes: tuple[int, ...]) -> list[LatentLayout]:
    """All layouts that turn latents of one shape into planes of another.

    Args:
        latent_shape: Shape of one sample's latents, in the loop.
        planes: ``(c, h, w)`` or ``(c, f, h, w)``.

    Returns:
        In the table's order; several may fit, as shapes do not tell axes of one size apart.
    """
    found = []
    for name, (pattern, fixed) in _TABLE.items():
        sizes = _solve(pattern, fixed, latent_shape, planes)
        if sizes is not None:
            found.append(LatentLayout(name, pattern, sizes))
    return found


def guess_layout(
    latent_shape: tuple[int, ...],
    channels: int | None = None,
    picture: tuple[int, int] | None = None,
    video: bool | None = None,
) -> LatentLayout | None:
    """The likeliest layout where nothing is known but shapes.

    Args:
        latent_shape: Shape of one sample's latents, in the loop.
        channels: Channels of the autoencoder's latents, where known.
        picture: Height and width of the picture in pixels, where known: it tells how many rows a
            number of tokens has.
        video: Whether they are a video's, where known: a picture may be kept as a video of one frame.

    Returns:
        None where no line of the table fits, or where what is known does not tell.
    """
    for planes in _likely_planes(latent_shape, channels, picture):
        for layout in fitting_layouts(latent_shape, planes):
            if video is None or layout.is_video == video:
                return layout
    return None


def _likely_planes(
    shape: tuple[int, ...], channels: int | None, picture: tuple[int, int] | None
) -> list[tuple[int, ...]]:
    if len(shape) == 3:
        likely: list[tuple[int, ...]] = [shape]
        if channels and shape[0] == 4 * channels:
            likely.append((channels, 2 * shape[1], 2 * shape[2]))
    elif len(shape) == 4:
        c, f, h, w = shape
        likely = [(c, f, h, w), (f, c, h, w), (w, c, f, h), *([(c, h, w)] if f == 1 else [])]
    elif len(shape) == 2:
        grid = _token_grid(shape[0], picture)
        if grid is None:
            return []
        rows, columns = grid
        likely = [(shape[1] // 4, 2 * rows, 2 * columns)] if shape[1] % 4 == 0 else []
        if channels == shape[1]:  # one latent pixel a token
            likely.insert(0, (channels, rows, columns))
    else:
        return []
    return [planes for planes in likely if channels is None or planes[0] == channels]


def _token_grid(tokens: int, picture: tuple[int, int] | None) -> tuple[int, int] | None:
    """Rows and columns of packed tokens, from the picture's height and width; None if unclear."""
    if picture is None or min(picture) < 1:
        return None
    height, width = picture
    rows = round(math.sqrt(tokens * height / width))
    if rows < 1 or tokens % rows:
        return None
    columns = tokens // rows
    return (rows, columns) if abs(height * columns - width * rows) < max(height, width) else None


def _solve(
    pattern: str,
    fixed: Mapping[str, int],
    latent_shape: tuple[int, ...],
    planes: tuple[int, ...],
) -> dict[str, int] | None:
    """The size of every axis, such that both shapes come out; None where that cannot be."""
    left, right = map(_groups, _sides(pattern))
    if len(left) != len(latent_shape) or len(right) != len(planes):
        return None
    sizes = _sizes(right, planes, fixed)
    return sizes if sizes is not None and _sizes(left, latent_shape, sizes) else None


def _sizes(
    groups: list[list[str]], shape: tuple[int, ...], known: Mapping[str, int]
) -> dict[str, int] | None:
    """The size of every axis, those known and those that follow; None where they contradict."""
    sizes = dict(known)
    if len(groups) != len(shape):
        return None
    for axes, total in zip(groups, shape, strict=True):
        unknown = [axis for axis in axes if axis not in sizes]
        product = math.prod(sizes[axis] for axis in axes if axis in sizes)
        if len(unknown) > 1 or total % product or (not unknown and total != product):
            return None
        sizes |= {axis: total // product for axis in unknown}
    return sizes


def _sides(pattern: str) -> tuple[str, str]:
    left, _, right = pattern.partition("->")
    return left.strip(), right.strip()


def _groups(side: str) -> list[list[str]]:
    """The axes of one side, those in brackets together."""
    return [
        (bracket or single).split() for bracket, single in re.findall(r"\(([^()]*)\)|(\w+)", side)
    ]


def _axes_agree(pattern: str) -> bool:
    """Whether both sides hold the same axes, once each, and the right one is a picture or a video."""
    try:
        left, right = map(_groups, _sides(pattern))
    except ValueError:
        return False
    sides = [[axis for group in side for axis in group] for side in (left, right)]
    return (
        sorted(sides[0]) == sorted(sides[1])
        and len(set(sides[0])) == len(sides[0]) <= _AXES_LIMIT
        and "batch" not in sides[0]
        and len(right) in (3, 4)
        and all(left)
        and all(right)
        and all(side.count("(") == side.count(")") for side in _sides(pattern))
    )
