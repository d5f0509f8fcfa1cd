"""Runs side by side: which steps belong together, how far apart they are, and where they first part."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ldm_viz.statistics import expected_std, format_figure

if TYPE_CHECKING:
    from ldm_viz.trajectory import Trajectory

__all__ = [
    "ALIGNMENTS",
    "ROUNDING",
    "VISIBLE",
    "Parting",
    "align",
    "align_latents",
    "differences",
    "distances",
    "first_parting",
    "name_runs",
    "relative_distance",
    "setting_differences",
    "shared_quantities",
]

ALIGNMENTS = ("step", "noise")

ROUNDING = (
    1e-4  # relative distances below are what another order of additions makes of a float32 run
)
VISIBLE = 1e-3  # relative distances above are worth calling a parting where rounding came before

_SAME_LEVEL = 1e-3  # of the logarithm of the signal-to-noise ratio
_CLEAREST = 60.0  # stands for the logarithm of an infinite ratio, and its negative for that of 0

_LABELS = {
    "guidance_scale": "guidance",
    "num_inference_steps": "steps",
    "negative_prompt": "without",
}
_FIRST = ("prompt", "negative_prompt", "seed", "scheduler", "guidance_scale", "num_inference_steps")
_UNTOLD = {
    "part", "latent_layout", "batch_index", "num_images_per_prompt", "output_type", "noise_schedule",
}  # fmt: skip


def align(runs: Sequence[Trajectory], by: str = "step") -> np.ndarray:
    """Find the steps of several runs that belong together.

    Args:
        runs: the runs; each has a step at least.
        by: ``"step"`` puts equal steps together, a run that has ended stays at its last.
            ``"noise"`` goes through the steps of the longest run (the first of these) and takes of
            the others the step nearest in noise level, by the logarithm of the signal-to-noise
            ratio, which is the same measure in every family of schedules.

    Returns:
        Steps, shape ``(positions, runs)``, int64. There are as many positions as the longest run
        has steps. Where noise levels go one way in all runs, no column ever goes back.

    Raises:
        ValueError: a run has no step, or no known noise levels, or ``by`` is unknown.

    Example:
        >>> align([ten_steps, twenty_steps], by="noise")[-1]  # doctest: +SKIP
        array([ 9, 19])
    """
    if by not in ALIGNMENTS:
        raise ValueError(
            f"unknown alignment {by!r}; there are {' and '.join(map(repr, ALIGNMENTS))}"
        )
    lengths = [len(run) for run in runs]
    for place, length in enumerate(lengths):
        if not length:
            raise ValueError(
                f"run {place} has no step: nothing was recorded before it stopped; leave it out"
            )
    longest = int(np.argmax(lengths))
    positions = np.arange(lengths[longest])
    if by == "step":
        return np.minimum(positions[:, None], np.array(lengths) - 1)
    levels = [_noise_levels(run, place) for place, run in enumerate(runs)]
    return np.stack([_nearest(levels[longest], level) for level in levels], axis=1)


def _noise_levels(run: Trajectory, place: int) -> np.ndarray:
    """Logarithms of the signal-to-noise ratios, finite; unknown ones lie between their neighbours."""
    snrs = np.asarray(run.snrs, dtype=np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        levels = np.clip(np.log(snrs), -_CLEAREST, _CLEAREST)
    known = ~np.isnan(levels)
    if not known.any():
        raise ValueError(
            f"run {place} has no known noise levels (its snrs are NaN), so it cannot be aligned by "
            f'noise; use by="step"'
        )
    return np.interp(np.arange(len(levels)), np.flatnonzero(known), levels[known])


def _nearest(wanted: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """For each wanted level the step with the nearest; of several, the one as far along its run."""
    distance = np.abs(wanted[:, None] - levels[None, :])
    here = np.linspace(0, 1, len(wanted))[:, None] if len(wanted) > 1 else np.zeros((1, 1))
    there = np.linspace(0, 1, len(levels))[None, :] if len(levels) > 1 else np.zeros((1, 1))
    # Levels that are equal but for rounding are equal.
    tied = distance <= distance.min(axis=1, keepdims=True) + 1e-9
    return np.where(tied, np.abs(here - there), np.inf).argmin(axis=1)


def align_latents(runs: Sequence[Trajectory], sample: int = 0) -> list[np.ndarray]:
    """Latents of several runs in one scale.

    Where all runs are of one family of schedules, these are the latents as they are. Else each is divided
    by the standard deviation that its schedule expects, so that all are variance preserving.

    Args:
        runs: the runs.
        sample: position in the batch.

    Returns:
        Of each run ``(steps + 1, *latent)``; NaN where the scale is not known.
    """
    latents = [np.asarray(run.latents[:, sample]) for run in runs]
    families = {run.settings.get("noise_schedule") for run in runs}
    if len(families) < 2 or None in families:
        return latents
    scales = [expected_std(run).reshape(-1, *(1,) * (run.latents.ndim - 2)) for run in runs]
    return [
        values if (scale == 1).all() else (values / scale).astype(np.float32)
        for values, scale in zip(latents, scales, strict=True)
    ]


def shared_quantities(runs: Sequence[Trajectory]) -> list[str]:
    """What all runs have and can be compared in: ``"latents"``, ``"x0"`` and names of branches."""
    names = ["latents"]
    if all(run.x0 is not None for run in runs):
        names.append("x0")
    first, *others = (list(run.noise_prediction) for run in runs)
    shared = [name for name in first if all(name in other for other in others)]
    return names + sorted(shared, key=lambda name: name != "guided")


def _quantities(runs: Sequence[Trajectory], what: str, sample: int) -> list[np.ndarray]:
    """One quantity of each run, ``(steps, *latent)``."""
    if what == "latents":
        return [values[:-1] for values in align_latents(runs, sample)]
    if what == "x0" and all(run.x0 is not None for run in runs):
        return [np.asarray(run.x0[:, sample]) for run in runs]  # type: ignore[index]
    if all(what in run.noise_prediction for run in runs):
        return [np.asarray(run.noise_prediction[what][:, sample]) for run in runs]
    known = ", ".join(map(repr, shared_quantities(runs)))
    raise ValueError(f"these runs cannot be compared in {what!r}; they share {known}")


def _check_shapes(runs: Sequence[Trajectory]) -> None:
    shapes = [run.latent_shape for run in runs]
    if len(set(shapes)) > 1:
        told = " and ".join("×".join(map(str, shape)) for shape in dict.fromkeys(shapes))
        raise ValueError(
            f"latents of shapes {told} cannot be subtracted; compare the runs' pictures, or record "
            f"them with one height and width"
        )


def differences(
    run: Trajectory, reference: Trajectory, what: str = "latents", by: str = "step", sample: int = 0
) -> np.ndarray:
    """A run minus a reference, at the steps that belong together.

    Args:
        run: the run.
        reference: what is subtracted.
        what: ``"latents"`` (in one scale, see `align_latents`), ``"x0"`` or a noise prediction's branch.
        by: as for `align`.
        sample: position in the batch.

    Returns:
        Shape ``(positions, *latent)``, float32. Exactly 0 where both hold the same, also where both are
        NaN or the same infinity.

    Raises:
        ValueError: the latents' shapes differ, or one of the runs does not have this quantity.

    Example:
        >>> differences(guided_more, guided_less, "x0").std(axis=(1, 2, 3))  # doctest: +SKIP
    """
    _check_shapes([run, reference])
    steps = align([run, reference], by)
    one, other = _quantities([run, reference], what, sample)
    return subtract(one[steps[:, 0]], other[steps[:, 1]])


def subtract(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """``one − other`` as float32, 0 where they are the same, whatever they are."""
    with np.errstate(invalid="ignore", over="ignore"):
        result = np.subtract(one, other, dtype=np.float32)
    odd = ~np.isfinite(result)
    if odd.any():
        result[odd & ((one == other) | (np.isnan(one) & np.isnan(other)))] = 0
    return result


def distances(
    a: Trajectory, b: Trajectory, by: str = "step", sample: int = 0
) -> dict[str, np.ndarray]:
    """How far two runs are apart at each step.

    Args:
        a: one run.
        b: the other.
        by: as for `align`.
        sample: position in the batch.

    Returns:
        By quantity (``"latents"``, ``"x0"``, branches that both have) the relative distance of
        `relative_distance` at each position, shape ``(positions,)``, float64.

    Raises:
        ValueError: the latents' shapes differ.

    Example:
        >>> distances(seed_7, seed_8)["latents"][0]  # doctest: +SKIP
        1.41
    """
    _check_shapes([a, b])
    steps = align([a, b], by)
    found = {}
    for what in shared_quantities([a, b]):
        one, other = _quantities([a, b], what, sample)
        found[what] = np.array([relative_distance(one[i], other[j]) for i, j in steps])
    return found


def relative_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Euclidean distance, divided by the root mean square of the two norms.

    It is 0 for equal arrays, about √2 for independent noise and 2 for opposites. NaN counts as equal to NaN; where
    only one of the two is finite, the distance is infinite.
    """
    one, other = (np.asarray(v, dtype=np.float32).ravel() for v in (a, b))
    finite = np.isfinite(one) & np.isfinite(other)
    if not finite.all():
        bad = ~finite
        if not ((one == other) | (np.isnan(one) & np.isnan(other)))[bad].all():
            return math.inf
        one, other = one[finite], other[finite]
    # Scaled to at most 1, so that no square leaves the range of the numbers.
    top = max(np.abs(one).max(initial=0), np.abs(other).max(initial=0))
    if top == 0:
        return 0.0
    one, other = one / top, other / top
    apart = one - other
    size = math.sqrt((float(np.dot(one, one)) + float(np.dot(other, other))) / 2)
    return math.sqrt(float(np.dot(apart, apart))) / size


