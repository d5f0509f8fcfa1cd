"""The noise prediction of a run as a heatmap, to stand alone or beside other widgets."""

from __future__ import annotations

from typing import ClassVar

import traitlets

from ldm_viz.widgets.run_widget import HeatmapTraits, RunWidget
from ldm_viz.widgets.sources import module_text, style_text


class NoiseHeatmap(HeatmapTraits, RunWidget):
    """What the network took for noise at every step: by branch, by channel or as the norm over channels.

    Args:
        trajectory: the run.
        **traits: any of ``step``, ``sample``, ``branch``, ``channel``, ``scale`` and ``slider``.

    Raises:
        TypeError: this is no trajectory, or an option is unknown.
        traitlets.TraitError: the run has no such step, sample, branch or channel.

    Example:
        >>> lv.NoiseHeatmap(run, branch="guidance delta", channel="norm")  # doctest: +SKIP
    """

    _name: ClassVar[str] = "the heatmap"
    _view: ClassVar[str] = "noise_heatmap"
    _shows: ClassVar[dict[str, bool]] = {"pictures": False, "charts": False}
    _esm = module_text("noise_heatmap")
    _css = style_text("noise_heatmap")

    slider = traitlets.Bool(True).tag(sync=True)
    """Whether it has a slider of its own; one linked to another widget's step needs none."""

    def __repr__(self) -> str:
        shown = f"{self.branch}, {'norm' if self.channel == 'norm' else f'channel {self.channel}'}"
        return f"{super().__repr__()}\n  {shown if self._branches else 'no noise prediction'}"
