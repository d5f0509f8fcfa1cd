"""Grids: pictures of one condition with two more terms in it, over the weights of both."""

from __future__ import annotations

import base64
import os
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ldm_viz.capture.arguments import checked_seed
from ldm_viz.conditioning import Embedding, parse
from ldm_viz.conditioning.embeddings import combine, reconcile
from ldm_viz.conditioning.expressions import Sum, as_weight, format_weight
from ldm_viz.exports.exporting import checked_target
from ldm_viz.exports.writers import written_whole
from ldm_viz.imaging import contact_sheet, encode_image
from ldm_viz.labs.batches import Frame, Stopper, checked_call, draw_frames
from ldm_viz.labs.walks import as_embedding, in_typeface, tell_failure, tell_plain

__all__ = ["Grid", "grid"]

SUFFIXES = {".png": "a contact sheet", ".webp": "a contact sheet, smaller"}

_MOST = 400  # pictures
_NOT_DRAWN = 232  # grey
_TILE = 128
_ROW_LABEL = 11  # characters that fit beside a row, in each of
_ROW_LINES = 5


@dataclass(frozen=True, eq=False, repr=False)
class Grid:
    """Pictures of one condition over the weights of two more terms in it; `grid` draws them.

    In a notebook it shows itself as a labelled contact sheet. ``grid[row, column]`` is a picture,
    ``grid[row]`` the pictures of a row, and iterating gives row after row, all as of `pictures`.

    Attributes:
        pictures: ``(rows, columns, height, width, 3)`` uint8, grey where none was drawn; read-only.
        drawn: ``(rows, columns)`` bool, which were drawn.
        across: The term whose weight grows along a row, as an expression, and its weights.
        down: The term whose weight grows down a column, and its weights; ``("", (0.0,))`` for none.
        conditions: The condition of each picture as an expression, row by row.
        base: The expression that both are added to.
        seed: Of the noise, the same for all pictures.
        status: ``"complete"``, ``"stopped"`` or ``"failed"``.
        error: Which picture failed and with what; ``""`` otherwise.
    """

    pictures: np.ndarray
    drawn: np.ndarray
    across: tuple[str, tuple[float, ...]]
    down: tuple[str, tuple[float, ...]]
    conditions: tuple[tuple[str, ...], ...]
    base: str
    seed: int
    status: str = "complete"
    error: str = ""

    @property
    def row_labels(self) -> tuple[str, ...]:
        """What each row adds to the base, such as ``'0.5 * "night"'``."""
        return _labels(self.down)

    @property
    def column_labels(self) -> tuple[str, ...]:
        """What each column adds to the base."""
        return _labels(self.across)

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.pictures)

    def __getitem__(self, place: Any) -> np.ndarray:
        """The picture in ``[row, column]``, or all of a ``[row]``; as of the array `pictures`."""
        return self.pictures[place]

    def __iter__(self) -> Iterator[np.ndarray]:
        """The rows, each ``(columns, height, width, 3)`` uint8."""
        return iter(self.pictures)

    def __repr__(self) -> str:
        rows, columns, height, width, _ = self.pictures.shape
        count = int(self.drawn.sum())
        parts = [f"{rows}×{columns} pictures of {width}×{height}"]
        if count < self.drawn.size:
            parts = [f"{count} of {rows}×{columns} pictures"]
        parts += [f"seed {self.seed}", self.status + (f" ({self.error})" if self.error else "")]
        return f"Grid: {self._terms()}, {', '.join(parts)}"

    def sheet(self, tile: int = _TILE) -> np.ndarray:
        """A contact sheet with the weights beside rows and below columns.

        Args:
            tile: Side of a picture's square, in pixels.

        Returns:
            The sheet, ``(height, width, 3)`` uint8.
        """
        sides = [_beside(label) for label in self.row_labels]
        caption = repr(self).removeprefix(f"Grid: {self.base}, ")
        return contact_sheet(
            [(side, list(row)) for side, row in zip(sides, self.pictures, strict=True)],
            column_labels=list(map(in_typeface, self.column_labels)),
            title=in_typeface(self.base),
            caption=in_typeface(caption),
            tile=tile,
        )

    def still(self) -> bytes:
        """The contact sheet as a PNG."""
        return encode_image(self.sheet(), "png")

    def save(self, path: str | os.PathLike[str], *, size: int | None = None) -> Path:
        """Write it as a labelled contact sheet.

        Args:
            path: Where to; ``.png`` or ``.webp``.
            size: The longer side of each picture in pixels, 16 to 4096; by default as they are, but
                within 128 to 512.

        Returns:
            The path written.

        Raises:
            ValueError: The ending is unknown, or the size out of bounds.
            OSError: There is no such folder, or nothing can be written there.

        Example:
            >>> boats = lv.grid(pipe, "a boat", ("red", [-1, 0, 1]), ("night", [0, 0.5, 1]))
            >>> boats.save("boats.png")
            PosixPath('boats.png')
        """
        path = Path(path)
        suffix = checked_target(path, SUFFIXES)
        if size is None:
            size = min(max(_TILE, *self.pictures.shape[2:4]), 512)
        if isinstance(size, bool) or not isinstance(size, int) or not 16 <= size <= 4096:
            raise ValueError(f"size must be a whole number from 16 to 4096 pixels, not {size!r}")
        data = encode_image(self.sheet(size), suffix.removeprefix("."))
        with written_whole(path) as part:
            part.write_bytes(data)
        return path

    def _terms(self) -> str:
        named = [(self.across, "across"), (self.down, "down")]
        return ", ".join([self.base, *(f"{term} {way}" for (term, _), way in named if term)])

    def _alt(self) -> str:
        weights = ", ".join(self.column_labels)
        text = f"{self!r}. Columns: {weights}."
        return text + (f" Rows: {', '.join(self.row_labels)}." if self.down[0] else "")

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        data = {"text/plain": repr(self), "image/png": base64.b64encode(self.still()).decode()}
        return data, {"image/png": {"alt": self._alt()}}


