"""Small random pipelines of many of diffusers' families, made from components: no download.

Prompts go in as embeddings, drawn at random, so that no tokenizer and no text encoder is needed.
Weights are random but always the same ones; a step takes some milliseconds.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from pipelines import mask, picture

SIDE = 16  # of the pictures, in pixels


@dataclass(frozen=True)
class Specimen:
    """A pipeline to be recorded: how it is made, how it is called, and what should be seen."""

    pipeline: str
    """Name of the class in diffusers."""
    parts: Callable[[], dict[str, Any]]
    call: Callable[[], dict[str, Any]]
    steps: tuple[int, ...] = (3,)
    """Steps of each denoising loop, in order."""
    branches: tuple[str, ...] = ("guided", "unconditional", "conditional")
    variant: str = ""

    @property
    def name(self) -> str:
        """The class, and what is special about this one."""
        return f"{self.pipeline}-{self.variant}" if self.variant else self.pipeline

    def build(self) -> Any:
        """The pipeline, with weights that are always the same."""
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.manual_seed(0)
            parts = self.parts()
            for part in parts.values():
                if isinstance(part, torch.nn.Module):
                    part.eval()
                    _enliven(part)
            pipe = getattr(diffusers, self.pipeline)(**parts)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def arguments(self) -> dict[str, Any]:
        """Arguments of one call, with a fresh generator."""
        return {
            "num_inference_steps": 3,
            "generator": torch.Generator().manual_seed(5),
            "output_type": "np",
        } | self.call()


@torch.no_grad()
def _enliven(module: torch.nn.Module) -> None:
    """Fills what is left zero or empty at the start, which would make a model deaf or NaN."""
    for name, weights in module.named_parameters():
        dead = not torch.isfinite(weights).all() or (weights.ndim > 1 and not weights.any())
        if dead or name.endswith(("pad_token", "scale_shift_table")):
            weights.copy_(0.2 * torch.randn(weights.shape))
        elif "attn2" in name or "context" in name or "caption" in name:
            weights.mul_(3)


def embeddings(*shape: int, seed: int = 1) -> torch.Tensor:
    """What a text encoder might give."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def autoencoder(channels: int = 4, **options: Any) -> Any:
    """Halves the sides."""
    return diffusers.AutoencoderKL(
        block_out_channels=(8, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=channels,
        norm_num_groups=4,
        sample_size=SIDE,
        mid_block_add_attention=False,
        **options,
    )


def flow_autoencoder(channels: int = 4) -> Any:
    """With the shift that flow models' autoencoders have."""
    return autoencoder(
        channels,
        use_quant_conv=False,
        use_post_quant_conv=False,
        shift_factor=0.06,
        scaling_factor=1.5,
    )


_SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def ddim() -> Any:
    """Stable Diffusion's."""
    return diffusers.DDIMScheduler(**_SCHEDULE, clip_sample=False, steps_offset=1)


def euler() -> Any:
    """SDXL's."""
    return diffusers.EulerDiscreteScheduler(**_SCHEDULE, steps_offset=1)


def flow() -> Any:
    """Flow matching."""
    return diffusers.FlowMatchEulerDiscreteScheduler()


def _unet(channels: int = 4, **options: Any) -> Any:
    return diffusers.UNet2DConditionModel(
        **{
            "sample_size": SIDE // 2,
            "in_channels": channels,
            "out_channels": 4,
            "block_out_channels": (16, 32),
            "layers_per_block": 1,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
            "cross_attention_dim": 16,
            "attention_head_dim": 2,
            "norm_num_groups": 4,
        }
        | options
    )


def _controlnet(**options: Any) -> Any:
    return diffusers.ControlNetModel(
        in_channels=4,
        block_out_channels=(16, 32),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        conditioning_embedding_out_channels=(16, 32),
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
        **options,
    )


def _sd(channels: int = 4, scheduler: Callable[[], Any] = ddim, **more: Any) -> dict[str, Any]:
    absent = ("text_encoder", "tokenizer", "safety_checker", "feature_extractor")
    return {
        "vae": autoencoder(),
        "unet": _unet(channels, **more.pop("unet", {})),
        "scheduler": scheduler(),
        "requires_safety_checker": False,
        **dict.fromkeys(absent),
        **more,
    }


_SD = {
    "prompt_embeds": embeddings(1, 5, 16),
    "negative_prompt_embeds": embeddings(1, 5, 16, seed=2),
    "guidance_scale": 5.0,
}
_ONE_PROMPT = {"prompt_embeds": embeddings(1, 5, 16)}
_SIZE = {"height": SIDE, "width": SIDE}
_AS_IS = {"use_resolution_binning": False, "negative_prompt": None}
_LTX = {
    "height": 32,
    "width": 32,
    "prompt_attention_mask": torch.ones(1, 5, dtype=torch.bool),
    "negative_prompt_attention_mask": torch.ones(1, 5, dtype=torch.bool),
}


def _image() -> dict[str, Any]:
    return {"image": picture(), "strength": 0.7}


def _inpainting() -> dict[str, Any]:
    return _image() | _SIZE | {"mask_image": mask()}


_ADDED = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 6 * 8 + 16,
    "use_linear_projection": True,
}
_SDXL = _SD | {
    "pooled_prompt_embeds": embeddings(1, 16, seed=3),
    "negative_pooled_prompt_embeds": embeddings(1, 16, seed=4),
}


