"""Models that are transformers: pictures."""

from typing import Any

import diffusers
import torch
from pipelines import picture

from .specimen import (
    ALONE,
    NO_TEXT,
    NO_TEXTS,
    SIDE,
    SIZE,
    UNLABELLED,
    Specimen,
    absent,
    autoencoder,
    calling,
    control,
    ddim,
    embeddings,
    flow,
    flow_autoencoder,
    image,
    inpainting,
    masked,
    pair,
)

_SD3 = {
    "prompt_embeds": embeddings(1, 5, 32),
    "negative_prompt_embeds": embeddings(1, 5, 32, seed=2),
    "pooled_prompt_embeds": embeddings(1, 16, seed=3),
    "negative_pooled_prompt_embeds": embeddings(1, 16, seed=4),
    "guidance_scale": 5.0,
}


def _sd3() -> dict[str, Any]:
    return {
        "vae": flow_autoencoder(16),
        "transformer": diffusers.SD3Transformer2DModel(
            sample_size=SIDE // 2,
            patch_size=1,
            in_channels=16,
            out_channels=16,
            num_layers=1,
            attention_head_dim=8,
            num_attention_heads=4,
            caption_projection_dim=32,
            joint_attention_dim=32,
            pooled_projection_dim=16,
        ),
        "scheduler": flow(),
        **NO_TEXTS,
        **absent("text_encoder_3", "tokenizer_3"),
    }


_FLUX = {"prompt_embeds": embeddings(1, 5, 32), "pooled_prompt_embeds": embeddings(1, 32, seed=3)}


_TRUE_CFG = {
    "true_cfg_scale": 4.0,
    "negative_prompt_embeds": embeddings(1, 5, 32, seed=2),
    "negative_pooled_prompt_embeds": embeddings(1, 32, seed=4),
}


def _flux(**options: Any) -> dict[str, Any]:
    return {
        "vae": flow_autoencoder(4),
        "transformer": diffusers.FluxTransformer2DModel(
            patch_size=1,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            pooled_projection_dim=32,
            axes_dims_rope=[4, 4, 8],
            **{"in_channels": 16} | options,
        ),
        "scheduler": flow(),
        **NO_TEXTS,
    }


def _pixart() -> dict[str, Any]:
    return {
        "vae": autoencoder(),
        "transformer": diffusers.PixArtTransformer2DModel(
            sample_size=SIDE // 2,
            num_layers=1,
            patch_size=2,
            attention_head_dim=8,
            num_attention_heads=3,
            caption_channels=32,
            in_channels=4,
            cross_attention_dim=24,
            out_channels=8,
            num_embeds_ada_norm=1000,
            norm_type="ada_norm_single",
            norm_elementwise_affine=False,
            norm_eps=1e-6,
        ),
        "scheduler": ddim(),
        **NO_TEXT,
    }


def _sana(**options: Any) -> dict[str, Any]:
    return {
        "vae": diffusers.AutoencoderDC(
            latent_channels=4,
            attention_head_dim=2,
            encoder_block_types=("ResBlock",) * 2,
            decoder_block_types=("ResBlock",) * 2,
            encoder_block_out_channels=(8, 8),
            decoder_block_out_channels=(8, 8),
            encoder_qkv_multiscales=((), ()),
            decoder_qkv_multiscales=((), ()),
            encoder_layers_per_block=(1, 1),
            decoder_layers_per_block=(1, 1),
            downsample_block_type="conv",
            upsample_block_type="interpolate",
            scaling_factor=0.41407,
        ),
        "transformer": diffusers.SanaTransformer2DModel(
            patch_size=1,
            in_channels=4,
            out_channels=4,
            num_layers=1,
            num_attention_heads=2,
            attention_head_dim=4,
            num_cross_attention_heads=2,
            cross_attention_head_dim=4,
            cross_attention_dim=8,
            caption_channels=8,
            sample_size=SIDE // 2,
            **options,
        ),
        "scheduler": flow(),
        **NO_TEXT,
    }


def _lumina2() -> dict[str, Any]:
    return {
        "vae": flow_autoencoder(),
        "transformer": diffusers.Lumina2Transformer2DModel(
            sample_size=4,
            patch_size=2,
            in_channels=4,
            hidden_size=8,
            num_layers=1,
            num_refiner_layers=1,
            num_attention_heads=1,
            num_kv_heads=1,
            multiple_of=16,
            axes_dim_rope=[4, 2, 2],
            cap_feat_dim=8,
        ),
        "scheduler": flow(),
        **NO_TEXT,
    }


