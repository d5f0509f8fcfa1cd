"""Arithmetic with the embeddings of texts and pictures, and the ways into a pipeline."""

from ldm_viz.conditioning.embeddings import (
    Embedding,
    EmbeddingError,
    direction,
    keep_norm,
    lerp,
    mix,
    normalize,
    project_out,
    slerp,
    weigh,
)
from ldm_viz.conditioning.encoders import embed, image, text, tokens
from ldm_viz.conditioning.grammar import ExpressionError, parse
from ldm_viz.conditioning.joint import JointSpace
from ldm_viz.conditioning.routes import condition, takes
from ldm_viz.conditioning.spaces import Space, SpaceError

__all__ = [
    "Embedding",
    "EmbeddingError",
    "ExpressionError",
    "JointSpace",
    "Space",
    "SpaceError",
    "condition",
    "direction",
    "embed",
    "image",
    "keep_norm",
    "lerp",
    "mix",
    "normalize",
    "parse",
    "project_out",
    "slerp",
    "takes",
    "text",
    "tokens",
    "weigh",
]
