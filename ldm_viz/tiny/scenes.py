"""What the embedded model's pictures can show: the attributes of a scene, and scenes drawn at random.

A scene has six attributes; every one of them can be measured again on a picture, which is what makes
the embedded model judgeable. A tenth of the object × colour pairs is held out of all training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np

ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "object": (
        "circle",
        "square",
        "triangle",
        "star",
        "heart",
        "moon",
        "house",
        "tree",
        "boat",
        "flower",
        "fish",
        "mushroom",
    ),
    "colour": ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white"),
    "time": ("day", "sunset", "night"),
    "ground": ("grass", "sand", "snow", "water", "rock"),
    "size": ("small", "medium", "large"),
    "position": ("left", "centre", "right"),
}
"""Attribute name -> its values, in the order of their class indices."""

HELD_OUT: frozenset[tuple[str, str]] = frozenset(
    {
        ("circle", "green"),
        ("square", "pink"),
        ("triangle", "purple"),
        ("star", "blue"),
        ("heart", "yellow"),
        ("house", "orange"),
        ("tree", "white"),
        ("boat", "red"),
        ("flower", "blue"),
        ("fish", "purple"),
    }
)
"""(object, colour) pairs that no training stage ever sees."""


@dataclass(frozen=True)
class Scene:
    """One scene: a value for each attribute of `ATTRIBUTES`.

    Raises:
        ValueError: If a value is not one of its attribute's.

    Example:
        >>> Scene("boat", "blue", "sunset", "water", "large", "left").object
        'boat'
    """

    object: str
    colour: str
    time: str
    ground: str
    size: str
    position: str

    def __post_init__(self) -> None:
        for attribute, values in ATTRIBUTES.items():
            given = getattr(self, attribute)
            if given not in values:
                raise ValueError(
                    f"{attribute} is {given!r}; a scene's {attribute} is one of {', '.join(values)}"
                )

    @property
    def held_out(self) -> bool:
        """Whether the object × colour pair is kept out of training."""
        return (self.object, self.colour) in HELD_OUT

    def indices(self) -> tuple[int, ...]:
        """The class index of each attribute, in the order of `ATTRIBUTES`."""
        return tuple(ATTRIBUTES[name].index(value) for name, value in asdict(self).items())

    @classmethod
    def from_indices(cls, indices: tuple[int, ...] | np.ndarray) -> Scene:
        """The scene with these class indices (the inverse of `indices`)."""
        values = ATTRIBUTES.values()
        return cls(*(names[int(i)] for names, i in zip(values, indices, strict=True)))


def random_scene(rng: np.random.Generator, *, held_out: bool | None = False) -> Scene:
    """A scene with attributes drawn independently and uniformly.

    Args:
        rng: Source of randomness.
        held_out: False draws among the pairs of training, True among the held-out pairs only,
            None among all.
    """
    while True:
        scene = Scene(*(str(rng.choice(values)) for values in ATTRIBUTES.values()))
        if held_out is None or scene.held_out == held_out:
            return scene
        if held_out:
            pair = sorted(HELD_OUT)[int(rng.integers(len(HELD_OUT)))]
            return Scene(*pair, scene.time, scene.ground, scene.size, scene.position)
