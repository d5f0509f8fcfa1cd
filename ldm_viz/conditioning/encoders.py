"""How a pipeline turns texts and pictures into embeddings."""

from __future__ import annotations

import inspect
import sys
import warnings
import weakref
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from ldm_viz.conditioning.embeddings import Atom, Embedding, evaluate
from ldm_viz.conditioning.expressions import Node, Picture, Text, Weighed, leave_out
from ldm_viz.conditioning.grammar import parse
from ldm_viz.conditioning.joint import JointSpace
from ldm_viz.conditioning.pictures import as_picture, digest
from ldm_viz.conditioning.spaces import JOINT, PROMPT, Space, SpaceError, adapted, fingerprint
from ldm_viz.conditioning.tokens import (
    Block,
    Token,
    most_alike,
    place_less,
    read_block,
    split_text,
)

if TYPE_CHECKING:
    import torch

__all__ = ["Encoder", "JointEncoder", "PromptEncoder", "embed", "image", "text", "tokens"]

_KEPT = 512  # texts and pictures whose embeddings an encoder keeps
_SAID = {
    "prompt",
    "device",
    "num_images_per_prompt",
    "num_videos_per_prompt",
    "do_classifier_free_guidance",
}
_MASKS = ("prompt_attention_mask", "prompt_embeds_mask")
_PARTS = ("prompt_embeds", "pooled_prompt_embeds", *_MASKS)


class Encoder:
    """Embeds texts and pictures of one pipeline into one space.

    Attributes:
        space: where its embeddings live.
        state: what it was made for; where that has changed, what it keeps is stale.
    """

    space: Space
    state: tuple[Any, ...] = ()

    def __init__(self, pipe: Any) -> None:
        self._pipe = weakref.ref(pipe)
        self._known: OrderedDict[tuple[Any, ...], Atom] = OrderedDict()

    @property
    def pipe(self) -> Any:
        """The pipeline; None once it is gone."""
        return self._pipe()

    @property
    def reads_texts(self) -> bool:
        """Whether texts have a place in its space."""
        return True

    def text(self, text: str, *, chosen: bool = True) -> Embedding:
        """The embedding of a text."""
        if not isinstance(text, str):
            raise TypeError(f"a text is a str, but this is a {type(text).__name__}: {text!r}")
        return self._single(self._atom(text), chosen=chosen)

    def _atom(self, text: str) -> Atom:
        key = ("text", text)
        atom = self._remember(key)
        if atom is None:
            atom = self._keep(self._embed_text(key, text))
            self._tell_cut(text)
        return atom

    def without(self, text: str, words: str) -> Embedding:
        """The embedding of a text without some of its words, each vector where it stands in the text.

        Raises:
            ValueError: the words are not in the text.
        """
        less = leave_out(text, words)
        key = ("without", text, words.casefold())
        atom = self._remember(key)
        if atom is None:
            node = Weighed(Text(text), ((words, Fraction(0)),))
            atom = self._keep(replace(self._embed_less(key, text, less), node=node))
        return self._single(atom)

    def nearest_token(self, block: int, content: tuple[int, ...], host: tuple[int, ...]) -> int:
        """Where in a text a token lies that means nearly the same as another text; -1 if nowhere.

        Args:
            block: which of the blocks of its sequences the tokens are of.
            content: the tokens of the text that is looked for.
            host: the tokens it is looked for in.
        """
        return -1

    def spell(self, block: int, tokens: Sequence[int]) -> str:
        """The text of some tokens of a block."""
        raise NotImplementedError

    def opposite(self, text: str) -> Embedding:
        """The embedding of a text that guidance leads away from."""
        return self.text(text)

    def picture(self, picture: Any, name: str | None = None) -> Embedding:
        """The embedding of a picture."""
        raise NotImplementedError

    def example(self) -> Mapping[str, torch.Tensor]:
        """The parts of any of its embeddings."""
        raise NotImplementedError

    def leaf(self, node: Node) -> Embedding:
        """The embedding of a text that nobody chose a space for."""
        if not isinstance(node, Text):
            raise SpaceError(f"{node} has no embedding in {self.space} without its picture")
        return self.text(node.text, chosen=False)

    def cut(self, text: str) -> str:
        """What of a text is beyond what the encoder reads; empty if nothing is."""
        return " ".join(token.text for token in self.tokens(text) if not token.kept)

    def tokens(self, text: str) -> list[Token]:
        """The tokens of a text, with those that are cut."""
        raise NotImplementedError

    def _embed_text(self, key: tuple[Any, ...], text: str) -> Atom:
        raise NotImplementedError

    def _embed_less(self, key: tuple[Any, ...], text: str, less: str) -> Atom:
        """A text with words left out, as it is to be compared with the whole text."""
        return self._embed_text(key, less)

    def _single(self, atom: Atom, *, chosen: bool = True) -> Embedding:
        return Embedding(self, atom.node, [(Fraction(1), atom)], chosen=chosen)

    def _remember(self, key: tuple[Any, ...]) -> Atom | None:
        # Another thread may be at it: what is not there is made again.
        found = self._known.pop(key, None)
        if found is not None:
            self._known[key] = found
        return found

    def _keep(self, atom: Atom) -> Atom:
        self._known[atom.key] = atom
        while len(self._known) > _KEPT:
            self._known.popitem(last=False)
        return atom

    def _tell_cut(self, text: str) -> None:
        if cut := self.cut(text):
            warnings.warn(
                f"the text is longer than the encoder reads: {cut!r} was cut off",
                UserWarning,
                stacklevel=_callers_level(),
            )


