"""One call of a pipeline, observed.

While the loop runs tensors are only cloned, on their device; whatever needs their values waits for
the end. Nothing that goes wrong in here reaches the pipeline: faults are collected, to be told.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback

from ..trajectory import Trajectory
from . import predictions
from .autoencoders import is_autoencoder, unwrapped
from .calls import (
    DecoderCall,
    Step,
    decode_wrapper,
    frozen_generators,
    may_hold_branches,
    step_name,
    step_wrapper,
    tensors_of,
    wrap_model,
)
from .hooks import activated, definer, patched
from .loops import Event, Loop, assemble, memory_format, own_timesteps
from .settings import describe_call
from .storage import Kept, Storage, to_array

CALLBACK = "callback_on_step_end"
CALLBACK_INPUTS = "callback_on_step_end_tensor_inputs"


class RunStopped(KeyboardInterrupt):
    """A run was ended by :meth:`Recorder.stop`, in a pipeline that knows no other way to be ended."""


@dataclass(frozen=True, repr=False, eq=False)
class LiveStep:
    """What an ``on_step`` function is given after each step.

    Attributes:
        step: 0-based position in the run.
        steps: How many there will be, or None where the pipeline does not say.
        timestep: The scheduler's time.
        latents: ``(batch, *latent)``, what the loop carries on with: a copy, on its device.
    """

    step: int
    steps: int | None
    timestep: Any
    latents: torch.Tensor
    _scheduler: Any
    _event: Event

    @functools.cached_property
    def x0(self) -> torch.Tensor | None:
        """``(batch, *latent)``, the predicted clean sample: a copy, on the latents' device.

        Where the scheduler gives none it is computed when it is first looked at; None where the
        rule is not known.
        """
        return self.predict_x0(slice(None))

    def predict_x0(self, samples: slice) -> torch.Tensor | None:
        """The predicted clean sample of a part of the batch, at the cost of that part.

        Args:
            samples: Which of the batch.
        """
        event = self._event
        if event.x0 is not None:
            return _tensor(event.x0)[samples]
        level, dtype = self._level, self.latents.dtype
        if level.token_scales is not None:
            level = dataclasses.replace(level, token_scales=level.token_scales[samples])
        sample, output = (_values(kept, samples) for kept in (event.sample, event.model_output))
        kind = predictions.prediction_type(self._scheduler, level)
        found = predictions.predict_x0(
            self._scheduler, kind, level, sample, output[:, : sample.shape[1]]
        )
        return None if found is None else torch.from_numpy(found).to(self.latents.device, dtype)

    @property
    def sigma(self) -> float:
        """Noise level of the sample that the step began with; nan where it is not known."""
        return self._level.sigma

    @property
    def snr(self) -> float:
        """Its signal-to-noise ratio, in power; nan where it is not known."""
        return self._level.snr

    @functools.cached_property
    def _level(self) -> predictions.NoiseLevel:
        return predictions.noise_level(self._scheduler, self._event.clock)

    def __repr__(self) -> str:
        timestep = predictions.as_number(self.timestep)
        return f"LiveStep {self.step} of {self.steps}, timestep {timestep:g}"


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
        self._stop_requested = False
        self._stopping = False  # asked for at the end of a step: there is to be no other
        self._returned = False
        self._can_interrupt = hasattr(type(pipe), "interrupt")
        self._current: Loop | None = None
        self._pending: list[tuple[type, Kept]] = []  # what the models gave for the next step
        self._stepped = False  # whether that step has been
        self._models: set[int] = set()
        self._unheeded: dict[type, int] = {}  # steps that a kind of model gave nothing to
        self._stepping = False
        self._decoding = False
        self._has_callback = False
        self._untold: Loop | None = None  # its last step has not reached on_step yet
        self._stages = [pipe, *(v for v in vars(pipe).values() if isinstance(v, DiffusionPipeline))]
        self._began = time.perf_counter()

    def stop(self) -> None:
        """Ends the run after the step it is in, or after its first; from any thread."""
        self._stop_requested = True
        if self._can_interrupt and self._current is not None:  # else there would be no step at all
            self.pipe._interrupt = True

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
                    name = step_name(scheduler)
                    owner = definer((scheduler, *type(scheduler).__mro__), name)
                    stack.enter_context(patched(owner, name, step_wrapper(scheduler, owner)))
            with self.guarded("listening to the model"):
                for module in self._components(_is_denoiser) if "branches" in self.keep else ():
                    stack.enter_context(patched(type(module), "__call__", wrap_model))
                    self._models.add(id(module))
            with self.guarded("listening to the decoder"):
                for vae in map(unwrapped, self._components(is_autoencoder)):
                    owner = definer((vae, *type(vae).__mro__), "decode")
                    stack.enter_context(patched(owner, "decode", decode_wrapper(vae, owner)))
            stack.enter_context(activated(self))
            stack.callback(self.storage.forget_originals)
            yield
            self._returned = True
            self._tell_untold()

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
                self.storage.forget_originals()
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

    def _tell_untold(self) -> None:
        """Tells of a step after which no callback came: that of a stage which was given none."""
        if self._untold is not None:
            self._after_step(self._untold)

    def _after_step(self, loop: Loop) -> None:
        self._untold = None
        if self.on_step is not None:
            live = LiveStep(
                len(loop.events) - 1,
                self._expected_steps(loop),
                loop.events[-1].clock.timestep,
                _tensor(loop.latents),
                loop.scheduler,
                loop.events[-1],
            )
            with self.guarded("on_step"), activated(None):
                self.on_step(live)
        if self._stop_requested and not self._returned:
            self._stop_after(loop)

    def _stop_after(self, loop: Loop) -> None:
        self._stopping = True
        done, expected = len(loop.events), self._expected_steps(loop)
        if self._can_interrupt:
            self.pipe._interrupt = True
        elif expected is None or done < expected:
            raise RunStopped(_stopped(done, expected))

    def _expected_steps(self, loop: Loop) -> int | None:
        own = loop.scheduler is getattr(self.pipe, "scheduler", None)
        expected = getattr(self.pipe, "num_timesteps", None) if own else None
        if isinstance(expected, int):
            return expected
        return None if loop.timesteps is None else len(loop.timesteps)

    def observe_model(self, module: Any, output: Any) -> None:
        """Keeps what a model gave; it may come to be a branch of the next step's model output."""
        kind = type(module)
        if id(module) not in self._models or self._unheeded.get(kind, 0) >= _ENOUGH:
            return
        with self.guarded("reading the model's output"):
            if self._stepped:  # several steps may follow one call: of video and of sound
                self._pending, self._stepped = [], False
            self._pending += [(kind, self.storage.keep(value)) for value in tensors_of(output)]

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
        if self._stopping and self._current is not None:  # nobody heeded it
            done = len(self._current.events)
            raise RunStopped(_stopped(done, self._expected_steps(self._current)))
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
        self,
        scheduler: Any,
        model_output: torch.Tensor,
        timestep: Any,
        sample: torch.Tensor,
        token_timesteps: Any,
    ) -> _Input:
        self._tell_untold()
        self.storage.make_room()
        self._stepped = True
        return _Input(
            scheduler=scheduler,
            model_output=self.storage.keep(model_output),
            timestep=timestep,
            sample=self.storage.keep(sample),
            shape=sample.shape,
            memory_format=memory_format(sample),
            branches=self._take_branches(model_output),
            asked=len(self._pending),
            index=getattr(scheduler, "step_index", None),
            midpoint=predictions.read_midpoint(scheduler),
            token_timesteps=token_timesteps,
        )

    def _take_branches(self, model_output: torch.Tensor) -> list[Kept]:
        """What could have become a step's model output: of the kind of model asked last."""
        fitting = [
            (kind, output)
            for kind, output in self._pending
            if may_hold_branches(output.shape, model_output)
        ]
        for kind in {kind for kind, _ in self._pending}:
            used = any(kind is other for other, _ in fitting)
            self._unheeded[kind] = 0 if used else self._unheeded.get(kind, 0) + 1
        return [output for kind, output in fitting if kind is fitting[-1][0]]

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
            asked=taken.asked,
            clock=predictions.Clock(
                taken.timestep, index, sigmas, taken.midpoint, taken.token_timesteps
            ),
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
        self._untold = loop
        if not self._has_callback:
            self._after_step(loop)

    def trajectories(
        self, call: Any, args: tuple, kwargs: dict[str, Any], error: BaseException | None = None
    ) -> Iterator[tuple[Trajectory, tuple[DecoderCall, ...]]]:
        """Makes a trajectory of each loop, without pictures, and lets go of its tensors.

        Args:
            call: The pipeline's ``__call__`` function, which names the arguments.
            args: The user's arguments.
            kwargs: The user's keyword arguments.
            error: What it raised, if it did.

        Yields:
            Each with what was decoded when it had ended, or when others had that took turns with it.
        """
        settings: dict[str, Any] = {}
        if not self.loops:  # and the arguments may be ones that the call refused
            return
        if self.storage.folder is None:
            with self.guarded("bringing tensors over"):
                self.storage.bring_over()
        with self.guarded("reading the settings"):
            settings = describe_call(self.pipe, call, args, kwargs)
        several = len(self.loops) > 1
        for position, loop in enumerate(self.loops):
            own = settings | ({"loop": position, "loops": len(self.loops)} if several else {})
            calls = loop.decoder_calls or [c for one in self.loops for c in one.decoder_calls]
            with self.guarded("making the trajectory"):
                status, why = self._status(loop, error)
                trajectory = assemble(
                    loop,
                    self.keep,
                    self.faults,
                    self.guarded,
                    self.storage,
                    settings=own,
                    status=status,
                    error=why,
                )
                loop.events.clear()
                yield trajectory, tuple(calls)

    def _status(self, loop: Loop, error: BaseException | None) -> tuple[str, str]:
        done, expected = len(loop.events), self._expected_steps(loop)
        before = loop is not self._current and expected is not None and done >= expected
        if isinstance(error, RunStopped) and not before:
            return "interrupted", _stopped(done, expected)
        if error is not None and not before:
            said = f"{type(error).__name__}: {error}".rstrip(": ")
            status = "failed" if isinstance(error, Exception) else "interrupted"
            return status, f"{said} (after {done} steps)"
        if getattr(self.pipe, "_interrupt", False) and (expected is None or done < expected):
            return "interrupted", _stopped(done, expected)
        return "complete", ""


def _stopped(done: int, expected: int | None) -> str:
    return f"stopped after {done} of {expected or 'unknown'} steps"


def _tensor(kept: Kept) -> torch.Tensor:
    """What was kept, as a tensor, though another thread may be bringing it over."""
    tensor = kept.tensor
    return torch.from_numpy(kept.array) if tensor is None else tensor


def _values(kept: Kept, samples: slice) -> np.ndarray:
    """A part of what was kept, brought over by itself."""
    return to_array(_tensor(kept)[samples])


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
    asked: int
    index: int | None
    midpoint: Any
    token_timesteps: Any


def _is_scheduler(component: Any) -> bool:
    step = getattr(component, step_name(component), None)
    return callable(step) and hasattr(component, "set_timesteps")


def _is_denoiser(component: Any) -> bool:
    """A model of the loop: not an autoencoder, nor one of transformers' encoders and checkers."""
    return (
        isinstance(component, torch.nn.Module)
        and not hasattr(component, "decode")
        and not type(component).__module__.startswith("transformers.")
    )


_ENOUGH = 2  # steps after which a model that gave nothing to them is left alone
