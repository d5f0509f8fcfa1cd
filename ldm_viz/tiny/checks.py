"""Measures a scene's attributes on a picture's pixels. Knows how pictures are drawn, no model.

The hour is read in the top rows, the ground in the bottom rows; with both known, each row's
background is, and what differs from it is the object.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy import ndimage

from ldm_viz.tiny.drawing import (
    CENTRES,
    COLOURS,
    GROUNDS,
    SIZE,
    SKIES,
    draw,
    light,
    lit_colour,
    rows_without_texture,
)
from ldm_viz.tiny.scenes import ATTRIBUTES, Scene

_BACKGROUND = {"day": 42.0, "sunset": 42.0, "night": 26.0}
"""RGB distance up to which a pixel counts as background."""

_SHADOW = 16.0
"""RGB distance up to which a pixel counts as ground in shadow."""

_SHADOWS = 46
"""The first row that can lie in an object's shadow."""

_SPECK = 22
"""Pixels below which a patch is a cloud's or texture's rest, not an object."""


_SLIVER = 5
"""Rows up to which a patch, or a column of one, is a shadow."""


@dataclass(frozen=True)
class Measured:
    """What was read off a picture; `colour`, `size` and `position` are "" where nothing stands out."""

    time: str
    ground: str
    colour: str
    size: str
    position: str
    patches: int
    """Separate patches that stand out from the background; a clean scene has one."""
    mask: np.ndarray
    """The largest patch, (64, 64) bool."""


def _nearest(colour: np.ndarray, table: dict[str, np.ndarray]) -> str:
    return min(table, key=lambda name: float(np.linalg.norm(colour - table[name])))


@cache
def _ground_table(time: str) -> dict[str, np.ndarray]:
    return {g: rows_without_texture(time, g, 44.5)[59:63].mean(0) for g in ATTRIBUTES["ground"]}


def _foreground(picture: np.ndarray, time: str, ground: str) -> np.ndarray:
    """Pixels unlike the background, (64, 64) bool, for the horizon that explains most."""
    masks = []
    for horizon in np.arange(42.5, 47, 0.5):
        rows = rows_without_texture(time, ground, float(horizon))
        far = np.linalg.norm(picture - rows[:, None], axis=2)
        edge = int(horizon)
        for y in (edge - 1, edge, edge + 1):
            far[y] = _distance_to_segment(picture[y], rows[edge - 2], rows[edge + 2])
        masks.append(far > _BACKGROUND[time])
    mask = min(masks, key=np.count_nonzero)
    base = np.array(light(GROUNDS[ground], time), float)
    pixels = picture[_SHADOWS:].reshape(-1, 3)
    shadow = _distance_to_segment(pixels, base, 0.7 * base) <= _SHADOW
    if ground == "water":
        shadow |= _distance_to_segment(pixels, base, base + 0.3 * (255 - base)) <= _BACKGROUND[time]
    mask[_SHADOWS:] &= ~shadow.reshape(mask[_SHADOWS:].shape)
    return mask


