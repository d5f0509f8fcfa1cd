"""Captions of a scene: a small grammar with synonyms, word orders and parts left out.

A caption says some of a scene's attributes; `Caption.said` tells which. What it leaves out may be
anything in the picture, which is how the model learns that silence means "as you like".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from ldm_viz.tiny.scenes import ATTRIBUTES, Scene

NOUNS: Mapping[str, tuple[str, ...]] = {
    "circle": ("circle", "disc", "disk", "ball", "round shape"),
    "square": ("square", "box", "block"),
    "triangle": ("triangle", "pyramid"),
    "star": ("star", "five-pointed star"),
    "heart": ("heart", "love heart"),
    "moon": ("moon", "crescent moon", "crescent"),
    "house": ("house", "home", "cottage", "cabin", "hut"),
    "tree": ("tree", "leafy tree"),
    "boat": ("boat", "sailboat", "ship", "sailing boat"),
    "flower": ("flower", "blossom", "bloom"),
    "fish": ("fish",),
    "mushroom": ("mushroom", "toadstool"),
}

HUES: Mapping[str, tuple[str, ...]] = {
    "red": ("red", "scarlet", "crimson"),
    "orange": ("orange", "tangerine"),
    "yellow": ("yellow", "golden"),
    "green": ("green", "emerald"),
    "blue": ("blue", "azure"),
    "purple": ("purple", "violet"),
    "pink": ("pink", "rosy"),
    "white": ("white", "ivory"),
}

SIZES: Mapping[str, tuple[str, ...]] = {
    "small": ("small", "little", "tiny"),
    "medium": ("medium", "medium-sized", "mid-sized", "medium size"),
    "large": ("large", "big", "huge", "giant"),
}

HOURS: Mapping[str, tuple[str, ...]] = {
    "day": (
        "by day",
        "at noon",
        "in daylight",
        "in the daytime",
        "during the day",
        "on a sunny day",
        "under a clear sky",
        "at day",
        "at daytime",
        "at midday",
        "in the day",
        "in the sunshine",
    ),
    "sunset": (
        "at sunset",
        "at dusk",
        "in the evening",
        "under a sunset sky",
        "during sunset",
        "at sundown",
        "at twilight",
        "as the sun sets",
        "in the evening light",
    ),
    "night": (
        "at night",
        "by night",
        "at midnight",
        "in the dark",
        "under a night sky",
        "during the night",
        "in the night",
        "late at night",
        "under a dark sky",
    ),
}

PLACES: Mapping[str, tuple[str, ...]] = {
    "grass": (
        "on grass",
        "on the grass",
        "on a lawn",
        "in a meadow",
        "on grassy ground",
        "in the grass",
        "in the meadow",
        "on the lawn",
        "in a field of grass",
    ),
    "sand": (
        "on sand",
        "on the sand",
        "on the beach",
        "on a beach",
        "in the desert",
        "in the sand",
        "on a sandy beach",
        "on sandy ground",
    ),
    "snow": (
        "on snow",
        "on the snow",
        "in the snow",
        "on snowy ground",
        "in snow",
        "in a snowy field",
    ),
    "water": (
        "on water",
        "on the water",
        "on the sea",
        "on a lake",
        "at sea",
        "in the sea",
        "on the lake",
        "on the ocean",
        "by the water",
        "over water",
        "in the water",
    ),
    "rock": (
        "on rock",
        "on rocks",
        "on the rocks",
        "on stone",
        "on stones",
        "on rocky ground",
        "on a rock",
        "on bare rock",
    ),
}

SIDES: Mapping[str, tuple[str, ...]] = {
    "left": (
        "on the left",
        "to the left",
        "at the left",
        "on the left side",
        "on the left-hand side",
        "at left",
        "left of centre",
    ),
    "centre": (
        "in the middle",
        "in the centre",
        "in the center",
        "at the centre",
        "at the center",
        "in the middle of the picture",
        "centred",
        "centered",
    ),
    "right": (
        "on the right",
        "to the right",
        "at the right",
        "on the right side",
        "on the right-hand side",
        "at right",
        "right of centre",
    ),
}

WORDS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "object": NOUNS,
    "colour": HUES,
    "time": HOURS,
    "ground": PLACES,
    "size": SIZES,
    "position": SIDES,
}
"""Attribute -> value -> the ways to say it; the first is the plainest."""

_KEYWORDS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "time": {
        "day": ("day", "daytime", "daylight", "noon"),
        "sunset": ("sunset", "dusk", "evening"),
        "night": ("night", "midnight", "night sky"),
    },
    "ground": {
        "grass": ("grass", "meadow", "lawn"),
        "sand": ("sand", "beach", "desert"),
        "snow": ("snow", "snowy ground"),
        "water": ("water", "sea", "lake"),
        "rock": ("rock", "rocks", "stone"),
    },
    "position": {
        "left": ("left", "left side"),
        "centre": ("centre", "center", "middle"),
        "right": ("right", "right side"),
    },
}

_OPENINGS = (
    "a sketch of",
    "a cartoon of",
    "a photograph of",
    "a simple drawing of",
    "an illustration showing",
    "here is",
    "i see",
    "please draw",
    "paint",
    "a picture of",
    "a drawing of",
    "an illustration of",
    "a painting of",
    "an image of",
    "a scene with",
    "a photo of",
    "there is",
    "show me",
    "draw",
)

_NICE = ("nice", "pretty", "beautiful", "cute", "simple", "lovely", "single", "lone", "cartoon")
_BEING = (
    "sitting",
    "standing",
    "lying",
    "placed",
    "floating",
    "resting",
    "shown",
    "seen",
    "that is",
)
_ENDINGS = ("illustration", "simple shapes", "flat style", "high quality", "clean lines")
"""Words that say nothing about the scene: the model learns to pass over such."""

_THINGS = ("thing", "object", "shape")
_RELATIVES = ("that is", "which is", "coloured", "colored", "painted", "in")
_NOTHINGS = ("something", "a scene", "a picture")

_KEEP = {
    "object": 0.94,
    "colour": 0.9,
    "time": 0.72,
    "ground": 0.72,
    "size": 0.62,
    "position": 0.62,
}


@dataclass(frozen=True)
class Caption:
    """A caption and the attributes of the scene that it says."""

    text: str
    said: frozenset[str]


_Word = Callable[..., str]
"""Draws a way to say an attribute of the scene at hand."""


def _article(phrase: str) -> str:
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def caption(scene: Scene, rng: np.random.Generator, *, say: Iterable[str] | None = None) -> Caption:
    """Describes a scene in words drawn at random.

    Args:
        scene: The scene to describe.
        rng: Chooses synonyms, word order and, without `say`, which attributes are said.
        say: The attributes to say. By default all of them in a third of the captions, else each
            with a probability of its own.

    Returns:
        The caption. It always says at least one attribute.

    Raises:
        ValueError: If `say` is empty or names an unknown attribute.

    Example:
        >>> scene = Scene("boat", "blue", "night", "water", "small", "left")
        >>> caption(scene, np.random.default_rng(3), say=["object", "colour"]).text
        'blue boat'
    """
    if say is None:
        everything = rng.random() < 0.34
        chosen = {name for name in ATTRIBUTES if everything or rng.random() < _KEEP[name]}
        chosen = chosen or {"object"}
    else:
        chosen = set(say)
        if not chosen or chosen - set(ATTRIBUTES):
            raise ValueError(
                f"say={sorted(chosen)}; a caption says one or more of {', '.join(ATTRIBUTES)}"
            )

    def word(attribute: str, words: Mapping[str, Mapping[str, tuple[str, ...]]] = WORDS) -> str:
        ways = words[attribute][getattr(scene, attribute)]
        plainest = rng.random() < 0.45
        return ways[0] if plainest else str(rng.choice(ways))

    if rng.random() < 0.12:
        return Caption(_keywords(chosen, word, rng), frozenset(chosen))
    text = _sentence(chosen, word, rng)
    if rng.random() < 0.06:
        text = text[0].upper() + text[1:] + "."
    return Caption(text, frozenset(chosen))


def _keywords(chosen: set[str], word: _Word, rng: np.random.Generator) -> str:
    """A list: ``red circle, night, grass, left, small``."""
    parts = []
    if "colour" in chosen or "object" in chosen:
        named = [a for a in ("size", "colour", "object") if a in chosen]
        if "size" in named and rng.random() < 0.5:
            named.remove("size")
        parts.append(" ".join(word(a) for a in named))
        chosen = chosen - set(named)
    for attribute in rng.permutation(sorted(chosen - {"object", "colour"})):
        parts.append(word(attribute, _KEYWORDS) if attribute in _KEYWORDS else word(attribute))
    return ", ".join(str(part) for part in rng.permutation(parts))


def _noun_phrase(chosen: set[str], word: _Word, rng: np.random.Generator) -> str:
    noun = word("object") if "object" in chosen else str(rng.choice(_THINGS))
    before = [word(a) for a in ("size", "colour") if a in chosen]
    if rng.random() < 0.06:
        noun = f"{rng.choice(_NICE)} {noun}"
    form = rng.random()
    if "colour" in chosen and form < 0.08:
        size = [word("size")] if "size" in chosen else []
        relative = str(rng.choice(_RELATIVES))
        phrase = " ".join([*size, noun, relative, word("colour")])
    elif form < 0.12 and len(before) == 2:
        phrase = " ".join([before[1], before[0], noun])
    elif form < 0.16 and len(before) == 2:
        phrase = " ".join([f"{before[0]},", before[1], noun])
    else:
        phrase = " ".join([*before, noun])
    article = rng.random()
    if article < 0.68:
        return _article(phrase)
    if article < 0.8:
        return f"the {phrase}"
    if article < 0.86:
        return f"one {phrase}"
    return phrase


def _sentence(chosen: set[str], word: _Word, rng: np.random.Generator) -> str:
    """A noun phrase with its circumstances before and behind it, in any order."""
    around = [str(a) for a in rng.permutation(sorted(chosen & {"time", "ground", "position"}))]
    says_object = bool(chosen & {"object", "colour", "size"})
    if not says_object:
        text = " ".join(word(a) for a in around)
        if rng.random() < 0.5:
            text = f"{rng.choice(_NOTHINGS)} {text}"
        return text
    lead = around[: int(rng.integers(0, 2)) + int(rng.random() < 0.1)] if rng.random() < 0.3 else []
    behind = [a for a in around if a not in lead]
    noun = _noun_phrase(chosen, word, rng)
    if rng.random() < 0.16:
        noun = f"{rng.choice(_OPENINGS)} {noun}"
    if behind and rng.random() < 0.08:
        noun = f"{noun} {rng.choice(_BEING)}"
    comma = ", " if rng.random() < 0.3 else " and " if rng.random() < 0.04 else " "
    text = comma.join([noun, *(word(a) for a in behind)])
    if rng.random() < 0.03:
        text = f"{text}, {rng.choice(_ENDINGS)}"
    if lead:
        opener = " ".join(word(a) for a in lead)
        link = str(rng.choice([", ", ": ", " ", " there is "]))
        text = f"{opener}{link}{text}"
    return text


@cache
def _vocabulary() -> frozenset[str]:
    tables = (*WORDS.values(), *_KEYWORDS.values())
    phrases = [way for table in tables for ways in table.values() for way in ways]
    phrases += [*_OPENINGS, *_NICE, *_BEING, *_ENDINGS, *_THINGS, *_RELATIVES, *_NOTHINGS]
    phrases += ["a an the one and there is"]
    return frozenset(_words(" ".join(phrases)))


def _words(text: str) -> list[str]:
    found = re.findall(r"[^\W_]+(?:['’][^\W_]+)*", text.lower())
    return [re.sub(r"['’]s$", "", word) for word in found]


def unknown_words(text: str) -> list[str]:
    """The words of a prompt that are in no caption, in their order: the model never learnt them.

    Example:
        >>> unknown_words("a purple dragon at night")
        ['dragon']
    """
    return [word for word in dict.fromkeys(_words(text)) if word not in _vocabulary()]


def plain(scene: Scene, say: Iterable[str] = tuple(ATTRIBUTES)) -> str:
    """The plainest caption of the attributes in `say`, always in the same words and order.

    Example:
        >>> plain(Scene("boat", "blue", "night", "water", "small", "left"))
        'a small blue boat on the left on water at night'
    """
    chosen = set(say)
    noun = " ".join(
        WORDS[a][getattr(scene, a)][0] if a in chosen else "" for a in ("size", "colour", "object")
    ).split()
    if "object" not in chosen:
        noun.append("object")
    circumstances = [
        WORDS[a][getattr(scene, a)][0] for a in ("position", "ground", "time") if a in chosen
    ]
    return " ".join([_article(" ".join(noun)), *circumstances])