def _callers_level() -> int:
    """For a warning: how many calls up the first is that is not in this package."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals["__name__"].startswith("ldm_viz."):
        frame, level = frame.f_back, level + 1
    return level


class PromptEncoder(Encoder):
    """A pipeline's own text encoding: what ``prompt=`` becomes, as ``prompt_embeds`` takes it."""

    def __init__(self, pipe: Any, identity: tuple[float, ...]) -> None:
        super().__init__(pipe)
        self._example = parts = self._encode("")
        shapes = tuple((name, tuple(part.shape[1:])) for name, part in parts.items())
        self.space = Space(PROMPT, _names(text_encoders(pipe)), shapes, identity)

    def _embed_text(self, key: tuple[Any, ...], text: str) -> Atom:
        parts = self._encode(text)
        return Atom(key, Text(text), parts, self._blocks(text, parts["prompt_embeds"].shape[1]))

    def _embed_less(self, key: tuple[Any, ...], text: str, less: str) -> Atom:
        whole, found = self._atom(text), self._embed_text(key, less)
        if whole.blocks is None or found.blocks is None:
            return found
        laid = [
            mine.start + place
            for mine, under in zip(found.blocks, whole.blocks, strict=True)
            for place in place_less(mine, under)
        ]
        parts = {
            name: whole.parts[name] if name in _MASKS else part
            for name, part in found.parts.items()
        }
        parts["prompt_embeds"] = parts["prompt_embeds"][:, laid]
        return Atom(key, found.node, parts, whole.blocks)

    def nearest_token(self, block: int, content: tuple[int, ...], host: tuple[int, ...]) -> int:
        """By the vectors that the block's text encoder begins with."""
        pipe = self.pipe
        if pipe is None:
            return -1
        tokenizer = self._tokenizer(block)
        numbers = ("", "_2", "_3", "_4")
        of = next((n for n in numbers if getattr(pipe, f"tokenizer{n}", None) is tokenizer), "?")
        encoder = getattr(pipe, f"text_encoder{of}", None)
        table = getattr(encoder and encoder.get_input_embeddings(), "weight", None)
        return -1 if table is None else most_alike(table, content, host)

    def spell(self, block: int, tokens: Sequence[int]) -> str:
        """The text of some tokens of a block."""
        return self._tokenizer(block).decode(list(tokens)).strip()

    def _tokenizer(self, block: int) -> Any:
        return _fills(self._living, self._example["prompt_embeds"].shape[1])[block][0]

    def opposite(self, text: str) -> Embedding:
        """The embedding of a text as ``negative_prompt=`` is encoded: without instructions (Sana)."""
        if "negative_prompt" not in inspect.signature(self._living.encode_prompt).parameters:
            return self.text(text)
        key = ("negative text", text)
        atom = self._remember(key)
        if atom is None:
            atom = self._keep(Atom(key, Text(text), self._encode(text, negative=True)))
            self._tell_cut(text)
        return self._single(atom)

    @property
    def _living(self) -> Any:
        """The pipeline, which texts that are not kept need."""
        pipe = self.pipe
        if pipe is None:
            raise SpaceError(
                f"the pipeline of {self.space} is gone, so it can encode no more texts; keep a "
                "reference to it, or embed with the pipeline that is to draw"
            )
        return pipe

    def example(self) -> Mapping[str, torch.Tensor]:
        """The parts of the empty text."""
        return self._example

    def picture(self, picture: Any, name: str | None = None) -> Embedding:
        """Refuses: a picture has no place among prompts."""
        raise SpaceError(
            f"a picture has no embedding in {self.space}: that space is of texts alone. Pictures "
            "live in the joint text-image space, which this pipeline can take if it has an image "
            "adapter (pipe.load_ip_adapter(…); lv.load_tiny(adapter=True))"
        )

    def tokens(self, text: str) -> list[Token]:
        """The tokens of a text, as the encoder that reads most of it has them."""
        shortest = self._example["prompt_embeds"].shape[1]
        found = self._split(text, shortest)
        if all(token.kept for token in found):
            return found
        # Of some pipelines the prompts are as long as their texts.
        atom = self._remember(("text", text))
        parts = self._encode(text) if atom is None else atom.parts
        length = parts["prompt_embeds"].shape[1]
        return found if length == shortest else self._split(text, length)

    def _split(self, text: str, length: int) -> list[Token]:
        pipe = self._living
        fills = [fill for fill in _fills(pipe, length) if fill[0]]
        if not fills:
            return []
        # Of several encoders the one that reads most.
        tokenizer, most = max(fills, key=lambda fill: fill[1])
        return split_text(tokenizer, _prepared(pipe, tokenizer, text), most)

    def _encode(self, text: str, *, negative: bool = False) -> dict[str, torch.Tensor]:
        """What ``encode_prompt`` makes of a text, by the names that ``__call__`` has for it.

        Args:
            text: the text.
            negative: whether to encode it as the negative prompt.
        """
        import torch

        pipe = self._living
        signature = inspect.signature(pipe.encode_prompt).parameters
        accepted = inspect.signature(pipe.__call__).parameters
        # What a call says to encode_prompt where nothing else is said, such as Sana's instructions.
        given = {
            name: parameter.default
            for name, parameter in accepted.items()
            if parameter.default is not inspect.Parameter.empty and "negative" not in name
        }
        given |= {
            "prompt": "" if negative else text,
            "device": pipe._execution_device,
            "num_images_per_prompt": 1,
            "num_videos_per_prompt": 1,
            "do_classifier_free_guidance": negative,
        }
        if negative:
            given["negative_prompt"] = text
        with torch.no_grad():
            result = pipe.encode_prompt(**{n: v for n, v in given.items() if n in signature})
        parts: dict[str, list[torch.Tensor]] = {}
        for value in result if isinstance(result, tuple) else (result,):
            name = _part_name(value, parts, accepted)
            if name:
                parts.setdefault(name, []).append(value)
        # The prompt's parts come before those of the negative prompt.
        found = {name: values[-1 if negative else 0] for name, values in parts.items()}
        if "prompt_embeds" not in found:
            raise _unknown(pipe)
        if negative and any(len(values) != 2 for values in parts.values()):
            return self._encode(text)
        return found

    def _blocks(self, text: str, length: int) -> tuple[Block, ...] | None:
        """What each tokenizer filled of the sequence; None where that is not certain."""
        pipe = self._living
        blocks, start = [], 0
        for tokenizer, size in _fills(pipe, length):
            if tokenizer is None:
                block: Block | None = Block(start, size, (), 0)
            else:
                block = read_block(tokenizer, _prepared(pipe, tokenizer, text), start, size)
            if block is None:
                return None
            blocks.append(block)
            start += size
        return tuple(blocks) or None


