"""Pictures of many conditions, drawn by one pipeline, as many at a time as there is memory for."""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from numbers import Real
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from tqdm.auto import tqdm

from ldm_viz.capture.arguments import check_names, check_pipeline, check_weights, checked_steps
from ldm_viz.conditioning import Embedding, condition
from ldm_viz.conditioning.spaces import JOINT
from ldm_viz.labs.guidance import usual_guidance
from ldm_viz.labs.noise import BetweenSeeds

__all__ = ["Drawn", "Frame", "Stopper", "checked_call", "draw_frames"]

MOST = {"cpu": 8, "other": 32}
"""Pictures at a time, by the kind of device: with more of them each takes no less time."""

# Of a picture in float32. The autoencoder of Stable Diffusion was measured to take 3100 at its peak for
# each further picture of 512×512, its UNet with guidance 1500.
_BYTES_A_PIXEL = 4_000
_SHARE = 0.5  # of the free memory

_TELL_EVERY = 0.1  # seconds between two steps that the bar tells of

_PICTURES = ("image", "mask_image", "control_image")
"""What pipelines begin with, besides noise."""

_OWN = ("frames", "way", "seed", "negative", "batch", "progress", "cancel")
"""What walks and grids take besides."""

_REFUSED = {
    "generator": "give seed=…",
    "latents": "the noise is drawn from seed=…",
    "output_type": "pictures are returned as arrays",
    "return_dict": "pictures are returned as arrays",
    "num_images_per_prompt": "each condition has one picture",
    "prompt_embeds": "give an Embedding",
    "image_embeds": "give an Embedding, of lv.image(pipe, …)",
    "ip_adapter_image": "give an Embedding, of lv.image(pipe, …)",
    "ip_adapter_image_embeds": "give an Embedding, of lv.image(pipe, …)",
    "negative_prompt": "give negative=…",
    "negative_prompt_embeds": "give negative=…",
    "negative_image_embeds": "give negative=…",
}


class Stopper(Protocol):
    """What says that somebody wants the work to end, such as a `threading.Event`."""

    def is_set(self) -> bool:
        """Whether somebody does."""


@dataclass(frozen=True)
class Frame:
    """One picture that is to be drawn.

    Attributes:
        embedding: Makes its condition, when it is needed: many of them at once would be large.
        words: Which it is, for errors, such as ``"frame 3 (amount 0.2)"``.
        seeds: The seeds that its noise lies between.
        amount: Where it lies: 0 for the first seed's noise, 1 for the second's.
    """

    embedding: Callable[[], Embedding]
    words: str
    seeds: tuple[int, int]
    amount: float = 0.0


@dataclass(frozen=True)
class Drawn:
    """What was drawn.

    Attributes:
        pictures: In the order of the frames, each ``(h, w, 3)`` uint8.
        status: ``"complete"``, ``"stopped"`` or ``"failed"``.
        error: Which frame failed, and with what; ``""`` otherwise.
    """

    pictures: list[np.ndarray]
    status: str
    error: str = ""


def checked_call(pipe: Any, call: Mapping[str, Any], batch: int | None) -> dict[str, Any]:
    """A pipeline's own arguments, without those that make no sense here, and with the usual guidance.

    Raises:
        TypeError: This is no pipeline, it takes no argument of such a name, one is set by us, or the
            guidance scale is no number.
        ValueError: The guidance scale, the number of steps or of pictures at a time makes no sense.
    """
    check_pipeline(pipe)
    for name in call:
        if name in _REFUSED:
            raise TypeError(f"{name} cannot be given here: {_REFUSED[name]}.")
    check_names(pipe, call, _OWN)
    check_weights(pipe)
    whole = isinstance(batch, int | np.integer) and not isinstance(batch, bool)
    if batch is not None and (not whole or batch < 1):
        raise ValueError(
            f"batch must be a whole number of pictures at a time, 1 or more, or None, not {batch!r}."
        )
    call = dict(call)
    if call.get("num_inference_steps") is not None:
        call["num_inference_steps"] = checked_steps(pipe, call["num_inference_steps"])
    if call.get("guidance_scale") is not None:
        call["guidance_scale"] = _checked_guidance(call["guidance_scale"])
    elif _has_default(pipe, "guidance_scale"):
        call["guidance_scale"] = usual_guidance(pipe)
    return call


def _checked_guidance(scale: Any) -> float:
    if isinstance(scale, bool) or not isinstance(scale, Real):
        raise TypeError(
            f"guidance_scale must be a number, such as 7.5, or None for the usual one, not {scale!r:.40}"
        )
    if not math.isfinite(scale):
        raise ValueError(f"guidance_scale must be a finite number, not {scale!r}")
    return float(scale)


def _has_default(pipe: Any, name: str) -> bool:
    """Whether a pipeline takes a number of this name, and has one where none is given."""
    parameter = inspect.signature(pipe.__call__).parameters.get(name)
    return parameter is not None and isinstance(parameter.default, int | float)


