"""The ways by which a pipeline takes an embedding as its condition."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ldm_viz.conditioning.embeddings import Embedding, EmbeddingError, reconcile
from ldm_viz.conditioning.encoders import (
    JointEncoder,
    check_pipe,
    encoder_of,
    takes_prompts,
    text_encoders,
)
from ldm_viz.conditioning.spaces import JOINT, PROMPT, SpaceError, fingerprint, same_identity

if TYPE_CHECKING:
    import torch

__all__ = ["condition", "takes"]


def takes(pipe: Any) -> list[str]:
    """The kinds of embeddings that a pipeline can have as its condition: "prompt", "joint"."""
    accepted = _accepted(pipe)
    found = []
    if takes_prompts(pipe):
        found.append(PROMPT)
    if _joint_route(pipe, accepted):
        found.append(JOINT)
    return found


def default_guidance(pipe: Any) -> float:
    """The guidance scale that a pipeline takes where none is given; 1, no guidance, where it takes none."""
    return _scale(_accepted(pipe), None)


def condition(
    pipe: Any,
    embedding: Embedding,
    negative: Embedding | str | None = None,
    *,
    prompt: str = "",
    guidance_scale: float | None = None,
) -> dict[str, Any]:
    """The arguments by which a pipeline takes an embedding as the condition of its next picture.

    Args:
        pipe: the pipeline that is to draw: it must be of the embedding's space.
        embedding: the condition.
        negative: what guidance leads away from, of the same space; a str is embedded first. By
            default what the pipeline itself has for no condition.
        prompt: the text beside a joint vector, where the pipeline takes both (IP-Adapter).
        guidance_scale: as the pipeline takes it; it is handed on. Needed for IP-Adapters where it
            is not the pipeline's default, since without guidance they take half as many vectors.

    Returns:
        Keyword arguments for ``pipe(…)``, for one picture, or several of the same condition by
        ``num_images_per_prompt``.

    Raises:
        SpaceError: the pipeline cannot take an embedding of this space; the error says what it takes.
        EmbeddingError: the embedding is zero or not finite, as the pipeline takes it.

    Example:
        >>> pipe = lv.load_tiny(adapter=True)
        >>> night = lv.image(pipe, picture) - lv.text(pipe, "day") + lv.text(pipe, "night")
        >>> pipe(**lv.condition(pipe, night, guidance_scale=2.5)).images[0]
    """
    check_pipe(pipe)
    if not isinstance(embedding, Embedding):
        raise TypeError(
            f"embedding must be an Embedding, but this is a {type(embedding).__name__}; make one with "
            "lv.text, lv.image or lv.embed"
        )
    accepted = _accepted(pipe)
    embedding, opposite = _pair(embedding, negative)
    if embedding.space.kind not in takes(pipe):
        raise _refusal(pipe, embedding)
    embedding.check()
    if opposite is not None:
        opposite.check_finite()
    if embedding.space.kind == PROMPT:
        found = _prompt_arguments(pipe, accepted, embedding, opposite)
        if _joint_route(pipe, accepted) == "ip_adapter_image_embeds":
            found["ip_adapter_image_embeds"] = _no_picture(pipe, accepted, guidance_scale)
    else:
        found = _joint_arguments(pipe, accepted, embedding, opposite, prompt, guidance_scale)
    _check_reach(found, embedding)
    if guidance_scale is not None:
        found["guidance_scale"] = guidance_scale
    return found


def _check_reach(found: Mapping[str, Any], embedding: Embedding) -> None:
    """Refuses numbers that were finite where they were made and are not in the pipeline's precision."""
    import torch

    for name, given in found.items():
        for part in given if isinstance(given, list) else [given]:
            if torch.is_tensor(part) and not bool(part.isfinite().all()):
                raise EmbeddingError(
                    f"{embedding.expression} has numbers that are too large for this pipeline's "
                    f"precision: {name} is not finite in {part.dtype}; make its weights smaller"
                )


def _accepted(pipe: Any) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(pipe.__call__).parameters


def _pair(
    embedding: Embedding, negative: Embedding | str | None
) -> tuple[Embedding, Embedding | None]:
    """The condition and what guidance leads away from, in one space."""
    if negative is None:
        return embedding, None
    if isinstance(negative, str):
        return embedding, embedding.encoder.opposite(negative)
    if not isinstance(negative, Embedding):
        raise TypeError(
            f"negative must be an Embedding, a str or None, but this is a {type(negative).__name__}"
        )
    first, second = reconcile([embedding, negative], "negative")
    return first, second


