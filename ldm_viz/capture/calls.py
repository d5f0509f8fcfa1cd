"""What passes by during a run: calls of a scheduler's step, of the models, and of a decoder.

Each wrapper serves every run and every thread alike: it looks for the run that its thread is inside,
and otherwise calls straight through.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from . import predictions
from .hooks import active


@dataclass(frozen=True)
class Step:
    """A scheduler's original ``step``: a class's function, or what an instance was given."""

    function: Callable[..., Any]
    bound: bool
    places: dict[str, int]  # of its arguments by name
    output_names: tuple[str, ...]

    def arguments(self, args: tuple, kwargs: dict[str, Any]) -> tuple[Any, Any, Any, Any]:
        """Model output, timestep, sample, and the timesteps of its tokens or None.

        By name, or by place where it hides its names.
        """
        placed = args if self.bound else args[1:]

        def argument(place: int, *names: str) -> Any:
            for name in names:
                if name in kwargs:
                    return kwargs[name]
                if self.places.get(name, len(args)) < len(args):
                    return args[self.places[name]]
            return placed[place]

        tokens = self.places.get("per_token_timesteps", len(args))
        return (
            argument(0, "model_output"),
            argument(1, "timestep", "sigma_hat"),  # KarrasVe is told the noise level instead
            argument(2, "sample", "sample_hat"),
            args[tokens] if tokens < len(args) else kwargs.get("per_token_timesteps"),
        )


def step_name(scheduler: Any) -> str:
    """What a scheduler calls its step; score-based ones have a corrector beside it."""
    return "step" if hasattr(scheduler, "step") else "step_pred"


def step_wrapper(scheduler: Any, owner: Any) -> Callable[[Any], Any]:
    """What wraps the ``step`` that a class defines, or that this one scheduler was given."""
    bound = not isinstance(owner, type)

    def wrap(original: Any) -> Any:
        names = predictions.output_names(original)
        places = {name: n for n, name in enumerate(inspect.signature(original).parameters)}
        original_step = Step(original, bound, places, names)

        @functools.wraps(original)  # pipelines read the signature, to decide on eta and generator
        def step(*args: Any, **kwargs: Any) -> Any:
            run = active()
            if run is None:
                return original(*args, **kwargs)
            return run.observe_step(scheduler if bound else args[0], original_step, args, kwargs)

        return step

    return wrap


def wrap_model(original: Any) -> Any:
    """Wraps the ``__call__`` of a class of models.

    It stays outside of what ``torch.compile`` has compiled; a forward hook would be traced into it.
    """

    @functools.wraps(original)
    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:
        output = original(self, *args, **kwargs)
        run = active()
        if run is not None:
            run.observe_model(self, output)
        return output

    return __call__


@dataclass(frozen=True)
class DecoderCall:
    """One call of an autoencoder's ``decode``, by the pipeline, after its loop.

    Attributes:
        vae: The autoencoder.
        latents: What it was given, copied.
        args: Its other arguments.
        kwargs: Its keyword arguments; generators as they were before the call.
        shape: Shape of the pictures it returned.
    """

    vae: Any
    latents: torch.Tensor
    args: tuple
    kwargs: dict[str, Any]
    shape: tuple[int, ...]


def decode_wrapper(vae: Any, owner: Any) -> Callable[[Any], Any]:
    """What wraps the ``decode`` that a class defines, or that this one autoencoder was given."""
    bound = not isinstance(owner, type)

    def wrap(original: Any) -> Any:
        @functools.wraps(original)
        def decode(*args: Any, **kwargs: Any) -> Any:
            run = active()
            if run is None:
                return original(*args, **kwargs)
            who, given = (vae, args) if bound else (args[0], args[1:])
            return run.observe_decode(
                who, functools.partial(original, *args, **kwargs), given, kwargs
            )

        return decode

    return wrap


def frozen_generators(kwargs: dict[str, Any]) -> dict[str, Any]:
    """Arguments with copies of their generators, so that a later call draws the same numbers."""
    return {name: _copy_generator(value) for name, value in kwargs.items()}


def _copy_generator(value: Any) -> Any:
    if isinstance(value, list):
        return [_copy_generator(item) for item in value]
    if not isinstance(value, torch.Generator):
        return value
    copy = torch.Generator(value.device)
    copy.set_state(value.get_state())
    return copy


def tensors_of(output: Any) -> list[torch.Tensor]:
    """The tensors of a model's output; a list of one for each sample, as one."""
    if isinstance(output, torch.Tensor):
        return [output]
    members = output.values() if hasattr(output, "values") else output
    if not isinstance(output, tuple | list) and not hasattr(output, "values"):
        return []
    found = []
    for member in members:
        if isinstance(member, torch.Tensor):
            found.append(member)
        elif isinstance(member, list) and _are_alike(member):
            found.append(torch.stack(member))
    return found


def _are_alike(members: list[Any]) -> bool:
    return bool(members) and all(
        isinstance(member, torch.Tensor) and member.shape == members[0].shape for member in members
    )


def may_hold_branches(output: tuple[int, ...], model_output: torch.Tensor) -> bool:
    """Whether an output of this shape has that of one or several of what the step was given.

    Part of it may have been cut off: a predicted variance, a frame that is given.
    """
    wanted = tuple(model_output.shape)
    found = without_ones(output, len(wanted))
    return (
        len(found) == len(wanted) >= 2
        and found[0] % wanted[0] == 0
        and all(f >= w for f, w in zip(found[1:], wanted[1:], strict=True))
        and sum(f != w for f, w in zip(found[1:], wanted[1:], strict=True)) <= 1
    )


def without_ones(shape: tuple[int, ...], axes: int) -> tuple[int, ...]:
    """A shape with axes of size 1 left out, beginning with the last, until it has so many axes."""
    kept = list(shape)
    for place in range(len(kept) - 1, 0, -1):
        if len(kept) > axes and kept[place] == 1:
            del kept[place]
    return tuple(kept)
