"""Noise schedules of one or several runs side by side."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go

from ldm_viz.trajectory.model import steps_in_words

from .choices import check_run
from .look import find_look, head, line_colour, line_dash
from .panels import Panel, draw_panels, whole_ticks
from .wording import facts, plain, timestep_words

if TYPE_CHECKING:
    from ldm_viz.trajectory import Trajectory

# Pixels of a panel; steps up to which each is marked.
TALL, MARKED = 210, 60


def plot_schedule(
    *runs: Trajectory, names: Sequence[str] | None = None, template: Any = "ldm_viz"
) -> go.Figure:
    """Draw noise level, signal-to-noise ratio and timestep over the steps of one or several runs.

    Noise levels are in each scheduler's own family (see `Trajectory.sigmas`): only those of one family can be
    compared. The signal-to-noise ratio, one of powers, can be compared between all.

    Args:
        *runs: the runs.
        names: a name for each run in the legend; its scheduler and number of steps by default.
        template: a plotly template: ``"ldm_viz"``, ``"ldm_viz_dark"`` or any other.

    Returns:
        The figure. Every curve is a ``Scatter`` of ``steps`` points. Sigma is on a logarithmic axis unless
        all runs are of flow matching.

    Raises:
        TypeError: one of them is no trajectory.
        ValueError: no run is given or one has no step, names are not as many as runs, or nothing is known
            of the schedules.

    Example:
        >>> plot_schedule(ddim, euler, names=["DDIM", "Euler"]).show()  # doctest: +SKIP
    """
    if not runs:
        raise ValueError("no run is given; hand over one or several: plot_schedule(run, other)")
    checked = [check_run(run) for run in runs]
    look = find_look(template)
    labels = _labels(checked) if names is None else [plain(name, 60) for name in names]
    if isinstance(names, str) or len(labels) != len(checked):
        raise ValueError(f"names must be a list of {len(checked)}, one for each run, not {names!r}")
    several = len(checked) > 1
    flow = all(run.settings.get("noise_schedule") == "flow" for run in checked)
    panels: list[Panel] = []
    listed: set[int] = set()
    for name, title, log in (
        ("sigmas", "Noise level σ", not flow),
        ("snrs", "Signal-to-noise ratio", True),
        ("timesteps", "Timestep", False),
    ):
        known = [i for i, run in enumerate(checked) if _known(getattr(run, name), log).any()]
        if known:
            traces = []
            for i in known:
                line = {"color": line_colour(i, len(checked)), "dash": line_dash(i), "width": 1.8}
                traces.append(_curve(checked[i], name, log, labels[i], line))
                traces[-1].showlegend = several and i not in listed
            listed.update(known)
            panels.append(Panel(title, traces, log))
    if not panels:
        raise ValueError("nothing is known of these schedules: no sigma, SNR or timestep")
    lines = [f"{len(checked)} runs"] if several else facts(checked[0], 0)
    figure = draw_panels(panels, len(panels), "step", len(lines), tall=TALL)
    figure.update_xaxes(**whole_ticks(max(map(len, checked))))
    figure.update_layout(
        template=template,
        title=head("Noise schedules" if several else "Noise schedule", lines, look),
    )
    return figure


def _labels(runs: Sequence[Trajectory]) -> list[str]:
    """Scheduler and steps of each run, numbered where they are the same."""
    labels: list[str] = []
    seen: Counter[str] = Counter()
    for run in runs:
        scheduler = plain(run.settings.get("scheduler") or "unknown scheduler", 40)
        label = f"{scheduler}, {steps_in_words(run)}"
        seen[label] += 1
        labels.append(label if seen[label] == 1 else f"{label} ({seen[label]})")
    return labels


def _known(values: np.ndarray, log: bool) -> np.ndarray:
    return np.isfinite(values) & ((values > 0) | (not log))


def _curve(run: Trajectory, name: str, log: bool, label: str, line: dict[str, Any]) -> go.Scatter:
    values = getattr(run, name)
    return go.Scatter(
        x=np.arange(len(run)),
        y=np.where(_known(values, log), values, np.nan),
        customdata=[timestep_words(run, step) for step in range(len(run))],
        name=label,
        legendgroup=label,
        mode="lines+markers" if len(run) <= MARKED else "lines",
        line=line,
        marker={"size": 4},
        hovertemplate="%{fullData.name}<br>step %{x} · timestep %{customdata}<br>"
        "%{y:.4g}<extra></extra>",
    )