class JointEncoder(Encoder):
    """The joint text-image space that an image adapter, or an unCLIP decoder, takes its vectors from."""

    def __init__(self, pipe: Any, joint: JointSpace, identity: tuple[float, ...]) -> None:
        super().__init__(pipe)
        self.joint = joint
        width = int(joint.vision.config.projection_dim)
        if joint.text is not None and int(joint.text.config.projection_dim) != width:
            raise SpaceError(
                f"the two towers do not belong together: the text tower ends in "
                f"{joint.text.config.projection_dim} numbers, the vision tower in {width}"
            )
        towers = [tower for tower in (joint.vision, joint.text) if tower is not None]
        self.space = Space(JOINT, _names(towers), (("image_embeds", (width,)),), identity)

    @property
    def reads_texts(self) -> bool:
        """Whether it has a text tower."""
        return self.joint.text is not None

    def _embed_text(self, key: tuple[Any, ...], text: str) -> Atom:
        if self.joint.text is None:
            whose = "the pipeline" if self.pipe is None else type(self.pipe).__name__
            raise SpaceError(
                f"{whose} has an image encoder but not the text tower of the same "
                "CLIP, so texts have no place in its joint space; give that tower with "
                "joint=lv.JointSpace(text, pipe.image_encoder, tokenizer, pipe.feature_extractor)"
            )
        vector = self.joint.embed_texts([text]).to(self._dtype)
        return Atom(key, Text(text), {"image_embeds": vector})

    def picture(self, picture: Any, name: str | None = None) -> Embedding:
        """The projected vector of a picture."""
        ready = as_picture(picture)
        short = digest(ready)
        node = Picture(name or f"picture {short[:6]}")
        key = ("image", short)
        atom = self._remember(key)
        if atom is None:
            vector = self.joint.embed_images([ready]).to(self._dtype)
            atom = self._keep(Atom(key, node, {"image_embeds": vector}))
        return self._single(Atom(key, node, atom.parts))

    @property
    def _dtype(self) -> torch.dtype:
        return self.joint.vision.dtype

    def example(self) -> Mapping[str, torch.Tensor]:
        """Zeros of the space's shape."""
        import torch

        vision = self.joint.vision
        return {"image_embeds": torch.zeros(1, self.space.width, dtype=vision.dtype)}

    def tokens(self, text: str) -> list[Token]:
        """The tokens of a text as the text tower reads them."""
        if self.joint.tokenizer is None:
            return []
        return split_text(self.joint.tokenizer, text)

    def blank(self) -> torch.Tensor:
        """The embedding of pixels that are all zero, ``(1, width)``: what Kandinsky has for none."""
        import torch

        vision = self.joint.vision
        side = vision.config.image_size
        zeros = torch.zeros(1, 3, side, side, device=vision.device, dtype=vision.dtype)
        with torch.no_grad():
            return vision(zeros).image_embeds


