"""The steps of a denoising loop, as tensors while it runs, and as a trajectory afterwards."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ..trajectory import Trajectory
from . import predictions
from .branches import Branches, tell_branches
from .settings import describe_scheduler


@dataclass
class Event:
    """One call of ``scheduler.step``; tensors are clones, on their device."""

    sample: torch.Tensor
    model_output: torch.Tensor
    branches: list[torch.Tensor]
    clock: predictions.Clock
    output: torch.Tensor
    x0: torch.Tensor | None
    wall_time: float


@dataclass
class Loop:
    """The steps of one denoising loop, and what it went on with after the last callback."""

    scheduler: Any
    shape: torch.Size
    timesteps: Any
    events: list[Event] = field(default_factory=list)
    carried: torch.Tensor | None = None

    def continues(self, scheduler: Any, sample: torch.Tensor) -> bool:
        """Whether a step belongs to this loop, and not to one begun by ``set_timesteps``."""
        return (
            scheduler is self.scheduler
            and sample.shape == self.shape
            and own_timesteps(scheduler) is self.timesteps
        )

    @property
    def latents(self) -> torch.Tensor:
        """What the loop went on with after its last step."""
        return self.events[-1].output if self.carried is None else self.carried


def own_timesteps(scheduler: Any) -> Any:
    """The timesteps a scheduler holds; None if it makes them anew at each look."""
    return vars(scheduler).get("timesteps")


def assemble(
    loop: Loop, keep: frozenset[str], faults: list[str], guarded: Any, **fields: Any
) -> Trajectory:
    """Makes a loop's trajectory, without frames.

    Args:
        loop: With at least one step.
        keep: What to keep of it.
        faults: What went wrong so far; noted in the settings.
        guarded: A context manager of one argument that turns an exception into one more fault.
        **fields: Fields of the trajectory that the loop does not know: settings, images, status ...
    """
    events = loop.events
    settings: dict[str, Any] = fields.pop("settings", {})
    latents = gather([event.sample for event in events] + [loop.latents])
    outputs = gather([event.output for event in events])
    # A model that predicts the variance too has twice the channels; the first half is the
    # prediction.
    predicted = gather([event.model_output[:, : loop.shape[1]] for event in events])
    levels = [predictions.NOWHERE] * len(events)
    with guarded("reading the noise levels"):
        levels = [predictions.noise_level(loop.scheduler, event.clock) for event in events]
    kind = ""
    with guarded("reading the scheduler's settings"):
        kind = predictions.prediction_type(loop.scheduler, levels[0])
        settings |= describe_scheduler(loop.scheduler)
    settings |= {"noise_schedule": levels[0].family, "prediction_type": kind}
    settings |= _describe_tensor(loop.latents)

    x0, x0_source = None, ""
    if "x0" in keep:
        with guarded("predicting x0"):
            x0, x0_source, note = _find_x0(loop, levels, kind, latents, predicted)
            settings |= {"x0_note": note} if note else {}
    noise_prediction: dict[str, np.ndarray] = {}
    if "noise_prediction" in keep and predicted.shape == outputs.shape:
        with guarded("telling the branches apart"):
            told = _tell(loop, predicted, settings.get("guidance_scale"))
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
        step_outputs=None if np.array_equal(outputs, latents[1:], equal_nan=True) else outputs,
        wall_times=np.array([event.wall_time for event in events]),
        settings=settings,
        **fields,
    )


def gather(tensors: list[torch.Tensor]) -> np.ndarray:
    """Tensors of one shape, stacked and brought over at once, as float16, float32 or float64."""
    dtype = functools.reduce(torch.promote_types, (tensor.dtype for tensor in tensors))
    stacked = torch.stack([tensor.to(dtype) for tensor in tensors]).contiguous()
    if dtype not in (torch.float16, torch.float32, torch.float64):
        stacked = stacked.float()  # numpy has no bfloat16
    return stacked.cpu().numpy()


def _describe_tensor(tensor: torch.Tensor) -> dict[str, str]:
    described = {"dtype": str(tensor.dtype).removeprefix("torch."), "device": str(tensor.device)}
    if (
        tensor.ndim == 4
        and not tensor.is_contiguous()
        and tensor.is_contiguous(memory_format=torch.channels_last)
    ):
        described["memory_format"] = "channels_last"
    return described


def _find_x0(
    loop: Loop,
    levels: list[predictions.NoiseLevel],
    kind: str,
    latents: np.ndarray,
    predicted: np.ndarray,
) -> tuple[np.ndarray | None, str, str]:
    """The clean sample at each step, where it comes from, and what there is to say about it."""
    limits = predictions.limits_of_x0(loop.scheduler)
    given = [event.x0 for event in loop.events if event.x0 is not None]
    if len(given) == len(loop.events):
        return gather(given), "scheduler", limits
    computed = []
    for level, sample, output in zip(levels, latents[:-1], predicted, strict=True):
        x0 = predictions.predict_x0(loop.scheduler, kind, level, sample, output)
        if x0 is None:
            name = type(loop.scheduler).__name__
            why = f"noise schedule {level.family}, prediction type {kind!r}"
            return None, "", f"unknown: how samples of {name} relate to x0 ({why})"
        computed.append(x0)
    return np.stack(computed), "computed", limits if "thresholding" in limits else ""


def _tell(loop: Loop, guided: np.ndarray, scale: Any) -> Branches:
    batch, channels = loop.shape[:2]
    outputs = [
        [
            gather(list(branch[:, :channels]))
            for output in event.branches
            for branch in output.split(batch)
        ]
        for event in loop.events
    ]
    spacing = torch.finfo(loop.events[0].model_output.dtype).eps
    known = scale if isinstance(scale, int | float) else None
    return tell_branches(outputs, guided, known, spacing)
