"""What an embedding is made of, as a tree: texts, pictures, weighted sums and functions of them.

A tree knows nothing of models. It prints itself in the written form that `grammar.parse` reads,
and reading that gives an equal tree. Weights are exact fractions, so that ``0.1 + 0.2 - 0.3`` is
nothing.
"""

from __future__ import annotations

import json
import math
import numbers
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

__all__ = [
    "FUNCTIONS",
    "MOST_WEIGHT",
    "Call",
    "Node",
    "Picture",
    "Sum",
    "Text",
    "Weighed",
    "as_weight",
    "find_words",
    "leave_out",
    "weighted_sum",
]

MOST_WEIGHT = 10**6
"""The largest magnitude of a weight."""

FINEST = 10**30
"""The largest denominator of a weight."""


@dataclass(frozen=True)
class Signature:
    """What a function of the written form takes.

    Attributes:
        operands: least and most number of embeddings, ``most`` None for any number.
        amount: whether a number from 0 to 1 comes last.
        words: the call, as help and errors show it.
    """

    least: int
    most: int | None
    amount: bool
    words: str


FUNCTIONS: dict[str, Signature] = {
    "mix": Signature(1, None, False, 'mix("a", 2 * "b", …)'),
    "lerp": Signature(2, 2, True, 'lerp("a", "b", 0.5)'),
    "slerp": Signature(2, 2, True, 'slerp("a", "b", 0.5)'),
    "normalize": Signature(1, 1, False, 'normalize("a")'),
    "keep_norm": Signature(2, 2, False, 'keep_norm("a" - "b", "a")'),
    "project_out": Signature(2, 2, False, 'project_out("a", "b")'),
}
"""The functions of the written form, by name."""


class Node:
    """A part of an expression; `str` writes it as `grammar.parse` reads it."""

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        printer.text(str(self))

    def leaves(self) -> Iterator[Text | Picture]:
        """The texts and pictures in it, from left to right, repeated as often as they occur."""
        raise NotImplementedError


@dataclass(frozen=True)
class Text(Node):
    """The embedding of a text."""

    text: str

    def __str__(self) -> str:
        return json.dumps(self.text, ensure_ascii=False)

    def leaves(self) -> Iterator[Text | Picture]:
        """Itself."""
        yield self


@dataclass(frozen=True)
class Picture(Node):
    """The embedding of a picture, by the name that it was given under."""

    name: str

    def __str__(self) -> str:
        return f"image({json.dumps(self.name, ensure_ascii=False)})"

    def leaves(self) -> Iterator[Text | Picture]:
        """Itself."""
        yield self


@dataclass(frozen=True)
class Weighed(Node):
    """The embedding of a text some words of which count for more or less than they do by themselves.

    Attributes:
        text: the text.
        weights: words of it, each once, and what they are multiplied by.
    """

    text: Text
    weights: tuple[tuple[str, Fraction], ...]

    def __str__(self) -> str:
        pairs = (f"{Text(word)}, {format_weight(weight)}" for word, weight in self.weights)
        return f"weigh({', '.join((str(self.text), *pairs))})"

    def leaves(self) -> Iterator[Text | Picture]:
        """Its text."""
        yield self.text


@dataclass(frozen=True)
class Sum(Node):
    """A weighted sum; a single term with the weight 1 is that term itself, see `weighted_sum`."""

    terms: tuple[tuple[Fraction, Node], ...]

    def __str__(self) -> str:
        text = ""
        for number, (weight, node) in enumerate(self.terms):
            sign = "-" if weight < 0 else "+" if number else ""
            text += f" {sign} " if number else sign
            size = abs(weight)
            shown = f"({node})" if isinstance(node, Sum) else str(node)
            text += shown if size == 1 else f"{format_weight(size)} * {shown}"
        return text

    def leaves(self) -> Iterator[Text | Picture]:
        """Those of its terms."""
        for _, node in self.terms:
            yield from node.leaves()


