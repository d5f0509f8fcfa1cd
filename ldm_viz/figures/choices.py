"""What may be asked of a figure; errors name what was given and what there is."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ldm_viz.trajectory import Trajectory


def check_run(run: Any) -> Trajectory:
    """A trajectory with at least one step.

    Raises:
        TypeError: this is no trajectory.
        ValueError: it has no step.
    """
    if not isinstance(run, Trajectory):
        raise TypeError(
            f"a figure is made of a Trajectory, not {type(run).__name__}; record one with "
            "lv.record(pipe, prompt), or open a saved one with lv.open_trajectory(path)"
        )
    if not len(run):
        raise ValueError("this run has no step: nothing was recorded before it stopped")
    return run


def check_sample(run: Trajectory, sample: Any) -> int:
    """A position in the batch, negative ones counted from the end.

    Raises:
        TypeError: it is no integer.
        IndexError: there is no such sample.
    """
    index, size = _whole("sample", sample), run.batch_size
    if not -size <= index < size:
        raise IndexError(f"sample must be between 0 and {size - 1}, not {index}")
    return index % size


def check_steps(steps: Any, count: int) -> list[int]:
    """The steps to show, each once.

    Args:
        steps: None for all, a number for so many evenly apart (first and last among them), or the steps
            themselves, negative ones counted from the end.
        count: how many there are.

    Raises:
        TypeError: it is neither.
        ValueError: no step is asked for.
        IndexError: there is no such step.
    """
    if steps is None:
        return list(range(count))
    if isinstance(steps, Iterable) and not isinstance(steps, str | bytes):
        asked = [_whole("a step", step) for step in steps]
        if not asked:
            raise ValueError("steps is empty; name at least one step, such as steps=[0, 10]")
        for step in asked:
            if not -count <= step < count:
                raise IndexError(f"steps must be between 0 and {count - 1}, not {step}")
        return list(dict.fromkeys(step % count for step in asked))
    number = _whole("steps", steps, " or a list of integers")
    if number < 1:
        raise ValueError(f"steps must be at least 1, or a list of steps, not {number}")
    return spread(count, number)


def spread(count: int, number: int) -> list[int]:
    """At most ``number`` of ``count`` positions, evenly apart, first and last among them."""
    number = min(count, number)
    return np.floor(np.linspace(0, count - 1, number) + 0.5).astype(int).tolist()


def check_name(what: str, name: Any, known: Sequence[Any], whose: str = "there are") -> None:
    """Refuse a name that is not among the known ones.

    Raises:
        ValueError: it is not; the message lists those that are.
    """
    if name not in known or isinstance(name, bool):
        listed = ", ".join(map(repr, known)) or "none"
        raise ValueError(f"unknown {what} {name!r}; {whose} {listed}")


def _whole(what: str, value: Any, more: str = "") -> int:
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{what} must be an integer{more}, not {value!r}") from None
