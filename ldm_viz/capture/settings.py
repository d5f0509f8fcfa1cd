"""What a run was asked for, in plain values, and the pictures it returned."""

from __future__ import annotations

import functools
import importlib.metadata
import inspect
from typing import Any

import diffusers
import numpy as np
import PIL.Image
import torch

_ARGUMENTS = (
    "prompt",
    "prompt_2",
    "negative_prompt",
    "negative_prompt_2",
    "num_inference_steps",
    "guidance_scale",
    "true_cfg_scale",
    "guidance_rescale",
    "eta",
    "strength",
    "height",
    "width",
    "num_images_per_prompt",
    "clip_skip",
    "timesteps",
    "sigmas",
    "output_type",
    "padding_mask_crop",
)


def describe_call(pipe: Any, call: Any, args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
    """What a pipeline was called with, defaults included.

    Args:
        pipe: The pipeline.
        call: Its ``__call__`` function.
        args: Positional arguments, without the pipeline.
        kwargs: Keyword arguments.

    Returns:
        Plain values by argument name, and ``pipeline``, ``seed`` and ``versions``.
    """
    bound = inspect.signature(call).bind_partial(pipe, *args, **kwargs)
    bound.apply_defaults()
    given = dict(bound.arguments)
    for name, parameter in inspect.signature(call).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:  # modular pipelines take all that way
            given |= given.pop(name, {})
    settings: dict[str, Any] = {"pipeline": type(pipe).__name__}
    settings |= {name: given[name] for name in _ARGUMENTS if given.get(name) is not None}
    seed = _seed(given.get("generator"))
    if seed is not None:
        settings["seed"] = seed
    settings["versions"] = {name: _version(name) for name in ("ldm_viz", "diffusers", "torch")}
    return settings


def describe_scheduler(scheduler: Any) -> dict[str, Any]:
    """A scheduler's class and configuration, without what diffusers keeps in it for itself."""
    config: Any = getattr(scheduler, "config", None)
    items = config.items() if hasattr(config, "items") else ()
    return {
        "scheduler": type(scheduler).__name__,
        "scheduler_config": {name: value for name, value in items if not str(name).startswith("_")},
    }


def picture_array(output: Any, output_type: Any, batch: int) -> np.ndarray | None:
    """A pipeline's pictures as uint8; None if it returned none.

    Args:
        output: What the pipeline returned.
        output_type: What it was asked for.
        batch: How many there should be.

    Returns:
        ``(batch, h, w, 3)``, or ``(batch, f, h, w, 3)`` for videos.
    """
    if output is None or output_type == "latent":
        return None
    pictures = _as_array(_images_of(output))
    if pictures is None or pictures.ndim not in (4, 5):
        return None
    return pictures if len(pictures) == batch and pictures.shape[-1] == 3 else None


def _images_of(output: Any) -> Any:
    """The pictures among what a pipeline returned: an object, a dictionary, a tuple, or just them."""
    if isinstance(output, list | np.ndarray | torch.Tensor):
        return output
    if isinstance(output, tuple):
        return output[0] if output else None
    for name in ("images", "frames", "videos"):
        found = output.get(name) if isinstance(output, dict) else getattr(output, name, None)
        if found is not None:
            return found
    return None


def _as_array(images: Any) -> np.ndarray | None:
    """Pictures or videos as one uint8 array; None for raw values, or pictures of several sizes."""
    if isinstance(images, PIL.Image.Image):
        return np.asarray(images.convert("RGB"))
    if isinstance(images, list) and images:
        arrays = [_as_array(image) for image in images]
        shapes = {None if array is None else array.shape for array in arrays}
        return np.stack(arrays) if len(shapes) == 1 and None not in shapes else None  # type: ignore[arg-type]
    if isinstance(images, torch.Tensor) and images.ndim in (4, 5):
        images = images.detach().cpu().movedim(-3, -1).float().numpy()
    if isinstance(images, np.ndarray) and images.ndim in (3, 4, 5):
        raw = images.dtype != np.uint8 and bool(((images < -0.01) | (images > 1.01)).any())
        return None if raw else to_bytes(images)
    return None


def to_bytes(images: np.ndarray) -> np.ndarray:
    """Pictures in [0, 1] as uint8 ``(batch, h, w, 3)``, rounded as diffusers does."""
    if images.dtype != np.uint8:
        with np.errstate(invalid="ignore"):  # a NaN has no right byte; diffusers casts it too
            images = (images * 255).round().astype(np.uint8)
    return np.repeat(images, 3, axis=-1) if images.shape[-1] == 1 else images


def _seed(generator: Any) -> Any:
    if isinstance(generator, torch.Generator):
        return generator.initial_seed()
    if (
        isinstance(generator, list)
        and generator
        and all(isinstance(g, torch.Generator) for g in generator)
    ):
        return [g.initial_seed() for g in generator]
    return None


@functools.cache
def _version(name: str) -> str:
    loaded = {"diffusers": diffusers, "torch": torch}.get(name)
    if loaded is not None:
        return str(loaded.__version__)
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
