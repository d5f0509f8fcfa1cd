"""How many bytes a recording takes, before it is made."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from .autoencoders import channels_of

KEEP = ("latents", "x0", "noise_prediction")
_ALL = (*KEEP, "guided")

_SIZES = {torch.float16: 2, torch.float64: 8}  # bfloat16 is kept as float32


def checked_keep(keep: str | Iterable[str]) -> list[str]:
    """What to keep, as a list.

    Raises:
        ValueError: A name is unknown.
    """
    names = [keep] if isinstance(keep, str) else list(keep)
    unknown = [name for name in names if name not in _ALL]
    if unknown:
        raise ValueError(
            f"keep may hold {', '.join(map(repr, _ALL))}; not {', '.join(map(repr, unknown))}."
        )
    return names


@dataclass(frozen=True, repr=False)
class Estimate:
    """Bytes of a recording's arrays, by name; its text is a small table.

    Attributes:
        steps: Steps of the loop.
        batch: Samples denoised together.
        latent_shape: Shape of one sample's latents.
        parts: Bytes by array.
    """

    steps: int
    batch: int
    latent_shape: tuple[int, ...]
    parts: Mapping[str, int]

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays together, without pictures."""
        return sum(self.parts.values())

    def __repr__(self) -> str:
        shape = "×".join(map(str, self.latent_shape))
        head = f"{self.steps} steps of {self.batch} × {shape}: {in_words(self.nbytes)}"
        return "\n".join(
            [head, *(f"  {name:<32} {in_words(size):>9}" for name, size in self.parts.items())]
        )


def in_words(size: int) -> str:
    """Bytes as people write them."""
    amount, unit = float(size), "B"
    for larger in ("kB", "MB", "GB", "TB"):
        if amount < 999.5:
            break
        amount, unit = amount / 1000, larger
    return f"{amount:.3g} {unit}"


def estimate_run(
    keep: Iterable[str],
    steps: int,
    batch: int,
    latent_shape: tuple[int, ...],
    dtype: torch.dtype,
    branches: int = 2,
) -> Estimate:
    """Bytes of a loop's arrays.

    Args:
        keep: What is kept, as a :class:`Recorder` takes it.
        steps: Steps of the loop.
        batch: Samples denoised together.
        latent_shape: Shape of one sample's latents.
        dtype: Of the latents.
        branches: Branches that guidance mixes; below 2 there is the guided prediction alone.
    """
    one = batch * math.prod(latent_shape) * _SIZES.get(dtype, 4)
    parts = {"latents": (steps + 1) * one}
    if "x0" in keep:
        parts["x0"] = steps * one
    if "noise_prediction" in keep or "guided" in keep:
        parts["noise_prediction: guided"] = steps * one
    if "noise_prediction" in keep and branches > 1:
        parts[f"noise_prediction: {branches} branches"] = branches * steps * one
    return Estimate(steps, batch, tuple(latent_shape), parts)


def estimate(
    pipe: Any,
    *,
    num_inference_steps: int = 50,
    height: int | None = None,
    width: int | None = None,
    num_frames: int | None = None,
    latent_shape: tuple[int, ...] | None = None,
    batch: int = 1,
    guidance: bool = True,
    keep: str | Iterable[str] = KEEP,
) -> Estimate:
    """Tells how many bytes a recording of a pipeline will take, before it is run.

    Args:
        pipe: A diffusers pipeline with an autoencoder.
        num_inference_steps: Steps; second-order schedulers take about twice as many.
        height: Of the picture, in pixels. If not given, the pipeline's default; what takes its size
            from a picture it is given, as upscalers do, must be told here or by ``latent_shape``.
        width: Likewise.
        num_frames: Of a video.
        latent_shape: Shape of one sample's latents, instead of all of these.
        batch: Pictures made together: prompts times pictures for each.
        guidance: Whether the run is guided, so that there are two branches.
        keep: What is kept, as a :class:`Recorder` takes it.

    Raises:
        ValueError: The pipeline does not tell the shape of its latents, or an argument makes no
            sense.

    Example:
        >>> lv.estimate(pipe, num_inference_steps=50, height=1024, width=1024)  # doctest: +SKIP
        50 steps of 1 × 4×128×128: 32.9 MB
          latents                            6.68 MB
          x0                                 6.55 MB
          noise_prediction: guided           6.55 MB
          noise_prediction: 2 branches       13.1 MB
    """
    names = checked_keep(keep)
    counts = {
        "num_inference_steps": num_inference_steps,
        "height": height,
        "width": width,
        "num_frames": num_frames,
        "batch": batch,
    }
    for name, count in counts.items():
        if count is not None and (type(count) is not int or count < 1):
            raise ValueError(f"{name} must be a positive whole number, not {count!r}.")
    denoiser: Any = getattr(pipe, "transformer", None) or getattr(pipe, "unet", None)
    shape = latent_shape or _latent_shape(pipe, denoiser, height, width, num_frames)
    dtype = getattr(denoiser, "dtype", torch.float32)
    return estimate_run(names, num_inference_steps, batch, shape, dtype, 2 if guidance else 1)


def _latent_shape(
    pipe: Any, denoiser: Any, height: int | None, width: int | None, num_frames: int | None
) -> tuple[int, ...]:
    vaes = (getattr(pipe, name, None) for name in ("vae", "movq", "vqgan"))
    vae = next((vae for vae in vaes if vae is not None), None)
    channels = None if vae is None else channels_of(vae)
    if channels is None or denoiser is None:
        raise ValueError(
            f"{type(pipe).__name__} does not tell the shape of its latents: it needs an autoencoder "
            "with a number of channels, and a denoiser. Give latent_shape=(channels, h, w)."
        )
    factors = ("vae_scale_factor", "vae_scale_factor_spatial", "movq_scale_factor")
    scale = next((f for f in (getattr(pipe, name, None) for name in factors) if f), 8)
    size: Any = getattr(denoiser.config, "sample_size", None)
    size = size or getattr(pipe, "default_sample_size", 64)
    rows, columns = (size, size) if isinstance(size, int) else (size[0], size[-1])
    rows = rows if height is None else -(-height // scale)
    columns = columns if width is None else -(-width // scale)
    frames: tuple[int, ...] = ()
    if num_frames is not None:
        frames = ((num_frames - 1) // getattr(pipe, "vae_scale_factor_temporal", 1) + 1,)
    return (channels, *frames, rows, columns)
