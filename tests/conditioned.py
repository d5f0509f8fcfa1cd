"""Small random pipelines that read texts and pictures themselves: real tokenizers and encoders.

CLIP's tokenizer here knows letters, so that words are several tokens; T5's knows some words whole.
"""

import functools
import warnings

import diffusers
import numpy as np
import torch
from diffusers.pipelines.stable_diffusion.stable_unclip_image_normalizer import (
    StableUnCLIPImageNormalizer,
)
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPImageProcessorPil,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    Gemma2Config,
    Gemma2Model,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)
from zoo import autoencoder, flow_autoencoder
from zoo.images import kandinsky22, unet
from zoo.specimen import SIZE, _enliven, ddim, euler, flow

WORDS = ["a", "the", "red", "blue", "green", "star", "fish", "boat", "at", "night", "day", "and"]
WIDTH = 16  # of CLIP's states and vectors
READS = 32  # tokens that CLIP reads


def clip_tokenizer():
    """Of letters: a word of three is three tokens."""
    letters = [chr(code) for code in range(33, 127)]
    marks = ["<|startoftext|>", "<|endoftext|>"]
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), *marks]
    vocabulary = {piece: place for place, piece in enumerate(pieces)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=READS)


def t5_tokenizer():
    """Of words, and of letters for others; without a mark of the beginning."""
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), ("▁", -6.0)]
    pieces += [(f"▁{word}", -2.0) for word in WORDS]
    pieces += [(chr(code), -7.0) for code in range(97, 123)]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=512)


def gemma_tokenizer():
    """Of words, with a mark of the beginning and none of the end."""
    words = ["<pad>", "<bos>", "<unk>", *WORDS]
    core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<bos>", pad_token="<pad>", unk_token="<unk>"
    )


def _clip_config():
    tokenizer = clip_tokenizer()
    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=WIDTH,
        intermediate_size=32,
        projection_dim=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=READS,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


def clip_text(projected=False):
    kind = CLIPTextModelWithProjection if projected else CLIPTextModel
    return kind(_clip_config())


def clip_vision(width=WIDTH):
    return CLIPVisionModelWithProjection(
        CLIPVisionConfig(
            hidden_size=16,
            intermediate_size=16,
            projection_dim=width,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=16,
            patch_size=8,
        )
    )


def clip_pictures():
    side = {"height": 16, "width": 16}
    return CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size=side)


def t5(width=32):
    return T5EncoderModel(
        T5Config(
            vocab_size=len(t5_tokenizer()),
            d_model=width,
            d_ff=32,
            d_kv=8,
            num_heads=2,
            num_layers=2,
        )
    )


def _gemma():
    return Gemma2Model(
        Gemma2Config(
            vocab_size=len(gemma_tokenizer()),
            hidden_size=8,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=4,
            sliding_window=512,
        )
    )


def _sd(**more):
    return {
        "vae": autoencoder(),
        "text_encoder": clip_text(),
        "tokenizer": clip_tokenizer(),
        "unet": unet(),
        "scheduler": ddim(),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
        **more,
    }


def _seeing(parts):
    return parts | {"image_encoder": clip_vision(), "feature_extractor": clip_pictures()}


def _sdxl(**more):
    return {
        "vae": autoencoder(scaling_factor=0.13025),
        "text_encoder": clip_text(),
        "tokenizer": clip_tokenizer(),
        "text_encoder_2": clip_text(projected=True),
        "tokenizer_2": clip_tokenizer(),
        "unet": unet(
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + WIDTH,
            use_linear_projection=True,
            cross_attention_dim=2 * WIDTH,
        ),
        "scheduler": euler(),
        **more,
    }


def _sd3(**more):
    return {
        "vae": flow_autoencoder(16),
        "text_encoder": clip_text(projected=True),
        "tokenizer": clip_tokenizer(),
        "text_encoder_2": clip_text(projected=True),
        "tokenizer_2": clip_tokenizer(),
        "text_encoder_3": t5(2 * WIDTH),
        "tokenizer_3": t5_tokenizer(),
        "transformer": diffusers.SD3Transformer2DModel(
            sample_size=8,
            patch_size=1,
            in_channels=16,
            out_channels=16,
            num_layers=1,
            attention_head_dim=8,
            num_attention_heads=4,
            caption_projection_dim=32,
            joint_attention_dim=2 * WIDTH,
            pooled_projection_dim=2 * WIDTH,
        ),
        "scheduler": flow(),
        **more,
    }


def _flux(**more):
    return {
        "vae": flow_autoencoder(4),
        "text_encoder": clip_text(),
        "tokenizer": clip_tokenizer(),
        "text_encoder_2": t5(),
        "tokenizer_2": t5_tokenizer(),
        "transformer": diffusers.FluxTransformer2DModel(
            patch_size=1,
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=32,
            pooled_projection_dim=WIDTH,
            axes_dims_rope=[4, 4, 8],
        ),
        "scheduler": flow(),
        **more,
    }