def _prompt_arguments(
    pipe: Any,
    accepted: Mapping[str, inspect.Parameter],
    embedding: Embedding,
    negative: Embedding | None,
) -> dict[str, Any]:
    # Without encoders of its own a pipeline draws what another has encoded (Flux, to save memory).
    if text_encoders(pipe):
        own = encoder_of(pipe, PROMPT)
        if own is not embedding.encoder and not own.space.same(embedding.space):
            raise SpaceError(
                f"{type(pipe).__name__} reads {own.space}, but {embedding.expression} is in "
                f"{embedding.space}. {own.space.why_not(embedding.space)} Embed it with this pipeline."
            )
    found: dict[str, Any] = {name: _at(pipe, part) for name, part in embedding.parts.items()}
    if negative is not None:
        for name, part in negative.parts.items():
            if f"negative_{name}" not in accepted:
                raise ValueError(
                    f"{type(pipe).__name__} takes no negative_{name}: it has no guidance by a negative "
                    "prompt; leave negative out"
                )
            found[f"negative_{name}"] = _at(pipe, part)
        if "negative_prompt" in accepted:
            found["negative_prompt"] = None  # some have "" by default, and refuse both
    if accepted.get("prompt") is not None and accepted["prompt"].default is inspect.Parameter.empty:
        found["prompt"] = None
    return found


def _joint_route(pipe: Any, accepted: Mapping[str, Any]) -> str | None:
    """The name of the argument by which a pipeline takes a joint vector."""
    if "ip_adapter_image_embeds" in accepted and _adapters(pipe) is not None:
        return "ip_adapter_image_embeds"
    # Transformers that take image_embeds (Wan) mean the image encoder's hidden states.
    if "image_embeds" in accepted and getattr(pipe, "unet", None) is not None:
        return "image_embeds"
    return None


def _adapters(pipe: Any) -> list[Any] | None:
    """The projections of a UNet's image adapters; None if it has none."""
    projection = getattr(getattr(pipe, "unet", None), "encoder_hid_proj", None)
    layers = getattr(projection, "image_projection_layers", None)
    return None if layers is None else list(layers)


def _joint_arguments(
    pipe: Any,
    accepted: Mapping[str, inspect.Parameter],
    embedding: Embedding,
    negative: Embedding | None,
    prompt: str,
    guidance_scale: float | None,
) -> dict[str, Any]:
    route = _joint_route(pipe, accepted)
    _check_joint(pipe, embedding)
    vector = _at(pipe, embedding.parts["image_embeds"])
    without = None if negative is None else _at(pipe, negative.parts["image_embeds"])
    if route == "ip_adapter_image_embeds":
        scale = _scale(accepted, guidance_scale)
        found: dict[str, Any] = {"prompt": prompt}
        found[route] = [_adapter_vectors(pipe, vector, without, scale)]
        return found
    _check_width(_image_width(pipe), vector, f"{type(pipe).__name__}")
    found = {"image_embeds": vector}
    if "negative_image_embeds" in accepted:
        if without is None:
            encoder = embedding.encoder
            assert isinstance(encoder, JointEncoder)
            without = _at(pipe, encoder.blank())
        found["negative_image_embeds"] = without
    elif without is not None:
        raise ValueError(
            f"{type(pipe).__name__} takes no negative joint vector; leave negative out"
        )
    if "prompt" in accepted:
        found["prompt"] = prompt
    return found


def _scale(accepted: Mapping[str, inspect.Parameter], guidance_scale: float | None) -> float:
    """The guidance scale of a call."""
    if guidance_scale is not None:
        return float(guidance_scale)
    default = accepted["guidance_scale"].default if "guidance_scale" in accepted else None
    return float(default) if isinstance(default, int | float) else 1.0


def _no_picture(
    pipe: Any, accepted: Mapping[str, inspect.Parameter], guidance_scale: float | None
) -> list[torch.Tensor]:
    """What image adapters are given where a prompt alone is the condition: zeros, for each."""
    import torch

    count = 2 if _scale(accepted, guidance_scale) > 1 and not _distilled(pipe) else 1
    vision = getattr(pipe, "image_encoder", None)
    found = []
    for layer in _adapters(pipe) or []:
        linear = getattr(layer, "image_embeds", None)
        if linear is not None:
            found.append(_at(pipe, torch.zeros(count, 1, linear.in_features)))
        elif hasattr(layer, "proj_in") and vision is not None:
            # A Plus adapter was trained with the hidden states of pixels that are all zero.
            side = vision.config.image_size
            zeros = torch.zeros(1, 3, side, side, device=vision.device, dtype=vision.dtype)
            with torch.no_grad():
                states = vision(zeros, output_hidden_states=True).hidden_states[-2]
            found.append(_at(pipe, states.unsqueeze(0).expand(count, -1, -1, -1)))
        else:
            raise SpaceError(
                f"it is not known what the image adapter ({type(layer).__name__}) takes for no picture; "
                "unload it with pipe.unload_ip_adapter() to draw from a prompt alone"
            )
    return found