def _sdxl(channels: int = 4, **more: Any) -> dict[str, Any]:
    absent = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
    return {
        "vae": autoencoder(scaling_factor=0.13025),
        "unet": _unet(channels, **_ADDED),
        "scheduler": euler(),
        **dict.fromkeys(absent),
        **more,
    }


_SD3 = {
    "prompt_embeds": embeddings(1, 5, 32),
    "negative_prompt_embeds": embeddings(1, 5, 32, seed=2),
    "pooled_prompt_embeds": embeddings(1, 16, seed=3),
    "negative_pooled_prompt_embeds": embeddings(1, 16, seed=4),
    "guidance_scale": 5.0,
}


def _sd3() -> dict[str, Any]:
    absent = [f"{part}{i}" for part in ("text_encoder", "tokenizer") for i in ("", "_2", "_3")]
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
        **dict.fromkeys(absent),
    }


_FLUX = {"prompt_embeds": embeddings(1, 5, 32), "pooled_prompt_embeds": embeddings(1, 32, seed=3)}
_TRUE_CFG = {
    "true_cfg_scale": 4.0,
    "negative_prompt_embeds": embeddings(1, 5, 32, seed=2),
    "negative_pooled_prompt_embeds": embeddings(1, 32, seed=4),
}


def _flux() -> dict[str, Any]:
    absent = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
    return {
        "vae": flow_autoencoder(4),
        "transformer": diffusers.FluxTransformer2DModel(
            patch_size=1,
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            pooled_projection_dim=32,
            axes_dims_rope=[4, 4, 8],
        ),
        "scheduler": flow(),
        **dict.fromkeys(absent),
    }


def _masked(length: int, width: int) -> dict[str, Any]:
    """Embeddings with their masks, as T5 gives them."""
    return {
        "prompt_embeds": embeddings(1, length, width),
        "negative_prompt_embeds": embeddings(1, length, width, seed=2),
        "prompt_attention_mask": torch.ones(1, length, dtype=torch.bool),
        "negative_prompt_attention_mask": torch.ones(1, length, dtype=torch.bool),
        "guidance_scale": 4.0,
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
        "text_encoder": None,
        "tokenizer": None,
    }


def _sana() -> dict[str, Any]:
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
        ),
        "scheduler": flow(),
        "text_encoder": None,
        "tokenizer": None,
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
        "text_encoder": None,
        "tokenizer": None,
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
        "text_encoder": None,
        "tokenizer": None,
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
        "text_encoder": None,
        "tokenizer": None,
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
        "text_encoder": None,
        "tokenizer": None,
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
    absent = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2")
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
        **dict.fromkeys(absent),
    }


def _hunyuan_dit_call() -> dict[str, Any]:
    call = _masked(5, 32)
    return call | {f"{name}_2": call[name] for name in list(call) if name != "guidance_scale"}


def _kandinsky22_unet(channels: int = 4) -> Any:
    return diffusers.UNet2DConditionModel(
        in_channels=channels,
        out_channels=8,
        addition_embed_type="image",
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        block_out_channels=(16, 32),
        layers_per_block=1,
        encoder_hid_dim=16,
        encoder_hid_dim_type="image_proj",
        cross_attention_dim=16,
        attention_head_dim=4,
        norm_num_groups=4,
        resnet_time_scale_shift="scale_shift",
        class_embed_type=None,
    )


def _kandinsky22(channels: int = 4) -> dict[str, Any]:
    return {
        "unet": _kandinsky22_unet(channels),
        "scheduler": diffusers.DDPMScheduler(**_SCHEDULE, clip_sample=False),
        "movq": diffusers.VQModel(
            block_out_channels=(16, 16, 32, 32),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            latent_channels=4,
            num_vq_embeddings=12,
            norm_num_groups=8,
            vq_embed_dim=4,
        ),
    }


_KANDINSKY = {
    "image_embeds": embeddings(1, 16),
    "negative_image_embeds": embeddings(1, 16, seed=2),
    "guidance_scale": 4.0,
    "height": 64,
    "width": 64,
}