def _part_name(
    value: Any, parts: Mapping[str, list[Any]], accepted: Mapping[str, Any]
) -> str | None:
    """The argument of ``__call__`` that a result of ``encode_prompt`` is for."""
    import torch

    if not isinstance(value, torch.Tensor) or value.shape[0] != 1:
        return None
    if value.ndim == 3 and "prompt_embeds" in accepted:
        return "prompt_embeds"
    if value.ndim != 2:
        return None
    mains = parts.get("prompt_embeds", [])
    mask = next((name for name in _MASKS if name in accepted), None)
    fits = bool(mains) and value.shape[1] == mains[-1].shape[1]
    if mask and fits and len(parts.get(mask, ())) < len(mains):
        return mask
    if value.is_floating_point() and "pooled_prompt_embeds" in accepted:
        return "pooled_prompt_embeds"
    return None


def takes_prompts(pipe: Any) -> bool:
    """Whether a pipeline takes a prompt as embeddings, all of which are known here."""
    accepted = inspect.signature(pipe.__call__).parameters
    if "prompt_embeds" not in accepted:
        return False
    needed = [
        name
        for name, parameter in accepted.items()
        if name == "encoder_hidden_states"
        or (name.startswith("prompt_embeds_") and parameter.default is None and name not in _PARTS)
    ]
    if needed or not hasattr(pipe, "encode_prompt"):
        return False
    asked = inspect.signature(pipe.encode_prompt).parameters.items()
    unsaid = {
        n
        for n, p in asked
        if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
    }
    return unsaid <= _SAID | {n for n, p in accepted.items() if p.default is not p.empty}


