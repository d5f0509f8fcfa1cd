"""Small panels of curves in rows, with a heading over each and one legend below all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from .look import head_room

# Plain numbers: plotly would write powers of ten, larger than any other label.
LOG_TICKS = "~g"

# Pixels.
PANEL, GAP, HEADING, FOOT, LEGEND = 150, 74, 26, 52, 26

# Pixels of a legend's entry beside its letters, of a letter, and of a row.
_KEY, _LETTER, _ROW = 38, 6.9, 880


@dataclass(frozen=True)
class Panel:
    """A heading and the curves under it."""

    title: str
    traces: list[go.Scatter]
    log: bool = False


def draw_panels(
    panels: Sequence[Panel], columns: int, x_title: str, lines: int, *, tall: int = PANEL
) -> go.Figure:
    """Lay panels out in rows; the lowest of each column carries the title of the axis below.

    Args:
        panels: what is drawn; curves of one name share an entry in the legend.
        columns: panels in a row.
        x_title: what lies below.
        lines: quiet lines under the figure's title.
        tall: pixels of a panel.
    """
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    body = rows * tall + (rows - 1) * GAP
    figure = make_subplots(
        rows,
        columns,
        subplot_titles=[panel.title for panel in panels],
        vertical_spacing=GAP / body if rows > 1 else 0,
        horizontal_spacing=0.24 / columns,
    )
    for i, panel in enumerate(panels):
        row, column = i // columns + 1, i % columns + 1
        for trace in panel.traces:
            figure.add_trace(trace, row, column)
        figure.update_yaxes(type="log" if panel.log else "linear", row=row, col=column)
        if panel.log:
            figure.update_yaxes(tickformat=LOG_TICKS, row=row, col=column)
        if i + columns >= len(panels):
            figure.update_xaxes(title_text=x_title, row=row, col=column)
        left = figure.get_subplot(row, column).xaxis.domain[0]
        figure.layout.annotations[i].update(
            x=left, xanchor="left", xshift=-3, yshift=3, font_size=13
        )
    top = head_room(lines) + HEADING
    foot = FOOT + _legend_room(panels)
    bottom = {"orientation": "h", "x": 0, "xanchor": "left", "y": 0, "yanchor": "bottom"}
    figure.update_layout(
        legend={**bottom, "yref": "container"},
        height=top + body + foot,
        margin={"t": top, "b": foot},
    )
    return figure


def whole_ticks(count: int) -> dict[str, Any]:
    """Axis of so many steps: plotly would mark halves where there are few."""
    return {"dtick": 1} if count <= 8 else {}


def _legend_room(panels: Sequence[Panel]) -> int:
    """Pixels of the legend's rows in a figure of usual width."""
    names = [trace.name for panel in panels for trace in panel.traces if trace.showlegend]
    return LEGEND * -(-round(sum(_KEY + _LETTER * len(name) for name in names)) // _ROW)
