"""Draws a scene: 64×64 RGB, antialiased by drawing four times larger with Pillow and averaging.

Everything is a function of the scene and the random generator, so a seed fixes a picture.
Coordinates are in pixels of the final picture; `_Canvas` scales them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from ldm_viz.tiny.scenes import Scene

SIZE = 64
"""Height and width of a picture, in pixels."""

SUPERSAMPLING = 4

RGB = tuple[int, int, int]

COLOURS: dict[str, RGB] = {
    "red": (218, 40, 44),
    "orange": (246, 134, 28),
    "yellow": (250, 214, 40),
    "green": (28, 140, 66),
    "blue": (38, 88, 220),
    "purple": (132, 54, 186),
    "pink": (246, 128, 184),
    "white": (248, 248, 246),
}
"""The colour an object is filled with, before the light of the hour."""

SKIES: dict[str, tuple[RGB, RGB]] = {
    "day": ((98, 176, 240), (200, 230, 250)),
    "sunset": ((116, 82, 142), (252, 178, 118)),
    "night": ((14, 18, 50), (50, 56, 108)),
}
"""Colour of the sky at the top of the picture and at the horizon."""

GROUNDS: dict[str, RGB] = {
    "grass": (142, 192, 84),
    "sand": (232, 208, 150),
    "snow": (236, 242, 250),
    "water": (74, 164, 190),
    "rock": (138, 132, 134),
}

LIGHT: dict[str, tuple[float, float, float]] = {
    "day": (1.0, 1.0, 1.0),
    "sunset": (0.94, 0.80, 0.74),
    "night": (0.42, 0.46, 0.62),
}
"""What the hour multiplies the ground's colour with. Objects get a quarter of it."""

RADII: dict[str, tuple[float, float]] = {
    "small": (8.0, 9.0),
    "medium": (11.6, 12.6),
    "large": (15.5, 16.5),
}
"""Half the side of the object's box, in pixels: the range a size is drawn from."""

CENTRES: dict[str, tuple[float, float]] = {
    "left": (16.5, 18.5),
    "centre": (30.5, 33.5),
    "right": (45.5, 47.5),
}
"""Horizontal centre of the object, in pixels."""

_TRUNK: RGB = (122, 84, 52)
_STEM: RGB = (52, 122, 58)
_CREAM: RGB = (244, 230, 200)


def _shade(colour: RGB, factor: float) -> RGB:
    """Darker for a factor below 1, nearer to white above."""
    if factor <= 1:
        return tuple(round(c * factor) for c in colour)  # type: ignore[return-value]
    return tuple(round(c + (255 - c) * (factor - 1)) for c in colour)  # type: ignore[return-value]


def light(colour: RGB, time: str, strength: float = 1.0) -> RGB:
    """A colour in the light of the hour; a smaller strength changes it less."""
    return tuple(  # type: ignore[return-value]
        round(c * (1 - strength + strength * k)) for c, k in zip(colour, LIGHT[time], strict=True)
    )


Point = tuple[float, float]


class _Canvas:
    """Pillow's drawing calls in units of final pixels, moved and scaled to an object's box."""

    def __init__(self, image: Image.Image) -> None:
        self.draw = ImageDraw.Draw(image)

    def polygon(self, points: Sequence[Point], fill: RGB) -> None:
        self.draw.polygon([(x * SUPERSAMPLING, y * SUPERSAMPLING) for x, y in points], fill)

    def ellipse(self, cx: float, cy: float, rx: float, ry: float, fill: RGB) -> None:
        k = SUPERSAMPLING
        self.draw.ellipse([(cx - rx) * k, (cy - ry) * k, (cx + rx) * k, (cy + ry) * k], fill)

    def line(self, points: Sequence[Point], fill: RGB, width: float) -> None:
        k = SUPERSAMPLING
        self.draw.line([(x * k, y * k) for x, y in points], fill, round(width * k), joint="curve")


