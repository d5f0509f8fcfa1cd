"""The trajectory and its steps."""

from __future__ import annotations

import dataclasses
import math
import operator
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, overload

import numpy as np

from ..imaging import encode_image
from .container import DTYPE_NAMES, TrajectoryFileError, shorten
from .frames import FrameSeries, index_frames, middle_frame
from .layout import read_fields, write_trajectory

STATUSES = ("complete", "interrupted", "failed")


@dataclass(frozen=True, eq=False, repr=False)
class Step:
    """One step of a trajectory; its arrays are views with shape ``(batch, *latent)``.

    Attributes:
        step: 0-based position in the trajectory.
        timestep: The scheduler's time.
        sigma: Noise level, as in :attr:`Trajectory.sigmas`.
        snr: Signal-to-noise ratio (power).
        latents: The sample that went into ``scheduler.step``.
        next_latents: What the loop carried on with afterwards.
        x0: The predicted clean sample, or None.
        noise_prediction: The model's output, branch by branch, in the sign the scheduler received.
        wall_time: Seconds since the run began, at the end of this step.
    """

    step: int
    timestep: float
    sigma: float
    snr: float
    latents: np.ndarray
    next_latents: np.ndarray
    x0: np.ndarray | None
    noise_prediction: Mapping[str, np.ndarray]
    wall_time: float

    def __repr__(self) -> str:
        return (
            f"Step {self.step}: timestep {self.timestep:g}, sigma {self.sigma:.4g}, "
            f"SNR {self.snr:.4g}, latents std {_std(self.latents):.2f}"
        )


