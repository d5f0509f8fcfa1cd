"""Putting wrappers in place and taking them away again, leaving exactly what was found.

Wrappers go on the class that defines a method, not on the instance: pipelines deep-copy their
schedulers, and an instance's wrapper would be copied with them. A class is shared by other
pipelines and other threads, so a wrapper only looks whether this thread is inside a recorded run
(:func:`active`) and otherwise calls straight through.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any


class _Stack(threading.local):
    def __init__(self) -> None:
        self.runs: list[Any] = []


_stack = _Stack()


def active() -> Any:
    """The recorded run that this thread is inside, or None."""
    return _stack.runs[-1] if _stack.runs else None


@contextmanager
def activated(run: Any) -> Iterator[None]:
    """Makes ``run`` the one this thread is inside; None while someone else's code runs."""
    _stack.runs.append(run)
    try:
        yield
    finally:
        _stack.runs.pop()


_INHERITED = object()


@dataclass
class _Patch:
    owner: Any
    name: str
    original: Any
    replacement: Any
    users: int = 0

    def release(self) -> None:
        """Restores what was there once nobody uses it any more."""
        self.users -= 1
        if self.users > 0:
            return
        _patches.pop((id(self.owner), self.name), None)
        # Whoever wrapped on top of us meanwhile holds our wrapper, which only passes calls through;
        # taking theirs away would be wrong.
        if vars(self.owner).get(self.name) is not self.replacement:
            return
        if self.original is _INHERITED:
            delattr(self.owner, self.name)
        else:
            setattr(self.owner, self.name, self.original)


_lock = threading.RLock()
_patches: dict[tuple[int, str], _Patch] = {}


@contextmanager
def patched(owner: Any, name: str, wrap: Callable[[Any], Any]) -> Iterator[None]:
    """Replaces ``owner.name`` by ``wrap(original)`` inside the block.

    Blocks may overlap, in one thread or several: the first to enter wraps, the last to leave
    restores.

    Args:
        owner: The class, or the instance whose own ``__dict__`` holds ``name``.
        name: The attribute; a class may inherit it.
        wrap: Makes the replacement. It must serve every block alike, as only the first one's is
            used.
    """
    patch = None
    try:
        with _lock:
            patch = _patches.get((id(owner), name))
            if patch is None:
                original = vars(owner).get(name, _INHERITED)
                wrapped = getattr(owner, name) if original is _INHERITED else original
                patch = _Patch(owner, name, original, wrap(wrapped))
                _patches[id(owner), name] = patch
                setattr(owner, name, patch.replacement)
            patch.users += 1
        yield
    finally:
        if patch is not None:
            with _lock:
                patch.release()


def definer(owners: Iterable[Any], name: str) -> Any:
    """The first of some owners, such as a class's ``__mro__``, whose own ``__dict__`` has a name.

    Raises:
        AttributeError: None has.
    """
    for owner in owners:
        if name in getattr(owner, "__dict__", ()):
            return owner
    raise AttributeError(f"nothing defines {name!r}")
