"""Telling a guided prediction's branches apart by the numbers, not by their position.

Pipelines differ in which branch comes first, in whether the model is called once for all branches
or once for each, and in what they do with them. So a pair is called unconditional and conditional
only if it recombines to what the scheduler received, ``u + g (c - u)`` (classifier-free guidance,
Ho & Salimans, 2022, https://arxiv.org/abs/2207.12598), or to its negative, which some flow models
give.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Branches:
    """Branches by name, ``(steps, batch, *latent)`` each, and how they became the guided one."""

    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    note: str = ""


def tell_branches(
    outputs: Sequence[list[np.ndarray]],
    guided: np.ndarray,
    scale: float | None,
    epsilon: float,
    empty: Callable[[tuple[int, ...], Any], np.ndarray] = np.empty,
) -> Branches:
    """Names the branches of a run.

    Args:
        outputs: For each step the branches the model gave, in the order it gave them, each
            ``(batch, *latent)``.
        guided: ``(steps, batch, *latent)``, what the scheduler received.
        scale: The guidance scale asked for, where known: it decides which of two is the conditional
            one.
        epsilon: Spacing of the run's floating-point type at 1, to know how far rounding reaches.
        empty: Makes the arrays, of a shape and a type.
    """
    most = max(map(len, outputs), default=0)
    if most < 2:
        return Branches(note="the model was asked once a step: there is no second branch")
    stacked = [empty(guided.shape, guided.dtype) for _ in range(most)]
    for i, step in enumerate(outputs):
        for k, values in enumerate(stacked):
            values[i] = step[k] if k < len(step) else np.nan
    for sign in (1, -1) if most == 2 else ():
        order, weights = _order(outputs, guided, scale, epsilon, sign)
        if order is None:
            continue
        names = ("unconditional", "conditional")
        arrays = {name: stacked[k] for name, k in zip(names, order, strict=True)}
        lone = [i for i, step in enumerate(outputs) if len(step) == 1]
        for i in lone:  # guidance switched off: the one branch left is the conditional one
            arrays["unconditional"][i], arrays["conditional"][i] = np.nan, outputs[i][0]
        if sign < 0:
            for values in arrays.values():
                np.negative(values, out=values)
        turned = "; the model gives the negative of what is shown" if sign < 0 else ""
        return Branches(arrays, _describe(weights, lone) + turned)
    arrays = {f"branch {k}": stacked[k] for k in range(most)}
    return Branches(
        arrays, "the branches do not recombine as u + g (c - u), so they are not labelled"
    )


def _order(
    outputs: Sequence[list[np.ndarray]],
    guided: np.ndarray,
    scale: float | None,
    epsilon: float,
    sign: int,
) -> tuple[tuple[int, int] | None, list[float]]:
    """Positions of (unconditional, conditional), None if unclear; and g where it is known."""
    second_weights = []
    for step, target in zip(outputs, guided, strict=True):
        received = target if sign > 0 else -target
        if len(step) == 1 and np.array_equal(step[0], received, equal_nan=True):
            continue
        if len(step) == 2 and not np.isfinite(received).all():
            continue  # nothing can be told from it
        weight = _recombine(step[0], step[1], received, epsilon) if len(step) == 2 else None
        if weight is None:
            return None, []
        second_weights.append(weight)
    known = np.array([weight for weight in second_weights if np.isfinite(weight)])
    if scale is None:
        second = known >= 0.5
    else:
        second = np.abs(known - scale) <= np.abs(1 - known - scale)
    if second.all():
        return (0, 1), list(known)
    if not second.any():
        return (1, 0), list(1 - known)
    return None, []


def _recombine(
    first: np.ndarray, second: np.ndarray, received: np.ndarray, epsilon: float
) -> float | None:
    """The w of ``received = first + w (second - first)``: NaN if both are equal, None if none."""
    a, b, target = (x.astype(np.float64) for x in (first, second, received))
    difference = b - a
    power = float(np.vdot(difference, difference))
    weight = float(np.vdot(difference, target - a)) / power if power else 0.0
    # Each operation rounds by at most half a spacing of its result, in whichever order the
    # pipeline mixes: u + g (c - u), or g c + (1 - g) u.
    share = abs(weight) * np.abs(b) + (1 + abs(1 - weight)) * np.abs(a)
    rounding = 2 * epsilon * (2 * abs(weight) * np.abs(difference) + share + np.abs(target))
    if not np.all(np.abs(a + weight * difference - target) <= rounding):
        return None
    return weight if power else np.nan


def _describe(weights: list[float], lone: list[int]) -> str:
    if not weights:
        return "the two branches are equal"
    low, high = f"{min(weights):.3g}", f"{max(weights):.3g}"
    weight = low if low == high else f"{low} to {high}"
    text = f"guided = unconditional + {weight} × (conditional − unconditional)"
    return f"{text}; without guidance at {len(lone)} steps" if lone else text
