"""Walks: pictures on the way from one condition to another, or from one seed to another."""

from __future__ import annotations

import base64
import math
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np

from ldm_viz.capture.arguments import checked_seed
from ldm_viz.conditioning import Embedding, ExpressionError, lerp, parse, slerp, text
from ldm_viz.conditioning.embeddings import reconcile
from ldm_viz.conditioning.encoders import _callers_level
from ldm_viz.exports.exporting import checked_target, write_film
from ldm_viz.exports.film import Film, Words, plain_text
from ldm_viz.exports.panels import Panel
from ldm_viz.exports.writers import written_whole
from ldm_viz.imaging import contact_sheet, encode_image
from ldm_viz.labs.batches import Frame, Stopper, checked_call, draw_frames
from ldm_viz.widgets.picture_strip import PictureStrip

__all__ = ["Walk", "as_embedding", "in_typeface", "tell_failure", "tell_plain", "walk"]

WAYS: dict[str, Callable[[Embedding, Embedding, Any], Embedding]] = {"slerp": slerp, "lerp": lerp}
SUFFIXES = {
    ".gif": "an animation that everything shows",
    ".webp": "an animation, smaller and with all colours",
    ".mp4": "a video, written by the ffmpeg on PATH",
    ".png": "a contact sheet",
    ".html": "the strip on one page",
}
_MOST_FRAMES = 1000
_IN_A_ROW = 8  # pictures of a contact sheet
_TILE = 128
_PICTURE_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True, eq=False, repr=False)
class Walk:
    """Pictures on the way from one condition, or seed, to another; `walk` draws them.

    In a notebook it shows itself as a strip to scrub through, `strip`. ``walk[3]`` is its picture 3,
    ``walk[-1]`` the last, and iterating gives them one by one, all as of `pictures`. Positions count
    from 0, here and in `error`; what the strip and files say under a picture counts from 1.

    Attributes:
        pictures: ``(n, height, width, 3)`` uint8, as many as were drawn; read-only.
        amounts: How far along each is, 0 at the start and 1 at the end, ``n`` of them.
        conditions: The condition of each as an expression, which `embed` reads.
        seeds: The seeds at both ends, equal where the noise stays.
        way: ``"slerp"`` or ``"lerp"``.
        frames: How many were asked for.
        status: ``"complete"``, ``"stopped"`` or ``"failed"``.
        error: Which frame failed and with what; ``""`` otherwise.
    """

    pictures: np.ndarray
    amounts: tuple[float, ...]
    conditions: tuple[str, ...]
    seeds: tuple[int, int]
    way: str
    frames: int
    status: str = "complete"
    error: str = ""
    title: str = field(default="A walk", kw_only=True)

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, place: Any) -> np.ndarray:
        """A picture, ``(height, width, 3)`` uint8, or those of a slice; as of the array `pictures`."""
        return self.pictures[place]

    def __iter__(self) -> Iterator[np.ndarray]:
        return iter(self.pictures)

    def __repr__(self) -> str:
        count = f"{len(self)}" if len(self) == self.frames else f"{len(self)} of {self.frames}"
        size = "×".join(map(str, reversed(self.pictures.shape[1:3])))
        facts = [f"{count} pictures" + (f" of {size}" if len(self) else ""), self._seed_words()]
        facts += [self.status + (f" ({self.error})" if self.error else "")]
        return f"Walk: {self.title}, {', '.join(facts)}"

    @cached_property
    def strip(self) -> PictureStrip:
        """The widget that it shows itself as; its ``frame`` can be observed, set and linked.

        ``frame`` counts from 0, as positions do in Python; the words that are shown count from 1.

        Raises:
            ValueError: There is no picture.
        """
        self._check_some()
        labels = [self._label(place) for place in range(len(self))]
        return PictureStrip(self.pictures, labels, self.conditions, title=self.title)

    def still(self) -> bytes:
        """The walk as one still picture, a PNG: all its pictures, eight in a row."""
        return encode_image(self._sheet(), "png")

    def save(
        self,
        path: str | os.PathLike[str],
        *,
        fps: float = 8.0,
        hold: float = 1.0,
        size: int | None = None,
        labels: bool = True,
        bounce: bool = False,
    ) -> Path:
        """Write it as an animation, a contact sheet or a page; the file's ending tells which.

        The file appears whole or not at all.

        Args:
            path: Where to; ``.gif``, ``.webp``, ``.mp4`` (needs ffmpeg on PATH), ``.png`` (a contact
                sheet of all pictures) or ``.html`` (the strip; ``fps`` is its speed).
            fps: Pictures a second, 0.1 to 50.
            hold: Seconds that the pictures at both ends stay.
            size: The longer side of a picture in pixels, 16 to 4096; by default as they are, but
                within 256 to 512, and 128 in a contact sheet.
            labels: Whether amounts and conditions are written under the pictures.
            bounce: Whether an animation goes back to the start, too, so that it can repeat for ever.

        Returns:
            The path written.

        Raises:
            ValueError: The ending is unknown, a number is out of bounds, or there is no picture.
            OSError: There is no such folder, or nothing can be written there.
            ExportError: There is no ffmpeg, or it failed.

        Example:
            >>> lv.walk(pipe, "a red boat", "a blue boat").save("boats.gif", bounce=True)
            PosixPath('boats.gif')
        """
        path = Path(path)
        suffix = checked_target(path, SUFFIXES)
        self._check_some()
        _check_between("fps", fps, 0.1, 50)
        _check_between("hold", hold, 0, 60)
        if size is not None:
            _check_between("size", size, 16, 4096)
            size = round(size)
        if suffix == ".html":
            strip = PictureStrip(
                self.pictures, self.strip.labels, self.conditions, title=self.title, speed=fps
            )
            with written_whole(path) as part:
                strip.to_html(part)
            return path
        if suffix == ".png":
            sheet = self._sheet(size or _TILE, labels)
            with written_whole(path) as part:
                part.write_bytes(encode_image(sheet, "png"))
            return path
        self._write_film(path, suffix, fps, hold, size, labels, bounce)
        return path

    def _write_film(
        self,
        path: Path,
        suffix: str,
        fps: float,
        hold: float,
        size: int | None,
        labels: bool,
        bounce: bool,
    ) -> None:
        places = list(range(len(self)))
        if bounce:
            places += places[-2:0:-1]
        panel = Panel(
            *(("", ""), (self.title,), "", "", self.pictures.shape[1:3], False, len(self)),
            lambda positions: self.pictures[list(positions)],
        )
        film = Film([panel], places, [self._words(i) for i in places], size=size, labels=labels)
        ends = {0, len(self) - 1}
        seconds = [max(hold, 1 / fps) if place in ends else 1 / fps for place in places]
        write_film(path, suffix, film, seconds, fps=fps)

    def _sheet(self, tile: int = _TILE, labels: bool = True) -> np.ndarray:
        count = max(1, len(self))
        columns = math.ceil(count / math.ceil(count / _IN_A_ROW))
        starts = range(0, len(self), columns)
        rows = [("", list(self.pictures[start : start + columns])) for start in starts]
        if not labels:
            return contact_sheet(rows, tile=tile)
        amounts = [f"{amount:.3g}" for amount in self.amounts]
        named: Sequence[str] = amounts if len(rows) == 1 else ()
        if len(rows) > 1:
            ends = [(amounts[start], amounts[start : start + columns][-1]) for start in starts]
            words = [a if a == b else f"{a}\nto {b}" for a, b in ends]
            rows = [(w, pictures) for w, (_, pictures) in zip(words, rows, strict=True)]
        caption = repr(self).removeprefix(f"Walk: {self.title}, ")
        return contact_sheet(
            rows,
            column_labels=named,
            title=in_typeface(self.title),
            caption=in_typeface(caption),
            tile=tile,
        )

    def _label(self, place: int) -> str:
        words = f"amount {self.amounts[place]:.3f} · picture {place + 1} of {self.frames}"
        return f"{words} · {self._seed_words()}"

    def _words(self, place: int) -> Words:
        amount = f"{self.amounts[place]:.2f}"
        seeds = self._seed_words()
        details = (f"{self.conditions[place]} · {seeds}", self.conditions[place], seeds, "")
        return Words(amount, details, amount)

    def _seed_words(self) -> str:
        first, second = self.seeds
        return f"seed {first}" if first == second else f"seeds {first} to {second}"

    def _check_some(self) -> None:
        if not len(self):
            raise ValueError("this walk has no picture: it was stopped before the first was done")

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        if not len(self):
            return {"text/plain": repr(self)}
        bundle = self.strip._repr_mimebundle_(**kwargs)
        if bundle is None:
            return None
        data, metadata = bundle
        return {
            **data,
            "text/plain": repr(self),
            "image/png": base64.b64encode(self.still()).decode(),
        }, metadata


