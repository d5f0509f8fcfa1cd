"""Pictures of a few steps in rows, as in a paper's figure."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ldm_viz.imaging import colourise, encode_image, fit_image
from ldm_viz.statistics import channel_maps
from ldm_viz.trajectory.frames import middle_frame

from .choices import check_name, check_run, check_sample, check_steps
from .heatmaps import colour_limit
from .look import find_look, head, head_room
from .wording import facts, timestep_words

if TYPE_CHECKING:
    from ldm_viz.trajectory import Trajectory

SERIES = {"latents": "latents x<sub>t</sub>", "x0": "predicted x<sub>0</sub>"}

# Pixels. Larger pictures are shrunk to twice a tile at the least, which is what a file of scale 2 shows.
GUTTER, GAP, HEADING, EDGE, LARGEST = 104, 6, 42, 20, 512
# The head needs so much room, however few the pictures.
LEAST = 400


def plot_filmstrip(
    run: Trajectory,
    *,
    series: Sequence[str] | None = None,
    steps: int | Sequence[int] = 6,
    sample: int = 0,
    tile: int = 128,
    template: Any = "ldm_viz",
) -> go.Figure:
    """Draw the decoded pictures of a few steps, a row for each series.

    Where a series has no pictures its arrays are drawn instead: channel 0, blue below zero and orange
    above, one colour scale for the whole run, NaN and infinity magenta. Of a video the middle frame is shown.

    Args:
        run: the run.
        series: ``"latents"``, the noisy sample that goes into each step, ``"x0"``, the clean one
            predicted there, or both; by default those that the run has.
        steps: a number for so many evenly apart, or the steps, negative ones counted from the end.
        sample: position in the batch.
        tile: width of a picture in pixels.
        template: a plotly template: ``"ldm_viz"``, ``"ldm_viz_dark"`` or any other.

    Returns:
        The figure: an ``Image`` a picture, row by row, each holding a PNG of at most 512 pixels a side.

    Raises:
        TypeError: this is no trajectory.
        ValueError: the run has no step, not this series, or neither pictures nor a layout in space.
        IndexError: there is no such sample or step.

    Example:
        >>> save_figure(plot_filmstrip(run, steps=[0, 8, 16, 24]), "strip.png")  # doctest: +SKIP
    """
    run = check_run(run)
    sample = check_sample(run, sample)
    look = find_look(template)
    if isinstance(tile, bool) or not isinstance(tile, int) or tile < 16:
        raise ValueError(f"tile must be an integer of at least 16 pixels, not {tile!r}")
    known = [name for name in SERIES if name != "x0" or "x0" in run.frames or run.x0 is not None]
    if series is None:
        names = known
    else:
        names = [series] if isinstance(series, str) else list(dict.fromkeys(series))
        for name in names:
            check_name("series", name, known, "this run has")
        if not names:
            raise ValueError("series is empty; name at least one: " + ", ".join(map(repr, known)))
    picked = check_steps(steps, len(run))
    rows = [_row(run, name, picked, sample) for name in names]
    size = rows[0][1][0].shape
    across = len(picked) * (tile + GAP) - GAP
    lines = facts(run, sample, max(across, LEAST))
    figure = _grid(len(rows), len(picked), tile, tile * size[0] / size[1], len(lines))
    for r, (label, pictures, drawn) in enumerate(rows):
        for c, (step, picture) in enumerate(zip(picked, pictures, strict=True)):
            figure.add_trace(_image(picture, drawn, run, step), r + 1, c + 1)
        axis = figure.get_subplot(r + 1, 1).yaxis
        figure.add_annotation(
            text=label, x=0, xref="paper", xanchor="right", xshift=-10, align="right",
            y=sum(axis.domain) / 2, yref="paper", yanchor="middle", font={"size": 12, "color": look.ink},
        )  # fmt: skip
    for c, step in enumerate(picked):
        axis = figure.get_subplot(1, c + 1).xaxis
        figure.add_annotation(
            text=f'step {step}<br><span style="color:{look.quiet}">t = {timestep_words(run, step)}</span>',
            x=sum(axis.domain) / 2, xref="paper", xanchor="center", y=1, yref="paper", yanchor="bottom",
            yshift=3, font={"size": 12, "color": look.ink},
        )  # fmt: skip
    figure.update_layout(
        template=template,
        title=head("The run, step by step", lines, look),
        plot_bgcolor=look.ground,
    )
    return figure


def _row(
    run: Trajectory, name: str, steps: Sequence[int], sample: int
) -> tuple[str, list[np.ndarray], bool]:
    """A row's label, its pictures ``(h, w, 3)`` uint8, and whether they are drawn maps."""
    if name in run.frames and run.frames[name].size:
        series = run.frames[name]
        pictures = [series[step, sample] for step in steps]
        pictures = [middle_frame(p) if p.ndim == 4 else np.asarray(p) for p in pictures]
        return SERIES[name], [fit_image(picture, LARGEST) for picture in pictures], False
    values = getattr(run, name)
    if values is None:  # it had pictures, but empty ones
        raise ValueError(f"this run has no pictures of {name!r} and did not record its arrays")
    maps, note = channel_maps(values[:, sample], run.latent_shape, run.settings)
    if maps is None or not maps.size:
        raise ValueError(
            f"this run has no pictures of {name!r}. {note or 'Its latents hold no value.'} "
            "plot_statistics draws their curves."
        )
    first = np.asarray(maps[:, 0], dtype=np.float32)
    limit = colour_limit(first)
    drawn = [_fit_map(colourise(first[step], limit)) for step in steps]
    return f"{SERIES[name]}<br>channel 0", drawn, True


def _fit_map(picture: np.ndarray) -> np.ndarray:
    """A map with its cells enlarged, so that no renderer blurs them."""
    factor = max(1, LARGEST // 2 // max(picture.shape[:2]))
    return fit_image(picture.repeat(factor, axis=0).repeat(factor, axis=1), LARGEST)


def _image(picture: np.ndarray, drawn: bool, run: Trajectory, step: int) -> go.Image:
    data = base64.b64encode(encode_image(picture, "png")).decode()
    return go.Image(
        source=f"data:image/png;base64,{data}",
        zsmooth=False if drawn else "fast",
        name=f"step {step}",
        hovertemplate=f"step {step} · timestep {timestep_words(run, step)}<extra></extra>",
    )


def _grid(rows: int, columns: int, wide: float, tall: float, lines: int) -> go.Figure:
    across, down = columns * (wide + GAP) - GAP, rows * (tall + GAP) - GAP
    figure = make_subplots(
        rows,
        columns,
        horizontal_spacing=GAP / across if columns > 1 else 0,
        vertical_spacing=GAP / down if rows > 1 else 0,
    )
    figure.update_xaxes(visible=False, constrain="domain")
    figure.update_yaxes(visible=False, constrain="domain")
    top = head_room(lines) + HEADING
    spare = max(0, LEAST - across)
    figure.update_layout(
        width=round(GUTTER + across + spare + EDGE),
        height=round(top + down + EDGE),
        margin={"l": GUTTER, "r": EDGE + spare, "t": top, "b": EDGE},
    )
    return figure
