"""Stage 4: the UNet, the text encoder that conditions it, and the image adapter, trained together.

Text states of a contrastive tower hardly tell left from right, so the conditioning text encoder is
one of its own: it first learns to name the attributes a caption says, then goes on learning with the
UNet. The image adapter (IP-Adapter, Ye 2023, arXiv:2308.06721) learns in batches of its own; in the
others its attention is switched off, so that without the adapter the model is an ordinary one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor, IPAdapterAttnProcessor
from diffusers.models.embeddings import ImageProjection, MultiIPAdapterImageProjection
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F
from transformers import (
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionModelWithProjection,
)

from ldm_viz.tiny.architecture import (
    IMAGE_TOKENS,
    WIDTH,
    build_scheduler,
    build_text_encoder,
    build_unet,
)
from ldm_viz.tiny.scenes import ATTRIBUTES
from ldm_viz.tiny.training.autoencoder import encode
from ldm_viz.tiny.training.data import load_pictures
from ldm_viz.tiny.training.joint import to_tower
from ldm_viz.tiny.training.ranks import Progress, Stage, epochs, fast_autocast, stratified
from ldm_viz.tiny.training.wording import describe, tokenize

BATCH = 32
ADAPTER_SHARE = 0.5
"""The share of batches in which the image adapter takes part."""
ADAPTER_RATE = 2.5
"""Factor on the adapter's learning rate: it learns from fewer batches than the rest."""


def add_adapter(unet: UNet2DConditionModel) -> None:
    """Gives a UNet untrained IP-Adapter attention and the projection of image embeddings."""
    channels = unet.config.block_out_channels
    processors: dict[str, nn.Module | AttnProcessor] = {}
    for name in unet.attn_processors:
        if name.endswith("attn1.processor"):
            processors[name] = AttnProcessor()
            continue
        part, _, rest = name.partition(".")
        if part == "mid_block":
            width = channels[-1]
        else:
            widths = channels[::-1] if part == "up_blocks" else channels
            width = widths[int(rest[0])]
        processors[name] = IPAdapterAttnProcessor(width, WIDTH, num_tokens=(IMAGE_TOKENS,))
    unet.set_attn_processor(processors)
    projection = ImageProjection(WIDTH, WIDTH, IMAGE_TOKENS)
    unet.encoder_hid_proj = MultiIPAdapterImageProjection([projection])
    unet.config.encoder_hid_dim_type = "ip_image_proj"


@torch.no_grad()
def start_adapter(unet: UNet2DConditionModel) -> None:
    """Has the adapter's keys and values begin as the text's: its tokens are read the same way."""
    parameters = dict(unet.named_parameters())
    for name, weight in parameters.items():
        if name.endswith("_ip.0.weight"):
            text = name.replace("processor.", "").replace("_ip.0.", ".")
            weight.copy_(parameters[text])


def set_adapter_scale(unet: UNet2DConditionModel, scale: float) -> None:
    """How much the adapter's attention counts; at 0 it is skipped."""
    for processor in unet.attn_processors.values():
        if isinstance(processor, IPAdapterAttnProcessor):
            processor.scale = [scale]