def walk(
    pipe: Any,
    start: Embedding | str,
    stop: Embedding | str,
    frames: int = 16,
    *,
    way: str = "slerp",
    seed: int | Sequence[int] = 0,
    negative: Embedding | str | None = None,
    batch: int | None = None,
    progress: bool = True,
    cancel: Stopper | None = None,
    **call: Any,
) -> Walk:
    """Draws pictures on the way from one condition to another, from one seed to another, or both.

    The ends are exact: the first picture's condition is ``start``, the last one's ``stop``. The first
    is drawn alone, so it is, bit for bit, what the pipeline draws of ``start`` with that seed. Of the
    others several are drawn in one call, each with a generator of its own, so that which of them are
    together changes nothing but roundings: kernels add in another order where there are more
    pictures, which may change a colour by a level or two. ``batch=1`` draws each as if it were alone.

    Between two seeds all noise that the pipeline draws is mixed along the arc between both (slerp), in
    the type it is drawn in: the initial noise, and what some schedulers add in each step.

    Interrupted (Ctrl-C, or "Interrupt kernel"), it returns the pictures that are done. So it does where
    a later frame fails, with a warning that says which; what the first one raises is raised.

    Args:
        pipe: A diffusers pipeline.
        start: The condition at amount 0; a str is a plain prompt, embedded with `text`. Expressions are
            read by `embed`, pictures by `image`.
        stop: The condition at amount 1, in the same space; ``start`` again to walk between seeds alone.
        frames: Pictures, ends included, 2 to 1000.
        way: Between conditions, ``"slerp"`` (the arc; of prompts token by token) or ``"lerp"`` (the
            straight line).
        seed: One seed for all pictures, or the two at the ends.
        negative: What guidance leads away from; as for `condition`.
        batch: Pictures in one call. By default as many as seem to fit into half of the free memory, at
            most 32, on a CPU 8, and fewer where they do not fit. Joint vectors go one at a time.
        progress: Whether to show a bar.
        cancel: An object with ``is_set()``, such as a `threading.Event`; once that is true, the walk
            ends after the step it is in.
        **call: Anything else that the pipeline itself takes, such as ``num_inference_steps``.
            ``guidance_scale`` is by default the pipeline's own, but 2.5 with the embedded model, as in the
            lab.

    Returns:
        The walk, which shows itself as a strip to scrub through.

    Raises:
        SpaceError: ``start``, ``stop`` or ``negative`` live in different spaces, or the pipeline cannot
            take them.
        EmbeddingError: A condition on the way is zero or not finite.
        ValueError: A number is out of bounds, or both ends are the same.
        TypeError: The pipeline takes no argument of a name in ``call``, it is set by the walk, or the
            guidance scale is no number.

    Example:
        >>> boats = lv.walk(pipe, "a red boat at sunset", "a blue boat at night", seed=(1, 2))
        >>> boats.save("boats.webp")
    """
    call = checked_call(pipe, call, batch)
    frames = _checked_frames(frames)
    if way not in WAYS:
        raise ValueError(f"way must be {' or '.join(map(repr, WAYS))}, not {way!r}")
    seeds = _checked_seeds(seed)
    tell_plain(negative, "negative")
    ends = [as_embedding(pipe, end, name) for end, name in ((start, "start"), (stop, "stop"))]
    ends = [end.check() for end in reconcile(ends, "walk")]
    still = _same(*ends)
    if still and seeds[0] == seeds[1]:
        raise ValueError(
            "start and stop are the same and there is one seed, so all pictures would be alike; give "
            "another stop, or seed=(1, 2)"
        )

    def embedding(amount: Fraction) -> Embedding:
        if still or amount in (0, 1):
            return ends[0 if still else int(amount)]
        return WAYS[way](ends[0], ends[1], amount)

    amounts = [Fraction(place, frames - 1) for place in range(frames)]
    # All are checked before the first is drawn, and made again when their turn comes.
    conditions = tuple(str(embedding(amount).check().expression) for amount in amounts)
    drawn = draw_frames(
        pipe,
        [
            Frame(partial(embedding, a), f"frame {i} (amount {float(a):.3g})", seeds, float(a))
            for i, a in enumerate(amounts)
        ],
        negative=negative,
        batch=batch,
        progress=progress,
        cancel=cancel,
        call=call,
        what="Drawing the walk",
    )
    tell_failure(drawn.error, len(drawn.pictures))
    count = len(drawn.pictures)
    pictures = np.stack(drawn.pictures) if count else np.zeros((0, 0, 0, 3), np.uint8)
    pictures.flags.writeable = False
    return Walk(
        pictures,
        tuple(float(amount) for amount in amounts[:count]),
        conditions[:count],
        seeds,
        way,
        frames,
        drawn.status,
        drawn.error,
        title=conditions[0] if still else f"{conditions[0]} to {conditions[-1]}",
    )


