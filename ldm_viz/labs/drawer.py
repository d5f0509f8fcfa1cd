"""A thread that does what was asked for last, and leaves what is older."""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

__all__ = ["Drawer"]


_PARTING = 5.0  # seconds that a step may take yet when the interpreter ends
_at_work: weakref.WeakSet[Drawer] = weakref.WeakSet()


@atexit.register
def _end_with_the_interpreter() -> None:
    for drawer in list(_at_work):
        drawer._part()


class Drawer:
    """Hands requests to a function in one thread, the newest only: there is never a queue.

    Args:
        draw: called with a request and a function that tells whether a newer one has come, which it
            should ask often; what it raises is given to `failed`.
        failed: called with a request and what was raised.
    """

    def __init__(
        self,
        draw: Callable[[Any, Callable[[], bool]], None],
        failed: Callable[[Any, BaseException], None],
    ) -> None:
        self._draw, self._failed = draw, failed
        self._next: Any = None
        self._busy = False
        self._closed = False
        self._dropped = False
        self._news = threading.Condition()
        self._thread: threading.Thread | None = None
        self.asked = 0
        """How many requests have come."""
        self.begun = 0
        """How many of them were begun."""

    def ask(self, request: Any) -> None:
        """Have something drawn, in place of whatever was asked for before; returns at once."""
        with self._news:
            if self._closed:
                return
            self.asked += 1
            self._next, self._dropped = request, False
            if self._thread is None:
                _at_work.add(self)
                self._thread = threading.Thread(target=self._work, name="ldm_viz lab", daemon=True)
                self._thread.start()
            self._news.notify_all()

    def drop(self) -> None:
        """Nothing that was asked for is wanted any more; returns at once."""
        with self._news:
            self._next, self._dropped = None, True

    @property
    def stale(self) -> bool:
        """Whether what is being done is not wanted any more."""
        return self._stale()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until nothing is left to do; whether that came before the timeout, in seconds."""
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._news:
            while self._busy or self._next is not None:
                left = 0.2 if deadline is None else min(0.2, deadline - time.monotonic())
                if left <= 0:
                    return False
                self._news.wait(left)  # short, as some systems let no longer wait be interrupted
        return True

    def close(self) -> None:
        """Do nothing more; what is being drawn is told that it is stale."""
        with self._news:
            self._closed, self._next = True, None
            self._news.notify_all()

    def _part(self) -> None:
        """Ends before the interpreter does, as torch must not be torn from the thread."""
        self.close()
        if self._thread is not None:
            self._thread.join(_PARTING)

    def _stale(self) -> bool:
        return self._next is not None or self._closed or self._dropped

    def _work(self) -> None:
        while True:
            with self._news:
                self._busy = False
                self._news.notify_all()
                self._news.wait_for(lambda: self._next is not None or self._closed)
                if self._closed:
                    return
                request, self._next, self._dropped = self._next, None, False
                self._busy = True
                self.begun += 1
            try:
                self._draw(request, self._stale)
            except Exception as error:  # noqa: BLE001  # the next request must find the thread alive
                self._failed(request, error)
