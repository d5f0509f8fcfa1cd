"""The affine map from a latent pixel to a colour that comes nearest to an autoencoder."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.nn.functional import interpolate

from .autoencoders import aside, channels_of, decoded, execution_device
from .hooks import activated
from .scaling import Decoding

# What the map was fitted to stays the same while the autoencoder lives.
_maps: weakref.WeakKeyDictionary[Any, np.ndarray] = weakref.WeakKeyDictionary()


def linear_map(decoding: Decoding, scale: int) -> np.ndarray:
    """The affine map from a latent pixel to a colour that comes nearest to an autoencoder.

    It is fitted, once for each autoencoder, to what that makes of a few small, smooth, random
    latents. They are always the same, so it does not depend on the run.

    Args:
        decoding: How latents are decoded.
        scale: Pixels of a picture's side for one of the latents'.

    Returns:
        ``(channels + 1, 3)``, for planes as the denoiser knows them and a constant 1, to colours
        in [-1, 1].

    Raises:
        ValueError: The autoencoder makes values of them that are not finite.
    """
    found = known_map(decoding.vae)
    if found is None:
        with aside(execution_device(decoding.vae)):
            found = fit_map(decoding, scale)
    return found


def known_map(vae: Any) -> np.ndarray | None:
    """The map of an autoencoder, if it was fitted before."""
    return _maps.get(vae)


def fit_map(decoding: Decoding, scale: int) -> np.ndarray:
    """Fits the map and keeps it; as :func:`linear_map`, but leaves torch's generators alone.

    To put them back, as :func:`aside` does, would undo what another thread draws meanwhile.
    """
    vae = decoding.vae
    with activated(None), torch.no_grad(), _working(decoding):
        planes = _examples(decoding, scale).to(execution_device(vae))
        colours = _decode_examples(decoding, planes)
        inputs, targets = _pixels(planes), _pixels(colours)
    if not np.isfinite(targets).all():
        raise ValueError(f"This {type(vae).__name__} decodes to values that are not finite.")
    inputs = np.concatenate([inputs, np.ones((len(inputs), 1))], axis=1)
    _maps[vae] = np.linalg.lstsq(inputs, targets, rcond=None)[0]
    return _maps[vae]


@contextmanager
def _working(decoding: Decoding) -> Iterator[None]:
    """The autoencoder in the type that is decoded in, and afterwards in its own."""
    vae, before = decoding.vae, decoding.vae.dtype
    try:
        if before != decoding.working_dtype:
            vae.to(dtype=decoding.working_dtype)
        yield
    finally:
        if vae.dtype != before:
            vae.to(dtype=before)


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


_POINTS = 64  # independent values of each channel, at least


def _examples(decoding: Decoding, scale: int) -> torch.Tensor:
    """Latents to fit on, ``(n, c, h, h)``, as the denoiser knows them.

    As few and small as fit about as well as many: their decoding is what a fit costs.
    """
    generator = torch.Generator().manual_seed(0)  # our own: the global one is the user's
    channels = channels_of(decoding.vae) or decoding.layout.sizes["c"]
    side = 8 if scale <= 16 else 4
    coarse = side // 2
    count = -(-max(_POINTS, 2 * (channels + 1)) // coarse**2)
    values = torch.randn(count, channels, coarse, coarse, generator=generator)
    return interpolate(values, (side, side), mode="bicubic", align_corners=True)


@functools.cache
def enlarging(side: int, scale: int) -> torch.Tensor:
    """Bicubic enlargement of one axis as a matrix, ``(side * scale, side)``: much the faster way."""
    unit = torch.eye(side)[None, None]
    return interpolate(unit, size=(side * scale, side), mode="bicubic")[0, 0]