def _distance_to_segment(colours: np.ndarray, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """Distance of each colour (n, 3) to the straight blend of two: antialiasing at the horizon."""
    along = stop - start
    share = np.clip((colours - start) @ along / (along @ along), 0, 1)
    return np.linalg.norm(colours - start - share[:, None] * along, axis=1)


def _patches(mask: np.ndarray) -> list[np.ndarray]:
    """The connected patches that are no speck, no sliver (a shadow) and no crumb, largest first."""
    # Closing joins what a thin rim of background parts: a stem and its cap, a hull and its sail.
    labels, _ = ndimage.label(ndimage.binary_dilation(mask, np.ones((3, 1))), np.ones((3, 3)))
    labels = labels * mask
    areas = np.bincount(labels.ravel())[1:]
    tall = [s and (s[0].stop - s[0].start) > _SLIVER for s in ndimage.find_objects(labels)]
    floor = max(_SPECK, 0.12 * areas.max()) if len(areas) else 0
    order = [i for i in np.argsort(-areas, kind="stable") if areas[i] >= floor and tall[i]]
    return [labels == 1 + i for i in order]


def _box(mask: np.ndarray) -> tuple[float, float]:
    """Horizontal middle of a patch's box, and the mean of its width and height, in pixels."""
    columns, rows = np.flatnonzero(mask.sum(0) >= _SLIVER - 1), np.flatnonzero(mask.any(1))
    if not len(columns):
        columns = np.flatnonzero(mask.any(0))
    width, height = columns[-1] - columns[0] + 1, rows[-1] - rows[0] + 1
    return float(columns[0] + columns[-1] + 1) / 2, float(width + height) / 2


def _without_clouds(mask: np.ndarray, picture: np.ndarray, time: str) -> np.ndarray:
    top, low = (np.array(c, float) for c in SKIES[time])
    cloud = np.clip(low * 0.55 + top * 0.2 + 62, 0, 255)
    near = np.linalg.norm(picture - cloud, axis=2) < 40
    near[24:] = False
    return mask & ~near


def measure(picture: np.ndarray, thing: str) -> Measured:
    """Reads a picture.

    Args:
        picture: (64, 64, 3) uint8 RGB.
        thing: The object it shows, whose outline tells how large each size is.

    Returns:
        The attributes as measured.

    Raises:
        ValueError: If the picture has another shape, or the object is unknown.
    """
    if picture.shape != (SIZE, SIZE, 3):
        raise ValueError(f"picture has shape {picture.shape}; expected ({SIZE}, {SIZE}, 3) RGB")
    if thing not in ATTRIBUTES["object"]:
        raise ValueError(f"object is {thing!r}; known are {', '.join(ATTRIBUTES['object'])}")
    x = picture.astype(float)
    sky = np.median(x[:4].reshape(-1, 3), 0)
    time = _nearest(sky, {t: np.array(c[0], float) for t, c in SKIES.items()})
    ground = _nearest(np.median(x[59:63].reshape(-1, 3), 0), _ground_table(time))
    mask = _foreground(x, time, ground)
    if time != "night":
        mask = _without_clouds(mask, x, time)
    patches = _patches(mask)
    if not patches:
        return Measured(time, ground, "", "", "", 0, np.zeros_like(mask))
    main = patches[0]
    middle, extent = _box(main)
    sizes, shift = _outline(thing)
    size = min(sizes, key=lambda name: abs(np.log(extent / sizes[name])))
    position = min(CENTRES, key=lambda name: abs(middle - shift[size] - np.mean(CENTRES[name])))
    return Measured(time, ground, _colour(x, main, time), size, position, len(patches), main)


def _colour(x: np.ndarray, main: np.ndarray, time: str) -> str:
    """The palette colour that most of the patch's pixels are near to."""
    pixels = x[main]
    palette = {
        c: np.array(lit_colour(Scene("circle", c, time, "grass", "small", "left")), float)
        for c in COLOURS
    }
    distances = np.stack([np.linalg.norm(pixels - p, axis=1) for p in palette.values()])
    close = distances.min(0) < 60
    if not close.any():
        close[:] = True
    votes = np.bincount(distances.argmin(0)[close], minlength=len(palette))
    return list(palette)[int(votes.argmax())]


@cache
def _outline(thing: str) -> tuple[dict[str, float], dict[str, float]]:
    """Mean extent and mean offset of the middle from the nominal centre, of real drawings."""
    extents, shifts = {}, {}
    for size in ATTRIBUTES["size"]:
        found, offsets = [], []
        for seed in range(6):
            scene = Scene(thing, "red", "day", "snow", size, "centre")
            picture = draw(scene, np.random.default_rng(seed)).astype(float)
            mask = _without_clouds(_foreground(picture, "day", "snow"), picture, "day")
            middle, extent = _box(_patches(mask)[0])
            found.append(extent)
            offsets.append(middle - 32)
        extents[size], shifts[size] = float(np.mean(found)), float(np.mean(offsets))
    return extents, shifts
