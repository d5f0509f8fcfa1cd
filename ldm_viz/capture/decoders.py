"""Latents to pictures, when they are looked at: by the autoencoder, a small one, or a linear map."""

from __future__ import annotations

import functools
import math
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import PIL.Image
import torch
from torch.nn.functional import interpolate
from tqdm.auto import tqdm

from ..latent_layouts import LatentLayout, guess_layout, known_layouts
from ..trajectory import FrameSeries, Trajectory
from ..trajectory.frames import FrameSource
from .calls import DecoderCall, frozen_generators
from .hooks import activated
from .predictions import EXPLODING
from .scaling import (
    Decoding,
    channels_of,
    guess_decoding,
    is_autoencoder,
    learn_decoding,
)
from .settings import to_bytes

METHODS = ("exact", "linear")

# Two 512 × 512 pictures: about 2 GiB in Stable Diffusion's decoder.
_PIXELS_AT_ONCE = 1 << 19


def check_method(frames: Any) -> None:
    """Refuses what cannot decode.

    Raises:
        ValueError: It is text, and not the name of a method.
        TypeError: It is neither text, nor a module with ``decode``, nor a function.
    """
    if frames is None or (isinstance(frames, str) and frames in METHODS):
        return
    if isinstance(frames, str):
        raise ValueError(
            f"frames must be 'exact', 'linear', an AutoencoderTiny, a function or None, not {frames!r}."
        )
    if not callable(frames):
        raise TypeError(
            "frames must be 'exact', 'linear', an AutoencoderTiny or a function of latents, not a "
            f"{type(frames).__name__}."
        )


def decode_frames(
    pipe: Any,
    trajectory: Trajectory,
    method: Any = "exact",
    *,
    progress: bool = True,
    calls: Sequence[DecoderCall] = (),
) -> Trajectory:
    """Returns the trajectory with a picture of the latents and of x0 for every step.

    A picture is decoded when it is looked at. The last latents are decoded as the pipeline does it,
    in a batch of the same shape, so that the last frame is the pipeline's own picture to the bit.
    Draws no random number from torch's own generators.

    Args:
        pipe: A pipeline with the autoencoder that belongs to these latents.
        trajectory: What to decode.
        method: ``"exact"`` by the pipeline's own decoder; ``"linear"`` by a map from latents to
            colours fitted to it by least squares; a small autoencoder such as diffusers'
            ``AutoencoderTiny``; or a function that takes latents ``(n, channels, h, w)``, float32, as
            the denoiser knows them, and returns ``(n, h, w, 3)`` uint8 or as many PIL pictures.
        progress: Whether decoding many shows a progress bar.
        calls: What the pipeline itself decoded at the end of this run, where that was seen.

    Raises:
        ValueError: The latents are not those of pictures, or of this pipeline's autoencoder.
    """
    check_method(method)
    decoder = _decoder(pipe, trajectory, method, calls)
    sets = {"latents": _Latents(trajectory.latents, _scales(trajectory))}
    if trajectory.x0 is not None and len(trajectory):
        sets["x0"] = _Latents(trajectory.x0, None)
    frames = {}
    for name, values in sets.items():
        numbers = np.arange(len(values) * values.batch).reshape(-1, values.batch)
        own = decoder.decode_last if name == "latents" else decoder.decode
        frames[name] = FrameSeries(_DecodedFrames(decoder, values, own, progress), numbers)
    return trajectory.replace(frames=frames, frames_source=decoder.source)


class _Latents:
    """Latents of all steps, each in the variance-preserving scale, and the last as it is."""

    def __init__(self, values: np.ndarray, scales: np.ndarray | None) -> None:
        self._values, self._scales = values, scales
        self.batch = values.shape[1]

    def __len__(self) -> int:
        return len(self._values)

    def read(self, numbers: Sequence[int]) -> np.ndarray:
        """Samples by number, ``step * batch + sample``."""
        places = [divmod(number, self.batch) for number in numbers]
        found = np.stack([self._values[place] for place in places])
        if self._scales is not None:
            scales = self._scales[[step for step, _ in places]]
            scales = scales.reshape(-1, *[1] * (found.ndim - 1))
            found = (found * scales).astype(found.dtype)
        return found


def _scales(trajectory: Trajectory) -> np.ndarray | None:
    if trajectory.settings.get("noise_schedule") != EXPLODING:
        return None
    return np.append(1 / np.sqrt(1 + np.nan_to_num(trajectory.sigmas) ** 2), 1.0)


