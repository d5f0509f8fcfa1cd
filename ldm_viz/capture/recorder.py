"""Recording what a diffusers pipeline does, without changing it."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from tqdm.auto import tqdm

from ..trajectory import Trajectory
from .arguments import (
    check_names,
    check_pictures,
    check_pipeline,
    check_prompt,
    check_weights,
    checked_seed,
    checked_steps,
)
from .calls import DecoderCall
from .estimates import KEEP, checked_keep, estimate_run
from .finding import find_decoding, holds_pixels, run_layout, why_not
from .frames import check_method, decode_frames
from .hooks import activated, active, definer, patched
from .loops import Loop
from .run import LiveStep, Run, RunStopped
from .scaling import Decoding
from .settings import picture_array
from .storage import MEMORY_BUDGET, Storage

_WORTH_TELLING = 256 << 20  # bytes


class RecordingError(RuntimeError):
    """A pipeline cannot be recorded as asked."""


class RecordingWarning(UserWarning):
    """Something could not be recorded; the pipeline's own run was not touched."""


class NonFiniteWarning(UserWarning):
    """The run itself gave values that are NaN or infinite."""


class Recorder:
    """Records every call of a pipeline inside a ``with`` block, without changing its result.

    What the pipeline returns is the same, to the bit, as without a recorder.

    Args:
        pipe: A diffusers pipeline. Any other pipeline may share its modules, its scheduler's class
            or its own class.
        keep: What to keep: any of ``"latents"`` (always kept), ``"x0"``, ``"noise_prediction"`` (all
            branches) and ``"guided"`` (of the noise predictions only what the scheduler received).
            :func:`estimate` tells how many bytes each takes; a recording of more than 256 MB tells
            at its first step.
        frames: How the pictures of the steps are decoded, each when it is looked at: ``"exact"`` by
            the pipeline's own decoder; ``"linear"`` by a least-squares map (at once, coarse); a
            small autoencoder such as diffusers' ``AutoencoderTiny``; a function of latents; None
            for none. :meth:`decode` does it later.
        progress: Whether decoding shows a progress bar; None for as the pipeline's own bar is set.
        on_step: Called with a :class:`LiveStep` after each step, in the thread of the run. What it
            raises becomes a warning, and does not stop the run; :meth:`stop` does.
        memory_budget: Bytes of tensors that may wait on an accelerator before those so far are
            brought over. With a folder, the same of the computer's own memory.
        folder: Where to keep the arrays instead of in memory, for long videos. Its files have no
            names, and vanish with the trajectory: save that to keep it.

    Raises:
        TypeError: ``pipe`` is not a diffusers pipeline, or an argument has the wrong type.
        ValueError: An unknown name in ``keep`` or ``frames``, or a budget that is no number of bytes.
        NotADirectoryError: ``folder`` is none.

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
        frames: Any = "exact",
        progress: bool | None = None,
        on_step: Callable[[LiveStep], Any] | None = None,
        memory_budget: int = MEMORY_BUDGET,
        folder: str | os.PathLike[str] | None = None,
    ) -> None:
        check_pipeline(pipe)
        names = checked_keep(keep)
        check_method(frames)
        if type(memory_budget) is not int or memory_budget < 0:
            raise ValueError(f"memory_budget must be a number of bytes, not {memory_budget!r}.")
        if folder is not None and not os.path.isdir(folder):
            raise NotADirectoryError(f"folder must be a folder that is there; {folder} is not.")
        check_on_step(on_step)
        self.pipe = pipe
        self.trajectories: list[Trajectory] = []
        self._keep = frozenset(names)
        self._memory_budget = memory_budget
        self._folder = None if folder is None else Path(folder)
        self._main = -1
        self._calls: list[Sequence[DecoderCall]] = []  # what was decoded at the end of each
        self._frames = frames
        self._progress = progress
        self._on_step = on_step
        self._runs: list[Run] = []
        self._stack: ExitStack | None = None
        self._thread: threading.Thread | None = None

    @property
    def trajectory(self) -> Trajectory | None:
        """The last recorded, None before the first; ``trajectories`` has all.

        Of a call with several denoising loops, the one that became the pictures.
        """
        return self.trajectories[self._main] if self.trajectories else None

    def __repr__(self) -> str:
        count = len(self.trajectories)
        runs = "1 run" if count == 1 else f"{count or 'no'} runs"
        return f"Recorder of {type(self.pipe).__name__}: {runs} recorded"

    def __enter__(self) -> Self:
        owner = definer(type(self.pipe).__mro__, "__call__")
        with ExitStack() as stack:
            with _lock:
                if id(self.pipe) in _recorders:
                    raise RecordingError(_recorders[id(self.pipe)]._refusal())
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

    def claim(self, thread: threading.Thread) -> None:
        """Has the pipeline to one thread: as long as it is recorded, calls from others are refused.

        Args:
            thread: Which may call the pipeline, such as that of a live run.
        """
        self._thread = thread

    def _refusal(self) -> str:
        name = type(self.pipe).__name__
        if self._thread is not None:
            return (
                f"This {name} is at work in a live run. Wait for it with run.wait(), or end it with "
                "run.stop(), then call it again."
            )
        return (
            f"This {name} is being recorded already. Use the recorder there is, or leave its `with` "
            "block first."
        )

    def stop(self) -> None:
        """Ends the run in progress after its current step, and keeps what there is of it.

        Most pipelines can be interrupted: they decode what they have and return it. The call of one
        that cannot raises :class:`RunStopped`, a ``KeyboardInterrupt``. Either way the trajectory's
        status is ``"interrupted"``.

        May be called from any thread, or by ``on_step``.
        """
        for run in list(self._runs):
            run.stop()

    def decode(self, trajectory: Trajectory | None = None, frames: Any = "exact") -> Trajectory:
        """Returns a trajectory with frames by this recorder's pipeline, each made when looked at.

        ``np.asarray(decoded.frames["x0"])`` makes all of a series, with a progress bar.

        Args:
            trajectory: Which; the last one recorded if not given, which is then replaced in
                ``trajectories``.
            frames: As for the recorder itself.

        Raises:
            ValueError: The latents do not belong to this pipeline's autoencoder.
            RecordingError: Nothing has been recorded.
        """
        which = self.trajectory if trajectory is None else trajectory
        if which is None:
            raise RecordingError("Nothing has been recorded yet.")
        place = next((i for i, t in enumerate(self.trajectories) if t is which), None)
        calls = () if place is None else self._calls[place]
        show = self._shows_progress()
        decoded = decode_frames(self.pipe, which, frames, progress=show, calls=calls)
        if place is not None:
            self.trajectories[place] = decoded
        return decoded

    def _shows_progress(self) -> bool:
        if self._progress is not None:
            return self._progress
        return not getattr(self.pipe, "_progress_bar_config", {}).get("disable", False)

    def _record(self, call: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
        """Calls the pipeline as the user did, and adds its trajectories."""
        if self._thread is not None and threading.current_thread() is not self._thread:
            raise RecordingError(self._refusal())
        keep = {"noise_prediction"} if "guided" in self._keep else set()
        if "noise_prediction" in self._keep:
            keep |= {"branches"}
        storage = Storage(self._memory_budget, self._folder)
        run = Run(self.pipe, self._keep | keep, self._on_step, storage, self._tell_size)
        passed, named = args, kwargs
        with run.guarded("adding a step callback"):
            passed, named = run.with_callback(call, args, kwargs)
        self._runs.append(run)
        try:
            with run.listening():
                output = call(self.pipe, *passed, **named)
        except BaseException as error:
            stopped = isinstance(error, RunStopped)
            self._add(run, run.trajectories(call, args, kwargs, error), shown=stopped)
            raise
        finally:
            self._runs.remove(run)
        self._add(run, run.trajectories(call, args, kwargs), output, shown=output is not None)
        if not run.loops and not run.faults:
            name = type(self.pipe).__name__
            with run.guarded("warning"):
                _warn(f"Nothing was recorded: {_NO_STEP.format(name)}", RecordingWarning)
        return output

    def _add(
        self,
        run: Run,
        made: Iterable[tuple[Trajectory, Sequence[DecoderCall]]],
        output: Any = None,
        *,
        shown: bool,
    ) -> None:
        """Adds trajectories, to be shown with the frames asked for or not; says what is amiss."""
        found: list[_Recorded] = []
        for trajectory, calls in made:
            pictured, decoding = trajectory, None
            with run.guarded("reading the pipeline's pictures"):
                pictured = _with_images(trajectory, output)
            with run.guarded("finding how the latents are decoded"):
                decoding = find_decoding(self.pipe, pictured, calls)
            found.append(_Recorded(trajectory, pictured, decoding, calls))
        # Of several loops, such as a prior's and a decoder's, one became the pictures.
        decoded = [i for i, one in enumerate(found) if one.decoding and one.decoding.calls]
        main = decoded[-1] if decoded else len(found) - 1
        for place, one in enumerate(found):
            self._calls.append(one.calls)
            self.trajectories.append(self._finished(run, one, place == main and shown))
        if found:
            self._main = len(self.trajectories) - len(found) + main
        self._tell_faults(run)

    def _finished(self, run: Run, recorded: _Recorded, shown: bool) -> Trajectory:
        """A trajectory with its layout and, if it became the pictures, those and frames."""
        trajectory = recorded.shown if shown else recorded.trajectory
        with run.guarded("noting the layout of the latents"):
            trajectory = _with_layout(trajectory, recorded.decoding)
        shown &= self._frames is not None
        if shown and self._can_decode(trajectory, recorded.decoding):
            with run.guarded("decoding frames"):
                show = self._shows_progress()
                trajectory = decode_frames(
                    self.pipe,
                    trajectory,
                    self._frames,
                    progress=show,
                    calls=recorded.calls,
                    decoding=recorded.decoding,
                )
        elif shown:
            with run.guarded("saying why there are no frames"):
                note = {"frames_note": why_not(self.pipe, trajectory)}
                trajectory = trajectory.replace(settings={**trajectory.settings, **note})
        with run.guarded("looking for values that are not finite"):
            _tell_nonfinite(trajectory)
        if run.faults and trajectory.settings.get("recording_faults") != run.faults:
            settings = {**trajectory.settings, "recording_faults": list(run.faults)}
            trajectory = trajectory.replace(settings=settings)
        return trajectory

    def _can_decode(self, trajectory: Trajectory, decoding: Decoding | None) -> bool:
        """Whether there is a way to pictures: a prior's vectors, say, have none."""
        if decoding is not None or holds_pixels(self.pipe, trajectory):
            return True
        return not isinstance(self._frames, str) and run_layout(trajectory) is not None

    def _tell_size(self, loop: Loop, steps: int | None) -> None:
        event = loop.events[0]
        branches = sum(output.shape[0] for output in event.branches) // loop.shape[0]
        size = estimate_run(
            self._keep,
            steps or len(loop.timesteps if loop.timesteps is not None else ()) or 1,
            loop.shape[0],
            tuple(loop.shape[1:]),
            event.sample.whole,
            branches,
        )
        if size.nbytes >= _WORTH_TELLING and self._shows_progress():
            tqdm.write(f"Recording {size!r}", file=sys.stderr)

    def _tell_faults(self, run: Run) -> None:
        if run.faults:
            theirs = all(fault.startswith("on_step: ") for fault in run.faults)
            what = "Not told of every step: " if theirs else "Not all was recorded: "
            # Where warnings are errors, this one still must not reach the user's call.
            with run.guarded("warning"):
                _warn(what + "; ".join(run.faults), RecordingWarning)