def _unknown(pipe: Any) -> SpaceError:
    return SpaceError(
        f"{type(pipe).__name__} encodes prompts in a way that is not known here, so there is no "
        "arithmetic with them"
    )


def _prepared(pipe: Any, tokenizer: Any, text: str) -> str:
    """A text as a pipeline hands it to its tokenizer."""
    convert = getattr(pipe, "maybe_convert_prompt", None)
    if convert is not None:  # textual inversion: one word may be several tokens
        return convert(text, tokenizer)
    prepare = getattr(pipe, "_text_preprocessing", None)
    if prepare is None:
        return text
    parameter = inspect.signature(pipe.__call__).parameters.get("clean_caption")
    return prepare(text, clean_caption=bool(parameter and parameter.default))[0]


def text_encoders(pipe: Any) -> list[Any]:
    """A pipeline's text encoders, in their order."""
    names = ("text_encoder", "text_encoder_2", "text_encoder_3", "text_encoder_4")
    return [e for e in (getattr(pipe, name, None) for name in names) if e is not None]


def _tokenizers(pipe: Any) -> list[Any]:
    names = ("tokenizer", "tokenizer_2", "tokenizer_3", "tokenizer_4")
    return [t for t in (getattr(pipe, name, None) for name in names) if t is not None]


def _names(modules: list[Any]) -> str:
    return " and ".join(type(module).__name__ for module in modules) or "no encoder"


def _fills(pipe: Any, length: int) -> list[tuple[Any, int]]:
    """The tokenizers that fill a sequence, and how many positions each; empty if that is not certain.

    One fills all of it; or two with the same tokens do, their states joined along the width (SDXL);
    or CLIP's come before T5's (Stable Diffusion 3; None without T5, whose place is zeros then); or
    T5's alone are in it (Flux).
    """
    tokenizers = _tokenizers(pipe)
    if not tokenizers:
        return []
    first = int(tokenizers[0].model_max_length)
    if len(tokenizers) == 1 or length == first:
        return [(tokenizers[0], length)]
    if len(tokenizers) == 2 and hasattr(pipe, "tokenizer_3") and length > first:
        return [(tokenizers[0], first), (None, length - first)]
    if len(tokenizers) == 2:
        return [(tokenizers[1], length)]
    if len(tokenizers) == 3 and length > first == int(tokenizers[1].model_max_length):
        return [(tokenizers[0], first), (tokenizers[2], length - first)]
    return []


_encoders: weakref.WeakKeyDictionary[Any, dict[str, Encoder]] = weakref.WeakKeyDictionary()