def _chroma() -> dict[str, Any]:
    return {
        "vae": flow_autoencoder(),
        "transformer": diffusers.ChromaTransformer2DModel(
            patch_size=1,
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            axes_dims_rope=[4, 4, 8],
            approximator_hidden_dim=32,
            approximator_layers=1,
            approximator_num_channels=16,
        ),
        "scheduler": flow(),
        **NO_TEXT,
    }


def _qwen() -> dict[str, Any]:
    return {
        "vae": diffusers.AutoencoderKLQwenImage(
            base_dim=24,
            z_dim=4,
            dim_mult=[1, 2, 4],
            num_res_blocks=1,
            temperal_downsample=[False, True],
            latents_mean=[0.1, 0.0, -0.1, 0.2],
            latents_std=[1.0, 1.2, 0.9, 1.1],
        ),
        "transformer": diffusers.QwenImageTransformer2DModel(
            patch_size=2,
            in_channels=16,
            out_channels=4,
            num_layers=1,
            attention_head_dim=16,
            num_attention_heads=3,
            joint_attention_dim=16,
            axes_dims_rope=(8, 4, 4),
        ),
        "scheduler": flow(),
        **NO_TEXT,
    }


def _qwen_call(**more: Any) -> dict[str, Any]:
    return {
        "prompt_embeds": embeddings(1, 5, 16),
        "prompt_embeds_mask": torch.ones(1, 5, dtype=torch.long),
        "negative_prompt_embeds": embeddings(1, 5, 16, seed=2),
        "negative_prompt_embeds_mask": torch.ones(1, 5, dtype=torch.long),
        "true_cfg_scale": 3.0,
        **more,
    }


def _aura() -> dict[str, Any]:
    return {
        "vae": autoencoder(),
        "transformer": diffusers.AuraFlowTransformer2DModel(
            sample_size=SIDE // 2,
            patch_size=2,
            in_channels=4,
            num_mmdit_layers=1,
            num_single_dit_layers=1,
            attention_head_dim=8,
            num_attention_heads=4,
            caption_projection_dim=32,
            joint_attention_dim=32,
            out_channels=4,
            pos_embed_max_size=64,
        ),
        "scheduler": flow(),
        **NO_TEXT,
    }


def _dit() -> dict[str, Any]:
    return {
        "vae": autoencoder(),
        "transformer": diffusers.DiTTransformer2DModel(
            sample_size=SIDE // 2,
            num_layers=1,
            patch_size=4,
            attention_head_dim=8,
            num_attention_heads=2,
            in_channels=4,
            out_channels=8,
            num_embeds_ada_norm=1000,
            norm_type="ada_norm_zero",
            norm_elementwise_affine=False,
        ),
        "scheduler": ddim(),
    }


def _hunyuan_dit() -> dict[str, Any]:
    return {
        "vae": autoencoder(),
        "transformer": diffusers.HunyuanDiT2DModel(
            sample_size=SIDE // 2,
            num_layers=2,
            patch_size=2,
            attention_head_dim=8,
            num_attention_heads=3,
            in_channels=4,
            cross_attention_dim=32,
            cross_attention_dim_t5=32,
            pooled_projection_dim=16,
            hidden_size=24,
            text_len=5,
            text_len_t5=5,
            activation_fn="gelu-approximate",
        ),
        "scheduler": diffusers.DDPMScheduler(clip_sample=False),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
        **NO_TEXTS,
    }


def _hunyuan_dit_call() -> dict[str, Any]:
    call = masked(5, 32)
    return call | {f"{name}_2": call[name] for name in list(call) if name != "guidance_scale"}


_AS_IS = {"use_resolution_binning": False, "negative_prompt": None}


def _z_image() -> dict[str, Any]:
    return {
        "vae": flow_autoencoder(16),
        "transformer": diffusers.ZImageTransformer2DModel(
            in_channels=16,
            dim=32,
            n_layers=1,
            n_refiner_layers=1,
            n_heads=2,
            n_kv_heads=2,
            cap_feat_dim=16,
            axes_dims=[8, 4, 4],
            axes_lens=[256, 32, 32],
        ),
        "scheduler": flow(),
        **NO_TEXT,
    }