Term = tuple[Embedding | str, Sequence[float]]


def grid(
    pipe: Any,
    base: Embedding | str,
    across: Term,
    down: Term | None = None,
    *,
    seed: int = 0,
    negative: Embedding | str | None = None,
    batch: int | None = None,
    progress: bool = True,
    cancel: Stopper | None = None,
    **call: Any,
) -> Grid:
    """Draws a condition with two more terms in it, over all pairs of their weights.

    The picture in row ``i`` and column ``j`` is of ``base + down[i] * term + across[j] * term``, all with
    the same noise. Batches, interrupting and failing are as for `walk`.

    Args:
        pipe: A diffusers pipeline.
        base: What the terms are added to; a str is a plain prompt, as for `walk`.
        across: A term (an `Embedding` or a str) and its weights, from the left to the right column.
        down: Another, from the top to the bottom row; None for a single row.
        seed: Of the noise of all pictures.
        negative: What guidance leads away from; as for `condition`.
        batch: Pictures in one call; as for `walk`.
        progress: Whether to show a bar.
        cancel: An object with ``is_set()``; as for `walk`.
        **call: Anything else that the pipeline itself takes, such as ``num_inference_steps``.
            ``guidance_scale`` is the usual one by default, as for `walk`.

    Returns:
        The grid, which shows itself as a labelled contact sheet.

    Raises:
        SpaceError: The terms live in different spaces, or the pipeline cannot take them.
        EmbeddingError: A sum is zero or not finite.
        ValueError: There are no weights, more than 400 pictures, or a number is out of bounds.
        TypeError: A term is none, the guidance scale is no number, or the pipeline takes no argument of a
            name in ``call``.

    Example:
        >>> picture = lv.image(pipe, boat)
        >>> lv.grid(pipe, picture, ("night", [0, 0.5, 1]), ("snow", [0, 0.5, 1]))
    """
    call = checked_call(pipe, call, batch)
    seed = checked_seed(seed)
    columns, rows = _weights(across, "across"), _weights(down, "down")
    tell_plain(negative, "negative")
    if len(columns) * len(rows) > _MOST:
        raise ValueError(
            f"{len(rows)} × {len(columns)} are {len(rows) * len(columns)} pictures, and {_MOST} are the "
            "most: give fewer weights"
        )
    given = [as_embedding(pipe, base, "base"), as_embedding(pipe, across[0], "the term of across")]
    if down is not None:
        given.append(as_embedding(pipe, down[0], "the term of down"))
    terms = reconcile(given, "grid")

    def embedding(row: int, column: int) -> Embedding:
        weights = [Fraction(1), columns[column], rows[row]][: len(terms)]
        # What weighs nothing would stand in the written form all the same.
        return combine([(w, t) for w, t in zip(weights, terms, strict=True) if w], "grid")

    shape = len(rows), len(columns)
    places = list(np.ndindex(shape))
    written = [str(embedding(*place).check().expression) for place in places]
    frames = [
        Frame(
            partial(embedding, *place), f"row {place[0]}, column {place[1]} ({words})", (seed, seed)
        )
        for place, words in zip(places, written, strict=True)
    ]
    drawn = draw_frames(
        pipe,
        frames,
        negative=negative,
        batch=batch,
        progress=progress,
        cancel=cancel,
        call=call,
        what="Drawing the grid",
    )
    count = len(drawn.pictures)
    tell_failure(drawn.error, count)
    size = drawn.pictures[0].shape if count else (_TILE, _TILE, 3)
    pictures = np.full((len(places), *size), _NOT_DRAWN, np.uint8)
    if count:
        pictures[:count] = drawn.pictures
    there = (np.arange(len(places)) < count).reshape(shape)
    pictures = pictures.reshape(*shape, *size)
    for array in (pictures, there):
        array.flags.writeable = False
    words = [str(term.expression) for term in terms]
    return Grid(
        pictures,
        there,
        (words[1], tuple(map(float, columns))),
        (words[2] if down is not None else "", tuple(map(float, rows))),
        tuple(tuple(written[r * shape[1] : (r + 1) * shape[1]]) for r in range(shape[0])),
        words[0],
        seed,
        drawn.status,
        drawn.error,
    )