class _Box(NamedTuple):
    """Where an object goes: centre, half side, and the colours of its fill and outline."""

    canvas: _Canvas
    cx: float
    cy: float
    r: float
    fill: RGB
    time: str

    def at(self, *points: Point) -> list[Point]:
        """Points given in units of the half side, y downwards."""
        return [(self.cx + x * self.r, self.cy + y * self.r) for x, y in points]

    def outlined(self, points: Sequence[Point], fill: RGB | None = None) -> None:
        """A polygon with a darker rim, drawn as a thick closed line below the fill."""
        fill = fill or self.fill
        absolute = self.at(*points)
        self.canvas.line([*absolute, absolute[0], absolute[1]], _shade(fill, 0.55), 2.4)
        self.canvas.polygon(absolute, fill)

    def disc(self, x: float, y: float, rx: float, ry: float, fill: RGB, rim: bool = True) -> None:
        (cx, cy), rim_width = self.at((x, y))[0], 1.2
        rx, ry = rx * self.r, ry * self.r
        if rim:
            self.canvas.ellipse(cx, cy, rx + rim_width, ry + rim_width, _shade(fill, 0.55))
        self.canvas.ellipse(cx, cy, rx, ry, fill)

    def lit(self, colour: RGB) -> RGB:
        return light(colour, self.time, 0.3)


def _arc(cx: float, cy: float, r: float, start: float, stop: float, steps: int = 24) -> list[Point]:
    """Points on a circle, from angle to angle in degrees (0 right, 90 down)."""
    angles = np.linspace(math.radians(start), math.radians(stop), steps)
    return [(cx + r * math.cos(a), cy + r * math.sin(a)) for a in angles]


def _circle(b: _Box) -> None:
    b.disc(0, 0, 0.92, 0.92, b.fill)


def _square(b: _Box) -> None:
    b.outlined([(-0.84, -0.84), (0.84, -0.84), (0.84, 0.84), (-0.84, 0.84)])


def _triangle(b: _Box) -> None:
    b.outlined([(0, -0.95), (0.98, 0.85), (-0.98, 0.85)])


def _star(b: _Box) -> None:
    points = []
    for i in range(10):
        radius = 1.02 if i % 2 == 0 else 0.46
        angle = math.radians(-90 + 36 * i)
        points.append((radius * math.cos(angle), 0.06 + radius * math.sin(angle)))
    b.outlined(points)


def _heart(b: _Box) -> None:
    t = np.linspace(0, 2 * math.pi, 48, endpoint=False)
    x = np.sin(t) ** 3
    y = -(13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)) / 16
    b.outlined([(float(px), float(py) * 0.98 - 0.06) for px, py in zip(x, y, strict=True)])


def _moon(b: _Box) -> None:
    outer = _arc(0, 0, 0.98, 50, 310, 36)
    tip_x, tip_y = outer[0]
    radius, angle = math.hypot(tip_x - 0.46, tip_y), math.degrees(math.atan2(tip_y, tip_x - 0.46))
    inner = _arc(0.46, 0, radius, 360 - angle, angle, 30)
    b.outlined([(x + 0.16, y) for x, y in outer + inner])


def _house(b: _Box) -> None:
    b.outlined([(-0.74, -0.12), (0.74, -0.12), (0.74, 0.95), (-0.74, 0.95)])
    b.outlined([(0, -0.98), (1.0, -0.1), (-1.0, -0.1)], _shade(b.fill, 0.72))
    b.canvas.polygon(
        b.at((-0.16, 0.36), (0.2, 0.36), (0.2, 0.95), (-0.16, 0.95)), b.lit(_shade(_TRUNK, 0.8))
    )


def _tree(b: _Box) -> None:
    b.canvas.polygon(b.at((-0.17, 0.2), (0.17, 0.2), (0.22, 0.98), (-0.22, 0.98)), b.lit(_TRUNK))
    rim = _shade(b.fill, 0.55)
    blobs = [(-0.42, -0.02, 0.46), (0.42, -0.02, 0.46), (0, -0.44, 0.54)]
    for x, y, r in blobs:
        (cx, cy) = b.at((x, y))[0]
        b.canvas.ellipse(cx, cy, r * b.r + 1.2, r * b.r + 1.2, rim)
    for x, y, r in blobs:
        b.disc(x, y, r, r, b.fill, rim=False)