@dataclass(frozen=True)
class Parting:
    """Where two runs first differ.

    What comes first in a step is looked at first: the latents it begins with, its noise level, the noise predictions,
    x0, the latents it leaves behind.

    Attributes:
        step: the first step at which they differ; None where they never do.
        what: ``"initial latents"``, ``"noise level"``, a branch of the noise prediction, ``"x0"``,
            ``"next latents"``, ``"end"`` (one run has ended, the other goes on), ``"latent shape"``, or ``""``.
        distance: relative distance of what differs first; of noise levels, that of the logarithms of the SNRs.
        settings: settings that differ, with the values of both.
        scale: how many times as large the second run's initial latents are, where they are the first's otherwise.
        tolerance: relative distance up to which they counted as equal.
        runs: which two of the runs these are.
    """

    step: int | None
    what: str
    distance: float
    settings: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    scale: float = 1.0
    tolerance: float = 0.0
    runs: tuple[int, int] = (0, 1)

    @property
    def where(self) -> str:
        """The place in words: ``step 3, guided prediction``."""
        if self.step is None:
            return "nowhere"
        if self.what in ("initial latents", "latent shape"):
            return f"from the start, {self.what}"
        return f"step {self.step}, {part_words(self.what)}"

    def __str__(self) -> str:
        causes = "; ".join(setting_words(name, v) for name, v in list(self.settings.items())[:4])
        told = f" They differ in: {causes}." if causes else ""
        if self.step is None:
            alike = "bit-identical" if not self.tolerance else f"alike to {self.tolerance:g}"
            scaled = f", apart from the scale ×{format_figure(self.scale)}" * (self.scale != 1)
            return f"The runs are {alike} throughout{scaled}.{told}"
        if self.what == "latent shape":
            return f"The runs' latents have different shapes.{told}"
        if self.what == "initial latents":
            return f"The runs differ from the start: other initial latents.{told}"
        same = "the same latents"
        if self.scale != 1:
            same += f" (scaled by {format_figure(self.scale)})"
        if self.what == "end":
            return f"The runs begin with {same} and are alike until one ends after step {self.step - 1}.{told}"
        return f"The runs begin with {same} and part at step {self.step}: {part_words(self.what)}.{told}"


