"""The written form of embedding arithmetic: what is printed is read, what is wrong is pointed at."""

import math
import re
import time
import unicodedata
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from ldm_viz.conditioning.expressions import (
    FUNCTIONS,
    Call,
    Node,
    Picture,
    Sum,
    Text,
    Weighed,
    as_weight,
    find_words,
    leave_out,
    weighted_sum,
)
from ldm_viz.conditioning.grammar import ExpressionError, parse

A, B, C = Text("a"), Text("b"), Text("c")

# Trees as arithmetic makes them.

weights = st.one_of(
    st.fractions(-(10**6), 10**6, max_denominator=10**30),
    st.fractions(-(10**6), 10**6, max_denominator=12),
    st.decimals(-(10**6), 10**6, places=30).map(Fraction),
    st.sampled_from([Fraction(0), Fraction(1), Fraction(-1), Fraction(1, 3), Fraction(1, 2**99)]),
    st.sampled_from([Fraction(10**6), Fraction(-1, 10**30), 10**6 - Fraction(1, 10**30)]),
)
amounts = st.fractions(0, 1, max_denominator=10**30) | st.fractions(0, 1, max_denominator=8)
WORDS = ("red", "Star", "a", "é", "x-y", "...", "日本", "ß")


@st.composite
def weighed(draw):
    """A text with weights of some of its words."""
    words = draw(st.lists(st.sampled_from(WORDS), min_size=1, max_size=5))
    chosen = draw(st.lists(st.sampled_from(words), min_size=1, max_size=3, unique=True))
    return Weighed(Text(" ".join(words)), tuple((word, draw(weights)) for word in chosen))


leaves = st.builds(Text, st.text()) | st.builds(Picture, st.text()) | weighed()


def sums(inner):
    return st.lists(st.tuples(weights, inner), min_size=1, max_size=4).map(weighted_sum)


@st.composite
def calls(draw, inner):
    name = draw(st.sampled_from(sorted(FUNCTIONS)))
    signature = FUNCTIONS[name]
    operands = st.lists(inner, min_size=signature.least, max_size=signature.most or 4)
    return Call(name, tuple(draw(operands)), draw(amounts) if signature.amount else None)


trees = st.recursive(leaves, lambda inner: sums(inner) | calls(inner), max_leaves=12)


@settings(max_examples=200)
@given(trees)
@example(Text("\"'\\ \n\r\t\b\f\0\x1b\x7f\u2028\ufeff😀“”"))
@example(Text(""))
@example(Sum(((Fraction(-1), Sum(((Fraction(-1, 3), Picture("")),))),)))
@example(Sum(((Fraction(2), Sum(((Fraction(3), A),))), (Fraction(0), B))))
@example(Sum(((Fraction(1), Sum(((Fraction(1), A), (Fraction(1), B)))), (Fraction(1), C))))
@example(Call("mix", (Sum(((Fraction(-2), A),)), Sum(((Fraction(1), B), (Fraction(-1), C))))))
def test_what_a_tree_prints_is_read_as_that_tree(tree):
    assume(len(str(tree)) <= 4000)
    assert parse(str(tree)) == tree


def leaves_of(tree):
    if isinstance(tree, Sum):
        return [leaf for _, node in tree.terms for leaf in leaves_of(node)]
    if isinstance(tree, Call):
        return [leaf for node in tree.operands for leaf in leaves_of(node)]
    if isinstance(tree, Weighed):
        return [tree.text]
    return [tree]


@given(trees)
def test_the_leaves_of_a_tree_come_from_left_to_right(tree):
    assert list(tree.leaves()) == leaves_of(tree)


# Anything at all is read, or refused with its place.


def columns(character):
    if unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in ("W", "F") else 1


def above_the_caret(error):
    """The characters that begin in the column of the caret: one, and marks of the one before."""
    _, line, caret = str(error).split("\n")
    assert re.fullmatch(" +\\^", caret)
    column, found = 0, ""
    for character in line + " ":
        found += character if column == len(caret) - 1 else ""
        column += columns(character)
    return found


def read_or_refuse(text):
    """Reads; makes sure that what was read can be printed and read again."""
    try:
        tree = parse(text)
    except ExpressionError as error:
        assert error.text is text
        assert 0 <= error.position <= len(text)
        assert str(error).startswith(f"{error.reason}\n")
        here = text[error.position : error.position + 1]
        assert (here if here.isprintable() and here else " ") in above_the_caret(error)
        return error
    assert isinstance(tree, Node)
    assert parse(str(tree)) == tree
    return tree


