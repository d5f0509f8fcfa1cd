"""Models that are UNets: pictures from latents, and from pixels."""

from collections.abc import Callable
from typing import Any

import diffusers
import torch
from diffusers.pipelines.deprecated.wuerstchen import PaellaVQModel
from pipelines import picture

from .specimen import (
    ALONE,
    NO_TEXT,
    NO_TEXTS,
    SCHEDULE,
    SIDE,
    SIZE,
    THREE,
    Specimen,
    absent,
    autoencoder,
    calling,
    control,
    ddim,
    embeddings,
    euler,
    image,
    inpainting,
)


def unet(channels: int = 4, **options: Any) -> Any:
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
    return {
        "vae": autoencoder(),
        "unet": unet(channels, **more.pop("unet", {})),
        "scheduler": scheduler(),
        "requires_safety_checker": False,
        **NO_TEXT,
        **absent("safety_checker", "feature_extractor"),
        **more,
    }


SD = {
    "prompt_embeds": embeddings(1, 5, 16),
    "negative_prompt_embeds": embeddings(1, 5, 16, seed=2),
    "guidance_scale": 5.0,
}


_ONE_PROMPT = {"prompt_embeds": embeddings(1, 5, 16)}


def _lcm() -> dict[str, Any]:
    return _sd(
        scheduler=lambda: diffusers.LCMScheduler(**SCHEDULE, clip_sample=False),
        unet={"time_cond_proj_dim": 16},
    )


_ADDED = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 8,
    "projection_class_embeddings_input_dim": 6 * 8 + 16,
    "use_linear_projection": True,
}


_SDXL = SD | {
    "pooled_prompt_embeds": embeddings(1, 16, seed=3),
    "negative_pooled_prompt_embeds": embeddings(1, 16, seed=4),
}


def _sdxl(channels: int = 4, **more: Any) -> dict[str, Any]:
    return {
        "vae": autoencoder(scaling_factor=0.13025),
        "unet": unet(channels, **_ADDED),
        "scheduler": euler(),
        **NO_TEXTS,
        **more,
    }


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


