"""What all widgets that show one run have in common."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import anywidget
import traitlets

from ldm_viz.imaging import encode_image
from ldm_viz.widgets.filling import Filler
from ldm_viz.widgets.packing import count_frames, pack
from ldm_viz.widgets.page import write_page
from ldm_viz.widgets.still import still_picture

if TYPE_CHECKING:
    from ldm_viz.trajectory import Step, Trajectory

SCALES = ("run", "step")


def check_trajectory(trajectory: Any, what: str = "the explorer") -> None:
    """Refuse what is no trajectory.

    Raises:
        TypeError: it is none.
    """
    needed = ("latents", "timesteps", "noise_prediction", "frames", "settings")
    if not all(hasattr(trajectory, name) for name in needed):
        raise TypeError(
            f"{what} shows a Trajectory, not {type(trajectory).__name__}; record one with "
            f"lv.record(pipe, prompt), or open a saved one with lv.open_trajectory(path)"
        )


class RecordedWidget(anywidget.AnyWidget):
    """What all widgets of recorded runs can do: fill in pictures, be a still picture and a page.

    One that derives from it sets ``_filler`` before its own state, and has a ``still``.
    """

    _name: ClassVar[str] = ""
    _view: ClassVar[str] = ""
    _wire: ClassVar[tuple[str, ...]] = ()
    _filler: Filler

    _note = traitlets.Unicode("").tag(sync=True)

    @classmethod
    def options(cls) -> list[str]:
        """Names of the traits that can be given and observed, in alphabetical order."""
        own = set(anywidget.AnyWidget.class_trait_names())
        names = cls.class_trait_names(sync=True)
        return sorted(name for name in names if name not in own and not name.startswith("_"))

    @classmethod
    def check_options(cls, traits: dict[str, Any]) -> None:
        """Refuse names that are no trait of this widget.

        Raises:
            TypeError: there is one.
        """
        known = cls.options()
        unknown = sorted(set(traits) - set(known))
        if unknown:
            raise TypeError(f"unknown option {unknown[0]!r}; {cls._name} has {', '.join(known)}")

    def finish(self) -> None:
        """Make all pictures that are still missing, now and with a progress bar.

        Large ones that a model has to decode are otherwise made while the kernel is idle, those around
        the step first; until then a coarse preview stands in for them.
        """
        self._filler.finish()

    def close(self) -> None:
        """Remove the widget from all notebooks' views."""
        filler = getattr(self, "_filler", None)
        if filler is not None:
            filler.stop()
        super().close()

    def still(self) -> bytes:
        """The widget as one still picture, PNG."""
        raise NotImplementedError

    def _title(self) -> str:
        return "A recorded run"

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
        """Write the widget as one page that works from disk, with no network and no kernel.

        Pictures that are still missing are made first.

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
        self.finish()
        state = {name: getattr(self, name) for name in (*self.options(), *self._wire)}
        if "playing" in state:
            state["playing"] = False
        state["_alone"] = True
        return write_page(self._view, state, self._title() if title is None else title, path)


class RunWidget(RecordedWidget):
    """A widget that shows one run under a step.

    Args:
        trajectory: the run, such as `ldm_viz.record` returns.
        **traits: any of the widget's traits.

    Raises:
        TypeError: this is no trajectory, or an option is unknown.
        traitlets.TraitError: the run has no such step, sample, channel or branch.
    """

    _name: ClassVar[str] = "the explorer"
    _view: ClassVar[str] = "explorer"
    _wire: ClassVar[tuple[str, ...]] = ("_header", "_series", "_frames", "_maps", "_charts")
    _shows: ClassVar[dict[str, bool]] = {}

    step = traitlets.Int(0).tag(sync=True)
    """The step shown, 0-based: what ``trajectory[step]`` is."""

    sample = traitlets.Int(0).tag(sync=True)
    """The position in the batch that is shown."""

    frame = traitlets.Int(0).tag(sync=True)
    """Of a video, the frame that is shown, 0-based; the one in the middle at first. Python makes its pictures when
    it changes."""

    _header = traitlets.Dict().tag(sync=True)
    _series = traitlets.Dict().tag(sync=True)
    _frames = traitlets.Bytes(b"").tag(sync=True)
    _maps = traitlets.Bytes(b"").tag(sync=True)
    _charts = traitlets.Bytes(b"").tag(sync=True)

    def __init__(self, trajectory: Trajectory, **traits: Any) -> None:
        check_trajectory(trajectory, self._name)
        self.check_options(traits)
        self._trajectory = trajectory
        self._generation, self._made = 0, False
        self._video = count_frames(trajectory)
        frame = traits.setdefault("frame", self._video // 2)
        packed = pack(trajectory, **self._shows, at=self._share(frame))
        self._branches, self._channels = packed.branches, packed.channels
        self._pictures = packed.pictures
        self._filler = Filler([packed.pictures], self._show_pictures, self._place)
        super().__init__(
            _header=packed.header, _maps=packed.maps, _charts=packed.charts, **self.defaults(traits)
        )
        self._made = True
        self._filler.begin()
        self._show_pictures(self._filler.note)
        self._filler.fill_when_idle()

    def _share(self, frame: Any) -> float:
        """Where a frame is in its video, from 0 to 1."""
        last = self._video - 1
        return min(max(frame / last, 0.0), 1.0) if last > 0 and isinstance(frame, int) else 0.5

    @traitlets.observe("frame")
    def _show_frame(self, change: dict[str, Any]) -> None:
        if not self._made:  # its first value
            return
        self._filler.stop()
        self._generation += 1
        packed = pack(
            self._trajectory,
            **self._shows,
            at=self._share(self.frame),
            generation=self._generation,
        )
        self._pictures = packed.pictures
        self._filler = Filler([packed.pictures], self._show_pictures, self._place)
        self._filler.begin()
        with self.hold_sync():
            self._header, self._maps = packed.header, packed.maps
        self._show_pictures(self._filler.note)
        self._filler.fill_when_idle()

    def defaults(self, traits: dict[str, Any]) -> dict[str, Any]:
        """The traits to begin with, given those that are asked for."""
        return traits

    def _place(self) -> tuple[int, int]:
        return self.step, self.sample

    def _show_pictures(self, note: str) -> None:
        with self.hold_sync():
            self._note = note
            self._series = self._pictures.header
            self._frames = self._pictures.data

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

    @traitlets.validate("frame")
    def _valid_frame(self, proposal: dict[str, Any]) -> int:
        last = max(self._video - 1, 0)
        if not 0 <= proposal["value"] <= last:
            what = f"its video has {self._video} frames" if self._video else "it is no video's"
            raise traitlets.TraitError(
                f"frame must be between 0 and {last}, not {proposal['value']}: {what}"
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

    def __repr__(self) -> str:
        words = self._header["words"][self.step] if self._header["words"] else "no step"
        return f"{type(self).__name__}: {words}"

    def still(self) -> bytes:
        """The run as one still picture: a PNG of x_t and the predicted x0 over a few steps."""
        return encode_image(still_picture(self._trajectory, self.sample), "png")

    def _title(self) -> str:
        samples = self._header["samples"]
        return (samples[self.sample]["prompt"] if samples else "") or super()._title()


class HeatmapTraits(traitlets.HasTraits):
    """Traits of widgets with a heatmap of the noise prediction; they go with a `RunWidget`."""

    _branches: tuple[str, ...]
    _channels: int

    branch = traitlets.Unicode("").tag(sync=True)
    """Noise prediction shown: ``"unconditional"``, ``"conditional"``, ``"guided"``, ``"guidance delta"``
    (conditional − unconditional), or as the run has them; ``""`` where there are none."""

    channel = traitlets.Union([traitlets.Int(), traitlets.Unicode()], default_value=0).tag(
        sync=True
    )
    """The latent channel shown in the heatmap, or ``"norm"`` for the norm over channels."""

    scale = traitlets.Unicode("run").tag(sync=True)
    """Colours of the heatmap cover the values of the whole ``"run"`` or of the ``"step"`` alone."""

    def defaults(self, traits: dict[str, Any]) -> dict[str, Any]:
        """Begins with the guided prediction where there is one."""
        if traits.get("branch") is None:
            default = "guided" if "guided" in self._branches else (*self._branches, "")[0]
            traits = {**traits, "branch": default}
        return traits

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
