"""Tells which object a picture shows, or that it shows no clean one. Trained on drawings alone."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from ldm_viz.tiny.drawing import draw
from ldm_viz.tiny.scenes import ATTRIBUTES, random_scene
from ldm_viz.tiny.spoiled import spoil

NO_CLEAN_OBJECT = "no clean object"

CLASSES = (*ATTRIBUTES["object"], NO_CLEAN_OBJECT)


class ObjectClassifier(nn.Module):
    """A small convolutional network: (n, 3, 64, 64) in [-1, 1] to (n, 13) class scores."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 24, 48, 96, 128)
        self.blocks = nn.ModuleList()
        for before, after in itertools.pairwise(widths):
            self.blocks.append(
                nn.Sequential(
                    nn.Conv2d(before, after, 3, stride=2, padding=1),
                    nn.GroupNorm(8, after),
                    nn.SiLU(),
                    nn.Conv2d(after, after, 3, padding=1),
                    nn.GroupNorm(8, after),
                    nn.SiLU(),
                )
            )
        self.head = nn.Linear(2 * widths[-1], len(CLASSES))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores of pictures."""
        for block in self.blocks:
            x = block(x)
        return self.head(torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1))

    @torch.no_grad()
    def classify(self, pictures: np.ndarray, batch: int = 100) -> list[str]:
        """Names what each picture shows.

        Args:
            pictures: (n, 64, 64, 3) uint8.
            batch: Pictures at a time.

        Returns:
            n names out of `CLASSES`.
        """
        self.eval()
        names: list[str] = []
        for i in range(0, len(pictures), batch):
            x = torch.from_numpy(np.ascontiguousarray(pictures[i : i + batch]))
            scores = self(x.permute(0, 3, 1, 2).float() / 127.5 - 1)
            names += [CLASSES[j] for j in scores.argmax(1).tolist()]
        return names

    def save(self, path: Path) -> None:
        """Writes the weights, in half precision."""
        half = {k: v.to(torch.float16).contiguous() for k, v in self.state_dict().items()}
        save_file(half, path)

    @classmethod
    def load(cls, path: Path) -> ObjectClassifier:
        """Reads weights written by `save`."""
        model = cls()
        model.load_state_dict({k: v.float() for k, v in load_file(path).items()})
        return model.eval()


def examples(seed: int, start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Drawings and their classes: two thirds clean, one third spoiled.

    Returns:
        Pictures (count, 64, 64, 3) uint8 and class indices (count,).
    """
    pictures = np.empty((count, 64, 64, 3), np.uint8)
    classes = np.empty(count, np.int64)
    for i in range(count):
        rng = np.random.default_rng([seed, start + i])
        if rng.random() < 0.33:
            pictures[i], classes[i] = spoil(rng), len(CLASSES) - 1
        else:
            scene = random_scene(rng, held_out=None)
            pictures[i], classes[i] = draw(scene, rng), scene.indices()[0]
    return pictures, classes


def soften(x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Slight blur, noise, light and shift: what a clean generated picture may differ by."""
    if rng.random() < 0.6:
        share = float(rng.uniform(0, 0.5))
        blurred = F.avg_pool2d(F.pad(x, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
        x = x.lerp(blurred, share)
    top, left = rng.integers(0, 5, 2)
    x = F.pad(x, (2, 2, 2, 2), mode="replicate")[..., top : top + 64, left : left + 64]
    x = x * float(rng.uniform(0.93, 1.05)) + float(rng.uniform(-0.04, 0.04))
    return x + torch.randn_like(x) * float(rng.uniform(0, 0.05))
