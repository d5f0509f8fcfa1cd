"""The explorer: one slider through every step of a recorded run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import traitlets

from ldm_viz.widgets.run_widget import HeatmapTraits, RunWidget, check_trajectory
from ldm_viz.widgets.sources import module_text, style_text

if TYPE_CHECKING:
    from ldm_viz.trajectory import Trajectory

PANELS = ("latents", "x0", "next", "noise", "channels", "filmstrip", "statistics")


class Explorer(HeatmapTraits, RunWidget):
    """A run in the browser: pictures, latents, noise predictions and statistics under one slider.

    Everything it draws is in its state, so it works with no kernel once it is shown. While it moves, only the
    browser is at work; the settled step is what Python hears.

    Args:
        trajectory: the run, such as `ldm_viz.record` returns.
        **traits: any of the traits below.

    Example:
        >>> explorer = Explorer(trajectory, step=7)  # doctest: +SKIP
        >>> explorer.observe(lambda change: print(change.new), "step")  # doctest: +SKIP
    """

    _view: ClassVar[str] = "explorer"
    _esm = module_text("explorer")
    _css = style_text("explorer")

    panels = traitlets.List(traitlets.Unicode(), default_value=list(PANELS)).tag(sync=True)
    """What is shown of ``"latents"`` (the sample x_t, decoded), ``"x0"`` (the predicted clean picture), ``"next"``
    (the next sample), ``"noise"`` (the noise prediction's heatmap), ``"channels"`` (the latents' channels),
    ``"filmstrip"`` and ``"statistics"``."""

    playing = traitlets.Bool(False).tag(sync=True)
    """Whether it advances by itself."""

    speed = traitlets.Float(8.0).tag(sync=True)
    """Steps a second while playing, above 0 and at most 60."""

    @traitlets.validate("panels")
    def _valid_panels(self, proposal: dict[str, Any]) -> list[str]:
        unknown = [name for name in proposal["value"] if name not in PANELS]
        if unknown:
            known = ", ".join(map(repr, PANELS))
            raise traitlets.TraitError(f"unknown panel {unknown[0]!r}; there are {known}")
        return [name for name in PANELS if name in proposal["value"]]

    @traitlets.validate("speed")
    def _valid_speed(self, proposal: dict[str, Any]) -> float:
        if not 0 < proposal["value"] <= 60:
            raise traitlets.TraitError(
                f"speed must be above 0 and at most 60 steps a second, not {proposal['value']}"
            )
        return proposal["value"]

    def __repr__(self) -> str:
        series = self._series.get("latents") or self._series.get("x0")
        seen = (
            "×".join(map(str, reversed(series["full"]))) + " pictures" if series else "no pictures"
        )
        branches = ", ".join(self._branches) or "none"
        return f"{super().__repr__()}\n  {seen}, noise predictions: {branches}"


def explore(
    trajectory: Trajectory,
    *,
    sample: int = 0,
    step: int | None = None,
    channel: int | str = 0,
    branch: str | None = None,
    **traits: Any,
) -> Explorer:
    """Show a recorded run: one slider over all its steps.

    Args:
        trajectory: the run, as `record` returns it or `open_trajectory` reads it.
        sample: position in the batch.
        step: the step to begin with, negative ones counted from the end; the first by default.
        channel: latent channel of the heatmap, or ``"norm"``.
        branch: noise prediction of the heatmap; ``"guided"`` by default where there is one.
        **traits: other traits of `Explorer`: ``panels``, ``scale``, ``speed``, ``playing``.

    Returns:
        The widget. Its ``step``, ``channel``, ``branch`` and ``playing`` can be observed and set. Large pictures
        that a model has to decode come while the kernel is idle; `Explorer.finish` makes them all at once.

    Raises:
        TypeError: this is no trajectory, or an option is unknown.
        traitlets.TraitError: the run has no such step, sample, channel, branch or panel.

    Example:
        >>> lv.explore(lv.record(lv.load_tiny(), "a red star at night"))  # doctest: +SKIP
    """
    check_trajectory(trajectory)
    if step is None:
        step = 0
    elif isinstance(step, int | np.integer) and not isinstance(step, bool):
        step = int(step)
        if -len(trajectory) <= step < 0:
            step += len(trajectory)
    return Explorer(trajectory, sample=sample, step=step, channel=channel, branch=branch, **traits)
