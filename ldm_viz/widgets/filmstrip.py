"""The filmstrip of a run, to stand alone or beside other widgets."""

from __future__ import annotations

from typing import ClassVar

import traitlets

from ldm_viz.widgets.run_widget import RunWidget
from ldm_viz.widgets.sources import module_text, style_text


class Filmstrip(RunWidget):
    """Thumbnails of all steps of a run, x_t above and the predicted x0 below.

    Args:
        trajectory: the run.
        **traits: any of ``step``, ``sample`` and ``slider``.

    Raises:
        TypeError: this is no trajectory, or an option is unknown.
        traitlets.TraitError: the run has no such step or sample.

    Example:
        >>> strip = lv.Filmstrip(run)  # doctest: +SKIP
        >>> ipywidgets.jslink((strip, "step"), (heatmap, "step"))  # doctest: +SKIP
    """

    _name: ClassVar[str] = "the filmstrip"
    _view: ClassVar[str] = "filmstrip"
    _shows: ClassVar[dict[str, bool]] = {"maps": False, "charts": False}
    _esm = module_text("filmstrip")
    _css = style_text("filmstrip")

    slider = traitlets.Bool(True).tag(sync=True)
    """Whether it has a slider of its own; one linked to another widget's step needs none."""
