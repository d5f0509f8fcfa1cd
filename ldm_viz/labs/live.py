"""Runs that are shown as they happen."""

from __future__ import annotations

import asyncio
import atexit
import base64
import contextvars
import functools
import math
import os
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import ipywidgets
import numpy as np
import torch

from ldm_viz.capture.estimates import KEEP
from ldm_viz.capture.predictions import as_number
from ldm_viz.capture.recorder import (
    Recorder,
    RecordingWarning,
    call_recorded,
    check_on_step,
    checked_call,
)
from ldm_viz.capture.run import LiveStep
from ldm_viz.capture.storage import MEMORY_BUDGET
from ldm_viz.imaging import contact_sheet, encode_image
from ldm_viz.labs.courier import Courier
from ldm_viz.labs.glimpse import Glimpse
from ldm_viz.labs.governor import Governor
from ldm_viz.labs.live_view import LiveView
from ldm_viz.statistics import format_figure, format_timestep, noise_words
from ldm_viz.trajectory import Trajectory
from ldm_viz.widgets.explorer import Explorer, explore
from ldm_viz.widgets.still import TILE, still_picture

_NAP = 0.2  # seconds
_POLITE = 0.3  # seconds between looks at whether other live runs have ended
_PARTING = 5.0  # seconds that a step may take yet when the interpreter ends


