"""Models of videos."""

from typing import Any

import diffusers
import torch
from pipelines import picture
from transformers import CLIPImageProcessor, CLIPVisionConfig, CLIPVisionModelWithProjection

from .images import SD, unet
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
    ddim,
    embeddings,
    euler,
    flow,
    masked,
    pair,
)

_LTX = {
    "height": 32,
    "width": 32,
    "prompt_attention_mask": torch.ones(1, 5, dtype=torch.bool),
    "negative_prompt_attention_mask": torch.ones(1, 5, dtype=torch.bool),
}


def _video_call(**more: Any) -> dict[str, Any]:
    return {
        "prompt_embeds": embeddings(1, 5, 32),
        "negative_prompt_embeds": embeddings(1, 5, 32, seed=2),
        "guidance_scale": 4.0,
        **SIZE,
    } | more


def _wan() -> dict[str, Any]:
    return {
        "vae": diffusers.AutoencoderKLWan(
            base_dim=3,
            z_dim=16,
            dim_mult=[1, 1, 1, 1],
            num_res_blocks=1,
            temperal_downsample=[False, True, True],
        ),
        "transformer": diffusers.WanTransformer3DModel(
            patch_size=(1, 2, 2),
            num_attention_heads=2,
            attention_head_dim=12,
            in_channels=16,
            out_channels=16,
            text_dim=32,
            freq_dim=32,
            ffn_dim=32,
            num_layers=1,
            cross_attn_norm=True,
            qk_norm="rms_norm_across_heads",
            rope_max_seq_len=32,
        ),
        "scheduler": flow(),
        **NO_TEXT,
    }


def _ltx() -> dict[str, Any]:
    vae = diffusers.AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=(8, 8, 8, 8),
        decoder_block_out_channels=(8, 8, 8, 8),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
        spatio_temporal_scaling=(True, True, False, False),
        decoder_spatio_temporal_scaling=(True, True, False, False),
        decoder_inject_noise=(False, False, False, False, False),
        upsample_residual=(False, False, False, False),
        upsample_factor=(1, 1, 1, 1),
        timestep_conditioning=False,
        patch_size=1,
        patch_size_t=1,
    )
    return {
        "vae": vae,
        "transformer": diffusers.LTXVideoTransformer3DModel(
            in_channels=8,
            out_channels=8,
            num_attention_heads=4,
            attention_head_dim=8,
            cross_attention_dim=32,
            num_layers=1,
            caption_channels=32,
        ),
        "scheduler": flow(),
        **NO_TEXT,
    }


def _cogvideo() -> dict[str, Any]:
    return {
        "vae": diffusers.AutoencoderKLCogVideoX(
            down_block_types=("CogVideoXDownBlock3D",) * 4,
            up_block_types=("CogVideoXUpBlock3D",) * 4,
            block_out_channels=(8, 8, 8, 8),
            latent_channels=4,
            layers_per_block=1,
            norm_num_groups=2,
            temporal_compression_ratio=4,
        ),
        "transformer": diffusers.CogVideoXTransformer3DModel(
            num_attention_heads=4,
            attention_head_dim=8,
            in_channels=4,
            out_channels=4,
            time_embed_dim=2,
            text_embed_dim=32,
            num_layers=1,
            sample_width=2,
            sample_height=2,
            sample_frames=9,
            patch_size=2,
            temporal_compression_ratio=4,
            max_text_seq_length=5,
        ),
        "scheduler": diffusers.CogVideoXDDIMScheduler(),
        **NO_TEXT,
    }


def _animatediff() -> dict[str, Any]:
    return {
        "vae": autoencoder(),
        "unet": unet(),
        "motion_adapter": diffusers.MotionAdapter(
            block_out_channels=(16, 32),
            motion_layers_per_block=1,
            motion_norm_num_groups=4,
            motion_num_attention_heads=2,
        ),
        "scheduler": ddim(),
        **NO_TEXT,
        **absent("feature_extractor", "image_encoder"),
    }


def _hunyuan_autoencoder(blocks: int, channels: int) -> Any:
    return diffusers.AutoencoderKLHunyuanVideo(
        latent_channels=channels,
        down_block_types=("HunyuanVideoDownBlock3D",) * blocks,
        up_block_types=("HunyuanVideoUpBlock3D",) * blocks,
        block_out_channels=(8,) * blocks,
        layers_per_block=1,
        norm_num_groups=4,
        mid_block_add_attention=False,
    )


def _hunyuan() -> dict[str, Any]:
    return {
        "vae": _hunyuan_autoencoder(4, 4),
        "transformer": diffusers.HunyuanVideoTransformer3DModel(
            in_channels=4,
            out_channels=4,
            num_attention_heads=2,
            attention_head_dim=10,
            num_layers=1,
            num_single_layers=1,
            num_refiner_layers=1,
            patch_size=1,
            text_embed_dim=16,
            pooled_projection_dim=8,
            rope_axes_dim=(2, 4, 4),
        ),
        "scheduler": flow(shift=7.0),
        **NO_TEXTS,
    }


