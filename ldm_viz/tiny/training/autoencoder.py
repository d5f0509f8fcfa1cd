"""Stage 2: the autoencoder, and every picture's latents."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from ldm_viz.tiny.architecture import build_autoencoder
from ldm_viz.tiny.drawing import SIZE
from ldm_viz.tiny.training.data import load_pictures
from ldm_viz.tiny.training.ranks import Progress, Stage, epochs, fast_autocast

BATCH = 16
CROP = 32
"""Side of the crops around objects that most of the training sees: four in a picture's time."""
CROPPED = 0.72
"""The share of training on crops; the rest, on whole pictures, sets the normalisation right."""
KL_WEIGHT = 3e-5
"""Larger ones (2e-3) let a latent channel collapse and small objects melt."""


def to_input(pictures: np.ndarray) -> torch.Tensor:
    """(n, 64, 64, 3) uint8 to (n, 3, 64, 64) float in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def _edges(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return x[..., 1:, :] - x[..., :-1, :], x[..., 1:] - x[..., :-1]


def _stands_out(x: torch.Tensor) -> torch.Tensor:
    """Pixels unlike both ends of their row, where the object is: (n, h, w) bool."""
    left = (x - x[..., :1]).abs().mean(1)
    right = (x - x[..., -1:]).abs().mean(1)
    return torch.minimum(left, right) > 0.12


def _around_objects(
    x: torch.Tensor, object_pixels: torch.Tensor, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """A crop of each picture with a pixel of its object somewhere in it, and the crop's mask."""
    flat = object_pixels.flatten(1).numpy()
    shifts = rng.integers(0, CROP, (2, len(x)))
    crops, masks = [], []
    for picture, pixels, row, dy, dx in zip(x, object_pixels, flat, *shifts, strict=True):
        found = np.flatnonzero(row)
        place = int(rng.choice(found)) if len(found) else int(rng.integers(SIZE * SIZE))
        top = min(max(place // SIZE - int(dy), 0), SIZE - CROP)
        left = min(max(place % SIZE - int(dx), 0), SIZE - CROP)
        crops.append(picture[:, top : top + CROP, left : left + CROP])
        masks.append(pixels[top : top + CROP, left : left + CROP])
    return torch.stack(crops), torch.stack(masks)


def train_autoencoder(rank: int, world: int, folder: Path, total: int) -> None:
    """Trains on reconstruction (absolute, squared, edges) with a small KL term.

    Writes ``vae/`` with `scaling_factor` = 1 / standard deviation of the latents.
    """
    pictures, _ = load_pictures(folder)
    torch.manual_seed(0)
    model = build_autoencoder().train()
    torch.manual_seed(rank)
    stage = Stage(
        "autoencoder", folder, {"vae": model}, Progress(total, 2e-3, 2_000, 0.4), rank, world
    )
    rng = np.random.default_rng([1, rank, stage.steps])
    batches = epochs(len(pictures), BATCH, rank, world, 1 + stage.steps)
    while not stage.progress.done:
        if stage.progress.samples < CROPPED * total:
            some = [to_input(pictures[next(batches)]) for _ in range((SIZE // CROP) ** 2)]
            x = torch.cat(some)
            x, object_pixels = _around_objects(x, _stands_out(x), rng)
        else:
            x = to_input(pictures[next(batches)])
            object_pixels = _stands_out(x)
        with fast_autocast():
            posterior = model.encode(x).latent_dist
            y = model.decode(posterior.sample()).sample.float()
        mean, log_variance = posterior.mean.float(), posterior.logvar.float()
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        pairs = zip(_edges(x), _edges(y), strict=True)
        edges = sum(F.l1_loss(a, b) for a, b in pairs)
        squared, weights = F.mse_loss(y, x), 1 + 2 * object_pixels[:, None].float()
        error = y - x
        pixels = (weights * (error.abs() + 2 * error.square())).mean()
        loss = pixels + 0.5 * edges + KL_WEIGHT * kl
        psnr = -10 * torch.log10(squared.detach() / 4)
        stage.step(loss, BATCH, psnr=psnr, kl=kl.detach())
    if rank == 0:
        stage.save()
        vae = stage.averaged("vae")
        std = encode(vae, pictures[:1_000])[:, :4].astype(np.float32).std()
        vae.register_to_config(scaling_factor=float(1 / std))
        vae.save_pretrained(folder / "vae")


@torch.no_grad()
def encode(vae: torch.nn.Module, pictures: np.ndarray, batch: int = 50) -> np.ndarray:
    """Posterior mean and standard deviation of each picture's latents: (n, 8, 16, 16) float16."""
    parts = []
    for i in range(0, len(pictures), batch):
        with fast_autocast():
            posterior = vae.encode(to_input(pictures[i : i + batch])).latent_dist
        parts.append(torch.cat([posterior.mean, posterior.std], 1).to(torch.float16).numpy())
    return np.concatenate(parts)
