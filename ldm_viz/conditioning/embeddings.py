"""Embeddings that know their space and how they were made, and the arithmetic with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from ldm_viz.conditioning.expressions import (
    Call,
    Node,
    Text,
    Weighed,
    as_weight,
    check_weight,
    format_weight,
    weighted_sum,
)
from ldm_viz.conditioning.spaces import JOINT, Space, SpaceError
from ldm_viz.conditioning.tokens import Block, find, place

if TYPE_CHECKING:
    import torch

    from ldm_viz.conditioning.encoders import Encoder

__all__ = [
    "Embedding",
    "EmbeddingError",
    "direction",
    "keep_norm",
    "lerp",
    "mix",
    "normalize",
    "project_out",
    "slerp",
    "weigh",
]

MAIN = ("image_embeds", "prompt_embeds")
PARALLEL = 0.9995  # cosine above which slerp is lerp


class EmbeddingError(ValueError):
    """An embedding has no meaning: it is zero, or not all of its numbers are finite."""


@dataclass(frozen=True)
class Atom:
    """What sums are made of: one encoded text or picture, or the result of a function.

    Attributes:
        key: equal for atoms that are certainly the same.
        node: how it is written.
        parts: name to tensor, each ``(1, …)``.
        blocks: of a prompt, where its tokens lie in the sequence, if that is known.
    """

    key: tuple[Any, ...]
    node: Node
    parts: Mapping[str, torch.Tensor]
    blocks: tuple[Block, ...] | None = None


class Embedding:
    """A condition as numbers: of a text, of a picture, or calculated from such.

    Made with `text`, `image` and `embed`. ``+``, ``-``, ``*`` and ``/`` are exact in what they
    combine: equal terms are gathered first, with fractions as weights, and only what is left is
    calculated. So ``a + b - b`` is ``a``, bit for bit.

    Prompts are sequences, a vector a token. In ``"a red star" - "red" + "blue"`` the word that is taken
    away is found among the longer text's tokens, and both short texts are laid there, as if they stood
    there alone; without that, "red" would be taken from "a". Of a text that has no "red" the word is
    taken that clearly means nearly the same, such as "crimson". All other texts are added position by
    position.

    Attributes:
        encoder: what made it.
        expression: how it was made, a tree that prints itself.
        chosen: whether its space was asked for; if not, it follows what it is combined with.

    Example:
        >>> vector = lv.image(pipe, picture) - lv.text(pipe, "day") + lv.text(pipe, "night")
        >>> pipe(**lv.condition(pipe, vector)).images[0]
    """

    def __init__(
        self,
        encoder: Encoder,
        expression: Node,
        terms: Iterable[tuple[Fraction, Atom]],
        *,
        chosen: bool = True,
    ) -> None:
        gathered: dict[tuple[Any, ...], tuple[Fraction, Atom]] = {}
        for weight, atom in terms:
            before = gathered.get(atom.key, (Fraction(0), atom))
            gathered[atom.key] = (before[0] + weight, before[1])
        self.encoder = encoder
        self.expression = expression
        self.chosen = chosen
        self._terms = tuple(term for term in gathered.values() if term[0])
        self._parts: dict[str, torch.Tensor] | None = None

    @property
    def space(self) -> Space:
        """Where it lives."""
        return self.encoder.space

    @property
    def terms(self) -> tuple[tuple[Fraction, Node], ...]:
        """What is left once equal terms are gathered: weights and what they weigh."""
        return tuple((weight, atom.node) for weight, atom in self._terms)

    @property
    def parts(self) -> dict[str, torch.Tensor]:
        """Its tensors by the names that pipelines have for them, each ``(1, …)``."""
        if self._parts is None:
            self._parts = self._sum()
        return self._parts

    def _sum(self) -> dict[str, torch.Tensor]:
        import torch

        if len(self._terms) == 1 and self._terms[0][0] == 1:
            return dict(self._terms[0][1].parts)
        if not self._terms:
            return {name: torch.zeros_like(part) for name, part in self.encoder.example().items()}
        parts = {}
        places = _places(self._terms, self.encoder)
        _check_shapes([(atom.node, atom.parts) for _, atom in self._terms])
        for name, first in self._terms[0][1].parts.items():
            if not first.is_floating_point():
                # Masks: what any term attends to.
                masks = [atom.parts[name].to(first) for _, atom in self._terms]
                parts[name] = torch.stack(masks).amax(0)
                continue
            # On the CPU: not every device has numbers of double precision, and terms may be on several.
            total = torch.zeros(first.shape, dtype=torch.float64)
            for (weight, atom), laid in zip(self._terms, places, strict=True):
                part = atom.parts[name].to(total)
                if laid and name == "prompt_embeds":
                    part = part[:, laid]
                total += float(weight) * part
            parts[name] = total.to(first)
        return parts

    @property
    def notes(self) -> list[str]:
        """What of texts that are taken away is not found as it stands, in sentences."""
        notes = []
        groups = _grouped(self._terms)
        for visit in _visits(groups, self.encoder):
            taken = groups[visit.term]
            if visit.possible:
                host = groups[visit.host]
                under, span = host.blocks[0], visit.spans[0]
                if span is None or _has(host.blocks, taken.blocks):
                    continue
                word = self.encoder.spell(0, under.content[span[0] - under.first :][:1])
                notes.append(
                    f"{taken.node} is not in {host.node}: it is taken from {word!r}, the word most like it"
                )
                continue
            size = len(taken.blocks[0].content)
            longer = [g for g in groups if g.weight > 0 and len(g.blocks[0].content) > size > 0]
            if longer:
                notes.append(
                    f"{taken.node} is not in {longer[0].node}, nor a word that is clearly like it: it is "
                    "taken away position by position"
                )
        return notes

    @property
    def main(self) -> torch.Tensor:
        """Its first part: ``(1, width)`` in a joint space, ``(1, tokens, width)`` of a prompt."""
        return next(self.parts[name] for name in MAIN if name in self.parts)

    @property
    def norm(self) -> float:
        """The Euclidean norm of its first part."""
        return float(self.main.cpu().double().norm())

    def cosine(self, other: Embedding) -> float:
        """The cosine of the angle between two embeddings of one space; NaN if one is zero."""
        first, second = reconcile([self, other], "cosine")
        a, b = first.main.cpu().double().flatten(), second.main.cpu().double().flatten()
        size = float(a.norm() * b.norm())
        return float(a @ b) / size if size else float("nan")

    def check(self) -> Embedding:
        """Returns itself, if it can be a condition.

        Raises:
            EmbeddingError: its numbers are not finite, or all zero.
        """
        self.check_finite()
        if not self.norm:
            raise EmbeddingError(
                f"{self.expression} is zero: its terms cancel out, so nothing is left to be a "
                "condition; change a weight or add a term"
            )
        return self

    def check_finite(self) -> Embedding:
        """Returns itself, if all its numbers are finite. It may be zero, as guidance's other end may.

        Raises:
            EmbeddingError: they are not.
        """
        for name, part in self.parts.items():
            if part.is_floating_point() and not bool(part.isfinite().all()):
                raise EmbeddingError(
                    f"{self.expression} has numbers in {name} that are not finite, so it cannot be a "
                    "condition; its weights are too large for half precision, or the encoder gave "
                    "them: check its terms one by one"
                )
        return self

    def __repr__(self) -> str:
        return f"Embedding({self.expression}, {self.space.kind} space {self.space.key}, norm {self.norm:.4g})"

    def __add__(self, other: Any) -> Embedding:
        return combine([(Fraction(1), self), (Fraction(1), _operand(other, "+"))], "+")

    def __radd__(self, other: Any) -> Embedding:
        if isinstance(other, int) and other == 0:  # where sum() begins
            return self
        raise _not_embedded(other, "+ needs two embeddings")

    def __sub__(self, other: Any) -> Embedding:
        return combine([(Fraction(1), self), (Fraction(-1), _operand(other, "-"))], "-")

    def __mul__(self, number: Any) -> Embedding:
        return combine([(_factor(number, "multiplied by"), self)], "*")

    __rmul__ = __mul__

    def __truediv__(self, number: Any) -> Embedding:
        divisor = _factor(number, "divided by")
        if not divisor:
            raise ZeroDivisionError(f"{self.expression} cannot be divided by zero")
        return combine([(1 / divisor, self)], "/")

    def __neg__(self) -> Embedding:
        return combine([(Fraction(-1), self)], "-")

    def __pos__(self) -> Embedding:
        return self


def _operand(other: Any, sign: str) -> Embedding:
    if isinstance(other, Embedding):
        return other
    raise _not_embedded(other, f"{sign} needs two embeddings")


def _not_embedded(other: Any, needs: str) -> TypeError:
    cure = (
        f"embed it first: lv.text(pipe, {other!r})"
        if isinstance(other, str)
        else "embed texts with lv.text and pictures with lv.image"
    )
    return TypeError(f"{needs}, but one is a {type(other).__name__}; {cure}")


def _several(embeddings: Any, what: str) -> list[Embedding]:
    """Embeddings in a list."""
    if isinstance(embeddings, Embedding):
        raise TypeError(f"{what} takes embeddings in a list, such as [a, b], but this is one alone")
    return list(embeddings)


def _factor(number: Any, what: str) -> Fraction:
    if isinstance(number, Embedding):
        raise TypeError(
            f"an embedding can be {what} a number, not {what} another embedding; add or subtract "
            "embeddings, or take a.cosine(b)"
        )
    return as_weight(number, f"what an embedding is {what}")


Spans = list[tuple[int, int] | None]
"""Of each block, the stretch of it on which another text is laid."""


def _places(terms: Sequence[tuple[Fraction, Atom]], encoder: Encoder) -> list[list[int] | None]:
    """Where in its own sequence each term's position comes from; None for position by position.

    A text that is taken away is laid where it stands in a longer one that is there; a short one that
    is added comes in the place of one that is taken away, in their order.
    """
    places: list[list[int] | None] = [None] * len(terms)
    groups = _grouped(terms)
    visits = _visits(groups, encoder)
    hosts = {k for visit in visits for k in visit.possible}
    guests = [k for k, group in enumerate(groups) if group.weight > 0 and k not in hosts]
    visits = [visit for visit in visits if visit.possible]
    for number, visit in enumerate(visits):
        host = groups[visit.host].blocks
        laid = [visit.term]
        if number < len(guests):
            guest = guests[number]
            if len(groups[guest].blocks[0].content) < len(host[0].content):
                laid.append(guest)
        for k in laid:
            found = _laid(groups[k].blocks, visit.spans, host)
            for member in groups[k].members:
                places[member] = found
    return places


@dataclass(frozen=True)
class _Group:
    """A text, and the same text without some of its words: they are laid alike.

    Attributes:
        weight: of all of them together; it does not depend on how much words count.
        members: which of the terms they are.
        blocks: where the text's tokens lie.
        node: the text.
    """

    weight: Fraction
    members: tuple[int, ...]
    blocks: tuple[Block, ...]
    node: Node


def _grouped(terms: Sequence[tuple[Fraction, Atom]]) -> list[_Group]:
    """The texts of a sum; none where it is not known of all of them where their tokens lie."""
    if any(not atom.blocks for _, atom in terms):
        return []
    members: dict[str, list[int]] = {}
    nodes: dict[str, Node] = {}
    for i, (_, atom) in enumerate(terms):
        node = atom.node.text if isinstance(atom.node, Weighed) else atom.node
        members.setdefault(str(node), []).append(i)
        nodes[str(node)] = node
    return [
        _Group(
            sum((terms[i][0] for i in those), Fraction(0)),
            tuple(those),
            terms[those[0]][1].blocks or (),
            nodes[text],
        )
        for text, those in members.items()
    ]


@dataclass(frozen=True)
class _Visit:
    """A text that is taken away, and where it stands in those that are there.

    Attributes:
        term: which of the groups it is.
        possible: the groups in which it, or a word like it, stands.
        host: that of them on which it is laid; -1 if there is none.
        spans: where, in each block.
    """

    term: int
    possible: tuple[int, ...]
    host: int
    spans: Spans


def _visits(groups: Sequence[_Group], encoder: Encoder) -> list[_Visit]:
    there = [k for k, group in enumerate(groups) if group.weight > 0]
    visits = []
    for i, group in enumerate(groups):
        if group.weight >= 0:
            continue
        found = {k: _spans(group.blocks, groups[k].blocks, encoder) for k in there}
        possible = tuple(k for k in there if found[k][0] is not None)
        if possible:
            # Where the word itself stands, before where one like it does.
            host = max(
                possible,
                key=lambda k: (
                    _has(groups[k].blocks, group.blocks),
                    len(groups[k].blocks[0].content),
                ),
            )
            visits.append(_Visit(i, possible, host, found[host]))
        else:
            visits.append(_Visit(i, (), -1, []))
    return visits


def _has(host: Sequence[Block], taken: Sequence[Block]) -> bool:
    return find(taken[0].content, host[0].content) >= 0


def _spans(taken: Sequence[Block], host: Sequence[Block], encoder: Encoder) -> Spans:
    """Where in a longer text a text stands, or else what clearly means nearly the same."""
    spans: Spans = []
    for number, (gone, under) in enumerate(zip(taken, host, strict=True)):
        at, size = find(gone.content, under.content), len(gone.content)
        # A text that shares a word with the other, if only "a", is not one word of it.
        if at < 0 and size < len(under.content) and not set(gone.content) & set(under.content):
            at, size = encoder.nearest_token(number, gone.content, under.content), 1
        spans.append((under.first + at, under.first + at + size) if at >= 0 else None)
    return spans


def _laid(term: Sequence[Block], spans: Spans, host: Sequence[Block]) -> list[int]:
    found: list[int] = []
    for mine, span, under in zip(term, spans, host, strict=True):
        if span is None or not mine.content:
            found.extend(range(mine.start, mine.start + mine.length))
            continue
        found.extend(mine.start + place_ for place_ in place(mine, under, span))
    return found


def reconcile(embeddings: Sequence[Embedding], what: str) -> list[Embedding]:
    """Embeddings in one space: texts whose space nobody chose follow the pictures they meet.

    Raises:
        SpaceError: they live in different spaces; the error says which, why, and what would work.
    """
    embeddings = list(embeddings)
    for embedding in embeddings:
        if not isinstance(embedding, Embedding):
            raise _not_embedded(embedding, f"{what} needs embeddings")
    joints = [e for e in embeddings if e.space.kind == JOINT]
    if joints:
        joint = next((e for e in joints if e.encoder.reads_texts), joints[0])
        for i, other in enumerate(embeddings):
            same = other.encoder.pipe is joint.encoder.pipe
            if other.space.kind != JOINT and not other.chosen and same:
                embeddings[i] = evaluate(other.expression, joint.encoder.leaf)
    first = embeddings[0]
    for other in embeddings[1:]:
        if other.encoder is first.encoder or first.space.same(other.space):
            continue
        raise SpaceError(
            f"{what} needs operands of one space. {first.expression} is in {first.space}; "
            f"{other.expression} is in {other.space}. {first.space.why_not(other.space)} "
            f"{_cure(first, other)}"
        )
    return embeddings


def _check_shapes(named: Sequence[tuple[Node, Mapping[str, torch.Tensor]]]) -> None:
    """Refuses prompts of different lengths: some pipelines give each a vector a token, and no more."""
    first, parts = named[0]
    shapes = {name: tuple(part.shape) for name, part in parts.items()}
    for other, its in named[1:]:
        if {name: tuple(part.shape) for name, part in its.items()} != shapes:
            raise SpaceError(
                f"{first} and {other} are sequences of {_lengths(parts)} and {_lengths(its)} vectors: "
                "this pipeline's prompts are as long as their texts, so there is no arithmetic with "
                "them position by position; take texts of as many tokens"
            )


def _lengths(parts: Mapping[str, torch.Tensor]) -> int:
    return int(parts["prompt_embeds"].shape[1]) if "prompt_embeds" in parts else 1


def _encoder(embeddings: Sequence[Embedding]) -> Encoder:
    """The encoder of a result: one that texts have a place in, if there is one."""
    reads = (e.encoder for e in embeddings if e.encoder.reads_texts)
    return next(reads, embeddings[0].encoder)


def _chosen(embeddings: Sequence[Embedding]) -> bool:
    return any(embedding.chosen for embedding in embeddings)


def _cure(first: Embedding, other: Embedding) -> str:
    if first.space.kind != other.space.kind:
        return (
            "Embed both as joint vectors, texts too: lv.text(pipe, …, space='joint') with a pipeline "
            "that has an image encoder and a text encoder of the same CLIP."
        )
    return "Embed both with the same pipeline."


def combine(weighted: Sequence[tuple[Fraction, Embedding]], what: str) -> Embedding:
    """A weighted sum.

    Raises:
        SpaceError: they live in different spaces.
        ValueError: a weight of the result is too large or too fine.
    """
    weights = [weight for weight, _ in weighted]
    operands = reconcile([embedding for _, embedding in weighted], what)
    weighted = list(zip(weights, operands, strict=True))
    pairs: list[tuple[Fraction, Node]] = []
    for weight, operand in weighted:
        # Sums of sums are written as one.
        inner = getattr(operand.expression, "terms", None)
        if inner is None or (weight != 1 and len(inner) > 1 and len(weighted) == 1):
            inner = ((Fraction(1), operand.expression),)
        pairs.extend((check_weight(weight * share), node) for share, node in inner)
    terms = [(weight * w, atom) for weight, e in weighted for w, atom in e._terms]
    return Embedding(_encoder(operands), weighted_sum(pairs), terms, chosen=_chosen(operands))


def mix(embeddings: Sequence[Embedding], weights: Sequence[float] | None = None) -> Embedding:
    """The weighted mean of embeddings.

    Args:
        embeddings: one or more, of one space.
        weights: as many numbers, whose sum is not zero; equal ones by default.

    Raises:
        ValueError: there are none, the numbers differ, or the weights' sum is zero.
        SpaceError: the embeddings live in different spaces.
    """
    embeddings = _several(embeddings, "mix")
    if not embeddings:
        raise ValueError("mix needs at least one embedding, but was given none")
    shares = [Fraction(1)] * len(embeddings) if weights is None else [as_weight(w) for w in weights]
    if len(shares) != len(embeddings):
        raise ValueError(f"mix was given {len(embeddings)} embeddings and {len(shares)} weights")
    pairs = list(zip(shares, embeddings, strict=True))
    nodes = [weighted_sum([(share, e.expression)]) for share, e in pairs]
    mixed = _mixed(embeddings, shares, Call("mix", tuple(nodes)))
    if any(len(getattr(e.expression, "terms", ())) == 1 for e in embeddings):
        # Within mix(…) the factor of 2 * "a" would be read as its weight: the mean is written out.
        total = sum(shares, Fraction(0))
        return combine([(share / total, e) for share, e in pairs], "mix")
    return mixed


def _mixed(embeddings: list[Embedding], shares: list[Fraction], node: Node) -> Embedding:
    embeddings = reconcile(embeddings, "mix")
    total = sum(shares, Fraction(0))
    if not total:
        raise ValueError(
            f"the weights of {node} add up to zero, so they have no mean; use a sum instead"
        )
    pairs = zip(shares, embeddings, strict=True)
    terms = [(share * w / total, atom) for share, e in pairs for w, atom in e._terms]
    return Embedding(_encoder(embeddings), node, terms, chosen=_chosen(embeddings))


def direction(start: Sequence[Embedding], stop: Sequence[Embedding]) -> Embedding:
    """What leads from one set of examples to another: the difference of their means.

    Averaging over examples leaves what the sets differ in, and blurs what single texts or pictures
    say besides (Bolukbasi et al. 2016; Radford et al. 2016 for pictures).

    Args:
        start: embeddings of examples without it.
        stop: embeddings of examples with it.

    Example:
        >>> night = lv.direction([day_1, day_2], [night_1, night_2])
        >>> lv.condition(pipe, lv.image(pipe, picture) + 0.8 * night)
    """
    return mix(_several(stop, "direction")) - mix(_several(start, "direction"))


def lerp(a: Embedding, b: Embedding, amount: float) -> Embedding:
    """The point on the straight line from ``a`` (amount 0) to ``b`` (amount 1).

    Raises:
        ValueError: the amount is not within 0 and 1.
        SpaceError: they live in different spaces.
    """
    share = _amount(amount, "lerp")
    a, b = reconcile([a, b], "lerp")
    terms = [((1 - share) * w, x) for w, x in a._terms] + [(share * w, x) for w, x in b._terms]
    node = Call("lerp", (a.expression, b.expression), share)
    return Embedding(_encoder([a, b]), node, terms, chosen=_chosen([a, b]))


def slerp(a: Embedding, b: Embedding, amount: float) -> Embedding:
    """The point on the arc from ``a`` to ``b`` (Shoemake 1985); of prompts, token by token.

    Where two vectors are nearly parallel or opposite there is no one arc, and `lerp` is meant.

    Raises:
        ValueError: the amount is not within 0 and 1.
        SpaceError: they live in different spaces.
    """
    import torch

    share = _amount(amount, "slerp")
    a, b = reconcile([a, b], "slerp")
    node = Call("slerp", (a.expression, b.expression), share)
    ends = {0: a, 1: b}
    if share in ends or _key(a) == _key(b):
        end = a if _key(a) == _key(b) else ends[int(share)]
        return Embedding(a.encoder, node, end._terms, chosen=_chosen([a, b]))
    t = float(share)

    def along(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        cosine = torch.nn.functional.cosine_similarity(x, y, dim=-1, eps=1e-30).unsqueeze(-1)
        angle = cosine.clamp(-1, 1).arccos()
        sine = angle.sin()
        straight = (1 - t) * x + t * y
        arc = ((1 - t) * angle).sin() / sine * x + (t * angle).sin() / sine * y
        return torch.where(cosine.abs() > PARALLEL, straight, arc)

    return _calculated(node, along, a, b)


def weigh(a: Embedding, words: Mapping[str, float | Fraction]) -> Embedding:
    """A text some words of which count for more or less than they do by themselves.

    What a word brings to a text is the difference between the text and the text without it, at every
    position: in most encoders what stands behind a word knows of it, so that the word's own vector
    alone says little. That difference is multiplied: by 0 the word is gone, by 1 nothing changes, by
    2 it counts twice, and below 0 the text leads away from it.

    Args:
        a: the embedding of a text.
        words: words of it, or several in a row, and how much each counts. They are found in any case,
            wherever they stand.

    Raises:
        ValueError: `a` is more than a text, or a word is not in it.

    Example:
        >>> lv.weigh(lv.text(pipe, "a red star at night"), {"red": 1.5, "night": 0.5})
    """
    node = a.expression
    text = node.text if isinstance(node, Weighed) else node
    if not isinstance(text, Text):
        raise ValueError(f"weigh takes the embedding of one text, not of {node}; weigh its texts")
    if not isinstance(words, Mapping) or not all(isinstance(word, str) for word in words):
        raise TypeError(f"words must be weights by words, such as {{'red': 1.5}}, not {words!r}")
    weights = dict(node.weights) if isinstance(node, Weighed) else {}
    for word, given in words.items():
        before = next((known for known in weights if known.casefold() == word.casefold()), word)
        factor = as_weight(given, f"the weight of {word!r}")
        weights[before] = check_weight(weights.get(before, Fraction(1)) * factor)
    bare = a.encoder.text(text.text, chosen=a.chosen)
    terms = list(bare._terms)
    for word, weight in weights.items():
        without = a.encoder.without(text.text, word)
        terms += [(weight - 1, atom) for _, atom in bare._terms]
        terms += [(1 - weight, atom) for _, atom in without._terms]
    weighed = Weighed(text, tuple(weights.items())) if weights else text
    return Embedding(a.encoder, weighed, terms, chosen=a.chosen)


def normalize(a: Embedding) -> Embedding:
    """The same direction with the norm 1; of prompts, token by token.

    Raises:
        EmbeddingError: it is zero.
    """
    a.check()
    node = Call("normalize", (a.expression,))
    return _calculated(node, lambda x: x / _norm(x), a)


def keep_norm(a: Embedding, like: Embedding) -> Embedding:
    """The direction of ``a`` with the norm of ``like``; of prompts, token by token.

    Pictures and texts lie in separate cones of a joint space, so sums of them are longer or shorter
    than what the model has seen. This brings one back.

    Raises:
        EmbeddingError: ``a`` is zero.
        SpaceError: they live in different spaces.
    """
    a, like = reconcile([a, like], "keep_norm")
    a.check()
    node = Call("keep_norm", (a.expression, like.expression))
    if _key(a) == _key(like):
        return Embedding(a.encoder, node, a._terms, chosen=_chosen([a, like]))
    return _calculated(node, lambda x, y: x * (y.norm(dim=-1, keepdim=True) / _norm(x)), a, like)


def project_out(a: Embedding, b: Embedding) -> Embedding:
    """``a`` without its share along ``b``: at a right angle to it; of prompts, token by token.

    Raises:
        EmbeddingError: ``b`` is zero.
        SpaceError: they live in different spaces.
    """
    a, b = reconcile([a, b], "project_out")
    b.check()

    def without(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        unit = y / _norm(y)
        return x - (x * unit).sum(-1, keepdim=True) * unit

    return _calculated(Call("project_out", (a.expression, b.expression)), without, a, b)


def _norm(x: torch.Tensor) -> torch.Tensor:
    return x.norm(dim=-1, keepdim=True).clamp(min=1e-30)


def _amount(amount: Any, what: str) -> Fraction:
    share = as_weight(amount, f"the amount of {what}")
    if not 0 <= share <= 1:
        raise ValueError(
            f"the amount of {what} goes from 0 (the first) to 1 (the second), but this one is "
            f"{format_weight(share)}; to go beyond an end write a + 1.2 * (b - a)"
        )
    return share


def _key(embedding: Embedding) -> tuple[Any, ...]:
    """Equal for embeddings that are certainly the same."""
    return tuple(sorted(((w, atom.key) for w, atom in embedding._terms), key=repr))


def _calculated(
    node: Call, function: Callable[..., torch.Tensor], *operands: Embedding
) -> Embedding:
    """The result of a function of vectors as a new atom."""
    first = operands[0]
    parts = {}
    _check_shapes([(operand.expression, operand.parts) for operand in operands])
    for name, part in first.parts.items():
        given = [operand.parts[name] for operand in operands]
        if part.is_floating_point():
            parts[name] = function(*(x.cpu().double() for x in given)).to(part)
        else:
            parts[name] = (
                given[0] if len(given) == 1 else given[0].maximum(given[1].to(part.device))
            )
    key = (node.function, node.amount, *map(_key, operands))
    atom = Atom(key, node, parts)
    return Embedding(_encoder(operands), node, [(Fraction(1), atom)], chosen=_chosen(operands))


def evaluate(node: Node, leaf: Callable[[Node], Embedding]) -> Embedding:
    """An embedding from a tree.

    Args:
        node: the tree.
        leaf: embeds a `Text` or a `Picture`.
    """
    if isinstance(node, Call):
        operands = [evaluate(operand, leaf) for operand in node.operands]
        if node.function == "mix":
            pairs = [getattr(operand, "terms", ()) for operand in node.operands]
            return _mix_written(node, pairs, operands, leaf)
        functions: dict[str, Callable[..., Embedding]] = {
            "lerp": lerp,
            "slerp": slerp,
            "normalize": normalize,
            "keep_norm": keep_norm,
            "project_out": project_out,
        }
        amount = () if node.amount is None else (node.amount,)
        return functions[node.function](*operands, *amount)
    if isinstance(node, Weighed):
        return weigh(leaf(node.text), dict(node.weights))
    terms = getattr(node, "terms", None)
    if terms is None:
        return leaf(node)
    operands = reconcile([evaluate(inner, leaf) for _, inner in terms], "a sum")
    weights = [weight for weight, _ in terms]
    flat = [(w * v, atom) for w, e in zip(weights, operands, strict=True) for v, atom in e._terms]
    return Embedding(_encoder(operands), node, flat, chosen=_chosen(operands))


def _mix_written(
    node: Call, pairs: list[Any], operands: list[Embedding], leaf: Callable[[Node], Embedding]
) -> Embedding:
    """``mix("a", 2 * "b")``: a factor before an operand is its weight."""
    shares, embeddings = [], []
    for terms, operand in zip(pairs, operands, strict=True):
        weighted = len(terms) == 1
        shares.append(terms[0][0] if weighted else Fraction(1))
        embeddings.append(evaluate(terms[0][1], leaf) if weighted else operand)
    return _mixed(embeddings, shares, node)
