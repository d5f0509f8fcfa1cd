"""The explorer: one slider through every step of a recorded run."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anywidget
import numpy as np
import traitlets

from ldm_viz.imaging import encode_image
from ldm_viz.widgets.packing import pack
from ldm_viz.widgets.page import page_text
from ldm_viz.widgets.sources import module_text, style_text
from ldm_viz.widgets.still import still_picture

if TYPE_CHECKING:
    from ldm_viz.trajectory import Step, Trajectory

SCALES = ("run", "step")


class Explorer(anywidget.AnyWidget):
    """A run in the browser: pictures, noise predictions and statistics under one slider.

    Everything it draws is in its state, so it works with no kernel once it is shown. While it moves, only the
    browser is at work; the settled step is what Python hears.

    Args:
        trajectory: the run, such as `ldm_viz.record` returns.
        **traits: any of the traits below.

    Example:
        >>> explorer = Explorer(trajectory, step=7)  # doctest: +SKIP
        >>> explorer.observe(lambda change: print(change.new), "step")  # doctest: +SKIP
    """

    _esm = module_text("explorer")
    _css = style_text("explorer")

    step = traitlets.Int(0).tag(sync=True)
    """The step shown, 0-based: what ``trajectory[step]`` is."""

    sample = traitlets.Int(0).tag(sync=True)
    """The position in the batch that is shown."""

    branch = traitlets.Unicode("").tag(sync=True)
    """Noise prediction shown: ``"unconditional"``, ``"conditional"``, ``"guided"``, ``"guidance delta"``
    (conditional − unconditional), or as the run has them; ``""`` where there are none."""

    channel = traitlets.Union([traitlets.Int(), traitlets.Unicode()], default_value=0).tag(
        sync=True
    )
    """The latent channel shown in the heatmap, or ``"norm"`` for the norm over channels."""

    scale = traitlets.Unicode("run").tag(sync=True)
    """Colours of the heatmap cover the values of the whole ``"run"`` or of the ``"step"`` alone."""

    playing = traitlets.Bool(False).tag(sync=True)
    """Whether it advances by itself."""

    speed = traitlets.Float(8.0).tag(sync=True)
    """Steps a second while playing, above 0 and at most 60."""

    _header = traitlets.Dict().tag(sync=True)
    _frames = traitlets.Bytes(b"").tag(sync=True)
    _maps = traitlets.Bytes(b"").tag(sync=True)
    _charts = traitlets.Bytes(b"").tag(sync=True)

    def __init__(self, trajectory: Trajectory, **traits: Any) -> None:
        self._check_trajectory(trajectory)
        self._trajectory = trajectory
        packed = pack(trajectory)
        self._branches, self._channels = packed.branches, packed.channels
        known = sorted(name for name in self.trait_names(sync=True) if name in _API)
        unknown = sorted(set(traits) - set(known))
        if unknown:
            raise TypeError(f"unknown option {unknown[0]!r}; the explorer has {', '.join(known)}")
        if traits.get("branch") is None:
            default = "guided" if "guided" in self._branches else (*self._branches, "")[0]
            traits["branch"] = default
        super().__init__(
            _header=packed.header,
            _frames=packed.frames,
            _maps=packed.maps,
            _charts=packed.charts,
            **traits,
        )

    @staticmethod
    def _check_trajectory(trajectory: Any) -> None:
        needed = ("latents", "timesteps", "noise_prediction", "frames", "settings")
        if not all(hasattr(trajectory, name) for name in needed):
            raise TypeError(
                f"the explorer shows a Trajectory, not {type(trajectory).__name__}; record one with "
                f"lv.record(pipe, prompt), or open a saved one with lv.open_trajectory(path)"
            )

    @property
    def trajectory(self) -> Trajectory:
        """The run that is shown."""
        return self._trajectory

    @property
    def current(self) -> Step:
        """The arrays behind what is shown: ``trajectory[step]``.

        Raises:
            IndexError: the run has no step.
        """
        if not len(self._trajectory):
            raise IndexError("this run has no step: nothing was recorded before it stopped")
        return self._trajectory[self.step]

    @traitlets.validate("step")
    def _valid_step(self, proposal: dict[str, Any]) -> int:
        last = max(len(self._trajectory) - 1, 0)
        if not 0 <= proposal["value"] <= last:
            raise traitlets.TraitError(
                f"step must be between 0 and {last}, not {proposal['value']}: "
                f"this run has {len(self._trajectory)} steps, counted from 0"
            )
        return proposal["value"]

    @traitlets.validate("sample")
    def _valid_sample(self, proposal: dict[str, Any]) -> int:
        last = self._trajectory.batch_size - 1
        if not 0 <= proposal["value"] <= last:
            raise traitlets.TraitError(
                f"sample must be between 0 and {last}, not {proposal['value']}"
            )
        return proposal["value"]

    @traitlets.validate("branch")
    def _valid_branch(self, proposal: dict[str, Any]) -> str:
        if proposal["value"] not in (self._branches or ("",)):
            known = ", ".join(map(repr, self._branches)) or "no branch (none was recorded)"
            raise traitlets.TraitError(
                f"unknown branch {proposal['value']!r}; this run has {known}"
            )
        return proposal["value"]

    @traitlets.validate("channel")
    def _valid_channel(self, proposal: dict[str, Any]) -> int | str:
        value = proposal["value"]
        whole = isinstance(value, int) and not isinstance(value, bool)
        if value == "norm" or (whole and 0 <= value < max(self._channels, 1)):
            return value
        raise traitlets.TraitError(
            f"unknown channel {value!r}; this run has 0 to {max(self._channels, 1) - 1} and 'norm'"
        )

    @traitlets.validate("scale")
    def _valid_scale(self, proposal: dict[str, Any]) -> str:
        if proposal["value"] not in SCALES:
            known = " and ".join(map(repr, SCALES))
            raise traitlets.TraitError(f"unknown scale {proposal['value']!r}; there are {known}")
        return proposal["value"]

    @traitlets.validate("speed")
    def _valid_speed(self, proposal: dict[str, Any]) -> float:
        if not 0 < proposal["value"] <= 60:
            raise traitlets.TraitError(
                f"speed must be above 0 and at most 60 steps a second, not {proposal['value']}"
            )
        return proposal["value"]

    def __repr__(self) -> str:
        header = self._header
        pictures = header["frames"].get("latents") or header["frames"].get("x0")
        seen = (
            "×".join(map(str, reversed(pictures["full"]))) + " pictures"
            if pictures
            else "no pictures"
        )
        words = header["words"][self.step] if header["words"] else "no step"
        branches = ", ".join(self._branches) or "none"
        return f"Explorer: {words}\n  {seen}, noise predictions: {branches}"

    def still(self) -> bytes:
        """The run as one still picture: a PNG of x_t and the predicted x0 over a few steps."""
        return encode_image(still_picture(self._trajectory, self.sample), "png")

    def _repr_mimebundle_(self, **kwargs: Any) -> tuple[dict[str, Any], dict[str, Any]] | None:
        bundle = super()._repr_mimebundle_(**kwargs)
        if bundle is None:
            return None
        data, metadata = bundle
        data = dict(data)
        data["text/plain"] = repr(self)
        data["image/png"] = base64.b64encode(self.still()).decode()
        return data, metadata

    def to_html(
        self, path: str | os.PathLike[str] | None = None, title: str | None = None
    ) -> Path | str:
        """Write the explorer as one page that works from disk, with no network and no kernel.

        Args:
            path: where to write it. With None the page is returned instead.
            title: the page's title; the prompt by default.

        Returns:
            The path written, or the page's text.

        Raises:
            OSError: the page cannot be written there.

        Example:
            >>> lv.explore(run).to_html("run.html")  # doctest: +SKIP
            PosixPath('run.html')
        """
        state = {name: getattr(self, name) for name in (*_API, *_WIRE)}
        state["playing"] = False
        if title is None:
            title = (
                self._header["samples"][self.sample]["prompt"] if self._header["samples"] else ""
            )
            title = title or "A recorded run"
        text = page_text("explorer", state, title)
        if path is None:
            return text
        target = Path(path)
        if not target.parent.is_dir():
            raise FileNotFoundError(
                f"there is no folder {target.parent} to write {target.name} into"
            )
        target.write_text(text, encoding="utf-8", newline="\n")
        return target


_API = ("step", "sample", "branch", "channel", "scale", "playing", "speed")
_WIRE = ("_header", "_frames", "_maps", "_charts")


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
        **traits: other traits of `Explorer`: ``scale``, ``speed``, ``playing``.

    Returns:
        The widget. Its ``step``, ``channel``, ``branch`` and ``playing`` can be observed and set.

    Raises:
        TypeError: this is no trajectory, or an option is unknown.
        traitlets.TraitError: the run has no such step, sample, channel or branch.

    Example:
        >>> lv.explore(lv.record(lv.load_tiny(), "a red star at night"))  # doctest: +SKIP
    """
    Explorer._check_trajectory(trajectory)
    if step is None:
        step = 0
    elif isinstance(step, int | np.integer) and not isinstance(step, bool):
        step = int(step)
        if -len(trajectory) <= step < 0:
            step += len(trajectory)
    return Explorer(trajectory, sample=sample, step=step, channel=channel, branch=branch, **traits)