def _z_image_guided() -> dict[str, Any]:
    return _z_image() | {"guider": diffusers.ClassifierFreeGuidance(guidance_scale=4.0)}


_Z_IMAGE = {
    "prompt_embeds": [embeddings(5, 16)],
    "negative_prompt_embeds": [embeddings(5, 16, seed=2)],
    "height": 16,
    "width": 32,
}


def _flux2() -> dict[str, Any]:
    vae = diffusers.AutoencoderKLFlux2(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        decoder_block_out_channels=(8, 16),
        latent_channels=4,
        norm_num_groups=4,
        mid_block_add_attention=False,
    )
    vae.bn.running_mean.copy_(0.3 * embeddings(16))
    vae.bn.running_var.copy_(embeddings(16, seed=2).exp())
    return {
        "vae": vae,
        "transformer": diffusers.Flux2Transformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=16,
            axes_dims_rope=[4, 4, 4, 4],
            guidance_embeds=False,
        ),
        "scheduler": flow(),
        **NO_TEXT,
    }


def _unnormalised(pipe: Any, tokens: torch.Tensor) -> torch.Tensor:
    norm = pipe.vae.bn
    return (
        tokens * torch.sqrt(norm.running_var + pipe.vae.config.batch_norm_eps) + norm.running_mean
    )


def _flux_of(channels: int) -> dict[str, Any]:
    """With more channels going in than coming out: a picture beside the latents."""
    return _flux(in_channels=channels, out_channels=16)


def _cogview4() -> dict[str, Any]:
    return {
        "vae": autoencoder(),
        "transformer": diffusers.CogView4Transformer2DModel(
            in_channels=4,
            out_channels=4,
            num_layers=1,
            attention_head_dim=8,
            num_attention_heads=4,
            text_embed_dim=32,
            time_embed_dim=8,
            condition_dim=4,
        ),
        "scheduler": flow(use_dynamic_shifting=True, time_shift_type="linear"),
        **NO_TEXT,
    }


def _sd3_controlled() -> dict[str, Any]:
    parts = _sd3()
    options = {k: v for k, v in parts["transformer"].config.items() if not k.startswith("_")}
    return parts | {"controlnet": diffusers.SD3ControlNetModel(**options)}


def _sana_sprint() -> dict[str, Any]:
    parts = _sana(guidance_embeds=True, qk_norm="rms_norm_across_heads")
    return parts | {"scheduler": diffusers.SCMScheduler()}


_SPRINT = {
    "prompt_embeds": embeddings(1, 5, 8),
    "prompt_attention_mask": torch.ones(1, 5, dtype=torch.bool),
    "use_resolution_binning": False,
    "num_inference_steps": 2,
}


def _amused() -> dict[str, Any]:
    return {
        "vqvae": diffusers.VQModel(
            block_out_channels=(8, 16),
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            latent_channels=4,
            num_vq_embeddings=32,
            norm_num_groups=4,
            lookup_from_codebook=True,
        ),
        "transformer": diffusers.UVit2DModel(
            hidden_size=16,
            block_out_channels=16,
            cond_embed_dim=16,
            encoder_hidden_size=16,
            micro_cond_encode_dim=2,
            micro_cond_embed_dim=10,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=32,
            codebook_size=32,
            vocab_size=33,
            sample_size=8,
        ),
        "scheduler": diffusers.AmusedScheduler(mask_token_id=32),
        **NO_TEXT,
    }


_AMUSED = {
    "prompt_embeds": embeddings(1, 16),
    "encoder_hidden_states": embeddings(1, 5, 16, seed=2),
    "negative_prompt_embeds": embeddings(1, 16, seed=3),
    "negative_encoder_hidden_states": embeddings(1, 5, 16, seed=4),
}