@dataclass(frozen=True)
class _Recorded:
    """A loop's trajectory, bare and with pictures, how it is decoded if known, and what was."""

    trajectory: Trajectory
    shown: Trajectory
    decoding: Decoding | None
    calls: Sequence[DecoderCall]


def _with_images(trajectory: Trajectory, output: Any) -> Trajectory:
    """With the pictures that the pipeline returned, where they are as many as the samples."""
    kind = trajectory.settings.get("output_type")
    images = picture_array(output, kind, batch=trajectory.batch_size)
    if images is None:
        return trajectory
    size = {"height": images.shape[-3], "width": images.shape[-2]}
    return trajectory.replace(images=images, settings={**trajectory.settings, **size})


def _with_layout(trajectory: Trajectory, decoding: Decoding | None) -> Trajectory:
    """Notes how the latents are laid out, where it was seen or can be told."""
    layout = run_layout(trajectory) if decoding is None else decoding.layout
    if layout is None:
        return trajectory
    settings = {**trajectory.settings, "latent_layout": layout.describe()}
    if decoding is not None:
        settings["latent_scaling"] = decoding.scaling
    if decoding is not None and not decoding.follows:
        settings["latent_note"] = (
            "what the pipeline decoded in the end does not follow from its loop's last latents: it "
            "changed them afterwards"
        )
    return trajectory.replace(settings=settings)


