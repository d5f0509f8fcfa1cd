"""Figures of a run for papers and analysis: plain plotly figures, and files made of them.

Importing this room registers the templates ``ldm_viz`` and ``ldm_viz_dark`` with plotly. Plotly's default
template stays as it is.

Example:
    >>> from ldm_viz.figures import plot_statistics, save_figure
    >>> save_figure(plot_statistics(run), "statistics.pdf")  # doctest: +SKIP
"""

try:
    import plotly  # noqa: F401
except ImportError as error:
    raise ImportError(
        "figures need the package plotly; install it with: pip install 'ldm_viz[figures]'"
    ) from error

from .curves import plot_statistics
from .filmstrip import plot_filmstrip
from .heatmaps import plot_heatmaps
from .look import register_templates
from .saving import save_figure
from .schedule import plot_schedule

__all__ = [
    "plot_filmstrip",
    "plot_heatmaps",
    "plot_schedule",
    "plot_statistics",
    "register_templates",
    "save_figure",
]

register_templates()