def _pixart():
    return {
        "vae": autoencoder(),
        "text_encoder": t5(),
        "tokenizer": t5_tokenizer(),
        "transformer": diffusers.PixArtTransformer2DModel(
            sample_size=8,
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
    }


def _sana():
    from zoo.transformers import _sana

    return _sana() | {"text_encoder": _gemma(), "tokenizer": gemma_tokenizer()}


def _cogview4():
    from zoo.transformers import _cogview4

    parts = _cogview4() | {"text_encoder": _gemma(), "tokenizer": gemma_tokenizer()}
    options = {k: v for k, v in parts["transformer"].config.items() if not k.startswith("_")}
    kind = type(parts["transformer"])
    return parts | {"transformer": kind(**(options | {"text_embed_dim": 8}))}


def _hunyuan():
    from zoo.transformers import _hunyuan_dit

    return _hunyuan_dit() | {"text_encoder": clip_text(), "tokenizer": clip_tokenizer()}


def _prior():
    prior = diffusers.PriorTransformer(
        num_attention_heads=2,
        attention_head_dim=8,
        num_layers=1,
        embedding_dim=WIDTH,
        num_embeddings=READS,
    )
    torch.nn.init.ones_(prior.clip_std)
    return {
        "prior": prior,
        "image_encoder": clip_vision(),
        "text_encoder": clip_text(projected=True),
        "tokenizer": clip_tokenizer(),
        "scheduler": diffusers.UnCLIPScheduler(prediction_type="sample", clip_sample_range=5.0),
        "image_processor": clip_pictures(),
    }


def _unclip():
    return {
        "feature_extractor": clip_pictures(),
        "image_encoder": clip_vision(),
        "image_normalizer": StableUnCLIPImageNormalizer(embedding_dim=WIDTH),
        "image_noising_scheduler": diffusers.DDPMScheduler(beta_schedule="squaredcos_cap_v2"),
        "tokenizer": clip_tokenizer(),
        "text_encoder": clip_text(),
        "unet": unet(
            class_embed_type="projection", projection_class_embeddings_input_dim=2 * WIDTH
        ),
        "scheduler": ddim(),
        "vae": autoencoder(),
    }


_PARTS = {
    "StableDiffusionPipeline": _sd,
    "StableDiffusionXLPipeline": _sdxl,
    "StableDiffusion3Pipeline": _sd3,
    "FluxPipeline": _flux,
    "PixArtAlphaPipeline": _pixart,
    "SanaPipeline": _sana,
    "CogView4Pipeline": _cogview4,
    "HunyuanDiTPipeline": _hunyuan,
    "KandinskyV22PriorPipeline": _prior,
    "KandinskyV22Pipeline": kandinsky22,
    "StableUnCLIPImg2ImgPipeline": _unclip,
}


def build(name, *, adapters=(), seed=0, **more):
    """A pipeline with parts of its own, the same ones for the same seed.

    Args:
        name: its class.
        adapters: image adapters to load: "plain" and "plus".
        seed: chooses the weights.
        **more: parts in place of its own.
    """
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        parts = _PARTS[name]()
        parts |= _seeing(parts) if adapters else {}
        parts |= more
        for part in parts.values():
            if isinstance(part, torch.nn.Module):
                part.eval()
                _enliven(part)
        pipe = getattr(diffusers, name)(**parts)
        if adapters:
            weights = [_adapter(pipe.unet, kind) for kind in adapters]
            count = len(weights)
            pipe.load_ip_adapter(weights, subfolder=[""] * count, weight_name=[""] * count)
    pipe.set_progress_bar_config(disable=True)
    return pipe


shared = functools.cache(build)
"""The same pipeline for all tests that leave it as it is."""


def _adapter(model, kind, width=WIDTH):
    """The weights of an image adapter, as files hold them."""

    def random(*shape):
        return 0.5 * torch.randn(*shape)

    across = model.config.cross_attention_dim
    added = {}
    for place, name in enumerate(model.attn_processors):
        if "attn2" in name:
            inside = model.get_submodule(name.removesuffix(".processor")).to_q.out_features
            added |= {f"{place}.to_{what}_ip.weight": random(inside, across) for what in "kv"}
    if kind == "plain":
        projection = {
            "proj.weight": random(4 * across, width),
            "proj.bias": torch.zeros(4 * across),
            "norm.weight": torch.ones(across),
            "norm.bias": torch.zeros(across),
        }
    else:
        projection = {
            "latents": random(1, 4, across),
            "proj_in.weight": random(across, 16),
            "proj_in.bias": torch.zeros(across),
            "proj_out.weight": random(across, across),
            "proj_out.bias": torch.zeros(across),
            "norm_out.weight": torch.ones(across),
            "norm_out.bias": torch.zeros(across),
        }
        for block in range(4):
            projection |= {
                f"layers.{block}.{name}": value
                for name, value in {
                    "0.norm1.weight": torch.ones(across),
                    "0.norm1.bias": torch.zeros(across),
                    "0.norm2.weight": torch.ones(across),
                    "0.norm2.bias": torch.zeros(across),
                    "0.to_q.weight": random(64, across),
                    "0.to_kv.weight": random(128, across),
                    "0.to_out.weight": random(across, 64),
                    "1.0.weight": torch.ones(across),
                    "1.0.bias": torch.zeros(across),
                    "1.1.weight": random(4 * across, across),
                    "1.3.weight": random(across, 4 * across),
                }.items()
            }
    return {"image_proj": projection, "ip_adapter": added}


ARGUMENTS = {
    "StableDiffusionPipeline": SIZE,
    "StableDiffusionXLPipeline": SIZE,
    "StableDiffusion3Pipeline": SIZE,
    "FluxPipeline": SIZE,
    "PixArtAlphaPipeline": SIZE | {"use_resolution_binning": False},
    "SanaPipeline": {"height": 32, "width": 32, "use_resolution_binning": False},
    "CogView4Pipeline": SIZE,
    "KandinskyV22Pipeline": {"height": 64, "width": 64},
    "StableUnCLIPImg2ImgPipeline": SIZE,
}


def draw(pipe, **arguments):
    """The pictures of a short call, always with the same noise: an array."""
    given = ARGUMENTS.get(type(pipe).__name__, {}) | {
        "num_inference_steps": 2,
        "generator": torch.Generator().manual_seed(5),
        "output_type": "np",
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return np.asarray(pipe(**(given | arguments)).images)


def photograph(seed=0, side=24):
    """A picture of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(pixels)