def draw_frames(
    pipe: Any,
    frames: Sequence[Frame],
    *,
    negative: Embedding | str | None,
    batch: int | None,
    progress: bool,
    cancel: Stopper | None,
    call: dict[str, Any],
    what: str,
) -> Drawn:
    """Draws the pictures of frames.

    The first is drawn alone. After it as many are drawn at a time as the free memory seems to have
    room for, and half as many wherever it had not. Conditions that a pipeline takes as a list, such
    as an IP-Adapter's, are drawn one at a time: in a batch diffusers would mix them. So are pictures
    to begin with that are no PIL pictures.

    Args:
        pipe: A diffusers pipeline.
        frames: What to draw.
        negative: What guidance leads away from.
        batch: Pictures at a time, instead of the guess.
        progress: Whether to show a bar.
        cancel: Asked after each step whether to stop.
        call: The pipeline's own arguments, as `checked_call` gives them.
        what: What the bar says.

    Returns:
        What was drawn; of work that was stopped, or whose later frames fail, the frames before.

    Raises:
        Exception: What the pipeline raised, where not even the first frame could be drawn.
    """
    return _Work(pipe, frames, negative, batch, progress, cancel, call).run(what)


class _Cancelled(KeyboardInterrupt):
    """Somebody asked to stop."""


class _Failed(Exception):
    """A frame cannot be drawn; its cause says why."""


class _Work:
    def __init__(
        self,
        pipe: Any,
        frames: Sequence[Frame],
        negative: Embedding | str | None,
        batch: int | None,
        progress: bool,
        cancel: Stopper | None,
        call: dict[str, Any],
    ) -> None:
        self._pipe, self._frames, self._negative = pipe, frames, negative
        self._progress, self._cancel = progress, cancel
        self._call = dict(call)
        self._own = {n: self._call.pop(n) for n in ("prompt", "guidance_scale") if n in call}
        self._done: list[np.ndarray] = []
        self._size, self._guessed = batch or 1, batch is None
        self._bar: Any = None
        self._told = 0.0

    def run(self, what: str) -> Drawn:
        status, error = "complete", ""
        self._look_ahead()
        with _silenced(self._pipe), self._make_bar(what) as self._bar:
            try:
                while len(self._done) < len(self._frames):
                    self._check_cancel()
                    self._draw_some()
            except KeyboardInterrupt:
                status = "stopped"
            except _Failed as failed:
                if not self._done:
                    assert failed.__cause__ is not None
                    raise failed.__cause__ from None
                status, error = "failed", str(failed)
            finally:
                if getattr(self._pipe, "_all_hooks", None):
                    self._pipe.maybe_free_model_hooks()
        return Drawn(self._done, status, error)

    def _look_ahead(self) -> None:
        """Raises what must be raised before anything has begun, and sees what goes one at a time."""
        first = self._frames[0].embedding()
        joint = first.space.kind == JOINT
        if "prompt" in self._own and not joint:
            raise TypeError(
                "prompt cannot be given here: the condition stands in its place. Beside a condition "
                "in the joint text-image space it could."
            )
        made = self._condition(first)
        listed = any(isinstance(value, list) for value in made.values())
        own = [self._call[name] for name in _PICTURES if self._call.get(name) is not None]
        if joint or listed or not all(isinstance(picture, Image.Image) for picture in own):
            self._size, self._guessed = 1, False

    def _make_bar(self, what: str) -> Any:
        return tqdm(desc=what, total=len(self._frames), disable=not self._progress, leave=False)

    def _draw_some(self) -> None:
        """Draws the next few frames, or learns that they were too many."""
        place = len(self._done)
        frames = self._frames[place : place + self._size]
        pictures, error = self._attempt(frames)
        if error is not None:
            self._learn(frames, error)
            return
        self._done.extend(pictures)
        self._bar.update(len(pictures))
        if self._guessed:
            self._guessed = False
            self._size = _fitting(self._pipe, pictures[0])

    def _attempt(self, frames: Sequence[Frame]) -> tuple[list[np.ndarray], Exception | None]:
        try:
            return self._draw(frames), None
        except Exception as error:  # noqa: BLE001  # whatever the pipeline raises
            # What its frames hold is most of the memory that was too little.
            return [], error.with_traceback(None) if len(frames) > 1 else error

    def _learn(self, frames: Sequence[Frame], error: Exception) -> None:
        if len(frames) == 1:
            text = " ".join(f"{type(error).__name__}: {error}".split())[:500]
            error.add_note(f"ldm_viz: raised while {frames[0].words} was drawn.")
            raise _Failed(f"{frames[0].words}: {text}") from error
        # Of what else may be wrong, one at a time shows with which of them.
        self._size = len(frames) // 2 if _is_memory(error) else 1
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _draw(self, frames: Sequence[Frame]) -> list[np.ndarray]:
        """Calls the pipeline once."""
        made = [self._condition(frame.embedding()) for frame in frames]
        generators = [torch.Generator().manual_seed(frame.seeds[0]) for frame in frames]
        between = _between(frames, generators)
        call = {**_repeated(self._call, len(frames)), **_stacked(made), "output_type": "pil"}
        call["generator"] = generators if len(frames) > 1 else generators[0]
        with between or nullcontext():
            output = self._pipe(**self._listening(call))
        if between is not None and between.unused:
            raise TypeError(
                f"{type(self._pipe).__name__} draws its noise in a way that cannot be mixed; walk "
                "between conditions, with one seed"
            )
        return _arrays(self._pipe, output, len(frames))

    def _condition(self, embedding: Embedding) -> dict[str, Any]:
        return condition(self._pipe, embedding, self._negative, **self._own)

    def _listening(self, call: dict[str, Any]) -> dict[str, Any]:
        """The call, with a function that hears of each step."""
        theirs = call.get("callback_on_step_end")
        known = "callback_on_step_end" in inspect.signature(self._pipe.__call__).parameters
        if not known or (theirs is not None and not inspect.isroutine(theirs)):
            return call

        def on_step(pipe: Any, step: int, timestep: Any, kwargs: dict[str, Any]) -> Any:
            self._check_cancel()
            now = time.monotonic()
            if now - self._told > _TELL_EVERY:
                self._told = now
                self._bar.set_postfix_str(f"step {step + 1}")
            return kwargs if theirs is None else theirs(pipe, step, timestep, kwargs)

        return {**call, "callback_on_step_end": on_step}

    def _check_cancel(self) -> None:
        if self._cancel is not None and self._cancel.is_set():
            raise _Cancelled


