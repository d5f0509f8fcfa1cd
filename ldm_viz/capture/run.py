"""One call of a pipeline, observed.

While the loop runs tensors are only cloned, on their device; whatever needs their values waits for
the end. Nothing that goes wrong in here reaches the pipeline: faults are collected, to be told.
"""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import DiffusionPipeline
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback

from ..trajectory import Trajectory
from . import predictions
from .calls import (
    DecoderCall,
    Step,
    decode_wrapper,
    frozen_generators,
    step_wrapper,
    wrap_model,
)
from .hooks import activated, definer, patched
from .loops import Event, Loop, assemble, memory_format, own_timesteps
from .settings import describe_call, picture_array
from .storage import Kept, Storage

CALLBACK = "callback_on_step_end"
CALLBACK_INPUTS = "callback_on_step_end_tensor_inputs"


@dataclass(frozen=True)
class LiveStep:
    """What an ``on_step`` function is given after each step.

    Attributes:
        step: 0-based position in the run.
        steps: How many there will be, or None where the pipeline does not say.
        timestep: The scheduler's time.
        latents: ``(batch, *latent)``, what the loop carries on with: a copy, on its device.
        x0: ``(batch, *latent)``, the predicted clean sample where the scheduler gives one, else
            None: a copy, on its device.
    """

    step: int
    steps: int | None
    timestep: Any
    latents: torch.Tensor
    x0: torch.Tensor | None


