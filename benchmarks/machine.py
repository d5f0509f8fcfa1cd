"""The machine that a benchmark runs on: its processor, and how busy it is."""

from __future__ import annotations

import os
import platform
import re
import time
from pathlib import Path

import psutil

__all__ = ["Load", "processor"]


def processor() -> str:
    """The processor's name, as well as the system knows it."""
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


class Load:
    """How busy the machine is, and how much of that is neither this process nor one it has begun."""

    def __init__(self) -> None:
        self.begin = os.getloadavg()[0]
        self._busy, self._own, self._clock = self._busy_now(), self._own_now(), time.time()

    def read(self) -> dict[str, float]:
        """The load averages, and the cores kept busy meanwhile, by this and by others."""
        seconds = time.time() - self._clock
        own = (self._own_now() - self._own) / seconds
        others = (self._busy_now() - self._busy) / seconds - own
        return {
            "load_begin": self.begin,
            "load_end": os.getloadavg()[0],
            "cores_own": own,
            "cores_of_others": max(0.0, others),
        }

    @staticmethod
    def _busy_now() -> float:
        times = psutil.cpu_times()
        return times.user + times.system + times.nice + getattr(times, "steal", 0.0)

    @staticmethod
    def _own_now() -> float:
        own = psutil.Process()
        total = 0.0
        for process in (own, *own.children(recursive=True)):
            # With what those have used that are no more.
            times = process.cpu_times()
            total += times.user + times.system
            total += getattr(times, "children_user", 0.0) + getattr(times, "children_system", 0.0)
        return total
