"""The spaces that embeddings live in, and how two of them are told apart."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["Space", "SpaceError", "fingerprint"]

JOINT = "joint"
PROMPT = "prompt"

_TENSORS = 12
_VALUES = 16


class SpaceError(ValueError):
    """An embedding was used where its space does not fit."""


@dataclass(frozen=True)
class Space:
    """Where an embedding lives. Numbers of different spaces mean different things.

    Attributes:
        kind: ``"prompt"``, the hidden states of a text, token by token, as a pipeline takes them; or
            ``"joint"``, the projected vectors of texts and pictures that CLIP was trained to compare.
        encoder: the encoders' classes, in words.
        shapes: each part's name and shape, without the batch: ``(("prompt_embeds", (77, 768)),)``.
        identity: numbers drawn from the encoders' weights; spaces of other weights are others.
    """

    kind: str
    encoder: str
    shapes: tuple[tuple[str, tuple[int, ...]], ...]
    identity: tuple[float, ...] = field(repr=False, compare=False)

    @property
    def key(self) -> str:
        """A short name of the weights, for people to compare."""
        return hashlib.sha256(repr(self.identity).encode()).hexdigest()[:8]

    @property
    def width(self) -> int:
        """How many numbers the (first part's) vectors have."""
        return self.shapes[0][1][-1]

    def __str__(self) -> str:
        shapes = ", ".join(f"{name} {'×'.join(map(str, shape))}" for name, shape in self.shapes)
        what = "joint text-image space" if self.kind == JOINT else "prompt space"
        return f"the {what} of {self.encoder} ({shapes}; weights {self.key})"

    def same(self, other: Space) -> bool:
        """Whether numbers of both mean the same: kind, shapes and weights agree."""
        return (
            self.kind == other.kind
            and self.shapes == other.shapes
            and same_identity(self.identity, other.identity)
        )

    def why_not(self, other: Space) -> str:
        """In what it differs from another space, in a sentence."""
        if self.kind != other.kind:
            return (
                "One is a sequence of hidden states, one vector a token, as the UNet or transformer "
                "reads a prompt; the other is a single projected vector that pictures share with "
                "texts. They have no directions in common, even where they have the same width."
            )
        mine, others = dict(self.shapes), dict(other.shapes)
        for name in mine.keys() | others.keys():
            if mine.get(name) != others.get(name):
                return (
                    f"Their shapes differ: {name} is {_shape(mine.get(name))} in the first and "
                    f"{_shape(others.get(name))} in the second."
                )
        return (
            "They have the same shape, but their encoders' weights differ: the same text has other "
            "numbers in each."
        )


def _shape(shape: tuple[int, ...] | None) -> str:
    return "missing" if shape is None else "×".join(map(str, shape))


def same_identity(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    """Whether two fingerprints are of the same weights, perhaps in another precision."""
    return len(a) == len(b) and all(map(_close, a, b))


def _close(a: float, b: float) -> bool:
    """Equal as far as half precision tells."""
    return math.isclose(a, b, rel_tol=0.02, abs_tol=2e-3)


def fingerprint(*modules: Any) -> tuple[float, ...]:
    """A few numbers out of the weights of modules: the same for the same weights in another precision.

    Args:
        modules: torch modules.
    """
    numbers: list[float] = []
    for module in modules:
        found = [p for p in module.parameters() if p.numel()]
        step = max(1, len(found) // _TENSORS)
        for weight in found[::step]:
            numbers.extend(_sample(weight))
    return tuple(numbers)


def _sample(weight: torch.Tensor) -> list[float]:
    if weight.device.type == "meta":
        return []
    flat = weight.detach().reshape(-1)
    picked = flat[:: max(1, len(flat) // _VALUES)][:_VALUES]
    return picked.float().cpu().tolist()