class Run:
    """Observes one call of a pipeline.

    Args:
        pipe: The pipeline.
        keep: What to keep, besides the latents: ``x0``, ``noise_prediction``, its ``branches``.
        on_step: Called with a :class:`LiveStep` after each step.
        storage: Where tensors wait.
        on_size: Called after the first step with a loop and the number of steps to come, or None.
    """

    def __init__(
        self,
        pipe: Any,
        keep: frozenset[str],
        on_step: Callable[[LiveStep], Any] | None,
        storage: Storage,
        on_size: Callable[[Loop, int | None], Any] | None = None,
    ) -> None:
        self.pipe = pipe
        self.keep = keep
        self.on_step = on_step
        self.storage = storage
        self.on_size = on_size
        self.loops: list[Loop] = []
        self.faults: list[str] = []
        self.stop_requested = False
        self._current: Loop | None = None
        self._pending: list[Kept] = []  # what the models gave since the last step
        self._models: set[int] = set()
        self._stepping = False
        self._decoding = False
        self._has_callback = False
        self._stages = [pipe, *(v for v in vars(pipe).values() if isinstance(v, DiffusionPipeline))]
        self._began = time.perf_counter()

    def owns(self, pipe: Any) -> bool:
        """Whether a pipeline called meanwhile is this one or a stage of it (a prior, a decoder)."""
        return any(stage is pipe for stage in self._stages)

    @contextmanager
    def guarded(self, doing: str) -> Iterator[None]:
        """Keeps a fault of ours from the user's run."""
        try:
            yield
        except Exception as error:  # noqa: BLE001  # whatever it is, the run must go on
            fault = f"{doing}: {type(error).__name__}: {error}"
            if fault not in self.faults:
                self.faults.append(fault)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Has every step and every call of the model pass by here, inside the block."""
        with ExitStack() as stack:
            with self.guarded("listening to the scheduler"):
                for scheduler in self._components(_is_scheduler):
                    owner = definer((scheduler, *type(scheduler).__mro__), "step")
                    stack.enter_context(patched(owner, "step", step_wrapper(scheduler, owner)))
            with self.guarded("listening to the model"):
                for module in self._components(_is_denoiser) if "branches" in self.keep else ():
                    stack.enter_context(patched(type(module), "__call__", wrap_model))
                    self._models.add(id(module))
            with self.guarded("listening to the decoder"):
                for vae in self._components(_is_decoder):
                    owner = definer((vae, *type(vae).__mro__), "decode")
                    stack.enter_context(patched(owner, "decode", decode_wrapper(vae, owner)))
            stack.enter_context(activated(self))
            stack.callback(self.storage.forget_originals)
            yield

    def _components(self, wanted: Callable[[Any], bool]) -> list[Any]:
        held = [value for stage in self._stages for value in vars(stage).values()]
        return list({id(value): value for value in held if wanted(value)}.values())

    def with_callback(
        self, call: Any, args: tuple, kwargs: dict[str, Any]
    ) -> tuple[tuple, dict[str, Any]]:
        """Adds a step callback of ours, around the user's own, to the arguments of a call.

        Args:
            call: The pipeline's ``__call__`` function.
            args: The user's arguments, without the pipeline.
            kwargs: The user's keyword arguments.

        Returns:
            Arguments and keyword arguments; those given where the pipeline takes no callback, or
            where it will refuse them anyway.
        """
        signature = inspect.signature(call)
        names = list(signature.parameters)
        if CALLBACK not in names or CALLBACK_INPUTS not in names:
            return args, kwargs
        try:
            given = signature.bind_partial(self.pipe, *args, **kwargs).arguments
        except TypeError:
            return args, kwargs
        theirs = given.get(CALLBACK)
        if isinstance(theirs, PipelineCallback | MultiPipelineCallbacks):
            asked = theirs.tensor_inputs  # the pipeline does the same
        else:
            asked = given.get(CALLBACK_INPUTS, signature.parameters[CALLBACK_INPUTS].default)
        if theirs is None and asked is None:
            asked = []
        if not isinstance(asked, list | tuple):
            return args, kwargs
        inputs = list(asked)
        if "latents" not in asked and "latents" in getattr(
            self.pipe, "_callback_tensor_inputs", ()
        ):
            inputs.append("latents")
        positional, named = list(args), dict(kwargs)
        ours = {CALLBACK: self._callback(theirs, "latents" in asked), CALLBACK_INPUTS: inputs}
        for name, value in ours.items():
            place = names.index(name) - 1  # without self
            if place < len(positional):
                positional[place] = value
            else:
                named[name] = value
        self._has_callback = True
        return tuple(positional), named

    def _callback(self, theirs: Any, latents_asked: bool) -> Callable[..., Any]:
        def on_step_end(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> Any:
            latents = tensors.get("latents")
            result: Any = {}
            if theirs is not None:
                if not latents_asked:
                    tensors.pop("latents", None)
                with activated(None):  # what the user runs in there is not this run
                    result = theirs(pipe, step, timestep, tensors)
            with self.guarded("reading the latents after a callback"):
                if hasattr(result, "get"):
                    latents = result.get("latents", latents)
                self._after_callback(latents)
            return result

        return on_step_end

    def _after_callback(self, latents: Any) -> None:
        loop = self._current
        if loop is None:
            return
        if isinstance(latents, torch.Tensor) and latents.shape == loop.shape:
            loop.carried = self.storage.keep(latents)
        self._after_step(loop)

    def _after_step(self, loop: Loop) -> None:
        if self.stop_requested:
            self.pipe._interrupt = True
        if self.on_step is None:
            return
        event, place = loop.events[-1], len(loop.events) - 1
        latents, x0 = loop.latents.tensor, event.x0
        live = LiveStep(
            place,
            self._expected_steps(loop),
            event.clock.timestep,
            latents,
            None if x0 is None else x0.tensor,
        )
        with self.guarded("on_step"), activated(None):
            self.on_step(live)

    def _expected_steps(self, loop: Loop) -> int | None:
        expected = getattr(self.pipe, "num_timesteps", None)
        if isinstance(expected, int):
            return expected
        return None if loop.timesteps is None else len(loop.timesteps)

    def observe_model(self, module: Any, output: Any) -> None:
        """Keeps what a model gave; it may come to be a branch of the next step's model output."""
        if id(module) not in self._models:  # the class may be another's too
            return
        with self.guarded("reading the model's output"):
            several = isinstance(output, tuple | list) or hasattr(output, "keys")
            value = output[0] if several else output
            if isinstance(value, torch.Tensor):
                self._pending.append(self.storage.keep(value))

    def observe_decode(
        self, vae: Any, decode: Callable[[], Any], args: tuple, kwargs: dict[str, Any]
    ) -> Any:
        """Calls a decoder and keeps what it was given after the loop.

        Args:
            vae: The autoencoder.
            decode: The call, with its arguments.
            args: Its arguments.
            kwargs: Its keyword arguments.

        Returns:
            What it returned, untouched.
        """
        if self._decoding or self._current is None:
            return decode()
        taken = None
        with self.guarded("reading what is decoded"):
            latents = args[0] if args else next(iter(kwargs.values()))
            more = {name: value for name, value in kwargs.items() if value is not latents}
            taken = latents.detach().clone(), frozen_generators(more)
        self._decoding = True
        try:
            output = decode()
        finally:
            self._decoding = False
        if taken is not None:
            with self.guarded("reading what was decoded"):
                pictures = output[0] if isinstance(output, tuple) else output.sample
                call = DecoderCall(vae, taken[0], args[1:], taken[1], tuple(pictures.shape))
                self._current.decoder_calls.append(call)
        return output

    def observe_step(self, scheduler: Any, step: Step, args: tuple, kwargs: dict[str, Any]) -> Any:
        """Calls a step and keeps what went in and came out.

        Args:
            scheduler: Whose step it is.
            step: The original.
            args: Its arguments, beginning with the scheduler unless it is bound.
            kwargs: Its keyword arguments.

        Returns:
            What it returned, untouched.
        """
        if self._stepping:  # a step that calls its base class's
            return step.function(*args, **kwargs)
        taken = None
        with self.guarded("reading a step's input"):
            taken = self._take_input(scheduler, *step.arguments(args, kwargs))
        self._stepping = True
        try:
            output = step.function(*args, **kwargs)
        finally:
            self._stepping = False
        if taken is not None:
            with self.guarded("reading a step's output"):
                self._add_event(taken, predictions.named_outputs(output, step.output_names))
        return output

    def _take_input(
        self, scheduler: Any, model_output: torch.Tensor, timestep: Any, sample: torch.Tensor
    ) -> _Input:
        self.storage.make_room()
        pending, self._pending = self._pending, []
        return _Input(
            scheduler=scheduler,
            model_output=self.storage.keep(model_output),
            timestep=timestep,
            sample=self.storage.keep(sample),
            shape=sample.shape,
            memory_format=memory_format(sample),
            branches=[output for output in pending if _may_hold_branches(output, model_output)],
            index=getattr(scheduler, "step_index", None),
            midpoint=predictions.read_midpoint(scheduler),
        )

    def _add_event(self, taken: _Input, outputs: dict[str, torch.Tensor]) -> None:
        scheduler = taken.scheduler
        given = [outputs[name] for name in predictions.X0_NAMES if outputs.get(name) is not None]
        index = taken.index
        if index is None:  # many set it only during their first step
            after = getattr(scheduler, "step_index", None)
            index = None if after is None else after - 1
        sigmas = getattr(scheduler, "sigmas", None)
        event = Event(
            sample=taken.sample,
            model_output=taken.model_output,
            branches=taken.branches,
            clock=predictions.Clock(taken.timestep, index, sigmas, taken.midpoint),
            output=self.storage.keep(outputs["prev_sample"]),
            x0=self.storage.keep(given[0]) if given and "x0" in self.keep else None,
            wall_time=time.perf_counter() - self._began,
        )
        loop = next((loop for loop in self.loops if loop.continues(scheduler, taken.shape)), None)
        if loop is None:
            loop = Loop(scheduler, taken.shape, own_timesteps(scheduler))
            self.loops.append(loop)
        loop.events.append(event)
        loop.carried, loop.memory_format = None, taken.memory_format
        loop.decoder_calls.clear()
        self._current = loop
        if len(loop.events) == 1 and self.on_size is not None:
            with self.guarded("estimating the size"):
                self.on_size(loop, self._expected_steps(loop))
        if not self._has_callback:
            self._after_step(loop)

    def trajectories(
        self,
        call: Any,
        args: tuple,
        kwargs: dict[str, Any],
        output: Any = None,
        error: BaseException | None = None,
    ) -> Iterator[tuple[Trajectory, Loop]]:
        """Makes a trajectory of each loop, without frames, and lets go of its tensors.

        Args:
            call: The pipeline's ``__call__`` function, which names the arguments.
            args: The user's arguments.
            kwargs: The user's keyword arguments.
            output: What the call returned, if it did.
            error: What it raised, if it did.
        """
        settings: dict[str, Any] = {}
        with self.guarded("reading the settings"):
            settings = describe_call(self.pipe, call, args, kwargs)
        several = len(self.loops) > 1
        for position, loop in enumerate(self.loops):
            own = settings | ({"loop": position, "loops": len(self.loops)} if several else {})
            images = None
            if loop is self.loops[-1]:
                with self.guarded("reading the pipeline's pictures"):
                    images = picture_array(output, own.get("output_type"), batch=loop.batch_size)
            if images is not None:
                own |= {"height": images.shape[1], "width": images.shape[2]}
            with self.guarded("making the trajectory"):
                status, why = self._status(loop, error)
                trajectory = assemble(
                    loop,
                    self.keep,
                    self.faults,
                    self.guarded,
                    self.storage,
                    settings=own,
                    images=images,
                    status=status,
                    error=why,
                )
                loop.events.clear()
                yield trajectory, loop

    def _status(self, loop: Loop, error: BaseException | None) -> tuple[str, str]:
        done, expected = len(loop.events), self._expected_steps(loop)
        if error is not None:
            said = f"{type(error).__name__}: {error}".rstrip(": ")
            status = "failed" if isinstance(error, Exception) else "interrupted"
            return status, f"{said} (after {done} steps)"
        if getattr(self.pipe, "_interrupt", False) and (expected is None or done < expected):
            return "interrupted", f"stopped after {done} of {expected or 'unknown'} steps"
        return "complete", ""


