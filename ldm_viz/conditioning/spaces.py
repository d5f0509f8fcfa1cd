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

_VALUES = 4  # of each tensor


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
        mine, others = self.identity, other.identity
        if self.kind == JOINT:
            # The vision tower's numbers come first; where one has no text tower, that one decides.
            common = min(len(mine), len(others))
            mine, others = mine[:common], others[:common]
        return (
            self.kind == other.kind and self.shapes == other.shapes and same_identity(mine, others)
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
        for name in mine | others:
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
    """Equal as far as half precision tells: bfloat16 has 8 bits, float16 an end at 6e-8."""
    return math.isclose(a, b, rel_tol=0.008, abs_tol=1e-6)


def fingerprint(*modules: Any) -> tuple[float, ...]:
    """A few numbers out of each weight of modules: the same for the same ones in another precision.

    Args:
        modules: torch modules.
    """
    import torch

    # Out of every weight: what is trained or merged afterwards may change only the attention's.
    picked: dict[torch.device, list[torch.Tensor]] = {}
    order: list[tuple[torch.device, int]] = []
    for module in modules:
        for name, weight in module.named_parameters():
            if weight.is_meta:
                weight = _offloaded(module, name)
            if weight is None or not weight.numel():
                continue
            flat = weight.detach().reshape(-1)
            sample = flat[:: max(1, len(flat) // _VALUES)][:_VALUES].float()
            picked.setdefault(sample.device, []).append(sample)
            order.append((sample.device, len(sample)))
    # One transfer a device: one for each weight would take longer than a short text.
    numbers = {device: iter(torch.cat(found).tolist()) for device, found in picked.items()}
    return tuple(next(numbers[device]) for device, count in order for _ in range(count))


def _offloaded(module: Any, name: str) -> torch.Tensor | None:
    """A weight that accelerate keeps elsewhere until its module is called."""
    owner, _, leaf = name.rpartition(".")
    hook = getattr(module.get_submodule(owner), "_hf_hook", None)
    for one in getattr(hook, "hooks", (hook,)):
        weights = getattr(one, "weights_map", None)
        if weights is not None:
            return weights[leaf]
    return None


def adapted(*modules: Any) -> tuple[Any, ...]:
    """What low-rank adapters in modules (PEFT's LoRA) are set to, which is no weight of theirs."""
    found: list[Any] = []
    for module in modules:
        for layer in module.modules():
            scaling = getattr(layer, "scaling", None)
            if isinstance(scaling, dict):
                active = tuple(getattr(layer, "active_adapters", ()))
                off = bool(getattr(layer, "disable_adapters", False))
                found.append((tuple(scaling.items()), active, off))
    return tuple(found)