def part_words(what: str) -> str:
    """A part of a step in words, such as ``"guided prediction"``."""
    plain = ("initial latents", "noise level", "next latents", "latent shape", "latents", "x0")
    if what == "end":
        return "one run has ended"
    return what if what in plain else f"{what} prediction"


def first_parting(runs: Sequence[Trajectory], tolerance: float = 0.0, sample: int = 0) -> Parting:
    """Find the first step at which runs differ, and in what.

    Each is compared with the first run, step by step; the earliest parting counts.

    Args:
        runs: two runs or more.
        tolerance: relative distance (see `relative_distance`) up to which two arrays count as equal. With 0
            every bit counts.
        sample: position in the batch.

    Raises:
        ValueError: there are fewer than two runs.

    Example:
        >>> print(first_parting([run, guided_more]))  # doctest: +SKIP
        The runs begin with the same latents and part at step 0: guided prediction. They differ in: guidance 2.5 and 6.
    """
    if len(runs) < 2:
        raise ValueError(f"a parting is between two runs or more, not {len(runs)}")
    found = [
        _part(runs[0], run, tolerance, sample, (0, place)) for place, run in enumerate(runs[1:], 1)
    ]
    return min(found, key=lambda parting: math.inf if parting.step is None else parting.step)


def _part(
    a: Trajectory, b: Trajectory, tolerance: float, sample: int, runs: tuple[int, int]
) -> Parting:
    told: dict[str, Any] = {"settings": setting_differences([a, b]), "tolerance": tolerance}
    told["runs"] = runs
    if a.latent_shape != b.latent_shape:
        return Parting(0, "latent shape", math.nan, **told)
    one, other = align_latents([a, b], sample)
    if not _same(a.latents[0, sample], b.latents[0, sample], tolerance):
        told["scale"] = _proportion(a.latents[0, sample], b.latents[0, sample])
        if told["scale"] == 1:
            distance = relative_distance(one[0], other[0])
            return Parting(0, "initial latents", distance, **told)
    branches = [name for name in a.noise_prediction if name in b.noise_prediction]
    # Guidance makes "guided" of the others, whatever order they were recorded in.
    branches.sort(key=lambda name: name == "guided")
    for k in range(min(len(a), len(b))):
        apart = _levels_apart(a, b, k)
        if apart > max(_SAME_LEVEL, tolerance):
            return Parting(k, "noise level", apart, **told)
        pairs = [
            (n, a.noise_prediction[n][k, sample], b.noise_prediction[n][k, sample])
            for n in branches
        ]
        if a.x0 is not None and b.x0 is not None:
            pairs.append(("x0", a.x0[k, sample], b.x0[k, sample]))
        pairs.append(("next latents", one[k + 1], other[k + 1]))
        for what, left, right in pairs:
            if not _same(left, right, tolerance):
                return Parting(k, what, relative_distance(left, right), **told)
    if len(a) != len(b):
        return Parting(min(len(a), len(b)), "end", math.nan, **told)
    return Parting(None, "", 0.0, **told)