def split_adapter(
    state: Mapping[str, torch.Tensor],
    processors: list[str],
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Parts the weights of a UNet with an adapter.

    Args:
        state: The UNet's state.
        processors: The names of its attention processors, in order; the adapter's keys count them.

    Returns:
        The plain UNet's state, and the adapter's in IP-Adapter's file format.
    """
    plain = {
        k: v for k, v in state.items() if ".processor." not in k and "encoder_hid_proj" not in k
    }
    prefix = "encoder_hid_proj.image_projection_layers.0."
    adapter = {
        f"image_proj.{new}.{kind}": state[f"{prefix}{old}.{kind}"]
        for new, old in (("proj", "image_embeds"), ("norm", "norm"))
        for kind in ("weight", "bias")
    }
    cross = [name for name in processors if name.endswith("attn2.processor")]
    for i, name in enumerate(cross):
        for part in ("to_k_ip", "to_v_ip"):
            adapter[f"ip_adapter.{2 * i + 1}.{part}.weight"] = state[f"{name}.{part}.0.weight"]
    return plain, adapter


def make_latents(rank: int, world: int, folder: Path, count: int) -> None:
    """Encodes the first `count` pictures; a rank writes its share as ``latents-R-of-W.npy``."""
    pictures, _ = load_pictures(folder)
    shares = np.array_split(np.arange(count), world)
    target = folder / f"latents-{rank}-of-{world}.npy"
    if target.exists() and len(np.load(target, mmap_mode="r")) == len(shares[rank]):
        return
    vae = AutoencoderKL.from_pretrained(folder / "vae")
    np.save(target, encode(vae, pictures[shares[rank][0] : shares[rank][-1] + 1]))


@torch.no_grad()
def make_embeddings(folder: Path, count: int) -> None:
    """Embeds the first `count` pictures in the joint space: ``image_embeds.npy``, (count, 128)."""
    target = folder / "image_embeds.npy"
    if target.exists() and len(np.load(target, mmap_mode="r")) == count:
        return
    pictures, _ = load_pictures(folder)
    vision = CLIPVisionModelWithProjection.from_pretrained(folder / "joint_vision").eval()
    parts = [
        vision(to_tower(pictures[i : i + 64])).image_embeds.numpy() for i in range(0, count, 64)
    ]
    np.save(target, np.concatenate(parts)[:count])


class _Naming(nn.Module):
    """Names each attribute from the text states at the end token and at the last padding."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleList(
            nn.Linear(2 * WIDTH, len(values) + 1) for values in ATTRIBUTES.values()
        )

    def loss(self, encoded: Any, said: torch.Tensor) -> torch.Tensor:
        state = torch.cat([encoded.pooler_output, encoded.last_hidden_state[:, -1]], 1).float()
        # "not said" is a class of its own here: the last one.
        counts = [len(values) for values in ATTRIBUTES.values()]
        classes = [torch.where(c < 0, n, c) for c, n in zip(said.T, counts, strict=True)]
        losses = [F.cross_entropy(h(state), c) for h, c in zip(self.heads, classes, strict=True)]
        return torch.stack(losses).mean()


def train_text(rank: int, world: int, folder: Path, total: int) -> None:
    """Teaches the conditioning text encoder to name what captions say. Writes its checkpoint."""
    _, attributes = load_pictures(folder)
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    torch.manual_seed(0)
    modules = {"text": build_text_encoder(tokenizer).train(), "naming": _Naming()}
    stage = Stage("text", folder, modules, Progress(total, 1e-3, 4_000, 0.3), rank, world)
    rng = np.random.default_rng([4, rank, stage.steps])
    while not stage.progress.done:
        rows = rng.integers(0, len(attributes), 48)
        tokens, said = describe(attributes[rows], rng, tokenizer)
        with fast_autocast():
            encoded = modules["text"](tokens)
        stage.step(modules["naming"].loss(encoded, said), len(rows))
    if rank == 0:
        stage.save()
        stage.averaged("text").save_pretrained(folder / "text_start")


