"""The affine map from a latent pixel to a colour that comes nearest to an autoencoder."""

from __future__ import annotations

import functools
import weakref
from typing import Any

import numpy as np
import torch
from torch.nn.functional import interpolate

from .autoencoders import aside, channels_of, decoded, execution_device
from .scaling import Decoding

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
        with aside(device):
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
    kwargs = {name: 1 if name == "num_frames" else value for name, value in kwargs.items()}
    pictures = decoded(vae, given.to(vae.dtype), args, kwargs).float()
    pictures = pictures.unflatten(0, (len(planes), -1))[:, 0]  # of a video the first frame
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


@functools.cache
def enlarging(side: int, scale: int) -> torch.Tensor:
    """Bicubic enlargement of one axis as a matrix, ``(side * scale, side)``: much the faster way."""
    unit = torch.eye(side)[None, None]
    return interpolate(unit, size=(side * scale, side), mode="bicubic")[0, 0]
