"""Stage 6: gathers what the stages made into the package's diffusers directory."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, UNet2DConditionModel
from transformers import (
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionModelWithProjection,
)

from ldm_viz.tiny.architecture import build_image_processor, build_scheduler
from ldm_viz.tiny.training.diffusion import export_diffusion


def export(folder: Path, target: Path) -> None:
    """Writes the trained model in half precision.

    Args:
        folder: Where the stages left their results.
        target: The diffusers directory to write; what was in it is replaced.
    """
    export_diffusion(folder)
    scratch = target.with_name(target.name + ".new")
    shutil.rmtree(scratch, ignore_errors=True)
    pipe = StableDiffusionPipeline(
        vae=AutoencoderKL.from_pretrained(folder / "vae"),
        text_encoder=CLIPTextModel.from_pretrained(folder / "text_encoder"),
        tokenizer=CLIPTokenizer.from_pretrained(folder / "tokenizer"),
        unet=UNet2DConditionModel.from_pretrained(folder / "unet"),
        scheduler=build_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.to(torch.float16).save_pretrained(scratch)
    towers = {
        "joint_text": (CLIPTextModelWithProjection, "joint_text"),
        "joint_vision": (CLIPVisionModelWithProjection, "adapter/image_encoder"),
    }
    for name, (kind, place) in towers.items():
        if (folder / name).exists():
            kind.from_pretrained(folder / name).to(torch.float16).save_pretrained(scratch / place)
    if (folder / "joint_vision").exists():
        shutil.copy(folder / "adapter.safetensors", scratch / "adapter")
        build_image_processor().save_pretrained(scratch / "adapter")
    if (folder / "classifier.safetensors").exists():
        (scratch / "judge").mkdir()
        shutil.copy(folder / "classifier.safetensors", scratch / "judge")
    for file in scratch.rglob("*"):
        file.chmod(0o755 if file.is_dir() else 0o644)
    _strip_origin(scratch)
    shutil.rmtree(target, ignore_errors=True)
    scratch.rename(target)


def _strip_origin(folder: Path) -> None:
    """Takes the training machine's paths (``_name_or_path``) out of the configurations."""
    for file in folder.rglob("*.json"):
        lines = file.read_text().splitlines(keepends=True)
        kept = [line for line in lines if '"_name_or_path"' not in line]
        file.write_text("".join(kept))
