"""A pipeline of the same models that may draw while the first is at work."""

from __future__ import annotations

import copy
from typing import Any

__all__ = ["fork"]


def fork(pipe: Any) -> Any:
    """A pipeline with the same models, and schedulers and settings of its own.

    What a run changes is the schedulers' state and the pipeline's own attributes; UNets, transformers
    and most autoencoders only read their weights. So a fork and the pipeline may draw at the same
    time, in two threads, and neither disturbs the other. Where models move between devices as they
    are called, or keep a cache, they cannot be shared: then it is the pipeline itself. (The video
    autoencoders of Wan and QwenImage keep a cache while they decode: of those, draw one at a time.)

    Args:
        pipe: a diffusers pipeline.
    """
    if _moves(pipe):
        return pipe
    other = copy.copy(pipe)
    for name, part in list(vars(pipe).items()):
        if hasattr(part, "components") and callable(part):  # pipelines of pipelines (Kandinsky)
            vars(other)[name] = fork(part)
        elif hasattr(part, "set_timesteps"):
            vars(other)[name] = copy.deepcopy(part)
    return other


def _moves(pipe: Any) -> bool:
    """Whether accelerate's or diffusers' hooks bring models in and out, or cache, around their calls."""
    if getattr(pipe, "_all_hooks", None):
        return True
    for part in list(vars(pipe).values()):
        modules = part.modules() if hasattr(part, "named_parameters") else ()
        if any(hasattr(m, "_hf_hook") or hasattr(m, "_diffusers_hook") for m in modules):
            return True
    return False
