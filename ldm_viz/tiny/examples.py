"""Drawings to compare the embedded model's results with: every object in every colour."""

from __future__ import annotations

import dataclasses

import numpy as np

from ldm_viz.tiny.drawing import draw
from ldm_viz.tiny.scenes import ATTRIBUTES, random_scene

__all__ = ["draw_examples"]


def draw_examples(seed: int = 0) -> dict[str, np.ndarray]:
    """A drawing of each object in each colour, with what else there is at random.

    Args:
        seed: of what is random.

    Returns:
        What can be seen, such as "red star at night on sand", to the drawing, (64, 64, 3) uint8.
    """
    rng = np.random.default_rng(seed)
    found = {}
    for name in ATTRIBUTES["object"]:
        for colour in ATTRIBUTES["colour"]:
            scene = dataclasses.replace(random_scene(rng), object=name, colour=colour)
            when = "by day" if scene.time == "day" else f"at {scene.time}"
            found[f"{colour} {name} {when} on {scene.ground}"] = draw(scene, rng)
    return found