def kandinsky22(channels: int = 4) -> dict[str, Any]:
    return {
        "unet": _kandinsky22_unet(channels),
        "scheduler": diffusers.DDPMScheduler(**SCHEDULE, clip_sample=False),
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


KANDINSKY = {
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


def _with_image_prompts() -> dict[str, Any]:
    """With an IP-Adapter: each cross-attention sees tokens made of a picture's embedding, too."""
    parts = _sd()
    model = parts["unet"]
    added: dict[str, Any] = {}
    for place, name in enumerate(model.attn_processors):
        if "attn2" in name:
            width = model.get_submodule(name.removesuffix(".processor")).to_q.in_features
            added |= {f"{place}.to_{kind}_ip.weight": embeddings(width, 16) for kind in "kv"}
    projection = {
        "proj.weight": embeddings(4 * 16, 16),
        "proj.bias": torch.zeros(4 * 16),
        "norm.weight": torch.ones(16),
        "norm.bias": torch.zeros(16),
    }
    model._load_ip_adapter_weights([{"image_proj": projection, "ip_adapter": added}])
    return parts


def _adapted() -> dict[str, Any]:
    """With a T2I adapter, which adds to what the UNet's blocks give on their way down."""
    blocks = {
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
    }
    adapter = diffusers.T2IAdapter(channels=[16, 32], num_res_blocks=1, downscale_factor=2)
    return _sd(adapter=adapter, unet=blocks)


def _cascade() -> dict[str, Any]:
    time, attention = ("SDCascadeResBlock", "SDCascadeTimestepBlock"), ("SDCascadeAttnBlock",)
    decoder = diffusers.models.StableCascadeUNet(
        in_channels=4,
        out_channels=4,
        conditioning_dim=16,
        block_out_channels=(16, 32),
        num_attention_heads=(-1, 2),
        down_num_layers_per_block=(1, 1),
        up_num_layers_per_block=(1, 1),
        down_blocks_repeat_mappers=(1, 1),
        up_blocks_repeat_mappers=(1, 1),
        block_types_per_layer=(time, time + attention),
        clip_text_pooled_in_channels=16,
        dropout=(0.0, 0.0),
    )
    vqgan = PaellaVQModel(bottleneck_blocks=1, num_vq_embeddings=8, embed_dim=16)
    vqgan.out_block[0].weight.data.mul_(0.02)  # most colours between 0 and 1, as if trained
    vqgan.out_block[0].bias.data.fill_(0.5)
    return {
        "decoder": decoder,
        "scheduler": diffusers.DDPMWuerstchenScheduler(),
        "vqgan": vqgan,
        "latent_dim_scale": 4.0,
        **NO_TEXT,
    }


_CASCADE = {
    "image_embeddings": embeddings(1, 4, 2, 3),
    "prompt_embeds": embeddings(1, 5, 16),
    "prompt_embeds_pooled": embeddings(1, 1, 16, seed=2),
    "negative_prompt_embeds": embeddings(1, 5, 16, seed=3),
    "negative_prompt_embeds_pooled": embeddings(1, 1, 16, seed=4),
    "guidance_scale": 2.0,
}


UNETS = (
    Specimen("StableDiffusionPipeline", _sd, calling(SD, SIZE)),
    Specimen("StableDiffusionImg2ImgPipeline", _sd, lambda: SD | image(), steps=(2,)),
    Specimen("StableDiffusionInpaintPipeline", _sd, lambda: SD | inpainting(), steps=(2,)),
    Specimen(
        "StableDiffusionInpaintPipeline",
        lambda: _sd(9),
        lambda: SD | inpainting(),
        variant="nine channels",
        steps=(2,),
    ),
    Specimen(
        "StableDiffusionControlNetPipeline",
        lambda: _sd(controlnet=_controlnet()),
        lambda: SD | SIZE | {"image": picture()},
    ),
    Specimen(
        "StableDiffusionControlNetImg2ImgPipeline",
        lambda: _sd(controlnet=_controlnet()),
        lambda: SD | SIZE | image() | control(),
        steps=(2,),
    ),
    Specimen(
        "StableDiffusionControlNetInpaintPipeline",
        lambda: _sd(controlnet=_controlnet()),
        lambda: SD | inpainting() | control(),
        steps=(2,),
    ),
    Specimen(
        "StableDiffusionInstructPix2PixPipeline",
        lambda: _sd(8),
        lambda: SD | {"image": picture(), "image_guidance_scale": 1.5},
        branches=THREE,
    ),
    Specimen("StableDiffusionPAGPipeline", _sd, calling(SD, SIZE, pag_scale=2.0), branches=THREE),
    Specimen("LatentConsistencyModelPipeline", _lcm, calling(_ONE_PROMPT, SIZE), branches=ALONE),
    Specimen(
        "LatentConsistencyModelImg2ImgPipeline", _lcm, lambda: _ONE_PROMPT | image(), branches=ALONE
    ),
    Specimen("StableDiffusionXLPipeline", _sdxl, calling(_SDXL, SIZE)),
    Specimen("StableDiffusionXLImg2ImgPipeline", _sdxl, lambda: _SDXL | image(), steps=(2,)),
    Specimen("StableDiffusionXLInpaintPipeline", _sdxl, lambda: _SDXL | inpainting(), steps=(2,)),
    Specimen(
        "StableDiffusionXLControlNetPipeline",
        lambda: _sdxl(controlnet=_controlnet(**_ADDED)),
        lambda: _SDXL | SIZE | {"image": picture()},
    ),
    Specimen(
        "StableDiffusionXLControlNetImg2ImgPipeline",
        lambda: _sdxl(controlnet=_controlnet(**_ADDED)),
        lambda: _SDXL | SIZE | image() | control(),
        steps=(2,),
    ),
    Specimen("StableDiffusionXLPAGPipeline", _sdxl, calling(_SDXL, SIZE), branches=THREE),
    Specimen("KandinskyV22Pipeline", kandinsky22, calling(KANDINSKY)),
    Specimen("KandinskyV22Img2ImgPipeline", kandinsky22, lambda: KANDINSKY | image(), steps=(2,)),
    Specimen(
        "DDPMPipeline",
        lambda: _unconditional("DDPMScheduler"),
        calling(),
        branches=ALONE,
        values="pixels",
        returned=None,
    ),
    Specimen(
        "DDIMPipeline",
        lambda: _unconditional("DDIMScheduler"),
        calling(),
        branches=ALONE,
        values="pixels",
        returned=None,
    ),
    Specimen(
        "StableDiffusionPipeline",
        _with_image_prompts,
        calling(SD, SIZE, ip_adapter_image_embeds=[embeddings(2, 1, 16, seed=5)]),
        variant="image prompts",
    ),
    Specimen(
        "StableDiffusionAdapterPipeline",
        _adapted,
        lambda: SD | SIZE | {"image": picture()},
    ),
    Specimen(
        "StableDiffusionXLInstructPix2PixPipeline",
        lambda: _sdxl(8),
        lambda: _SDXL | SIZE | {"image": picture(), "image_guidance_scale": 1.5},
        branches=THREE,
    ),
    Specimen("StableDiffusionXLAutoBlocks", _sdxl, calling(_SDXL, SIZE)),
    Specimen("StableCascadeDecoderPipeline", _cascade, calling(_CASCADE)),
)