_HUNYUAN = {
    "prompt_embeds": embeddings(1, 5, 16),
    "pooled_prompt_embeds": embeddings(1, 8, seed=3),
    "prompt_attention_mask": torch.ones(1, 5, dtype=torch.bool),
    "num_frames": 5,
    "height": 16,
    "width": 32,
}


def _kandinsky5() -> dict[str, Any]:
    return {
        "vae": _hunyuan_autoencoder(4, 16),
        "transformer": diffusers.Kandinsky5Transformer3DModel(
            in_visual_dim=16,
            out_visual_dim=16,
            in_text_dim=32,
            in_text_dim2=16,
            time_dim=16,
            model_dim=16,
            ff_dim=32,
            num_text_blocks=1,
            num_visual_blocks=1,
            axes_dims=(1, 1, 2),
        ),
        "scheduler": flow(shift=7.0),
        **NO_TEXTS,
    }


_KANDINSKY5 = {
    "prompt_embeds_qwen": embeddings(1, 5, 32),
    "prompt_embeds_clip": embeddings(1, 16, seed=2),
    "prompt_cu_seqlens": torch.tensor([0, 5]),
    "negative_prompt_embeds_qwen": embeddings(1, 5, 32, seed=3),
    "negative_prompt_embeds_clip": embeddings(1, 16, seed=4),
    "negative_prompt_cu_seqlens": torch.tensor([0, 5]),
    "guidance_scale": 4.0,
    "num_frames": 5,
    "height": 16,
    "width": 32,
}


def _mochi() -> dict[str, Any]:
    return {
        "vae": diffusers.AutoencoderKLMochi(
            encoder_block_out_channels=(32, 32, 32, 32),
            decoder_block_out_channels=(32, 32, 32, 32),
            layers_per_block=(1, 1, 1, 1, 1),
            latent_channels=12,
        ),
        "transformer": diffusers.MochiTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=8,
            num_layers=1,
            pooled_projection_dim=16,
            in_channels=12,
            text_embed_dim=32,
            time_embed_dim=4,
            max_sequence_length=5,
        ),
        "scheduler": flow(invert_sigmas=True),
        **NO_TEXT,
    }


def _latte() -> dict[str, Any]:
    return {
        "vae": autoencoder(),
        "transformer": diffusers.LatteTransformer3DModel(
            sample_size=SIDE // 2,
            num_layers=1,
            patch_size=2,
            attention_head_dim=8,
            num_attention_heads=3,
            caption_channels=32,
            in_channels=4,
            out_channels=8,
            cross_attention_dim=24,
            num_embeds_ada_norm=1000,
            norm_type="ada_norm_single",
            norm_elementwise_affine=False,
            norm_eps=1e-6,
            video_length=2,
        ),
        "scheduler": ddim(),
        **NO_TEXT,
    }


def _svd() -> dict[str, Any]:
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        projection_dim=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=224,
        patch_size=112,
    )
    return {
        "vae": diffusers.AutoencoderKLTemporalDecoder(
            block_out_channels=(32, 32),
            down_block_types=("DownEncoderBlock2D",) * 2,
        ),
        "unet": diffusers.UNetSpatioTemporalConditionModel(
            block_out_channels=(32, 32),
            down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
            up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
            layers_per_block=1,
            cross_attention_dim=16,
            num_attention_heads=2,
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=3 * 8,
        ),
        "image_encoder": CLIPVisionModelWithProjection(vision),
        "feature_extractor": CLIPImageProcessor(),
        "scheduler": euler(prediction_type="v_prediction", use_karras_sigmas=True),
    }


VIDEOS = (
    Specimen("WanPipeline", _wan, lambda: _video_call(num_frames=5), layout="video"),
    Specimen("LTXPipeline", _ltx, lambda: _video_call(num_frames=9, **_LTX), layout="video tokens"),
    Specimen(
        "CogVideoXPipeline",
        _cogvideo,
        lambda: _video_call(num_frames=8),
        layout="video, frames first",
    ),
    Specimen("AnimateDiffPipeline", _animatediff, calling(SD, SIZE, num_frames=3), layout="video"),
    Specimen("HunyuanVideoPipeline", _hunyuan, calling(_HUNYUAN), branches=ALONE, layout="video"),
    Specimen(
        "Kandinsky5T2VPipeline", _kandinsky5, calling(_KANDINSKY5), layout="video, channels last"
    ),
    Specimen("MochiPipeline", _mochi, calling(masked(5, 32), SIZE, num_frames=7), layout="video"),
    Specimen(
        "LattePipeline",
        _latte,
        calling(pair(5, 32), SIZE, video_length=2, negative_prompt=None, clean_caption=False),
        layout="video",
    ),
    Specimen(
        "StableVideoDiffusionPipeline",
        _svd,
        lambda: SIZE | {"image": picture(), "num_frames": 2},
        branches=UNLABELLED,
        layout="video, frames first",
    ),
)
