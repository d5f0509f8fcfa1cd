"""Figures as files: pages that work offline, and pictures for papers."""

from __future__ import annotations

import base64
import hashlib
import html
import os
import re
from pathlib import Path
from typing import Any

import plotly.graph_objects as go

from .heatmaps import CONTROLS, FOOT

PICTURES = (".svg", ".png", ".pdf")
SUFFIXES = (".html", *PICTURES)

# Pixels, for a figure that sets none.
WIDTH, HEIGHT = 960, 480

# Plotly breaks off a move that another overtakes by rejecting its promise with nothing, and nobody
# listens: no error, but the browser would report one.
_CALM = """
window.addEventListener("unhandledrejection", (event) => {
  if (event.reason === undefined) event.preventDefault();
});
"""

INSTALL = "pip install 'ldm_viz[figures]'"


def save_figure(
    figure: go.Figure,
    path: str | os.PathLike[str],
    *,
    width: int | None = None,
    height: int | None = None,
    scale: float = 2,
) -> Path:
    """Write a figure as a page or a picture, as the path's suffix says.

    ``.html`` is one page that works offline, with hover, zoom and slider; its content security policy lets no
    request leave it. ``.svg``, ``.pdf`` and ``.png`` need the package kaleido and a Chrome or Chromium: the one
    that the environment variable ``BROWSER_PATH`` names, or the one that kaleido finds. They show the
    figure as it first is, without slider and buttons.

    Args:
        figure: any plotly figure.
        path: where to; a file that is there is replaced.
        width: pixels; by default the figure's own, or 960 for a picture. A page without it follows the
            window.
        height: pixels; by default the figure's own, or 480 for a picture.
        scale: pixels of a PNG for each of the figure's; vector files take no notice.

    Returns:
        The path written.

    Raises:
        TypeError: this is no plotly figure.
        ValueError: the suffix is unknown, or a size is not positive.
        ImportError: kaleido is not installed.
        RuntimeError: no Chrome or Chromium is found, or it does not start.
        OSError: it cannot be written there.

    Example:
        >>> save_figure(plot_statistics(run), "statistics.pdf", width=720)  # doctest: +SKIP
        PosixPath('statistics.pdf')
    """
    if not isinstance(figure, go.Figure):
        raise TypeError(
            f"save_figure writes a plotly Figure, not {type(figure).__name__}; make one with "
            "plot_statistics(run), plot_heatmaps(run), plot_filmstrip(run) or plot_schedule(run)"
        )
    for name, size in (("width", width), ("height", height), ("scale", scale)):
        if size is not None and not size > 0:
            raise ValueError(f"{name} must be above 0, not {size!r}")
    target = Path(path)
    suffix = target.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"unknown suffix {target.suffix!r}; known: {', '.join(SUFFIXES)}")
    if not target.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {target.parent} to write {target.name} into")
    if suffix == ".html":
        data = _page(_sized(figure, width, height)).encode()
    else:
        data = _picture(_still(figure), suffix[1:], width, height, scale)
    target.write_bytes(data)
    return target


def _sized(figure: go.Figure, width: int | None, height: int | None) -> go.Figure:
    asked = {name: size for name, size in (("width", width), ("height", height)) if size}
    return go.Figure(figure).update_layout(asked) if asked else figure


def _page(figure: go.Figure) -> str:
    body = figure.to_html(
        full_html=False,
        include_plotlyjs=True,
        include_mathjax=False,
        div_id="figure",
        config={"displaylogo": False, "responsive": True, "showSendToCloud": False},
        auto_play=False,
        post_script=_CALM,
    )
    scripts = re.findall(r"<script\b[^>]*>(.*?)</script>", body, re.DOTALL)
    # Plotly writes style sheets and pictures of its own and, for drawing in 3-D, compiles functions.
    policy = (
        f"default-src 'none'; script-src {' '.join(map(_digest, scripts))} 'unsafe-eval'; "
        "style-src 'unsafe-inline'; img-src data: blob:; worker-src blob:; base-uri 'none'; "
        "form-action 'none'"
    )
    ground = figure.layout.paper_bgcolor or figure.layout.template.layout.paper_bgcolor or "white"
    title = html.unescape(re.sub(r"<[^>]*>", " ", figure.layout.title.text or "A figure"))
    lines = [
        "<!doctype html>",
        '<html lang="en">',
        "<head>",
        '<meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{html.escape(policy)}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        '<meta name="generator" content="ldm_viz">',
        '<link rel="icon" href="data:,">',
        f"<title>{html.escape(title)}</title>",
        f"<style>body {{ margin: 12px; background: {html.escape(ground)}; }}</style>",
        "</head>",
        "<body>",
        body,
        "</body>",
        "</html>",
        "",
    ]
    return "\n".join(lines)


def _digest(text: str) -> str:
    digest = hashlib.sha256(text.replace("\r\n", "\n").encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _still(figure: go.Figure) -> dict[str, Any]:
    """The figure as it first is: nothing moves on paper."""
    still = figure.to_dict()
    still.pop("frames", None)
    layout = still["layout"]
    layout.pop("updatemenus", None)
    # The room under our maps that their controls leave; another figure's margins are its own.
    if layout.pop("sliders", None) and layout.get("margin", {}).get("b") == CONTROLS:
        layout["margin"]["b"] = FOOT
        layout["height"] -= CONTROLS - FOOT
    return still


def _picture(
    figure: dict[str, Any], kind: str, width: int | None, height: int | None, scale: float
) -> bytes:
    try:
        import kaleido
        from kaleido.errors import BrowserFailedError, ChromeNotFoundError
    except ImportError as error:
        raise ImportError(
            f"a .{kind} file needs the package kaleido, 1.0 or newer; install it with: {INSTALL}"
        ) from error
    layout = figure["layout"]
    asked = {
        "format": kind,
        "width": width or layout.get("width") or WIDTH,
        "height": height or layout.get("height") or HEIGHT,
        "scale": scale if kind == "png" else 1,
    }
    # MathJax would come from the network, and no text of ours is a formula.
    options: dict[str, Any] = {"mathjax": False}
    browser = os.environ.get("BROWSER_PATH")
    if browser:  # kaleido itself prefers a Chrome that it has downloaded before
        options["path"] = browser
    try:
        return kaleido.calc_fig_sync(figure, opts=asked, kopts=options)
    except (ChromeNotFoundError, BrowserFailedError) as error:
        found = f"BROWSER_PATH={browser}" if browser else "kaleido"
        raise RuntimeError(
            f"a .{kind} file is drawn by Chrome or Chromium, and {found} leads to none that starts "
            f"({type(error).__name__}). Debian: apt install chromium. Elsewhere: {INSTALL}, then "
            "kaleido_get_chrome, or name your browser in BROWSER_PATH. An .html file needs none."
        ) from error