def _boat(b: _Box) -> None:
    b.canvas.line(b.at((0.02, -0.98), (0.02, 0.4)), b.lit(_TRUNK), 0.14 * b.r)
    b.outlined([(0.1, -0.86), (0.1, 0.22), (0.82, 0.22)], _shade(b.fill, 1.25))
    b.outlined([(-0.08, -0.6), (-0.08, 0.22), (-0.62, 0.22)], _shade(b.fill, 1.25))
    b.outlined([(-1.0, 0.36), (1.0, 0.36), (0.66, 0.92), (-0.66, 0.92)])


def _flower(b: _Box) -> None:
    b.canvas.line(b.at((0, 0.1), (0, 0.98)), b.lit(_STEM), max(1.6, 0.15 * b.r))
    b.canvas.polygon(b.at((0, 0.9), (0.5, 0.5), (0.42, 0.82)), b.lit(_STEM))
    rim = _shade(b.fill, 0.55)
    petals = [
        (0.42 * math.cos(math.radians(a)), -0.3 + 0.42 * math.sin(math.radians(a)))
        for a in range(-90, 270, 72)
    ]
    for x, y in petals:
        (cx, cy) = b.at((x, y))[0]
        b.canvas.ellipse(cx, cy, 0.3 * b.r + 1.1, 0.3 * b.r + 1.1, rim)
    for x, y in petals:
        b.disc(x, y, 0.3, 0.3, b.fill, rim=False)
    b.disc(0, -0.3, 0.2, 0.2, b.lit((110, 72, 36)), rim=False)


def _fish(b: _Box) -> None:
    b.outlined([(0.42, 0), (1.0, -0.56), (0.9, 0), (1.0, 0.56)], _shade(b.fill, 0.8))
    b.disc(-0.2, 0, 0.78, 0.54, b.fill)
    b.disc(-0.6, -0.12, 0.13, 0.13, (250, 250, 250), rim=False)
    b.disc(-0.63, -0.12, 0.075, 0.075, (20, 20, 30), rim=False)


def _mushroom(b: _Box) -> None:
    cream = b.lit(_CREAM)
    b.outlined([(-0.26, 0), (0.26, 0), (0.34, 0.95), (-0.34, 0.95)], cream)
    b.outlined([*_arc(0, 0.1, 0.98, 180, 360, 30), (0.9, 0.2), (-0.9, 0.2)])
    dot = _shade(b.fill, 0.72) if min(b.fill) > 200 else (250, 246, 240)
    for x, y, r in ((-0.46, -0.24, 0.15), (0.06, -0.5, 0.17), (0.5, -0.2, 0.14)):
        b.disc(x, y, r, r, dot, rim=False)


_OBJECTS: dict[str, Callable[[_Box], None]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "star": _star,
    "heart": _heart,
    "moon": _moon,
    "house": _house,
    "tree": _tree,
    "boat": _boat,
    "flower": _flower,
    "fish": _fish,
    "mushroom": _mushroom,
}

_IN_THE_SKY = frozenset({"moon", "star"})


def _rows(time: str, ground: str, horizon: float, count: int) -> np.ndarray:
    y = (np.arange(count) + 0.5) * SIZE / count
    top, low = (np.array(c, float) for c in SKIES[time])
    along = np.clip(y / horizon, 0, 1)[:, None] ** 1.3
    depth = np.clip((y - horizon) / (SIZE - horizon), 0, 1)[:, None]
    soil = np.array(light(GROUNDS[ground], time), float) * (1.04 - 0.16 * depth)
    return np.where(y[:, None] < horizon, top * (1 - along) + low * along, soil)


