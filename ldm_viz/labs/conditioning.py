"""The conditioning lab: arithmetic with texts and pictures, drawn as it is changed."""

from __future__ import annotations

import base64
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from types import MappingProxyType
from typing import Any

import ipywidgets
import numpy as np

from ldm_viz.capture.arguments import checked_seed
from ldm_viz.capture.recorder import Recorder, call_recorded, checked_call
from ldm_viz.capture.run import LiveStep
from ldm_viz.conditioning.embeddings import Embedding, EmbeddingError
from ldm_viz.conditioning.encoders import check_pipe, embed
from ldm_viz.conditioning.expressions import Node, Picture, Sum, Text, Weighed, format_weight
from ldm_viz.conditioning.grammar import ExpressionError, parse
from ldm_viz.conditioning.joint import JointSpace
from ldm_viz.conditioning.pictures import as_picture
from ldm_viz.conditioning.routes import condition, takes
from ldm_viz.conditioning.spaces import JOINT, SpaceError
from ldm_viz.imaging import decode_image, encode_image, fit_image
from ldm_viz.labs.conditioning_view import ConditioningView
from ldm_viz.labs.drawer import Drawer
from ldm_viz.labs.forks import fork
from ldm_viz.labs.glimpse import Glimpse
from ldm_viz.labs.guidance import is_embedded, usual_guidance
from ldm_viz.labs.pools import release_after_cells, release_pool
from ldm_viz.labs.surroundings import Surroundings, thumb
from ldm_viz.tiny.examples import draw_examples
from ldm_viz.tiny.loading import STEPS
from ldm_viz.tiny.scenes import ATTRIBUTES
from ldm_viz.trajectory import Trajectory
from ldm_viz.widgets.explorer import Explorer, explore

__all__ = ["ConditioningLab", "Result"]