class LiveRun(ipywidgets.VBox):
    """A run of a pipeline in the background, shown while it goes on; :func:`watch` starts one.

    In a notebook it shows its progress, a coarse preview of the predicted clean picture, the spread of
    the latents, and a button that stops it. When it has ended, the explorer takes their place; of a run
    that was stopped or that failed, with the steps there are.

    Everything it shows is made beside the run, which takes at most 2 % longer for it and gives the same
    result, to the bit. Interrupting the kernel does not touch it, unless in :meth:`wait`.

    Attributes:
        recorder: What records it.
        error: What the run raised, or None.
        trajectory: What was recorded, or None until the run has ended.
    """

    def __init__(self, pipe: Any, call: dict[str, Any], preview: bool, **recording: Any) -> None:
        self._pipe, self._call = pipe, call
        self._theirs: Callable[[LiveStep], Any] | None = recording.pop("on_step")
        check_on_step(self._theirs)
        self._frames = recording["frames"]
        self.error: BaseException | None = None
        self.trajectory: Trajectory | None = None
        self.recorder = Recorder(pipe, on_step=self._on_step, progress=False, **recording)
        self._glimpse = Glimpse(pipe, call)
        self._wants_preview = preview
        self._explorer: Explorer | None = None
        self._ended = threading.Event()
        self._stop_asked = False
        self._last: LiveStep | None = None
        self._shown: LiveStep | None = None  # the last that was handed to the courier
        self._pace: tuple[int, float] | None = None  # the loop's first step, and when that was
        self._seconds = 0.0
        self._lock = threading.RLock()
        self._picture: np.ndarray | None = None
        self._governor = Governor()
        self._courier = Courier(self._show, lambda seconds: self._governor.spend(seconds, True))
        self._view = LiveView(_prompt_of(call), _facts(pipe, call))
        super().__init__([self._view])
        self._view.on_stop(self.stop)

    # What a user asks for

    @property
    def status(self) -> str:
        """``"running"``, ``"complete"``, ``"interrupted"`` or ``"failed"``."""
        if not self._ended.is_set():
            return "running"
        if self.error is not None:
            return "failed" if isinstance(self.error, Exception) else "interrupted"
        assert self.trajectory is not None
        return self.trajectory.status

    def stop(self) -> None:
        """Ends the run after the step it is in, and keeps what there is; returns at once."""
        if self._ended.is_set():
            return
        self._stop_asked = True
        self.recorder.stop()
        self._view.stop()

    def wait(self, timeout: float | None = None) -> Trajectory:
        """Waits for the run to end.

        Interrupted (Ctrl-C, or "Interrupt kernel" in a notebook), it stops the run, waits for the step
        it is in, and raises ``KeyboardInterrupt``; interrupted again, it does not wait for that.

        Args:
            timeout: Seconds to wait at most; None for as long as it takes.

        Returns:
            The trajectory; of a run that was stopped, with the steps so far.

        Raises:
            TimeoutError: It has not ended by then. It goes on.
            BaseException: What the run itself raised.

        Example:
            >>> run = ldm_viz.watch(pipe, "a red star at night", num_inference_steps=50)
            >>> run.wait().save("star.safetensors")
        """
        try:
            ended = self._await(timeout)
        except KeyboardInterrupt:
            self.stop()
            self._await(None)
            raise
        if not ended:
            raise TimeoutError(
                f"The run has not ended within {timeout:g} s. It goes on: wait() again, or end it "
                "with stop()."
            )
        if self.error is not None:
            raise self.error
        assert self.trajectory is not None
        return self.trajectory

    def _await(self, timeout: float | None) -> bool:
        """Whether it has ended by then. In short waits, as some systems let none be interrupted."""
        deadline = math.inf if timeout is None else time.monotonic() + timeout
        while not self._ended.wait(max(0.0, min(_NAP, deadline - time.monotonic()))):
            if time.monotonic() >= deadline:
                return False
        return True

    @property
    def explorer(self) -> Explorer | None:
        """The explorer of what was recorded; None until the run has ended, or where it has no step.

        A notebook makes it by itself, between other work. Asked for before, it is made at once.
        """
        if self._explorer is None and self._ended.is_set() and self.trajectory is not None:
            self._place()
        return self._explorer

    def __repr__(self) -> str:
        name = type(self._pipe).__name__
        if not self._ended.is_set():
            return f"LiveRun of {name}: running"
        run = self.trajectory
        said = run.error if run is not None else ""
        if run is not None and run.complete:
            said = f"{len(run)} steps"
        return f"LiveRun of {name}: {self.status}, {said or _one_line(self.error)}"

    def still(self) -> bytes:
        """The run as one still picture, a PNG: how far it is, or a few of its steps."""
        if self.trajectory is not None and len(self.trajectory):
            return encode_image(still_picture(self.trajectory), "png")
        rows = [] if self._picture is None else [("predicted x0", [self._picture])]
        prompt = _prompt_of(self._call) or "A run"
        sheet = contact_sheet(rows, title=prompt, caption=repr(self), tile=TILE)
        return encode_image(sheet, "png")

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        bundle = super()._repr_mimebundle_(**kwargs)
        data, *metadata = bundle if isinstance(bundle, tuple) else (bundle,)
        data = dict(data)
        data["text/plain"] = repr(self)
        data["image/png"] = base64.b64encode(self.still()).decode()
        return (data, *metadata) if metadata else data

    # The run, in its own thread

    def _start(self) -> None:
        """Begins; raises what must be raised before anything has begun."""
        try:
            self._loop: asyncio.AbstractEventLoop | None = asyncio.get_running_loop()
        except RuntimeError:
            self._loop = None
        self._context = contextvars.copy_context()
        self._thread = threading.Thread(
            target=self._context.copy().run, args=(self._work,), name="ldm_viz run", daemon=True
        )
        self.recorder.__enter__()
        self.recorder.claim(self._thread)
        _running.add(self)
        self._thread.start()

    def _work(self) -> None:
        bar = getattr(self._pipe, "_progress_bar_config", None)
        try:
            if self._loop is not None:  # the view has a bar
                self._pipe._progress_bar_config = {**(bar or {}), "disable": True}
            self._prepare()
            self._governor = Governor()
            self._courier.start()
            self._view.begin()
            self.trajectory = call_recorded(self.recorder, self._call)
        except BaseException as error:  # noqa: BLE001  # whatever it is, wait() raises it
            self.error = error
        finally:
            self._leave(bar)

    def _leave(self, bar: Any) -> None:
        """Puts the pipeline back, shows the last step, and tells those who wait."""
        if self._loop is not None:
            if bar is None:
                vars(self._pipe).pop("_progress_bar_config", None)
            else:
                self._pipe._progress_bar_config = bar
        self.recorder.__exit__()
        self._seconds = self._governor.elapsed
        try:
            if self._courier.started:
                if self._last is not None and self._last is not self._shown:
                    self._courier.offer(self._last)
                self._courier.close()
            self._conclude()
        finally:
            _running.discard(self)
            self._ended.set()
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._present, context=self._context)
        elif self.trajectory is None:
            self._view.settle()

    def _prepare(self) -> None:
        if not self._wants_preview:
            return
        try:
            self._glimpse.prepare()
        except Exception as error:  # noqa: BLE001  # the run can do without
            self._courier.faults.append(f"{type(error).__name__}: {error}")

    def _on_step(self, live: LiveStep) -> None:
        """Hears of every step, in the run's thread; shows those that can be afforded."""
        try:
            if self._theirs is not None:
                self._theirs(live)
        finally:
            began = time.perf_counter()
            if self._stop_asked:  # perhaps before the recorder knew of the run
                self.recorder.stop()
            now = self._governor.elapsed
            if self._pace is None or live.step <= self._pace[0]:
                self._pace = live.step, now
            self._last = live
            last = live.steps is not None and live.step + 1 >= live.steps
            if self._governor.allows(anyway=last):
                self._shown = live
                self._courier.offer(live)
            self._governor.spend(time.perf_counter() - began)

    # What is shown of it

    def _show(self, live: LiveStep) -> None:
        """Tells the view of a step, in the courier's thread."""
        if self._wants_preview:
            self._picture = self._glimpse.picture(live)
        elapsed = self._governor.elapsed
        self._view.tell(
            done=live.step + 1,
            steps=live.steps,
            words=_words(live),
            elapsed=elapsed,
            remaining=self._remaining(live, elapsed),
            spread=self._glimpse.spread(live),
            picture=self._picture,
        )

    def _remaining(self, live: LiveStep, elapsed: float) -> float | None:
        if live.steps is None or self._pace is None or live.step <= self._pace[0]:
            return None
        first, then = self._pace
        return (elapsed - then) / (live.step - first) * (live.steps - 1 - live.step)

    def _conclude(self) -> None:
        """Takes what there is of a run that broke off, and says how it ended."""
        notes = []
        if self.error is not None:
            self.trajectory = self.recorder.trajectory
            if self.trajectory is not None and self._frames is not None:
                try:
                    self.trajectory = self.recorder.decode(frames=self._frames)
                except Exception as other:  # noqa: BLE001  # what broke the run may break this
                    notes.append(f"There are no pictures: {_one_line(other)}.")
        faults = "; ".join(self._courier.faults)
        if faults:
            notes.append(f"Not all could be shown while it ran: {faults}.")
            warnings.warn(notes[-1], RecordingWarning, stacklevel=1)
        error, done = self.error, 0 if self.trajectory is None else len(self.trajectory)
        steps = self._last.steps if self._last is not None else None
        self._last = self._shown = None
        status = "complete" if self.trajectory is not None else "failed"
        if self.trajectory is not None:
            status = self.trajectory.status
        self._view.end(
            status,
            _ending(status, done, steps, self._seconds),
            why=_one_line(error),
            details="" if error is None else "".join(traceback.format_exception(error))[-_DETAILS:],
            notes=notes,
        )

    # The explorer, in the notebook's own loop and between its other work

    def _present(self) -> None:
        """Shows the explorer, once no live run is at work: its pictures may take the same models."""
        if _running:
            assert self._loop is not None
            self._loop.call_later(_POLITE, self._present, context=self._context)
        elif self.trajectory is None or not len(self.trajectory):
            self._view.settle()
        else:
            self._place()

    def _place(self) -> None:
        """Puts the explorer where the progress was, without pictures where those cannot be made."""
        with self._lock:
            if self._explorer is not None or self.trajectory is None:
                return
            last = max(len(self.trajectory) - 1, 0)  # where the progress has left off
            try:
                self._explorer = explore(self.trajectory, step=last)
            except Exception as error:  # noqa: BLE001  # whatever the decoder raises
                note = {"frames_note": f"They could not be decoded: {_one_line(error)}"}
                bare = self.trajectory.replace(
                    frames={}, frames_source="", settings={**self.trajectory.settings, **note}
                )
                self._explorer = explore(bare, step=last)
            self.children = [self._view, self._explorer]
            self._view.settle()


