"""What a specimen is, and the parts and arguments that many of them share."""

import functools
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import diffusers
import torch
from pipelines import build_pipeline, mask, picture
from transformers import CLIPTextModelWithProjection

SIDE = 16  # of the pictures, in pixels

GUIDED = ("unconditional", "conditional", "guided")
UNLABELLED = ("branch 0", "branch 1", "guided")
THREE = ("branch 0", "branch 1", "branch 2", "guided")
ALONE = ("guided",)


def _as_they_are(pipe: Any, latents: torch.Tensor) -> torch.Tensor:
    return latents


@dataclass(frozen=True)
class Specimen:
    """A pipeline to be recorded: how it is made, how it is called, and what should be seen."""

    pipeline: str
    """Name of the class in diffusers: a pipeline's, or that of a modular pipeline's blocks."""
    parts: Callable[[], dict[str, Any]]
    call: Callable[[], dict[str, Any]]
    steps: tuple[int, ...] = (3,)
    """Steps of each denoising loop, in order."""
    branches: tuple[str, ...] = GUIDED
    """Of the last loop, which becomes the pictures."""
    variant: str = ""
    layout: str = "planes"
    """How that loop's latents are laid out."""
    fitted: bool = False
    """Whether no line of the table says how its latents are scaled."""
    shows_x0: bool = False
    """Whether the pictures are those of the last x0, and not of the last latents."""
    values: str = "latents"
    """What the loop works on: latents, the pictures' own pixels, or tokens."""
    returned: Callable[[Any, torch.Tensor], torch.Tensor] | None = _as_they_are
    """What becomes of the last latents where the pipeline returns latents; None if it cannot."""

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
            kind = getattr(diffusers, self.pipeline)
            pipe = _assembled(kind(), parts) if self.pipeline.endswith("Blocks") else kind(**parts)
        pipe.set_progress_bar_config(disable=True)
        return pipe

    def arguments(self) -> dict[str, Any]:
        """Arguments of one call, with a fresh generator."""
        return {
            "num_inference_steps": 3,
            "generator": torch.Generator().manual_seed(5),
            "output_type": "np",
        } | self.call()


def _assembled(blocks: Any, parts: dict[str, Any]) -> Any:
    """A modular pipeline that takes embeddings instead of texts."""
    del blocks.sub_blocks["text_encoder"]
    pipe = blocks.init_pipeline()
    pipe.update_components(**{name: part for name, part in parts.items() if part is not None})
    return pipe


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


def absent(*names: str) -> dict[str, None]:
    """Parts that a pipeline can do without where embeddings are given."""
    return dict.fromkeys(names)


_words = functools.cache(build_pipeline)


def tokenizer() -> Any:
    """Of letters."""
    return _words().tokenizer


def text_encoder(pooled: bool = False) -> Any:
    """Of width 16, random too; ``pooled`` gives one vector for the whole text besides."""
    encoder = _words().text_encoder
    encoder.config.projection_dim = 16
    return CLIPTextModelWithProjection(encoder.config) if pooled else encoder


NO_TEXT = absent("text_encoder", "tokenizer")
NO_TEXTS = NO_TEXT | absent("text_encoder_2", "tokenizer_2")


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


SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def ddim() -> Any:
    """Stable Diffusion's."""
    return diffusers.DDIMScheduler(**SCHEDULE, clip_sample=False, steps_offset=1)


def euler(**options: Any) -> Any:
    """SDXL's."""
    return diffusers.EulerDiscreteScheduler(**SCHEDULE, steps_offset=1, **options)


def flow(**options: Any) -> Any:
    """Flow matching."""
    return diffusers.FlowMatchEulerDiscreteScheduler(**options)


SIZE = {"height": SIDE, "width": SIDE}


def image() -> dict[str, Any]:
    """Where to begin, and how far from it."""
    return {"image": picture(), "strength": 0.7}


def inpainting() -> dict[str, Any]:
    """What to paint over, too."""
    return image() | SIZE | {"mask_image": mask()}


def control() -> dict[str, Any]:
    """What a ControlNet follows."""
    return {"control_image": picture()}


def pair(length: int, width: int, **more: Any) -> dict[str, Any]:
    """Embeddings of a prompt and of a negative one."""
    return {
        "prompt_embeds": embeddings(1, length, width),
        "negative_prompt_embeds": embeddings(1, length, width, seed=2),
        "guidance_scale": 4.0,
        **more,
    }


def masked(length: int, width: int) -> dict[str, Any]:
    """The same with their masks, as T5 gives them."""
    ones = torch.ones(1, length, dtype=torch.bool)
    masks = {"prompt_attention_mask": ones, "negative_prompt_attention_mask": ones}
    return pair(length, width, **masks)


def calling(*parts: dict[str, Any], **more: Any) -> Callable[[], dict[str, Any]]:
    """A call with all these arguments."""

    def call() -> dict[str, Any]:
        joined: dict[str, Any] = {}
        for part in parts:
            joined |= part
        return joined | more

    return call
