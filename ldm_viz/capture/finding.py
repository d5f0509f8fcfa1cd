"""Finding how a run's latents are decoded: as it was seen, or as the pipeline's parts tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ..latent_layouts import LatentLayout, guess_layout, known_layouts
from ..trajectory import Trajectory
from .autoencoders import channels_of, is_autoencoder, unwrapped
from .calls import DecoderCall
from .predictions import TOKENS
from .scaling import Decoding, as_they_are, guess_decoding, learn_decoding


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
    images = trajectory.images
    video = None if images is None else images.ndim == 5
    by_vae: dict[int, list[DecoderCall]] = {}
    for call in calls:
        by_vae.setdefault(id(call.vae), []).append(call)
    for mine in by_vae.values():
        learned = learn_decoding(trajectory.latents[-1], mine, dtype, video)
        if learned is not None:
            return learned
    told, picture = trajectory.settings.get("latent_layout"), _picture_size(trajectory, pipe)
    for vae in _autoencoders(pipe):
        guessed = guess_decoding(vae, trajectory.latent_shape, picture, told, video)
        if guessed is not None:
            found = _as_pipelines_do(pipe, guessed, trajectory, dtype)
            return _with_calls(found, by_vae.get(id(vae), []), trajectory)
    return None


def _with_calls(
    guessed: Decoding, calls: Sequence[DecoderCall], trajectory: Trajectory
) -> Decoding:
    """With what the pipeline did decode, though it does not follow from the last latents."""
    if not calls:
        return guessed
    planes = guessed.prepare(torch.from_numpy(np.array(trajectory.latents[-1])).float())
    given = [call.latents for call in calls]
    if sum(map(len, given)) != len(planes) or given[0].shape[1:] != planes.shape[1:]:
        return replace(guessed, follows=False)
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
    """The layout of a run's latents, as it says or as shapes tell; None of tokens."""
    if trajectory.settings.get("noise_schedule") == TOKENS:
        return None
    told = LatentLayout.read(trajectory.settings.get("latent_layout"))
    return told or guess_layout(trajectory.latent_shape, picture=_picture_size(trajectory))


def _autoencoders(pipe: Any) -> list[Any]:
    held = [pipe, *(v for v in vars(pipe).values() if hasattr(v, "components"))]
    parts = [part for owner in held for part in vars(owner).values()]
    found = [unwrapped(part) for part in parts if is_autoencoder(part)]
    return list({id(part): part for part in found}.values())


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
    if unwrapped(getattr(pipe, "movq", None)) is vae:  # Kandinsky's, whose configuration misleads
        kwargs = {"force_not_quantize": True, "return_dict": False}
        guessed = replace(guessed, unscale=as_they_are, scaling="as they are", kwargs=kwargs)
    channels_last = trajectory.settings.get("memory_format") == "channels_last"
    return replace(
        guessed,
        loop_dtype=dtype,
        dtype=torch.float32 if upcast else None,
        memory_format=torch.channels_last if channels_last else torch.contiguous_format,
    )


def why_not(pipe: Any, trajectory: Trajectory) -> str:
    """Why a run's latents cannot be decoded, and what would help."""
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


def holds_pixels(pipe: Any, trajectory: Trajectory) -> bool:
    """Whether the loop works on pictures themselves: there is nothing to decode with."""
    shape = trajectory.latent_shape
    return len(shape) == 3 and shape[0] in (1, 3) and not _autoencoders(pipe)
