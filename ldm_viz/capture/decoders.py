"""What turns latents into pictures: the autoencoder, a small one, a linear map, or a function."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import PIL.Image
import torch

from ..latent_layouts import LatentLayout
from ..trajectory import Trajectory
from .autoencoders import aside, channels_of, decoded, execution_device, frames_first
from .calls import DecoderCall, frozen_generators
from .finding import holds_pixels, run_layout, why_not
from .hooks import activated
from .linear import enlarging, linear_map
from .scaling import Decoding
from .settings import to_bytes

METHODS = ("exact", "linear")

# Pixels decoded together. On an accelerator two 512 × 512 pictures, which take about 2 GiB in Stable
# Diffusion's decoder. A processor gains nothing by more than fills its cores, and loses its caches.
_PIXELS_AT_ONCE = {"cpu": 1 << 16, "": 1 << 19}
_LINEAR_PIXELS = 1 << 22
_SMALL_LATENTS = 1 << 15  # pixels of latents, for a small autoencoder or a function


def _at_once(device: torch.device, pixels: int) -> int:
    """Pictures of so many pixels that are decoded together."""
    return max(1, _PIXELS_AT_ONCE.get(device.type, _PIXELS_AT_ONCE[""]) // max(1, pixels))


class Decoder:
    """Turns latents into pictures.

    Attributes:
        source: What :attr:`Trajectory.frames_source` calls it.
        picture_shape: Shape of one picture or video, where it can be foreseen.
        at_once: How many latents are decoded together.
        coarse: Makes the same pictures in the latents' own resolution, where those are an
            enlargement of these; else None.
        whole_batches: Whether only the whole batch of a step can be decoded.
    """

    source = ""
    picture_shape: tuple[int, ...] | None = None
    at_once = 1
    coarse: Decoder | None = None
    whole_batches = False

    def decode(self, latents: np.ndarray) -> np.ndarray:
        """``(n, *latent)`` to ``(n, h, w, 3)``, or ``(n, f, h, w, 3)`` for videos, uint8."""
        raise NotImplementedError

    def decode_last(self, latents: np.ndarray) -> np.ndarray:
        """The same, of the whole batch of latents that the pipeline itself decodes at the end."""
        return self.decode(latents)


def make_decoder(
    pipe: Any, trajectory: Trajectory, method: Any, decoding: Decoding | None
) -> Decoder:
    """What decodes a run's latents.

    Args:
        pipe: The pipeline.
        trajectory: The run.
        method: As :func:`decode_frames` takes it.
        decoding: How its latents are decoded, if that is known.

    Raises:
        ValueError: The latents are not those of pictures, or of this pipeline's autoencoder.
    """
    if method == "exact" and holds_pixels(pipe, trajectory):
        return _Pixels(trajectory)
    if decoding is None and method in METHODS:
        raise ValueError(why_not(pipe, trajectory))
    if method == "exact":
        return _Exact(pipe, trajectory, decoding)
    if method == "linear":
        return _Linear(pipe, trajectory, decoding)
    layout = decoding.layout if decoding is not None else run_layout(trajectory)
    if layout is None:
        raise ValueError(why_not(pipe, trajectory))
    return _Given(method, trajectory, layout)


class _Pixels(Decoder):
    source = "exact"
    at_once = 64

    def __init__(self, trajectory: Trajectory) -> None:
        self.picture_shape = (*trajectory.latent_shape[1:], 3)

    def decode(self, latents: np.ndarray) -> np.ndarray:
        return _pictures(torch.from_numpy(latents))


class _Exact(Decoder):
    source = "exact"

    def __init__(self, pipe: Any, trajectory: Trajectory, decoding: Any) -> None:
        self._decoding: Decoding = decoding
        self._calls = decoding.calls
        self._chunks = decoding.chunks
        self.whole_batches = decoding.takes_one_run or bool(self._chunks)
        # Offloaded models come and go by the pipeline's hooks; else the rest of it is not needed.
        self._pipe = pipe if getattr(pipe, "_all_hooks", None) else None
        self._batch = trajectory.batch_size
        self._images = trajectory.images
        # Those with a scaling factor give values from -1 to 1, as all of Stable Diffusion's kin;
        # Würstchen's, which has a scale instead, from 0 to 1.
        config = decoding.vae.config
        self._in_unit_range: bool | None = None
        if hasattr(config, "scaling_factor") or trajectory.images is None:
            self._in_unit_range = hasattr(config, "scale_factor") and not hasattr(
                config, "scaling_factor"
            )
        pixels = math.prod(_planes_shape(trajectory, decoding.layout)[1:])
        pixels *= _picture_scale(pipe, decoding.calls, decoding.layout) ** 2
        if decoding.calls:
            self.picture_shape = _shape_seen(decoding, self._batch)
            pixels = math.prod(self.picture_shape[:-1])
        self.at_once = _at_once(execution_device(decoding.vae), pixels)

    def decode(self, latents: np.ndarray) -> np.ndarray:
        with self._ready() as device:
            given = self._decoding.prepare(torch.tensor(latents, device=device))
            vae = self._decoding.vae
            images = [decoded(vae, part, a, kw) for part, a, kw in self._parts(given)]
            image = torch.cat(images) if len(images) > 1 else images[0]
            if self._in_unit_range is None:
                self._compare_with_images(device)
            return self._shown(image, len(latents), bool(self._in_unit_range))

    def _parts(self, given: torch.Tensor) -> Iterator[tuple[torch.Tensor, tuple, dict[str, Any]]]:
        """What is decoded in one call each, with its arguments: all, or chunks as in the run."""
        how: list[Any] = self._chunks or [self._decoding]
        sizes = [len(call.latents) for call in self._chunks] or [len(given)]
        for part, one in zip(given.split(sizes), how, strict=True):
            yield part, one.args, frozen_generators(one.kwargs)

    def decode_last(self, latents: np.ndarray) -> np.ndarray:
        if not self._calls:
            return self.decode(latents)
        with self._ready() as device:
            if self._in_unit_range is None:
                self._compare_with_images(device)
            return self._shown(self._replayed(device), len(latents), bool(self._in_unit_range))

    def _replayed(self, device: torch.device) -> torch.Tensor:
        """What the pipeline itself decoded, once more."""
        images = [
            decoded(call.vae, call.latents.to(device), call.args, frozen_generators(call.kwargs))
            for call in self._calls
        ]
        return torch.cat(images)

    def _compare_with_images(self, device: torch.device) -> None:
        """Finds whether the decoder gives values from 0 to 1: which makes the pipeline's pictures?"""
        self._in_unit_range = False
        if not self._calls or self._images is None:
            return
        image = self._replayed(device)
        shown = [self._shown(image, self._batch, unit) for unit in (False, True)]
        if shown[0].shape == self._images.shape:
            errors = [np.abs(made - self._images.astype(float)).mean() for made in shown]
            self._in_unit_range = bool(errors[1] < errors[0])

    def _shown(self, image: torch.Tensor, count: int, unit: bool) -> np.ndarray:
        pictures = _pictures(image, denormalise=not unit)
        if self._decoding.layout.is_video:
            return pictures.reshape(count, -1, *pictures.shape[1:])
        return pictures

    @contextmanager
    def _ready(self) -> Iterator[torch.device]:
        """Casts and offloads as the pipeline's own decoding does, and puts things back."""
        vae, dtype = self._decoding.vae, self._decoding.working_dtype
        before, device = vae.dtype, execution_device(vae)
        with aside(device):
            try:
                if before != dtype:
                    vae.to(dtype=dtype)
                yield device
            finally:
                if before != dtype:
                    vae.to(dtype=before)
                if self._pipe is not None:
                    self._pipe.maybe_free_model_hooks()


