"""The frames of an animation: panels side by side, with the words of the step under them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ldm_viz.statistics import format_timestep, noise_words, step_words
from ldm_viz.trajectory.model import steps_in_words

from .panels import Panel

if TYPE_CHECKING:
    from ldm_viz.trajectory import Trajectory

PAPER, INK, QUIET = (255, 255, 255), (28, 30, 34), (104, 109, 118)
TRACK, ACCENT = (226, 229, 233), (33, 96, 168)

_AT_ONCE = 16  # pictures of a series that are read together
_BYTES_AT_ONCE = 1 << 26
_LONGEST = 16_383  # pixels: what WebP can hold, and more than any player shows

_TEXT = 400  # characters

# Pillow's own typeface lacks these.
_PLAIN = str.maketrans({"σ": "sigma", "−": "-", "∞": "inf"})


def plain_text(text: str) -> str:
    """Text on one line, with what the typeface lacks written out, and no longer than can ever be read."""
    return " ".join(text[:_TEXT].split()).translate(_PLAIN)


@dataclass(frozen=True)
class Words:
    """What is written under a frame.

    Attributes:
        place: Where it is.
        details: More, in ever fewer words.
        label: Where it is, as the label of a column.
    """

    place: str
    details: tuple[str, ...]
    label: str


def describe_steps(run: Trajectory, steps: Sequence[int]) -> list[Words]:
    """The words of each of these steps, and of the run's end."""
    words = [_describe_step(run, step) for step in steps]
    whole = run.part is None or run.part[1] == run.part[2]
    end = ("finished" if whole else "end") if run.complete else run.status
    return [*words, Words(end, (f"after {steps_in_words(run)}", ""), end)]


def _describe_step(run: Trajectory, step: int) -> Words:
    place, _, full = step_words(run, step).partition(" · ")
    timestep = format_timestep(run.timesteps[step])
    time = f"timestep {timestep}" if timestep != "NaN" else ""
    noise = noise_words(float(run.snrs[step]))
    both = " · ".join(part for part in (time, noise) if part)
    least = f"t {timestep}" if time else ""
    label = " · ".join(part for part in (f"step {step}", least) if part)
    return Words(place, (full, both, noise or time, time, least, ""), label)


