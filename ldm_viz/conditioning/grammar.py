r"""The written form of embedding arithmetic: ``image("cat") - "day" + 0.8 * "night"``.

    expression = {sign} term {sign {sign} term}
    term       = factor {("*" | "/") factor}
    factor     = number | string | "(" expression ")" | sign factor
               | ("image" | "text") "(" string ")" | name "(" arguments ")"
               | "weigh" "(" string {"," string "," expression} ")"
    arguments  = expression {"," expression}

A string in single or double quotes is a text, with the escapes of JSON and ``\'``: ``\"``, ``\\``,
``\n``, ``\t``, ``\u0041`` and so on. ``image`` takes the name of a picture, ``weigh`` a text, words
of it and how much each counts: ``weigh("a red star", "red", 1.5)``. The other names are those of
`expressions.FUNCTIONS`. Numbers may be multiplied with and divided by one another, and
embeddings by numbers. Nothing is ever evaluated as code.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from ldm_viz.conditioning.expressions import (
    FUNCTIONS,
    Call,
    Node,
    Picture,
    Text,
    Weighed,
    check_weight,
    find_words,
    weighted_sum,
)

__all__ = ["ExpressionError", "parse"]

MOST_CHARACTERS = 4000
MOST_DEPTH = 40
MOST_DIGITS = 40
MOST_EXPONENT = 30
MOST_FOLDED = 120
"""Digits above and below the line of a number that others are folded into."""

_WORDS = {
    "image": 'image("…")',
    "text": 'text("…")',
    "weigh": 'weigh("a red star", "red", 1.5)',
}
"""The functions of texts in quotes, as help and errors show them."""

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<number>(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?)
    |(?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
    |(?P<name>[^\W\d]\w*)
    |(?P<sign>[-+*/(),−×·])
    )""",
    re.VERBOSE | re.DOTALL,
)
_LOOKS_LIKE = {"−": "-", "×": "*", "·": "*"}
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)", re.DOTALL)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"} | {c: c for c in "\"'\\/"}
_WRITE_INSTEAD = {
    **dict.fromkeys("–—‐‑", "-"),
    **dict.fromkeys("∗⋅•∙", "*"),
    **dict.fromkeys("÷∕⁄", "/"),
    **dict.fromkeys("[{（", "("),
    **dict.fromkeys("]}）", ")"),
    **dict.fromkeys(";，、", ","),
    "＋": "+",
}


class ExpressionError(ValueError):
    """What is written is no expression.

    Attributes:
        reason: what is wrong, in a sentence.
        text: what was written.
        position: where, as an index into the text.
    """

    def __init__(self, reason: str, text: str, position: int) -> None:
        self.reason, self.text, self.position = reason, text, min(max(position, 0), len(text))
        super().__init__(f"{reason}\n{_point_at(text, self.position)}")


def _point_at(text: str, position: int) -> str:
    """The line of a place, with a caret below the place."""
    start = text.rfind("\n", 0, position) + 1
    stop = text.find("\n", position)
    line, column = text[start : len(text) if stop < 0 else stop], position - start
    if column > 60:
        line, column = "…" + line[column - 50 :], 51
    if len(line) > 100:
        line = f"{line[:99]}…"
    line = _on_one_line(line)
    return f"  {line}\n  {' ' * sum(map(_columns, line[:column]))}^"


def _on_one_line(text: str) -> str:
    """The same number of characters, all of which can be shown: tabs and the like become spaces."""
    return "".join(character if character.isprintable() else " " for character in text)


def _columns(character: str) -> int:
    """How wide a character of a fixed-width font is."""
    if unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    at: int


@dataclass(frozen=True)
class _Value:
    """A number, or a weighted node."""

    weight: Fraction
    node: Node | None
    at: int


