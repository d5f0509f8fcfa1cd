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
    from ldm_viz.conditioning import (
        Embedding,
        EmbeddingError,
        ExpressionError,
        JointSpace,
        SpaceError,
        condition,
        direction,
        embed,
        image,
        keep_norm,
        lerp,
        mix,
        normalize,
        project_out,
        slerp,
        text,
        tokens,
        weigh,
    )
    from ldm_viz.exports import ExportError, animate, export
    from ldm_viz.figures import (
        plot_filmstrip,
        plot_heatmaps,
        plot_schedule,
        plot_statistics,
        save_figure,
    )
    from ldm_viz.labs.conditioning import ConditioningLab
    from ldm_viz.labs.grids import Grid, grid
    from ldm_viz.labs.live import LiveRun, watch
    from ldm_viz.labs.walks import Walk, walk
    from ldm_viz.latent_layouts import add_layout
    from ldm_viz.tiny import load_joint_space, load_tiny
    from ldm_viz.trajectory import Step, Trajectory, TrajectoryFileError
    from ldm_viz.widgets.comparison import Comparison, compare
    from ldm_viz.widgets.explorer import Explorer, explore
    from ldm_viz.widgets.filmstrip import Filmstrip
    from ldm_viz.widgets.latent_statistics import LatentStatistics
    from ldm_viz.widgets.noise_heatmap import NoiseHeatmap
    from ldm_viz.widgets.picture_strip import PictureStrip

    open_trajectory = Trajectory.open

__version__ = "0.1.0"

__all__ = [
    "Comparison",
    "ConditioningLab",
    "Embedding",
    "EmbeddingError",
    "Explorer",
    "ExportError",
    "ExpressionError",
    "Filmstrip",
    "Grid",
    "JointSpace",
    "LatentStatistics",
    "LiveRun",
    "LiveStep",
    "NoiseHeatmap",
    "PictureStrip",
    "Recorder",
    "RecordingError",
    "SpaceError",
    "Step",
    "Trajectory",
    "TrajectoryFileError",
    "Walk",
    "add_layout",
    "add_scaling",
    "animate",
    "compare",
    "condition",
    "direction",
    "embed",
    "estimate",
    "explore",
    "export",
    "grid",
    "image",
    "keep_norm",
    "lerp",
    "load_joint_space",
    "load_tiny",
    "mix",
    "normalize",
    "open_trajectory",
    "plot_filmstrip",
    "plot_heatmaps",
    "plot_schedule",
    "plot_statistics",
    "project_out",
    "record",
    "save_figure",
    "slerp",
    "text",
    "tokens",
    "walk",
    "watch",
    "weigh",
]

_HOMES = {
    "Comparison": ("ldm_viz.widgets.comparison", "Comparison"),
    "ConditioningLab": ("ldm_viz.labs.conditioning", "ConditioningLab"),
    "Embedding": ("ldm_viz.conditioning", "Embedding"),
    "EmbeddingError": ("ldm_viz.conditioning", "EmbeddingError"),
    "Explorer": ("ldm_viz.widgets.explorer", "Explorer"),
    "ExportError": ("ldm_viz.exports", "ExportError"),
    "ExpressionError": ("ldm_viz.conditioning", "ExpressionError"),
    "Filmstrip": ("ldm_viz.widgets.filmstrip", "Filmstrip"),
    "Grid": ("ldm_viz.labs.grids", "Grid"),
    "JointSpace": ("ldm_viz.conditioning", "JointSpace"),
    "LatentStatistics": ("ldm_viz.widgets.latent_statistics", "LatentStatistics"),
    "LiveRun": ("ldm_viz.labs.live", "LiveRun"),
    "LiveStep": ("ldm_viz.capture", "LiveStep"),
    "NoiseHeatmap": ("ldm_viz.widgets.noise_heatmap", "NoiseHeatmap"),
    "PictureStrip": ("ldm_viz.widgets.picture_strip", "PictureStrip"),
    "Recorder": ("ldm_viz.capture", "Recorder"),
    "RecordingError": ("ldm_viz.capture", "RecordingError"),
    "SpaceError": ("ldm_viz.conditioning", "SpaceError"),
    "Step": ("ldm_viz.trajectory", "Step"),
    "Trajectory": ("ldm_viz.trajectory", "Trajectory"),
    "TrajectoryFileError": ("ldm_viz.trajectory", "TrajectoryFileError"),
    "Walk": ("ldm_viz.labs.walks", "Walk"),
    "add_layout": ("ldm_viz.latent_layouts", "add_layout"),
    "add_scaling": ("ldm_viz.capture", "add_scaling"),
    "animate": ("ldm_viz.exports", "animate"),
    "compare": ("ldm_viz.widgets.comparison", "compare"),
    "condition": ("ldm_viz.conditioning", "condition"),
    "direction": ("ldm_viz.conditioning", "direction"),
    "embed": ("ldm_viz.conditioning", "embed"),
    "estimate": ("ldm_viz.capture", "estimate"),
    "explore": ("ldm_viz.widgets.explorer", "explore"),
    "export": ("ldm_viz.exports", "export"),
    "grid": ("ldm_viz.labs.grids", "grid"),
    "image": ("ldm_viz.conditioning", "image"),
    "keep_norm": ("ldm_viz.conditioning", "keep_norm"),
    "lerp": ("ldm_viz.conditioning", "lerp"),
    "load_joint_space": ("ldm_viz.tiny", "load_joint_space"),
    "load_tiny": ("ldm_viz.tiny", "load_tiny"),
    "mix": ("ldm_viz.conditioning", "mix"),
    "normalize": ("ldm_viz.conditioning", "normalize"),
    "open_trajectory": ("ldm_viz.trajectory", "Trajectory.open"),
    "plot_filmstrip": ("ldm_viz.figures", "plot_filmstrip"),
    "plot_heatmaps": ("ldm_viz.figures", "plot_heatmaps"),
    "plot_schedule": ("ldm_viz.figures", "plot_schedule"),
    "plot_statistics": ("ldm_viz.figures", "plot_statistics"),
    "project_out": ("ldm_viz.conditioning", "project_out"),
    "record": ("ldm_viz.capture", "record"),
    "save_figure": ("ldm_viz.figures", "save_figure"),
    "slerp": ("ldm_viz.conditioning", "slerp"),
    "text": ("ldm_viz.conditioning", "text"),
    "tokens": ("ldm_viz.conditioning", "tokens"),
    "walk": ("ldm_viz.labs.walks", "walk"),
    "watch": ("ldm_viz.labs.live", "watch"),
    "weigh": ("ldm_viz.conditioning", "weigh"),
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
