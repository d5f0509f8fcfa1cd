"""Captions as the towers take them: token ids, and which attributes each caption says."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from transformers import CLIPTokenizer

from ldm_viz.tiny.architecture import CONTEXT_LENGTH
from ldm_viz.tiny.captions import caption
from ldm_viz.tiny.scenes import ATTRIBUTES, Scene

UNSAID = -100
"""The class index of an attribute that a caption does not say (what `cross_entropy` ignores)."""


def tokenize(tokenizer: CLIPTokenizer, texts: list[str]) -> torch.Tensor:
    """Token ids, (n, 32) int64, padded and cut as Stable Diffusion's pipelines do."""
    return tokenizer(
        texts,
        padding="max_length",
        max_length=CONTEXT_LENGTH,
        truncation=True,
        return_tensors="pt",
    ).input_ids


def describe(
    attributes: np.ndarray, rng: np.random.Generator, tokenizer: CLIPTokenizer
) -> tuple[torch.Tensor, torch.Tensor]:
    """One random caption a scene.

    Args:
        attributes: Class indices, (n, 6).
        rng: Chooses the words.
        tokenizer: Encodes them.

    Returns:
        Token ids (n, 32), and class indices (n, 6) with `UNSAID` where the caption is silent.
    """
    captions = [caption(Scene.from_indices(row), rng) for row in attributes]
    said = torch.from_numpy(attributes.copy())
    for row, made in enumerate(captions):
        for column, name in enumerate(ATTRIBUTES):
            if name not in made.said:
                said[row, column] = UNSAID
    return tokenize(tokenizer, [c.text for c in captions]), said


def accuracies(logits: Iterable[torch.Tensor], classes: torch.Tensor) -> list[float]:
    """The share of right answers for each attribute, over the scenes that say it."""
    shares = []
    for column, scores in enumerate(logits):
        known = classes[:, column] != UNSAID
        right = scores.argmax(1)[known] == classes[known, column]
        shares.append(float(right.float().mean()) if len(right) else float("nan"))
    return shares
