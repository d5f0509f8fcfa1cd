"""The conditioning lab: arithmetic with texts and pictures, drawn as it is changed."""

from __future__ import annotations

import base64
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import ipywidgets
import numpy as np

from ldm_viz.capture.recorder import Recorder, call_recorded, checked_call
from ldm_viz.capture.run import LiveStep
from ldm_viz.conditioning.embeddings import Embedding, EmbeddingError
from ldm_viz.conditioning.encoders import Encoder, check_pipe, embed
from ldm_viz.conditioning.expressions import Node, Picture, Sum, Text, format_weight
from ldm_viz.conditioning.grammar import ExpressionError, parse
from ldm_viz.conditioning.joint import JointSpace
from ldm_viz.conditioning.meaning import Landmarks, measure_operands
from ldm_viz.conditioning.pictures import as_picture
from ldm_viz.conditioning.routes import condition, default_guidance, takes
from ldm_viz.conditioning.spaces import JOINT, SpaceError
from ldm_viz.imaging import decode_image, encode_image, fit_image
from ldm_viz.labs.conditioning_view import ConditioningView
from ldm_viz.labs.drawer import Drawer
from ldm_viz.labs.glimpse import Glimpse
from ldm_viz.tiny.loading import GUIDANCE, STEPS, WEIGHTS
from ldm_viz.tiny.scenes import ATTRIBUTES
from ldm_viz.trajectory import Trajectory
from ldm_viz.widgets.explorer import Explorer, explore

__all__ = ["ConditioningLab", "Result"]

_PREVIEW_AFTER = 0.1  # seconds between coarse pictures
_KEPT = 24  # results whose runs are kept
_THUMB = 96  # pixels
_DEFAULT_WORDS = (
    "red", "orange", "yellow", "green", "blue", "purple", "pink", "white", "black", "circle", "square",
    "star", "heart", "moon", "house", "tree", "boat", "flower", "fish", "mushroom", "cat", "dog", "face",
    "day", "sunset", "night", "grass", "sand", "snow", "water", "rock", "small", "large", "left", "right",
    "photograph", "painting", "drawing",
)  # fmt: skip
_OWN_WORDS = tuple(word for values in ATTRIBUTES.values() for word in values)


@dataclass(frozen=True)
class Wish:
    """What a picture is asked for with."""

    expression: str
    seed: int
    steps: int
    guidance_scale: float
    negative: str


@dataclass(frozen=True)
class Result:
    """A picture of the lab.

    Attributes:
        expression: what it is the picture of.
        seed, steps, guidance_scale, negative: what else it was drawn with.
        picture: ``(height, width, 3)`` uint8.
        embedding: its condition.
        seconds: from the request to the picture.
        preview_seconds: from the request to its first coarse picture; NaN where there was none.
    """

    expression: str
    seed: int
    steps: int
    guidance_scale: float
    negative: str
    picture: np.ndarray = field(repr=False)
    embedding: Embedding = field(repr=False)
    seconds: float
    preview_seconds: float
    _recorder: Recorder = field(repr=False)

    @property
    def trajectory(self) -> Trajectory:
        """The recorded run, with exact pictures of its steps."""
        return self._recorder.decode(frames="exact")