def _same(a: np.ndarray, b: np.ndarray, tolerance: float) -> bool:
    return np.array_equal(a, b, equal_nan=True) or (
        tolerance > 0 and relative_distance(a, b) <= tolerance
    )


def _proportion(a: np.ndarray, b: np.ndarray) -> float:
    """The factor that makes ``a`` to ``b``, but for rounding; 1 where there is none."""
    one, other = (np.asarray(v, dtype=np.float64).ravel() for v in (a, b))
    with np.errstate(all="ignore"):
        factor = float(np.dot(one, other) / np.dot(one, one))
    if not math.isfinite(factor) or factor <= 0:
        return 1.0
    return factor if relative_distance(one * factor, other) < 1e-5 else 1.0


def _levels_apart(a: Trajectory, b: Trajectory, step: int) -> float:
    """By how much the logarithms of two signal-to-noise ratios differ; of unknown ones, whether the times do."""
    snrs = np.array([a.snrs[step], b.snrs[step]])
    if np.isnan(snrs).any():
        times = a.timesteps[step], b.timesteps[step]
        return math.inf if times[0] != times[1] and not np.isnan(times).any() else 0.0
    with np.errstate(divide="ignore"):
        levels = np.clip(np.log(snrs), -_CLEAREST, _CLEAREST)
    return float(abs(levels[0] - levels[1]))


