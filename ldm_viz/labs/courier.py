"""A thread that looks at steps of a run beside it, so that the run does not wait for that."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from ldm_viz.capture.run import LiveStep

_PATIENCE = 0.002  # seconds between looks at whether an accelerator has come to a step


class Courier:
    """Hands steps to a function in a thread of its own, the newest first, others not at all.

    Args:
        deliver: Called with each step that is handed on.
        told: Called with the seconds of processor time that each delivery took.

    Attributes:
        faults: What went wrong in ``deliver``, in words, each once.
    """

    def __init__(self, deliver: Callable[[LiveStep], Any], told: Callable[[float], Any]) -> None:
        self.faults: list[str] = []
        self._deliver, self._told = deliver, told
        self._next: tuple[LiveStep, Any] | None = None
        self._closing = False
        self._news = threading.Condition()
        self._side: Any = None
        self._thread = threading.Thread(target=self._work, name="ldm_viz courier", daemon=True)

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    @property
    def started(self) -> bool:
        """Whether it has begun."""
        return self._thread.ident is not None

    def offer(self, live: LiveStep) -> None:
        """Hands a step on; returns at once.

        Args:
            live: The step.
        """
        reached = None
        if live.latents.is_cuda:
            reached = torch.cuda.Event()
            reached.record(torch.cuda.current_stream(live.latents.device))
        with self._news:
            self._next = live, reached
            self._news.notify()

    def close(self) -> None:
        """Delivers what is left, and ends."""
        with self._news:
            self._closing = True
            self._news.notify()
        self._thread.join()

    def _work(self) -> None:
        while (item := self._wait()) is not None:
            live, reached = item
            while reached is not None and not reached.query():
                time.sleep(_PATIENCE)  # waiting inside the driver would take a core
            began = time.thread_time()
            try:
                with torch.no_grad(), self._aside(live.latents):
                    self._deliver(live)
            except Exception as error:  # noqa: BLE001  # whatever it is, the run must go on
                fault = f"{type(error).__name__}: {error}"
                if fault not in self.faults:
                    self.faults.append(fault)
            self._told(time.thread_time() - began)

    def _wait(self) -> tuple[LiveStep, Any] | None:
        with self._news:
            self._news.wait_for(lambda: self._next is not None or self._closing)
            item, self._next = self._next, None
            return item

    def _aside(self, tensor: torch.Tensor) -> AbstractContextManager[Any]:
        """Beside the run's own stream on a GPU: in that, a copy would wait for the steps after it."""
        if not tensor.is_cuda:
            return nullcontext()
        if self._side is None:
            self._side = torch.cuda.Stream(tensor.device)
        return torch.cuda.stream(self._side)
