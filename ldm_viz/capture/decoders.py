"""Latents to pictures, after the run: exactly, or by a linear map that costs almost nothing."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.nn.functional import interpolate
from tqdm.auto import tqdm

from ..trajectory import Trajectory
from .predictions import EXPLODING
from .settings import to_bytes

METHODS = ("exact", "linear")

_PIXELS_AT_ONCE = 1 << 19  # two 512 × 512 pictures: about 2 GiB in Stable Diffusion's decoder


def decode_frames(
    pipe: Any, trajectory: Trajectory, method: str = "exact", *, progress: bool = True
) -> Trajectory:
    """Returns the trajectory with a picture of the latents and of x0 for every step.

    The last latents are decoded as the pipeline does it, in a batch of the same shape, so that the
    last frame is the pipeline's own picture to the bit. Draws no random number from torch's own
    generators.

    Args:
        pipe: A pipeline with the autoencoder that belongs to these latents.
        trajectory: What to decode.
        method: ``"exact"`` by the pipeline's own decoder, or ``"linear"`` by a map from latents to
            colours fitted to it by least squares.
        progress: Whether to show a progress bar.

    Raises:
        ValueError: The latents are not pictures' latents of this pipeline's autoencoder.
    """
    if method not in METHODS:
        raise ValueError(
            f"frames can be decoded {' or '.join(map(repr, METHODS))}, not {method!r}."
        )
    vae = _autoencoder(pipe, trajectory)
    sets = {"latents": _as_decodable(trajectory)}
    if trajectory.x0 is not None and len(trajectory):
        sets["x0"] = trajectory.x0
    with torch.no_grad(), _ready_to_decode(pipe, vae, upcast=method == "exact"):
        layout = trajectory.settings.get("memory_format")
        decode = _exact(pipe, vae, layout) if method == "exact" else _linear(pipe, vae)
        frames = _decode_all(sets, decode, _at_once(pipe, trajectory), progress)
    return trajectory.replace(frames=frames, frames_source=method)


def _autoencoder(pipe: Any, trajectory: Trajectory) -> Any:
    vae: Any = getattr(pipe, "vae", None)
    if not callable(getattr(vae, "decode", None)):
        name = type(pipe).__name__
        raise ValueError(f"{name} has no autoencoder (pipe.vae) to decode frames with.")
    channels = getattr(vae.config, "latent_channels", None)
    shape = trajectory.latent_shape
    if len(shape) != 3 or (channels is not None and shape[0] != channels):
        raise ValueError(
            "Frames can be decoded from latents of shape (channels, h, w), with this autoencoder's "
            f"{channels} channels; these are {shape}."
        )
    return vae


def _as_decodable(trajectory: Trajectory) -> np.ndarray:
    """Latents in the variance-preserving scale; the last as the pipeline decodes them."""
    if trajectory.settings.get("noise_schedule") != EXPLODING:
        return trajectory.latents
    scale = np.append(1 / np.sqrt(1 + np.nan_to_num(trajectory.sigmas) ** 2), 1.0)
    scale = scale.reshape(-1, *[1] * (trajectory.latents.ndim - 1))
    return (trajectory.latents * scale).astype(trajectory.latents.dtype)


def _at_once(pipe: Any, trajectory: Trajectory) -> int:
    height, width = trajectory.latent_shape[-2:]
    pixels = trajectory.batch_size * height * width * _picture_scale(pipe) ** 2
    return max(1, _PIXELS_AT_ONCE // pixels)


def _decode_all(
    sets: dict[str, np.ndarray],
    decode: Callable[[np.ndarray], np.ndarray],
    at_once: int,
    progress: bool,
) -> dict[str, np.ndarray]:
    """Decodes ``(n, b, c, h, w)`` several steps at a time, the last step always alone."""
    frames = {}
    total = sum(map(len, sets.values()))
    with tqdm(total=total, desc="Decoding frames", leave=False, disable=not progress) as bar:
        for name, latents in sets.items():
            last = len(latents) - 1
            cuts = [*range(0, last, at_once), last, last + 1]
            parts = []
            for begin, end in itertools.pairwise(cuts):
                part = latents[begin:end]
                pictures = decode(part.reshape(-1, *part.shape[2:]))
                parts.append(pictures.reshape(*part.shape[:2], *pictures.shape[1:]))
                bar.update(len(part))
            frames[name] = np.concatenate(parts)
    return frames


@contextmanager
def _ready_to_decode(pipe: Any, vae: Any, upcast: bool) -> Iterator[None]:
    """Casts and offloads as the pipeline's own decoding does, and puts things back."""
    # Only pipelines that upcast for themselves have the method; Stable Diffusion 1 and 2 decode in
    # half precision although their autoencoder's config, by default, says force_upcast.
    upcast = (
        upcast
        and vae.dtype == torch.float16
        and bool(getattr(vae.config, "force_upcast", False))
        and hasattr(pipe, "upcast_vae")
    )
    try:
        if upcast:
            vae.to(dtype=torch.float32)
        yield
    finally:
        if upcast:
            vae.to(dtype=torch.float16)
        if getattr(pipe, "_all_hooks", None):
            pipe.maybe_free_model_hooks()


