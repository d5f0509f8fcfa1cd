"""Recording what a diffusers pipeline does, without changing it."""

from __future__ import annotations

import functools
import inspect
import operator
import threading
import warnings
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from difflib import get_close_matches
from typing import Any, Self

import diffusers
import torch

from ..trajectory import Trajectory
from .decoders import METHODS, decode_frames
from .hooks import activated, active, definer, patched
from .run import LiveStep, Run

KEEP = ("latents", "x0", "noise_prediction")


class RecordingError(RuntimeError):
    """A pipeline cannot be recorded as asked."""


class RecordingWarning(UserWarning):
    """Something could not be recorded; the pipeline's own run was not touched."""


class Recorder:
    """Records every call of a pipeline inside a ``with`` block, without changing its result.

    What the pipeline returns is the same, to the bit, as without a recorder.

    Args:
        pipe: A diffusers pipeline. Any other pipeline may share its modules, its scheduler's class
            or its own class.
        keep: What to keep: any of ``"latents"`` (always kept), ``"x0"`` and ``"noise_prediction"``.
        frames: How to decode the pictures of the steps when a call has returned: ``"exact"`` by the
            pipeline's own decoder, ``"linear"`` by a least-squares map (no waiting, coarse), None
            not at all. :meth:`decode` does it later.
        progress: Whether decoding shows a progress bar; None for as the pipeline's own bar is set.
        on_step: Called with a :class:`LiveStep` after each step, in the thread of the run. What it
            raises becomes a warning, and does not stop the run; :meth:`stop` does.

    Raises:
        TypeError: ``pipe`` is not a diffusers pipeline, or an argument has the wrong type.
        ValueError: An unknown name in ``keep`` or ``frames``.

    Example:
        >>> with ldm_viz.Recorder(pipe) as recorder:
        ...     image = pipe("a red star at night").images[0]
        >>> recorder.trajectory
    """

    def __init__(
        self,
        pipe: Any,
        *,
        keep: Iterable[str] = KEEP,
        frames: str | None = "exact",
        progress: bool | None = None,
        on_step: Callable[[LiveStep], Any] | None = None,
    ) -> None:
        _check_pipeline(pipe)
        names = [keep] if isinstance(keep, str) else list(keep)
        unknown = [name for name in names if name not in KEEP]
        if unknown:
            raise ValueError(
                f"keep may hold {', '.join(map(repr, KEEP))}; not {', '.join(map(repr, unknown))}."
            )
        if frames is not None and frames not in METHODS:
            raise ValueError(f"frames must be 'exact', 'linear' or None, not {frames!r}.")
        if on_step is not None and not callable(on_step):
            raise TypeError(f"on_step must be a function of a LiveStep, not {on_step!r}.")
        self.pipe = pipe
        self.trajectories: list[Trajectory] = []
        self._keep = frozenset(names)
        self._frames = frames
        self._progress = progress
        self._on_step = on_step
        self._runs: list[Run] = []
        self._stack: ExitStack | None = None

    @property
    def trajectory(self) -> Trajectory | None:
        """The last denoising loop recorded, None before the first; ``trajectories`` has all."""
        return self.trajectories[-1] if self.trajectories else None

    def __repr__(self) -> str:
        count = len(self.trajectories)
        runs = "1 run" if count == 1 else f"{count or 'no'} runs"
        return f"Recorder of {type(self.pipe).__name__}: {runs} recorded"

    def __enter__(self) -> Self:
        owner = definer(type(self.pipe).__mro__, "__call__")
        with ExitStack() as stack:
            with _lock:
                if id(self.pipe) in _recorders:
                    raise RecordingError(
                        f"This {type(self.pipe).__name__} is being recorded already. Use the "
                        "recorder there is, or leave its `with` block first."
                    )
                _recorders[id(self.pipe)] = self
            stack.callback(self._sign_off)
            stack.enter_context(patched(owner, "__call__", _wrap_call))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *raised: object) -> None:
        stack, self._stack = self._stack, None
        if stack is not None:
            stack.close()

    def _sign_off(self) -> None:
        with _lock:
            if _recorders.get(id(self.pipe)) is self:
                del _recorders[id(self.pipe)]

    def stop(self) -> None:
        """Ends the run in progress after its current step; the pipeline decodes what it has.

        May be called from any thread, or by ``on_step``.

        Raises:
            RecordingError: The pipeline has no way to be interrupted.
        """
        if not hasattr(type(self.pipe), "interrupt"):
            raise RecordingError(f"{type(self.pipe).__name__} cannot be interrupted.")
        for run in list(self._runs):
            run.stop_requested = True
            self.pipe._interrupt = True

    def decode(self, trajectory: Trajectory | None = None, frames: str = "exact") -> Trajectory:
        """Returns a trajectory with its frames decoded by this recorder's pipeline.

        Args:
            trajectory: Which; the last one recorded if not given, which is then replaced in
                ``trajectories``.
            frames: ``"exact"`` or ``"linear"``.

        Raises:
            ValueError: The latents do not belong to this pipeline's autoencoder.
            RecordingError: Nothing has been recorded.
        """
        which = self.trajectory if trajectory is None else trajectory
        if which is None:
            raise RecordingError("Nothing has been recorded yet.")
        decoded = decode_frames(self.pipe, which, frames, progress=self._shows_progress())
        self.trajectories = [decoded if t is which else t for t in self.trajectories]
        return decoded

    def _shows_progress(self) -> bool:
        if self._progress is not None:
            return self._progress
        return not getattr(self.pipe, "_progress_bar_config", {}).get("disable", False)

    def _record(self, call: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        """Calls the pipeline as the user did, and adds its trajectories."""
        run = Run(self.pipe, self._keep, self._on_step)
        passed, named = args, kwargs
        with run.guarded("adding a step callback"):
            passed, named = run.with_callback(call, args, kwargs)
        self._runs.append(run)
        try:
            with run.listening():
                output = call(self.pipe, *passed, **named)
        except BaseException as error:
            self.trajectories.extend(run.trajectories(call, args, kwargs, error=error))
            self._tell_faults(run)
            raise
        finally:
            self._runs.remove(run)
        begin = len(self.trajectories)
        self.trajectories.extend(run.trajectories(call, args, kwargs, output=output))
        for position in range(begin, len(self.trajectories)):
            self._add_frames(run, position)
        self._tell_faults(run)
        return output

    def _add_frames(self, run: Run, position: int) -> None:
        whole = self.trajectories[position]
        told = len(run.faults)
        if self._frames is not None:
            with run.guarded("decoding frames"):
                show = self._shows_progress()
                decoded = decode_frames(self.pipe, whole, self._frames, progress=show)
                self.trajectories[position] = decoded
        if len(run.faults) > told:
            settings = {**whole.settings, "recording_faults": list(run.faults)}
            self.trajectories[position] = whole.replace(settings=settings)

    def _tell_faults(self, run: Run) -> None:
        if run.faults:
            text = "Not all was recorded: " + "; ".join(run.faults)
            # Where warnings are errors, this one still must not reach the user's call.
            with run.guarded("warning"):
                warnings.warn(text, RecordingWarning, stacklevel=4)


def record(
    pipe: Any,
    prompt: str | list[str] | None = None,
    *,
    seed: int | None = None,
    frames: str | None = "exact",
    keep: Iterable[str] = KEEP,
    progress: bool = True,
    on_step: Callable[[LiveStep], Any] | None = None,
    **call: Any,
) -> Trajectory:
    """Runs a pipeline once and returns the recorded run.

    Args:
        pipe: A diffusers pipeline.
        prompt: What to draw; a list draws a batch. None where the pipeline takes something else
            (``prompt_embeds``).
        seed: Seeds a generator on the CPU, so that the run can be repeated anywhere: the same as
            passing ``generator=torch.Generator().manual_seed(seed)``.
        frames: How to decode a picture for each step; as for :class:`Recorder`.
        keep: What to keep; as for :class:`Recorder`.
        progress: Whether decoding shows a progress bar.
        on_step: Called after each step; as for :class:`Recorder`.
        **call: Anything else that the pipeline itself takes.

    Returns:
        The trajectory, its ``images`` being what the pipeline returned. Where there are several
        denoising loops, the last.

    Raises:
        TypeError: ``pipe`` is not a diffusers pipeline, the prompt not text, or the pipeline takes
            no argument of a name in ``call``.
        ValueError: The number of steps or the seed makes no sense, or the pipeline has no weights.
        RecordingError: The pipeline is being recorded already, or went through no step that could
            be recorded.
        BaseException: What the run itself raised, ``KeyboardInterrupt`` included; the steps so far
            are on it, as its ``trajectory``.

    Example:
        >>> trajectory = ldm_viz.record(pipe, "a red star at night", seed=7, num_inference_steps=20)
        >>> trajectory.save("star.safetensors")
    """
    _check_pipeline(pipe)
    _check_prompt(prompt)
    _check_names(pipe, call)
    _check_weights(pipe)
    own_schedule = call.get("timesteps") is not None or call.get("sigmas") is not None
    if "num_inference_steps" in call and not own_schedule:
        call["num_inference_steps"] = _checked_steps(pipe, call["num_inference_steps"])
    if seed is not None:
        if isinstance(seed, bool) or not isinstance(seed, int):
            raise ValueError(f"seed must be an integer, not {seed!r}.")
        if call.get("generator") is not None:
            raise ValueError("Give either seed or generator, not both.")
        call["generator"] = torch.Generator().manual_seed(seed)
    if prompt is not None:
        call["prompt"] = prompt
    recorder = Recorder(pipe, keep=keep, frames=frames, progress=progress, on_step=on_step)
    try:
        with recorder:
            pipe(**call)
    except BaseException as error:
        if recorder.trajectory is not None:
            _attach(error, recorder.trajectory)
        raise
    if recorder.trajectory is None:
        raise RecordingError(
            f"{type(pipe).__name__} returned without a step that could be recorded: nothing called "
            "scheduler.step with tensors."
        )
    return recorder.trajectory


def _attach(error: BaseException, trajectory: Trajectory) -> None:
    try:
        error.trajectory = trajectory  # type: ignore[attr-defined]
    except AttributeError:
        return
    steps = f"the {len(trajectory)} steps recorded so far"
    error.add_note(f"ldm_viz: {steps} are in this exception's `trajectory`.")


_LEGACY = ("callback", "callback_steps")  # taken through **kwargs, and still heeded by some

_lock = threading.Lock()
_recorders: dict[int, Recorder] = {}


def _wrap_call(original: Any) -> Any:
    @functools.wraps(original)
    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:
        run = active()
        if run is not None and run.owns(self):
            return original(self, *args, **kwargs)
        recorder = _recorders.get(id(self))
        if recorder is not None:
            return recorder._record(original, args, kwargs)
        if run is None:
            return original(self, *args, **kwargs)
        with activated(None):  # another pipeline, run inside this one's
            return original(self, *args, **kwargs)

    return __call__


def _check_pipeline(pipe: Any) -> None:
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


def _check_prompt(prompt: Any) -> None:
    if prompt is None or isinstance(prompt, str):
        return
    if isinstance(prompt, list) and prompt and all(isinstance(text, str) for text in prompt):
        return
    found = "an empty list" if prompt == [] else f"{prompt!r:.60}"
    raise TypeError(f"prompt must be text or a list of texts, not {found}.")


def _check_names(pipe: Any, call: Iterable[str]) -> None:
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


def _check_weights(pipe: Any) -> None:
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


def _checked_steps(pipe: Any, steps: Any) -> int:
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