def _tell_nonfinite(trajectory: Trajectory) -> None:
    if trajectory.nonfinite:
        name, steps = min(trajectory.nonfinite.items(), key=lambda item: item[1][0])
        _warn(
            f"Not all values of the run are finite: first {name} at step {steps[0]}. "
            "trajectory.nonfinite lists all.",
            NonFiniteWarning,
        )


_PACKAGE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "")
_PASSED = (_PACKAGE, contextlib.__file__, os.path.join(os.path.dirname(torch.__file__), ""))


def _warn(text: str, category: type[Warning]) -> None:
    """Warns at the user's own line, which lies below our frames and those of decorators."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PASSED):
        level, frame = level + 1, frame.f_back
    warnings.warn(text, category, stacklevel=level)


def record(
    pipe: Any,
    prompt: str | list[str] | None = None,
    *,
    seed: int | None = None,
    frames: Any = "exact",
    keep: Iterable[str] = KEEP,
    progress: bool = True,
    on_step: Callable[[LiveStep], Any] | None = None,
    memory_budget: int = MEMORY_BUDGET,
    folder: str | os.PathLike[str] | None = None,
    **call: Any,
) -> Trajectory:
    """Runs a pipeline once and returns the recorded run.

    Args:
        pipe: A diffusers pipeline.
        prompt: What to draw; a list draws a batch. None where the pipeline takes something else
            (``prompt_embeds``).
        seed: Seeds a generator on the CPU, so that the run can be repeated anywhere: the same as
            passing ``generator=torch.Generator().manual_seed(seed)``.
        frames: How pictures of the steps are decoded; as for :class:`Recorder`.
        keep: What to keep; as for :class:`Recorder`.
        progress: Whether decoding shows a progress bar.
        on_step: Called after each step; as for :class:`Recorder`.
        memory_budget: Bytes of tensors that may wait on an accelerator; as for :class:`Recorder`.
        folder: Where to keep arrays instead of in memory; as for :class:`Recorder`.
        **call: Anything else that the pipeline itself takes.

    Returns:
        The trajectory, its ``images`` being what the pipeline returned. Where there are several
        denoising loops, the one that became the pictures.

    Raises:
        TypeError: ``pipe`` is not a diffusers pipeline, the prompt not text, or the pipeline takes
            no argument of a name in ``call``.
        ValueError: The number of steps or the seed makes no sense, or the pipeline has no weights.
        RecordingError: The pipeline is being recorded already, or went through no step that could
            be recorded.
        BaseException: What the run itself raised, ``KeyboardInterrupt`` included; the steps so far
            are on it, as its ``trajectory`` (None before the first).

    Example:
        >>> trajectory = ldm_viz.record(pipe, "a red star at night", seed=7, num_inference_steps=20)
        >>> trajectory.save("star.safetensors")
    """
    call = checked_call(pipe, prompt, seed, call)
    recorder = Recorder(
        pipe,
        keep=keep,
        frames=frames,
        progress=progress,
        on_step=on_step,
        memory_budget=memory_budget,
        folder=folder,
    )
    with recorder:
        return call_recorded(recorder, call)


def check_on_step(on_step: Any) -> None:
    """Refuses what cannot be told of steps.

    Raises:
        TypeError: It is neither a function nor None.
    """
    if on_step is not None and not callable(on_step):
        raise TypeError(f"on_step must be a function of a LiveStep, not {on_step!r}.")


def checked_call(
    pipe: Any, prompt: Any, seed: int | None, call: Mapping[str, Any]
) -> dict[str, Any]:
    """The arguments to call a pipeline with, as :func:`record` takes them.

    Args:
        pipe: The pipeline.
        prompt: What to draw, or None.
        seed: For a generator on the CPU, or None.
        call: Anything else.

    Raises:
        TypeError: As :func:`record` does.
        ValueError: As :func:`record` does.
    """
    call = dict(call)
    check_pipeline(pipe)
    check_prompt(prompt)
    check_names(pipe, call)
    check_weights(pipe)
    own_schedule = call.get("timesteps") is not None or call.get("sigmas") is not None
    if "num_inference_steps" in call and not own_schedule:
        call["num_inference_steps"] = checked_steps(pipe, call["num_inference_steps"])
    if seed is not None:
        seed = checked_seed(seed)
        if call.get("generator") is not None:
            raise ValueError("Give either seed or generator, not both.")
        call["generator"] = torch.Generator().manual_seed(seed)
    if prompt is not None:
        call["prompt"] = prompt
    if prompt is not None or call.get("prompt_embeds") is not None:
        check_pictures(pipe, call)
    return call


def call_recorded(recorder: Recorder, call: Mapping[str, Any]) -> Trajectory:
    """Calls the pipeline of a recorder once and returns what was recorded.

    Args:
        recorder: Whose ``with`` block this is in.
        call: All arguments.

    Returns:
        The trajectory; that of the steps so far where the run was stopped.

    Raises:
        RecordingError: The pipeline went through no step that could be recorded.
        BaseException: What the run itself raised, with the steps so far as its ``trajectory``.
    """
    try:
        recorder.pipe(**call)
    except RunStopped:
        pass
    except BaseException as error:
        _attach(error, recorder.trajectory)
        raise
    if recorder.trajectory is None:
        raise RecordingError(_NO_STEP.format(type(recorder.pipe).__name__))
    return recorder.trajectory


def _attach(error: BaseException, trajectory: Trajectory | None) -> None:
    try:
        error.trajectory = trajectory  # type: ignore[attr-defined]
    except AttributeError:
        return
    if trajectory is not None:
        steps = f"the {len(trajectory)} steps recorded so far"
        error.add_note(f"ldm_viz: {steps} are in this exception's `trajectory`.")


_NO_STEP = (
    "{} returned without a step that could be recorded: nothing called scheduler.step with tensors."
)

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