def _distilled(pipe: Any) -> bool:
    """Whether guidance is built into the model, so that it takes no second branch."""
    return getattr(pipe.unet.config, "time_cond_proj_dim", None) is not None


def _linear(layer: Any) -> Any:
    """The layer of an adapter that takes projected vectors.

    Raises:
        SpaceError: it takes something else.
    """
    linear = getattr(layer, "image_embeds", None)
    if linear is None:
        raise SpaceError(
            f"this image adapter ({type(layer).__name__}) reads hidden states of the image encoder, "
            "not its projected vector, so arithmetic with texts has no place in it; load an IP-Adapter "
            "that is not of the Plus kind (ip-adapter_sd15, ip-adapter_sdxl_vit-h)"
        )
    return linear


def _adapter_vectors(
    pipe: Any, vector: torch.Tensor, without: torch.Tensor | None, scale: float
) -> torch.Tensor:
    """An adapter's vectors, ``(2, 1, width)`` with guidance, else ``(1, 1, width)``.

    Without a condition an IP-Adapter is given zeros, as it was trained (Ye et al. 2023).
    """
    import torch

    layers = _adapters(pipe) or []
    if len(layers) != 1:
        raise SpaceError(
            f"the pipeline has {len(layers)} image adapters; a joint vector can be the condition of one: "
            "load one alone (pipe.unload_ip_adapter(), then pipe.load_ip_adapter(…) with one)"
        )
    _check_width(int(_linear(layers[0]).in_features), vector, "this image adapter")
    one = vector.unsqueeze(1)
    if scale <= 1 or _distilled(pipe):
        return one
    other = torch.zeros_like(one) if without is None else without.unsqueeze(1)
    return torch.cat([other, one])


def _check_width(width: int | None, vector: torch.Tensor, what: str) -> None:
    if width is not None and width != vector.shape[-1]:
        raise SpaceError(
            f"{what} takes vectors of {width} numbers, but the embedding has {vector.shape[-1]}: it is "
            "of another CLIP; embed with the one that it was trained with"
        )


def _image_width(pipe: Any) -> int | None:
    """How many numbers the vectors have that an unCLIP decoder takes; None if that is not known."""
    linear = getattr(getattr(pipe.unet, "encoder_hid_proj", None), "image_embeds", None)
    if linear is not None:
        return int(linear.in_features)
    mean = getattr(getattr(pipe, "image_normalizer", None), "mean", None)
    return None if mean is None else int(mean.shape[-1])


def _check_joint(pipe: Any, embedding: Embedding) -> None:
    """Makes sure that a pipeline's image encoder is the one that an embedding is of, if it has one."""
    vision = getattr(pipe, "image_encoder", None)
    encoder = embedding.encoder
    if vision is None or not isinstance(encoder, JointEncoder) or vision is encoder.joint.vision:
        return
    mine, others = fingerprint(vision), fingerprint(encoder.joint.vision)
    if not same_identity(mine, others):
        raise SpaceError(
            f"{embedding.expression} is in {embedding.space}, but the image encoder of this "
            f"{type(pipe).__name__} has other weights: the same picture has other numbers there. "
            "Embed it with this pipeline."
        )


def _refusal(pipe: Any, embedding: Embedding) -> SpaceError:
    kinds = takes(pipe)
    what = {
        PROMPT: "prompts (lv.text(pipe, …))",
        JOINT: "joint vectors (lv.image(pipe, …), lv.text(pipe, …, space='joint'))",
    }
    offer = " and ".join(what[kind] for kind in kinds)
    if embedding.space.kind == JOINT and not kinds.count(JOINT):
        cure = (
            "What would work for a joint vector: a pipeline with an IP-Adapter (pipe.load_ip_adapter(…), "
            "lv.load_tiny(adapter=True)), Kandinsky's decoder or StableUnCLIPImg2ImgPipeline."
        )
    else:
        cure = "Embed with the pipeline that is to draw."
    return SpaceError(
        f"{type(pipe).__name__} cannot take {embedding.expression}, which is in {embedding.space}. It "
        f"takes {offer or 'no embeddings'}. {cure}"
    )


def _at(pipe: Any, part: torch.Tensor) -> torch.Tensor:
    """A copy of a part where the pipeline draws, and in its precision where it is of another."""
    model = getattr(pipe, "unet", None) or getattr(pipe, "transformer", None)
    dtype = getattr(model, "dtype", None) if part.is_floating_point() else None
    # A copy: what a pipeline does with it in place must not reach what is kept.
    return part.to(pipe._execution_device, dtype or part.dtype, copy=True)
