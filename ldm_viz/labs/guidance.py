"""The guidance scale of pictures where none is given."""

from __future__ import annotations

from typing import Any

from ldm_viz.conditioning.routes import default_guidance
from ldm_viz.tiny.loading import GUIDANCE, WEIGHTS

__all__ = ["is_embedded", "usual_guidance"]


def is_embedded(pipe: Any) -> bool:
    """Whether a pipeline is the embedded model."""
    return str(getattr(pipe, "name_or_path", "")) == str(WEIGHTS)


def usual_guidance(pipe: Any) -> float:
    """The guidance scale that a pipeline's pictures are drawn with where none is given.

    Args:
        pipe: A diffusers pipeline.

    Returns:
        2.5 for the embedded model, which is judged with that; of any other the pipeline's own default,
        or 1, no guidance, where it takes none.

    Example:
        >>> usual_guidance(lv.load_tiny())
        2.5
    """
    return GUIDANCE if is_embedded(pipe) else default_guidance(pipe)
