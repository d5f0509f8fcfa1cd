"""What showing a run may cost it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

SHARE = 0.01
"""Of a run's time, what showing it may take: half of the 2 % that are promised."""

UPDATES_A_SECOND = 8


class Governor:
    """Decides which steps of a run are shown, so that showing them takes at most a share of its time.

    An update is allowed when all that was spent so far, and what the next will take by the dearest of
    the last few, are within the share of the time that has passed. Nothing is known of the first, so
    that is allowed at once.

    Args:
        share: Of the time since it was made, what may be spent.
        most: Updates a second, at most.
        clock: Gives seconds.

    Example:
        >>> governor = Governor()
        >>> if governor.allows():
        ...     governor.spend(show(step), finished=True)
    """

    def __init__(
        self,
        share: float = SHARE,
        most: float = UPDATES_A_SECOND,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.share = share
        self.spent = 0.0
        self.updates = 0
        self._clock = clock
        self._pause = 1 / most
        self._began = clock()
        self._last = -float("inf")
        self._costs: list[float] = []
        self._current = 0.0  # spent on the update that is on its way
        self._waiting = False
        self._lock = threading.Lock()

    @property
    def elapsed(self) -> float:
        """Seconds since it was made."""
        return self._clock() - self._began

    def allows(self, anyway: bool = False) -> bool:
        """Whether an update may be made now; if so it counts as begun, until its cost is told.

        Args:
            anyway: Allow it whatever it costs, as of a last step, unless another is on its way.
        """
        with self._lock:
            now = self._clock()
            expected = max(self._costs, default=0.0)
            affordable = self.spent + expected <= self.share * (now - self._began)
            due = now - self._last >= self._pause
            if self._waiting or not (anyway or not self._costs or (affordable and due)):
                return False
            self._waiting, self._last, self._current = True, now, 0.0
            return True

    def spend(self, seconds: float, finished: bool = False) -> None:
        """Tells what was spent.

        Args:
            seconds: Of the run's time.
            finished: Whether the update that was allowed is done with.
        """
        with self._lock:
            self.spent += seconds
            self._current += seconds
            if finished:
                self._costs = [*self._costs[-2:], self._current]
                self._waiting = False
                self.updates += 1
