"""The parts of the embedded model, untrained: standard diffusers and transformers classes, made small.

Sizes are chosen for two CPU cores: 25 guided steps take about a second. `attention_head_dim` of
`UNet2DConditionModel` is, despite its name, the number of heads.
"""

from __future__ import annotations

import json

import numpy as np
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import (
    CLIPImageProcessorPil,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from ldm_viz.tiny.captions import caption
from ldm_viz.tiny.drawing import SIZE
from ldm_viz.tiny.scenes import random_scene

CONTEXT_LENGTH = 32
"""Tokens of a prompt, start and end included; longer prompts are cut by the pipeline."""

WIDTH = 128
"""Channels of the text states the UNet attends to, and of the joint text-image space."""

IMAGE_TOKENS = 4
"""Tokens an image embedding becomes in the adapter; IP-Adapter's format fixes it."""


def build_tokenizer(vocabulary: int = 1200) -> CLIPTokenizer:
    """Learns a byte-pair vocabulary from captions of the grammar.

    All 256 bytes are in it, so any text can be encoded. The same captions give the same vocabulary.
    """
    rng = np.random.default_rng(20)
    texts = [caption(random_scene(rng, held_out=None), rng).text.lower() for _ in range(20_000)]
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>", continuing_subword_prefix=""))
    reference = CLIPTokenizer(vocab={"<|startoftext|>": 0, "<|endoftext|>": 1}, merges=[])
    learner.normalizer = normalizers.Lowercase()
    learner.pre_tokenizer = reference.backend_tokenizer.pre_tokenizer
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    learner.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary,
            min_frequency=5,
            initial_alphabet=alphabet,
            end_of_word_suffix="</w>",
            show_progress=False,
        ),
    )
    learned = json.loads(learner.to_str())["model"]
    pieces = alphabet + [f"{letter}</w>" for letter in alphabet]
    pieces += [p for p in sorted(learned["vocab"], key=learned["vocab"].get) if p not in pieces]
    pieces += ["<|startoftext|>", "<|endoftext|>"]
    merges = [tuple(m.split(" ")) if isinstance(m, str) else tuple(m) for m in learned["merges"]]
    return CLIPTokenizer(
        vocab={piece: i for i, piece in enumerate(dict.fromkeys(pieces))},
        merges=merges,
        model_max_length=CONTEXT_LENGTH,
    )


def _text_config(tokenizer: CLIPTokenizer, layers: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT_LENGTH,
        projection_dim=WIDTH,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """The text encoder whose states condition the UNet: (batch, 32, 128)."""
    return CLIPTextModel(_text_config(tokenizer, layers=4))


def build_joint_text(tokenizer: CLIPTokenizer) -> CLIPTextModelWithProjection:
    """The text tower of the joint space: `text_embeds` (batch, 128)."""
    return CLIPTextModelWithProjection(_text_config(tokenizer, layers=4))


def build_joint_vision() -> CLIPVisionModelWithProjection:
    """The vision tower of the joint space: `image_embeds` (batch, 128)."""
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=WIDTH,
            intermediate_size=4 * WIDTH,
            num_hidden_layers=5,
            num_attention_heads=4,
            image_size=SIZE,
            patch_size=8,
            projection_dim=WIDTH,
        )
    )


def build_image_processor() -> CLIPImageProcessorPil:
    """Turns a picture into the vision tower's input, (3, 64, 64)."""
    return CLIPImageProcessorPil(size={"shortest_edge": SIZE}, crop_size=SIZE)


def build_autoencoder() -> AutoencoderKL:
    """The autoencoder: (3, 64, 64) in [-1, 1] to latents (4, 16, 16) and back."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=SIZE,
        mid_block_add_attention=False,
    )


def build_unet() -> UNet2DConditionModel:
    """The denoiser: predicts the noise in latents (4, 16, 16) given a timestep and text states."""
    return UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(64, 128, 128),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        cross_attention_dim=WIDTH,
        attention_head_dim=4,
        norm_num_groups=16,
    )


def build_scheduler() -> DDIMScheduler:
    """Stable Diffusion's noise schedule; every other scheduler can be made from its config.

    `set_alpha_to_one` makes DDIM's last step end in the predicted x0 itself. `skip_prk_steps` is
    for PNDM, as in Stable Diffusion's own configuration.
    """
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,
        prediction_type="epsilon",
    )
    scheduler.register_to_config(skip_prk_steps=True)
    return scheduler
