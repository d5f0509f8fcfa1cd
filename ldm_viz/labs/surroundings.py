"""What a result of the conditioning lab is made of and near to, as the lab shows it."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import partial
from itertools import accumulate
from typing import Any

import numpy as np

from ldm_viz.conditioning.embeddings import Embedding, evaluate
from ldm_viz.conditioning.encoders import Encoder
from ldm_viz.conditioning.expressions import Call, Node, Picture, Text
from ldm_viz.conditioning.meaning import Landmarks, Measured, Plane, measure_operands
from ldm_viz.conditioning.spaces import JOINT
from ldm_viz.conditioning.tokens import Token
from ldm_viz.imaging import encode_image, fit_image

__all__ = ["Surroundings", "thumb"]

_THUMB = 96  # pixels
_NEAR = 6

Stale = Callable[[], bool]


class Surroundings:
    """Words and example pictures around results, each embedded once, when it is first needed.

    Args:
        words: to say what is near.
        examples: pictures to say what is near in a joint space, by their names.

    Raises:
        ValueError: there are no words.
        TypeError: they are no texts.
    """

    def __init__(self, words: Sequence[str], examples: Mapping[str, Any]) -> None:
        if isinstance(words, str) or not all(isinstance(word, str) for word in words):
            raise TypeError(
                f"words must be a list of texts, such as ['day', 'night'], not {words!r}"
            )
        if not words:
            raise ValueError(
                "words is empty; give at least one, or leave it out for the usual ones"
            )
        self._words = tuple(words)
        self._examples = dict(examples)
        self._thumbs = {name: thumb(np.asarray(picture)) for name, picture in examples.items()}
        self._known: weakref.WeakKeyDictionary[Encoder, Landmarks] = weakref.WeakKeyDictionary()
        self._pictures: weakref.WeakKeyDictionary[Encoder, Landmarks] = weakref.WeakKeyDictionary()

    def facts(
        self, embedding: Embedding, images: Mapping[str, Any], stale: Stale
    ) -> dict[str, Any] | None:
        """What a result is made of, and what it is near to; None once that is not wanted any more.

        Args:
            embedding: the result.
            images: the pictures that expressions name.
            stale: whether something newer is wanted.
        """
        encoder = embedding.encoder

        def leaf(node: Node) -> Embedding:
            if isinstance(node, Picture):
                return encoder.picture(images[node.name], node.name)
            assert isinstance(node, Text)
            return encoder.text(node.text)

        words = None
        if encoder.reads_texts:
            words = self._landmarks(self._known, encoder, self._words, encoder.text, stale)
            if words is None:
                return None
        operands = measure_operands(embedding, lambda node: evaluate(node, leaf))
        terms = [operand.embedding for operand in operands]
        path = _path(embedding, operands)
        plane = words.plane([*terms, *path]) if words is not None else Plane([], [])
        places = plane.embeddings[: len(terms)]
        nodes = [operand.embedding.expression for operand in operands]
        written = {node.text for node in nodes if isinstance(node, Text)}
        return {
            "space": str(embedding.space),
            "kind": embedding.space.kind,
            "notes": list(embedding.notes),
            "norm": embedding.norm,
            "operands": [
                [
                    str(o.embedding.expression),
                    None if o.weight is None else float(o.weight),
                    o.norm,
                    None if math.isnan(o.cosine) else o.cosine,
                ]
                for o in operands
            ],
            "words": words.nearest(embedding, _NEAR) if words is not None else [],
            "pictures": self._near_pictures(embedding, images),
            "places": [place for place in plane.landmarks if place[0] not in written],
            "path": plane.embeddings[len(terms) :],
            "operand_places": [
                (str(o.embedding.expression), *place)
                for o, place in zip(
                    operands, places, strict=False
                )  # none where texts have no place
            ],
            "tokens": [
                {"text": text, "words": _words_of(encoder.tokens(text))}
                for text in dict.fromkeys(
                    node.text for node in embedding.expression.leaves() if isinstance(node, Text)
                )
            ],
        }

    def prepare(self, embedding: Embedding, stale: Stale) -> bool:
        """Embeds the examples for the space of a result, as long as nothing newer is wanted.

        Returns:
            Whether there is more to tell than before.
        """
        encoder = embedding.encoder
        if embedding.space.kind != JOINT or not self._examples or encoder in self._pictures:
            return False

        def embed(name: str) -> Embedding:
            return encoder.picture(self._examples[name], name)

        names = tuple(self._examples)
        return self._landmarks(self._pictures, encoder, names, embed, stale) is not None

    def _landmarks(
        self,
        known: weakref.WeakKeyDictionary[Encoder, Landmarks],
        encoder: Encoder,
        names: Sequence[str],
        embed: Callable[[str], Embedding],
        stale: Stale,
    ) -> Landmarks | None:
        if encoder not in known:
            embeddings = []
            for name in names:
                if stale():
                    return None
                embeddings.append(embed(name))
            known[encoder] = Landmarks(names, embeddings)
        return known[encoder]

    def _near_pictures(
        self, embedding: Embedding, images: Mapping[str, Any]
    ) -> list[tuple[str, float, bytes | None]]:
        """Names, cosines and small pictures of what is nearest; None for pictures of the lab's own."""
        if embedding.space.kind != JOINT:
            return []
        encoder = embedding.encoder
        own = {name: encoder.picture(picture, name) for name, picture in images.items()}
        examples = self._pictures.get(encoder)
        found: list[tuple[str, float, bytes | None]] = []
        for name, picture in own.items():
            # A few of them do not tell what they have in common: then it is the plain angle.
            measure = embedding.cosine if examples is None else partial(examples.cosine, embedding)
            found.append((name, measure(picture), None))
        if examples is not None:
            nearest = examples.nearest(embedding, _NEAR)
            found += [(name, cosine, self._thumbs[name]) for name, cosine in nearest]
        found = [one for one in found if math.isfinite(one[1])]
        return sorted(found, key=lambda one: -one[1])[:_NEAR]


def _path(result: Embedding, operands: Sequence[Measured]) -> list[Embedding]:
    """The way from the first operand to the result.

    Of prompts only the points at which as much has been added as taken away: between them there is
    one word less or more in every place, which lies far off all prompts.
    """
    if isinstance(result.expression, Call):
        return [operands[0].embedding, result]
    weights = [operand.weight or Fraction(0) for operand in operands]
    weighed = [o.embedding * weight for o, weight in zip(operands, weights, strict=True)]
    points = list(accumulate(weighed, lambda before, term: before + term))
    if result.space.kind == JOINT:
        return points
    sums = list(accumulate(weights))
    return [
        point
        for number, (point, total) in enumerate(zip(points, sums, strict=True))
        if number in (0, len(points) - 1) or total == sums[-1]
    ]


def _words_of(tokens: Sequence[Token]) -> list[dict[str, Any]]:
    """Tokens by the words that they are of: the word, and its pieces with whether each is kept."""
    found: list[dict[str, Any]] = []
    for token in tokens:
        if token.special:
            continue
        if token.begins or not found:
            found.append({"word": token.word, "pieces": []})
        found[-1]["pieces"].append([token.text, token.kept])
    return found


def thumb(picture: np.ndarray) -> bytes:
    """A small WebP of a picture."""
    return encode_image(fit_image(picture, _THUMB), "webp", 85)