def as_embedding(pipe: Any, value: Embedding | str, name: str) -> Embedding:
    """An embedding as it is, a text embedded, with a warning where it seems to be more than a text.

    Raises:
        TypeError: It is neither.
    """
    tell_plain(value, name)
    if isinstance(value, str):
        return text(pipe, value)
    if not isinstance(value, Embedding):
        raise TypeError(
            f"{name} must be an Embedding or a str, but this is a {type(value).__name__}; make one "
            "with lv.text, lv.image or lv.embed"
        )
    return value


def tell_plain(value: Any, name: str) -> None:
    """Warns, at the user's own line, of a text that reads as an expression or as a picture's name."""
    if not isinstance(value, str):
        return
    if value.lower().endswith(_PICTURE_ENDINGS):
        seems, cure = "looks like the name of a picture", f"lv.image(pipe, {value!r})"
    elif _is_expression(value):
        seems, cure = "reads as an expression", f"lv.embed(pipe, {value!r})"
    else:
        return
    warnings.warn(
        f"{name} is the text {value!r}, which {seems}, but is taken as a plain prompt, letter by "
        f"letter. If it is meant as more, give {cure}",
        UserWarning,
        stacklevel=_callers_level(),
    )


def _is_expression(value: str) -> bool:
    try:
        parse(value)
    except ExpressionError:
        return False
    return True