@dataclass(frozen=True)
class _Input:
    """What a step was given, and what the scheduler's clock showed before it."""

    scheduler: Any
    model_output: Kept
    timestep: Any
    sample: Kept
    shape: torch.Size
    memory_format: str
    branches: list[Kept]
    index: int | None
    midpoint: Any


def _is_scheduler(component: Any) -> bool:
    return callable(getattr(component, "step", None)) and hasattr(component, "set_timesteps")


def _is_denoiser(component: Any) -> bool:
    """A model of the loop: not an autoencoder, nor one of transformers' encoders and checkers."""
    return (
        isinstance(component, torch.nn.Module)
        and not hasattr(component, "decode")
        and not type(component).__module__.startswith("transformers.")
    )


def _is_decoder(component: Any) -> bool:
    """An autoencoder, not a tokenizer."""
    return isinstance(component, torch.nn.Module) and callable(getattr(component, "decode", None))


def _may_hold_branches(output: Kept, model_output: torch.Tensor) -> bool:
    """Whether a model's output has the shape of one or several of what the step was given."""
    return (
        len(output.shape) == model_output.ndim >= 2
        and output.shape[0] % model_output.shape[0] == 0
        and output.shape[1] >= model_output.shape[1]
        and output.shape[2:] == model_output.shape[2:]
    )