TOKENS = [
    *("+", "-", "*", "/", "(", ")", ",", "−", "×", "·", " ", "\n", "\t", "\\", '"', "'", "“", "."),
    *("0", "1", "2", "0.5", ".5", "3.", "1e-30", "1e30", "9e5", "1e", "1/3", "７", "²"),
    *('"a"', "'b'", '"a cat"', '"\\n"', '"\\ud83d\\ude00"', '"\\ud83d"', '"\\x"', '"日本"'),
    *(
        'image("a.png")',
        "image",
        "text",
        *FUNCTIONS,
        *(f"{name}(" for name in FUNCTIONS),
        "cat",
        "weigh",
        "weigh(",
    ),
    *(signature.words for signature in FUNCTIONS.values()),
]
any_text = st.text(st.characters(exclude_categories=()), max_size=300)


@settings(max_examples=200)
@given(any_text)
@example("\ud800")
@example('"\ud83d\ude00"')
@example('"\udc00')
@example("a\r\nb")
def test_any_text_is_read_or_refused(text):
    read_or_refuse(text)


@settings(max_examples=200)
@given(st.lists(st.sampled_from(TOKENS), max_size=60), st.sampled_from(["", " ", "\n"]))
def test_any_order_of_tokens_is_read_or_refused(tokens, between):
    read_or_refuse(between.join(tokens))


@settings(max_examples=200)
@given(
    trees,
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.sampled_from(TOKENS)), max_size=4),
)
def test_an_expression_with_mistakes_is_read_or_refused(tree, changes):
    text = str(tree)
    for start, length, token in changes:
        at = int(start * len(text))
        gone = int(length**4 * 20)
        text = text[:at] + token + text[at + gone :]
    read_or_refuse(text)


def nested(name, depth):
    amount = ', "b", 0.5' if FUNCTIONS[name].amount else ', "b"' * (FUNCTIONS[name].least - 1)
    return f"{name}(" * depth + '"a"' + f"{amount})" * depth


