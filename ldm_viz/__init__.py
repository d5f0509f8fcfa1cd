"""See and explore the internals of latent diffusion models, step by step.

Importing this package is cheap: it loads neither torch nor diffusers nor the widgets. Every public name is
found when it is first used.

Example:
    >>> import ldm_viz as lv
    >>> run = lv.record(lv.load_tiny(), "a red star at night over snow", seed=7)  # doctest: +SKIP
    >>> lv.explore(run)  # doctest: +SKIP
"""

from importlib import import_module
from operator import attrgetter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ldm_viz.capture import LiveStep, Recorder, RecordingError, add_scaling, estimate, record
    from ldm_viz.exports import ExportError, animate, export
    from ldm_viz.figures import (
        plot_filmstrip,
        plot_heatmaps,
        plot_schedule,
        plot_statistics,
        save_figure,
    )
    from ldm_viz.labs import LiveRun, watch
    from ldm_viz.latent_layouts import add_layout
    from ldm_viz.tiny import load_joint_space, load_tiny
    from ldm_viz.trajectory import Step, Trajectory, TrajectoryFileError
    from ldm_viz.widgets.comparison import Comparison, compare
    from ldm_viz.widgets.explorer import Explorer, explore
    from ldm_viz.widgets.filmstrip import Filmstrip
    from ldm_viz.widgets.latent_statistics import LatentStatistics
    from ldm_viz.widgets.noise_heatmap import NoiseHeatmap

    open_trajectory = Trajectory.open

__version__ = "0.1.0"

__all__ = [
    "Comparison",
    "Explorer",
    "ExportError",
    "Filmstrip",
    "LatentStatistics",
    "LiveRun",
    "LiveStep",
    "NoiseHeatmap",
    "Recorder",
    "RecordingError",
    "Step",
    "Trajectory",
    "TrajectoryFileError",
    "add_layout",
    "add_scaling",
    "animate",
    "compare",
    "estimate",
    "explore",
    "export",
    "load_joint_space",
    "load_tiny",
    "open_trajectory",
    "plot_filmstrip",
    "plot_heatmaps",
    "plot_schedule",
    "plot_statistics",
    "record",
    "save_figure",
    "watch",
]

_HOMES = {
    "Comparison": ("ldm_viz.widgets.comparison", "Comparison"),
    "Explorer": ("ldm_viz.widgets.explorer", "Explorer"),
    "ExportError": ("ldm_viz.exports", "ExportError"),
    "Filmstrip": ("ldm_viz.widgets.filmstrip", "Filmstrip"),
    "LatentStatistics": ("ldm_viz.widgets.latent_statistics", "LatentStatistics"),
    "LiveRun": ("ldm_viz.labs", "LiveRun"),
    "LiveStep": ("ldm_viz.capture", "LiveStep"),
    "NoiseHeatmap": ("ldm_viz.widgets.noise_heatmap", "NoiseHeatmap"),
    "Recorder": ("ldm_viz.capture", "Recorder"),
    "RecordingError": ("ldm_viz.capture", "RecordingError"),
    "Step": ("ldm_viz.trajectory", "Step"),
    "Trajectory": ("ldm_viz.trajectory", "Trajectory"),
    "TrajectoryFileError": ("ldm_viz.trajectory", "TrajectoryFileError"),
    "add_layout": ("ldm_viz.latent_layouts", "add_layout"),
    "add_scaling": ("ldm_viz.capture", "add_scaling"),
    "animate": ("ldm_viz.exports", "animate"),
    "compare": ("ldm_viz.widgets.comparison", "compare"),
    "estimate": ("ldm_viz.capture", "estimate"),
    "explore": ("ldm_viz.widgets.explorer", "explore"),
    "export": ("ldm_viz.exports", "export"),
    "load_joint_space": ("ldm_viz.tiny", "load_joint_space"),
    "load_tiny": ("ldm_viz.tiny", "load_tiny"),
    "open_trajectory": ("ldm_viz.trajectory", "Trajectory.open"),
    "plot_filmstrip": ("ldm_viz.figures", "plot_filmstrip"),
    "plot_heatmaps": ("ldm_viz.figures", "plot_heatmaps"),
    "plot_schedule": ("ldm_viz.figures", "plot_schedule"),
    "plot_statistics": ("ldm_viz.figures", "plot_statistics"),
    "record": ("ldm_viz.capture", "record"),
    "save_figure": ("ldm_viz.figures", "save_figure"),
    "watch": ("ldm_viz.labs", "watch"),
}


def __getattr__(name: str) -> Any:
    """Find a public name in the module that defines it, the first time it is asked for."""
    if name not in _HOMES:
        raise AttributeError(
            f"module 'ldm_viz' has no attribute {name!r}; it has {', '.join(__all__)}"
        )
    module, attribute = _HOMES[name]
    value = attrgetter(attribute)(import_module(module))
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