def parse(text: str) -> Node:
    """Reads an expression.

    Args:
        text: for example ``'image("cat") - "day" + 0.8 * "night"'``.

    Returns:
        The tree, whose `str` is the expression in its plainest spelling.

    Raises:
        ExpressionError: it is none; the error says why and points at the place.
        TypeError: `text` is no string.

    Example:
        >>> str(parse("'a cat'*2 - .5*'dog'"))
        '2 * "a cat" - 0.5 * "dog"'
    """
    if not isinstance(text, str):
        raise TypeError(f"an expression is a str, but this is a {type(text).__name__}: {text!r}")
    if len(text) > MOST_CHARACTERS:
        raise ExpressionError(
            f"The expression has {len(text):,} characters; {MOST_CHARACTERS:,} are the most.",
            text,
            MOST_CHARACTERS,
        )
    return _Parser(text).read()


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = list(self._split())
        self.index = 0
        self.depth = 0

    def error(self, reason: str, at: int) -> ExpressionError:
        return ExpressionError(reason, self.text, at)

    def _split(self) -> Iterator[_Token]:
        at = 0
        while at < len(self.text):
            match = _TOKEN.match(self.text, at)
            if not match:
                at += len(self.text[at:]) - len(self.text[at:].lstrip())
                if at == len(self.text):
                    break
                raise self._stranger(at)
            kind = str(match.lastgroup)
            token = match[kind]
            yield _Token(kind, _LOOKS_LIKE.get(token, token), match.start(kind))
            at = match.end()
        # What is missing at the end is missing after the last character, not lines below it.
        yield _Token("end", "", len(self.text.rstrip()))

    def _stranger(self, at: int) -> ExpressionError:
        character = self.text[at]
        if character in "\"'":
            return self.error(
                f"The text that begins here has no closing {character}. "
                f"Within a text, {character} is written \\{character}.",
                at,
            )
        if character in "“”„‘’‚«»‹›`´":
            return self.error(f"Texts stand in straight quotes, \" or ', not in {character}.", at)
        instead = _WRITE_INSTEAD.get(character)
        cure = f"; write {instead} instead" if instead else ""
        return self.error(f"{character!r} has no meaning here{cure}.", at)

    @property
    def token(self) -> _Token:
        return self.tokens[self.index]

    def take(self) -> _Token:
        token = self.token
        self.index += token.kind != "end"
        return token

    def read(self) -> Node:
        if self.token.kind == "end":
            raise self.error('The expression is empty. Write a text in quotes, such as "a cat".', 0)
        value = self.expression()
        if self.token.kind != "end":
            raise self._left_over()
        if value.node is None:
            raise self.error(
                'This is only a number; write what it weighs, such as 2 * "a cat".', value.at
            )
        node = weighted_sum([(value.weight, value.node)])
        # Short spellings, such as 1e-30, have longer plain ones, and those must be readable too.
        if len(str(node)) > MOST_CHARACTERS:
            raise self.error(
                f"In its plain spelling the expression has {len(str(node)):,} characters; "
                f"{MOST_CHARACTERS:,} are the most.",
                0,
            )
        return node

    def _missing(self) -> ExpressionError:
        """What to say where a value should begin."""
        token = self.token
        what = "a text, a picture or a number is missing"
        if token.kind == "end":
            return self.error(f"The expression ends too early: {what} here.", token.at)
        if token.text == ")" and not self.depth:
            return self.error("This ) closes nothing.", token.at)
        return self.error(f"A{what[1:]} before {token.text}.", token.at)

    def _left_over(self) -> ExpressionError:
        """What to say where a value has ended, and what follows does not go on from it."""
        token = self.token
        if token.text == ")":
            return self.error("This ) closes nothing.", token.at)
        if token.text == ",":
            return self.error(
                "A comma stands only between what a function takes; decimals have a point: 1.5.",
                token.at,
            )
        return self.error(f"+, -, * or / is missing before {_short(token.text)}.", token.at)

    def expression(self) -> _Value:
        at = self.token.at
        terms: list[_Value] = []
        sign = Fraction(1)
        while self.token.text in ("+", "-") and self.token.kind == "sign":
            sign *= -1 if self.take().text == "-" else 1
        while True:
            value = self.term()
            terms.append(_Value(sign * value.weight, value.node, value.at))
            if self.token.kind != "sign" or self.token.text not in ("+", "-"):
                break
            sign = Fraction(1)
            while self.token.kind == "sign" and self.token.text in ("+", "-"):
                sign *= -1 if self.take().text == "-" else 1
        numbers = [term for term in terms if term.node is None]
        if len(numbers) == len(terms):
            total = Fraction(0)
            for term in terms:
                total = self._folded(total + term.weight, term.at)
            return _Value(total, None, at)
        if numbers:
            raise self.error(
                "A number cannot be added to an embedding; multiply an embedding by it.",
                numbers[0].at,
            )
        pairs = [(self._checked(term), term.node) for term in terms if term.node is not None]
        if len(pairs) == 1:
            return _Value(pairs[0][0], pairs[0][1], at)
        return _Value(Fraction(1), weighted_sum(pairs), at)

    def _checked(self, value: _Value, what: str = "a weight") -> Fraction:
        try:
            return check_weight(value.weight, what)
        except ValueError as error:
            raise self.error(f"{str(error)[0].upper()}{str(error)[1:]}.", value.at) from None

    def term(self) -> _Value:
        value = self.factor()
        while self.token.kind == "sign" and self.token.text in ("*", "/"):
            sign = self.take()
            other = self.factor()
            value = self._combine(value, sign, other)
        return value

    def _combine(self, left: _Value, sign: _Token, right: _Value) -> _Value:
        if sign.text == "/":
            if right.node is not None:
                raise self.error("An embedding cannot be a divisor; only a number can.", right.at)
            if right.weight == 0:
                raise self.error("This divides by zero.", right.at)
            weight = left.weight / right.weight
        else:
            if left.node is not None and right.node is not None:
                raise self.error(
                    "Two embeddings cannot be multiplied; one of the two must be a number.", sign.at
                )
            weight = left.weight * right.weight
        node = right.node if left.node is None else left.node
        return _Value(self._folded(weight, right.at), node, left.at)

    def _folded(self, weight: Fraction, at: int) -> Fraction:
        if max(abs(weight.numerator), weight.denominator) >= 10**MOST_FOLDED:
            raise self.error(
                f"Calculated up to here, the numbers have more than {MOST_FOLDED} digits.", at
            )
        return weight

    def factor(self) -> _Value:
        token = self.token
        if token.kind == "number":
            self.take()
            return _Value(self._number(token), None, token.at)
        if token.kind == "string":
            self.take()
            return _Value(Fraction(1), Text(self._string(token)), token.at)
        if token.kind == "name":
            return self.call()
        if token.text in ("-", "+"):
            self.take()
            self._enter(token)
            value = self.factor()
            self.depth -= 1
            return _Value(
                -value.weight if token.text == "-" else value.weight, value.node, token.at
            )
        if token.text == "(":
            self.take()
            self._enter(token)
            value = self.expression()
            self._close(token)
            self.depth -= 1
            if value.node is None:
                return value
            return _Value(Fraction(1), weighted_sum([(value.weight, value.node)]), token.at)
        raise self._missing()

    def _enter(self, token: _Token) -> None:
        self.depth += 1
        if self.depth > MOST_DEPTH:
            raise self.error(
                f"Parentheses, functions and signs are nested more than {MOST_DEPTH} deep.",
                token.at,
            )

    def _close(self, opened: _Token) -> None:
        if self.token.text == ")" and self.token.kind == "sign":
            self.take()
            return
        if self.token.kind == "end":
            raise self.error("This ( is never closed.", opened.at)
        raise self._left_over()

    def _number(self, token: _Token) -> Fraction:
        digits, _, exponent = token.text.lower().partition("e")
        exponent = exponent.lstrip("+-0")
        if len(digits) > MOST_DIGITS or len(exponent) > 2 or int(exponent or 0) > MOST_EXPONENT:
            raise self.error(
                f"This number is too long: {MOST_DIGITS} digits, and exponents from "
                f"-{MOST_EXPONENT} to {MOST_EXPONENT}, are the most.",
                token.at,
            )
        return Fraction(token.text)

    def _string(self, token: _Token) -> str:
        def resolve(match: re.Match[str]) -> str:
            code = match[1]
            if len(code) == 5:
                return chr(int(code[1:], 16))
            if code not in _ESCAPES:
                shown = f"\\{_on_one_line(code)}"
                rule = " needs four hexadecimal digits" if code == "u" else " means nothing"
                raise self.error(
                    f"{shown}{rule} within a text. A backslash is written \\\\.",
                    token.at + 1 + match.start(),
                )
            return _ESCAPES[code]

        text = _ESCAPE.sub(resolve, token.text[1:-1])
        # Two escapes may be the halves of one character.
        try:
            return text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            raise self.error(
                "This text has half a character in it (a lone surrogate).", token.at
            ) from None

    def call(self) -> _Value:
        name = self.take()
        opened = self.token
        known = (*FUNCTIONS, *_WORDS)
        if opened.text != "(" or opened.kind != "sign":
            if name.text in known:
                raise self.error(
                    f"A ( is missing after {name.text}: {_words(name.text)}.", opened.at
                )
            raise self._unquoted(name)
        if name.text not in known:
            close = difflib.get_close_matches(_short(name.text).lower(), known, 1)
            hint = f" Did you mean {close[0]}?" if close else ""
            raise self.error(
                f"There is no function {_short(name.text)}; there are {', '.join(known)}.{hint}",
                name.at,
            )
        self.take()
        self._enter(opened)
        node: Node
        if name.text == "weigh":
            node = self._weighed(name)
        elif name.text in _WORDS:
            node = self._named(name)
        else:
            node = self._function(name, opened)
        self._close(opened)
        self.depth -= 1
        return _Value(Fraction(1), node, name.at)

    def _unquoted(self, name: _Token) -> ExpressionError:
        last = name
        while self.token.kind == "name":
            last = self.take()
        words = _short(self.text[name.at : last.at + len(last.text)])
        verb = "means" if last is name else "mean"
        return self.error(
            f'{words} {verb} nothing without quotes. A text stands in quotes: "{words}".', name.at
        )

    def _named(self, name: _Token) -> Node:
        what = "the name of a picture" if name.text == "image" else "a text"
        text = self._quoted(name, f"{what} in quotes")
        if self.token.text != ")" and self.token.kind != "end":
            raise self.error(
                f"{name.text} takes one text in quotes and nothing else; here a ) is missing.",
                self.token.at,
            )
        return Picture(text) if name.text == "image" else Text(text)

    def _weighed(self, name: _Token) -> Node:
        text = self._quoted(name, "a text in quotes first")
        weights: dict[str, Fraction] = {}
        while self.token.kind == "sign" and self.token.text == ",":
            self.take()
            token = self.token
            word = self._quoted(name, "words of its text in quotes, each with a number")
            if not find_words(text, word):
                shown = _short(text)
                raise self.error(f"There is no {Text(word)} in {Text(shown)}.", token.at)
            if any(word.casefold() == known.casefold() for known in weights):
                raise self.error(f"{Text(word)} is weighed twice.", token.at)
            if self.token.kind != "sign" or self.token.text != ",":
                raise self.error(
                    f"How much {Text(word)} counts is missing: {_words(name.text)}.", self.token.at
                )
            self.take()
            value = self.expression()
            if value.node is not None:
                raise self.error(f"A number is needed here: {_words(name.text)}.", value.at)
            weights[word] = self._checked(value)
        if not weights:
            raise self.error(
                f"weigh needs a word of the text and a number: {_words(name.text)}.", self.token.at
            )
        return Weighed(Text(text), tuple(weights.items()))

    def _quoted(self, name: _Token, what: str) -> str:
        token = self.token
        if token.kind != "string":
            raise self.error(f"{name.text} takes {what}: {_words(name.text)}.", token.at)
        self.take()
        return self._string(token)

    def _function(self, name: _Token, opened: _Token) -> Node:
        signature = FUNCTIONS[name.text]
        values = [self.expression()]
        while self.token.kind == "sign" and self.token.text == ",":
            self.take()
            values.append(self.expression())
        amount = None
        if signature.amount:
            last = values.pop()
            if last.node is not None or not 0 <= last.weight <= 1:
                raise self.error(
                    f"{name.text} takes a number from 0 to 1 last: {signature.words}.", last.at
                )
            amount = self._checked(last, f"the amount of {name.text}")
        nodes = []
        for value in values:
            if value.node is None:
                raise self.error(f"An embedding is needed here: {signature.words}.", value.at)
            nodes.append(weighted_sum([(self._checked(value), value.node)]))
        most = signature.most or len(values)
        if not signature.least <= len(values) <= most:
            raise self.error(
                f"{name.text} takes {signature.least} "
                f"{'embedding' if signature.least == 1 else 'embeddings'}, not {len(values)}: "
                f"{signature.words}.",
                opened.at,
            )
        return Call(name.text, tuple(nodes), amount)


def _words(name: str) -> str:
    return FUNCTIONS[name].words if name in FUNCTIONS else _WORDS[name]


def _short(text: str) -> str:
    text = _on_one_line(text)
    return text if len(text) <= 30 else f"{text[:29]}…"