BOMBS = {
    "a huge exponent": '1e999999999999 * "a"',
    "a tiny exponent": '1e-999999999999 * "a"',
    "an exponent of 3900 digits": f'1e{"9" * 3900} * "a"',
    "an exponent of 3900 zeros": f'1e{"0" * 3900}5 * "a"',
    "10 to the power of 400": f'1{"0" * 400} * "a"',
    "a number as long as allowed": "9" * 4000,
    "decimals as many as allowed": f'.{"3" * 3990}*"a"',
    "parentheses": "(" * 4000,
    "parentheses that close": "(" * 1990 + '"a"' + ")" * 1990,
    "closing parentheses": ")" * 4000,
    "minus signs": "-" * 3997 + '"a"',
    "minus signs after a times": '"a"*' + "-" * 3990 + "2",
    "minus signs between": '"a"' + "-" * 3990 + '"a"',
    "functions": "mix(" * 1000,
    "functions of functions": nested("lerp", 250),
    "sums in parentheses": '("a"+' * 700,
    "products of long numbers": f'{"*".join(["9" * 39] * 99)}*"a"',
    "quotients of long numbers": f'1{"/99999999999999999999999999999999999999" * 99}*"a"',
    "products of powers": f'{"*".join(["1e30"] * 790)}*"a"',
    "sums of quotients": f'({"+".join(f"1/(1e30+{n})" for n in range(1, 330, 2))})*"a"',
    "sums of short quotients": f'({"+".join(f"1/{n}" for n in range(1000, 1650))})*"a"',
    "quotients by embeddings": '"a"' + "/3" * 1990,
    "terms": "+".join(['"a"'] * 990),
    "arguments": f"mix({','.join(['1'] * 1990)})",
    "commas": "," * 4000,
    "an open text": '"' + "a" * 3999,
    "an open text of escapes": '"' + "\\\\" * 1999,
    "open texts": "\"'" * 1999,
    "lone halves of characters": '"' + "\\ud800" * 600 + '"',
    "a long name": "slerp" * 800,
    "a long function": "slerp" * 799 + '("a")',
    "names": "cat " * 1000,
    "white space": " " * 4000,
    "lines": "\n" * 3990 + "x",
    "too much": '"a"+' * 10**6,
    "small weights": "+".join(['"a"*1e-30'] * 390),
    "controls in a text": '"' + "\x01" * 3990 + '"',
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_no_text_is_slow_to_read_or_too_deep(bomb):
    start = time.process_time()
    read_or_refuse(BOMBS[bomb])
    assert time.process_time() - start < 1


@pytest.mark.parametrize("name", FUNCTIONS)
def test_forty_functions_may_be_nested_and_no_more(name):
    assert str(parse(nested(name, 40))) == nested(name, 40)
    with pytest.raises(ExpressionError, match="nested more than 40 deep") as caught:
        parse(nested(name, 41))
    assert caught.value.position == 41 * len(name) + 40


def test_things_side_by_side_are_not_nested():
    text = " + ".join(["2 * mix(normalize((\"a\")), image('b'))", "- + - ('a' + 2 * -'b')"] * 50)
    assert len(parse(text).terms) == 100


# What expressions mean.


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ('"a" + "b" - "c"', '"a" + "b" - "c"'),
        ('"a" - ("b" - "c")', '"a" - ("b" - "c")'),
        ('("a" + "b") - "c"', '("a" + "b") - "c"'),
        ('"a" + 2 * "b"', '"a" + 2 * "b"'),
        ('("a" + "b") * 2', '2 * ("a" + "b")'),
        ('2 * (3 * "a")', '2 * (3 * "a")'),
        ('(("a"))', '"a"'),
        ("2 * 'a' * 3", '6 * "a"'),
        ("'a' / 2 / 2", '0.25 * "a"'),
        ("'a' / 2 * 2", '"a"'),
        ("8 / 2 / 2 * 'a'", '2 * "a"'),
        ("8 / (2 / 2) * 'a'", '8 * "a"'),
        ("(1 + 2 * 3 - 4) * 'a'", '3 * "a"'),
        ("((1 + 2) * 3) * 'a'", '9 * "a"'),
        ("(0.1 + 0.2 - 0.3) * 'a'", '0 * "a"'),
        ("'a' * (0.1 * 3 - 0.3)", '0 * "a"'),
        ("0 * 'a'", '0 * "a"'),
        ("1/3 * 'a'", '1/3 * "a"'),
        ("'a' * 1/3", '1/3 * "a"'),
        ("'a' * 1/3 * 3", '"a"'),
        ("'a' / -3", '-1/3 * "a"'),
        ("1/8 * 'a'", '0.125 * "a"'),
        (".5 * 'a' + 5. * 'b'", '0.5 * "a" + 5 * "b"'),
        ("1.5e2 * 'a' + 1E-2 * 'b' + 1e+1 * 'c'", '150 * "a" + 0.01 * "b" + 10 * "c"'),
        ("1e5 * 1e5 * 'a' / 1e10", '"a"'),
        ("007 * 'a'", '7 * "a"'),
        ("-'a'", '-"a"'),
        ("+'a'", '"a"'),
        ("--'a'", '"a"'),
        ("-+-+-'a'", '-"a"'),
        ("'a' - -'b' + +'c'", '"a" + "b" + "c"'),
        ("'a' + -'b'", '"a" - "b"'),
        ("'a' * -2", '-2 * "a"'),
        ("-2 * -'a'", '2 * "a"'),
        ("2 * --'a' / -+-4", '0.5 * "a"'),
        ("-('a' - 'b')", '-("a" - "b")'),
        ("'a' − 2 × 'b' + 'c' · 3", '"a" - 2 * "b" + 3 * "c"'),
        (" \n\t'a'\r\n+\u00a0\u3000'b'\n", '"a" + "b"'),
        ("'a'+'b'", '"a" + "b"'),
        ('\'say "hi"\' - "it\'s"', '"say \\"hi\\"" - "it\'s"'),
        (r''''it\'s' - "\"\\\/\n\t\r\b\f\u0041\u00e9"''', '"it\'s" - "\\"\\\\/\\n\\t\\r\\b\\fAé"'),
        (r'"\ud83d\ude00" - "😀"', '"😀" - "😀"'),
        ('"two\nlines"', '"two\\nlines"'),
        ("''", '""'),
        ('image("cat.png") - "day" + .8 * "night"', 'image("cat.png") - "day" + 0.8 * "night"'),
        ("image ( 'a b.png' )", 'image("a b.png")'),
        ("text('a')", '"a"'),
        ("2 * text('image')", '2 * "image"'),
        ("mix('a', 2 * 'b', 'c' - 'a')", 'mix("a", 2 * "b", "c" - "a")'),
        ("mix('a')", 'mix("a")'),
        ("mix((2 * 'a'), (('b')))", 'mix(2 * "a", "b")'),
        ("lerp('a', 'b', .25)", 'lerp("a", "b", 0.25)'),
        ("slerp('a', 'b', 1/3)", 'slerp("a", "b", 1/3)'),
        ("slerp('a', 'b', (1 - 0.5) * 2)", 'slerp("a", "b", 1)'),
        ("lerp('a', 'b', -0)", 'lerp("a", "b", 0)'),
        ("-2 * normalize('a' + 'b') / 4", '-0.5 * normalize("a" + "b")'),
        ("keep_norm('a' - 'b', 'a')", 'keep_norm("a" - "b", "a")'),
        ("project_out(image('a'), mix('a', 'b'))", 'project_out(image("a"), mix("a", "b"))'),
    ],
)
def test_an_expression_has_one_plain_spelling(text, plain):
    assert str(parse(text)) == plain
    assert parse(plain) == parse(text)


