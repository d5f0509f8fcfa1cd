"""The statistics of a run over its steps, to stand alone or beside other widgets."""

from __future__ import annotations

from typing import ClassVar

import traitlets

from ldm_viz.widgets.run_widget import RunWidget
from ldm_viz.widgets.sources import module_text, style_text


class LatentStatistics(RunWidget):
    """Curves over the steps of a run: mean, std and range of its latents, agreement of its predictions, SNR.

    `ldm_viz.statistics.latent_statistics` gives the numbers of the latents as arrays.

    Args:
        trajectory: the run.
        **traits: any of ``step``, ``sample``, ``channel`` and ``slider``.

    Raises:
        TypeError: this is no trajectory, or an option is unknown.
        traitlets.TraitError: the run has no such step, sample or channel.

    Example:
        >>> lv.LatentStatistics(run, step=9)  # doctest: +SKIP
    """

    _name: ClassVar[str] = "the statistics"
    _view: ClassVar[str] = "latent_statistics"
    _shows: ClassVar[dict[str, bool]] = {"pictures": False, "maps": False}
    _esm = module_text("latent_statistics")
    _css = style_text("latent_statistics")

    channel = traitlets.Union([traitlets.Int(), traitlets.Unicode()], default_value="norm").tag(
        sync=True
    )
    """The latent channel whose curves are drawn stronger, or ``"norm"`` for none."""

    slider = traitlets.Bool(True).tag(sync=True)
    """Whether it has a slider of its own; one linked to another widget's step needs none."""

    @traitlets.validate("channel")
    def _valid_channel(self, proposal: dict) -> int | str:
        value, channels = proposal["value"], self._charted_channels()
        whole = isinstance(value, int) and not isinstance(value, bool)
        if value == "norm" or (whole and 0 <= value < max(channels, 1)):
            return value
        raise traitlets.TraitError(
            f"unknown channel {value!r}; this run has 0 to {max(channels, 1) - 1} and 'norm'"
        )

    def _charted_channels(self) -> int:
        charts = [chart for chart in self._header["charts"] if chart["kind"] == "channels"]
        return len(charts[0]["series"]) if charts else 0
