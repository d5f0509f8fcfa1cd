"""Lets go of threads that wait for one Python thread while another is to draw."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["release_after_cells", "release_pool"]

_SOFT = 1  # omp_pause_soft: what is set, such as the number of threads, stays


def release_pool() -> None:
    """Ends the OpenMP threads that wait for work of this Python thread; they come back when needed.

    Each Python thread that has called torch has a pool of its own. Once there are more of their
    threads than cores, GNU's OpenMP lets all of them sleep between any two parallel regions instead
    of waiting awake, and a small model's step is hundreds of these: the lab's picture then takes
    a fifth longer. OpenMP 5.0 has a call to give a pool back (section 3.6, omp_pause_resource_all).
    Where torch was built with another OpenMP, or none, nothing is done.
    """
    library = _library()
    if library is not None:
        library.omp_pause_resource_all(_SOFT)


def release_after_cells() -> Callable[[], None]:
    """Gives the pool back after each cell of a notebook, too: cells run in a thread of their own.

    Returns:
        What ends that.
    """
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    if shell is None or _library() is None:
        return lambda: None

    def release(*_: Any) -> None:
        release_pool()

    shell.events.register("post_run_cell", release)
    ended = False

    def end() -> None:
        nonlocal ended
        if not ended:
            ended = True
            shell.events.unregister("post_run_cell", release)

    return end


@cache
def _library() -> Any:
    """GNU's OpenMP as torch brings it along, if it knows the call."""
    torch = sys.modules.get("torch")
    if torch is None or not sys.platform.startswith("linux"):
        return None
    for file in (Path(str(torch.__file__)).parent / "lib").glob("libgomp*.so*"):
        try:
            library = ctypes.CDLL(str(file))
        except OSError:
            continue
        if hasattr(library, "omp_pause_resource_all"):
            return library
    return None