class _Conditions:
    """Draws what the UNet is told about each picture of a batch."""

    def __init__(self, folder: Path, attributes: np.ndarray) -> None:
        self.attributes = attributes
        self.tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
        self.nothing = tokenize(self.tokenizer, [""])
        embeds = folder / "image_embeds.npy"
        self.images = np.load(embeds) if embeds.exists() else None
        if self.images is not None:
            joint = CLIPTextModelWithProjection.from_pretrained(folder / "joint_text")
            self.joint_text = joint.eval().requires_grad_(False)

    def tokens(self, rows: np.ndarray, rng: np.random.Generator, drop: float) -> torch.Tensor:
        """Token ids of captions, (n, 32), a share of them empty."""
        tokens, _ = describe(self.attributes[rows], rng, self.tokenizer)
        empty = torch.from_numpy(rng.random(len(rows)) < drop)
        return torch.where(empty[:, None], self.nothing, tokens)

    def embeddings(self, rows: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
        """Joint-space vectors (n, 1, 128): the picture's, now and then a caption's, or nothing."""
        vectors = torch.from_numpy(self.images[rows])  # type: ignore[index]
        kind = torch.from_numpy(rng.random(len(rows)))
        read = kind < 0.18
        if read.any():
            tokens, _ = describe(self.attributes[rows[read.numpy()]], rng, self.tokenizer)
            vectors[read] = self.joint_text(tokens).text_embeds
        vectors += torch.randn_like(vectors) * 0.02
        vectors[kind > 0.88] = 0
        return vectors[:, None]


def train_diffusion(rank: int, world: int, folder: Path, total: int, parts: int) -> None:
    """Trains UNet, text encoder and adapter on predicting the noise (Ho 2020, arXiv:2006.11239).

    The weight of a timestep is that of x0's error limited from above at a signal-to-noise ratio of
    5 (Hang 2023, arXiv:2303.09556), and from below, so that the first steps of sampling, where the
    place of things is decided, count as well.
    """
    _, attributes = load_pictures(folder)
    shares = [np.load(folder / f"latents-{i}-of-{parts}.npy") for i in range(parts)]
    latents = np.concatenate(shares)
    del shares
    vae = AutoencoderKL.from_pretrained(folder / "vae")
    scale, scheduler = vae.config.scaling_factor, build_scheduler()
    conditions = _Conditions(folder, attributes)
    torch.manual_seed(0)
    text = CLIPTextModel.from_pretrained(folder / "text_start").train()
    unet = build_unet().train()
    add_adapter(unet)
    start_adapter(unet)
    unet.to(memory_format=torch.channels_last)
    torch.manual_seed(rank)
    modules = {"unet": unet, "text": text}
    progress = Progress(total, 1e-3, 6_000, 0.35)
    rates = {"text.": 0.4, "_ip.": ADAPTER_RATE, "encoder_hid_proj.": ADAPTER_RATE}
    stage = Stage("diffusion", folder, modules, progress, rank, world, rates)
    rng = np.random.default_rng([5, rank, stage.steps])
    batches = epochs(len(latents), BATCH, rank, world, 5 + stage.steps)
    snr = scheduler.alphas_cumprod / (1 - scheduler.alphas_cumprod)
    weights = (snr.clamp(max=5) + 0.05) / snr
    idle = torch.zeros(BATCH, 1, WIDTH)
    while not stage.progress.done:
        rows = next(batches)
        with_image = conditions.images is not None and rng.random() < ADAPTER_SHARE
        some = torch.from_numpy(latents[rows]).float()
        x0 = (some[:, :4] + some[:, 4:] * torch.randn(some[:, 4:].shape)) * scale
        noise = torch.randn_like(x0)
        timesteps = (stratified(len(rows), rng) * 1000).long()
        noisy = scheduler.add_noise(x0, noise, timesteps)
        noisy = noisy.contiguous(memory_format=torch.channels_last)
        set_adapter_scale(unet, 1.0 if with_image else 0.0)
        tokens = conditions.tokens(rows, rng, 0.7 if with_image else 0.12)
        vectors = conditions.embeddings(rows, rng) if with_image else idle
        with fast_autocast():
            states = text(tokens).last_hidden_state
            predicted = unet(
                noisy,
                timesteps,
                encoder_hidden_states=states,
                added_cond_kwargs={"image_embeds": [vectors]},
            ).sample
        errors = (predicted.float() - noise).square().mean((1, 2, 3))
        loss = (weights[timesteps] * errors).mean()
        stage.step(loss, len(rows), plain=errors.detach().mean())
    if rank == 0:
        stage.save()


def export_diffusion(folder: Path) -> None:
    """Writes ``unet/``, ``text_encoder/`` and ``adapter.safetensors`` from the moving average."""
    checkpoint = torch.load(folder / "diffusion.checkpoint", weights_only=True, mmap=True)
    unet = build_unet()
    names = list(unet.attn_processors)
    plain, adapter = split_adapter(checkpoint["average"]["unet"], names)
    unet.load_state_dict(plain)
    unet.save_pretrained(folder / "unet")
    half = {k: v.to(torch.float16).contiguous() for k, v in adapter.items()}
    save_file(half, folder / "adapter.safetensors")
    text = CLIPTextModel.from_pretrained(folder / "text_start")
    text.load_state_dict(checkpoint["average"]["text"])
    text.save_pretrained(folder / "text_encoder")