def test_trees_have_the_parts_that_the_text_names():
    half, one = Fraction(1, 2), Fraction(1)
    assert parse("'a'") == A
    assert parse("image('a')") == Picture("a") != Text("a")
    assert parse("-'a'") == Sum(((-one, A),))
    assert parse("'a' - .5 * 'b'") == Sum(((one, A), (-half, B)))
    assert parse("'a' - ('b' + 'c') / 2") == Sum(((one, A), (-half, Sum(((one, B), (one, C))))))
    assert parse("lerp('a', -'b', 1/2)") == Call("lerp", (A, Sum(((-one, B),))), half)
    assert parse("mix('a', 'b' / 2)") == Call("mix", (A, Sum(((half, B),))))
    assert parse("keep_norm('a', 'b')") == Call("keep_norm", (A, B), None)


class Vector(dict):
    """Coefficients by letter, with the operators that embeddings have."""

    def __add__(self, other):
        if not isinstance(other, Vector):
            return NotImplemented
        return Vector({name: self.get(name, 0) + other.get(name, 0) for name in {*self, *other}})

    def __mul__(self, number):
        if not isinstance(number, Fraction):
            return NotImplemented
        return Vector({name: number * size for name, size in self.items()})

    __rmul__ = __mul__

    def __truediv__(self, number):
        return self * (1 / number) if isinstance(number, Fraction) else NotImplemented

    def __sub__(self, other):
        return self + -other

    def __neg__(self):
        return self * Fraction(-1)

    def __pos__(self):
        return self


def as_python_means_it(text):
    """Its value by Python's own precedence, None where Python finds no embedding in it."""
    text = re.sub(r"[0-9.]+", lambda match: f"Fraction('{match[0]}')", text)
    text = re.sub(r'"(\w)"', r"Vector(\1=Fraction(1))", text)
    try:
        value = eval(text, {"Fraction": Fraction, "Vector": Vector})
    except (SyntaxError, TypeError, ZeroDivisionError):
        return None
    return value if isinstance(value, Vector) else None


def as_the_tree_means_it(tree):
    if isinstance(tree, Text):
        return Vector({tree.text: Fraction(1)})
    assert isinstance(tree, Sum)
    total = Vector()
    for weight, node in tree.terms:
        total = total + weight * as_the_tree_means_it(node)
    return total


arithmetic = st.recursive(
    st.sampled_from(["0.5", "2", "3", "0.1", "0", "7", '"a"', '"b"', '"c"']),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+-*/"), inner).map(" ".join),
        st.tuples(st.sampled_from("+-"), inner).map(" ".join),
        st.tuples(st.just("("), inner, st.just(")")).map(" ".join),
    ),
    max_leaves=10,
)
symbols = ["2", "3", "0", "0.5", '"a"', '"b"', "+", "-", "*", "/", "(", ")"]
jumbled = st.lists(st.sampled_from(symbols), min_size=1, max_size=9)