class ConditioningLab(ipywidgets.VBox):
    """Arithmetic with texts and pictures, drawn as it is changed.

    In a notebook it shows the expression and its terms with their weights, the picture of the result, and
    what the result is near to. A change draws anew, with the same seed; what was being drawn is
    given up. Coarse pictures come while it draws. Each result can be opened in the explorer.

    Args:
        pipe: A diffusers pipeline that takes embeddings: with an image adapter, pictures too.
        expression: What to begin with, such as ``'image("cat") - "day" + "night"'``.
        images: Pictures by the names that expressions have for them.
        seed: Of the noise.
        steps: Denoising steps.
        guidance_scale: As the pipeline takes it; its own default, and the embedded model's 2.5.
        negative: A text that guidance leads away from.
        words: Words to say what is near; some forty by default, for the embedded model those it knows.
        joint: The joint space's towers, where the pipeline does not have both.
        **call: Anything else that the pipeline takes at each call, such as ``height``.

    Attributes:
        history: All results so far, the oldest first.

    Raises:
        TypeError: ``pipe`` is no diffusers pipeline, or does not take an argument.
        SpaceError: It takes no embeddings.

    Example:
        >>> pipe = lv.load_tiny(adapter=True)
        >>> lab = lv.ConditioningLab(pipe, 'image("boat") - "day" + "night"', {"boat": picture})
        >>> lab
        >>> lab.wait().picture
    """

    def __init__(
        self,
        pipe: Any,
        expression: str = "",
        images: Mapping[str, Any] | None = None,
        *,
        seed: int = 0,
        steps: int = STEPS,
        guidance_scale: float | None = None,
        negative: str = "",
        words: Sequence[str] | None = None,
        joint: JointSpace | None = None,
        **call: Any,
    ) -> None:
        check_pipe(pipe)
        if not takes(pipe):
            raise SpaceError(
                f"{type(pipe).__name__} takes no embeddings, so there is no lab for it; load one that has "
                "prompt_embeds or an image adapter, such as lv.load_tiny(adapter=True)"
            )
        embedded = str(getattr(pipe, "name_or_path", "")) == str(WEIGHTS)
        if guidance_scale is None:
            guidance_scale = GUIDANCE if embedded else default_guidance(pipe)
        if words is None:
            words = _OWN_WORDS if embedded else _DEFAULT_WORDS
        checked_call(pipe, None, None, call)
        self._pipe, self._joint, self._call = pipe, joint, dict(call)
        self._words = tuple(words)
        self._images: dict[str, Any] = {}
        self._landmarks: dict[int, Landmarks] = {}
        self.history: list[Result] = []
        self._at = -1
        self._explorer: Explorer | None = None
        self._glimpse = Glimpse(pipe, self._call)
        self._glimpse_ready = False
        self._drawer = Drawer(self._draw, self._failed)
        self._view = ConditioningView(
            expression=expression,
            seed=seed,
            steps=steps,
            guidance_scale=float(guidance_scale),
            negative=negative,
            _about={"pictures": JOINT in takes(pipe)},
        )
        super().__init__([self._view])
        for name, picture in dict(images or {}).items():
            self.add_picture(name, picture)
        self._view.observe(lambda change: self._ask(), list(ConditioningView.WISH))
        self._view.on_msg(self._hear)
        if expression:
            self._ask()

    # What a user asks for

    @property
    def expression(self) -> str:
        """What is drawn; set it to draw something else."""
        return self._view.expression

    @expression.setter
    def expression(self, expression: str) -> None:
        self._view.expression = expression

    @property
    def result(self) -> Result | None:
        """The result that is shown; the last good one while another is being drawn."""
        return self.history[self._at] if self.history else None

    @property
    def problem(self) -> str:
        """Why what is asked for cannot be drawn; empty if it can."""
        return str(self._view._problem.get("reason", ""))

    def wait(self, timeout: float | None = None) -> Result | None:
        """Waits until what was asked for is drawn.

        Args:
            timeout: Seconds to wait at most.

        Returns:
            The result that is shown then.

        Raises:
            TimeoutError: It was not drawn by then. It goes on.
        """
        if not self._drawer.wait(timeout):
            raise TimeoutError(f"Nothing was drawn within {timeout:g} s; it goes on.")
        return self.result

    def add_picture(self, name: str, picture: Any) -> None:
        """Gives a picture a name that expressions can use.

        Args:
            name: The name; one that is taken gets the new picture.
            picture: As for :func:`image`.

        Raises:
            ValueError: The picture cannot be read, or the name is empty.
        """
        if not isinstance(name, str) or not name.strip():
            raise ValueError(f"a picture's name is a text that is not empty, not {name!r}")
        ready = as_picture(picture)
        self._images = {**self._images, name: ready}
        thumb = ready.copy()
        thumb.thumbnail((_THUMB, _THUMB))
        file = encode_image(np.asarray(thumb), "png")
        others = [shown for shown in self._view._images if shown["name"] != name]
        self._view._images = [*others, {"name": name, "file": file}]
        try:
            used = any(isinstance(n, Picture) and n.name == name for n in _leaves(self.expression))
        except ExpressionError:
            used = False
        if used:
            self._ask()

    def undo(self) -> None:
        """Goes back to the result before."""
        self._go(self._at - 1)

    def redo(self) -> None:
        """Goes on to the result after."""
        self._go(self._at + 1)

    def python(self) -> str:
        """The same as a few lines of Python."""
        v = self._view
        names = [leaf.name for leaf in _leaves(v.expression) if isinstance(leaf, Picture)]
        images = ", ".join(f"{name!r}: picture_{i}" for i, name in enumerate(dict.fromkeys(names)))
        given = f", {{{images}}}" if images else ""
        negative = f", negative={v.negative!r}" if v.negative else ""
        lines = [
            "import ldm_viz as lv",
            "",
            f"vector = lv.embed(pipe, {v.expression!r}{given})",
            f"call = lv.condition(pipe, vector{negative}, guidance_scale={v.guidance_scale:g})",
            f"run = lv.record(pipe, seed={v.seed}, num_inference_steps={v.steps}, **call)",
            "lv.explore(run)",
        ]
        return "\n".join(lines)

    def explore(self, at: int | None = None) -> Explorer:
        """Opens a result in the explorer, below the lab.

        Args:
            at: Which of :attr:`history`; the one that is shown by default.

        Raises:
            IndexError: There is no such result.
        """
        if not self.history:
            raise IndexError("there is no result yet")
        result = self.history[self._at if at is None else at]
        self._explorer = explore(result.trajectory)
        self.children = [self._view, self._explorer]
        return self._explorer

    def close(self) -> None:
        """Ends the lab: nothing more is drawn."""
        if drawer := vars(self).get("_drawer"):  # none where the arguments were refused
            drawer.close()
        super().close()

    def __repr__(self) -> str:
        name = type(self._pipe).__name__
        count = len(self.history)
        results = "1 result" if count == 1 else f"{count} results"
        return f"ConditioningLab({name}, {self.expression!r}, {results})"

    def _repr_mimebundle_(self, **kwargs: Any) -> Any:
        bundle = super()._repr_mimebundle_(**kwargs)
        data, *metadata = bundle if isinstance(bundle, tuple) else (bundle,)
        data = {**data, "text/plain": repr(self)}
        if self.result is not None:
            file = encode_image(fit_image(self.result.picture, 256), "png")
            data["image/png"] = base64.b64encode(file).decode()
        return (data, *metadata) if metadata else data

    # What the browser asks for

    def _hear(self, _: Any, content: Any, buffers: list[Any]) -> None:
        """A message of the view; whatever is wrong with it is told there."""
        try:
            do = content.get("do") if isinstance(content, dict) else None
            if do == "picture" and buffers:
                self._take_picture(str(content.get("name", ""))[:80], bytes(buffers[0]))
            elif do == "undo":
                self.undo()
            elif do == "redo":
                self.redo()
            elif do == "go":
                self._go(int(content.get("at", -1)))
            elif do == "open":
                self.explore()
            elif do == "python":
                self._view._python = self.python()
        except Exception as error:  # noqa: BLE001  # there is no cell that could show it
            self._view._problem = {"reason": str(error), "position": -1}

    def _take_picture(self, name: str, data: bytes) -> None:
        self.add_picture(name or f"picture {len(self._images) + 1}", decode_image(data))

    def _go(self, at: int) -> None:
        """Shows a result of the history, with what it was drawn with, and draws nothing."""
        if not 0 <= at < len(self.history):
            return
        self._drawer.drop()
        self._at = at
        result = self.history[at]
        self._silent = True
        try:
            with self._view.hold_sync():
                for name in ConditioningView.WISH:
                    setattr(self._view, name, getattr(result, name))
        finally:
            self._silent = False
        self._view._problem = {}
        self._tell_terms(result.expression)
        self._tell_result(result)
        self._tell_facts(result.embedding)

    _silent = False

    def _ask(self) -> None:
        """Has what the view says drawn."""
        if self._silent:
            return
        v = self._view
        wish = Wish(v.expression, v.seed, v.steps, v.guidance_scale, v.negative)
        asked = time.perf_counter()
        if not self._tell_terms(wish.expression):
            return
        self._view._problem = {}
        self._drawer.ask((wish, self._images, asked))

    def _tell_terms(self, expression: str) -> bool:
        """Shows the terms of an expression; whether it is one."""
        try:
            node = parse(expression)
        except ExpressionError as error:
            self._view._problem = {"reason": error.reason, "position": error.position}
            return False
        self._view._terms = {"of": expression, "terms": _flat(node)}
        return True

    # Drawing, in the drawer's thread

    def _draw(self, request: Any, stale: Callable[[], bool]) -> None:
        wish, images, asked = request
        embedding = embed(self._pipe, wish.expression, images, joint=self._joint)
        arguments = condition(
            self._pipe, embedding, wish.negative or None, guidance_scale=wish.guidance_scale
        )
        call = checked_call(
            self._pipe,
            None,
            wish.seed,
            {**self._call, **arguments, "num_inference_steps": wish.steps},
        )
        self._view._news = {"phase": "drawing", "done": 0, "steps": wish.steps}
        if not self._glimpse_ready:
            self._glimpse_ready = True
            self._glimpse.prepare()
        last, first = asked, math.nan

        def look(live: LiveStep) -> None:
            nonlocal last, first
            if stale():
                recorder.stop()
                return
            now = time.perf_counter()
            if now - last < _PREVIEW_AFTER:
                return
            last = now
            news: dict[str, Any] = {"phase": "drawing", "done": live.step + 1, "steps": live.steps}
            picture = self._glimpse.picture(live)
            if picture is not None:
                height, width = picture.shape[:2]
                news["preview"] = {"width": width, "height": height, "rgb": picture.tobytes()}
                first = time.perf_counter() - asked if math.isnan(first) else first
            self._view._news = news

        recorder = Recorder(self._pipe, frames=None, progress=False, on_step=look)
        with recorder:
            trajectory = call_recorded(recorder, call)
        if trajectory.status != "complete":
            self._view._news = {"phase": "idle"}
            return
        picture = np.asarray(trajectory.images)[0]
        seconds = time.perf_counter() - asked
        result = Result(
            **{name: getattr(wish, name) for name in ConditioningView.WISH},
            picture=picture,
            embedding=embedding,
            seconds=seconds,
            preview_seconds=first,
            _recorder=recorder,
        )
        self.history = [*self.history, result][-_KEPT:]
        self._at = len(self.history) - 1
        self._tell_result(result)
        if not stale():
            self._tell_facts(embedding, stale)

    def _failed(self, request: Any, error: BaseException) -> None:
        self._view._news = {"phase": "idle"}
        position = error.position if isinstance(error, ExpressionError) else -1
        reason = error.reason if isinstance(error, ExpressionError) else str(error)
        if not isinstance(error, (ValueError, TypeError, EmbeddingError)):
            reason = f"{type(error).__name__}: {error}"
        self._view._problem = {"reason": reason, "position": position}

    def _tell_result(self, result: Result) -> None:
        thumbs = [
            {"expression": r.expression, "seed": r.seed, "file": _thumb(r.picture)}
            for r in self.history
        ]
        with self._view.hold_sync():
            self._view._history = thumbs
            self._view._at = self._at
            self._view._result = {
                "file": encode_image(result.picture, "png"),
                "width": result.picture.shape[1],
                "height": result.picture.shape[0],
                "expression": result.expression,
                "seconds": round(result.seconds, 2),
            }
            self._view._news = {"phase": "idle"}

    def _tell_facts(self, embedding: Embedding, stale: Callable[[], bool] = lambda: False) -> None:
        encoder = embedding.encoder

        def leaf(node: Node) -> Embedding:
            if isinstance(node, Picture):
                return encoder.picture(self._images[node.name], node.name)
            return encoder.text(node.text) if isinstance(node, Text) else embedding

        operands = measure_operands(embedding, leaf)
        landmarks = self._known_landmarks(encoder, stale)
        if landmarks is None:
            return
        terms = [leaf(node) for _, node in embedding.terms]
        path = [terms[0] * embedding.terms[0][0]]
        for (weight, _), term in zip(embedding.terms[1:], terms[1:], strict=True):
            path.append(path[-1] + weight * term)
        plane = landmarks.plane([*terms, *path[1:], embedding])
        names = [str(node) for _, node in embedding.terms]
        along = [plane.embeddings[0], *plane.embeddings[len(terms) :]]
        self._view._facts = {
            "space": str(embedding.space),
            "norm": embedding.norm,
            "operands": [[o.expression, o.weight, o.norm, _finite(o.cosine)] for o in operands],
            "words": landmarks.nearest(embedding, 6),
            "pictures": self._near_pictures(embedding),
            "places": plane.landmarks,
            "path": along,
            "operand_places": [
                (n, *p) for n, p in zip(names, plane.embeddings[: len(terms)], strict=True)
            ],
            "tokens": [
                [[t.text, t.kept, t.special] for t in encoder.tokens(node.text)]
                for _, node in embedding.terms
                if isinstance(node, Text)
            ],
        }

    def _known_landmarks(self, encoder: Encoder, stale: Callable[[], bool]) -> Landmarks | None:
        """The words of a space, embedded once; None if something newer is wanted."""
        key = id(encoder)
        if key not in self._landmarks:
            embeddings = []
            for word in self._words:
                if stale():
                    return None
                embeddings.append(encoder.text(word))
            self._landmarks[key] = Landmarks(self._words, embeddings)
        return self._landmarks[key]

    def _near_pictures(self, embedding: Embedding) -> list[tuple[str, float]]:
        if embedding.space.kind != JOINT:
            return []
        encoder = embedding.encoder
        found = [
            (name, embedding.cosine(encoder.picture(picture, name)))
            for name, picture in self._images.items()
        ]
        return sorted(((n, _finite(c)) for n, c in found), key=lambda pair: -pair[1])[:6]


def _leaves(expression: str) -> list[Node]:
    return list(parse(expression).leaves()) if expression.strip() else []


def _flat(node: Node) -> list[dict[str, str]]:
    """The terms of a plain sum of texts and pictures; empty where it is more than that."""
    terms = node.terms if isinstance(node, Sum) else ((Fraction(1), node),)
    found = []
    for weight, inner in terms:
        if not isinstance(inner, (Text, Picture)):
            return []
        kind, text = ("text", inner.text) if isinstance(inner, Text) else ("image", inner.name)
        found.append({"kind": kind, "text": text, "weight": format_weight(weight)})
    return found


def _thumb(picture: np.ndarray) -> bytes:
    return encode_image(fit_image(picture, _THUMB), "webp", 85)


def _finite(number: float) -> float:
    """A number as JSON can carry it."""
    return number if math.isfinite(number) else 0.0
