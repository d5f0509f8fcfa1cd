"""How figures look: two templates, the colours that go with each, and the head of every figure."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
import plotly.io as pio

from ldm_viz.imaging import DIVERGING_DARK, DIVERGING_LIGHT, SEQUENTIAL

# What is NaN or infinite, in pictures made elsewhere in the package too: in no colour scale here.
BAD = "#d6249f"

# The explorer's colours of channels.
LINES = ("#2f7fd1", "#d9701f", "#2a9d6a", "#b0569e", "#8a7a1e", "#c2455a", "#17939e", "#7a67c9")

DASHES = ("solid", "dash", "dot", "dashdot", "longdash")

FONT = "Helvetica Neue, Helvetica, Arial, sans-serif"

# Pixels of the head: the title, and each line under it.
TITLE_ROOM, LINE_ROOM = 42, 22


@dataclass(frozen=True)
class Look:
    """The colours of one template, as ``#rrggbb``."""

    ground: str
    ink: str
    quiet: str
    line: str
    diverging: tuple[str, ...]
    sequential: tuple[str, ...] = SEQUENTIAL


LIGHT = Look("#ffffff", "#1c1e22", "#686d76", "#e4e6ea", DIVERGING_LIGHT)
DARK = Look("#15171b", "#e9eaed", "#9ba1ab", "#2b2f37", DIVERGING_DARK)
LOOKS = {"ldm_viz": LIGHT, "ldm_viz_dark": DARK}


def register_templates() -> None:
    """Make the templates ``ldm_viz`` and ``ldm_viz_dark`` known to plotly.

    They are registered when `ldm_viz.figures` is imported; call it again after changing one of them.

    Example:
        >>> import plotly.io
        >>> register_templates()
        >>> plotly.io.templates.default = "ldm_viz"  # doctest: +SKIP
    """
    for name, look in LOOKS.items():
        pio.templates[name] = _template(look)


def find_look(template: Any) -> Look:
    """The colours that go with a template: dark ones where its name says dark.

    Args:
        template: a name known to plotly, several joined by ``+``, a plotly ``Template``, or None.

    Raises:
        ValueError: plotly knows no template of that name.
    """
    if not isinstance(template, str):
        return LIGHT
    known = [*LOOKS, *sorted(set(pio.templates) - set(LOOKS))]
    for name in template.split("+"):
        if name not in known:
            raise ValueError(
                f"unknown template {name!r}; plotly knows {', '.join(map(repr, known))}"
            )
    return DARK if "dark" in template else LIGHT


def line_dash(index: int) -> str:
    """How one of several curves is drawn, so that those under it are seen where they coincide."""
    return DASHES[index % len(DASHES)]


def line_colour(index: int, count: int) -> str:
    """The colour of one of ``count`` curves; beyond eight, hues evenly apart."""
    if count <= len(LINES):
        return LINES[index]
    parts = colorsys.hls_to_rgb(index / count, 0.52, 0.6)
    return "#" + "".join(f"{round(255 * part):02x}" for part in parts)


def scale(stops: Sequence[str]) -> list[list[Any]]:
    """Colours evenly apart, as plotly writes a colour scale."""
    return [[i / (len(stops) - 1), stop] for i, stop in enumerate(stops)]


def head(title: str, lines: Sequence[str], look: Look) -> dict[str, Any]:
    """A title and quiet lines under it; all must be escaped already.

    Plotly's own subtitle is placed anew, and elsewhere, each time that a frame changes it.
    """
    quiet = [f'<span style="font-size:12px;color:{look.quiet}">{line}</span>' for line in lines]
    return {"text": "<br>".join([title, *quiet])}


def head_room(lines: int) -> int:
    """Pixels that a head of so many quiet lines takes, with the gap under it."""
    return TITLE_ROOM + LINE_ROOM * lines


def _template(look: Look) -> go.layout.Template:
    axis = {
        "showgrid": True, "gridcolor": look.line, "gridwidth": 1, "zeroline": False,
        "showline": True, "linecolor": look.quiet, "linewidth": 1,
        "ticks": "outside", "ticklen": 4, "tickcolor": look.quiet,
        "tickfont": {"size": 11, "color": look.quiet},
        "title": {"font": {"size": 12, "color": look.quiet}, "standoff": 6},
        "automargin": True,
    }  # fmt: skip
    title = {
        "x": 0, "xref": "paper", "xanchor": "left", "y": 1, "yref": "container", "yanchor": "top",
        "pad": {"t": 28}, "font": {"size": 17, "color": look.ink},
    }  # fmt: skip
    layout = go.Layout(
        font={"family": FONT, "size": 12, "color": look.ink},
        title=title,
        paper_bgcolor=look.ground,
        plot_bgcolor=look.ground,
        colorway=list(LINES),
        colorscale={
            "diverging": scale(look.diverging),
            "sequential": scale(look.sequential),
            "sequentialminus": scale(look.sequential[::-1]),
        },
        xaxis=axis,
        yaxis=axis,
        hovermode="closest",
        hoverlabel={"bgcolor": look.ground, "bordercolor": look.quiet, "font": {"size": 12}},
        legend={"font": {"size": 12, "color": look.ink}, "bgcolor": "rgba(0,0,0,0)"},
        margin={"l": 56, "r": 20, "t": head_room(1), "b": 48},
    )
    # Plotly's button beside the camera would send the figure, prompt and all, to its makers' server.
    layout.modebar = {"remove": ["sendChartToCloud"]}
    layout.annotationdefaults = {"font": {"size": 13, "color": look.ink}, "showarrow": False}
    bar = {"outlinewidth": 0, "ticks": "", "tickfont": {"size": 11, "color": look.quiet}}
    layout.coloraxis = {"colorbar": bar}
    return go.layout.Template(layout=layout, data={"scatter": [{"line": {"width": 1.8}}]})