@dataclass(frozen=True, eq=False, repr=False)
class Trajectory:
    """One recorded denoising run: ``n`` steps of a batch of ``b`` samples.

    Arrays are read-only. Floats are as recorded: float32, or float16 when the run was in half
    precision (bfloat16, which numpy lacks, becomes float32 without loss). Index it by step
    (``trajectory[-1]`` is the last :class:`Step`), slice it (``trajectory[:10]`` is a trajectory of
    ten steps), iterate over it.

    Attributes:
        latents: ``(n + 1, b, *latent)``. ``latents[i]`` is the sample passed to ``scheduler.step``
            at step ``i``; ``latents[i + 1]`` is what the loop carried on with after it, after any
            callback. The last is what is decoded.
        timesteps: ``(n,)`` float64, the scheduler's time at each step.
        sigmas: ``(n,)`` float64, the noise level in the scheduler's own family: ``sqrt((1 - abar) /
            abar)`` for variance-preserving and k-diffusion schedulers, ``sigma`` in [0, 1] for flow
            matching. NaN where unknown.
        snrs: ``(n,)`` float64, signal-to-noise ratio (power): ``abar / (1 - abar)``, or ``((1 - s)
            / s) ** 2`` for flow.
        x0: ``(n, b, *latent)``, the clean sample predicted at each step, in the scale of the final
            latents; or None.
        x0_source: ``"scheduler"`` (its own field), ``"computed"`` (from the prediction type) or
            ``""``.
        noise_prediction: Branch to ``(n, b, *latent)``, in the sign the scheduler received:
            ``"unconditional"`` and ``"conditional"`` where they could be told apart, else ``"branch 0"`` ...; ``"guided"`` is always exactly
            what ``scheduler.step`` received. NaN at steps where a branch was not computed.
        step_outputs: ``(n, b, *latent)``, what ``scheduler.step`` returned, kept only where the
            loop carried on with something else (inpainting's blend, a callback); else None.
        frames: Pictures, ``"latents"``: ``(n + 1, b, h, w, 3)`` and ``"x0"``: ``(n, b, h, w, 3)``,
            uint8, of videos ``(..., f, h, w, 3)``; may be empty. Latents are decoded in the
            variance-preserving scale. Each is an array or a :class:`FrameSeries`, which is indexed
            like one and makes a picture when it is looked at.
        frames_source: ``"exact"`` (the pipeline's own decoder), ``"linear"`` (a least-squares map),
            ``"tiny"`` (a small autoencoder), ``"custom"`` (a function) or ``""``.
        images: ``(b, h, w, 3)`` uint8, of videos ``(b, f, h, w, 3)``, the pipeline's own output, or
            None.
        wall_times: ``(n,)`` float64, seconds since the run began, at the end of each step. On a
            GPU, where work is queued, this is when the step was issued.
        settings: What was run with what: plain JSON values.
        status: ``"complete"``, ``"interrupted"`` or ``"failed"``.
        error: What stopped it; ``""`` otherwise.

    Raises:
        ValueError: An array's shape or type does not fit the others.

    Example:
        >>> trajectory = ldm_viz.record(ldm_viz.load_tiny(), "a red star at night", seed=0)
        >>> trajectory.x0[-1].shape
        (1, 4, 16, 16)
        >>> trajectory.save("star.safetensors")
    """

    latents: np.ndarray
    timesteps: np.ndarray
    sigmas: np.ndarray
    snrs: np.ndarray
    x0: np.ndarray | None = None
    x0_source: str = ""
    noise_prediction: Mapping[str, np.ndarray] = field(default_factory=dict)
    step_outputs: np.ndarray | None = None
    frames: Mapping[str, np.ndarray | FrameSeries] = field(default_factory=dict)
    frames_source: str = ""
    images: np.ndarray | None = None
    wall_times: np.ndarray = None  # type: ignore[assignment]  # NaN for every step unless given
    settings: Mapping[str, Any] = field(default_factory=dict)
    status: str = "complete"
    error: str = ""

    def __post_init__(self) -> None:
        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        latents = _read_only("latents", self.latents, "f")
        if latents.ndim < 3 or latents.shape[0] < 1:
            raise ValueError(
                f"latents must have shape (steps + 1, batch, *latent), not {latents.shape}."
            )
        put("latents", latents)
        steps, batch, latent = latents.shape[0] - 1, latents.shape[1], latents.shape[2:]

        if self.wall_times is None:
            put("wall_times", np.full(steps, np.nan))
        for name in ("timesteps", "sigmas", "snrs", "wall_times"):
            values = np.asarray(getattr(self, name), dtype=np.float64)
            put(name, _shaped(name, _read_only(name, values, "f"), (steps,)))
        for name in ("x0", "step_outputs"):
            if getattr(self, name) is not None:
                array = _read_only(name, getattr(self, name), "f")
                put(name, _shaped(name, array, (steps, batch, *latent)))
        branches = {}
        for branch, values in self.noise_prediction.items():
            name = f"noise_prediction[{branch!r}]"
            branches[branch] = _shaped(name, _read_only(name, values, "f"), (steps, batch, *latent))
        put("noise_prediction", MappingProxyType(branches))
        if self.images is not None:
            images = _read_only("images", self.images, "u")
            put("images", _shaped("images", images, (batch, *_picture(images.ndim - 1))))
        put("frames", self._checked_frames(steps, batch))
        put("settings", MappingProxyType({str(k): _plain(v) for k, v in self.settings.items()}))
        if self.status not in STATUSES:
            raise ValueError(f"status must be one of {', '.join(STATUSES)}, not {self.status!r}.")

    def _checked_frames(self, steps: int, batch: int) -> Mapping[str, np.ndarray | FrameSeries]:
        counts = {"latents": steps + 1, "x0": steps}
        unknown = set(self.frames) - set(counts)
        if unknown:
            raise ValueError(f"frames may hold 'latents' and 'x0', not {sorted(unknown)}.")
        frames: dict[str, Any] = {}
        for name, series in self.frames.items():
            what = f"frames[{name!r}]"
            array = series if isinstance(series, FrameSeries) else _read_only(what, series, "u")
            expected = (counts[name], batch, *_picture(array.ndim - 2))
            frames[name] = _shaped(what, array, expected)
        return MappingProxyType(frames)

    def __len__(self) -> int:
        return self.latents.shape[0] - 1

    @overload
    def __getitem__(self, step: int) -> Step: ...
    @overload
    def __getitem__(self, step: slice) -> Trajectory: ...
    def __getitem__(self, step: int | slice) -> Step | Trajectory:
        if isinstance(step, slice):
            return self._slice(step)
        try:
            index = operator.index(step)
        except TypeError:
            raise TypeError(
                f"A trajectory is indexed by step (an integer or a slice), not {step!r}."
            ) from None
        steps = len(self)
        if not -steps <= index < steps:
            raise IndexError(f"Step {index} is outside this trajectory of {steps} steps.")
        index %= steps
        return Step(
            step=index,
            timestep=float(self.timesteps[index]),
            sigma=float(self.sigmas[index]),
            snr=float(self.snrs[index]),
            latents=self.latents[index],
            next_latents=self.latents[index + 1],
            x0=None if self.x0 is None else self.x0[index],
            noise_prediction={
                branch: values[index] for branch, values in self.noise_prediction.items()
            },
            wall_time=float(self.wall_times[index]),
        )

    def __iter__(self) -> Iterator[Step]:
        return (self[step] for step in range(len(self)))

    def _slice(self, steps: slice) -> Trajectory:
        start, stop, stride = steps.indices(len(self))
        if stride != 1:
            raise ValueError(
                "A trajectory can only be sliced into consecutive steps, as each begins where the "
                f"one before ended; for others index its arrays: latents[::{stride}]."
            )
        stop = max(start, stop)
        changes = {}
        if (start, stop) != (0, len(self)):
            before, _, whole = self.part or (0, 0, len(self))
            part = [before + start, before + stop, whole]
            changes["settings"] = {**self.settings, "part": part}
        return self._rearranged((slice(start, stop),), (slice(start, stop + 1),), **changes)

    def _rearranged(self, per_step: tuple, per_latent: tuple, **changes: Any) -> Trajectory:
        """Indexes the first axes; those of the latents, which have one more, by ``per_latent``."""
        return self.replace(
            latents=self.latents[per_latent],
            **{
                n: getattr(self, n)[per_step[0]]
                for n in ("timesteps", "sigmas", "snrs", "wall_times")
            },
            x0=None if self.x0 is None else self.x0[per_step],
            step_outputs=None if self.step_outputs is None else self.step_outputs[per_step],
            noise_prediction={
                branch: values[per_step] for branch, values in self.noise_prediction.items()
            },
            frames=index_frames(self.frames, {"latents": per_latent, "x0": per_step}),
            **changes,
        )

    @property
    def batch_size(self) -> int:
        """Samples denoised together: prompts times images per prompt."""
        return self.latents.shape[1]

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of one sample's latents, ``(channels, h, w)`` for pictures."""
        return self.latents.shape[2:]

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays; frames count as pictures even while they are not made yet."""
        arrays: list[Any] = [self.latents, self.timesteps, self.sigmas, self.snrs, self.wall_times]
        arrays += [a for a in (self.x0, self.step_outputs, self.images) if a is not None]
        arrays += self.noise_prediction.values()
        arrays += self.frames.values()
        return sum(a.nbytes for a in arrays)

    @property
    def nonfinite(self) -> dict[str, list[int]]:
        """Steps at which an array holds values that are NaN or infinite, by the array's name.

        Of the latents the last step counts too, which is what the run ended with. A branch that was not computed at a step is all NaN there, and does not count.
        """
        arrays: dict[str, Any] = {"latents": self.latents}
        arrays |= {f"noise_prediction[{n!r}]": a for n, a in self.noise_prediction.items()}
        arrays |= {"x0": self.x0, "step_outputs": self.step_outputs}
        found = {}
        for name, array in arrays.items():
            if array is None:
                continue
            steps = [
                step
                for step, values in enumerate(array)
                if not np.isfinite(values).all()
                and not (name.startswith("noise_prediction") and np.isnan(values).all())
            ]
            if steps:
                found[name] = steps
        return found

    @property
    def part(self) -> tuple[int, int, int] | None:
        """Of a slice: its first step, the one after its last, and the steps of the whole run."""
        match self.settings.get("part"):
            case [int(start), int(stop), int(steps)] if (
                0 <= start <= stop <= steps < 2** 31 and stop - start == len(self)
            ):
                return int(start), stop, steps
        return None

    @property
    def complete(self) -> bool:
        """Whether the run went to its end."""
        return self.status == "complete"

    def replace(self, **changes: Any) -> Trajectory:
        """Returns a trajectory with these fields changed, checked as a new one is."""
        return dataclasses.replace(self, **changes)

    def select(self, batch_index: int) -> Trajectory:
        """Returns one sample of the batch as a trajectory with batch 1.

        Args:
            batch_index: Which sample; negative counts from the end.

        Raises:
            IndexError: There is no such sample.
        """
        index, batch = operator.index(batch_index), self.batch_size
        if not -batch <= index < batch:
            raise IndexError(f"Sample {index} is outside this batch of {batch}.")
        index %= batch
        one = (slice(None), slice(index, index + 1))
        return self._rearranged(
            one,
            one,
            images=None if self.images is None else self.images[index : index + 1],
            settings=_select_settings(self.settings, index, batch),
        )

    def save(self, path: str | os.PathLike[str], *, frames: bool = True) -> Path:
        """Writes one ``.safetensors`` file; it appears complete or not at all.

        Args:
            path: Where to. An existing file is replaced once the new one is whole.
            frames: Whether to store the frames too, as lossless WebP; without them a file is much
                smaller.

        Returns:
            The path written.

        Raises:
            OSError: It cannot be written (no such folder, no permission, no room left). Nothing is
                left behind and a file that was there before is untouched.
        """
        path = Path(path)
        write_trajectory(path, self, frames)
        return path

    def to_xarray(self) -> Any:
        """Returns the arrays with names on their axes, as an ``xarray.Dataset``, without copying them.

        Its dimensions are ``step``, ``position`` (before each step and after the last: one more),
        ``batch`` and, of the latents, ``channel``, ``y``, ``x`` (``channel``, ``frame``, ``y``, ``x``
        for videos), or ``axis_0`` ... where they have another layout. ``step`` has the coordinates
        ``timestep``, ``sigma``, ``snr`` and ``wall_time``. Noise predictions are named
        ``noise_prediction_<branch>``. The settings, as JSON, are an attribute. Frames are left out.

        Raises:
            ImportError: xarray is not installed.

        Example:
            >>> trajectory.to_xarray().latents.std(("channel", "y", "x"))  # doctest: +SKIP
        """
        from .tables import to_dataset

        return to_dataset(self)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Trajectory:
        """Opens a saved trajectory.

        Arrays stay on disk until they are touched, frames stay encoded until they are looked at.

        Args:
            path: A file written by :meth:`save`. Leave it in place, unaltered, while the trajectory
                is in use.

        Raises:
            OSError: It is not there or may not be read.
            TrajectoryFileError: It is not a trajectory, is damaged, or was written by a newer
                version. Nothing in a file is ever executed.
        """
        path = Path(path)
        try:
            return cls(**read_fields(path))
        except TrajectoryFileError:
            raise
        except (ValueError, TypeError, OverflowError) as error:
            raise TrajectoryFileError(
                f"{path}: the parts of this trajectory do not fit together: {error}"
            ) from error

    def __reduce__(self) -> tuple:
        state = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return _restore, ({k: dict(v) if isinstance(v, Mapping) else v for k, v in state.items()},)

    def __repr__(self) -> str:
        settings = self.settings
        batch, latent = self.batch_size, "×".join(map(str, self.latent_shape))
        first = [f"Trajectory: {steps_in_words(self)}"]
        if settings.get("pipeline"):
            first[0] += f" of {shorten(settings['pipeline'])}"
        if settings.get("scheduler"):
            first[0] += f" with {shorten(settings['scheduler'])}"
        first.append(f"{batch} sample{'s' * (batch != 1)} of {latent} {self.latents.dtype}")
        if isinstance(settings.get("guidance_scale"), int | float):
            first.append(f"guidance {settings['guidance_scale']:g}")
        first.append(self.status)
        second = [f"latents std {_std(self.latents[0]):.2f} → {_std(self.latents[-1]):.2f}"]
        if len(self):
            second.insert(0, f"sigma {self.sigmas[0]:.3g} → {self.sigmas[-1]:.3g}")
        if self.frames:
            size = "×".join(map(str, next(iter(self.frames.values())).shape[2:-1]))
            second.append(f"{self.frames_source or 'given'} frames {size}")
        if settings.get("prompt"):
            second.append(f"prompt {shorten(settings['prompt'], quote=True)}")
        if self.error:
            second.append(shorten(self.error, 80))
        return ", ".join(first) + "\n  " + ", ".join(second)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Any:
        try:
            from ldm_viz import explore

            widget = explore(self)
        except (ImportError, AttributeError):
            return self._static_mimebundle()
        return widget._repr_mimebundle_(include=include, exclude=exclude)

    def _static_mimebundle(self) -> dict[str, Any]:
        bundle: dict[str, Any] = {"text/plain": repr(self)}
        pictures = self.images
        if pictures is None and self.frames:
            pictures = next(iter(self.frames.values()))[-1]
        if pictures is not None and pictures.ndim == 5:
            pictures = middle_frame(pictures)
        if pictures is not None and len(pictures):
            bundle["image/png"] = encode_image(np.concatenate(list(pictures), axis=1), format="png")
        return bundle


def steps_in_words(trajectory: Trajectory) -> str:
    """How many steps, and of a slice, which: ``10 steps (5 to 14 of 25)``."""
    count = len(trajectory)
    text = f"{count} step" if count == 1 else f"{count} steps"
    if trajectory.part is None:
        return text
    start, stop, steps = trajectory.part
    which = f"{start} to {stop - 1}" if count > 1 else f"{start}" if count else "none"
    return f"{text} ({which} of {steps})"


def _restore(state: dict[str, Any]) -> Trajectory:
    return Trajectory(**state)


def _select_settings(settings: Mapping[str, Any], index: int, batch: int) -> dict[str, Any]:
    """The settings of one sample; diffusers repeats each prompt for its pictures in a row."""
    chosen = dict(settings) | {"num_images_per_prompt": 1, "batch_index": index}
    for name in ("prompt", "negative_prompt", "seed"):
        values = settings.get(name)
        if isinstance(values, list) and values and batch % len(values) == 0:
            chosen[name] = values[index * len(values) // batch]
    return chosen


def _read_only(name: str, array: Any, kind: str) -> np.ndarray:
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{name} must be a numpy array, not {type(array).__name__}.")
    if array.dtype not in DTYPE_NAMES or array.dtype.kind != kind:
        kinds = {"f": "float16, float32 or float64", "u": "uint8"}
        raise ValueError(f"{name} must hold {kinds[kind]}, not {array.dtype}.")
    view = array.view()
    view.flags.writeable = False
    return view


def _picture(axes: int) -> tuple[int | None, ...]:
    """The shape of a picture, ``(h, w, 3)``, or of a video, ``(f, h, w, 3)``."""
    return (None, None, None, 3) if axes == 4 else (None, None, 3)


def _shaped(name: str, array: Any, expected: tuple[int | None, ...]) -> Any:
    fits = len(array.shape) == len(expected) and all(
        wanted is None or found == wanted
        for found, wanted in zip(array.shape, expected, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if size is None else str(size) for size in expected)
        raise ValueError(f"{name} has shape {array.shape}, expected ({wanted}) to fit the latents.")
    return array


def _plain(value: Any) -> Any:
    """A value as JSON can hold it; what it cannot hold becomes its text."""
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else str(float(value))
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    return str(value)


def _std(array: np.ndarray) -> float:
    return float(np.std(array, dtype=np.float64)) if array.size else math.nan
