"""Small random Stable Diffusion pipelines, built from components: no download, about 10 ms a
step."""

import warnings

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    StableDiffusionImg2ImgPipeline,
    StableDiffusionInpaintPipeline,
    StableDiffusionPipeline,
    UNet2DConditionModel,
)
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

SIDE = 16  # of the pictures, in pixels; latents are 4 × 8 × 8
PIPELINES = {
    "text-to-image": StableDiffusionPipeline,
    "image-to-image": StableDiffusionImg2ImgPipeline,
    "inpainting": StableDiffusionInpaintPipeline,
    "inpainting-9": StableDiffusionInpaintPipeline,
}
# As Stable Diffusion's, so that other schedulers are made from it by from_config.
SCHEDULER = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}


def build_pipeline(kind="text-to-image", scheduler=DDIMScheduler, dtype=torch.float32, **options):
    """A pipeline with parts of its own, always the same ones.

    Args:
        kind: One of PIPELINES.
        scheduler: A scheduler class, made from Stable Diffusion's configuration.
        dtype: Of all weights.
        **options: Scheduler options, such as prediction_type.
    """
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        parts = {
            "vae": _autoencoder(),
            "text_encoder": _text_encoder(),
            "unet": _unet(9 if kind == "inpainting-9" else 4),
        }
        pipe = PIPELINES[kind](
            **{name: part.to(dtype=dtype).eval() for name, part in parts.items()},
            tokenizer=_tokenizer(),
            scheduler=scheduler.from_config({**SCHEDULER, **options}),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def use_scheduler(pipe, scheduler, **options):
    """Gives the pipeline a new scheduler of this class."""
    pipe.scheduler = scheduler.from_config({**SCHEDULER, **options})
    return pipe


def call_arguments(kind, **changes):
    """Arguments for one quick run of a kind of pipeline, with a fresh generator."""
    arguments = {
        "prompt": "a red star at night",
        "num_inference_steps": 4,
        "guidance_scale": 7.0,
        "generator": torch.Generator().manual_seed(3),
        "output_type": "np",
        "height": SIDE,
        "width": SIDE,
    }
    if kind != "text-to-image":
        arguments["image"] = picture()
        arguments["strength"] = 0.8
    if kind == "image-to-image":
        del arguments["height"], arguments["width"]
    if kind.startswith("inpainting"):
        arguments["mask_image"] = mask()
    return arguments | changes


def picture():
    """A colour gradient."""
    ramp = np.linspace(0, 255, SIDE).astype(np.uint8)
    red, green = np.meshgrid(ramp, ramp)
    return Image.fromarray(np.stack([red, green, 255 - red], axis=-1))


def mask():
    """White, where to paint, on the left half."""
    array = np.zeros((SIDE, SIDE), np.uint8)
    array[:, : SIDE // 2] = 255
    return Image.fromarray(array)


def _autoencoder():
    return AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=4,
        sample_size=SIDE,
        mid_block_add_attention=False,
    )


def _unet(channels):
    unet = UNet2DConditionModel(
        sample_size=SIDE // 2,
        in_channels=channels,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    with torch.no_grad():  # random weights hardly listen to the prompt, and guidance should matter
        for name, weights in unet.named_parameters():
            if "attn2" in name:
                weights.mul_(4)
    return unet


def _tokenizer():
    letters = [chr(code) for code in range(33, 127)]
    pieces = [
        *letters,
        *(f"{letter}</w>" for letter in letters),
        "<|startoftext|>",
        "<|endoftext|>",
    ]
    return CLIPTokenizer(
        vocab={piece: place for place, piece in enumerate(pieces)}, merges=[], model_max_length=32
    )


def _text_encoder():
    tokenizer = _tokenizer()
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=32,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
