"""Pipelines of two loops: a prior draws an embedding of the picture, a decoder the picture."""

from typing import Any

import diffusers
import torch
from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import (
    StableUnCLIPImageNormalizer,
)
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from .images import kandinsky22, unet
from .specimen import SIZE, Specimen, autoencoder, calling, ddim, text_encoder, tokenizer

_PROMPT = {"prompt": "a red star at night", "prior_num_inference_steps": 2}


def _prior(**options: Any) -> Any:
    return diffusers.PriorTransformer(
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=1,
        embedding_dim=16,
        num_embeddings=32,
        **options,
    )


def _unclip() -> dict[str, Any]:
    """Stable unCLIP: the embedding is a class's label to the UNet."""
    schedule = {"beta_schedule": "squaredcos_cap_v2"}
    return {
        "prior_tokenizer": tokenizer(),
        "prior_text_encoder": text_encoder(pooled=True),
        "tokenizer": tokenizer(),
        "text_encoder": text_encoder(),
        "prior": _prior(),
        "prior_scheduler": diffusers.DDPMScheduler(
            **schedule,
            variance_type="fixed_small_log",
            prediction_type="sample",
            clip_sample_range=5.0,
        ),
        "image_normalizer": StableUnCLIPImageNormalizer(embedding_dim=16),
        "image_noising_scheduler": diffusers.DDPMScheduler(**schedule),
        "unet": unet(class_embed_type="projection", projection_class_embeddings_input_dim=32),
        "scheduler": ddim(),
        "vae": autoencoder(),
    }


def _kandinsky() -> dict[str, Any]:
    """Kandinsky 2.2: the embedding is what the UNet attends to."""
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        projection_dim=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
    )
    prior = {
        "prior": _prior(),
        "image_encoder": CLIPVisionModelWithProjection(vision),
        "text_encoder": text_encoder(pooled=True),
        "tokenizer": tokenizer(),
        "scheduler": diffusers.UnCLIPScheduler(prediction_type="sample", clip_sample_range=5.0),
        "image_processor": None,
    }
    torch.nn.init.ones_(prior["prior"].clip_std)
    return kandinsky22() | {f"prior_{name}": part for name, part in prior.items()}


CHAINS: tuple[Specimen, ...] = (
    Specimen("StableUnCLIPPipeline", _unclip, calling(_PROMPT, SIZE), steps=(2, 3)),
    Specimen(
        "KandinskyV22CombinedPipeline",
        _kandinsky,
        calling(_PROMPT, height=64, width=64),
        steps=(2, 3),
    ),
)
