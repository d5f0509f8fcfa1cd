"""The picture that stands in for the comparison where no widget can live."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ldm_viz.imaging import contact_sheet, fit_image
from ldm_viz.statistics import channel_maps
from ldm_viz.trajectory.frames import middle_frame
from ldm_viz.widgets.pictures import shown_steps
from ldm_viz.widgets.still import TILE, enlarged

if TYPE_CHECKING:
    from ldm_viz.trajectory import Trajectory

_ROOM = 11  # letters that fit beside a row


def still_comparison(
    runs: Sequence[Trajectory], names: Sequence[str], steps: np.ndarray, title: str, caption: str
) -> np.ndarray:
    """A contact sheet with a row for each run, over a few positions.

    Args:
        runs: the runs, with one sample each.
        names: what they are called.
        steps: steps that belong together, ``(positions, runs)``.
        title: stands above.
        caption: stands below.

    Returns:
        The sheet, shape ``(height, width, 3)``, uint8.
    """
    positions = shown_steps(len(steps))
    short = all(len(name) <= _ROOM for name in names)
    rows = []
    for k, run in enumerate(runs):
        pictures = _row(run, [int(steps[p, k]) for p in positions])
        if pictures:
            rows.append((names[k] if short else f"run {k}", pictures))
    if not short:
        caption = " · ".join(f"{k} {name}" for k, name in enumerate(names))
    labels = [f"position {p}" if (steps[p] != p).any() else f"step {p}" for p in positions]
    return contact_sheet(rows, column_labels=labels, title=title, caption=caption, tile=TILE)


def _row(run: Trajectory, steps: list[int]) -> list[np.ndarray]:
    """Predicted x0 at these steps; the sample or its first channel where there are no such pictures."""
    for name in ("x0", "latents"):
        if name in run.frames:
            shown = [run.frames[name][step, 0] for step in steps]
            shown = [middle_frame(video) if video.ndim == 4 else video for video in shown]
            return [fit_image(picture, 4 * TILE) for picture in shown]
    maps, _ = channel_maps(run.latents, run.latent_shape, run.settings)
    if maps is None or not maps.size:
        return []
    return [enlarged(maps[step, 0, 0]) for step in steps]
