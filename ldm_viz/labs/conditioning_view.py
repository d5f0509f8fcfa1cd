"""The part of the conditioning lab that is in the browser."""

from __future__ import annotations

from typing import Any, ClassVar

import anywidget
import traitlets

from ldm_viz.widgets.sources import module_text, style_text


class ConditioningView(anywidget.AnyWidget):
    """Shows an expression with its terms, the picture of it, and what it is near to.

    What a user changes are the traits of `WISH`; buttons send messages. All else is told to it by a
    :class:`ConditioningLab`.
    """

    WISH: ClassVar[tuple[str, ...]] = ("expression", "seed", "steps", "guidance_scale", "negative")

    _esm = module_text("conditioning")
    _css = style_text("conditioning")

    expression = traitlets.Unicode("").tag(sync=True)
    seed = traitlets.Int(0, min=0, max=2**32 - 1).tag(sync=True)
    steps = traitlets.Int(25, min=1, max=1000).tag(sync=True)
    guidance_scale = traitlets.Float(5.0, min=0.0, max=100.0).tag(sync=True)
    negative = traitlets.Unicode("").tag(sync=True)

    _about = traitlets.Dict().tag(sync=True)
    _images: Any = traitlets.List().tag(sync=True)
    _terms = traitlets.Dict().tag(sync=True)
    _problem = traitlets.Dict().tag(sync=True)
    _news = traitlets.Dict().tag(sync=True)
    _result = traitlets.Dict().tag(sync=True)
    _facts = traitlets.Dict().tag(sync=True)
    _history: Any = traitlets.List().tag(sync=True)
    _at = traitlets.Int(-1).tag(sync=True)
    _python = traitlets.Dict().tag(sync=True)

    def __init__(self, **traits: Any) -> None:
        super().__init__(**traits)
        # From 7.4 on ipykernel hears answers to a widget where that was made, and there a cell may
        # be at work for long; its other threads would hear them at once, as they did before.
        if hasattr(self.comm, "_reply_subshell_for"):
            self.comm._reply_subshell_for = lambda data, default: default
