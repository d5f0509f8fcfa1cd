"""A text's tokens: which are kept, which are cut, and where those of one text lie in another."""

from __future__ import annotations

import copy
import re
import weakref
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = [
    "Block",
    "Token",
    "find",
    "most_alike",
    "place",
    "place_less",
    "read_block",
    "split_text",
]

_CLEARLY = 4.0  # standard deviations above the mean, of cosines with the whole vocabulary
_SAMPLE = 4096  # rows of the vocabulary that the mean is taken of


@dataclass(frozen=True)
class Token:
    """A piece of a text.

    Attributes:
        text: as the tokenizer spells it.
        kept: False if the text is longer than the encoder reads, and this is beyond.
        special: whether it marks a beginning or an end.
        word: the word of the text that it is of, or a part of; empty for marks, and where the
            tokenizer does not tell.
        begins: whether its word begins with it.
    """

    text: str
    kept: bool
    special: bool
    word: str = ""
    begins: bool = True


@dataclass(frozen=True)
class Block:
    """A stretch of a prompt's sequence that one tokenizer filled.

    Attributes:
        start: where it begins in the sequence.
        length: how many positions it has.
        content: the text's own tokens, without marks, as far as they are kept.
        first: where the content begins in the block: 1 behind a mark of the beginning, else 0.
    """

    start: int
    length: int
    content: tuple[int, ...]
    first: int

    @property
    def end(self) -> int:
        """The position, in the block, of the mark of the end."""
        return self.first + len(self.content)


_copies: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()


def _own(tokenizer: Any) -> Any:
    """A tokenizer of ours: whether one cuts is kept in itself, and the pipeline's may be at work."""
    found = _copies.get(tokenizer)
    if found is None or len(found) != len(tokenizer):
        found = _copies[tokenizer] = copy.deepcopy(tokenizer)
    return found


def read_block(tokenizer: Any, text: str, start: int, length: int) -> Block | None:
    """A text's block; None where a tokenizer marks no end or pads in front, unlike CLIP's and T5's."""
    ids = list(_own(tokenizer)(text, truncation=False, verbose=False).input_ids)
    first = int(bool(ids) and ids[0] == tokenizer.bos_token_id)
    ended = bool(ids) and ids[-1] == tokenizer.eos_token_id
    if not ended or tokenizer.padding_side != "right":
        return None
    # One place is left for the end.
    return Block(start, length, tuple(ids[first:-1][: length - first - 1]), first)


def split_text(tokenizer: Any, text: str, most: int | None = None) -> list[Token]:
    """A text's tokens, marks included, those beyond the longest length too.

    Args:
        tokenizer: a transformers tokenizer.
        text: the text.
        most: how many tokens the encoder reads; the tokenizer's own limit by default.
    """
    limit = most or tokenizer.model_max_length
    told = bool(getattr(tokenizer, "is_fast", False))
    split = _own(tokenizer)(text, truncation=False, verbose=False, return_offsets_mapping=told)
    ids = list(split.input_ids)
    words = tokenizer.convert_ids_to_tokens(ids)
    spans = split["offset_mapping"] if told else [(0, 0)] * len(ids)
    # By their places: a word that the tokenizer does not know may have the number of the end.
    begun = bool(ids) and ids[0] == tokenizer.bos_token_id
    ended = bool(ids) and ids[-1] == tokenizer.eos_token_id
    places = [found.span() for found in re.finditer(r"\w+", text)]
    found: list[Token] = []
    room = limit - int(ended)
    reached = 0
    for at, word in enumerate(words):
        mark = (begun and at == 0) or (ended and at == len(words) - 1)
        kept = mark or at < room
        text_of = word.replace("</w>", "").replace("▁", "").replace("Ġ", "")
        first, last = (0, 0) if mark else _word_at(text, places, *spans[at])
        found.append(Token(text_of, kept, mark, text[first:last], mark or first >= reached))
        reached = max(reached, last)
    return found


