"""A run's pictures as files that fit a budget, coarse ones first where the real ones take long to make."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from ldm_viz.imaging import decode_image, encode_image, fit_image
from ldm_viz.previews import preview_pictures
from ldm_viz.trajectory import FrameSeries
from ldm_viz.trajectory.frames import frame_at

if TYPE_CHECKING:
    from ldm_viz.trajectory import Trajectory

BUDGET = 1_050_000  # bytes of each of the two series
SINGLE_BUDGET = 150_000  # of the finished picture, where it stands for x0

# Longest side in pixels and WebP quality, from best to smallest.
LADDER = (
    (384, 84), (384, 72), (320, 72), (256, 72), (256, 60), (192, 60), (160, 55), (128, 50), (96, 50), (64, 50),
    (48, 40), (32, 40), (16, 30),
)  # fmt: skip
EXACT_SIDE = 160  # pictures up to this size are kept to the pixel where they fit

PREVIEW, FINAL = 0, 1  # grades of a file

Place = tuple[int, int]  # sample, index


class Files:
    """The files of one series, made bit by bit: previews at once, the pictures themselves as there is time.

    Args:
        pictures: ``(n, batch, h, w, 3)`` uint8, an array or a series; or videos of those.
        budget: bytes that the files may take together.
        previews: coarse pictures of each sample, ``(n, h, w, 3)``, shown until there are better ones.
        finished: what the run ended with, if known: what files will take is judged by it too.
        at: which frame of a video is shown, from 0 for the first to 1 for the last.
    """

    def __init__(
        self,
        pictures: Any,
        budget: int,
        previews: list[np.ndarray | None],
        finished: np.ndarray | None = None,
        at: float = 0.5,
    ) -> None:
        coarse = pictures.coarse if isinstance(pictures, FrameSeries) else None
        self._pictures = pictures if coarse is None else coarse
        self.coarse = coarse is not None
        self.costly = isinstance(pictures, FrameSeries) and pictures.costly
        self.full = (int(pictures.shape[-2]), int(pictures.shape[-3]))
        self._count, self._batch = pictures.shape[:2]
        self._budget, self._at = budget, at
        self._finished = None if self.coarse else finished
        self._rung: tuple[int, int | None] | None = None
        self._files: dict[Place, bytes] = {}
        self._grades: dict[Place, int] = {}
        for sample, preview in enumerate(previews):
            for index, picture in enumerate(() if preview is None else preview):
                self._files[sample, index] = encode_image(picture, "webp", 80)
                self._grades[sample, index] = PREVIEW

    @property
    def missing(self) -> list[Place]:
        """Places whose own picture is not there yet."""
        places = ((b, i) for b in range(self._batch) for i in range(self._count))
        return [place for place in places if self._grades.get(place) != FINAL]

    @property
    def total(self) -> int:
        """How many pictures there will be."""
        return self._count * self._batch

    def header(self, generation: int) -> dict[str, Any]:
        """Size on screen and as recorded, and every file's length and grade, one list a sample.

        Files of another generation have other grades.
        """
        samples, steps = range(self._batch), range(self._count)
        return {
            "width": self.full[0],
            "height": self.full[1],
            "full": list(self.full),
            "exact": self._rung is not None and self._rung[1] is None,
            "lengths": [[len(self._files.get((b, i), b"")) for i in steps] for b in samples],
            "grades": [
                [self._grades.get((b, i), PREVIEW) + 2 * generation for i in steps] for b in samples
            ],
        }

    @property
    def data(self) -> bytes:
        """The files end to end, sample after sample."""
        places = ((b, i) for b in range(self._batch) for i in range(self._count))
        return b"".join(self._files.get(place, b"") for place in places)

    def make(self, places: list[Place]) -> None:
        """Make these pictures' files."""
        if not places:
            return
        pictures = self._read(places)
        rung = self._rung or self._choose(pictures)
        self._rung = rung
        with ThreadPoolExecutor(min(os.cpu_count() or 1, 4)) as pool:
            files = list(pool.map(lambda picture: _encode(picture, *rung), pictures))
        for place, file in zip(places, files, strict=True):
            self._files[place], self._grades[place] = file, FINAL
        if not self.missing:
            self._shrink()

    def _read(self, places: list[Place]) -> list[np.ndarray]:
        if isinstance(self._pictures, FrameSeries):
            source = self._pictures.source
            numbers = [int(self._pictures.numbers[index, sample]) for sample, index in places]
            with source.quietly():
                found = list(source.read(numbers))
        else:
            found = [self._pictures[index, sample] for sample, index in places]
        return [frame_at(picture, self._at) if picture.ndim == 4 else picture for picture in found]

    def _choose(self, made: list[np.ndarray]) -> tuple[int, int | None]:
        """The best side and quality at which all pictures will fit, judged by a few.

        Where a model has to run for each, they are those just made, and what the run ended with.
        """
        each = self._budget / (self._count * self._batch)
        if self.costly:
            probes = made[:2] + ([] if self._finished is None else [self._finished])
        else:
            steps = sorted({round(k * (self._count - 1) / 4) for k in range(5)})
            probes = self._read([(0, step) for step in steps])
        rungs = ladder(max(probes[0].shape[:2]))
        for rung in rungs:
            # A little less than there is room for: the probes are not the rest.
            if sum(len(_encode(probe, *rung)) for probe in probes) <= 0.95 * each * len(probes):
                return rung
        return rungs[-1]

    def _shrink(self) -> None:
        """Go down the ladder while all files together do not fit."""
        while self._rung is not None and sum(map(len, self._files.values())) > 1.1 * self._budget:
            rungs = ladder(self._rung[0])
            lower = rungs[rungs.index(self._rung) + 1 :] if self._rung in rungs else rungs[1:]
            if not lower:
                return
            self._rung = lower[0]
            for place, file in self._files.items():
                self._files[place] = _encode(decode_image(file), *self._rung)


