"""Stage 3: a joint text-image space, trained contrastively on the same pictures.

Three losses share the work. A contrastive one (Radford 2021, arXiv:2103.00020) in which every
caption that fits a picture is a positive (Khosla 2020, arXiv:2004.11362), since partial captions
fit many. A classification of each attribute against learnt prototypes. And an additive one that
draws every embedding to the sum of its attributes' prototypes, so that embedding arithmetic (a
picture's minus a word's plus another's) stays in the space.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from transformers import CLIPTokenizer, CLIPVisionModelWithProjection

from ldm_viz.tiny.architecture import (
    WIDTH,
    build_image_processor,
    build_joint_text,
    build_joint_vision,
)
from ldm_viz.tiny.scenes import ATTRIBUTES
from ldm_viz.tiny.training.data import load_pictures
from ldm_viz.tiny.training.ranks import Progress, Stage, epochs, fast_autocast
from ldm_viz.tiny.training.wording import UNSAID, accuracies, describe

BATCH = 32
ATTRIBUTES_FIRST = 0.5
"""The share of the training before texts and pictures are contrasted.

Until then both learn the attributes only, and texts, which are easy, join in every third batch.
"""
_ATTRIBUTE_WEIGHTS = {"object": 3.0, "size": 1.5, "position": 1.5}
"""What an attribute counts in the classification, where it is not 1: the hard ones more."""


class Prototypes(nn.Module):
    """A unit vector for every attribute value, (34, 128), and the scales of the two logits."""

    def __init__(self) -> None:
        super().__init__()
        self.counts = [len(values) for values in ATTRIBUTES.values()]
        start = torch.empty(sum(self.counts), WIDTH)
        nn.init.orthogonal_(start)
        self.vectors = nn.Parameter(start)
        self.class_scale = nn.Parameter(torch.tensor(2.0))
        self.match_scale = nn.Parameter(torch.tensor(2.5))

    def split(self) -> list[torch.Tensor]:
        """The prototypes of each attribute, of unit length and with the attribute's mean removed."""
        parts = self.vectors.split(self.counts)
        return [p - p.mean(0) for p in (F.normalize(p, dim=1) for p in parts)]

    def logits(self, embeddings: torch.Tensor) -> list[torch.Tensor]:
        """Class scores of each attribute, (n, values) each."""
        return [embeddings @ p.T * self.class_scale.exp() for p in self.split()]

    def sums(self, classes: torch.Tensor) -> torch.Tensor:
        """The sum of the prototypes of what is said, (n, 128)."""
        total = torch.zeros(len(classes), WIDTH)
        for column, prototypes in enumerate(self.split()):
            known = (classes[:, column] != UNSAID).float()[:, None]
            total = total + known * prototypes[classes[:, column].clamp(min=0)]
        return total

    def loss(self, embeddings: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        """Classification of each attribute that is said, and distance to the prototypes' sum."""
        terms = [
            _ATTRIBUTE_WEIGHTS.get(name, 1.0) * F.cross_entropy(scores, classes[:, column])
            for column, (name, scores) in enumerate(
                zip(ATTRIBUTES, self.logits(embeddings), strict=True)
            )
            if (classes[:, column] != UNSAID).any()
        ]
        distances = (embeddings - self.sums(classes)).square().sum(1)
        return sum(terms) / len(terms) + distances.mean()


def contrast(
    images: torch.Tensor, texts: torch.Tensor, scale: torch.Tensor, fits: torch.Tensor
) -> torch.Tensor:
    """Symmetric contrastive loss with several positives.

    Args:
        images: (n, 128) embeddings.
        texts: (m, 128) embeddings.
        scale: Logarithm of the inverse temperature.
        fits: (n, m) bool, whether caption m is true of picture n.
    """
    scores = F.normalize(images, dim=1) @ F.normalize(texts, dim=1).T * scale.exp().clamp(max=50)
    total = torch.zeros(())
    for table, positive in ((scores, fits), (scores.T, fits.T)):
        share = positive.float() / positive.sum(1, keepdim=True).clamp(min=1)
        total = total - (share * table.log_softmax(1)).sum(1).mean()
    return total / 2


def fitting(attributes: torch.Tensor, said: torch.Tensor) -> torch.Tensor:
    """(n, m) bool: whether what caption m says is true of picture n."""
    same = attributes[:, None] == said[None]
    return (same | (said == UNSAID)[None]).all(2)


def to_tower(pictures: np.ndarray) -> torch.Tensor:
    """(n, 64, 64, 3) uint8 to the vision tower's input, (n, 3, 64, 64)."""
    processor = build_image_processor()
    mean = torch.tensor(processor.image_mean).view(3, 1, 1)
    std = torch.tensor(processor.image_std).view(3, 1, 1)
    x = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float() / 255
    return (x - mean) / std


def _jitter(pictures: np.ndarray, rng: np.random.Generator) -> torch.Tensor:
    """The tower's input moved by a pixel or two, with a little noise."""
    x = F.pad(to_tower(pictures), (2, 2, 2, 2), mode="replicate")
    top, left = rng.integers(0, 5, 2)
    x = x[..., top : top + 64, left : left + 64]
    return x + torch.randn_like(x) * float(rng.uniform(0, 0.12))


@torch.no_grad()
def _place_patches(vision: CLIPVisionModelWithProjection) -> None:
    """Starts the position embeddings as waves over rows and columns, as strong as the patches.

    From their usual start, far weaker than what the patches show, the tower is slow to learn where
    things are and what shapes they make.
    """
    side = vision.config.image_size // vision.config.patch_size
    places = torch.arange(side).float()
    waves = 2 ** torch.linspace(0, 2, WIDTH // 4) * torch.pi / side
    angles = places[:, None] * waves
    line = torch.cat([angles.sin(), angles.cos()], 1)
    grid = torch.cat([line.repeat_interleave(side, 0), line.repeat(side, 1)], 1)
    vision.vision_model.embeddings.position_embedding.weight[1:] = 0.25 * grid


def train_joint(rank: int, world: int, folder: Path, total: int) -> None:
    """Trains both towers. Writes ``joint_text/`` and ``joint_vision/``."""
    pictures, attributes = load_pictures(folder)
    tokenizer = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    torch.manual_seed(0)
    vision, text = build_joint_vision().train(), build_joint_text(tokenizer).train()
    for projection in (vision.visual_projection, text.text_projection):
        nn.init.normal_(projection.weight, std=0.02)
    _place_patches(vision)
    prototypes = Prototypes()
    torch.manual_seed(rank)
    modules = {"vision": vision, "text": text, "prototypes": prototypes}
    stage = Stage(
        "joint", folder, modules, Progress(total, 1e-3, 2_000, 0.4), rank, world, muon_rate=0.02
    )
    rng = np.random.default_rng([3, rank, stage.steps])
    batches = epochs(len(pictures), BATCH, rank, world, 3 + stage.steps)
    while not stage.progress.done:
        rows = next(batches)
        classes = torch.from_numpy(attributes[rows])
        with fast_autocast():
            seen = vision(_jitter(pictures[rows], rng)).image_embeds.float()
        loss = prototypes.loss(seen, classes)
        contrasting = stage.progress.samples >= ATTRIBUTES_FIRST * total
        if contrasting or stage.steps % 3 == 0:
            tokens, said = describe(attributes[rows], rng, tokenizer)
            with fast_autocast():
                read = text(tokens).text_embeds.float()
            loss = loss + prototypes.loss(read, said)
        if contrasting:
            fits = fitting(classes, said)
            loss = loss + contrast(seen, read, prototypes.match_scale, fits)
        with torch.no_grad():
            right = accuracies(prototypes.logits(seen), classes)
        stage.step(loss, len(rows), **dict(zip(ATTRIBUTES, right, strict=True)))
    if rank == 0:
        stage.save()
        stage.averaged("vision").save_pretrained(folder / "joint_vision")
        stage.averaged("text").save_pretrained(folder / "joint_text")