@pytest.mark.filterwarnings("ignore:.*is not callable:SyntaxWarning")
@settings(max_examples=200)
@given(arithmetic | jumbled.map(" ".join))
@example('- "a" * 2 - - 3 * ( "b" - 2 * "a" ) / 7')
@example('2 ( "a" )')
@example('"a" ( 2 )')
@example('2 / "a"')
@example('"a" * 2 * "b"')
def test_precedence_and_signs_are_those_of_python(text):
    expected = as_python_means_it(text)
    found = read_or_refuse(text)
    if expected is None:
        assert isinstance(found, ExpressionError)
    else:
        assert as_the_tree_means_it(found) == expected


# What is wrong, and where.

FINE = "1/(1e20+1)/(1e20+3)"

MISTAKES = [
    # The text as a whole.
    ("", 0, 'The expression is empty. Write a text in quotes, such as "a cat".'),
    (" \n ", 0, "The expression is empty."),
    ("'a'" + " " * 3998, 4000, "The expression has 4,001 characters; 4,000 are the most."),
    ("'a' * 1e-30 +" * 300 + "'a'", 0, "In its plain spelling the expression has"),
    ("2 * 3", 0, 'This is only a number; write what it weighs, such as 2 * "a cat".'),
    ("(2)", 0, "This is only a number"),
    # Characters.
    ("'a' - 'b", 6, "begins here has no closing '. Within a text, ' is written \\'."),
    ('"a" - "b', 6, 'begins here has no closing ". Within a text, " is written \\".'),
    ("'don't'", 6, "Within a text, ' is written \\'."),
    ('"a\\', 0, "The text that begins here has no closing"),
    ("“a”", 0, "Texts stand in straight quotes, \" or ', not in “."),
    ("2 * `a`", 4, "Texts stand in straight quotes, \" or ', not in `."),
    ("'a' & 'b'", 4, "'&' has no meaning here."),
    ("'a' ^ 2", 4, "'^' has no meaning here."),
    ("'a' – 'b'", 4, "'–' has no meaning here; write - instead."),
    ("'a' ÷ 2", 4, "'÷' has no meaning here; write / instead."),
    ("mix['a']", 3, "'[' has no meaning here; write ( instead."),
    ("mix('a'; 'b')", 7, "';' has no meaning here; write , instead."),
    ("'a' + ٣", 6, "'٣' has no meaning here."),
    ("  \x1b", 2, "'\\x1b' has no meaning here."),
    # Texts.
    ("'a' - 'ab\\c'", 9, "\\c means nothing within a text. A backslash is written \\\\."),
    ("'\\\n'", 1, "\\  means nothing within a text."),
    ("'a\\u12'", 2, "\\u needs four hexadecimal digits within a text."),
    ("'a' - '\\ud83d'", 6, "This text has half a character in it (a lone surrogate)."),
    ("'a' - '\udc00'", 6, "This text has half a character in it"),
    # Numbers.
    ("'a' * 1e31", 6, "This number is too long: 40 digits, and exponents from -30 to 30"),
    ("1e-31 * 'a'", 0, "This number is too long"),
    ("'a' * " + "3" * 41, 6, "This number is too long"),
    ("1e30 * 1e30 * 1e30 * 1e30 * 'a'", 21, "the numbers have more than 120 digits."),
    ("'a' / 1e30 / 1e30 / 1e30 / 1e30", 27, "Calculated up to here, the numbers"),
    ("(1/(1e30+1)/(1e30+3) + 1/(1e30+7)/(1e30+9))*'a'", 23, "have more than 120 digits."),
    ("'a' / 0", 6, "This divides by zero."),
    ("1 / (0.1 + 0.2 - 0.3) * 'a'", 5, "This divides by zero."),
    ("'a' + 1000000.5 * 'b'", 6, "A weight must lie within ±1,000,000, but this one is 1000000.5."),
    ("'a' * -1e20", 0, "A weight must lie within ±1,000,000, but this one is about -1e+20."),
    (
        f"'a' - {FINE} * 'b'",
        6,
        "A weight has at most 30 decimals, but this one, about -1e-40, is finer",
    ),
    ("mix('a', 2e6 * 'b')", 9, "A weight must lie within ±1,000,000"),
    (f"lerp('a', 'b', {FINE})", 15, "The amount of lerp has at most 30 decimals"),
    # Operators.
    ("'a' + 1", 6, "A number cannot be added to an embedding; multiply an embedding by it."),
    ("1 - 'a'", 0, "A number cannot be added to an embedding"),
    ("'a' * 'b'", 4, "Two embeddings cannot be multiplied; one of the two must be a number."),
    ("2 * 'a' * ('b' - 'a')", 8, "Two embeddings cannot be multiplied"),
    ("1 / 'a'", 4, "An embedding cannot be a divisor; only a number can."),
    ("'b' / 'a'", 6, "An embedding cannot be a divisor"),
    ("'a' +", 5, "The expression ends too early: a text, a picture or a number is missing here."),
    ("'a' +  \n\n", 5, "The expression ends too early"),
    ("(", 1, "The expression ends too early"),
    ("mix(", 4, "The expression ends too early"),
    ("* 'a'", 0, "A text, a picture or a number is missing before *."),
    ("'a' ** 2", 5, "A text, a picture or a number is missing before *."),
    ("'a' + , 'b'", 6, "A text, a picture or a number is missing before ,."),
    ("()", 1, "A text, a picture or a number is missing before )."),
    ("mix()", 4, "A text, a picture or a number is missing before )."),
    ("mix('a',)", 8, "A text, a picture or a number is missing before )."),
    ("'a' 'b'", 4, "+, -, * or / is missing before 'b'."),
    ("'a' " + "'b" + "\n" * 40 + "'", 4, "+, -, * or / is missing before 'b" + " " * 27 + "…."),
    ("2 'b'", 2, "+, -, * or / is missing before 'b'."),
    ("3cats", 1, "+, -, * or / is missing before cats."),
    ("1.2.3 * 'a'", 3, "+, -, * or / is missing before .3."),
    ("('a' + 'b')('c')", 11, "+, -, * or / is missing before (."),
    ("('a' 2)", 5, "+, -, * or / is missing before 2."),
    ("mix('a' image('b'))", 8, "+, -, * or / is missing before image."),
    (
        "1,5 * 'a'",
        1,
        "A comma stands only between what a function takes; decimals have a point: 1.5.",
    ),
    ("('a', 'b')", 4, "A comma stands only between what a function takes"),
    # Parentheses.
    (")", 0, "This ) closes nothing."),
    ("'a')", 3, "This ) closes nothing."),
    ("'b' - ('a'))", 11, "This ) closes nothing."),
    ("'a' - )", 6, "This ) closes nothing."),
    ("'b' - ('a'", 6, "This ( is never closed."),
    ("mix('a', ('b')", 3, "This ( is never closed."),
    ("image('a'", 5, "This ( is never closed."),
    (
        "(" * 41 + "'a'" + ")" * 41,
        40,
        "Parentheses, functions and signs are nested more than 40 deep.",
    ),
    ("'a' *" + "-" * 41 + "2", 45, "nested more than 40 deep."),
    # Names.
    ("'a' - cat", 6, 'cat means nothing without quotes. A text stands in quotes: "cat".'),
    (
        "a red  cat - 'day'",
        0,
        'a red  cat mean nothing without quotes. A text stands in quotes: "a red',
    ),
    ("x" * 99, 0, f"{'x' * 29}… means nothing without quotes."),
    ("lerp", 4, 'A ( is missing after lerp: lerp("a", "b", 0.5).'),
    ("'a' - image 'b'", 12, 'A ( is missing after image: image("…").'),
    (
        "'a' - foo('a')",
        6,
        "There is no function foo; there are mix, lerp, slerp, normalize, keep_norm",
    ),
    ("slrep('a', 'b', 1)", 0, "text, weigh. Did you mean slerp?"),
    ("LERP('a', 'b', 1)", 0, "text, weigh. Did you mean lerp?"),
    ("weigh('a b', 'c', 2)", 13, 'There is no "c" in "a b"'),
    ("weigh('a b', 'ab', 2)", 13, 'There is no "ab" in'),
    ("weigh('redder', 'red', 2)", 16, 'There is no "red"'),
    ("weigh('a b', '', 2)", 13, 'There is no ""'),
    ("weigh('a', 'a', 2, 'A', 3)", 19, '"A" is weighed twice'),
    ("weigh('a', 'a', 'b')", 16, "A number is needed here"),
    ("weigh('a', 'a')", 14, 'How much "a" counts is missing'),
    ("weigh('a')", 9, "weigh needs a word"),
    ("weigh(image('a'), 'a', 2)", 6, "weigh takes a text in quotes first"),
    ("weigh('a', 2, 2)", 11, "weigh takes words of its text in quotes"),
    ("weigh('a', 'a', 1e9)", 16, "1,000,000"),
    ("weigh 'a'", 6, "A ( is missing after weigh"),
    ("Image('a')", 0, "text, weigh. Did you mean image?"),
    ("x" * 99 + "('a')", 0, f"There is no function {'x' * 29}…; there are"),
    # What functions take.
    ("image(cat)", 6, 'image takes the name of a picture in quotes: image("…").'),
    ("image()", 6, "image takes the name of a picture in quotes"),
    ("text(2)", 5, 'text takes a text in quotes: text("…").'),
    ("image('a', 'b')", 9, "image takes one text in quotes and nothing else; here a ) is missing."),
    ("text('a' + 'b')", 9, "text takes one text in quotes and nothing else; here a ) is missing."),
    ("lerp('a', 'b')", 10, 'lerp takes a number from 0 to 1 last: lerp("a", "b", 0.5).'),
    ("lerp('a', 'b', 1.01)", 15, "lerp takes a number from 0 to 1 last"),
    ("slerp('a', 'b', -0.1)", 16, "slerp takes a number from 0 to 1 last"),
    ("mix('a', 2)", 9, 'An embedding is needed here: mix("a", 2 * "b", …).'),
    ("lerp('a', 0, 1)", 10, "An embedding is needed here"),
    ("lerp(0.5)", 4, 'lerp takes 2 embeddings, not 0: lerp("a", "b", 0.5).'),
    ("lerp('a', 'b', 'c', 1)", 4, "lerp takes 2 embeddings, not 3"),
    ("normalize('a', 'b')", 9, 'normalize takes 1 embedding, not 2: normalize("a").'),
    ("keep_norm('a')", 9, 'keep_norm takes 2 embeddings, not 1: keep_norm("a" - "b", "a").'),
    ("project_out('a', 'b', 'c')", 11, "project_out takes 2 embeddings, not 3"),
]