class Film:
    """Frames of one size, drawn when they are asked for.

    Args:
        panels: What is shown, from left to right.
        positions: What the panels show in each frame.
        words: What is written under each.
        size: The longer side of a picture in pixels; None keeps the pictures' own between 256 and 512.
        labels: Whether there are titles, words and a line of progress.

    Raises:
        ValueError: A frame would have more than 16383 pixels on a side.
    """

    def __init__(
        self,
        panels: Sequence[Panel],
        positions: Sequence[int],
        words: Sequence[Words],
        *,
        size: int | None,
        labels: bool,
    ) -> None:
        self._panels, self._positions, self._words = panels, positions, words
        # Maps are laid out as the pictures are, whose sizes are the real ones.
        height, width = next((p.size for p in panels if not p.sharp), panels[0].size)
        longest = max(height, width)
        scale = (size or min(max(longest, 256), 512)) / longest
        self._box = (max(1, round(height * scale)), max(1, round(width * scale)))
        self._labels = labels
        self._font = font = min(max(round(0.05 * max(self._box)), 11), 20)
        self._large, self._small = (ImageFont.load_default(part * font) for part in (1.0, 0.8))
        self._margin = round(0.9 * font) if labels else 0
        self._gap = round(0.7 * font) if labels else max(2, round(0.015 * max(self._box)))
        self._top = self._margin + round(1.6 * font) if labels else 0
        below = round(2.6 * font) if labels else 0
        box_height, box_width = self._box
        self.width = 2 * self._margin + len(panels) * (box_width + self._gap) - self._gap
        self.height = self._top + box_height + below + (round(0.4 * font) if labels else 0)
        if max(self.width, self.height) > _LONGEST:
            raise ValueError(
                f"A frame would have {self.width}×{self.height} pixels, and {_LONGEST} on a side are "
                "the most; make size smaller, or show fewer series."
            )
        self._blank = self._draw_blank()
        self._level = self._choose_level()

    def __len__(self) -> int:
        return len(self._positions)

    @property
    def labels(self) -> list[str]:
        """A short label of each frame."""
        return [words.label for words in self._words]

    @property
    def nbytes(self) -> int:
        """Bytes of all frames together."""
        return len(self) * self.height * self.width * 3

    def __iter__(self) -> Iterator[np.ndarray]:
        return self.frames(range(len(self)))

    def frames(self, places: Sequence[int]) -> Iterator[np.ndarray]:
        """The frames at these places, each ``(height, width, 3)`` uint8."""
        for block in self._blocks(places):
            positions = [self._positions[place] for place in block]
            pictures = [panel.read(positions) for panel in self._panels]
            for k, place in enumerate(block):
                yield self._draw(place, [of_panel[k] for of_panel in pictures])

    def pictures(self, side: int) -> list[list[np.ndarray]]:
        """The pictures alone, panel by panel, their longer side ``side`` pixels, none of them repeated."""
        scale = side / max(self._box)
        box = (max(1, round(scale * self._box[0])), max(1, round(scale * self._box[1])))
        rows = []
        for panel in self._panels:
            own = [position for position in self._positions if position < panel.count]
            read = (panel.read([own[k] for k in block]) for block in self._blocks(range(len(own))))
            rows.append([np.asarray(_fitted(p, box, panel.sharp)) for part in read for p in part])
        return rows

    def _blocks(self, places: Sequence[int]) -> Iterator[Sequence[int]]:
        largest = max(3 * panel.size[0] * panel.size[1] for panel in self._panels)
        count = min(max(1, _BYTES_AT_ONCE // largest), _AT_ONCE)
        return (places[i : i + count] for i in range(0, len(places), count))

    def _draw(self, place: int, pictures: Sequence[np.ndarray]) -> np.ndarray:
        frame = self._blank.copy()
        for k, (panel, picture) in enumerate(zip(self._panels, pictures, strict=True)):
            frame.paste(_fitted(picture, self._box, panel.sharp), (self._left(k), self._top))
        if self._labels:
            self._draw_words(ImageDraw.Draw(frame), place)
        return np.asarray(frame)

    def _left(self, panel: int) -> int:
        return self._margin + panel * (self._box[1] + self._gap)

    def _draw_blank(self) -> Image.Image:
        """What all frames have in common."""
        frame = Image.new("RGB", (self.width, self.height), PAPER)
        if self._labels:
            draw = ImageDraw.Draw(frame)
            for k, panel in enumerate(self._panels):
                self._draw_title(draw, panel, self._left(k))
        return frame

    def _draw_title(self, draw: ImageDraw.ImageDraw, panel: Panel, left: int) -> None:
        x, right, y = float(left), left + self._box[1], self._top - 0.55 * self._font
        letter, index = panel.symbol
        if letter:
            draw.text((x, y), letter, INK, self._large, anchor="ls")
            x += draw.textlength(letter, font=self._large)
            draw.text((x, y + 0.2 * self._font), index, INK, self._small, anchor="ls")
            x += draw.textlength(index, font=self._small) + 0.5 * self._font
        titles = [plain_text(title) for title in panel.titles]
        fits = (t for t in titles if draw.textlength(t, font=self._large) <= right - x)
        title = _cut(draw, next(fits, titles[-1]), self._large, right - x)
        draw.text((x, y), title, QUIET if letter else INK, self._large, anchor="ls")
        x += draw.textlength(title, font=self._large) + self._font
        scale = plain_text(panel.scale)
        if x + draw.textlength(scale, font=self._large) <= right:
            draw.text((right, y), scale, QUIET, self._large, anchor="rs")

    def _draw_words(self, draw: ImageDraw.ImageDraw, place: int) -> None:
        left, right = self._margin, self.width - self._margin
        y = self._top + self._box[0] + round(0.6 * self._font)
        thick = max(2, round(0.2 * self._font))
        done = round((right - left) * (place / max(1, len(self) - 1)))
        draw.rectangle((left, y, right - 1, y + thick - 1), TRACK)
        if done:
            draw.rectangle((left, y, left + done - 1, y + thick - 1), ACCENT)
        words = self._words[place]
        baseline = y + thick + 1.35 * self._font
        first = _cut(draw, words.place, self._large, right - left)
        draw.text((left, baseline), first, INK, self._large, anchor="ls")
        x = left + self._place_width(draw)
        details = plain_text(words.details[min(self._level, len(words.details) - 1)])
        if details and right - x > 3 * self._font:
            details = _cut(draw, details, self._large, right - x)
            draw.text((x, baseline), details, QUIET, self._large, anchor="ls")

    def _place_width(self, draw: ImageDraw.ImageDraw) -> int:
        """Room for the longest place, so that what follows it stands still."""
        widest = max(draw.textlength(words.place, font=self._large) for words in self._words)
        return round(widest + 0.9 * self._font)

    def _choose_level(self) -> int:
        """How few words there must be to fit under every frame alike."""
        draw = ImageDraw.Draw(self._blank)
        room = self.width - 2 * self._margin - self._place_width(draw)
        levels = max(len(words.details) for words in self._words)
        for level in range(levels - 1):
            texts = [w.details[min(level, len(w.details) - 1)] for w in self._words]
            if all(draw.textlength(plain_text(t), font=self._large) <= room for t in texts):
                return level
        return levels - 1


def _fitted(picture: np.ndarray, box: tuple[int, int], sharp: bool) -> Image.Image:
    image = Image.fromarray(np.ascontiguousarray(picture))
    size = (box[1], box[0])
    if image.size == size:
        return image
    if size[0] < image.width:
        return image.resize(size, Image.Resampling.LANCZOS)
    return image.resize(size, Image.Resampling.NEAREST if sharp else Image.Resampling.BICUBIC)


def _cut(draw: ImageDraw.ImageDraw, text: str, font: Any, room: float) -> str:
    """As much of a text as has room, whole words where that can be, then an ellipsis."""
    if draw.textlength(text, font=font) <= room:
        return text
    for end in range(len(text) - 1, 0, -1):
        shorter = text[:end].rstrip(" ,·:") + "…"
        if draw.textlength(shorter, font=font) <= room:
            return shorter
    return ""
