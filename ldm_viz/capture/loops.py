"""The steps of a denoising loop, as tensors while it runs, and as a trajectory afterwards."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ..trajectory import Trajectory
from . import predictions
from .branches import Branches, tell_branches
from .calls import DecoderCall, without_ones
from .settings import describe_scheduler
from .storage import Kept, Storage


@dataclass
class Event:
    """One call of ``scheduler.step``."""

    sample: Kept
    model_output: Kept
    branches: list[Kept]
    asked: int
    clock: predictions.Clock
    output: Kept
    x0: Kept | None
    wall_time: float


@dataclass
class Loop:
    """The steps of one denoising loop, what it went on with after the last, and its decoding."""

    scheduler: Any
    shape: torch.Size
    timesteps: Any
    events: list[Event] = field(default_factory=list)
    carried: Kept | None = None
    memory_format: str = ""
    decoder_calls: list[DecoderCall] = field(default_factory=list)

    def continues(self, scheduler: Any, shape: torch.Size) -> bool:
        """Whether a step belongs to this loop, and not to one begun by ``set_timesteps``."""
        return (
            scheduler is self.scheduler
            and shape == self.shape
            and own_timesteps(scheduler) is self.timesteps
        )

    @property
    def latents(self) -> Kept:
        """What the loop went on with after its last step."""
        return self.events[-1].output if self.carried is None else self.carried

    @functools.cached_property
    def carried_twice(self) -> bool:
        """Whether the loop's batch holds every sample twice, with a model asked for a branch in each half.

        DiT does so: both halves receive the same guided prediction, so that they stay equal.
        """
        batch = self.shape[0]
        if batch % 2 or not all(len(event.branches) == 1 for event in self.events):
            return False
        for event in self.events:
            sample, guided, output = (
                kept.read() for kept in (event.sample, event.model_output, event.branches[0])
            )
            half = batch // 2
            if (
                len(output) != batch
                or not np.array_equal(sample[:half], sample[half:], equal_nan=True)
                or not np.array_equal(guided[:half], guided[half:], equal_nan=True)
                or np.array_equal(output[:half], output[half:], equal_nan=True)
            ):
                return False
        return True

    @property
    def batch_size(self) -> int:
        """Samples that are denoised."""
        return self.shape[0] // 2 if self.carried_twice else self.shape[0]


def own_timesteps(scheduler: Any) -> Any:
    """The timesteps a scheduler holds; None if it makes them anew at each look."""
    return vars(scheduler).get("timesteps")


def assemble(
    loop: Loop,
    keep: frozenset[str],
    faults: list[str],
    guarded: Any,
    storage: Storage,
    **fields: Any,
) -> Trajectory:
    """Makes a loop's trajectory, without frames.

    Args:
        loop: With at least one step.
        keep: What to keep of it.
        faults: What went wrong so far; noted in the settings.
        guarded: A context manager of one argument that turns an exception into one more fault.
        storage: Makes the arrays.
        **fields: Fields of the trajectory that the loop does not know: settings, images, status ...
    """
    events = loop.events
    settings: dict[str, Any] = fields.pop("settings", {})
    batch, channels = loop.batch_size, loop.shape[1]
    if loop.carried_twice:
        settings["batch_note"] = "the loop carries every sample twice, once for each branch"
    one = slice(batch)
    latents = storage.gather([event.sample for event in events] + [loop.latents], (one,))
    # A model that predicts the variance too has twice the channels; the first half is the
    # prediction.
    predicted = storage.gather([event.model_output for event in events], (one, slice(channels)))
    levels = [predictions.NOWHERE] * len(events)
    with guarded("reading the noise levels"):
        levels = [predictions.noise_level(loop.scheduler, event.clock) for event in events]
    kind = ""
    with guarded("reading the scheduler's settings"):
        kind = predictions.prediction_type(loop.scheduler, levels[0])
        settings |= describe_scheduler(loop.scheduler)
    settings |= {"noise_schedule": levels[0].family, "prediction_type": kind}
    settings |= _describe_tensor(loop)

    x0, x0_source = None, ""
    if "x0" in keep:
        with guarded("predicting x0"):
            x0, x0_source, note = _find_x0(loop, levels, kind, latents, predicted, storage)
            settings |= {"x0_note": note} if note else {}
    noise_prediction: dict[str, np.ndarray] = {}
    if "noise_prediction" in keep and predicted.shape[1:] != latents.shape[1:]:
        settings["guidance_note"] = (
            f"not kept: the steps received {predicted.shape[2:]} for samples of "
            f"{latents.shape[2:]}, as where a model scores tokens"
        )
    elif "noise_prediction" in keep:
        if "branches" in keep:
            with guarded("telling the branches apart"):
                told = _tell(loop, predicted, settings.get("guidance_scale"), storage)
                noise_prediction, settings["guidance_note"] = told.arrays, told.note
        noise_prediction["guided"] = predicted
    if faults:
        settings["recording_faults"] = list(faults)
    return Trajectory(
        latents=latents,
        timesteps=np.array([predictions.as_number(event.clock.timestep) for event in events]),
        sigmas=np.array([level.sigma for level in levels]),
        snrs=np.array([level.snr for level in levels]),
        x0=x0,
        x0_source=x0_source,
        noise_prediction=noise_prediction,
        step_outputs=_differing_outputs(loop, latents, storage, one),
        wall_times=np.array([event.wall_time for event in events]),
        settings=settings,
        **fields,
    )


def _differing_outputs(
    loop: Loop, latents: np.ndarray, storage: Storage, one: slice
) -> np.ndarray | None:
    """What the steps returned, or None where the loop went on with just that."""
    carried = [event.sample for event in loop.events[1:]] + [loop.latents]
    pairs = zip(loop.events, carried, latents[1:], strict=True)
    same = all(
        event.output is kept or np.array_equal(event.output.read()[one], then, equal_nan=True)
        for event, kept, then in pairs
    )
    return None if same else storage.gather([event.output for event in loop.events], (one,))


def _describe_tensor(loop: Loop) -> dict[str, str]:
    whole = loop.latents.whole
    described = {"dtype": str(whole).removeprefix("torch."), "device": loop.latents.device}
    return described | ({"memory_format": loop.memory_format} if loop.memory_format else {})


def memory_format(tensor: torch.Tensor) -> str:
    """How a tensor lies in memory, where that is not the usual way."""
    if (
        tensor.ndim == 4
        and not tensor.is_contiguous()
        and tensor.is_contiguous(memory_format=torch.channels_last)
    ):
        return "channels_last"
    return ""


def _find_x0(
    loop: Loop,
    levels: list[predictions.NoiseLevel],
    kind: str,
    latents: np.ndarray,
    predicted: np.ndarray,
    storage: Storage,
) -> tuple[np.ndarray | None, str, str]:
    """The clean sample at each step, where it comes from, and what there is to say about it."""
    limits = predictions.limits_of_x0(loop.scheduler)
    given = [event.x0 for event in loop.events if event.x0 is not None]
    if len(given) == len(loop.events):
        return storage.gather(given, (slice(latents.shape[1]),)), "scheduler", limits
    computed = storage.empty((len(levels), *latents.shape[1:]), latents.dtype)
    for place, level in enumerate(levels):
        sample, output = latents[place], predicted[place]
        x0 = predictions.predict_x0(loop.scheduler, kind, level, sample, output)
        if x0 is None:
            name = type(loop.scheduler).__name__
            why = f"noise schedule {level.family}, prediction type {kind!r}"
            return None, "", f"unknown: how samples of {name} relate to x0 ({why})"
        computed[place] = x0
    return computed, "computed", limits


class _Outputs(Sequence):
    """The branches the model gave at each step, read when they are asked for.

    Args:
        events: The steps.
        shape: ``(batch, *latent)`` of what each step received.
        trailing: Whether of an output with more on an axis the end is taken, not the beginning.
    """

    def __init__(self, events: list[Event], shape: tuple[int, ...], trailing: bool) -> None:
        self._events, self._shape, self._trailing = events, shape, trailing

    def __len__(self) -> int:
        return len(self._events)

    def __getitem__(self, step: Any) -> Any:
        return list(self._split(self._events[step]))

    def _split(self, event: Event) -> Iterator[np.ndarray]:
        batch = self._shape[0]
        for output in event.branches:
            values = output.read()
            values = values.reshape(without_ones(values.shape, len(self._shape)))
            values = values[(slice(None), *map(self._cut, values.shape[1:], self._shape[1:]))]
            for begin in range(0, len(values), batch):
                yield values[begin : begin + batch]

    def _cut(self, found: int, wanted: int) -> slice:
        return slice(found - wanted, None) if self._trailing else slice(wanted)


def _tell(loop: Loop, guided: np.ndarray, scale: Any, storage: Storage) -> Branches:
    asked = max(event.asked for event in loop.events)
    if asked and not any(event.branches for event in loop.events):
        return Branches(note="the model's outputs have another shape than what the steps received")
    spacing = torch.finfo(loop.events[0].model_output.whole).eps
    known = scale if isinstance(scale, int | float) else None
    shape = guided.shape[1:]
    cut = any(
        without_ones(output.shape, len(shape))[1:] != shape[1:]
        for event in loop.events
        for output in event.branches
    )
    found = [
        tell_branches(_Outputs(loop.events, shape, trailing), guided, known, spacing, storage.empty)
        for trailing in ((False, True) if cut else (False,))
    ]
    return next((told for told in found if "conditional" in told.arrays), found[0])