def encoder_of(pipe: Any, space: str, joint: JointSpace | None = None) -> Encoder:
    """The encoder of a pipeline into one of its spaces, the same one while its weights stay.

    Args:
        pipe: a diffusers pipeline.
        space: ``"prompt"`` or ``"joint"``.
        joint: the joint space's towers, where the pipeline does not have both.

    Raises:
        SpaceError: the pipeline has no such space.
    """
    check_pipe(pipe)
    known = _encoders.setdefault(pipe, {})
    if space == JOINT:
        towers = joint or find_joint(pipe)
        modules = [tower for tower in (towers.vision, towers.text) if tower is not None]
    else:
        modules = text_encoders(pipe)
        if not modules or not hasattr(pipe, "encode_prompt"):
            raise SpaceError(
                f"{type(pipe).__name__} has no prompts that could be embedded: it needs a text encoder "
                "and encode_prompt"
            )
        if not takes_prompts(pipe):
            raise _unknown(pipe)
    identity = fingerprint(*modules)
    types = tuple(module.dtype for module in modules)
    state = (identity, types, adapted(*modules), tuple(map(id, _tokenizers(pipe))))
    # One with a text tower and one without, where both are asked for in turn, stay.
    slot = space if len(modules) > 1 else f"{space} alone"
    found = known.get(slot)
    if found is None or found.state != state:
        if space == JOINT:
            found = JointEncoder(pipe, towers, identity)
        else:
            found = PromptEncoder(pipe, identity)
        found.state = state
        known[slot] = found
    return found


def find_joint(pipe: Any) -> JointSpace:
    """The towers of a pipeline's joint space, as far as it has them.

    Raises:
        SpaceError: it has no image encoder with a projection.
    """
    offered = getattr(pipe, "joint_space", None)
    if callable(offered):
        return offered()
    vision = getattr(pipe, "image_encoder", None)
    if vision is not None and not hasattr(vision, "visual_projection"):
        raise SpaceError(
            f"the image encoder of {type(pipe).__name__} ({type(vision).__name__}) has no projection "
            "into a space that texts share, so pictures and joint vectors have no place in it; a "
            "CLIPVisionModelWithProjection has one"
        )
    if vision is None:
        raise SpaceError(
            f"{type(pipe).__name__} has no image encoder, so pictures and joint vectors have no place "
            "in it. What would work: a pipeline with an IP-Adapter (pipe.load_ip_adapter(…) loads the "
            "image encoder too), Kandinsky's prior, or StableUnCLIPImg2ImgPipeline; of the embedded "
            "model, lv.load_tiny(adapter=True)"
        )
    text = getattr(pipe, "text_encoder", None)
    # A pipeline that has both towers of one CLIP projects its texts, too (Kandinsky's prior).
    ours = (
        text is not None
        and type(text).__name__.endswith("WithProjection")
        and int(text.config.projection_dim) == int(vision.config.projection_dim)
    )
    processor = getattr(pipe, "image_processor", None)
    feature = getattr(pipe, "feature_extractor", None) or processor
    return JointSpace(
        text if ours else None, vision, getattr(pipe, "tokenizer", None) if ours else None, feature
    )


def check_pipe(pipe: Any) -> None:
    if not callable(pipe) or not hasattr(pipe, "components"):
        raise TypeError(
            f"pipe must be a diffusers pipeline, but this is a {type(pipe).__name__}; load one with "
            "lv.load_tiny() or DiffusionPipeline.from_pretrained(…)"
        )


def default_space(pipe: Any) -> str:
    """Where a text of a pipeline lives unless it is said or a picture comes in."""
    accepted = inspect.signature(pipe.__call__).parameters
    return PROMPT if "prompt_embeds" in accepted else JOINT


def text(
    pipe: Any, text: str, *, space: str | None = None, joint: JointSpace | None = None
) -> Embedding:
    """The embedding of a text.

    Args:
        pipe: a diffusers pipeline.
        text: the text; what is longer than the encoder reads is cut, with a warning that says what.
        space: ``"prompt"``, the hidden states that the pipeline makes of a prompt; ``"joint"``, the
            vector that texts share with pictures. By default the first, until a picture's embedding
            is added: then the text's joint vector is meant.
        joint: the joint space's towers, where the pipeline does not have both.

    Raises:
        SpaceError: the pipeline has no such space.
        TypeError: `text` is no str, or `pipe` no pipeline.

    Example:
        >>> star = lv.text(pipe, "a red star") - lv.text(pipe, "red") + lv.text(pipe, "blue")
        >>> pipe(**lv.condition(pipe, star)).images[0]
    """
    check_pipe(pipe)
    _check_space(space)
    chosen = space or (JOINT if joint is not None else default_space(pipe))
    return encoder_of(pipe, chosen, joint).text(text, chosen=space is not None)


