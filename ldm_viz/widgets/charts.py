"""Statistics of a run as curves for the views."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ldm_viz.statistics import expected_std, latent_statistics, prediction_statistics

if TYPE_CHECKING:
    from ldm_viz.trajectory import Trajectory


def pack_charts(trajectory: Trajectory) -> tuple[bytes, list[dict[str, Any]]]:
    """Statistics as curves: float32 values, chart after chart, sample after sample, series after series.

    Returns:
        The values, and one header a chart: ``title``, ``hint``, ``kind`` (``channels``, ``band``, ``lines``), ``log``,
        ``series`` (labels), ``points`` (how many values a series has) and ``expected`` (whether the last of the
        series is what the schedule expects).
    """
    charts: list[dict[str, Any]] = []
    chunks: list[np.ndarray] = []
    batch, steps = trajectory.batch_size, len(trajectory)
    latents = [latent_statistics(trajectory, b) for b in range(batch)]
    predictions = [prediction_statistics(trajectory, b) for b in range(batch)]

    def add(
        title: str,
        hint: str,
        kind: str,
        labels: Sequence[str],
        curves: Iterator[Sequence[np.ndarray]],
        log: bool = False,
        expected: bool = False,
    ) -> None:
        stacked = np.array([list(sample) for sample in curves], dtype=np.float64)
        if not stacked.size or not np.isfinite(stacked).any():
            return
        with np.errstate(over="ignore"):
            chunks.append(stacked.astype("<f4").ravel())
        charts.append(
            {"title": title, "hint": hint, "kind": kind, "log": log}
            | {"series": list(labels), "points": stacked.shape[2], "expected": expected}
        )

    if latents:
        numbers = [str(c) for c in range(latents[0].mean.shape[1])]
        each = "a line each channel" if len(numbers) > 1 else "one channel"
        add("Latents: mean", each, "channels", numbers, (list(s.mean.T) for s in latents))
        awaited = expected_std(trajectory)
        known = bool(np.isfinite(awaited).any())
        add(
            "Latents: std",
            each + ("; dashed: what the schedule expects of data with variance 1" if known else ""),
            "channels",
            [*numbers, "expected"] if known else numbers,
            ([*s.std.T, awaited] if known else list(s.std.T) for s in latents),
            expected=known,
        )
        ends = ("min", "max")
        add("Latents: range", "", "band", ends, ((s.minimum, s.maximum) for s in latents))
        add("Latents: norm", "Euclidean", "lines", ["norm"], ((s.norm,) for s in latents))
        if any(s.nonfinite.any() for s in latents):
            hint = "NaN or infinite"
            add("Latents: bad values", hint, "lines", ["count"], ((s.nonfinite,) for s in latents))
    if predictions and predictions[0].between_branches is not None:
        add(
            "Guidance agreement",
            "cosine of unconditional and conditional",
            "lines",
            ["cosine"],
            ((p.between_branches,) for p in predictions if p.between_branches is not None),
        )
    if predictions and predictions[0].between_steps is not None:
        add(
            "Prediction and the one before",
            "cosine of this step's and the last step's",
            "lines",
            ["cosine"],
            ((p.between_steps,) for p in predictions if p.between_steps is not None),
        )
    if predictions and predictions[0].norms:
        name = "guided" if "guided" in predictions[0].norms else next(iter(predictions[0].norms))
        add(
            "Prediction: norm",
            f"Euclidean, {name}",
            "lines",
            ["norm"],
            ((p.norms[name],) for p in predictions),
        )
    snrs = np.where(trajectory.snrs > 0, trajectory.snrs, np.nan)
    if steps and np.isfinite(snrs).any():
        hint = "power, logarithmic"
        add("Signal to noise", hint, "lines", ["SNR"], ((snrs,) for _ in range(batch)), log=True)
    return (np.concatenate(chunks).tobytes() if chunks else b""), charts