def _unscaled(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """Latents as the denoiser knows them to latents as the autoencoder knows them."""
    config = vae.config
    factor = getattr(config, "scaling_factor", None) or 1.0
    mean, std = getattr(config, "latents_mean", None), getattr(config, "latents_std", None)
    if mean is not None and std is not None:
        mean, std = (torch.tensor(v).view(1, -1, 1, 1).to(latents) for v in (mean, std))
        return latents * std / factor + mean
    shift = getattr(config, "shift_factor", None)
    return latents / factor + shift if shift else latents / factor


def _exact(pipe: Any, vae: Any, layout: str | None) -> Callable[[np.ndarray], np.ndarray]:
    # Convolutions round differently when their input lies differently in memory.
    channels_last = layout == "channels_last"
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    device = pipe._execution_device

    def decode(latents: np.ndarray) -> np.ndarray:
        tensor = torch.tensor(latents, dtype=vae.dtype, device=device)
        tensor = _unscaled(vae, tensor.contiguous(memory_format=memory_format))
        return _pictures(pipe, vae.decode(tensor, return_dict=False)[0])

    return decode


def _pictures(pipe: Any, image: torch.Tensor) -> np.ndarray:
    processor = getattr(pipe, "image_processor", None)
    if processor is None:
        image = (image / 2 + 0.5).clamp(0, 1)
        return to_bytes(image.cpu().permute(0, 2, 3, 1).float().numpy())
    return to_bytes(processor.postprocess(image, "np", do_denormalize=[True] * len(image)))


_maps: weakref.WeakKeyDictionary[Any, np.ndarray] = weakref.WeakKeyDictionary()


def linear_map(pipe: Any, vae: Any) -> np.ndarray:
    """The affine map from a latent pixel to a colour that comes nearest to an autoencoder.

    It is fitted, once for each autoencoder, to what that makes of a few smooth drawings and of a
    few smooth random latents. Both are always the same, so it does not depend on the run.

    Args:
        pipe: The pipeline, for its device.
        vae: Its autoencoder.

    Returns:
        ``(channels + 1, 3)``, for latents as the denoiser knows them and a constant 1, to colours
        in [-1, 1].
    """
    if vae not in _maps:
        latents = _examples(pipe, vae)
        with torch.no_grad():
            pictures = vae.decode(_unscaled(vae, latents).to(vae.dtype), return_dict=False)[0]
        colours = interpolate(pictures.float().clamp(-1, 1), latents.shape[-2:], mode="area")
        inputs, targets = _pixels(latents), _pixels(colours[:, :3])
        inputs = np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1)
        _maps[vae] = np.linalg.lstsq(inputs, targets, rcond=None)[0]
    return _maps[vae]


def _pixels(images: torch.Tensor) -> np.ndarray:
    return images.permute(0, 2, 3, 1).flatten(0, 2).double().cpu().numpy()


def _examples(pipe: Any, vae: Any) -> torch.Tensor:
    """Latents to fit on, ``(8, c, 16, 16)``, as the denoiser knows them; without encoder 4."""
    generator = torch.Generator().manual_seed(0)  # our own: the global one is the user's

    def smooth(channels: int) -> torch.Tensor:
        coarse = torch.randn(4, channels, 5, 5, generator=generator)
        fine = interpolate(coarse, (16, 16), mode="bicubic", align_corners=True)
        return fine.to(pipe._execution_device)

    examples = [smooth(vae.config.latent_channels)]
    if hasattr(vae, "encode"):
        drawings = interpolate(smooth(3), scale_factor=_picture_scale(pipe)).clamp(-1, 1)
        with torch.no_grad():
            encoded = vae.encode(drawings.to(vae.dtype))
        latents = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
        examples.append(_rescaled(vae, latents.float()))
    return torch.cat(examples)


def _rescaled(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """The inverse of :func:`_unscaled`."""
    zero, one = (_unscaled(vae, torch.full_like(latents, value)) for value in (0.0, 1.0))
    return (latents - zero) / (one - zero)


def _linear(pipe: Any, vae: Any) -> Callable[[np.ndarray], np.ndarray]:
    weights = torch.from_numpy(linear_map(pipe, vae)).float()
    scale = _picture_scale(pipe)

    def decode(latents: np.ndarray) -> np.ndarray:
        tensor = torch.tensor(latents, dtype=torch.float32)
        colours = torch.einsum("nchw,co->nohw", tensor, weights[:-1]) + weights[-1].view(1, 3, 1, 1)
        images = interpolate(colours, scale_factor=scale, mode="bicubic")
        return to_bytes((images / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy())

    return decode


def _picture_scale(pipe: Any) -> int:
    return getattr(pipe, "vae_scale_factor", 8)