def image(
    pipe: Any, picture: Any, *, name: str | None = None, joint: JointSpace | None = None
) -> Embedding:
    """The embedding of a picture, in the joint text-image space of a pipeline's image encoder.

    Args:
        pipe: a diffusers pipeline with an image encoder: one with an IP-Adapter, Kandinsky's prior,
            or Stable unCLIP.
        picture: a PIL picture, an array ``(height, width, 3)`` of uint8, or a file's path.
        name: what to call it in expressions.
        joint: the joint space's towers, where the pipeline does not have both.

    Raises:
        SpaceError: the pipeline has no image encoder.
        ValueError: the picture cannot be read, or is too large.
        TypeError: it is no picture.
    """
    check_pipe(pipe)
    return encoder_of(pipe, JOINT, joint).picture(picture, name)


def embed(
    pipe: Any,
    expression: str | Node,
    images: Mapping[str, Any] | None = None,
    *,
    space: str | None = None,
    joint: JointSpace | None = None,
) -> Embedding:
    """The embedding that an expression says, such as ``image("cat") - "day" + 0.8 * "night"``.

    Texts stand in quotes, pictures are ``image("name")``. Both are added, subtracted, and multiplied
    with and divided by numbers; parentheses group. Functions are those of the same names in Python:
    ``mix("a", 2 * "b")``, ``lerp("a", "b", 0.5)``, ``slerp("a", "b", 0.5)``, ``normalize("a")``,
    ``keep_norm("a" - "b", "a")``, ``project_out("a", "b")``, and ``weigh("a red star", "red", 1.5)``
    for words that count for more or less. Nothing is evaluated as code.

    Args:
        pipe: a diffusers pipeline.
        expression: as above, or a tree.
        images: the pictures that it names. Nothing is read from files by name.
        space: ``"prompt"`` or ``"joint"``; by default the joint one if it names a picture.
        joint: the joint space's towers, where the pipeline does not have both.

    Raises:
        ExpressionError: it is no expression; the error points at the place.
        SpaceError: the pipeline has no such space, or pictures have no place in it.
        ValueError: it names a picture that is not among `images`.
    """
    check_pipe(pipe)
    _check_space(space)
    node = expression if isinstance(expression, Node) else parse(expression)
    leaves = list(node.leaves())
    pictures = [leaf.name for leaf in leaves if isinstance(leaf, Picture)]
    if images is not None and not isinstance(images, Mapping):
        raise TypeError(
            f"images must be pictures by their names, {{'cat': picture}}, not a {type(images).__name__}"
        )
    joined = bool(pictures) or joint is not None
    chosen = space or (JOINT if joined else default_space(pipe))
    encoder = encoder_of(pipe, chosen, joint)
    images = dict(images or {})
    for name in pictures:
        if name not in images:
            known = ", ".join(map(repr, images)) or "none"
            raise ValueError(
                f"the expression names the picture {name!r}, but images has {known}; give it with "
                f"images={{{name!r}: picture}}"
            )

    def leaf(part: Node) -> Embedding:
        if isinstance(part, Picture):
            return encoder.picture(images[part.name], part.name)
        assert isinstance(part, Text)
        return encoder.text(part.text, chosen=space is not None)

    return evaluate(node, leaf)


def tokens(pipe: Any, text: str, *, space: str | None = None) -> list[Token]:
    """The tokens of a text as a pipeline's encoder sees them, with those that are cut."""
    check_pipe(pipe)
    _check_space(space)
    if not isinstance(text, str):
        raise TypeError(f"a text is a str, but this is a {type(text).__name__}: {text!r}")
    return encoder_of(pipe, space or default_space(pipe)).tokens(text)


def _check_space(space: str | None) -> None:
    if space not in (None, PROMPT, JOINT):
        raise ValueError(f"space is {space!r}; expected {PROMPT!r}, {JOINT!r} or None")
