"""Drawings that are no clean picture of one object: what the judge must not be flattered by.

Four ways to spoil a scene, each as generated pictures go wrong: half erased, doubled, melted, and
two objects grown into one. A scene without any object is the fifth.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import ndimage

from ldm_viz.tiny.drawing import SIZE, draw, draw_backdrop
from ldm_viz.tiny.scenes import ATTRIBUTES, Scene, random_scene


def _apart(picture: np.ndarray, backdrop: np.ndarray) -> np.ndarray:
    return (picture.astype(int) != backdrop).any(2)


def _pair(scene: Scene, rng: np.random.Generator, seed: int, *, moved: bool) -> np.ndarray:
    """Another object on the same backdrop, in the same place or elsewhere."""
    others = [o for o in ATTRIBUTES["object"] if o != scene.object]
    thing = str(rng.choice(others)) if not moved or rng.random() < 0.6 else scene.object
    position = scene.position
    if moved:
        position = str(rng.choice([p for p in ATTRIBUTES["position"] if p != position]))
    colour = str(rng.choice(ATTRIBUTES["colour"])) if rng.random() < 0.5 else scene.colour
    size = str(rng.choice(["small", "medium"])) if moved else scene.size
    other = replace(scene, object=thing, colour=colour, position=position, size=size)
    return draw(other, np.random.default_rng(seed))


def _half(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One side of a line through the mask that leaves 35 to 65% of it, (64, 64) bool."""
    y, x = np.mgrid[:SIZE, :SIZE]
    angle = rng.uniform(0, 2 * np.pi)
    along = x * np.cos(angle) + y * np.sin(angle)
    cut = np.quantile(along[mask], rng.uniform(0.35, 0.65)) if mask.any() else 32
    return along > cut


def _melted(picture: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The picture pulled about strongly, and blurred, where the object is."""
    grid = np.mgrid[:SIZE, :SIZE].astype(float)
    for axis in range(2):
        field = ndimage.gaussian_filter(rng.standard_normal((SIZE, SIZE)), rng.uniform(2.2, 4))
        grid[axis] += field / field.std() * rng.uniform(2.8, 4.5)
    blur = rng.uniform(0.3, 1.2)
    layers = [
        ndimage.gaussian_filter(
            ndimage.map_coordinates(picture[..., c].astype(float), grid, order=1, mode="nearest"),
            blur,
        )
        for c in range(3)
    ]
    near = ndimage.gaussian_filter(ndimage.binary_dilation(mask, iterations=4).astype(float), 1.5)
    mixed = near[..., None] * np.stack(layers, 2) + (1 - near[..., None]) * picture
    return np.clip(np.rint(mixed), 0, 255).astype(np.uint8)


def spoil(rng: np.random.Generator) -> np.ndarray:
    """A picture with no clean object in it.

    Args:
        rng: Chooses the scene and how it is spoiled.

    Returns:
        (64, 64, 3) uint8 RGB.
    """
    scene = random_scene(rng, held_out=None)
    seed = int(rng.integers(2**31))
    picture = draw(scene, np.random.default_rng(seed))
    backdrop = draw_backdrop(scene, np.random.default_rng(seed))
    mask = _apart(picture, backdrop)
    way = rng.choice(
        ["erased", "doubled", "melted", "grown", "empty"], p=[0.24, 0.24, 0.24, 0.2, 0.08]
    )
    if way == "empty":
        return backdrop
    if way == "erased":
        gone = _half(mask, rng)
        return np.where(gone[..., None], backdrop, picture)
    if way == "melted":
        return _melted(picture, mask, rng)
    other = _pair(scene, rng, seed, moved=way == "doubled")
    if way == "doubled":
        return np.where(_apart(other, backdrop)[..., None], other, picture)
    return np.where(_half(mask, rng)[..., None], other, picture)