def _backdrop(scene: Scene, horizon: float, rng: np.random.Generator) -> Image.Image:
    """Sky (a vertical gradient with soft clouds) and ground (a gradient with a quiet texture)."""
    side = SIZE * SUPERSAMPLING
    rows = _rows(scene.time, scene.ground, horizon, side)
    rows = np.clip(np.rint(rows), 0, 255).astype(np.uint8)
    image = Image.fromarray(np.repeat(rows[:, None], side, axis=1))
    canvas = _Canvas(image)
    if scene.time != "night":
        for _ in range(int(rng.integers(1, 3))):
            cx, cy, w = rng.uniform(6, 58), rng.uniform(6, 18), rng.uniform(5, 8)
            blend = np.array(SKIES[scene.time][1]) * 0.55 + np.array(SKIES[scene.time][0]) * 0.2
            cloud: RGB = tuple(int(v) for v in np.clip(blend + 62, 0, 255))  # type: ignore[assignment]
            canvas.ellipse(cx, cy, w, 1.9, cloud)
            canvas.ellipse(cx - 1, cy - 1.3, w * 0.5, 2.2, cloud)
    _texture(canvas, scene, horizon, rng)
    return image


def _texture(canvas: _Canvas, scene: Scene, horizon: float, rng: np.random.Generator) -> None:
    base = light(GROUNDS[scene.ground], scene.time)
    marks = [(rng.uniform(2, 62), rng.uniform(horizon + 3, 62)) for _ in range(7)]
    if scene.ground == "grass":
        for x, y in marks:
            blades = [(x - 1.2, y - 2.2), (x, y), (x + 1.2, y - 2.2)]
            canvas.line(blades, _shade(base, 0.8), 0.8)
    elif scene.ground == "sand":
        for x, y in marks:
            canvas.ellipse(x, y, 2.4, 0.6, _shade(base, 0.88))
    elif scene.ground == "snow":
        for x, y in marks[:4]:
            canvas.line(_arc(x, y + 8, 9, 240, 300, 8), _shade(base, 0.9), 0.8)
    elif scene.ground == "water":
        for x, y in marks:
            canvas.ellipse(x, y, 3.6, 0.6, _shade(base, 1.3))
    else:
        for x, y in marks[:5]:
            facet = [(x - 2.6, y + 1.2), (x - 0.6, y - 1.6), (x + 2.6, y + 1.0)]
            canvas.polygon(facet, _shade(base, 0.78))


def draw(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Draws one scene.

    Args:
        scene: What to draw.
        rng: Source of the small variations: exact place and size, horizon, clouds, texture.

    Returns:
        The picture, (64, 64, 3) uint8 RGB.

    Example:
        >>> scene = Scene("heart", "red", "day", "snow", "large", "centre")
        >>> draw(scene, np.random.default_rng(0)).shape
        (64, 64, 3)
    """
    horizon, image = _start(scene, rng)
    radius = rng.uniform(*RADII[scene.size])
    cx = rng.uniform(*CENTRES[scene.position])
    foot = horizon + rng.uniform(5, 9)
    canvas = _Canvas(image)
    if scene.object in _IN_THE_SKY:
        cy = rng.uniform(22, 26)
    else:
        cy = foot - radius * 0.95
        shadow = _shade(light(GROUNDS[scene.ground], scene.time), 0.72)
        canvas.ellipse(cx, foot, radius * 0.95, 1.6, shadow)
    _OBJECTS[scene.object](_Box(canvas, cx, cy, radius, lit_colour(scene), scene.time))
    return np.asarray(image.reduce(SUPERSAMPLING))


def draw_backdrop(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """The scene without its object: with a generator of the same seed, what `draw` paints upon."""
    return np.asarray(_start(scene, rng)[1].reduce(SUPERSAMPLING))


def lit_colour(scene: Scene) -> RGB:
    """The colour the object is filled with in the light of the hour."""
    return light(COLOURS[scene.colour], scene.time, 0.22)


def rows_without_texture(time: str, ground: str, horizon: float) -> np.ndarray:
    """The colour of each row of sky and ground, (64, 3) float RGB, without clouds and texture."""
    return _rows(time, ground, horizon, SIZE)


def _start(scene: Scene, rng: np.random.Generator) -> tuple[float, Image.Image]:
    horizon = rng.uniform(43, 46)
    return horizon, _backdrop(scene, horizon, rng)