_PREVIEW_AFTER = 0.1  # seconds until the first coarse picture
_PREVIEW_EVERY = 0.25  # seconds between them: the browser that shows them shares the cores
_KEPT = 24  # results whose runs are kept
_PLAIN = (bool, int, float, str, type(None))
_OURS = {
    "num_inference_steps": "steps=",
    "generator": "seed=",
    "prompt": "the expression",
    "negative_prompt": "negative=",
}
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
        number: which it is, from 1.
        expression: what it is the picture of.
        seed, steps, guidance_scale, negative: what else it was drawn with.
        picture: ``(height, width, 3)`` uint8.
        embedding: its condition.
        seconds: from the request to the picture.
        preview_seconds: from the request to its first coarse picture; NaN where there was none.
    """

    number: int
    expression: str
    seed: int
    steps: int
    guidance_scale: float
    negative: str
    picture: np.ndarray = field(repr=False)
    embedding: Embedding = field(repr=False)
    seconds: float
    preview_seconds: float
    _thumb: bytes = field(repr=False)
    _images: Mapping[str, Any] = field(repr=False)
    _recorder: Recorder = field(repr=False)

    @property
    def trajectory(self) -> Trajectory:
        """The recorded run, with exact pictures of its steps; the expression is its prompt."""
        run = self._recorder.decode(frames="exact")
        more = {"prompt": self.expression, "negative_prompt": self.negative or None}
        return run.replace(settings={**run.settings, **more})

    def _repr_png_(self) -> bytes:
        return encode_image(self.picture, "png")


class ConditioningLab(ipywidgets.VBox):
    """Arithmetic with texts and pictures, drawn as it is changed.

    In a notebook it shows the expression and its terms with their weights, the picture of the result, and
    what the result is near to. A change draws anew, with the same seed; what was being drawn is
    given up. Coarse pictures come while it draws. Each result can be opened in the explorer.

    It draws beside the pipeline, with schedulers of its own, so that the pipeline can be used meanwhile.

    Args:
        pipe: A diffusers pipeline that takes embeddings: with an image adapter, pictures too.
        expression: What to begin with, such as ``'image("cat") - "day" + "night"'``.
        images: Pictures by the names that expressions have for them.
        seed: Of the noise.
        steps: Denoising steps.
        guidance_scale: As the pipeline takes it; its own default, and the embedded model's 2.5.
        negative: A text that guidance leads away from.
        words: Words to say what is near; some forty by default, for the embedded model those it knows.
        examples: Pictures to say what is near, by their names; none by default, for the embedded model
            drawings of every object in every colour.
        joint: The joint space's towers, where the pipeline does not have both.
        **call: Anything else that the pipeline takes at each call, such as ``height``.

    Attributes:
        history: The newest results, 24 at most, the oldest first.

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
        examples: Mapping[str, Any] | None = None,
        joint: JointSpace | None = None,
        **call: Any,
    ) -> None:
        check_pipe(pipe)
        if not takes(pipe):
            raise SpaceError(
                f"{type(pipe).__name__} takes no embeddings, so there is no lab for it; load one that has "
                "prompt_embeds or an image adapter, such as lv.load_tiny(adapter=True)"
            )
        embedded = is_embedded(pipe)
        pictured = JOINT in takes(pipe)
        if guidance_scale is None:
            guidance_scale = usual_guidance(pipe)
        if words is None:
            words = _OWN_WORDS if embedded else _DEFAULT_WORDS
        _check_call(pipe, call)
        checked_call(pipe, None, checked_seed(seed), call)
        self._pipe, self._joint, self._call = pipe, joint, dict(call)
        if examples is None:
            examples = draw_examples() if embedded and pictured else {}
        self._surroundings = Surroundings(
            words, {name: as_picture(one) for name, one in examples.items()}
        )
        self._images: dict[str, Any] = {}
        self.history: list[Result] = []
        self._at = -1
        self._drawn = self._copies = 0
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
            _about={"pictures": pictured},
        )
        super().__init__([self._view])
        for name, picture in dict(images or {}).items():
            self.add_picture(name, picture)
        self._view.observe(lambda change: self._ask(), list(ConditioningView.WISH))
        self._view.on_msg(self._hear)
        self._end_releases = release_after_cells()
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
    def seed(self) -> int:
        """Of the noise; set it to draw with another."""
        return self._view.seed

    @seed.setter
    def seed(self, seed: int) -> None:
        self._view.seed = seed

    @property
    def steps(self) -> int:
        """Denoising steps."""
        return self._view.steps

    @steps.setter
    def steps(self, steps: int) -> None:
        self._view.steps = steps

    @property
    def guidance_scale(self) -> float:
        """As the pipeline takes it."""
        return self._view.guidance_scale

    @guidance_scale.setter
    def guidance_scale(self, guidance_scale: float) -> None:
        self._view.guidance_scale = guidance_scale

    @property
    def negative(self) -> str:
        """A text that guidance leads away from."""
        return self._view.negative

    @negative.setter
    def negative(self, negative: str) -> None:
        self._view.negative = negative

    @property
    def images(self) -> Mapping[str, Any]:
        """The pictures that expressions can name; `add_picture` adds one."""
        return MappingProxyType(self._images)

    @property
    def call(self) -> Mapping[str, Any]:
        """What else the pipeline takes at each call."""
        return MappingProxyType(self._call)

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
            Its result; None where nothing has been asked for yet.

        Raises:
            TimeoutError: It was not drawn by then. It goes on.
            ValueError: What was asked for cannot be drawn; the error says why. :attr:`result` is
                still the last good one.
        """
        if not self._drawer.wait(timeout):
            raise TimeoutError(f"Nothing was drawn within {timeout:g} s; it goes on.")
        if self.problem:
            raise ValueError(self.problem)
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
        self._show_picture(name, as_picture(picture))
        try:
            used = any(isinstance(n, Picture) and n.name == name for n in _leaves(self.expression))
        except ExpressionError:
            used = False
        if used:
            self._ask()

    def _show_picture(self, name: str, ready: Any) -> None:
        self._images = {**self._images, name: ready}
        others = [shown for shown in self._view._images if shown["name"] != name]
        self._view._images = [*others, {"name": name, "file": thumb(np.asarray(ready))}]

    def undo(self) -> None:
        """Goes back to the result that is shown, if something was changed since, or else to that before."""
        shown = self.result
        changed = shown is not None and self._wish() != _wish_of(shown)
        self._go(self._at - (0 if changed else 1))

    def redo(self) -> None:
        """Goes on to the result after."""
        self._go(self._at + 1)

    def python(self) -> str:
        """The same as a few lines of Python.

        Raises:
            ExpressionError: The expression is none.
        """
        v = self._view
        mine, pipe = _name_of(self, "lab"), _name_of(self._pipe, "pipe")
        named = any(isinstance(leaf, Picture) for leaf in parse(v.expression).leaves())
        pictures = f", {mine}.images" if named else ""
        joint = f", joint={_name_of(self._joint, 'joint')}" if self._joint else ""
        negative = f", negative={v.negative!r}" if v.negative else ""
        plain = all(isinstance(value, _PLAIN) for value in self._call.values())
        others = [f"{name}={value!r}" for name, value in self._call.items()]
        more = (others if plain else [f"**{mine}.call"]) if self._call else []
        given = ", ".join(
            [pipe, f"seed={v.seed}", f"num_inference_steps={v.steps}", "**call", *more]
        )
        lines = [
            "import ldm_viz as lv",
            "",
            f"vector = lv.embed({pipe}, {v.expression!r}{pictures}{joint})",
            f"call = lv.condition({pipe}, vector{negative}, guidance_scale={v.guidance_scale:g})",
            f"run = lv.record({given})",
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
        if end := vars(self).get("_end_releases"):
            end()
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
                self._copies += 1
                self._view._python = {"text": self.python(), "copy": self._copies}
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
        for name, picture in result._images.items():
            if self._images.get(name) is not picture:
                self._show_picture(name, picture)
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
        self._tell_facts(result)

    _silent = False

    def _wish(self) -> Wish:
        v = self._view
        return Wish(v.expression, v.seed, v.steps, v.guidance_scale, v.negative)

    def _ask(self) -> None:
        """Has what the view says drawn, if that is not what is shown."""
        if self._silent:
            return
        wish, asked = self._wish(), time.perf_counter()
        if not self._tell_terms(wish.expression):
            self._drawer.drop()
            return
        self._view._problem = {}
        if self._is_shown(wish):
            self._drawer.drop()
            self._view._result = {**self._view._result, **asdict(wish)}
            return
        release_pool()  # or this thread's would make the drawer's slow
        self._drawer.ask((wish, self._images, asked))

    def _is_shown(self, wish: Wish) -> bool:
        """Whether a wish is what the shown result was drawn with, but for spaces and the like."""
        shown = self.result
        if shown is None or replace(_wish_of(shown), expression="") != replace(wish, expression=""):
            return False
        node = parse(wish.expression)
        if node != parse(shown.expression):
            return False
        names = {leaf.name for leaf in node.leaves() if isinstance(leaf, Picture)}
        return all(self._images.get(name) is shown._images.get(name) for name in names)

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
        names = {n.name for n in _leaves(wish.expression) if isinstance(n, Picture)}
        self._check_pictures(names, images)
        embedding = embed(self._pipe, wish.expression, images, joint=self._joint)
        arguments = condition(
            self._pipe, embedding, wish.negative or None, guidance_scale=wish.guidance_scale
        )
        pipe = fork(self._pipe)
        call = checked_call(
            pipe,
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
            if now - last < (_PREVIEW_AFTER if last == asked else _PREVIEW_EVERY):
                return
            last = now
            news: dict[str, Any] = {"phase": "drawing", "done": live.step + 1, "steps": live.steps}
            picture = self._glimpse.picture(live)
            if picture is not None:
                height, width = picture.shape[:2]
                news["preview"] = {"width": width, "height": height, "rgb": picture.tobytes()}
                first = time.perf_counter() - asked if math.isnan(first) else first
            self._view._news = news

        recorder = Recorder(pipe, frames=None, progress=False, on_step=look)
        with recorder:
            trajectory = call_recorded(recorder, call)
        if trajectory.status != "complete" or stale():
            self._view._news = {"phase": "idle"}
            return
        picture = np.asarray(trajectory.images)[0]
        seconds = time.perf_counter() - asked
        self._drawn += 1
        result = Result(
            number=self._drawn,
            **{name: getattr(wish, name) for name in ConditioningView.WISH},
            picture=picture,
            embedding=embedding,
            seconds=seconds,
            preview_seconds=first,
            _thumb=thumb(picture),
            _images={name: images[name] for name in names},
            _recorder=recorder,
        )
        self.history = [*self.history, result][-_KEPT:]
        self._at = len(self.history) - 1
        self._tell_result(result)
        if not stale():
            self._tell_facts(result, stale)
            if self._surroundings.prepare(embedding, stale):
                self._tell_facts(result, stale)

    def _check_pictures(self, names: set[str], images: Mapping[str, Any]) -> None:
        missing = sorted(names - set(images))
        if missing and self._view._about["pictures"]:
            known = ", ".join(map(repr, images)) or "none yet"
            raise ValueError(
                f"There is no picture {missing[0]!r} here; there are: {known}. Add it below, or with "
                f"add_picture({missing[0]!r}, picture)."
            )

    def _failed(self, request: Any, error: BaseException) -> None:
        self._view._news = {"phase": "idle"}
        position = error.position if isinstance(error, ExpressionError) else -1
        reason = error.reason if isinstance(error, ExpressionError) else str(error)
        if not isinstance(error, (ValueError, TypeError, EmbeddingError)):
            reason = f"{type(error).__name__}: {error}"
        if not self._drawer.stale:
            self._view._problem = {"reason": reason, "position": position}

    def _tell_result(self, result: Result) -> None:
        thumbs = [
            {
                "expression": r.expression,
                "seed": r.seed,
                "number": r.number,
                "file": r._thumb,
            }
            for r in self.history
        ]
        with self._view.hold_sync():
            self._view._history = thumbs
            self._view._at = self._at
            self._view._result = {
                "file": encode_image(result.picture, "png"),
                "width": result.picture.shape[1],
                "height": result.picture.shape[0],
                **asdict(_wish_of(result)),
                "number": result.number,
                "seconds": round(result.seconds, 2),
            }
            self._view._news = {"phase": "idle"}

    def _tell_facts(self, result: Result, stale: Callable[[], bool] = lambda: False) -> None:
        embedding, negative = result.embedding, result.negative
        facts = self._surroundings.facts(embedding, self._images, stale)
        if facts is not None and negative and (cut := embedding.encoder.cut(negative)):
            facts["notes"].append(
                f"away from: {cut!r} is beyond what the encoder reads, and was cut off"
            )
        if facts is not None and not stale():
            self._view._facts = facts


def _wish_of(result: Result) -> Wish:
    return Wish(**{name: getattr(result, name) for name in ConditioningView.WISH})


def _check_call(pipe: Any, call: Mapping[str, Any]) -> None:
    """Refuses what the lab itself says to the pipeline."""
    for name in call:
        ours = "the expression" if name.endswith("_embeds") else _OURS.get(name)
        if ours:
            raise TypeError(
                f"{name} is what the lab itself gives to {type(pipe).__name__}: use {ours} instead"
            )


def _name_of(value: Any, otherwise: str) -> str:
    """What the notebook calls a value, if it has a name for it."""
    shell = sys.modules.get("IPython")
    namespace = getattr(shell and shell.get_ipython(), "user_ns", None) or {}
    names = [n for n, known in namespace.items() if known is value and not n.startswith("_")]
    return names[0] if names else otherwise


def _leaves(expression: str) -> list[Node]:
    return list(parse(expression).leaves()) if expression.strip() else []


def _flat(node: Node) -> list[dict[str, Any]]:
    """The terms of a plain sum of texts and pictures; empty where it is more than that."""
    terms = node.terms if isinstance(node, Sum) else ((Fraction(1), node),)
    found = []
    for weight, inner in terms:
        words = inner.weights if isinstance(inner, Weighed) else ()
        part = inner.text if isinstance(inner, Weighed) else inner
        if not isinstance(part, (Text, Picture)):
            return []
        kind, text = ("text", part.text) if isinstance(part, Text) else ("image", part.name)
        found.append(
            {
                "kind": kind,
                "text": text,
                "weight": format_weight(weight),
                "words": [[word, format_weight(share)] for word, share in words],
            }
        )
    return found
