"""Stage 5: the classifier that judges which object a picture shows."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from ldm_viz.tiny.classifier import ObjectClassifier, examples, soften
from ldm_viz.tiny.training.autoencoder import to_input
from ldm_viz.tiny.training.ranks import Progress, Stage, epochs

BATCH = 64
_CHUNK = 1_000


def make_examples(folder: Path, count: int, seed: int, ranks: int) -> None:
    """Draws clean and spoiled examples into ``examples.npz``, unless they are there."""
    target = folder / "examples.npz"
    if target.exists():
        return
    starts = range(0, count, _CHUNK)
    with ProcessPoolExecutor(ranks) as pool:
        parts = list(pool.map(examples, [seed] * len(starts), starts, [_CHUNK] * len(starts)))
    pictures, classes = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    np.savez(target, pictures=pictures, classes=classes)


def train_classifier(rank: int, world: int, folder: Path, total: int) -> None:
    """Trains on drawings, clean and spoiled. Writes ``classifier.safetensors``."""
    stored = np.load(folder / "examples.npz")
    pictures, classes = stored["pictures"], torch.from_numpy(stored["classes"])
    torch.manual_seed(0)
    model = ObjectClassifier().train()
    torch.manual_seed(rank)
    stage = Stage(
        "classifier", folder, {"classifier": model}, Progress(total, 2e-3, 4_000, 0.5), rank, world
    )
    rng = np.random.default_rng([6, rank, stage.steps])
    batches = epochs(len(pictures), BATCH, rank, world, 6 + stage.steps)
    while not stage.progress.done:
        rows = next(batches)
        scores = model(soften(to_input(pictures[rows]), rng))
        right = (scores.argmax(1) == classes[rows]).float().mean()
        loss = F.cross_entropy(scores, classes[rows], label_smoothing=0.02)
        stage.step(loss, len(rows), right=right)
    if rank == 0:
        stage.save()
        classifier = stage.averaged("classifier")
        assert isinstance(classifier, ObjectClassifier)
        classifier.save(folder / "classifier.safetensors")