@pytest.mark.parametrize(
    ("text", "position", "part"), MISTAKES, ids=[ascii(text[:30]) for text, *_ in MISTAKES]
)
def test_a_mistake_is_named_and_pointed_at(text, position, part):
    error = read_or_refuse(text)
    assert isinstance(error, ExpressionError), f"{text!r} was read as {error}"
    assert part in error.reason
    assert error.position == position
    assert "\n" not in error.reason


@pytest.mark.parametrize("given", [None, 3, b"'a'", A, ["'a'"]])
def test_only_a_str_is_read(given):
    with pytest.raises(
        TypeError, match=f"an expression is a str, but this is a {type(given).__name__}"
    ):
        parse(given)


@pytest.mark.parametrize(
    ("text", "line", "caret"),
    [
        ("'a' + cat", "'a' + cat", 6),
        ("'a'\n+ cat\n+ 'b'", "+ cat", 2),
        ("'a' +\n\ncat", "cat", 0),
        ("'a' +\n", "'a' +", 5),
        ("'a'\r\n+ cat\r\n", "+ cat ", 2),
        ("'a\nb' + cat", "b' + cat", 5),
        ("('a\nb' + 'c'", "('a", 0),
        ("\t'a'\t+ cat", " 'a' + cat", 7),
        ("'日本' + cat", "'日本' + cat", 9),
        ("'ｆ😀' + cat", "'ｆ😀' + cat", 9),
        ("'e\u0301' + cat", "'e\u0301' + cat", 6),
        ("'\u200b\x1b\u2028' + cat", "'   ' + cat", 8),
        ("'" + "a" * 200 + "' + cat", "…" + "a" * 46 + "' + cat", 51),
        ("'" + "日" * 200 + "' + cat", "…" + "日" * 46 + "' + cat", 97),
        ("'" + "a" * 55 + "' + cat", "'" + "a" * 55 + "' + cat", 60),
        ("'" + "a" * 56 + "' + cat", "…" + "a" * 46 + "' + cat", 51),
        ("cat + '" + "a" * 200 + "'", "cat + '" + "a" * 92 + "…", 0),
        ("cat + '" + "a" * 93 + "'", "cat + '" + "a" * 92 + "…", 0),
        ("cat + '" + "a" * 92 + "'", "cat + '" + "a" * 92 + "'", 0),
        (
            "'" + "a" * 99 + "' + cat + '" + "b" * 99 + "'",
            "…" + "a" * 46 + "' + cat + '" + "b" * 41 + "…",
            51,
        ),
        ("'" + "a" * 99 + "'\n+ cat", "+ cat", 2),
    ],
)
def test_the_caret_stands_below_the_mistake(text, line, caret):
    with pytest.raises(ExpressionError) as caught:
        parse(text)
    assert str(caught.value) == f"{caught.value.reason}\n  {line}\n  {' ' * caret}^"


