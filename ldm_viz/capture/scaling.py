"""How latents, as the sampling loop has them, become what an autoencoder decodes.

Autoencoders' latents are scaled, and sometimes shifted, so that a denoiser meets values of about
unit size; families write that down differently. How a pipeline does it is best seen by watching it
do so once: a candidate of the tables is right if it turns the loop's last latents into what the
pipeline handed to its decoder. Only where nothing was decoded must the configuration tell.
"""

from __future__ import annotations

import inspect
import itertools
import weakref
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from ..latent_layouts import LatentLayout, fitting_layouts, guess_layout
from .autoencoders import channels_of, decodes_videos
from .calls import DecoderCall

Unscale = Callable[[torch.Tensor, Any], "torch.Tensor | None"]


def _config(vae: Any, name: str) -> Any:
    return getattr(vae.config, name, None)


def _factor(vae: Any) -> Any:
    return _config(vae, "scaling_factor")


def _mean_and_std(latents: torch.Tensor, vae: Any) -> tuple[torch.Tensor, torch.Tensor] | None:
    """From the configuration or the buffers, fit to be broadcast over ``(n, c, ...)``."""
    found, buffers = [], dict(vae.named_buffers(recurse=False))
    for name in ("latents_mean", "latents_std"):
        values = _config(vae, name)
        values = buffers.get(name) if values is None else values
        if values is None:
            return None
        values = torch.as_tensor(values).flatten()
        if len(values) != latents.shape[1]:
            return None
        found.append(values.view(1, -1, *[1] * (latents.ndim - 2)))
    return found[0], found[1]


def _standardised(latents: torch.Tensor, vae: Any) -> torch.Tensor | None:
    pair = _mean_and_std(latents, vae)
    if pair is None:
        return None
    mean, std = (values.to(latents.device, latents.dtype) for values in pair)
    return latents * std / (_factor(vae) or 1.0) + mean


def _standardised_by_reciprocal(latents: torch.Tensor, vae: Any) -> torch.Tensor | None:
    pair = _mean_and_std(latents, vae)
    if pair is None:
        return None
    mean, inverse = (v.to(latents.device, latents.dtype) for v in (pair[0], 1.0 / pair[1]))
    return latents / inverse + mean


def _standardised_after_factor(latents: torch.Tensor, vae: Any) -> torch.Tensor | None:
    pair = _mean_and_std(latents, vae)
    if pair is None:
        return None
    mean, std = (values.to(latents.device, latents.dtype) for values in pair)
    return latents / (_factor(vae) or 1.0) * std + mean


def _standardised_alone(latents: torch.Tensor, vae: Any) -> torch.Tensor | None:
    pair = _mean_and_std(latents, vae)
    if pair is None:
        return None
    mean, std = (values.to(latents.device, latents.dtype) for values in pair)
    return latents * std + mean