class _DecodedFrames(FrameSource):
    """Pictures decoded from latents when they are looked at, several at a time.

    The last step's are always decoded together and alone, as the pipeline does it.
    """

    def __init__(
        self, decoder: _Decoder, latents: _Latents, decode_last: Any, progress: bool
    ) -> None:
        super().__init__()
        self._decoder, self._latents, self._progress = decoder, latents, progress
        self._decode_last = decode_last
        self._shape = decoder.picture_shape

    @property
    def picture_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """Shape of one picture; where it cannot be foreseen, the last one is decoded to see."""
        if self._shape is None:
            last = len(self._latents) * self._latents.batch - 1
            self._shape = self._read([last])[0].shape
        return self._shape

    def make(self, numbers: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Decodes, a part at a time."""
        batch, decoder = self._latents.batch, self._decoder
        last_step = len(self._latents) - 1
        steps = {number // batch for number in numbers} - {last_step}
        if decoder.whole_batches:
            parts = [[step * batch + k for k in range(batch)] for step in sorted(steps)]
        else:
            before = [number for number in numbers if number // batch in steps]
            at_once = decoder.at_once
            parts = [before[i : i + at_once] for i in range(0, len(before), at_once)]
        if any(number // batch == last_step for number in numbers):
            parts.append([last_step * batch + k for k in range(batch)])
        total = sum(map(len, parts))
        hidden = not self._progress or total <= batch
        with tqdm(total=total, desc="Decoding frames", leave=False, disable=hidden) as bar:
            for part in parts:
                decode = self._decode_last if part[0] // batch == last_step else decoder.decode
                pictures = decode(self._latents.read(part))
                if len(pictures) != len(part):
                    raise ValueError(
                        f"The decoder returned {len(pictures)} pictures for {len(part)} latents."
                    )
                yield from zip(part, pictures, strict=True)
                bar.update(len(part))


class _Decoder:
    """Turns latents into pictures.

    Attributes:
        source: What :attr:`Trajectory.frames_source` calls it.
        picture_shape: Shape of one picture or video, where it can be foreseen.
        at_once: How many latents are decoded together.
        whole_batches: Whether only the whole batch of a step can be decoded.
    """

    source = ""
    picture_shape: tuple[int, ...] | None = None
    at_once = 1
    whole_batches = False

    def decode(self, latents: np.ndarray) -> np.ndarray:
        """``(n, *latent)`` to ``(n, h, w, 3)``, or ``(n, f, h, w, 3)`` for videos, uint8."""
        raise NotImplementedError

    def decode_last(self, latents: np.ndarray) -> np.ndarray:
        """The same, of the whole batch of latents that the pipeline itself decodes at the end."""
        return self.decode(latents)


def _decoder(
    pipe: Any, trajectory: Trajectory, method: Any, calls: Sequence[DecoderCall]
) -> _Decoder:
    if method == "exact" and _holds_pixels(pipe, trajectory):
        return _Pixels(trajectory)
    decoding = find_decoding(pipe, trajectory, calls)
    if decoding is None and method in METHODS:
        raise ValueError(_no_decoding(pipe, trajectory))
    if method == "exact":
        return _Exact(pipe, trajectory, decoding)
    if method == "linear":
        return _Linear(pipe, trajectory, decoding)
    layout = decoding.layout if decoding is not None else run_layout(trajectory)
    if layout is None:
        raise ValueError(_no_decoding(pipe, trajectory))
    return _Given(method, trajectory, layout)


def find_decoding(
    pipe: Any, trajectory: Trajectory, calls: Sequence[DecoderCall] = ()
) -> Decoding | None:
    """How this run's latents become what an autoencoder of the pipeline decodes; None if unknown.

    Args:
        pipe: The pipeline.
        trajectory: The run.
        calls: What the pipeline itself decoded at its end, where that was seen.
    """
    dtype = getattr(torch, str(trajectory.settings.get("dtype", "")), None)
    dtype = dtype if isinstance(dtype, torch.dtype) else None
    by_vae: dict[int, list[DecoderCall]] = {}
    for call in calls:
        by_vae.setdefault(id(call.vae), []).append(call)
    for mine in by_vae.values():
        learned = learn_decoding(trajectory.latents[-1], mine, dtype)
        if learned is not None:
            return learned
    told, picture = trajectory.settings.get("latent_layout"), _picture_size(trajectory, pipe)
    for vae in _autoencoders(pipe):
        guessed = guess_decoding(vae, trajectory.latent_shape, picture, told)
        if guessed is not None:
            found = _as_pipelines_do(pipe, guessed, trajectory, dtype)
            return _with_calls(found, by_vae.get(id(vae), []), trajectory)
    return None


def _with_calls(
    guessed: Decoding, calls: Sequence[DecoderCall], trajectory: Trajectory
) -> Decoding:
    """With what the pipeline did decode, though it does not follow from the last latents."""
    planes = guessed.prepare(torch.from_numpy(np.array(trajectory.latents[-1])).float())
    given = [call.latents for call in calls]
    if not given or sum(map(len, given)) != len(planes) or given[0].shape[1:] != planes.shape[1:]:
        return guessed
    last = calls[-1]
    return replace(
        guessed,
        calls=tuple(calls),
        follows=False,
        dtype=last.latents.dtype,
        args=last.args,
        kwargs=dict(last.kwargs),
    )


def run_layout(trajectory: Trajectory) -> LatentLayout | None:
    """The layout of a run's latents, as it says or as shapes tell."""
    told = LatentLayout.read(trajectory.settings.get("latent_layout"))
    return told or guess_layout(trajectory.latent_shape, picture=_picture_size(trajectory))


def _autoencoders(pipe: Any) -> list[Any]:
    held = [pipe, *(v for v in vars(pipe).values() if hasattr(v, "components"))]
    parts = [part for owner in held for part in vars(owner).values()]
    return list({id(part): part for part in parts if is_autoencoder(part)}.values())


def _picture_size(trajectory: Trajectory, pipe: Any = None) -> tuple[int, int] | None:
    """Height and width of the pictures: as the settings say, or the pipeline's own default."""
    sides = [trajectory.settings.get(name) for name in ("height", "width")]
    default, scale = (getattr(pipe, n, None) for n in ("default_sample_size", "vae_scale_factor"))
    if sides == [None, None] and isinstance(default, int) and isinstance(scale, int):
        sides = [default * scale] * 2
    height, width = sides
    return (height, width) if isinstance(height, int) and isinstance(width, int) else None


def _as_pipelines_do(
    pipe: Any, guessed: Decoding, trajectory: Trajectory, dtype: torch.dtype | None
) -> Decoding:
    """With the type and the layout in memory that the pipeline's own decoding would have."""
    vae = guessed.vae
    # Only pipelines that upcast for themselves have the method; Stable Diffusion 1 and 2 decode in
    # half precision although their autoencoder's config, by default, says force_upcast.
    upcast = (
        vae.dtype == torch.float16
        and bool(getattr(vae.config, "force_upcast", False))
        and hasattr(pipe, "upcast_vae")
    )
    channels_last = trajectory.settings.get("memory_format") == "channels_last"
    return replace(
        guessed,
        loop_dtype=dtype,
        dtype=torch.float32 if upcast else None,
        memory_format=torch.channels_last if channels_last else torch.contiguous_format,
    )


def _no_decoding(pipe: Any, trajectory: Trajectory) -> str:
    vaes, shape = _autoencoders(pipe), trajectory.latent_shape
    if not vaes:
        name = type(pipe).__name__
        return f"{name} has no autoencoder (pipe.vae) to decode frames with."
    known = ", ".join(known_layouts())
    return (
        f"Latents of shape {shape} do not fit the pipeline's {type(vaes[0]).__name__}: its latents "
        f"have {channels_of(vaes[0])} channels, and layouts known are {known}. A layout of your own "
        "is one line: ldm_viz.add_layout(name, pattern)."
    )


def _holds_pixels(pipe: Any, trajectory: Trajectory) -> bool:
    """Whether the loop works on pictures themselves: there is nothing to decode with."""
    shape = trajectory.latent_shape
    return len(shape) == 3 and shape[0] in (1, 3) and not _autoencoders(pipe)


class _Pixels(_Decoder):
    source = "exact"
    at_once = 64

    def __init__(self, trajectory: Trajectory) -> None:
        self.picture_shape = (*trajectory.latent_shape[1:], 3)

    def decode(self, latents: np.ndarray) -> np.ndarray:
        return _pictures(torch.from_numpy(latents))


class _Exact(_Decoder):
    source = "exact"

    def __init__(self, pipe: Any, trajectory: Trajectory, decoding: Any) -> None:
        self._decoding: Decoding = decoding
        self._calls = decoding.calls
        self.whole_batches = decoding.takes_one_run
        # Offloaded models come and go by the pipeline's hooks; else the rest of it is not needed.
        self._pipe = pipe if getattr(pipe, "_all_hooks", None) else None
        self._batch = trajectory.batch_size
        self._images = trajectory.images
        self._in_unit_range: bool | None = (
            False if hasattr(decoding.vae.config, "scaling_factor") else None
        )
        pixels = math.prod(_planes_shape(trajectory, decoding.layout)[1:])
        pixels *= _picture_scale(pipe, decoding.calls, decoding.layout) ** 2
        if decoding.calls:
            shape = decoding.calls[-1].shape
            count = sum(call.shape[0] for call in decoding.calls) // self._batch
            frames = shape[2] if len(shape) == 5 else count
            video = decoding.layout.is_video
            self.picture_shape = (*((frames,) if video else ()), *shape[-2:], 3)
            pixels = math.prod(self.picture_shape[:-1])
        self.at_once = max(1, _PIXELS_AT_ONCE // pixels)

    def decode(self, latents: np.ndarray) -> np.ndarray:
        with self._ready() as device:
            given = self._decoding.prepare(torch.tensor(latents, device=device))
            image = self._decoded(given, self._decoding.args, self._decoding.kwargs)
            return self._shown(image, len(latents))

    def decode_last(self, latents: np.ndarray) -> np.ndarray:
        if not self._calls:
            return self.decode(latents)
        with self._ready() as device:
            images = [
                self._decoded(call.latents.to(device), call.args, frozen_generators(call.kwargs))
                for call in self._calls
            ]
            return self._shown(torch.cat(images), len(latents))

    def _decoded(self, given: torch.Tensor, args: tuple, kwargs: dict[str, Any]) -> torch.Tensor:
        output = self._decoding.vae.decode(given, *args, **kwargs)
        return output[0] if isinstance(output, tuple) else output.sample

    def _shown(self, image: torch.Tensor, count: int) -> np.ndarray:
        if self._decoding.form == "video of one frame":
            image = image[:, :, 0]
        elif image.ndim == 5:
            image = image.transpose(1, 2).flatten(0, 1)
        if self._in_unit_range is None:
            self._in_unit_range = self._is_in_unit_range(image)
        pictures = _pictures(image, denormalise=not self._in_unit_range)
        if self._decoding.layout.is_video:
            return pictures.reshape(count, -1, *pictures.shape[1:])
        return pictures

    def _is_in_unit_range(self, image: torch.Tensor) -> bool:
        """Whether a decoder gives values from 0 to 1, not from -1 to 1; its extremes tell."""
        low, high = image.min().item(), image.max().item()
        return low > -0.25 and high <= 1.25

    @contextmanager
    def _ready(self) -> Iterator[torch.device]:
        """Casts and offloads as the pipeline's own decoding does, and puts things back."""
        vae, dtype = self._decoding.vae, self._decoding.working_dtype
        before, device = vae.dtype, execution_device(vae)
        with _aside(device):
            try:
                if before != dtype:
                    vae.to(dtype=dtype)
                yield device
            finally:
                if before != dtype:
                    vae.to(dtype=before)
                if self._pipe is not None:
                    self._pipe.maybe_free_model_hooks()


@contextmanager
def _aside(device: torch.device) -> Iterator[None]:
    """Nothing in here is part of a recorded run, is differentiated, or draws from torch's generators."""
    devices = [device] if device.type == "cuda" else []
    with activated(None), torch.no_grad(), torch.random.fork_rng(devices=devices):
        yield


def execution_device(module: Any) -> torch.device:
    """Where a module computes, which for an offloaded one is not where its weights are."""
    for part in module.modules():
        device = getattr(getattr(part, "_hf_hook", None), "execution_device", None)
        if device is not None:
            return torch.device(device)
    return next(module.parameters()).device


def _pictures(image: torch.Tensor, denormalise: bool = True) -> np.ndarray:
    """``(n, c, h, w)`` in [-1, 1] as ``(n, h, w, 3)`` uint8, rounded as diffusers does."""
    image = image * 0.5 + 0.5 if denormalise else image
    return to_bytes(image.clamp(0, 1).cpu().permute(0, 2, 3, 1).float().numpy())


def _planes_shape(trajectory: Trajectory, layout: LatentLayout) -> tuple[int, ...]:
    """``(c, h, w)``, or ``(c, f, h, w)`` for a video."""
    return layout.unpack(np.empty(trajectory.latent_shape, np.bool_)).shape


def _picture_scale(pipe: Any, calls: Sequence[DecoderCall], layout: LatentLayout) -> int:
    """Pixels of a picture's side for one of the latents'."""
    if calls:
        return max(1, round(calls[-1].shape[-1] / calls[-1].latents.shape[-1]))
    for name in ("vae_scale_factor", "vae_scale_factor_spatial"):
        found = getattr(pipe, name, None)
        if isinstance(found, int):
            return found
    return 8


# What the map was fitted to stays the same while the autoencoder lives.
_maps: weakref.WeakKeyDictionary[Any, np.ndarray] = weakref.WeakKeyDictionary()


def linear_map(decoding: Decoding, scale: int) -> np.ndarray:
    """The affine map from a latent pixel to a colour that comes nearest to an autoencoder.

    It is fitted, once for each autoencoder, to what that makes of a few smooth drawings and of a
    few smooth random latents. Both are always the same, so it does not depend on the run.

    Args:
        decoding: How latents are decoded.
        scale: Pixels of a picture's side for one of the latents'.

    Returns:
        ``(channels + 1, 3)``, for planes as the denoiser knows them and a constant 1, to colours
        in [-1, 1].
    """
    vae = decoding.vae
    if vae not in _maps:
        device = execution_device(vae)
        with _aside(device):
            planes = _examples(decoding, scale, device)
            colours = _decode_examples(decoding, planes)
            inputs, targets = _pixels(planes), _pixels(colours)
        inputs = np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1)
        _maps[vae] = np.linalg.lstsq(inputs, targets, rcond=None)[0]
    return _maps[vae]


def _pixels(images: torch.Tensor) -> np.ndarray:
    return images.permute(0, 2, 3, 1).flatten(0, 2).double().cpu().numpy()


def _decode_examples(decoding: Decoding, planes: torch.Tensor) -> torch.Tensor:
    """Colours ``(n, 3, h, w)`` in [-1, 1] that the autoencoder makes of ``(n, c, h, w)``."""
    vae = decoding.vae
    given = _as_taken(decoding, decoding.unscaled(_like_run(decoding, planes)))
    args, kwargs = ((), {}) if decoding.takes_one_run else (decoding.args, decoding.kwargs)
    output = vae.decode(given.to(vae.dtype), *args, **kwargs)
    pictures = (output[0] if isinstance(output, tuple) else output.sample).float()
    pictures = pictures[:, :, 0] if pictures.ndim == 5 else pictures
    colours = interpolate(pictures.clamp(-1, 1), planes.shape[-2:], mode="area")
    return colours.expand(-1, 3, -1, -1) if colours.shape[1] == 1 else colours[:, :3]


def _like_run(decoding: Decoding, planes: torch.Tensor) -> torch.Tensor:
    """Pictures' planes as the run has them: of a video, one frame."""
    return planes.unsqueeze(2) if decoding.layout.is_video else planes


def _as_taken(decoding: Decoding, planes: torch.Tensor) -> torch.Tensor:
    """Planes, of pictures or of one frame, in the form that ``decode`` takes."""
    if decoding.form == "batch of frames":
        return planes[:, :, 0]
    return planes.unsqueeze(2) if decoding.form == "video of one frame" else planes


def _examples(decoding: Decoding, scale: int, device: torch.device) -> torch.Tensor:
    """Latents to fit on, ``(4, c, 16, 16)``, as the denoiser knows them; without encoder 2."""
    vae = decoding.vae
    generator = torch.Generator().manual_seed(0)  # our own: the global one is the user's

    def smooth(channels: int) -> torch.Tensor:
        coarse = torch.randn(2, channels, 5, 5, generator=generator)
        fine = interpolate(coarse, (16, 16), mode="bicubic", align_corners=True)
        return fine.to(device)

    channels = channels_of(vae) or decoding.layout.sizes["c"]
    examples = [smooth(channels)]
    if hasattr(vae, "encode"):
        drawings = interpolate(smooth(3), scale_factor=scale).clamp(-1, 1).to(vae.dtype)
        takes_video = decoding.form != "batch of frames" and (
            decoding.layout.is_video or decoding.form == "video of one frame"
        )
        encoded = vae.encode(drawings.unsqueeze(2) if takes_video else drawings)
        latents = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded[0]
        latents = (latents[:, :, 0] if latents.ndim == 5 else latents).float()
        if latents.shape[1:] == examples[0].shape[1:]:
            examples.append(_rescaled(decoding, latents))
    return torch.cat(examples)


def _rescaled(decoding: Decoding, latents: torch.Tensor) -> torch.Tensor:
    """The inverse of the scaling, which is affine."""
    zero, one = (
        decoding.unscaled(_like_run(decoding, torch.full_like(latents, value)))
        for value in (0.0, 1.0)
    )
    zero, one = (v[:, :, 0] if v.ndim == 5 else v for v in (zero, one))
    return (latents - zero) / (one - zero)


class _Planes(_Decoder):
    """Decodes pictures' planes ``(n, c, h, w)``; a video frame by frame."""

    def __init__(self, trajectory: Trajectory, layout: LatentLayout) -> None:
        self._layout = layout
        self._shape = _planes_shape(trajectory, layout)

    def decode(self, latents: np.ndarray) -> np.ndarray:
        planes = self._layout.unpack(latents)
        if self._layout.is_video:
            planes = planes.swapaxes(1, 2).reshape(-1, *self._shape[:1], *self._shape[-2:])
        pictures = self.decode_planes(np.ascontiguousarray(planes, dtype=np.float32))
        if self._layout.is_video:
            return pictures.reshape(len(latents), -1, *pictures.shape[1:])
        return pictures

    def decode_planes(self, planes: np.ndarray) -> np.ndarray:
        """``(n, c, h, w)`` float32 to ``(n, h, w, 3)`` uint8."""
        raise NotImplementedError


class _Linear(_Planes):
    source = "linear"

    def __init__(self, pipe: Any, trajectory: Trajectory, decoding: Any) -> None:
        super().__init__(trajectory, decoding.layout)
        self._scale = _picture_scale(pipe, decoding.calls, decoding.layout)
        weights = linear_map(decoding, self._scale)
        self._weights = torch.from_numpy(weights).float()
        self._device = execution_device(decoding.vae)
        sides = [side * self._scale for side in self._shape[-2:]]
        self.picture_shape = (*self._shape[1:-2], *sides, 3)
        self.at_once = max(1, 16 * _PIXELS_AT_ONCE // math.prod(self.picture_shape[:-1]))

    def decode_planes(self, planes: np.ndarray) -> np.ndarray:
        with _aside(self._device):
            weights = self._weights.to(self._device)
            tensor = torch.from_numpy(planes).to(self._device)
            n, c, h, w = tensor.shape
            colours = weights[:-1].T @ tensor.reshape(n, c, h * w) + weights[-1].view(3, 1)
            rows, columns = (_enlarging(side, self._scale).to(self._device) for side in (h, w))
            return _pictures(rows @ colours.reshape(n, 3, h, w) @ columns.T)


@functools.cache
def _enlarging(side: int, scale: int) -> torch.Tensor:
    """Bicubic enlargement of one axis as a matrix, ``(side * scale, side)``: much the faster way."""
    unit = torch.eye(side)[None, None]
    return interpolate(unit, size=(side * scale, side), mode="bicubic")[0, 0]


class _Given(_Planes):
    """What the user handed over: a small autoencoder, or a function."""

    def __init__(self, method: Any, trajectory: Trajectory, layout: LatentLayout) -> None:
        super().__init__(trajectory, layout)
        self._method = method
        is_module = isinstance(method, torch.nn.Module) and hasattr(method, "decode")
        self.source = "tiny" if is_module else "custom"
        self._decode = self._by_module if is_module else self._by_function
        self.at_once = max(1, 8 * _PIXELS_AT_ONCE // (64 * math.prod(self._shape[1:])))

    def decode_planes(self, planes: np.ndarray) -> np.ndarray:
        return self._decode(torch.from_numpy(planes))

    def _by_module(self, planes: torch.Tensor) -> np.ndarray:
        module, device = self._method, execution_device(self._method)
        with _aside(device):
            output = module.decode(planes.to(device, next(module.parameters()).dtype))
            return _pictures(output[0] if isinstance(output, tuple) else output.sample)

    def _by_function(self, planes: torch.Tensor) -> np.ndarray:
        with activated(None):
            made = self._method(planes)
        if isinstance(made, list | tuple) and all(isinstance(m, PIL.Image.Image) for m in made):
            made = np.stack([np.asarray(picture.convert("RGB")) for picture in made])
        made = made.detach().cpu().numpy() if isinstance(made, torch.Tensor) else np.asarray(made)
        if made.dtype != np.uint8 or made.shape[:1] != planes.shape[:1] or made.shape[3:] != (3,):
            raise ValueError(
                f"A function for frames must return uint8 pictures of shape ({len(planes)}, h, w, "
                f"3), or as many PIL pictures; this one gave {made.dtype} of {made.shape}."
            )
        return made