# Numbers that weigh.


@pytest.mark.parametrize(
    ("value", "weight"),
    [
        (0.1, Fraction(1, 10)),
        (-2.5, Fraction(-5, 2)),
        (-0.0, Fraction(0)),
        (1e-7, Fraction(1, 10**7)),
        (1 / 3, Fraction(3333333333333333, 10**16)),
        (3, Fraction(3)),
        (10**6, Fraction(10**6)),
        (-1e6, Fraction(-(10**6))),
        (Fraction(1, 3), Fraction(1, 3)),
        (Fraction(1, 10**30), Fraction(1, 10**30)),
        (np.float64(0.1), Fraction(1, 10)),
        (np.float32(0.1), Fraction(1, 10)),
        (np.float16(0.1), Fraction(1, 10)),
        (np.int8(-3), Fraction(-3)),
        (np.uint64(7), Fraction(7)),
    ],
)
def test_a_weight_is_what_its_digits_say(value, weight):
    found = as_weight(value)
    assert found == weight
    assert type(found) is Fraction and type(found.numerator) is type(found.denominator) is int


@given(st.decimals(-(10**6), 10**6, places=8))
def test_floats_add_up_as_decimals_do(number):
    assert as_weight(float(number)) == Fraction(number)
    assert as_weight(0.1) + as_weight(0.2) - as_weight(0.3) == 0


