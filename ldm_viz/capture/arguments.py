"""Arguments of a call, checked before it is made, where the pipeline's own message would not help."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any

import diffusers
import torch

_LEGACY = ("callback", "callback_steps")  # taken through **kwargs, and still heeded by some


def check_pipeline(pipe: Any) -> None:
    """Refuses what is no diffusers pipeline.

    Raises:
        TypeError: It is none.
    """
    # One after the other: looking up ModularPipeline imports much.
    if isinstance(pipe, diffusers.DiffusionPipeline):
        return
    modular = getattr(diffusers, "ModularPipeline", None)
    if modular is not None and isinstance(pipe, modular):
        return
    found = f"the class {pipe.__name__}" if isinstance(pipe, type) else f"a {type(pipe).__name__}"
    raise TypeError(
        f"Expected a diffusers pipeline, got {found}. Load one with "
        "diffusers.DiffusionPipeline.from_pretrained(...) or ldm_viz.load_tiny()."
    )


def check_prompt(prompt: Any) -> None:
    """Refuses a prompt that is not text.

    Raises:
        TypeError: It is none.
    """
    if prompt is None or isinstance(prompt, str):
        return
    if isinstance(prompt, list) and prompt and all(isinstance(text, str) for text in prompt):
        return
    found = "an empty list" if prompt == [] else f"{prompt!r:.60}"
    raise TypeError(f"prompt must be text or a list of texts, not {found}.")


def check_names(pipe: Any, call: Iterable[str]) -> None:
    """Refuses what the pipeline does not take: many have a ``**kwargs`` that swallows it silently."""
    parameters = inspect.signature(type(pipe).__call__).parameters
    if not {"prompt", "num_inference_steps"} <= set(parameters):
        return  # a pipeline that takes its inputs otherwise: it must judge itself
    known = [name for name in parameters if name not in ("self", "args", "kwargs")]
    for name in call:
        if name in known or name in _LEGACY:
            continue
        parts = [n for n in known if name in n.split("_")]
        near = (parts or get_close_matches(name, known, 1) or [""])[0]
        hint = f"did you mean {near}?" if near else f"it takes {', '.join(known)}."
        raise TypeError(f"{type(pipe).__name__} takes no argument {name!r}; {hint}")


def check_weights(pipe: Any) -> None:
    """Refuses a pipeline whose weights were never loaded.

    Raises:
        ValueError: They were not.
    """
    for name, module in pipe.components.items():
        if not isinstance(module, torch.nn.Module):
            continue
        if any(hasattr(part, "_hf_hook") for part in module.modules()):
            continue  # offloaded: accelerate brings the weights when they are needed
        if any(parameter.is_meta for parameter in module.parameters()):
            raise ValueError(
                f"The pipeline's {name} ({type(module).__name__}) has no weights: it is on the "
                "meta device. Load it with from_pretrained, or by to_empty and load_state_dict."
            )


def checked_seed(seed: Any) -> int:
    """A seed as an integer.

    Raises:
        ValueError: It is none, or too large for a generator.
    """
    try:
        number = operator.index(seed)
    except TypeError:
        number = -(2**64)
    if isinstance(seed, bool) or not -(2**63) <= number < 2**64:
        raise ValueError(f"seed must be an integer of at most 64 bits, not {seed!r:.40}.")
    return number


def checked_steps(pipe: Any, steps: Any) -> int:
    """A number of steps as an integer.

    Raises:
        ValueError: It is none, or more than the scheduler was trained with.
    """
    limit = 1000
    config: Any = getattr(getattr(pipe, "scheduler", None), "config", None)
    if hasattr(config, "get"):
        limit = max(limit, config.get("num_train_timesteps") or 0)
    try:
        number = operator.index(steps)
    except TypeError:
        number = -1
    if isinstance(steps, bool) or not 1 <= number <= limit:
        raise ValueError(
            f"num_inference_steps must be a whole number from 1 to {limit}, the steps the "
            f"scheduler was trained with, not {steps!r:.40}."
        )
    return number
