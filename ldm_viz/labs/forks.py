"""A pipeline of the same models that may draw while the first is at work."""

from __future__ import annotations

import copy
from typing import Any

__all__ = ["fork"]


def fork(pipe: Any) -> Any:
    """A pipeline with the same models, and schedulers and settings of its own.

    What a run changes is the schedulers' state and the pipeline's own attributes; models only read
    their weights. So a fork and the pipeline may draw at the same time, in two threads, and neither
    disturbs the other. Where models move between devices as they are called, they cannot be
    shared: then it is the pipeline itself.

    Args:
        pipe: a diffusers pipeline.
    """
    if _moves(pipe):
        return pipe
    other = copy.copy(pipe)
    for name, part in vars(pipe).items():
        if hasattr(part, "components") and callable(part):  # pipelines of pipelines (Kandinsky)
            vars(other)[name] = fork(part)
        elif hasattr(part, "set_timesteps"):
            vars(other)[name] = copy.deepcopy(part)
    return other


def _moves(pipe: Any) -> bool:
    """Whether accelerate brings models in and out around their calls."""
    if getattr(pipe, "_all_hooks", None):
        return True
    return any(hasattr(part, "_hf_hook") for part in vars(pipe).values())
