"""What an embedding is near to: the words and pictures around it, and its place on a plane."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from ldm_viz.conditioning.embeddings import Embedding
from ldm_viz.conditioning.expressions import Call, Node, Sum

__all__ = ["Landmarks", "Measured", "Plane", "measure_operands"]


@dataclass(frozen=True)
class Measured:
    """An operand beside the result.

    Attributes:
        embedding: the operand.
        weight: what it is multiplied by; None where it is what a function takes.
        norm: its Euclidean norm, before that.
        cosine: of the angle between it and the result; NaN where one is zero.
    """

    embedding: Embedding
    weight: Fraction | None
    norm: float
    cosine: float


def measure_operands(result: Embedding, embed: Callable[[Node], Embedding]) -> list[Measured]:
    """The terms that a result is the sum of, or what it is a function of, beside it.

    Args:
        result: the result.
        embed: embeds a part of its expression.
    """
    node = result.expression
    terms: Sequence[tuple[Fraction | None, Node]] = [(Fraction(1), node)]
    if isinstance(node, Sum):
        terms = node.terms
    elif isinstance(node, Call):
        terms = [(None, operand) for operand in node.operands]
    found = []
    for weight, part in terms:
        operand = embed(part)
        found.append(Measured(operand, weight, operand.norm, result.cosine(operand)))
    return found


@dataclass(frozen=True)
class Plane:
    """Places on a plane (Pearson 1901): of landmarks with their names, and of embeddings."""

    landmarks: list[tuple[str, float, float]]
    embeddings: list[tuple[float, float]]


class Landmarks:
    """Known embeddings of one space, to say what lies near an unknown one.

    All vectors of a space share a large part: what differs is what means something. So cosines are
    taken between differences from the landmarks' mean.

    Args:
        names: of the landmarks.
        embeddings: as many, of one space.
    """

    def __init__(self, names: Sequence[str], embeddings: Sequence[Embedding]) -> None:
        if len(names) != len(embeddings):
            raise ValueError(f"there are {len(names)} names for {len(embeddings)} embeddings")
        self.names = list(names)
        vectors = np.stack([vector(embedding) for embedding in embeddings])
        self.mean = vectors.mean(0)
        self._differences = vectors - self.mean
        sizes = np.linalg.norm(self._differences, axis=1, keepdims=True)
        self._directions = self._differences / np.where(sizes == 0, 1, sizes)

    def nearest(self, embedding: Embedding, count: int = 5) -> list[tuple[str, float]]:
        """The landmarks in whose direction an embedding lies, with the cosines, the nearest first."""
        difference = vector(embedding) - self.mean
        size = np.linalg.norm(difference)
        if not np.isfinite(size) or size == 0:
            return []
        cosines = self._directions @ (difference / size)
        order = np.argsort(-cosines)[:count]
        return [(self.names[i], float(cosines[i])) for i in order]

    def cosine(self, a: Embedding, b: Embedding) -> float:
        """The cosine between two embeddings' differences from the landmarks' mean; NaN if one is none."""
        first, second = vector(a) - self.mean, vector(b) - self.mean
        size = float(np.linalg.norm(first) * np.linalg.norm(second))
        return float(first @ second) / size if size else float("nan")

    def plane(self, embeddings: Sequence[Embedding], count: int = 8) -> Plane:
        """The plane in which some embeddings, and the landmarks that are nearest to each, lie best.

        Args:
            embeddings: those that are to be seen, the most important last.
            count: how many landmarks at most.
        """
        near: dict[str, float] = {}
        for embedding in reversed(embeddings):
            for name, cosine in self.nearest(embedding, count):
                near[name] = max(near.get(name, -1.0), cosine)
        chosen = sorted(near, key=lambda name: -near[name])[:count]
        places = [self.names.index(name) for name in chosen]
        shown = np.stack([vector(embedding) - self.mean for embedding in embeddings])
        around = self._differences[places]
        # The embeddings count more than what is around them: it is their differences that are asked for.
        rows = np.concatenate([3 * (shown - shown.mean(0)), around - shown.mean(0)])
        _, _, axes = np.linalg.svd(rows, full_matrices=False)
        axes = np.concatenate([axes, np.zeros((2, axes.shape[1]))])[:2]
        return Plane(
            landmarks=[(name, *_spot(axes, x)) for name, x in zip(chosen, around, strict=True)],
            embeddings=[_spot(axes, x) for x in shown],
        )


def _spot(axes: np.ndarray, difference: np.ndarray) -> tuple[float, float]:
    x, y = axes @ difference
    return float(x), float(y)


def vector(embedding: Embedding) -> np.ndarray:
    """An embedding as one vector: of a prompt, the mean over its tokens."""
    main = embedding.main[0].float().cpu().numpy()
    return main.mean(0) if main.ndim > 1 else main
