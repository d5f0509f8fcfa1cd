"""The part of a live run that moves: its progress, a preview, and how it ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anywidget
import numpy as np
import traitlets

from ldm_viz.widgets.sources import module_text, style_text


class LiveView(anywidget.AnyWidget):
    """Shows a run while it goes on, and in one line how it ended.

    Everything is told to it by a :class:`LiveRun`; the one thing that it tells is that somebody wants
    the run to stop.
    """

    _esm = module_text("live")
    _css = style_text("live")

    _about = traitlets.Dict().tag(sync=True)
    _phase = traitlets.Unicode("preparing").tag(sync=True)
    _news = traitlets.Dict().tag(sync=True)
    _end = traitlets.Dict().tag(sync=True)
    _stop_asked = traitlets.Bool(False).tag(sync=True)
    _stopping = traitlets.Bool(False).tag(sync=True)

    def __init__(self, prompt: str, facts: list[str]) -> None:
        super().__init__(_about={"prompt": prompt, "facts": facts})
        self._curve: list[np.ndarray] = []
        # From 7.4 on ipykernel hears answers to a widget where that was made, and there a cell may
        # be at work for long; its other threads would hear the button at once, as they did before.
        if hasattr(self.comm, "_reply_subshell_for"):
            self.comm._reply_subshell_for = lambda data, default: default

    def on_stop(self, listener: Callable[[], Any]) -> None:
        """Calls a function when somebody presses the button.

        Args:
            listener: What to call, in whichever thread hears of it.
        """

        def heard(change: Any) -> None:
            if change.new:
                listener()

        self.observe(heard, "_stop_asked")

    def stop(self) -> None:
        """The run will stop after the step it is in."""
        self._stopping = True

    def begin(self) -> None:
        """The run has begun."""
        self._phase = "running"

    def tell(
        self,
        *,
        done: int,
        steps: int | None,
        words: list[str],
        elapsed: float,
        remaining: float | None,
        spread: np.ndarray,
        picture: np.ndarray | None,
    ) -> None:
        """Shows where the run is.

        Args:
            done: Steps that are behind it.
            steps: All of them, or None where that is not known.
            words: Its timestep and noise, each a few words.
            elapsed: Seconds since it began.
            remaining: Seconds that it will take yet, or None where that is not known.
            spread: Standard deviation of the latents, ``(channels,)``.
            picture: The predicted clean picture ``(h, w, 3)`` uint8, or None.
        """
        if self._curve and len(self._curve[-1]) != 1 + len(spread):
            self._curve.clear()  # another loop, with latents of another kind
        if self._curve and self._curve[-1][0] >= done:
            self._curve.clear()
        self._curve.append(np.concatenate([[done], spread]).astype("<f4"))
        news: dict[str, Any] = {
            "done": done,
            "steps": steps,
            "words": words,
            "elapsed": elapsed,
            "remaining": remaining,
            "channels": len(spread),
            "curve": np.concatenate(self._curve).tobytes(),
        }
        if picture is not None:
            height, width = picture.shape[:2]
            news["picture"] = {"width": width, "height": height, "rgb": picture.tobytes()}
        self._news = news

    def end(self, status: str, text: str, *, why: str, details: str, notes: list[str]) -> None:
        """The run has ended.

        Args:
            status: ``"complete"``, ``"interrupted"`` or ``"failed"``.
            text: That in words.
            why: What was raised, in a line.
            details: The traceback.
            notes: What else there is to say.
        """
        self._end = {
            "status": status,
            "text": text,
            "why": why,
            "details": details,
            "notes": notes,
        }

    def settle(self) -> None:
        """Leaves only how it ended: the explorer stands below."""
        self._news = {}
        self._phase = "ended"
