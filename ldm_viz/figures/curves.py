"""Statistics of a run as curves over its steps, one small panel each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go

from ldm_viz.statistics import (
    LatentStatistics,
    expected_std,
    latent_statistics,
    prediction_statistics,
)

from .choices import check_name, check_run, check_sample
from .look import LINES, Look, find_look, head, line_colour
from .panels import LOG_TICKS, Panel, draw_panels, whole_ticks
from .wording import facts, plain, timestep_words

if TYPE_CHECKING:
    from ldm_viz.trajectory import Trajectory

AXES = ("step", "timestep", "sigma", "snr")

# Colour and dash; None is that of the text. Four channels, the usual number, have other colours.
_BRANCHES = {
    "guided": (None, "solid"),
    "conditional": ("#17939e", "dash"),
    "unconditional": ("#8a7a1e", "dot"),
}


@dataclass(frozen=True)
class _Axis:
    """What the panels share below: a place for every position, NaN where it has none."""

    title: str
    places: np.ndarray  # (steps + 1,) float64
    log: bool = False


def plot_statistics(
    run: Trajectory,
    sample: int = 0,
    *,
    x: str = "step",
    panels: Sequence[str] | None = None,
    columns: int = 3,
    template: Any = "ldm_viz",
) -> go.Figure:
    """Draw how latents and noise predictions develop over a run, one small panel each.

    The panels, of which those are drawn that the run has: ``"mean"`` and ``"std"`` of the latents by
    channel, the latter with what the noise schedule expects as a dashed line (see
    `ldm_viz.statistics.expected_std`); ``"range"`` from smallest to largest value; ``"norm"``
    (Euclidean) of the latents; ``"prediction norm"`` by branch; ``"snr"``, the signal-to-noise ratio of
    powers; ``"branches"``, the cosine of the conditional and the unconditional prediction; ``"steps"``, the
    cosine of the guided prediction with that of the step before; ``"bad values"``, how many of the latents
    are NaN or infinite, where any are.

    Curves of latents have ``steps + 1`` points: before every step and after the last. The last has neither
    timestep nor noise level, so it is drawn over ``"step"`` alone.

    Args:
        run: the run.
        sample: position in the batch.
        x: what lies below: ``"step"``, ``"timestep"``, ``"sigma"`` (logarithmic, but for flow matching) or
            ``"snr"`` (logarithmic). The run always goes from left to right.
        panels: the panels to draw, in this order; all by default.
        columns: panels in a row.
        template: a plotly template: ``"ldm_viz"``, ``"ldm_viz_dark"`` or any other.

    Returns:
        The figure. Every curve is a ``Scatter`` whose ``customdata`` holds step and timestep.

    Raises:
        TypeError: this is no trajectory.
        ValueError: the run has no step, or not the panel or the axis asked for.
        IndexError: there is no such sample.

    Example:
        >>> plot_statistics(run, x="timestep").show()  # doctest: +SKIP
        >>> plot_statistics(run, panels=["std", "branches"], columns=2)  # doctest: +SKIP
    """
    run = check_run(run)
    sample = check_sample(run, sample)
    look = find_look(template)
    if isinstance(columns, bool) or not isinstance(columns, int) or columns < 1:
        raise ValueError(f"columns must be an integer of at least 1, not {columns!r}")
    axis = _axis(run, x)
    drawn = _panels(run, sample, axis, look)
    if panels is None:
        names = [name for name in drawn if (name, x) != ("snr", "snr")]
    else:
        names = [panels] if isinstance(panels, str) else list(panels)
        for name in names:
            check_name("panel", name, list(drawn), "this run has")
    if not names:
        raise ValueError("panels is empty; name at least one: " + ", ".join(map(repr, drawn)))
    chosen = [drawn[name] for name in dict.fromkeys(names)]
    lines = facts(run, sample)
    figure = draw_panels(chosen, columns, axis.title, len(lines))
    figure.update_xaxes(matches="x")
    if axis.log:
        figure.update_xaxes(type="log", tickformat=LOG_TICKS)
    elif x == "step":
        figure.update_xaxes(**whole_ticks(len(run) + 1))
    known = axis.places[np.isfinite(axis.places)]
    if len(known) and known[0] > known[-1]:
        figure.update_xaxes(autorange="reversed")
    figure.update_layout(
        template=template,
        title=head("Statistics over the run", lines, look),
    )
    return figure


def _axis(run: Trajectory, x: str) -> _Axis:
    check_name("x", x, AXES)
    steps = len(run)
    if x == "step":
        return _Axis("step", np.arange(steps + 1.0))
    values, title = {
        "timestep": (run.timesteps, "timestep"),
        "sigma": (run.sigmas, "σ"),
        "snr": (run.snrs, "signal-to-noise ratio"),
    }[x]
    log = x == "snr" or (x == "sigma" and run.settings.get("noise_schedule") != "flow")
    usable = np.isfinite(values) & ((values > 0) | (not log))
    if not usable.any():
        raise ValueError(f"this run does not know its {x}: x may be 'step'")
    return _Axis(title, np.append(np.where(usable, values, np.nan), np.nan), log)


def _panels(run: Trajectory, sample: int, axis: _Axis, look: Look) -> dict[str, Panel]:
    """All panels that the run has, by name."""
    latents = latent_statistics(run, sample)
    predictions = prediction_statistics(run, sample)
    readouts = [[str(i), timestep_words(run, i)] for i in range(len(run) + 1)]

    def curve(values: np.ndarray, name: str, colour: str, **more: Any) -> go.Scatter:
        return _curve(axis, readouts, values, name, colour, **more)

    drawn = _latent_panels(latents, curve, look)
    expected = expected_std(run)
    if "std" in drawn and np.isfinite(expected).any():
        dashed = curve(expected, "expected std", look.quiet, dash="dash", legend=True)
        drawn["std"].traces.append(dashed)
    norms = {name: values for name, values in predictions.norms.items() if _has(values)}
    if norms:
        curves = []
        for i, name in enumerate(sorted(norms, key=lambda name: [*_BRANCHES, name].index(name))):
            colour, dash = _BRANCHES.get(name, (line_colour(i, len(norms)), "solid"))
            several = len(norms) > 1
            curves.append(
                curve(norms[name], plain(name, 40), colour or look.ink, dash=dash, legend=several)
            )
        drawn["prediction norm"] = Panel("Norm of the noise prediction", curves)
    snrs = np.where(run.snrs > 0, run.snrs, np.nan)
    for key, title, values in (
        ("snr", "Signal-to-noise ratio", snrs),
        ("branches", "Cosine of conditional and unconditional", predictions.between_branches),
        ("steps", "Cosine of guided with the step before", predictions.between_steps),
    ):
        if values is not None and _has(values):
            name = "SNR" if key == "snr" else "cosine"
            drawn[key] = Panel(title, [curve(values, name, look.ink)], log=key == "snr")
    if latents.nonfinite.any():
        bad = curve(latents.nonfinite, "NaN or infinite", look.ink)
        drawn["bad values"] = Panel("Latents that are NaN or infinite", [bad])
    return drawn


def _latent_panels(latents: LatentStatistics, curve: Any, look: Look) -> dict[str, Panel]:
    drawn = {}
    channels = latents.mean.shape[1]
    whose = "of the latents" if channels <= len(LINES) else f"of each of {channels} channels"
    for key, title, values in (
        ("mean", "Mean", latents.mean),
        ("std", "Standard deviation", latents.std),
    ):
        if not _has(values):
            continue
        curves = []
        for c in range(channels):
            line = curve(values[:, c], f"channel {c}", line_colour(c, channels))
            # Many channels are told apart by pointing at them: a list of all would fill the figure.
            line.showlegend = key == "mean" and 1 < channels <= len(LINES)
            curves.append(line)
        drawn[key] = Panel(f"{title} {whose}", curves)
    if _has(latents.minimum):
        low = curve(latents.minimum, "smallest", look.quiet, width=1)
        high = curve(latents.maximum, "largest", look.quiet, width=1)
        high.update(fill="tonexty", fillcolor="rgba(128,134,145,0.22)")
        drawn["range"] = Panel("Range of the latents", [low, high])
        drawn["norm"] = Panel("Norm of the latents", [curve(latents.norm, "norm", look.ink)])
    return drawn


def _curve(
    axis: _Axis,
    readouts: list[list[str]],
    values: np.ndarray,
    name: str,
    colour: str,
    *,
    dash: str = "solid",
    width: float = 1.6,
    legend: bool = False,
) -> go.Scatter:
    kept = np.flatnonzero(np.isfinite(axis.places[: len(values)]))
    alone = np.count_nonzero(np.isfinite(values[kept])) == 1
    return go.Scatter(
        x=axis.places[kept],
        y=values[kept],
        customdata=[readouts[i] for i in kept],
        name=name,
        legendgroup=name,
        mode="markers" if alone else "lines",
        line={"color": colour, "dash": dash, "width": width},
        marker={"color": colour, "size": 6},
        showlegend=legend,
        hovertemplate="step %{customdata[0]} · timestep %{customdata[1]}<br>"
        "%{fullData.name}: %{y:.4g}<extra></extra>",
    )


def _has(values: np.ndarray) -> bool:
    return bool(np.isfinite(values).any()) and math.prod(values.shape) > 0
