"""Calling an autoencoder: where it computes, aside from everything else, and what it gives."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from .hooks import activated


def is_autoencoder(component: Any) -> bool:
    """Whether a pipeline's component decodes latents; a tokenizer decodes too, but is no module."""
    return isinstance(component, torch.nn.Module) and callable(getattr(component, "decode", None))


def unwrapped(module: Any) -> Any:
    """The module that a compiled one was made of."""
    return getattr(module, "_orig_mod", module)


def channels_of(vae: Any) -> int | None:
    """Channels of an autoencoder's latents, where it says."""
    for name in ("latent_channels", "z_dim"):
        found = getattr(vae.config, name, None)
        if isinstance(found, int):
            return found
    return None


def decodes_videos(vae: Any) -> bool:
    """Whether it takes whole videos: it has convolutions of three dimensions.

    One that must be told how many frames there are takes them one after the other.
    """
    told = "num_frames" in inspect.signature(vae.decode).parameters
    return not told and any(weights.ndim == 5 for weights in vae.parameters())


def execution_device(module: Any) -> torch.device:
    """Where a module computes, which for an offloaded one is not where its weights are."""
    for part in module.modules():
        device = getattr(getattr(part, "_hf_hook", None), "execution_device", None)
        if device is not None:
            return torch.device(device)
    return next(module.parameters()).device


@contextmanager
def aside(device: torch.device) -> Iterator[None]:
    """Nothing in here is part of a recorded run, is differentiated, or draws from torch's generators."""
    devices = [device] if device.type == "cuda" else []
    with activated(None), torch.no_grad(), torch.random.fork_rng(devices=devices):
        yield


def decoded(vae: Any, latents: torch.Tensor, args: tuple, kwargs: dict[str, Any]) -> torch.Tensor:
    """Pictures ``(n, c, h, w)``, or of videos their frames one after the other."""
    output = vae.decode(latents, *args, **kwargs)
    pictures = output[0] if isinstance(output, tuple) else output.sample
    return frames_first(pictures).flatten(0, 1) if pictures.ndim == 5 else pictures


def frames_first(videos: torch.Tensor) -> torch.Tensor:
    """``(n, f, c, h, w)``, whether a decoder gave that or ``(n, c, f, h, w)``."""
    return videos.transpose(1, 2) if videos.shape[1] in (1, 3) else videos