def _pictures(image: torch.Tensor, denormalise: bool = True) -> np.ndarray:
    """``(n, c, h, w)`` in [-1, 1] as ``(n, h, w, 3)`` uint8, rounded as diffusers does."""
    image = image * 0.5 + 0.5 if denormalise else image
    return to_bytes(image.clamp(0, 1).cpu().permute(0, 2, 3, 1).float().numpy())


def _shape_seen(decoding: Decoding, batch: int) -> tuple[int, ...]:
    """Shape of a picture or video, as the pipeline itself decoded it."""
    shape = decoding.calls[-1].shape
    frames = sum(call.shape[0] for call in decoding.calls) // batch
    if len(shape) == 5:
        frames = frames_first(torch.empty(shape, device="meta")).shape[1]
    return (*((frames,) if decoding.layout.is_video else ()), *shape[-2:], 3)


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


class _Planes(Decoder):
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
        scale = _picture_scale(pipe, decoding.calls, decoding.layout)
        self._weights = torch.from_numpy(linear_map(decoding, scale)).float()
        self._device = execution_device(decoding.vae)
        self._enlarge(1)
        self.coarse = copy.copy(self)
        self._enlarge(scale)

    def _enlarge(self, scale: int) -> None:
        self._scale = scale
        sides = [side * scale for side in self._shape[-2:]]
        self.picture_shape = (*self._shape[1:-2], *sides, 3)
        self.at_once = max(1, _LINEAR_PIXELS // math.prod(self.picture_shape[:-1]))

    def decode_planes(self, planes: np.ndarray) -> np.ndarray:
        with aside(self._device):
            weights = self._weights.to(self._device)
            tensor = torch.from_numpy(planes).to(self._device)
            n, c, h, w = tensor.shape
            colours = weights[:-1].T @ tensor.reshape(n, c, h * w) + weights[-1].view(3, 1)
            if self._scale == 1:
                return _pictures(colours.reshape(n, 3, h, w))
            rows, columns = (enlarging(side, self._scale).to(self._device) for side in (h, w))
            return _pictures(rows @ colours.reshape(n, 3, h, w) @ columns.T)


class _Given(_Planes):
    """What the user handed over: a small autoencoder, or a function."""

    def __init__(self, method: Any, trajectory: Trajectory, layout: LatentLayout) -> None:
        super().__init__(trajectory, layout)
        self._method = method
        is_module = isinstance(method, torch.nn.Module) and hasattr(method, "decode")
        self.source = "tiny" if is_module else "custom"
        self._decode = self._by_module if is_module else self._by_function
        self.at_once = max(1, _SMALL_LATENTS // math.prod(self._shape[1:]))

    def decode_planes(self, planes: np.ndarray) -> np.ndarray:
        return self._decode(torch.from_numpy(planes))

    def _by_module(self, planes: torch.Tensor) -> np.ndarray:
        module, device = self._method, execution_device(self._method)
        channels = channels_of(module)
        if channels is not None and channels != planes.shape[1]:
            raise ValueError(
                f"This {type(module).__name__} decodes latents of {channels} channels; the run's have "
                f"{planes.shape[1]}. Use the one that was made for this model."
            )
        with aside(device):
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
                f"3), or as many PIL pictures; this one gave {made.dtype} of {made.shape}. Mend it and "
                "decode what was recorded: ldm_viz.Recorder(pipe).decode(run, function)."
            )
        return made