def _weights(term: Any, name: str) -> list[Fraction]:
    if term is None and name == "down":
        return [Fraction(0)]
    if not isinstance(term, Sequence) or isinstance(term, str) or len(term) != 2:
        raise TypeError(
            f'{name} must be a term and its weights, such as ("night", [0, 0.5, 1]), not {term!r:.60}'
        )
    if isinstance(term[1], str) or not hasattr(term[1], "__iter__"):
        raise TypeError(f"the weights of {name} must be a list of numbers, not {term[1]!r:.60}")
    weights = [as_weight(weight, f"a weight of {name}") for weight in term[1]]
    if not weights:
        raise ValueError(f"{name} has no weights; give one at least")
    return weights


def _labels(term: tuple[str, tuple[float, ...]]) -> tuple[str, ...]:
    words, weights = term
    if not words:
        return ("",)
    shown = f"({words})" if isinstance(parse(words), Sum) else words
    return tuple(f"{format_weight(as_weight(weight))} * {shown}" for weight in weights)


def _beside(label: str) -> str:
    """A row's label as the margin has room for it: the weight, and the term below it."""
    if not label:
        return ""
    weight, term = in_typeface(label).split(" * ", 1)
    lines = [f"{weight} *", *textwrap.wrap(term, _ROW_LABEL)]
    if len(lines) > _ROW_LINES:
        lines = [*lines[: _ROW_LINES - 1], "…"]
    return "\n".join(lines)