def _size_made(pictures: Any) -> tuple[int, ...]:
    """Height and width in which pictures are made."""
    coarse = pictures.coarse if isinstance(pictures, FrameSeries) else None
    return (pictures if coarse is None else coarse).shape[-3:-1]


def ladder(longest: int) -> list[tuple[int, int | None]]:
    """Sides and qualities to try for pictures whose longer side has so many pixels, best first."""
    found: dict[tuple[int, int | None], None] = {}
    if longest <= EXACT_SIDE:
        found[longest, None] = None
    for side, quality in LADDER:
        found[min(side, longest), quality] = None
    return list(found)


def _encode(picture: np.ndarray, side: int, quality: int | None) -> bytes:
    return encode_image(fit_image(picture, side), "webp", quality)


class PictureFiles:
    """All series of a run that the explorer shows, with what there is of them so far.

    Args:
        trajectory: the run.
        budget: bytes that each of the series may take.

    Attributes:
        notes: what there is to say about them.
        patience: seconds that their making may take before anything is shown.
    """

    def __init__(
        self, trajectory: Trajectory, budget: int = BUDGET, at: float = 0.5, generation: int = 0
    ) -> None:
        self.notes: list[str] = []
        self._generation = generation
        shown: dict[str, Any] = {n: s for n, s in trajectory.frames.items() if s.size}
        if "x0" not in shown and trajectory.images is not None and trajectory.images.size:
            shown["images"] = trajectory.images[None]
        # Small pictures are soon made; others get a preview to look at until they are.
        small = all(max(_size_made(series)) <= EXACT_SIDE for series in shown.values())
        batch = range(trajectory.batch_size)
        previews = [{} if small else preview_pictures(trajectory, b, at) for b in batch]
        finished = None
        if trajectory.images is not None:
            finished = trajectory.images[0]
            finished = frame_at(finished, at) if finished.ndim == 4 else finished
        self._series = {
            name: Files(
                pictures,
                min(SINGLE_BUDGET, budget) if name == "images" else budget,
                [one.get(name) for one in previews],
                finished,
                at,
            )
            for name, pictures in shown.items()
        }
        # With no preview to look at, a few that no model has to make are worth waiting for.
        waits = not all(previews) and not any(files.costly for files in self._series.values())
        self.patience = math.inf if small else 0.3 if waits else 0.0
        if not {"latents", "x0"} & set(shown):
            self.notes.append("The run was recorded without pictures: its numbers are shown.")

    @property
    def header(self) -> dict[str, Any]:
        """What `Files.header` tells, by series."""
        return {name: files.header(self._generation) for name, files in self._series.items()}

    @property
    def data(self) -> bytes:
        """All files end to end, series after series."""
        return b"".join(files.data for files in self._series.values())

    @property
    def total(self) -> int:
        """How many pictures there will be."""
        return sum(files.total for files in self._series.values())

    @property
    def missing(self) -> int:
        """How many of them are not there yet."""
        return sum(len(files.missing) for files in self._series.values())

    def make_some(self, step: int, sample: int, count: int) -> int:
        """Make the next few pictures, those nearest to a step first.

        Returns:
            How many were made; 0 when all are there.
        """
        waiting = [
            (place[0] != sample, abs(place[1] - step), name, place)
            for name, files in self._series.items()
            for place in files.missing
        ]
        chosen = sorted(waiting)[:count]
        for name, files in self._series.items():
            files.make([place for _, _, series, place in chosen if series == name])
        return len(chosen)

    def make(
        self,
        step: int = 0,
        sample: int = 0,
        seconds: float = math.inf,
        told: Callable[[int], Any] | None = None,
    ) -> None:
        """Make pictures until all are there, or for about so many seconds.

        Args:
            step: those nearest to it come first.
            sample: those of it come first.
            seconds: no picture is begun after that.
            told: called with the number of pictures made, after every few.
        """
        end = time.monotonic() + seconds
        count = 8
        while time.monotonic() < end:
            begun = time.monotonic()
            made = self.make_some(step, sample, count)
            if not made:
                return
            if told is not None:
                told(made)
            if time.monotonic() - begun < 0.1:
                count *= 2


def shown_steps(steps: int, count: int = 6) -> list[int]:
    """At most ``count`` steps spread evenly over a run, first and last among them."""
    if steps <= 0:
        return []
    count = min(steps, count)
    return [math.floor(k * (steps - 1) / max(count - 1, 1) + 0.5) for k in range(count)]
