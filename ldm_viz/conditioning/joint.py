"""The joint text-image space of a CLIP: its two towers, and what turns texts and pictures into input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from PIL import Image

__all__ = ["JointSpace"]

_BATCH = 50


@dataclass(frozen=True)
class JointSpace:
    """The two towers of a joint text-image space, with what turns texts and pictures into input.

    Both towers end in vectors of the same width that can be compared, added and subtracted (Radford
    et al. 2021). They must be of one CLIP: two that merely have the same width have nothing in common.

    Attributes:
        text: a ``CLIPTextModelWithProjection``, or None where only pictures can be embedded.
        vision: a ``CLIPVisionModelWithProjection``.
        tokenizer: the text tower's, or None.
        image_processor: the vision tower's.

    Example:
        >>> name = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
        >>> joint = lv.JointSpace(
        ...     CLIPTextModelWithProjection.from_pretrained(name),
        ...     pipe.image_encoder,
        ...     CLIPTokenizer.from_pretrained(name),
        ...     pipe.feature_extractor,
        ... )
        >>> vector = lv.embed(pipe, 'image("cat") - "day" + "night"', {"cat": picture}, joint=joint)
        >>> pipe(**lv.condition(pipe, vector)).images[0]
    """

    text: Any
    vision: Any
    tokenizer: Any
    image_processor: Any

    def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
        """Texts as vectors of the joint space, (n, width); longer ones are cut.

        Raises:
            ValueError: there are none, or the space has no text tower.
        """
        import torch

        if not texts:
            raise ValueError("texts is empty; expected at least one text")
        if self.text is None or self.tokenizer is None:
            raise ValueError(
                "this joint space has no text tower, so it cannot embed texts; make it with "
                "lv.JointSpace(text, vision, tokenizer, image_processor) and the text tower of the "
                "same CLIP"
            )
        tokens = self.tokenizer(
            list(texts), padding="max_length", truncation=True, return_tensors="pt"
        ).input_ids
        with torch.no_grad():
            parts = [self.text(t.to(self.text.device)).text_embeds for t in tokens.split(_BATCH)]
        return torch.cat(parts)

    def embed_images(self, images: Sequence[Image.Image]) -> torch.Tensor:
        """Pictures as vectors of the joint space, (n, width); of any size, cut to a square.

        Raises:
            ValueError: there are none.
        """
        import torch

        if not images:
            raise ValueError("images is empty; expected at least one picture")
        rgb = [image.convert("RGB") for image in images]
        pixels = self.image_processor(rgb, return_tensors="pt").pixel_values
        with torch.no_grad():
            parts = [
                self.vision(p.to(self.vision.device, self.vision.dtype)).image_embeds
                for p in pixels.split(_BATCH)
            ]
        return torch.cat(parts)