def _unconditional(scheduler: str) -> dict[str, Any]:
    return {
        "unet": diffusers.UNet2DModel(
            sample_size=SIDE,
            block_out_channels=(16, 32),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            norm_num_groups=4,
        ),
        "scheduler": getattr(diffusers, scheduler)(),
    }


_GUIDED = ("unconditional", "conditional", "guided")
_UNLABELLED = ("branch 0", "branch 1", "guided")
_THREE = ("branch 0", "branch 1", "branch 2", "guided")
_ALONE = ("guided",)


def _with(*parts: dict[str, Any], **more: Any) -> Callable[[], dict[str, Any]]:
    def call() -> dict[str, Any]:
        joined: dict[str, Any] = {}
        for part in parts:
            joined |= part
        return joined | more

    return call


def _video_call(**more: Any) -> dict[str, Any]:
    return {
        "prompt_embeds": embeddings(1, 5, 32),
        "negative_prompt_embeds": embeddings(1, 5, 32, seed=2),
        "guidance_scale": 4.0,
        **_SIZE,
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
        "text_encoder": None,
        "tokenizer": None,
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
        "text_encoder": None,
        "tokenizer": None,
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
        "text_encoder": None,
        "tokenizer": None,
    }


def _animatediff() -> dict[str, Any]:
    absent = ("text_encoder", "tokenizer", "feature_extractor", "image_encoder")
    return {
        "vae": autoencoder(),
        "unet": _unet(),
        "motion_adapter": diffusers.MotionAdapter(
            block_out_channels=(16, 32),
            motion_layers_per_block=1,
            motion_norm_num_groups=4,
            motion_num_attention_heads=2,
        ),
        "scheduler": ddim(),
        **dict.fromkeys(absent),
    }


def _lcm() -> dict[str, Any]:
    return _sd(
        scheduler=lambda: diffusers.LCMScheduler(**_SCHEDULE, clip_sample=False),
        unet={"time_cond_proj_dim": 16},
    )


def _control() -> dict[str, Any]:
    return {"control_image": picture()}