def watch(
    pipe: Any,
    prompt: str | list[str] | None = None,
    *,
    seed: int | None = None,
    preview: bool = True,
    frames: Any = "exact",
    keep: Iterable[str] = KEEP,
    on_step: Callable[[LiveStep], Any] | None = None,
    memory_budget: int = MEMORY_BUDGET,
    folder: str | os.PathLike[str] | None = None,
    **call: Any,
) -> LiveRun:
    """Runs a pipeline in the background and shows the run while it goes on.

    As the last line of a notebook's cell it shows the run right there; the other cells stay usable.
    The pipeline itself is taken until the run has ended: whatever else calls it meanwhile is refused.

    The run has a thread of its own, which torch's contexts around this call, such as
    ``torch.autocast``, do not reach. A script has to :meth:`LiveRun.wait` for it: with the interpreter
    the run ends too.

    Args:
        pipe: A diffusers pipeline.
        prompt: What to draw; as for :func:`record`.
        seed: Seeds a generator on the CPU; as for :func:`record`.
        preview: Whether to show the predicted clean picture, in colours by a linear map that is fitted
            to the autoencoder before its first run.
        frames: How pictures of the steps are decoded for the explorer; as for :class:`Recorder`.
        keep: What to keep; as for :class:`Recorder`.
        on_step: Called after each step, in the run's thread; as for :class:`Recorder`.
        memory_budget: Bytes of tensors that may wait on an accelerator; as for :class:`Recorder`.
        folder: Where to keep arrays instead of in memory; as for :class:`Recorder`.
        **call: Anything else that the pipeline itself takes.

    Returns:
        The run, which is a widget: :meth:`LiveRun.wait` gives its trajectory.

    Raises:
        TypeError: As :func:`record` does, before anything has begun.
        ValueError: As :func:`record` does, before anything has begun.
        RecordingError: The pipeline is being recorded already, or at work in another live run.

    Example:
        >>> run = ldm_viz.watch(pipe, "a red star at night", seed=7, num_inference_steps=50)
        >>> run
        LiveRun of StableDiffusionPipeline: running
    """
    arguments = checked_call(pipe, prompt, seed, call)
    run = LiveRun(
        pipe,
        arguments,
        preview,
        frames=frames,
        keep=keep,
        on_step=on_step,
        memory_budget=memory_budget,
        folder=folder,
    )
    _end_with_the_interpreter()
    run._start()
    return run