@dataclass(frozen=True)
class Call(Node):
    """A function of embeddings, with an amount last where it takes one."""

    function: str
    operands: tuple[Node, ...]
    amount: Fraction | None = None

    def __str__(self) -> str:
        inner = [str(operand) for operand in self.operands]
        if self.amount is not None:
            inner.append(format_weight(self.amount))
        return f"{self.function}({', '.join(inner)})"

    def leaves(self) -> Iterator[Text | Picture]:
        """Those of its operands."""
        for operand in self.operands:
            yield from operand.leaves()


def find_words(text: str, words: str) -> list[tuple[int, int]]:
    """Where words stand in a text, as whole words, whatever their case.

    Args:
        text: the text.
        words: one word of it, or several in a row.

    Returns:
        The first character and the one behind the last, of each place.
    """
    if not words.strip():
        return []
    before = r"(?<!\w)" if re.match(r"\w", words[0]) else ""
    behind = r"(?!\w)" if re.match(r"\w", words[-1]) else ""
    pattern = before + re.escape(words) + behind
    return [found.span() for found in re.finditer(pattern, text, re.IGNORECASE)]


def leave_out(text: str, words: str) -> str:
    """A text without some of its words.

    Raises:
        ValueError: they are not in it.
    """
    places = find_words(text, words)
    if not places:
        raise ValueError(
            f"{Text(words)} is not in {Text(text)}; weigh whole words, as they stand there"
        )
    for start, stop in reversed(places):
        text = f"{text[:start]} {text[stop:]}"
    return " ".join(text.split())


def weighted_sum(terms: Iterable[tuple[Fraction, Node]]) -> Node:
    """The sum of weighted nodes: the node itself where it is one alone with the weight 1."""
    terms = tuple(terms)
    if len(terms) == 1 and terms[0][0] == 1:
        return terms[0][1]
    return Sum(terms)


def as_weight(value: Any, what: str = "a weight") -> Fraction:
    """A number as the fraction that its decimal digits say: 0.1 is a tenth.

    Args:
        value: a finite int, float or fraction, or a NumPy scalar.
        what: its name, for the error.

    Raises:
        TypeError: it is no number.
        ValueError: it is not finite, larger than `MOST_WEIGHT` or too fine.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(
            f"{what} must be a number, but this one is {value!r}, a {type(value).__name__}"
        )
    if isinstance(value, numbers.Rational):
        weight = Fraction(int(value.numerator), int(value.denominator))
    else:
        if not math.isfinite(value):
            raise ValueError(f"{what} must be a finite number, but this one is {float(value)}")
        # The digits of a float32 are its own: as a float, 0.1 would be 0.10000000149.
        weight = Fraction(repr(float(value)) if isinstance(value, float) else str(value))
    return check_weight(weight, what)


def check_weight(weight: Fraction, what: str = "a weight") -> Fraction:
    """The weight itself, if it is neither too large nor too fine.

    Raises:
        ValueError: it is.
    """
    if abs(weight) > MOST_WEIGHT:
        raise ValueError(
            f"{what} must lie within ±{MOST_WEIGHT:,}, but this one is {_roughly(weight)}"
        )
    if weight.denominator > FINEST:
        raise ValueError(
            f"{what} has at most 30 decimals, but this one, {_roughly(weight)}, is finer: round it"
        )
    return weight


def _roughly(weight: Fraction) -> str:
    if max(abs(weight.numerator), weight.denominator) < 10**12:
        return format_weight(weight)
    try:
        return f"about {float(weight):.3g}"
    except OverflowError:
        return "beyond ±1e308"


def format_weight(weight: Fraction) -> str:
    """A decimal number where that is exact, else a quotient."""
    rest, twos, fives = weight.denominator, 0, 0
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    decimals = max(twos, fives)
    if rest != 1 or decimals > 30:
        return f"{weight.numerator}/{weight.denominator}"
    digits = str(abs(weight.numerator) * 10**decimals // weight.denominator).rjust(
        decimals + 1, "0"
    )
    sign = "-" if weight < 0 else ""
    return f"{sign}{digits[: len(digits) - decimals]}" + (
        f".{digits[-decimals:]}" if decimals else ""
    )
