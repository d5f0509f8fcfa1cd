"""A text's tokens: which are kept, which are cut, and where those of one text lie in another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Block", "Token", "place", "read_block", "split_text"]


@dataclass(frozen=True)
class Token:
    """A piece of a text.

    Attributes:
        text: as the tokenizer spells it.
        kept: False if the text is longer than the encoder reads, and this is beyond.
        special: whether it marks a beginning or an end.
    """

    text: str
    kept: bool
    special: bool


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


def read_block(tokenizer: Any, text: str, start: int, length: int) -> Block | None:
    """A text's block; None where a tokenizer marks no end or pads in front, unlike CLIP's and T5's."""
    ids = list(tokenizer(text, truncation=False, verbose=False).input_ids)
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
    ids = list(tokenizer(text, truncation=False, verbose=False).input_ids)
    words = tokenizer.convert_ids_to_tokens(ids)
    # By their places: a word that the tokenizer does not know may have the number of the end.
    begun = bool(ids) and ids[0] == tokenizer.bos_token_id
    ended = bool(ids) and ids[-1] == tokenizer.eos_token_id
    found = []
    room = limit - int(ended)
    for at, word in enumerate(words):
        mark = (begun and at == 0) or (ended and at == len(words) - 1)
        kept = mark or at < room
        text_of = word.replace("</w>", "").replace("▁", "").replace("Ġ", "")
        found.append(Token(text_of, kept, mark))
    return found


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
