"""The picture that stands in for the explorer where no widget can live."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ldm_viz.imaging import colourise, contact_sheet, fit_image
from ldm_viz.statistics import channel_maps, format_timestep
from ldm_viz.trajectory.frames import middle_frame
from ldm_viz.widgets.pictures import shown_steps

if TYPE_CHECKING:
    from ldm_viz.trajectory import Trajectory

TILE = 128


def enlarged(values: np.ndarray) -> np.ndarray:
    """A map as a picture with its cells kept sharp."""
    picture = colourise(values)
    factor = max(1, TILE // max(picture.shape[:2]))
    return picture.repeat(factor, axis=0).repeat(factor, axis=1)


def still_picture(trajectory: Trajectory, sample: int = 0) -> np.ndarray:
    """A contact sheet of x_t and the predicted x0 over a few steps, or of latents where no picture is there.

    Args:
        trajectory: the run.
        sample: position in the batch.

    Returns:
        The sheet, shape ``(height, width, 3)``, uint8.
    """
    steps = shown_steps(len(trajectory))
    settings = trajectory.select(sample).settings
    rows = []
    labels = {"latents": "x_t", "x0": "predicted x0"}
    for name, label in labels.items():
        if name in trajectory.frames and steps:
            series = trajectory.frames[name]
            shown = [series[i, sample] for i in steps]
            shown = [middle_frame(video) if video.ndim == 4 else video for video in shown]
            rows.append((label, [fit_image(picture, 4 * TILE) for picture in shown]))
    if not rows:
        maps, _ = channel_maps(trajectory.latents, trajectory.latent_shape, trajectory.settings)
        if maps is not None and maps.size:
            rows.append(("latents", [enlarged(maps[i, sample, 0]) for i in steps or [0]]))
    names = [f"step {i} · t {format_timestep(trajectory.timesteps[i])}" for i in steps]
    parts = [f"{len(trajectory)} steps"]
    for name, text in (("pipeline", "{}"), ("scheduler", "{}"), ("guidance_scale", "guidance {}")):
        if settings.get(name) is not None:
            parts.append(text.format(settings[name]))
    if settings.get("seed") is not None and not isinstance(settings["seed"], list):
        parts.append(f"seed {settings['seed']}")
    if not trajectory.complete:
        parts.append(": ".join(text for text in (trajectory.status, trajectory.error) if text))
    title = settings.get("prompt")
    title = ", ".join(map(str, title)) if isinstance(title, list) else str(title or "")
    return contact_sheet(
        rows,
        column_labels=names,
        title=title or "A recorded run",
        caption=" · ".join(parts),
        tile=TILE,
    )