def _batch_normalised(latents: torch.Tensor, vae: Any) -> torch.Tensor | None:
    """Undoes a batch norm of packed latents, whose channels are the places of 2 × 2 patches."""
    norm, channels = getattr(vae, "bn", None), latents.shape[1]
    mean, variance = (getattr(norm, name, None) for name in ("running_mean", "running_var"))
    if mean is None or variance is None or latents.ndim != 4 or len(mean) != 4 * channels:
        return None
    height, width = latents.shape[-2:]
    if height % 2 or width % 2:
        return None
    std = torch.sqrt(variance + vae.config.batch_norm_eps)
    std, mean = (
        values.to(latents.device, latents.dtype)
        .view(channels, 2, 2)
        .repeat(1, height // 2, width // 2)
        for values in (std, mean)
    )
    return latents * std + mean


def _shifted(latents: torch.Tensor, vae: Any) -> torch.Tensor | None:
    factor, shift = _factor(vae), _config(vae, "shift_factor")
    return None if factor is None or not shift else latents / factor + shift


def _divided(latents: torch.Tensor, vae: Any) -> torch.Tensor | None:
    factor = _factor(vae)
    return None if factor is None else latents / factor


def _times_reciprocal(latents: torch.Tensor, vae: Any) -> torch.Tensor | None:
    factor = _factor(vae)
    return None if factor is None else 1 / factor * latents


def _multiplied(latents: torch.Tensor, vae: Any) -> torch.Tensor | None:
    factor = _config(vae, "scale_factor")
    return None if factor is None else factor * latents


def as_they_are(latents: torch.Tensor, vae: Any) -> torch.Tensor | None:
    """No scaling at all."""
    return latents


# One line a family. Without a decoded picture to compare with, the first that applies is taken.
_TABLE: dict[str, Unscale] = {
    "batch normalised": _batch_normalised,
    "standardised": _standardised,
    "shifted": _shifted,
    "divided": _divided,
    "multiplied": _multiplied,
    "as they are": as_they_are,
    "standardised, by the reciprocal": _standardised_by_reciprocal,
    "divided, then standardised": _standardised_after_factor,
    "standardised, with no factor": _standardised_alone,
    "times the reciprocal": _times_reciprocal,
}


def add_scaling(name: str, unscale: Unscale) -> None:
    """Adds a line to the table, for a family that scales its latents in a way of its own.

    It is tried before all others.

    Args:
        name: What it is called; a line of that name is replaced.
        unscale: Takes latents ``(n, c, h, w)`` or ``(n, c, f, h, w)`` as the denoiser knows them, and
            the autoencoder; returns what its ``decode`` takes, or None where the rule does not apply.

    Raises:
        TypeError: ``unscale`` is no function.

    Example:
        >>> add_scaling("halved", lambda latents, vae: latents * 0.5 if my_own(vae) else None)
    """
    if not callable(unscale):
        raise TypeError(f"unscale must be a function of latents and autoencoder, not {unscale!r}.")
    others = {key: value for key, value in _TABLE.items() if key != name}
    _TABLE.clear()
    _TABLE.update({name: unscale, **others})


@dataclass(frozen=True)
class Decoding:
    """How a loop's latents are decoded.

    Attributes:
        vae: The autoencoder.
        layout: Of one sample's latents.
        unscale: Takes planes ``(n, c, h, w)`` or ``(n, c, f, h, w)`` and the autoencoder.
        scaling: Its line in the table, or ``"fitted"``.
        exact: Whether it was seen to give just what the pipeline decoded.
        follows: Whether what the pipeline decoded at the end follows from the last latents at all.
        frames: Which of a video's latent frames are decoded, where some only condition the others.
        form: ``"planes"`` as they are, ``"batch of frames"``, or ``"video of one frame"``.
        loop_dtype: Of the latents in the loop.
        dtype: Of what is decoded; None for the autoencoder's own.
        cast_first: Whether latents are cast to that before they are scaled.
        memory_format: Of what is decoded.
        args: What ``decode`` is given after the latents.
        kwargs: What it is given by name.
        calls: What the pipeline decoded at the end; empty where it did not.
    """

    vae: Any
    layout: LatentLayout
    unscale: Unscale
    scaling: str
    exact: bool = False
    follows: bool = True
    frames: slice = field(default_factory=lambda: slice(None))
    form: str = "planes"
    loop_dtype: torch.dtype | None = None
    dtype: torch.dtype | None = None
    cast_first: bool = True
    memory_format: Any = torch.contiguous_format
    args: tuple = ()
    kwargs: dict[str, Any] = field(default_factory=lambda: {"return_dict": False})
    calls: tuple[DecoderCall, ...] = ()

    def prepare(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents ``(n, *latent)`` of the loop to what ``decode`` takes, in its own type."""
        planes = self.layout.unpack(latents.to(self.loop_dtype or latents.dtype))
        planes = planes[:, :, self.frames] if self.layout.is_video else planes
        unscaled = self.unscaled(planes.to(self.working_dtype) if self.cast_first else planes)
        if self.form == "batch of frames":
            unscaled = unscaled.transpose(1, 2).flatten(0, 1)
        elif self.form == "video of one frame":
            unscaled = unscaled.unsqueeze(2)
        return unscaled.to(self.working_dtype).contiguous(memory_format=self.memory_format)

    def unscaled(self, planes: torch.Tensor) -> torch.Tensor:
        """Planes as the denoiser knows them to planes as the autoencoder knows them.

        Raises:
            ValueError: The scaling does not apply.
        """
        unscaled = self.unscale(planes, self.vae)
        if unscaled is None:
            raise ValueError(f"The scaling {self.scaling!r} does not apply to this autoencoder.")
        return unscaled

    @property
    def working_dtype(self) -> torch.dtype:
        """The type that is decoded in."""
        return self.dtype or self.vae.dtype

    @property
    def chunks(self) -> list[DecoderCall]:
        """The calls that a batch's frames are decoded in, where one is not like the other."""
        alike = len({(len(c.latents), str(c.args), str(c.kwargs)) for c in self.calls}) <= 1
        return [] if alike or self.form != "batch of frames" else list(self.calls)

    @property
    def takes_one_run(self) -> bool:
        """Whether ``decode`` is given tensors that belong to the run's own batch."""
        given = itertools.chain(self.args, self.kwargs.values())
        return any(isinstance(value, torch.Tensor) and value.ndim for value in given)


# What was seen of an autoencoder, for runs that end without decoding: by number of axes.
_seen: weakref.WeakKeyDictionary[Any, dict[int, Decoding]] = weakref.WeakKeyDictionary()


def learn_decoding(
    latents: np.ndarray,
    calls: Sequence[DecoderCall],
    dtype: torch.dtype | None = None,
    video: bool | None = None,
) -> Decoding | None:
    """Finds how a pipeline turned its last latents into what it decoded.

    Args:
        latents: ``(b, *latent)``, the loop's last.
        calls: What the pipeline decoded after the loop, with one autoencoder.
        dtype: Of the latents in the loop.
        video: Whether the pipeline returned videos, where known.

    Returns:
        None where no line of the tables comes near.
    """
    given = _joined(calls)
    if given is None:
        return None
    call, batch, shape = calls[-1], latents.shape[0], latents.shape[1:]
    loop = torch.from_numpy(np.array(latents)).to(given.device, dtype)
    fitted: list[tuple[float, Decoding]] = []
    for form, target in _forms(given, batch):
        for layout, frames in _candidates(shape, tuple(target.shape[1:])):
            if video is not None and layout.is_video != video:
                continue
            planes = layout.unpack(loop)
            planes = planes[:, :, frames] if layout.is_video else planes
            base = Decoding(
                vae=call.vae,
                layout=layout,
                unscale=as_they_are,
                scaling="fitted",
                frames=frames,
                form=form,
                loop_dtype=dtype,
                dtype=given.dtype,
                memory_format=_memory_format(given),
                args=call.args,
                kwargs=dict(call.kwargs),
                calls=tuple(calls),
            )
            for cast_first, (name, unscale) in itertools.product((False, True), _TABLE.items()):
                start = planes.to(given.dtype) if cast_first else planes
                scaled = unscale(start, call.vae)
                if scaled is not None and _same(scaled.to(given.dtype), target):
                    found = replace(
                        base, unscale=unscale, scaling=name, exact=True, cast_first=cast_first
                    )
                    return _remember(found, len(shape))
            fit = _fit(planes, target)
            if fit is not None:
                fitted.append((fit[0], replace(base, unscale=fit[1])))
    if not fitted:  # a still of a video, or a picture shown as one
        return None if video is None else learn_decoding(latents, calls, dtype)
    return _remember(min(fitted, key=lambda pair: pair[0])[1], len(shape))


def _candidates(
    shape: tuple[int, ...], planes: tuple[int, ...]
) -> Iterator[tuple[LatentLayout, slice]]:
    """Layouts that fit, and with them those that do after some frames are left out at one end."""
    yield from ((layout, slice(None)) for layout in fitting_layouts(shape, planes))
    if len(shape) == len(planes) == 4:
        channels, frames, *sides = planes
        for more in sorted(set(shape)):
            if more > frames:
                for layout in fitting_layouts(shape, (channels, more, *sides)):
                    yield layout, slice(more - frames, None)
                    yield layout, slice(frames)


def guess_decoding(
    vae: Any,
    latent_shape: tuple[int, ...],
    picture: tuple[int, int] | None,
    told: Any = None,
    video: bool | None = None,
) -> Decoding | None:
    """How latents are decoded, from what was seen of the autoencoder before, or its configuration.

    Args:
        vae: The autoencoder.
        latent_shape: Shape of one sample's latents.
        picture: Height and width of the picture in pixels, where known.
        told: The layout that a trajectory says it has, as in its settings.
        video: Whether the pipeline returned videos, where known.

    Returns:
        None where the latents do not fit the autoencoder.
    """
    channels = channels_of(vae)
    layout = LatentLayout.read(told)
    seen = _seen.get(vae, {}).get(len(latent_shape))
    if layout is None:
        layout = guess_layout(latent_shape, channels, picture, video)
    if layout is None:
        return None
    planes = layout.unpack(torch.empty(1, *latent_shape, device="meta"))
    if channels is not None and planes.shape[1] != channels:
        return None
    if seen is not None:
        return replace(seen, vae=vae, layout=layout)
    form = "planes"
    if layout.is_video != decodes_videos(vae):
        form = "batch of frames" if layout.is_video else "video of one frame"
    for name, unscale in _TABLE.items():
        if unscale(torch.zeros(planes.shape), vae) is not None:
            kwargs: dict[str, Any] = {"return_dict": False}
            frames = inspect.signature(vae.decode).parameters.get("num_frames")
            if frames is not None and frames.default is frames.empty:
                kwargs["num_frames"] = planes.shape[2] if planes.ndim == 5 else 1
            return Decoding(vae, layout, unscale, name, form=form, kwargs=kwargs)
    return None


def _remember(found: Decoding, axes: int) -> Decoding:
    if not found.takes_one_run:
        kept = replace(found, calls=(), vae=None, kwargs=_plain(found.kwargs), frames=slice(None))
        _seen.setdefault(found.vae, {})[axes] = kept
    return found


def _plain(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in kwargs.items() if isinstance(v, bool | int | float | str | None)}


def _joined(calls: Sequence[DecoderCall]) -> torch.Tensor | None:
    """What was decoded in one or several calls of one autoencoder, together."""
    parts = [call.latents for call in calls]
    if not parts or any(part.shape[1:] != parts[0].shape[1:] for part in parts):
        return None
    return torch.cat(parts) if len(parts) > 1 else parts[0]


def _forms(given: torch.Tensor, batch: int) -> list[tuple[str, torch.Tensor]]:
    """Ways to read what was decoded as planes of a batch, with their names."""
    if given.ndim == 5 and len(given) == batch:
        one = [("video of one frame", given[:, :, 0])] if given.shape[2] == 1 else []
        return [*one, ("planes", given)]
    if given.ndim == 4 and len(given) % batch == 0:
        one = [("planes", given)] if len(given) == batch else []
        frames = given.unflatten(0, (batch, -1)).transpose(1, 2)
        return [*one, ("batch of frames", frames)]
    return []


def _memory_format(tensor: torch.Tensor) -> Any:
    usual = tensor.ndim != 4 or tensor.is_contiguous()
    other = torch.channels_last
    return (
        other
        if not usual and tensor.is_contiguous(memory_format=other)
        else (torch.contiguous_format)
    )


def _same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and torch.equal(one, other)


_SAMPLES = 8  # of each channel, at least, to believe a fit


def _fit(planes: torch.Tensor, target: torch.Tensor) -> tuple[float, Unscale] | None:
    """The factor and shift of each channel that turn planes into what was decoded, and their error.

    Where channels alone do not do, each place of a 2 × 2 patch gets its own, as in models that
    normalise packed latents.
    """
    tolerance = max(1e-3, 16 * torch.finfo(target.dtype).eps)
    for patch in (1, 2):
        if any(side % patch for side in planes.shape[-2:]):
            continue
        x, y = (_grouped(values.double(), patch) for values in (planes, target))
        if x.shape[1] < _SAMPLES:
            continue
        spread = x - x.mean(1, keepdim=True)
        factor = (spread * y).sum(1) / spread.square().sum(1)
        shift = y.mean(1) - factor * x.mean(1)
        error = (factor[:, None] * x + shift[:, None] - y).abs().max() / y.std()
        if not float(error) <= tolerance:
            continue
        shape = (planes.shape[1], patch, patch)
        return float(error), _affine(factor.reshape(shape), shift.reshape(shape))
    return None


def _grouped(planes: torch.Tensor, patch: int) -> torch.Tensor:
    """``(channels * patch * patch, values)``."""
    frames = planes if planes.ndim == 5 else planes.unsqueeze(2)
    split = frames.unflatten(-2, (-1, patch)).unflatten(-1, (-1, patch))  # b c f h p w q
    return split.permute(1, 4, 6, 0, 2, 3, 5).flatten(3).flatten(0, 2)


def _affine(factor: torch.Tensor, shift: torch.Tensor) -> Unscale:
    def unscale(latents: torch.Tensor, vae: Any) -> torch.Tensor:
        height, width = latents.shape[-2:]
        patch = factor.shape[-1]

        def spread(values: torch.Tensor) -> torch.Tensor:
            tiled = values.to(latents.device).repeat(1, height // patch, width // patch)
            return tiled.unsqueeze(1) if latents.ndim == 5 else tiled

        return (latents.double() * spread(factor) + spread(shift)).to(latents.dtype)

    return unscale