ZOO: tuple[Specimen, ...] = (
    Specimen("StableDiffusionPipeline", _sd, _with(_SD, _SIZE), (3,), _GUIDED),
    Specimen("StableDiffusionImg2ImgPipeline", _sd, lambda: _SD | _image(), (2,), _GUIDED),
    Specimen("StableDiffusionInpaintPipeline", _sd, lambda: _SD | _inpainting(), (2,), _GUIDED),
    Specimen(
        "StableDiffusionInpaintPipeline",
        lambda: _sd(9),
        lambda: _SD | _inpainting(),
        (2,),
        _GUIDED,
        "nine channels",
    ),
    Specimen(
        "StableDiffusionControlNetPipeline",
        lambda: _sd(controlnet=_controlnet()),
        lambda: _SD | _SIZE | {"image": picture()},
        (3,),
        _GUIDED,
    ),
    Specimen(
        "StableDiffusionControlNetImg2ImgPipeline",
        lambda: _sd(controlnet=_controlnet()),
        lambda: _SD | _SIZE | _image() | _control(),
        (2,),
        _GUIDED,
    ),
    Specimen(
        "StableDiffusionControlNetInpaintPipeline",
        lambda: _sd(controlnet=_controlnet()),
        lambda: _SD | _inpainting() | _control(),
        (2,),
        _GUIDED,
    ),
    Specimen(
        "StableDiffusionInstructPix2PixPipeline",
        lambda: _sd(8),
        lambda: _SD | {"image": picture(), "image_guidance_scale": 1.5},
        (3,),
        _THREE,
    ),
    Specimen("StableDiffusionPAGPipeline", _sd, _with(_SD, _SIZE, pag_scale=2.0), (3,), _THREE),
    Specimen("LatentConsistencyModelPipeline", _lcm, _with(_ONE_PROMPT, _SIZE), (3,), _ALONE),
    Specimen(
        "LatentConsistencyModelImg2ImgPipeline",
        _lcm,
        lambda: _ONE_PROMPT | _image(),
        (3,),
        _ALONE,
    ),
    Specimen("StableDiffusionXLPipeline", _sdxl, _with(_SDXL, _SIZE), (3,), _GUIDED),
    Specimen("StableDiffusionXLImg2ImgPipeline", _sdxl, lambda: _SDXL | _image(), (2,), _GUIDED),
    Specimen(
        "StableDiffusionXLInpaintPipeline", _sdxl, lambda: _SDXL | _inpainting(), (2,), _GUIDED
    ),
    Specimen(
        "StableDiffusionXLControlNetPipeline",
        lambda: _sdxl(controlnet=_controlnet(**_ADDED)),
        lambda: _SDXL | _SIZE | {"image": picture()},
        (3,),
        _GUIDED,
    ),
    Specimen(
        "StableDiffusionXLControlNetImg2ImgPipeline",
        lambda: _sdxl(controlnet=_controlnet(**_ADDED)),
        lambda: _SDXL | _SIZE | _image() | _control(),
        (2,),
        _GUIDED,
    ),
    Specimen("StableDiffusionXLPAGPipeline", _sdxl, _with(_SDXL, _SIZE), (3,), _THREE),
    Specimen("StableDiffusion3Pipeline", _sd3, _with(_SD3, _SIZE), (3,), _GUIDED),
    Specimen(
        "StableDiffusion3Img2ImgPipeline", _sd3, lambda: _SD3 | _SIZE | _image(), (3,), _GUIDED
    ),
    Specimen("StableDiffusion3InpaintPipeline", _sd3, lambda: _SD3 | _inpainting(), (3,), _GUIDED),
    Specimen("FluxPipeline", _flux, _with(_FLUX, _SIZE), (3,), _ALONE),
    Specimen("FluxPipeline", _flux, _with(_FLUX, _TRUE_CFG, _SIZE), (3,), _GUIDED, "true guidance"),
    Specimen("FluxImg2ImgPipeline", _flux, lambda: _FLUX | _SIZE | _image(), (3,), _ALONE),
    Specimen("FluxInpaintPipeline", _flux, lambda: _FLUX | _inpainting(), (3,), _ALONE),
    Specimen("PixArtAlphaPipeline", _pixart, _with(_masked(5, 32), _SIZE, _AS_IS), (3,), _GUIDED),
    Specimen("PixArtSigmaPipeline", _pixart, _with(_masked(5, 32), _SIZE, _AS_IS), (3,), _GUIDED),
    Specimen(
        "SanaPipeline", _sana, _with(_masked(5, 8), _AS_IS, height=32, width=32), (3,), _GUIDED
    ),
    Specimen("Lumina2Pipeline", _lumina2, _with(_masked(5, 8), _SIZE), (3,), _UNLABELLED),
    Specimen(
        "Lumina2Pipeline",
        _lumina2,
        _with(_masked(5, 8), _SIZE, cfg_normalization=False),
        (3,),
        _GUIDED,
        "plain guidance",
    ),
    Specimen("ChromaPipeline", _chroma, _with(_masked(5, 32), _SIZE), (3,), _GUIDED),
    Specimen(
        "ChromaImg2ImgPipeline", _chroma, lambda: _masked(5, 32) | _SIZE | _image(), (3,), _GUIDED
    ),
    Specimen("QwenImagePipeline", _qwen, lambda: _qwen_call(**_SIZE), (3,), _UNLABELLED),
    Specimen(
        "QwenImageImg2ImgPipeline",
        _qwen,
        lambda: _qwen_call(**_SIZE, **_image()),
        (3,),
        _UNLABELLED,
    ),
    Specimen(
        "QwenImageInpaintPipeline", _qwen, lambda: _qwen_call(**_inpainting()), (3,), _UNLABELLED
    ),
    Specimen("AuraFlowPipeline", _aura, _with(_masked(5, 32), _SIZE), (3,), _GUIDED),
    Specimen("DiTPipeline", _dit, _with(class_labels=[1], guidance_scale=4.0), (3,), _GUIDED),
    Specimen(
        "HunyuanDiTPipeline",
        _hunyuan_dit,
        lambda: _hunyuan_dit_call() | _SIZE | _AS_IS,
        (3,),
        _GUIDED,
    ),
    Specimen("KandinskyV22Pipeline", _kandinsky22, _with(_KANDINSKY), (3,), _GUIDED),
    Specimen(
        "KandinskyV22Img2ImgPipeline", _kandinsky22, lambda: _KANDINSKY | _image(), (2,), _GUIDED
    ),
    Specimen("WanPipeline", _wan, lambda: _video_call(num_frames=5), (3,), _GUIDED),
    Specimen("LTXPipeline", _ltx, lambda: _video_call(num_frames=9, **_LTX), (3,), _GUIDED),
    Specimen("CogVideoXPipeline", _cogvideo, lambda: _video_call(num_frames=8), (3,), _GUIDED),
    Specimen("AnimateDiffPipeline", _animatediff, _with(_SD, _SIZE, num_frames=3), (3,), _GUIDED),
    Specimen("DDPMPipeline", lambda: _unconditional("DDPMScheduler"), _with(), (3,), _ALONE),
    Specimen("DDIMPipeline", lambda: _unconditional("DDIMScheduler"), _with(), (3,), _ALONE),
)