_running: set[LiveRun] = set()
_DETAILS = 8000  # characters of a traceback's end


@functools.cache
def _end_with_the_interpreter() -> None:
    """Has runs that go on stopped when the interpreter ends, as torch must not be torn from them."""

    @atexit.register
    def part() -> None:
        for run in list(_running):
            run.recorder.stop()
        for run in list(_running):
            run._thread.join(_PARTING)


def _words(live: LiveStep) -> list[str]:
    """The timestep and the noise of a step, each in a few words."""
    words = [f"timestep {format_timestep(as_number(live.timestep))}"]
    if not math.isnan(live.sigma):
        words.append(f"σ {format_figure(live.sigma)}")
    if noise := noise_words(live.snr):
        words.append(noise)
    return words


def _ending(status: str, done: int, steps: int | None, seconds: float) -> str:
    """How a run ended, in a line."""
    if status == "complete":
        return f"Complete: {done} {'step' if done == 1 else 'steps'} in {seconds:.1f} s."
    how = {"interrupted": "Stopped", "failed": "Failed"}[status]
    if not done:
        return f"{how} before the first step was done."
    of = f"{done} of {steps}" if steps else str(done)
    return f"{how} after {of} {'step' if (steps or done) == 1 else 'steps'}."


def _one_line(error: BaseException | None) -> str:
    if error is None:
        return ""
    text = " ".join(f"{type(error).__name__}: {error}".split())
    return text.removesuffix(":")[:500]


def _prompt_of(call: dict[str, Any]) -> str:
    prompt = call.get("prompt")
    if isinstance(prompt, list):
        return prompt[0] if len(prompt) == 1 else f"{prompt[0]} (the first of {len(prompt)})"
    return str(prompt or "")


def _facts(pipe: Any, call: dict[str, Any]) -> list[str]:
    """What is known of a run before it begins."""
    facts = [type(pipe).__name__]
    if getattr(pipe, "scheduler", None) is not None:
        facts.append(type(pipe.scheduler).__name__)
    for name, label in (("guidance_scale", "guidance"), ("strength", "strength")):
        if isinstance(call.get(name), int | float):
            facts.append(f"{label} {call[name]:g}")
    generator = call.get("generator")
    if isinstance(generator, torch.Generator):
        facts.append(f"seed {generator.initial_seed()}")
    return facts