TRANSFORMERS = (
    Specimen("StableDiffusion3Pipeline", _sd3, calling(_SD3, SIZE)),
    Specimen("StableDiffusion3Img2ImgPipeline", _sd3, lambda: _SD3 | SIZE | image()),
    Specimen("StableDiffusion3InpaintPipeline", _sd3, lambda: _SD3 | inpainting()),
    Specimen("FluxPipeline", _flux, calling(_FLUX, SIZE), branches=ALONE, layout="packed 2×2"),
    Specimen(
        "FluxPipeline",
        _flux,
        calling(_FLUX, _TRUE_CFG, SIZE),
        variant="true guidance",
        layout="packed 2×2",
    ),
    Specimen(
        "FluxImg2ImgPipeline",
        _flux,
        lambda: _FLUX | SIZE | image(),
        branches=ALONE,
        layout="packed 2×2",
    ),
    Specimen(
        "FluxInpaintPipeline",
        _flux,
        lambda: _FLUX | inpainting(),
        branches=ALONE,
        layout="packed 2×2",
    ),
    Specimen("PixArtAlphaPipeline", _pixart, calling(masked(5, 32), SIZE, _AS_IS)),
    Specimen("PixArtSigmaPipeline", _pixart, calling(masked(5, 32), SIZE, _AS_IS)),
    Specimen("SanaPipeline", _sana, calling(masked(5, 8), _AS_IS, height=32, width=32)),
    Specimen("Lumina2Pipeline", _lumina2, calling(masked(5, 8), SIZE), branches=UNLABELLED),
    Specimen(
        "Lumina2Pipeline",
        _lumina2,
        calling(masked(5, 8), SIZE, cfg_normalization=False),
        variant="plain guidance",
    ),
    Specimen("ChromaPipeline", _chroma, calling(masked(5, 32), SIZE), layout="packed 2×2"),
    Specimen(
        "ChromaImg2ImgPipeline",
        _chroma,
        lambda: masked(5, 32) | SIZE | image(),
        layout="packed 2×2",
    ),
    Specimen(
        "QwenImagePipeline",
        _qwen,
        lambda: _qwen_call(**SIZE),
        branches=UNLABELLED,
        layout="packed 2×2",
    ),
    Specimen(
        "QwenImageImg2ImgPipeline",
        _qwen,
        lambda: _qwen_call(**SIZE, **image()),
        branches=UNLABELLED,
        layout="packed 2×2",
    ),
    Specimen(
        "QwenImageInpaintPipeline",
        _qwen,
        lambda: _qwen_call(**inpainting()),
        branches=UNLABELLED,
        layout="packed 2×2",
    ),
    Specimen("AuraFlowPipeline", _aura, calling(masked(5, 32), SIZE)),
    Specimen("DiTPipeline", _dit, calling(class_labels=[1], guidance_scale=4.0), returned=None),
    Specimen("HunyuanDiTPipeline", _hunyuan_dit, lambda: _hunyuan_dit_call() | SIZE | _AS_IS),
    Specimen("ZImagePipeline", _z_image, calling(_Z_IMAGE)),
    Specimen("ZImageAutoBlocks", _z_image_guided, calling(_Z_IMAGE), returned=None),
    Specimen(
        "Flux2KleinPipeline",
        _flux2,
        calling(pair(5, 16), height=16, width=32),
        layout="packed 2×2",
        returned=_unnormalised,
    ),
    Specimen(
        "FluxFillPipeline",
        lambda: _flux_of(16 + 16 + 16),
        lambda: _FLUX | inpainting(),
        branches=ALONE,
        layout="packed 2×2",
    ),
    Specimen(
        "FluxControlPipeline",
        lambda: _flux_of(32),
        lambda: _FLUX | SIZE | control(),
        branches=ALONE,
        layout="packed 2×2",
    ),
    Specimen(
        "FluxKontextPipeline",
        _flux,
        lambda: _FLUX | SIZE | {"image": picture(), "max_area": 256, "_auto_resize": False},
        branches=ALONE,
        layout="packed 2×2",
    ),
    Specimen("CogView4Pipeline", _cogview4, calling(pair(5, 32), SIZE)),
    Specimen(
        "StableDiffusion3ControlNetPipeline", _sd3_controlled, lambda: _SD3 | SIZE | control()
    ),
    Specimen(
        "SanaSprintPipeline",
        _sana_sprint,
        calling(_SPRINT, height=32, width=32),
        steps=(2,),
        branches=ALONE,
        fitted=True,
        shows_x0=True,
        returned=lambda pipe, latents: latents / pipe.scheduler.config.sigma_data,
    ),
    Specimen(
        "AmusedPipeline",
        _amused,
        calling(_AMUSED, SIZE),
        branches=(),
        values="tokens",
    ),
)