def _word_at(
    text: str, places: Sequence[tuple[int, int]], start: int, stop: int
) -> tuple[int, int]:
    """The word that a stretch of a text lies in; the stretch itself where it is no letters.

    Args:
        text: the text.
        places: where its words begin and end.
        start: the stretch's first character.
        stop: the one behind its last.
    """
    inner = text[start:stop]
    start += len(inner) - len(inner.lstrip())
    at = bisect_right(places, (start, len(text))) - 1
    if at >= 0 and start < places[at][1]:
        return places[at]
    return start, start + len(inner.strip())


def place(term: Block, host: Block, span: tuple[int, int]) -> list[int]:
    """Where each position of a host takes its vector from, for a term laid on a span of the host.

    On the span lies the term's content, stretched to its length; before it the term's beginning,
    after it the term's end, as if the term stood there alone.

    Args:
        term: the block to lay.
        host: the block it is laid on, of the same length.
        span: first and one behind the last position of the span, in the host's block.

    Returns:
        For each position of the host's block the position in the term's.
    """
    size, room = len(term.content), span[1] - span[0]
    lead = 0 if term.first else term.end
    found = []
    for at in range(host.length):
        if at < span[0]:
            found.append(lead)
        elif at < span[1]:
            inside = at - span[0]
            # A longer content keeps its last words, which in a causal encoder know the first.
            share = inside * size // room if size <= room else size - room + inside
            found.append(term.first + share)
        else:
            found.append(min(term.end + max(0, at - host.end), term.length - 1))
    return found


def find(content: Sequence[int], host: Sequence[int]) -> int:
    """Where a run of tokens lies within another, shorter than that; -1 if nowhere."""
    size = len(content)
    if not 0 < size < len(host):
        return -1
    for at in range(len(host) - size + 1):
        if tuple(host[at : at + size]) == tuple(content):
            return at
    return -1


def place_less(less: Block, whole: Block) -> list[int]:
    """Where each position of a text takes its vector from in the same text with words left out.

    What is in both is laid on itself, so that what differs is what the words brought to it. On the
    words that are left out lies what stands before them.

    Args:
        less: the block of the text without the words.
        whole: the block of the text, of the same length.

    Returns:
        For each position of the whole's block the position in the other's.
    """
    kept: dict[int, int] = {}
    # By what both have in common: without a word some tokenizers split what stands beside it anew.
    matcher = SequenceMatcher(None, less.content, whole.content, autojunk=False)
    for mine, theirs, size in matcher.get_matching_blocks():
        kept |= {theirs + at: mine + at for at in range(size)}
    found = list(range(whole.first))
    before = -1
    for at in range(len(whole.content)):
        before = kept.get(at, before)
        found.append(max(0, less.first + before))
    behind = range(whole.end, whole.length)
    found.extend(min(less.end + at - whole.end, less.length - 1) for at in behind)
    return found


def most_alike(table: torch.Tensor, content: Sequence[int], host: Sequence[int]) -> int:
    """The token of a text that means most nearly what another text means; -1 if none clearly does.

    Tokens are compared by the vectors that the encoder begins with, which know nothing of what stands
    around them. One is clearly alike if its cosine stands out of those of the whole vocabulary.

    Args:
        table: the encoder's vectors of all tokens, ``(vocabulary, width)``.
        content: the tokens of the text that is looked for.
        host: the tokens it is looked for in.

    Returns:
        A place in `host`.
    """
    from torch.nn.functional import cosine_similarity

    if table.is_meta or not content or not host:
        return -1
    rows = table.detach()
    wanted = rows[list(content)].float().mean(0, keepdim=True)
    usual = cosine_similarity(rows[:: max(1, len(rows) // _SAMPLE)].float(), wanted)
    found = cosine_similarity(rows[list(host)].float(), wanted)
    best = int(found.argmax())
    stands_out = float((found[best] - usual.mean()) / usual.std())
    return best if stands_out >= _CLEARLY else -1
