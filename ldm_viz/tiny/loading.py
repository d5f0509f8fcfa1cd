"""Loads the embedded model from the package's own files; never asks the network."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ldm_viz.conditioning.joint import JointSpace

if TYPE_CHECKING:
    import torch
    from diffusers import DiffusionPipeline

WEIGHTS = Path(__file__).parent / "weights"
"""The diffusers directory with the embedded model's weights."""

STEPS = 25
GUIDANCE = 2.5
"""What the embedded model is judged with, and drawn with where nothing else is said."""

TASKS = ("text-to-image", "image-to-image", "inpainting")


def load_tiny(
    task: str = "text-to-image",
    *,
    adapter: bool = False,
    sharing: DiffusionPipeline | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
) -> Any:
    """Loads the embedded latent diffusion model as a standard diffusers pipeline.

    It draws 64×64 pictures of one object in a scene, such as "a large blue boat on water at sunset";
    25 steps take about a second on two CPU cores.

    Args:
        task: "text-to-image", "image-to-image" or "inpainting".
        adapter: Load the image adapter too (IP-Adapter's format), so that a vector of the joint
            text-image space can be the condition: ``ip_adapter_image`` or
            ``ip_adapter_image_embeds``. Every call then needs one of them.
        sharing: A pipeline loaded before, whose modules the new one uses instead of copies.
        device: Where to put the modules.
        dtype: Their floating-point type; float32 by default.

    Returns:
        A `StableDiffusionPipeline`, `StableDiffusionImg2ImgPipeline` or
        `StableDiffusionInpaintPipeline` without a safety checker.

    Raises:
        ValueError: If the task is unknown, or `sharing` is given together with `adapter`.
        FileNotFoundError: If the weights are missing from the installation.

    Example:
        >>> pipe = load_tiny()
        >>> pipe("a blue fish on sand", num_inference_steps=25).images[0].size
        (64, 64)
    """
    if task not in TASKS:
        raise ValueError(f"task is {task!r}; expected one of {', '.join(TASKS)}")
    import torch

    with _silence():
        from diffusers import (
            StableDiffusionImg2ImgPipeline,
            StableDiffusionInpaintPipeline,
            StableDiffusionPipeline,
        )

    kinds = (
        StableDiffusionPipeline,
        StableDiffusionImg2ImgPipeline,
        StableDiffusionInpaintPipeline,
    )
    kind = dict(zip(TASKS, kinds, strict=True))[task]
    if sharing is not None:
        if adapter:
            raise ValueError(
                "adapter=True was given together with sharing=…; the adapter belongs to the shared "
                "UNet: load the first pipeline with adapter=True and share that one"
            )
        pipe = kind(**sharing.components, requires_safety_checker=False)
        pipe.register_to_config(_name_or_path=sharing.name_or_path)
        return _quiet(pipe)
    _check_installed()
    with _silence():
        pipe = kind.from_pretrained(
            WEIGHTS,
            torch_dtype=dtype or torch.float32,
            local_files_only=True,
            safety_checker=None,
            requires_safety_checker=False,
        )
    if adapter:
        _check_installed("adapter/adapter.safetensors", "the image adapter")
        with _silence():
            pipe.load_ip_adapter(
                str(WEIGHTS),
                subfolder="adapter",
                weight_name="adapter.safetensors",
                local_files_only=True,
            )
    pipe.to(device)
    # Where torch can choose, convolutions with the channels last are about 6 % faster on a CPU.
    for model in (pipe.unet, pipe.vae):
        model.to(memory_format=torch.channels_last)
    if adapter:
        # The adapter's vision tower has its text tower here, which the pipeline itself does not know.
        pipe.joint_space = functools.cache(
            functools.partial(load_joint_space, device, vision=pipe.image_encoder)
        )
    return _quiet(pipe)


@contextmanager
def _silence() -> Iterator[None]:
    """Nothing on stderr about parts that are not needed here, or about loading that takes a moment."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    found = []
    for log in (diffusers_logging, transformers_logging):
        found.append((log, log.get_verbosity(), log.is_progress_bar_enabled()))
        log.set_verbosity_error()
        log.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", FutureWarning
            )  # torch_dtype: older diffusers know no dtype
            yield
    finally:
        for log, verbosity, bars in found:
            log.set_verbosity(verbosity)
            if bars:
                log.enable_progress_bar()


def _quiet(pipe: Any) -> Any:
    """Bars shorter than a breath only flicker."""
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _check_installed(file: str = "model_index.json", what: str = "the embedded model") -> None:
    if not (WEIGHTS / file).is_file():
        raise FileNotFoundError(
            f"the weights of {what} are missing from this installation of ldm_viz "
            f"(no tiny/weights/{file} in the package); reinstall ldm_viz, or train them "
            "with: python -m ldm_viz.tiny.training"
        )


def load_joint_space(device: str | torch.device = "cpu", *, vision: Any = None) -> JointSpace:
    """Loads the joint text-image space the embedded model's adapter takes its vectors from.

    Both towers end in vectors of 128 numbers.

    Args:
        device: Where to put the towers.
        vision: The vision tower, if it is loaded already.

    Raises:
        FileNotFoundError: If the weights are missing from the installation.
    """
    _check_installed("joint_text/model.safetensors", "the joint text-image space")
    import torch
    from transformers import (
        CLIPImageProcessorPil,
        CLIPTextModelWithProjection,
        CLIPTokenizer,
        CLIPVisionModelWithProjection,
    )

    options: dict[str, Any] = {"dtype": torch.float32, "local_files_only": True}
    vision_folder = WEIGHTS / "adapter" / "image_encoder"
    with _silence():
        text = CLIPTextModelWithProjection.from_pretrained(WEIGHTS / "joint_text", **options)
        if vision is None:
            vision = CLIPVisionModelWithProjection.from_pretrained(vision_folder, **options)
        tokenizer = CLIPTokenizer.from_pretrained(WEIGHTS / "tokenizer", local_files_only=True)
        processor = CLIPImageProcessorPil.from_pretrained(
            WEIGHTS / "adapter", local_files_only=True
        )
    return JointSpace(text.to(device).eval(), vision.to(device).eval(), tokenizer, processor)
