"""Widgets that show recorded runs in the browser, with no kernel needed once they are drawn."""

from ldm_viz.widgets.comparison import Comparison, compare
from ldm_viz.widgets.explorer import Explorer, explore
from ldm_viz.widgets.filmstrip import Filmstrip
from ldm_viz.widgets.latent_statistics import LatentStatistics
from ldm_viz.widgets.noise_heatmap import NoiseHeatmap

__all__ = [
    "Comparison",
    "Explorer",
    "Filmstrip",
    "LatentStatistics",
    "NoiseHeatmap",
    "compare",
    "explore",
]
