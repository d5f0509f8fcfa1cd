"""Arguments of a call, checked before it is made, where the pipeline's own message would not help."""

from __future__ import annotations

import inspect
import operator
from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher
from typing import Any

import diffusers
import torch

_LEGACY = ("callback", "callback_steps")  # taken through **kwargs, and still heeded by some

OWN = ("prompt", "seed", "frames", "keep", "progress", "on_step", "memory_budget", "folder")
"""What `record` takes besides a pipeline's own arguments."""

_SLIP = 0.9  # of two names: one is the other but for a letter
_ALIKE = 0.75  # of two words: one may be the other misspelt
_SHARED = 0.35  # of two names' words: one may be meant by the other


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


def check_names(pipe: Any, call: Iterable[str], own: Iterable[str] = OWN) -> None:
    """Refuses what the pipeline does not take: many have a ``**kwargs`` that swallows it silently.

    Args:
        pipe: The pipeline.
        call: The names given.
        own: Those that our own function takes besides, for what may be meant.

    Raises:
        TypeError: The pipeline takes no such argument.
    """
    parameters = inspect.signature(type(pipe).__call__).parameters
    if not {"prompt", "num_inference_steps"} <= set(parameters):
        return  # a pipeline that takes its inputs otherwise: it must judge itself
    known = [name for name in parameters if name not in ("self", "args", "kwargs")]
    for name in call:
        if name in known or name in _LEGACY:
            continue
        near = _nearest(name, [*known, *own])
        hint = f"did you mean {near}?" if near else f"it takes {', '.join(known)}."
        raise TypeError(f"{type(pipe).__name__} takes no argument {name!r}; {hint}")


def _nearest(name: str, known: Iterable[str]) -> str:
    """The known name that has most in common with another, words and letters; "" where none has enough."""
    found = []
    for other in known:
        words, letters = _shared_words(name, other), _likeness(name, other)
        if words >= _SHARED or letters >= _ALIKE:
            same = len(set(name.split("_")) & set(other.split("_")))
            found.append(((letters >= _SLIP, same, words + letters), other))
    return max(found, key=lambda pair: pair[0], default=(None, ""))[1]


def _shared_words(a: str, b: str) -> float:
    """The share of two names' words that are in both, 0 to 1, a misspelt one counting less."""
    first, second = a.split("_"), b.split("_")
    best = [max(_likeness(word, other) for other in second) for word in first]
    return 2 * sum(like for like in best if like >= _ALIKE) / (len(first) + len(second))


def _likeness(a: str, b: str) -> float:
    return SequenceMatcher(None, a, b).ratio()


def check_pictures(pipe: Any, call: Mapping[str, Any]) -> None:
    """Refuses a call without a picture of a pipeline whose UNet has image adapters, which cannot be.

    Args:
        pipe: The pipeline.
        call: All arguments of the call.

    Raises:
        TypeError: Neither a picture nor its vectors are given.
    """
    projection = getattr(getattr(pipe, "unet", None), "encoder_hid_proj", None)
    if getattr(projection, "image_projection_layers", None) is None:
        return
    names = {"ip_adapter_image", "ip_adapter_image_embeds"}
    names &= set(inspect.signature(type(pipe).__call__).parameters)
    if not names or any(call.get(name) is not None for name in names):
        return
    prompt = call.get("prompt")
    text = repr(prompt) if isinstance(prompt, str) and len(prompt) <= 60 else '"a star"'
    raise TypeError(
        f"This {type(pipe).__name__} has an image adapter (IP-Adapter), so each call needs a picture, and "
        "there is neither ip_adapter_image nor ip_adapter_image_embeds. Give ip_adapter_image=picture; or, "
        f"to draw from a text alone, **lv.condition(pipe, lv.text(pipe, {text})) in place of the prompt; "
        "or take a pipeline without the adapter: pipe.unload_ip_adapter(), or lv.load_tiny()."
    )


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