def in_typeface(text: str) -> str:
    """A text for a contact sheet, with what the typeface lacks written otherwise."""
    return plain_text(text).replace("×", " x ")


def tell_failure(error: str, count: int) -> None:
    """Warns, at the user's own line, that not all pictures could be drawn."""
    if error:
        warnings.warn(
            f"only {count} {'picture' if count == 1 else 'pictures'} could be drawn; {error}",
            UserWarning,
            stacklevel=3,
        )


def _same(a: Embedding, b: Embedding) -> bool:
    return all(bool((part == b.parts[name].to(part)).all()) for name, part in a.parts.items())


def _checked_frames(frames: Any) -> int:
    whole = isinstance(frames, int | np.integer) and not isinstance(frames, bool)
    if not whole or not 2 <= frames <= _MOST_FRAMES:
        raise ValueError(
            f"frames must be a whole number from 2, the ends alone, to {_MOST_FRAMES}, not {frames!r}"
        )
    return int(frames)


def _checked_seeds(seed: Any) -> tuple[int, int]:
    if isinstance(seed, Sequence) and not isinstance(seed, str):
        if len(seed) != 2:
            raise ValueError(
                f"seed must be one seed or the two at the ends, not {len(seed)} of them"
            )
        return checked_seed(seed[0]), checked_seed(seed[1])
    return checked_seed(seed), checked_seed(seed)


def _check_between(name: str, value: Any, least: float, most: float) -> None:
    number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not number or not least <= value <= most:
        raise ValueError(f"{name} must be a number from {least:g} to {most:g}, not {value!r}")