@pytest.mark.parametrize("value", [True, np.True_, "0.5", None, 1j, Decimal("0.1"), np.ones(1), A])
def test_what_is_no_number_is_no_weight(value):
    with pytest.raises(TypeError) as caught:
        as_weight(value, "the pull")
    name = type(value).__name__
    assert str(caught.value) == f"the pull must be a number, but this one is {value!r}, a {name}"


TOO_MUCH = [
    (math.nan, "must be a finite number, but this one is nan"),
    (-math.inf, "must be a finite number, but this one is -inf"),
    (np.float32("inf"), "must be a finite number, but this one is inf"),
    (10**6 + 1, "must lie within ±1,000,000, but this one is 1000001"),
    (-1000000.5, "must lie within ±1,000,000, but this one is -1000000.5"),
    (Fraction(10**7, 3), "must lie within ±1,000,000, but this one is 10000000/3"),
    (1e300, "must lie within ±1,000,000, but this one is about 1e+300"),
    (-(10**5000), "must lie within ±1,000,000, but this one is beyond ±1e308"),
    (1e-31, "has at most 30 decimals, but this one, about 1e-31, is finer: round it"),
    (5e-324, "has at most 30 decimals, but this one, about 4.94e-324, is finer: round it"),
    (
        Fraction(1, 3**9999),
        "has at most 30 decimals, but this one, about 0, is finer: round it",
    ),
]


@pytest.mark.parametrize(
    ("value", "message"), TOO_MUCH, ids=[message[-40:] for _, message in TOO_MUCH]
)
def test_a_weight_out_of_bounds_is_refused(value, message):
    with pytest.raises(ValueError) as caught:
        as_weight(value, "the pull")
    assert str(caught.value) == f"the pull {message}"


@pytest.mark.parametrize(
    ("text", "words", "places", "less"),
    [
        ("a red star", "red", [(2, 5)], "a star"),
        ("Red, redder, RED!", "red", [(0, 3), (13, 16)], ", redder, !"),
        ("a red star", "a red", [(0, 5)], "star"),
        ("one (two) one", "(two)", [(4, 9)], "one one"),
        ("x.y", ".", [(1, 2)], "x y"),
        ("schön", "sch", [], None),
        ("a_b", "a", [], None),
        ("a", "a", [(0, 1)], ""),
        ("a", " ", [], None),
    ],
)
def test_words_are_found_whole(text, words, places, less):
    assert find_words(text, words) == places
    if less is None:
        with pytest.raises(ValueError, match="is not in"):
            leave_out(text, words)
    else:
        assert leave_out(text, words) == less