def setting_differences(runs: Sequence[Trajectory]) -> dict[str, tuple[Any, ...]]:
    """Settings in which runs differ, with each run's value (None where it has none).

    Nested settings are named ``scheduler_config.use_karras_sigmas``. Where schedulers are of different classes,
    their configurations are left out.
    """
    flat = [_flattened(run.settings) for run in runs]
    names = dict.fromkeys([*_FIRST, *(name for one in flat for name in one)])
    found = {}
    for name in names:
        values = tuple(one.get(name) for one in flat)
        if any(value != values[0] for value in values[1:]):
            found[name] = values
    if "scheduler" in found:
        found = {n: v for n, v in found.items() if not n.startswith("scheduler_config.")}
    return found


def _flattened(settings: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if name in _UNTOLD or name.endswith("_note"):
            continue
        if isinstance(value, Mapping):
            flat |= {f"{name}.{key}": item for key, item in value.items()}
        else:
            flat[name] = value
    return flat


def value_words(name: str, value: Any, limit: int = 60) -> str:
    """A setting's value as a few words, cut to a limit."""
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:g}"
    text = " ".join(str(value).split())
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    return f"“{text}”" if name in ("prompt", "negative_prompt") else text


def setting_words(name: str, values: Sequence[Any]) -> str:
    """A setting with the values that runs have of it: ``guidance 2.5 and 6``."""
    label = "" if name in ("prompt", "scheduler", "pipeline") else name.rsplit(".", 1)[-1]
    *told, last = dict.fromkeys(value_words(name, value) for value in values)
    listed = f"{', '.join(told)} and {last}" if told else last
    return f"{_LABELS.get(label, label)} {listed}".strip()


def name_runs(runs: Sequence[Trajectory]) -> list[str]:
    """Name runs by what tells them apart: ``seed 7``, ``guidance 2.5``, ``DDIMScheduler``, a prompt.

    Returns:
        A name each, none twice; ``run 0`` ... where nothing is different.
    """
    found = {n: v for n, v in setting_differences(runs).items() if not n.startswith("versions.")}
    chosen = [name for name in found if name in _FIRST][:3] or list(found)[:2]
    usual = {n: max(found[n], key=found[n].count) for n in chosen}
    places = range(len(runs))
    # Where several settings differ, those in which a run is like most are not worth a word.
    own = [[n for n in chosen if found[n][k] != usual[n]] or chosen for k in places]
    names = [", ".join(_name(n, found[n][k]) for n in own[k]) for k in places]
    if len(set(names)) < len(names):
        names = [", ".join(_name(n, found[n][k]) for n in chosen) for k in places]
    return [
        name if name and names.count(name) == 1 else f"run {k}: {name}" if name else f"run {k}"
        for k, name in enumerate(names)
    ]


def _name(setting: str, value: Any) -> str:
    if setting == "num_inference_steps" and value is not None:
        return f"{value} steps"
    if setting in ("prompt", "scheduler", "pipeline") and value:
        return " ".join(str(value).split())
    label = setting.rsplit(".", 1)[-1]
    return f"{_LABELS.get(label, label)} {value_words(setting, value)}"
