"""A row of pictures to scrub through, such as a walk between two conditions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import traitlets

from ldm_viz.imaging import contact_sheet, encode_image, fit_image
from ldm_viz.widgets.pictures import BUDGET, Files, shown_steps
from ldm_viz.widgets.run_widget import RecordedWidget
from ldm_viz.widgets.sources import module_text, style_text
from ldm_viz.widgets.still import TILE


class PictureStrip(RecordedWidget):
    """One picture of a row, a slider over all of them, and thumbnails below it.

    Everything it draws is in its state, so it works with no kernel once it is shown.

    Args:
        pictures: ``(n, height, width, 3)`` uint8, at least one.
        labels: a short text for each; what stands before the first ``" · "`` is shown strong.
        details: a longer text for each, shown below the thumbnails; by default none.
        title: what all of it is, shown above.
        **traits: any of ``frame``, ``playing`` and ``speed``.

    Raises:
        TypeError: an option is unknown.
        ValueError: these are no pictures, or there are more or fewer texts than pictures.
        traitlets.TraitError: there is no such frame, or the speed is out of bounds.

    Example:
        >>> pictures = np.zeros((2, 64, 64, 3), np.uint8)
        >>> PictureStrip(pictures, ["amount 0", "amount 1"], frame=1)
        PictureStrip: 2 pictures of 64×64, frame 1: amount 1
    """

    _name: ClassVar[str] = "the strip"
    _view: ClassVar[str] = "picture_strip"
    _wire: ClassVar[tuple[str, ...]] = ("_header", "_series", "_frames")
    _esm = module_text("picture_strip")
    _css = style_text("picture_strip")

    frame = traitlets.Int(0).tag(sync=True)
    """The picture shown, counted from 0; a walk's labels, which people read, count from 1."""

    playing = traitlets.Bool(False).tag(sync=True)
    """Whether it advances by itself."""

    speed = traitlets.Float(8.0).tag(sync=True)
    """Pictures a second while playing, above 0 and at most 60."""

    _header = traitlets.Dict().tag(sync=True)
    _series = traitlets.Dict().tag(sync=True)
    _frames = traitlets.Bytes(b"").tag(sync=True)

    def __init__(
        self,
        pictures: np.ndarray,
        labels: Sequence[str],
        details: Sequence[str] | None = None,
        *,
        title: str = "",
        **traits: Any,
    ) -> None:
        self.check_options(traits)
        self._pictures = _checked_pictures(pictures)
        count = len(self._pictures)
        texts = {"labels": labels, "details": [""] * count if details is None else details}
        for name, given in texts.items():
            if len(given) != count:
                raise ValueError(f"there are {count} pictures and {len(given)} {name}")
        self._labels = tuple(map(str, labels))
        files = Files(self._pictures[:, None], BUDGET, [None])
        files.make(files.missing)
        header = {
            "steps": count,
            "words": list(self._labels),
            "details": list(map(str, texts["details"])),
            "title": title,
        }
        super().__init__(
            _header=header,
            _series={"pictures": files.header(0)},
            _frames=files.data,
            **traits,
        )

    @property
    def pictures(self) -> np.ndarray:
        """All pictures, ``(n, height, width, 3)`` uint8."""
        return self._pictures

    @property
    def current(self) -> np.ndarray:
        """The picture that is shown, ``(height, width, 3)`` uint8."""
        return self._pictures[self.frame]

    @property
    def labels(self) -> tuple[str, ...]:
        """The short text of each."""
        return self._labels

    def finish(self) -> None:
        """Nothing: all pictures are there from the beginning."""

    def still(self) -> bytes:
        """The strip as one still picture: a PNG of at most six of its pictures."""
        places = shown_steps(len(self._pictures))
        shown = [fit_image(self._pictures[place], 4 * TILE) for place in places]
        names = [self._labels[place].split(" · ")[0] for place in places]
        sheet = contact_sheet(
            [("", shown)],
            column_labels=names,
            title=self._title(),
            caption=f"{len(places)} of {len(self._pictures)} pictures",
            tile=TILE,
        )
        return encode_image(sheet, "png")

    def _title(self) -> str:
        return self._header["title"] or "A strip of pictures"

    @traitlets.validate("frame")
    def _valid_frame(self, proposal: dict[str, Any]) -> int:
        last = len(self._pictures) - 1
        if not 0 <= proposal["value"] <= last:
            raise traitlets.TraitError(
                f"frame must be between 0 and {last}, not {proposal['value']}: this strip has "
                f"{last + 1} pictures, counted from 0"
            )
        return proposal["value"]

    @traitlets.validate("speed")
    def _valid_speed(self, proposal: dict[str, Any]) -> float:
        if not 0 < proposal["value"] <= 60:
            raise traitlets.TraitError(
                f"speed must be above 0 and at most 60 pictures a second, not {proposal['value']}"
            )
        return proposal["value"]

    def __repr__(self) -> str:
        count, height, width, _ = self._pictures.shape
        return (
            f"PictureStrip: {count} pictures of {width}×{height}, frame {self.frame}: "
            f"{self._labels[self.frame]}"
        )


def _checked_pictures(pictures: Any) -> np.ndarray:
    found = np.asarray(pictures)
    if found.dtype != np.uint8 or found.ndim != 4 or found.shape[3] != 3 or not found.size:
        raise ValueError(
            "pictures must be a uint8 array (n, height, width, 3) with at least one picture, but these "
            f"are {found.dtype} of shape {found.shape}"
        )
    return found
