"""Several runs as the few compact bytes that the comparison draws from."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ldm_viz.comparison import (
    ROUNDING,
    VISIBLE,
    Parting,
    align,
    align_latents,
    first_parting,
    part_words,
    relative_distance,
    setting_differences,
    setting_words,
    subtract,
    value_words,
)
from ldm_viz.imaging import DIVERGING_DARK, DIVERGING_LIGHT, SEQUENTIAL
from ldm_viz.statistics import (
    channel_maps,
    format_figure,
    format_timestep,
    noise_words,
    step_words,
)
from ldm_viz.widgets.maps import area_mean, quantise
from ldm_viz.widgets.pictures import BUDGET, PictureFiles

if TYPE_CHECKING:
    from ldm_viz.trajectory import Trajectory

PICTURES_BUDGET = 1_800_000  # bytes of all runs' pictures together
MAPS_BUDGET = 3_700_000  # of all maps: six runs of 50 steps keep three stacks of 4 × 32 × 32
FINE_BUDGET = 1_200_000  # up to here a value gets 16 bits, else 8

_CORE = ("latents", "x0", "guided")  # quantities that are kept when there is no room for all
_CHARTED = {"latents": "sample", "x0": "predicted x0", "guided": "guided prediction"}


@dataclass(frozen=True)
class PackedComparison:
    """What goes over the wire; together it stays under 6 MB."""

    header: dict[str, Any]  # JSON values only
    pictures: list[PictureFiles]  # of each run
    maps: bytes  # unsigned integer codes, as in `pack_maps`
    charts: bytes  # float32, little-endian
    steps: dict[str, np.ndarray]  # by alignment, (positions, runs)
    distances: dict[
        str, dict[str, np.ndarray]
    ]  # by alignment and quantity, (runs, runs, positions)
    maps_of: list[str]  # quantities that have maps
    channels: int  # of the maps; 0 where there are none


def pack_comparison(
    runs: Sequence[Trajectory], names: Sequence[str], base: int
) -> PackedComparison:
    """Pack runs of one sample each.

    Args:
        runs: the runs, with a batch of 1 and a step at least.
        names: what they are called.
        base: the run whose maps are sent as they are; of the others the difference to it is sent, which is
            exact where it is 0 and fine where it is small.
    """
    notes: list[str] = []
    steps = {"step": align(runs, "step")}
    try:
        steps["noise"] = align(runs, "noise")
    except ValueError as error:
        notes.append(f"By noise level they cannot be put together: {error}.")
    latents = align_latents(runs)
    if any(
        a is not r.latents and (a != r.latents[:, 0]).any()
        for a, r in zip(latents, runs, strict=True)
    ):
        notes.append(
            "Their schedules keep samples in different scales: all are shown in the variance-preserving one."
        )
    distances = _all_distances(runs, latents, steps)
    maps, maps_header, maps_of = _pack_maps(runs, latents, steps, base, notes)
    charts, charts_header = _pack_charts(runs, names, latents, steps, distances)
    pictures = _pictures(runs, notes)
    pairs = _partings(runs)
    lasting = max(len(run) for run in runs)
    header = {
        "steps": lasting,
        "batch": len(steps) * len(runs),  # each alignment with each reference has its own curves
        "runs": [_describe(run, name, files) for run, name, files in zip(runs, names, pictures, strict=True)],
        "base": base,
        "alignments": {
            by: {
                "steps": found.tolist(),
                "words": _position_words(runs, found, by),
                "maps": "step" if by == "step" or _same_steps(steps) else by,
            }
            for by, found in steps.items()
        },
        "partings": [[pairs[min(i, k), max(i, k)].header if i != k else None for k in range(len(runs))] for i in range(len(runs))],
        "marks": [_mark(pairs, found, reference) for found in steps.values() for reference in range(len(runs))],
        "told": [_tell(runs, names, pairs, reference) for reference in range(len(runs))],
        "title": _title(runs),
        "facts": _facts(runs),
        "differing": [
            [name, [value_words(name, value, 400) for value in values]]
            for name, values in list(setting_differences(runs).items())[:40]
        ],
        "notes": notes,
        "prediction": str(runs[base].settings.get("prediction_type") or "")[:40],
        "maps": maps_header,
        "charts": charts_header,
        "colours": {
            "light": list(DIVERGING_LIGHT),
            "dark": list(DIVERGING_DARK),
            "sequential": list(SEQUENTIAL),
        },
    }  # fmt: skip
    channels = maps_header["shape"][0] if maps_header["stacks"] else 0
    return PackedComparison(header, pictures, maps, charts, steps, distances, maps_of, channels)


def _same_steps(steps: dict[str, np.ndarray]) -> bool:
    return "noise" not in steps or np.array_equal(steps["step"], steps["noise"])


def _pictures(runs: Sequence[Trajectory], notes: list[str]) -> list[PictureFiles]:
    """Each run's pictures, within what there is for all."""
    budget = min(BUDGET, PICTURES_BUDGET // (2 * len(runs)))
    pictures = [PictureFiles(run, budget) for run in runs]
    notes.extend(dict.fromkeys(note for files in pictures for note in files.notes))
    return pictures


def _describe(run: Trajectory, name: str, files: PictureFiles) -> dict[str, Any]:
    series = files.header
    clean = "x0" if "x0" in series else "images" if "images" in series else ""
    return {
        "name": name,
        "words": [_words(run, step) for step in range(len(run))],
        "status": "" if run.complete else ": ".join(t for t in (run.status, run.error[:400]) if t),
        "pictures": {"x0": clean, "latents": "latents" if "latents" in series else ""},
    }


def _words(run: Trajectory, step: int) -> str:
    parts = [f"step {step} of {len(run)}"]
    if not np.isnan(run.timesteps[step]):
        parts.append(f"t {format_timestep(run.timesteps[step])}")
    if not np.isnan(run.sigmas[step]):
        parts.append(f"σ {format_figure(run.sigmas[step])}")
    return " · ".join(parts)


def _position_words(runs: Sequence[Trajectory], steps: np.ndarray, by: str) -> list[str]:
    """Each position of the cursor in words: the noise level where it is that of all runs."""
    longest = int(np.argmax([len(run) for run in runs]))
    told = []
    for position, row in enumerate(steps):
        snrs = [float(run.snrs[step]) for run, step in zip(runs, row, strict=True)]
        snr = snrs[longest]
        if all(np.isclose(other, snr, rtol=1e-3) for other in snrs):
            told.append(step_words(runs[longest], position))
        elif by == "step":
            told.append(f"step {position} of {len(steps)}")
        else:
            level = f"SNR about {format_figure(snr)}: {noise_words(snr)}"
            told.append(f"noise level {position} of {len(steps)} · {level}")
    return told


def _title(runs: Sequence[Trajectory]) -> str:
    prompts = {str(run.settings.get("prompt") or "") for run in runs}
    prompt = prompts.pop() if len(prompts) == 1 else ""
    return prompt[:4000] or f"{len(runs)} runs"


def _facts(runs: Sequence[Trajectory]) -> list[str]:
    """What all runs share, of the settings worth a glance."""
    different = setting_differences(runs)
    facts = []
    for name in ("scheduler", "guidance_scale", "seed", "num_inference_steps", "pipeline"):
        value = runs[0].settings.get(name)
        if name in different or value is None:
            continue
        words = value_words(name, value)
        facts.append(
            f"{words} steps" if name == "num_inference_steps" else setting_words(name, [value])
        )
    return facts


@dataclass(frozen=True)
class _Pair:
    """Where two runs part to the bit, and where to the eye."""

    strict: Parting
    visible: Parting

    @property
    def words(self) -> str:
        if self.strict.step is None:
            return "bit-identical"
        if self.visible.step is None:
            return "the same but for rounding"
        what = self.visible.what
        if what == "initial latents":
            return "differs from the start"
        if what == "latent shape":
            return "latents of another shape"
        if what == "end":
            return f"the same until step {self.visible.step - 1}, where one ends"
        return f"parts at step {self.visible.step}: {part_words(what)}"

    @property
    def header(self) -> dict[str, Any]:
        return {"step": self.visible.step, "words": self.words}

    @property
    def sentence(self) -> str:
        if self.strict is self.visible:
            return str(self.strict)
        rounding = f"from {self.strict.where} on"
        if self.visible.step is None:
            scale = self.strict.scale
            scaled = f" (scaled by {format_figure(scale)})" if scale != 1 else ""
            return f"The runs begin with the same latents{scaled} and differ by rounding alone, {rounding}."
        return f"{str(self.visible).split(' They differ in')[0]} Before that they differ by rounding, {rounding}."


def _partings(runs: Sequence[Trajectory]) -> dict[tuple[int, int], _Pair]:
    pairs = {}
    for i, k in itertools.combinations(range(len(runs)), 2):
        strict = first_parting([runs[i], runs[k]])
        visible = strict
        if strict.step is not None and strict.distance < ROUNDING:
            visible = first_parting([runs[i], runs[k]], VISIBLE)
        pairs[i, k] = _Pair(strict, visible)
    return pairs


def _mark(pairs: dict[tuple[int, int], _Pair], steps: np.ndarray, reference: int) -> int:
    """The first position at which one of the runs has parted from the reference; −1 where none does."""
    found = []
    for (i, k), pair in pairs.items():
        step = pair.visible.step
        if reference not in (i, k) or step is None:
            continue
        parted = (steps[:, i] >= step) | (steps[:, k] >= step)
        found += [int(parted.argmax())] if parted.any() else []
    return min(found, default=-1)


def _tell(
    runs: Sequence[Trajectory],
    names: Sequence[str],
    pairs: dict[tuple[int, int], _Pair],
    reference: int,
) -> str:
    """In one or two sentences where the others part from the reference."""
    own = [pairs[min(reference, k), max(reference, k)] for k in range(len(runs)) if k != reference]
    told = own[0].sentence.split(" They differ in")[0]
    if len(runs) > 2:
        told = told.replace("The runs", "All runs", 1)
        if len({pair.words for pair in own}) > 1:
            told = f"Each parts from run {reference} at a place of its own, told below it."
    settings = setting_differences(runs)
    causes = "; ".join(setting_words(name, values) for name, values in list(settings.items())[:3])
    return f"{told} They differ in {causes}." if causes else told


def _all_distances(
    runs: Sequence[Trajectory], latents: list[np.ndarray], steps: dict[str, np.ndarray]
) -> dict[str, dict[str, np.ndarray]]:
    """Relative distances of every pair, by alignment and quantity; NaN where there is none."""
    quantities = {"latents": [values[:-1] for values in latents]}
    for what in ("x0", "guided"):
        quantities[what] = [_quantity(run, what) for run in runs]  # type: ignore[misc]
    found: dict[str, dict[str, np.ndarray]] = {}
    for by, rows in steps.items():
        if by == "noise" and _same_steps(steps):
            found[by] = found["step"]
            continue
        found[by] = {}
        for what, values in quantities.items():
            table = np.full((len(runs), len(runs), len(rows)), np.nan)
            for i, k in itertools.combinations(range(len(runs)), 2):
                a, b = values[i], values[k]
                if a is None or b is None or a.shape[1:] != b.shape[1:]:
                    continue
                table[i, k] = [relative_distance(a[r[i]], b[r[k]]) for r in rows]
                table[k, i] = table[i, k]
            if np.isfinite(table).any():
                found[by][what] = table
    return found


def _quantity(run: Trajectory, what: str) -> np.ndarray | None:
    values = run.x0 if what == "x0" else run.noise_prediction.get(what)
    return None if values is None else values[:, 0]


def _pack_charts(
    runs: Sequence[Trajectory],
    names: Sequence[str],
    latents: list[np.ndarray],
    steps: dict[str, np.ndarray],
    distances: dict[str, dict[str, np.ndarray]],
) -> tuple[bytes, list[dict[str, Any]]]:
    """Curves of all runs: float32, chart after chart, alignment after alignment, reference after reference."""
    charts: list[dict[str, Any]] = []
    chunks: list[np.ndarray] = []
    count = len(runs)

    def add(title: str, hint: str, curves: np.ndarray, log: bool = False) -> None:
        """Curves ``(alignments, references, runs, positions)``."""
        if not np.isfinite(curves).any():
            return
        with np.errstate(over="ignore"):
            chunks.append(curves.astype("<f4").ravel())
        charts.append(
            {"title": title, "hint": hint, "kind": "runs", "log": log, "series": list(names)}
            | {"points": curves.shape[-1], "expected": False, "zero": title.startswith("Distance")}
        )

    for what, label in _CHARTED.items():
        if what in distances["step"]:
            hint = (
                "relative Euclidean distance to the reference: 0 the same, √2 as unrelated as noise"
            )
            add(f"Distance: {label}", hint, np.stack([distances[by][what] for by in steps]))
    std = [_std(values[:-1]) for values in latents]
    snrs = [np.where(run.snrs > 0, run.snrs, np.nan) for run in runs]
    for title, hint, curves, log in (
        ("Sample: std", "over all channels", std, False),
        ("Signal to noise", "power, logarithmic", snrs, True),
    ):
        rows = [[curves[k][found[:, k]] for k in range(count)] for found in steps.values()]
        add(title, hint, np.repeat(np.array(rows)[:, None], count, axis=1), log)
    return (np.concatenate(chunks).tobytes() if chunks else b""), charts


def _std(latents: np.ndarray) -> np.ndarray:
    flat = np.asarray(latents, dtype=np.float64).reshape(len(latents), -1)
    with np.errstate(invalid="ignore", over="ignore"):
        return flat.std(axis=1)


def _pack_maps(
    runs: Sequence[Trajectory],
    latents: list[np.ndarray],
    steps: dict[str, np.ndarray],
    base: int,
    notes: list[str],
) -> tuple[bytes, dict[str, Any], list[str]]:
    """Maps as `pack_maps` codes them, one stack for each alignment, quantity and run.

    Stacks are named ``step:x0/0`` for a run's own values and ``step:x0/1-0`` for those of run 1 minus run 0. The
    base is coded, and each other run's difference to it; the rest are sums of these.
    """
    laid = _laid_out(runs, latents, base, notes)
    rows = {by: found for by, found in steps.items() if by == "step" or not _same_steps(steps)}
    empty = {"shape": [0, 0, 0], "bits": 8, "factor": 1, "steps": 0, "batch": 1, "stacks": []}
    if not laid:
        return b"", empty, []
    channels, height, width = next(
        v for maps in laid.values() for v in maps if v is not None
    ).shape[1:]
    positions = len(steps["step"])

    def size(factor: int) -> int:
        stacks = sum(values is not None for maps in laid.values() for values in maps) * len(rows)
        return stacks * positions * channels * -(-height // factor) * -(-width // factor)

    if size(1) > MAPS_BUDGET and any(name not in _CORE for name in laid) and "guided" in laid:
        laid = {name: maps for name, maps in laid.items() if name in _CORE}
        notes.append("To stay small, of the noise prediction only the guided one is here.")
    factor = 1
    while size(factor) > MAPS_BUDGET and factor < max(height, width):
        factor *= 2
    if factor > 1:
        notes.append(f"To stay small, maps show the mean of each {factor}×{factor} values.")
    bits = 16 if 2 * size(factor) <= FINE_BUDGET else 8
    chunks: list[bytes] = []
    stacks: list[dict[str, Any]] = []

    def code(name: str, values: list[np.ndarray]) -> None:
        # No value is left out of the scale, or sums would not know of it.
        coded = [quantise(area_mean(one, factor), bits, np.inf) for one in values]
        chunks.extend(codes.tobytes() for codes, _ in coded)
        stacks.append({"name": name, "scales": [[scale for _, scale in coded]]})

    for by, found in rows.items():
        for what, maps in laid.items():
            _code_quantity(f"{by}:{what}", maps, found, base, code, stacks)
    header = {"shape": [channels, -(-height // factor), -(-width // factor)], "bits": bits}
    header |= {"factor": factor, "steps": positions, "batch": 1, "stacks": stacks}
    return b"".join(chunks), header, list(laid)


def _code_quantity(
    name: str, maps: list[np.ndarray | None], steps: np.ndarray, base: int, code: Any, stacks: list
) -> None:
    """Code the base and the differences to it; name what follows from them as sums."""
    first = maps[base]
    plain = first is not None and bool(np.isfinite(first).all())
    if first is not None:
        code(f"{name}/{base}", [first[row[base]] for row in steps])
    others = {k: values for k, values in enumerate(maps) if values is not None and k != base}
    for k, values in others.items():
        if first is not None:
            apart = [subtract(values[row[k]], first[row[base]]) for row in steps]
            code(f"{name}/{k}-{base}", apart)
        if plain:
            stacks.append({"name": f"{name}/{k}", "sum": [f"{name}/{base}", f"{name}/{k}-{base}"]})
        else:
            code(f"{name}/{k}", [values[row[k]] for row in steps])
    for k, other in itertools.permutations(others, 2):
        ends = f"-{base}" if plain else ""
        terms = [f"{name}/{k}{ends}", f"{name}/{other}{ends}"]
        stacks.append({"name": f"{name}/{k}-{other}", "sum": terms, "sign": -1})


def _laid_out(
    runs: Sequence[Trajectory], latents: list[np.ndarray], base: int, notes: list[str]
) -> dict[str, list[np.ndarray | None]]:
    """By quantity each run's maps ``(steps, channels, h, w)``; None where a run has none of the base's shape."""
    names = dict.fromkeys(["latents", "x0", "guided"])
    names |= dict.fromkeys(name for run in runs for name in run.noise_prediction)
    laid: dict[str, list[np.ndarray | None]] = {}
    told: dict[str, None] = {}
    shape: tuple[int, ...] | None = None
    for what in names:
        maps: list[np.ndarray | None] = []
        for run, own in zip(runs, latents, strict=True):
            values = own[:-1] if what == "latents" else _quantity(run, what)
            if values is None:
                maps.append(None)
                continue
            found, note = channel_maps(values, run.latent_shape, run.settings)
            told |= {note: None} if note else {}
            maps.append(found if found is not None and found.size else None)
        known = [m for m in (maps[base], *maps) if m is not None]
        shape = shape or (known[0].shape[1:] if known else None)
        if any(m is not None and m.shape[1:] != shape for m in maps):
            told[
                "Latents of different shapes cannot be subtracted: only pictures are compared."
            ] = None
        maps = [m if m is not None and m.shape[1:] == shape else None for m in maps]
        if sum(m is not None for m in maps) > 1 or maps[base] is not None:
            laid[what] = maps
    notes.extend(told)
    return laid
