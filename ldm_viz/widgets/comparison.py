"""The comparison: two to six runs under one step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import traitlets

from ldm_viz.comparison import ALIGNMENTS, name_runs
from ldm_viz.imaging import encode_image
from ldm_viz.widgets.comparison_packing import pack_comparison
from ldm_viz.widgets.comparison_still import still_comparison
from ldm_viz.widgets.filling import Filler
from ldm_viz.widgets.run_widget import SCALES, RecordedWidget, check_trajectory
from ldm_viz.widgets.sources import module_text, style_text

if TYPE_CHECKING:
    from ldm_viz.trajectory import Step, Trajectory

FEWEST, MOST = 2, 6
DIFFERENCES = ("values", "pictures", "none")


class Comparison(RecordedWidget):
    """Two to six runs in the browser: pictures, their differences to one of them, and curves, under one cursor.

    Everything it draws is in its state, so it works with no kernel once it is shown.

    Args:
        runs: the runs, each with a step at least.
        names: what they are called; by default what tells them apart.
        sample: position in every batch.
        **traits: any of the traits below.

    Raises:
        TypeError: one of them is no trajectory, or an option is unknown.
        ValueError: there are too few or too many, one has no step, or there are not as many names.
        IndexError: a run's batch has no such sample.
        traitlets.TraitError: there is no such step, series, reference, alignment or channel.

    Example:
        >>> comparison = Comparison([run, guided_more], series="latents")  # doctest: +SKIP
        >>> comparison.observe(lambda change: print(change.new), "step")  # doctest: +SKIP
    """

    _name: ClassVar[str] = "the comparison"
    _view: ClassVar[str] = "comparison"
    _wire: ClassVar[tuple[str, ...]] = ("_header", "_series", "_frames", "_maps", "_charts")
    _esm = module_text("comparison")
    _css = style_text("comparison")

    step = traitlets.Int(0).tag(sync=True)
    """Position of the cursor, 0-based: a step, or with ``by="noise"`` a step of the longest run."""

    by = traitlets.Unicode("step").tag(sync=True)
    """Which steps are shown together: those of the same number (``"step"``) or those nearest in noise level
    (``"noise"``)."""

    reference = traitlets.Int(0).tag(sync=True)
    """The run that the others are compared with."""

    series = traitlets.Unicode("").tag(sync=True)
    """What is shown of each run: the pictures ``"x0"`` or ``"latents"``, or as a heatmap ``"x0 maps"``,
    ``"latents maps"``, ``"guided"`` or another branch of the noise prediction."""

    difference = traitlets.Unicode("values").tag(sync=True)
    """What is subtracted: the ``"values"`` of latents or predictions, the ``"pictures"``, or ``"none"``."""

    channel = traitlets.Union([traitlets.Int(), traitlets.Unicode()], default_value="norm").tag(
        sync=True
    )
    """The latent channel shown in heatmaps, or ``"norm"`` for the norm over channels."""

    scale = traitlets.Unicode("step").tag(sync=True)
    """Colours of heatmaps cover the values of the ``"step"`` alone or those of all steps (``"run"``); all runs share
    them."""

    playing = traitlets.Bool(False).tag(sync=True)
    """Whether it advances by itself."""

    speed = traitlets.Float(8.0).tag(sync=True)
    """Steps a second while playing, above 0 and at most 60."""

    _header = traitlets.Dict().tag(sync=True)
    _series = traitlets.Dict().tag(sync=True)
    _frames = traitlets.Bytes(b"").tag(sync=True)
    _maps = traitlets.Bytes(b"").tag(sync=True)
    _charts = traitlets.Bytes(b"").tag(sync=True)

    def __init__(
        self,
        runs: Sequence[Trajectory],
        names: Sequence[str] | None = None,
        sample: int = 0,
        **traits: Any,
    ) -> None:
        self.check_options(traits)
        self._runs, self._names = _chosen(runs, names, sample)
        base = traits.get("reference", 0)
        if isinstance(base, bool) or not isinstance(base, int) or not 0 <= base < len(self._runs):
            raise traitlets.TraitError(self._unknown_reference(base))
        packed = pack_comparison(self._runs, self._names, base)
        self._packed = packed
        self._known_series = _known_series(packed)
        if traits.get("series") is None:
            traits["series"] = self._known_series[0] if self._known_series else ""
        if "channel" not in traits and packed.channels < 2:
            traits["channel"] = 0
        if "difference" not in traits and not packed.channels:
            traits["difference"] = "pictures"
        self._filler = Filler(packed.pictures, self._show_pictures, lambda: (self.step, 0))
        super().__init__(
            _header=packed.header | {"choices": self._known_series},
            _maps=packed.maps,
            _charts=packed.charts,
            **traits,
        )
        self._filler.begin()
        self._show_pictures(self._filler.note)
        self._filler.fill_when_idle()

    def _show_pictures(self, note: str) -> None:
        pictures = self._packed.pictures
        with self.hold_sync():
            self._series = {
                f"{k} {name}": head
                for k, files in enumerate(pictures)
                for name, head in files.header.items()
            }
            self._frames = b"".join(files.data for files in pictures)
            self._note = note

    @property
    def trajectories(self) -> tuple[Trajectory, ...]:
        """The runs that are shown, each with the one sample."""
        return tuple(self._runs)

    @property
    def names(self) -> tuple[str, ...]:
        """What the runs are called."""
        return tuple(self._names)

    @property
    def current(self) -> tuple[Step, ...]:
        """The steps that are shown, one of each run."""
        steps = self._packed.steps[self.by][self.step]
        return tuple(run[int(step)] for run, step in zip(self._runs, steps, strict=True))

    @traitlets.validate("step")
    def _valid_step(self, proposal: dict[str, Any]) -> int:
        last = self._packed.header["steps"] - 1
        if not 0 <= proposal["value"] <= last:
            raise traitlets.TraitError(
                f"step must be between 0 and {last}, not {proposal['value']}: "
                f"the longest of these runs has {last + 1} steps, counted from 0"
            )
        return proposal["value"]

    @traitlets.validate("by")
    def _valid_by(self, proposal: dict[str, Any]) -> str:
        value = proposal["value"]
        if value not in ALIGNMENTS:
            known = " and ".join(map(repr, ALIGNMENTS))
            raise traitlets.TraitError(f"unknown alignment {value!r}; there are {known}")
        if value not in self._packed.steps:
            raise traitlets.TraitError(
                "these runs cannot be put together by noise level: one has no known signal-to-noise "
                'ratios; use by="step"'
            )
        return value

    @traitlets.validate("reference")
    def _valid_reference(self, proposal: dict[str, Any]) -> int:
        if not 0 <= proposal["value"] < len(self._runs):
            raise traitlets.TraitError(self._unknown_reference(proposal["value"]))
        return proposal["value"]

    def _unknown_reference(self, value: Any) -> str:
        listed = ", ".join(f"{k} ({name})" for k, name in enumerate(self._names))
        return f"reference must be the number of a run, not {value!r}; there are {listed}"

    @traitlets.validate("series")
    def _valid_series(self, proposal: dict[str, Any]) -> str:
        if proposal["value"] not in (self._known_series or [""]):
            known = ", ".join(map(repr, self._known_series)) or "none (nothing can be drawn)"
            raise traitlets.TraitError(
                f"unknown series {proposal['value']!r}; these runs have {known}"
            )
        return proposal["value"]

    @traitlets.validate("difference")
    def _valid_difference(self, proposal: dict[str, Any]) -> str:
        if proposal["value"] not in DIFFERENCES:
            known = ", ".join(map(repr, DIFFERENCES))
            raise traitlets.TraitError(
                f"unknown difference {proposal['value']!r}; there are {known}"
            )
        return proposal["value"]

    @traitlets.validate("channel")
    def _valid_channel(self, proposal: dict[str, Any]) -> int | str:
        value, channels = proposal["value"], max(self._packed.channels, 1)
        whole = isinstance(value, int) and not isinstance(value, bool)
        if value == "norm" or (whole and 0 <= value < channels):
            return value
        raise traitlets.TraitError(
            f"unknown channel {value!r}; these runs have 0 to {channels - 1} and 'norm'"
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
        header = self._packed.header
        words = header["alignments"][self.by]["words"][self.step]
        lines = [f"Comparison of {len(self._runs)} runs by {self.by}: {words}"]
        lines.append(f"  {header['told'][self.reference]}")
        tables = self._packed.distances[self.by]
        for k, name in enumerate(self._names):
            if k == self.reference:
                lines.append(f"  {k} {name}: the reference")
                continue
            apart = [
                f"{what} {table[self.reference, k, self.step]:.3g}"
                for what, table in tables.items()
                if not np.isnan(table[self.reference, k, self.step])
            ]
            told = f", distance of {', '.join(apart)}" if apart else ""
            lines.append(f"  {k} {name}: {header['partings'][self.reference][k]['words']}{told}")
        return "\n".join(lines)

    def still(self) -> bytes:
        """The runs as one still picture: a PNG with a row of predicted x0 for each run."""
        steps = self._packed.steps[self.by]
        told = self._packed.header["told"][self.reference]
        picture = still_comparison(self._runs, self._names, steps, self._title(), told)
        return encode_image(picture, "png")

    def _title(self) -> str:
        return self._packed.header["title"]


def _chosen(
    runs: Sequence[Trajectory], names: Sequence[str] | None, sample: int
) -> tuple[list[Trajectory], list[str]]:
    """The runs with the one sample, and their names; of a single run its samples."""
    runs = list(runs)
    for run in runs:
        check_trajectory(run, "the comparison")
    of_one = len(runs) == 1 and runs[0].batch_size > 1
    if of_one:
        runs = [runs[0].select(place) for place in range(runs[0].batch_size)]
    if not FEWEST <= len(runs) <= MOST:
        raise ValueError(
            f"a comparison takes {FEWEST} to {MOST} runs, not {len(runs)}; give them as "
            f"compare(run, other), or choose some of them"
        )
    for place, run in enumerate(runs):
        if not len(run):
            raise ValueError(
                f"run {place} has no step: nothing was recorded before it stopped; leave it out"
            )
        if not 0 <= sample < run.batch_size and not of_one:
            raise IndexError(
                f"sample {sample} is not in the batch of run {place}, which has {run.batch_size}"
            )
    if not of_one:
        runs = [run if run.batch_size == 1 else run.select(sample) for run in runs]
    if names is None:
        found = name_runs(runs)
        plain = [f"run {k}" for k in range(len(runs))]
        return runs, [
            f"sample {k}" for k in range(len(runs))
        ] if of_one and found == plain else found
    if isinstance(names, str) or len(names) != len(runs):
        given = 1 if isinstance(names, str) else len(names)
        raise ValueError(f"there must be a name for each of the {len(runs)} runs, not {given}")
    return runs, [str(name) for name in names]


def _known_series(packed: Any) -> list[str]:
    """What can be shown: pictures that a run has, and what has maps."""
    drawn = [run["pictures"] for run in packed.header["runs"]]
    known = [name for name in ("x0", "latents") if any(pictures[name] for pictures in drawn)]
    return known + [
        f"{name} maps" if name in ("x0", "latents") else name for name in packed.maps_of
    ]


def compare(
    *runs: Trajectory | Sequence[Trajectory],
    names: Sequence[str] | None = None,
    by: str = "step",
    reference: int = 0,
    sample: int = 0,
    step: int = 0,
    **traits: Any,
) -> Comparison:
    """Show two to six runs side by side, with their differences, under one cursor.

    Args:
        *runs: the runs, one by one or as a list. A single run with several samples is compared sample by sample.
        names: what they are called; by default what tells them apart, such as ``"seed 7"`` and ``"seed 8"``.
        by: ``"step"`` shows steps of the same number together, ``"noise"`` those nearest in noise level.
        reference: the run that the others are compared with.
        sample: position in every batch.
        step: where the cursor begins; negative ones are counted from the end.
        **traits: other traits of `Comparison`: ``series``, ``difference``, ``channel``, ``scale``, ``speed``,
            ``playing``.

    Returns:
        The widget. Its ``step``, ``by``, ``reference`` and ``series`` can be observed and set.

    Raises:
        TypeError: one of them is no trajectory, or an option is unknown.
        ValueError: there are too few or too many, one has no step, or there are not as many names.
        IndexError: a run's batch has no such sample.
        traitlets.TraitError: there is no such step, series, reference, alignment or channel.

    Example:
        >>> runs = [lv.record(pipe, prompt, seed=7, guidance_scale=g) for g in (1, 2.5, 6)]  # doctest: +SKIP
        >>> lv.compare(runs)  # doctest: +SKIP
    """
    given: Any = runs[0] if len(runs) == 1 and isinstance(runs[0], list | tuple) else runs
    if isinstance(step, int | np.integer) and not isinstance(step, bool):
        step = int(step)
        longest = max((len(run) for run in given if hasattr(run, "latents")), default=0)
        step += longest if -longest <= step < 0 else 0
    return Comparison(given, names, sample, by=by, reference=reference, step=step, **traits)
