"""Latents and noise predictions as maps, channel beside channel, with a slider over the steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from ldm_viz.statistics import channel_maps, format_figure, guidance_delta

from .choices import check_name, check_run, check_sample, check_steps, spread
from .look import BAD, Look, find_look, head, head_room, scale
from .wording import facts, plain, position_words

if TYPE_CHECKING:
    from ldm_viz.trajectory import Trajectory

DELTA = "guidance delta"

# The share of values that the colours cover, as in the explorer: a few outliers do not cost the rest its contrast.
COVERED = 0.998
# Values looked at for that: enough for a quantile, quick for any run.
ENOUGH_VALUES = 2**18
# Values in all frames together; four bytes each, a third more as text.
VALUES_BUDGET = 3_000_000
CHANNELS_SHOWN = 32

# Pixels.
WIDTH, LEFT, RIGHT, GAP, HEADING, FOOT, CONTROLS = 900, 20, 84, 12, 26, 24, 74


def plot_heatmaps(
    run: Trajectory,
    branch: str = "guided",
    *,
    channel: int | str | None = None,
    sample: int = 0,
    steps: int | Sequence[int] | None = None,
    template: Any = "ldm_viz",
) -> go.Figure:
    """Draw what the network predicted, or the latents, as maps with a slider over the steps.

    One colour scale holds for all steps: around zero for signed values, from zero on for the norm. It
    covers 99.8 % of the values; its ends are marked ≤ and ≥ where some lie beyond. NaN and infinity are
    magenta. Packed latents are unpacked, of a video the middle frame is shown (see
    `ldm_viz.statistics.channel_maps`).

    Args:
        run: the run.
        branch: a noise prediction, ``"guided"``, ``"conditional"``, ``"unconditional"`` or as the run has
            them; ``"guidance delta"`` (conditional − unconditional); ``"latents"``, which have one more
            position, after the last step; or ``"x0"``, the predicted clean sample.
        channel: a latent channel, ``"norm"`` for the Euclidean norm over channels, or None for all
            channels side by side (the first 32 where there are more).
        sample: position in the batch.
        steps: the steps to show, a number for so many evenly apart, or None for all (for as many
            evenly apart as stay below 12 MB). With one step there is no slider.
        template: a plotly template: ``"ldm_viz"``, ``"ldm_viz_dark"`` or any other.

    Returns:
        The figure: a ``Heatmap`` a channel, ``z`` of shape ``(h, w)`` in the run's own values, and a
        frame a step, named by it.

    Raises:
        TypeError: this is no trajectory.
        ValueError: the run has no step, not this branch or channel, or its latents have no layout in
            space.
        IndexError: there is no such sample or step.

    Example:
        >>> plot_heatmaps(run, "guidance delta", channel="norm").show()  # doctest: +SKIP
        >>> save_figure(plot_heatmaps(run, "x0", steps=[12]), "x0.pdf")  # doctest: +SKIP
    """
    run = check_run(run)
    sample = check_sample(run, sample)
    look = find_look(template)
    maps, note = _maps(run, branch, sample)
    shown, headings = _channels(maps, channel)
    picked = check_steps(steps, len(shown))
    if steps is None:
        picked = spread(len(shown), max(1, VALUES_BUDGET // math.prod(shown.shape[1:])))
    absent = _absent(run, branch, shown, picked)
    notes = [note] if note else []
    if channel is None and len(headings) < maps.shape[1]:
        notes.append(f"The first {len(headings)} of {maps.shape[1]} channels are shown.")
    if steps is None and len(picked) < len(shown):
        notes.append(f"{len(picked)} of {len(shown)} steps are shown.")
    if any(not np.isfinite(shown[step]).all() for step in picked if step not in absent):
        notes.append("Magenta: NaN or infinite.")
    columns = _columns(len(headings))
    wide, _ = _tile(shown.shape[-2:], len(headings))
    lines = [*facts(run, sample, columns * (wide + GAP) - GAP + RIGHT), *notes]
    figure = _grid(shown.shape[-2:], headings, 1 + len(lines), len(picked) > 1)
    for c, heading in enumerate(headings):
        figure.add_trace(_heatmap(shown[picked[0], c], heading), 1 + c // columns, 1 + c % columns)
    layouts = [_layout(run, branch, step, lines, step in absent, look) for step in picked]
    figure.update_layout(template=template, coloraxis=_colours(shown, look, channel), **layouts[0])
    if len(picked) > 1:
        figure.frames = [
            go.Frame(
                name=str(step),
                data=[{"type": "heatmap", "z": _finite(values)} for values in shown[step]],
                traces=list(range(len(headings))),
                layout=layout,
            )
            for step, layout in zip(picked, layouts, strict=True)
        ]
        figure.update_layout(sliders=[_slider(picked, look)], updatemenus=[_buttons(look)])
    return figure


def _maps(run: Trajectory, branch: str, sample: int) -> tuple[np.ndarray, str]:
    """The maps of one sample, ``(positions, channels, h, w)`` float32, and a note on their layout."""
    one = run.select(sample)
    delta = guidance_delta(one)
    stacks: dict[str, Any] = dict(one.noise_prediction)
    if delta is not None:
        stacks[DELTA] = delta
    stacks["latents"] = one.latents
    if one.x0 is not None:
        stacks["x0"] = one.x0
    check_name("branch", branch, list(stacks), "this run has")
    maps, note = channel_maps(stacks[branch][:, 0], run.latent_shape, run.settings)
    if maps is None or not maps.size:
        raise ValueError(
            f"{note or 'These latents hold no value.'} plot_statistics draws their curves."
        )
    return np.asarray(maps, dtype=np.float32), note


def _channels(maps: np.ndarray, channel: Any) -> tuple[np.ndarray, list[str]]:
    """The maps to show, ``(positions, panels, h, w)``, and a heading for each panel."""
    if channel is None:
        shown = maps[:, :CHANNELS_SHOWN]
        return shown, [f"channel {c}" for c in range(shown.shape[1])]
    check_name("channel", channel, [*range(maps.shape[1]), "norm"], "this run has")
    if channel == "norm":
        return _norm(maps), ["norm over channels"]
    return maps[:, channel : channel + 1], [f"channel {channel}"]


def _absent(run: Trajectory, branch: str, shown: np.ndarray, steps: Sequence[int]) -> set[int]:
    """Steps at which a branch was not computed: it is all NaN there."""
    if branch != DELTA and (branch not in run.noise_prediction or branch == "guided"):
        return set()
    return {step for step in steps if np.isnan(shown[step]).all()}


def _layout(
    run: Trajectory, branch: str, step: int, lines: Sequence[str], absent: bool, look: Look
) -> dict[str, Any]:
    """What a step changes beside the values: the words in the head, and the ground."""
    words = position_words(run, step) + (" · not computed at this step" if absent else "")
    return {
        "title": head(
            _title(branch), [*lines, f'<span style="color:{look.ink}">{words}</span>'], look
        ),
        # What is not finite lets the ground through; where nothing was computed nothing is bad.
        "plot_bgcolor": look.ground if absent else BAD,
    }


def _norm(maps: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore", invalid="ignore"):
        return np.sqrt(np.square(maps, dtype=np.float64).sum(axis=1, keepdims=True)).astype(
            np.float32
        )


def _title(branch: str) -> str:
    known = {
        DELTA: "Guidance delta: conditional − unconditional",
        "latents": "Latents",
        "x0": "Predicted clean sample x<sub>0</sub>",
    }
    return known.get(branch, f"Noise prediction, {plain(branch, 40)}")


def colour_limit(values: np.ndarray) -> float:
    """The magnitude that gets the strongest colour: the 99.8 % quantile over steps evenly apart.

    Args:
        values: shape ``(positions, …)``.
    """
    stride = -(-values.size // ENOUGH_VALUES)
    sizes = np.abs(values[::stride]).ravel()
    sizes = np.sort(sizes[np.isfinite(sizes)])
    if not len(sizes):
        return 1.0
    return float(sizes[math.ceil(COVERED * (len(sizes) - 1))]) or 1.0


def _colours(shown: np.ndarray, look: Look, channel: Any) -> dict[str, Any]:
    """One colour scale for all steps, with its bar."""
    limit = colour_limit(shown)
    signed = channel != "norm"
    ends = [-limit, 0.0, limit] if signed else [0.0, limit / 2, limit]
    texts = [format_figure(end) for end in ends]
    finite = shown[np.isfinite(shown)]
    if finite.size and finite.max() > limit * 1.0001:
        texts[2] = "≥ " + texts[2]
    if finite.size and finite.min() < -limit * 1.0001:
        texts[0] = "≤ " + texts[0]
    return {
        "cmin": ends[0],
        "cmax": limit,
        "colorscale": scale(look.diverging if signed else look.sequential),
        "colorbar": {
            "tickvals": ends, "ticktext": texts, "ticks": "", "thickness": 10, "outlinewidth": 0,
            "len": 1, "lenmode": "fraction", "ypad": 0, "xpad": 0, "x": 1.012,
            "tickfont": {"size": 11, "color": look.quiet},
        },
    }  # fmt: skip


def _columns(count: int) -> int:
    """Panels in a row: up to eight, and rows as full as can be."""
    return -(-count // -(-count // 8))


def _tile(size: tuple[int, ...], count: int) -> tuple[float, float]:
    """Width and height in pixels of one of so many maps ``(h, w)``."""
    columns = _columns(count)
    wide = min((WIDTH - LEFT - RIGHT - GAP * (columns - 1)) / columns, 500)
    return wide, min(max(wide * size[0] / size[1], 24), 520)


def _grid(size: tuple[int, ...], headings: Sequence[str], lines: int, slider: bool) -> go.Figure:
    """Empty panels for maps ``(h, w)``, every one with its heading and without axes."""
    columns = _columns(len(headings))
    rows = -(-len(headings) // columns)
    wide, tall = _tile(size, len(headings))
    body = rows * tall + (rows - 1) * (GAP + HEADING)
    across = columns * wide + (columns - 1) * GAP
    figure = make_subplots(
        rows,
        columns,
        subplot_titles=headings,
        horizontal_spacing=GAP / across if columns > 1 else 0,
        vertical_spacing=(GAP + HEADING) / body if rows > 1 else 0,
    )
    hidden = {
        "showgrid": False,
        "showline": False,
        "zeroline": False,
        "ticks": "",
        "visible": False,
    }
    figure.update_xaxes(**hidden, range=[-0.5, size[1] - 0.5], constrain="domain")
    figure.update_yaxes(**hidden, range=[size[0] - 0.5, -0.5], constrain="domain")
    for i in range(len(headings)):
        row, column = i // columns + 1, i % columns + 1
        axes = figure.get_subplot(row, column)
        figure.update_yaxes(scaleanchor=axes.yaxis.anchor, row=row, col=column)
        figure.layout.annotations[i].update(font_size=12, yshift=1)
    top, bottom = head_room(lines) + HEADING, CONTROLS if slider else FOOT
    figure.update_layout(
        width=round(LEFT + across + RIGHT),
        height=round(top + body + bottom),
        margin={"l": LEFT, "r": RIGHT, "t": top, "b": bottom},
    )
    return figure


def _finite(values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values), values, np.float32(np.nan))


def _heatmap(values: np.ndarray, heading: str) -> go.Heatmap:
    return go.Heatmap(
        z=_finite(values),
        coloraxis="coloraxis",
        name=heading,
        hovertemplate="%{fullData.name}<br>row %{y}, column %{x}: %{z:.4g}<extra></extra>",
        hoverongaps=False,
    )


def _move(duration: int) -> dict[str, Any]:
    """How to go to a frame; a heatmap changes only where it is drawn anew."""
    return {
        "mode": "immediate",
        "frame": {"duration": duration, "redraw": True},
        "transition": {"duration": 0},
    }


def _slider(steps: Sequence[int], look: Look) -> dict[str, Any]:
    quiet = {"size": 11, "color": look.quiet}
    marks = [{"label": str(s), "method": "animate", "args": [[str(s)], _move(0)]} for s in steps]
    return {
        "steps": marks, "active": 0, "currentvalue": {"visible": False}, "x": 0, "xanchor": "left",
        "y": 0, "yanchor": "top", "len": 1, "lenmode": "fraction", "pad": {"t": 22, "l": 96, "b": 0, "r": 0},
        "font": quiet, "bgcolor": look.line, "activebgcolor": look.quiet, "bordercolor": look.quiet,
        "tickcolor": look.quiet, "ticklen": 4, "minorticklen": 3, "name": "step",
    }  # fmt: skip


def _buttons(look: Look) -> dict[str, Any]:
    stop = {**_move(0), "frame": {"duration": 0, "redraw": False}}
    return {
        "type": "buttons", "direction": "left", "showactive": False, "x": 0, "xanchor": "left",
        "y": 0, "yanchor": "top", "pad": {"t": 18, "r": 0, "l": 0}, "bgcolor": look.ground,
        "bordercolor": look.line, "font": {"size": 13, "color": look.ink},
        "buttons": [
            {"label": "▶", "method": "animate", "args": [None, {**_move(125), "fromcurrent": True}]},
            {"label": "❚❚", "method": "animate", "args": [[None], stop]},
        ],
    }  # fmt: skip