@contextmanager
def _silenced(pipe: Any) -> Iterator[None]:
    """The pipeline's own bar would only flicker above ours."""
    before = getattr(pipe, "_progress_bar_config", None)
    pipe._progress_bar_config = {**(before or {}), "disable": True}
    try:
        yield
    finally:
        if before is None:
            vars(pipe).pop("_progress_bar_config", None)
        else:
            pipe._progress_bar_config = before


def _between(frames: Sequence[Frame], generators: Sequence[torch.Generator]) -> BetweenSeeds | None:
    """What mixes the noise of frames between two seeds; sets the others' generators to their seed."""
    others = {}
    for frame, generator in zip(frames, generators, strict=True):
        first, second = frame.seeds
        if frame.amount == 1:
            generator.manual_seed(second)
        elif frame.amount and first != second:
            others[id(generator)] = torch.Generator().manual_seed(second), frame.amount
    return BetweenSeeds(others) if others else None


def _repeated(call: dict[str, Any], count: int) -> dict[str, Any]:
    """A call with its pictures given for each frame, so that each generator draws for its own alone."""
    given = [name for name in _PICTURES if count > 1 and call.get(name) is not None]
    return {**call, **{name: [call[name]] * count for name in given}}


def _stacked(made: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The arguments of several conditions as those of one call."""
    if len(made) == 1:
        return made[0]
    return {
        name: torch.cat([one[name] for one in made]) if torch.is_tensor(value) else value
        for name, value in made[0].items()
    }


def _arrays(pipe: Any, output: Any, count: int) -> list[np.ndarray]:
    images = getattr(output, "images", None)
    if images is None:
        raise TypeError(f"{type(pipe).__name__} returns no pictures, so there are none to show")
    if len(images) != count:
        raise RuntimeError(
            f"{type(pipe).__name__} returned {len(images)} pictures for {count} conditions"
        )
    return [np.asarray(image.convert("RGB")) for image in images]


def _is_memory(error: Exception) -> bool:
    """Whether an error says that memory was too short."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    text = str(error).lower()
    known = ("out of memory", "can't allocate memory", "not enough memory", "invalid buffer size")
    return isinstance(error, RuntimeError) and any(words in text for words in known)


def _fitting(pipe: Any, picture: np.ndarray) -> int:
    """About how many pictures like this one fit into the free memory at a time."""
    device = torch.device(pipe._execution_device)
    model = getattr(pipe, "unet", None) or getattr(pipe, "transformer", None)
    size = getattr(getattr(model, "dtype", None), "itemsize", 4)
    each = picture.shape[0] * picture.shape[1] * _BYTES_A_PIXEL * size / 4
    most = MOST.get(device.type, MOST["other"])
    return max(1, min(most, int(_SHARE * _free_memory(device) / each)))


def _free_memory(device: torch.device) -> int:
    """Bytes that can be had on a device; 0 where nobody knows."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + kept
    try:
        import psutil
    except ImportError:
        return 0
    return psutil.virtual_memory().available
