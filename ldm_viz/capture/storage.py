"""Where tensors wait while a loop runs, and the arrays they end up in.

A tensor stays on its device until the run is over, so that nothing waits for the device inside a
step. Only where that would take more than a budget are those so far brought over in between.
"""

from __future__ import annotations

import functools
import math
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

MEMORY_BUDGET = 1 << 30  # bytes


@dataclass(eq=False)
class Kept:
    """One tensor that was copied during a run: on its device, or brought over as an array."""

    tensor: torch.Tensor | None
    whole: torch.dtype
    device: str
    array: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the tensor."""
        held = self.tensor if self.tensor is not None else self.array
        return tuple(held.shape)  # type: ignore[union-attr]

    def read(self) -> np.ndarray:
        """The values, as float16, float32 or float64; no copy where they are in memory already."""
        return self.array if self.array is not None else to_array(self.tensor)


class Storage:
    """Keeps copies of tensors within a budget, and makes the arrays of a trajectory.

    Args:
        budget: Bytes that may wait on an accelerator, or in memory where there is a folder, before
            they are brought over.
        folder: Where to put what is brought over; it stays in memory without. The files have no
            name and vanish with the arrays that are read from them.
    """

    def __init__(self, budget: int = MEMORY_BUDGET, folder: Path | None = None) -> None:
        self.budget = budget
        self.folder = folder
        self._waiting: list[weakref.ref[Kept]] = []
        self._bytes = 0
        self._seen: list[tuple[Any, int, Kept]] = []  # originals of this step, and their versions

    def keep(self, tensor: torch.Tensor) -> Kept:
        """A copy of a tensor as it is now; the copy made before where it has not changed since.

        The loop, a callback or a compiled model's next call may write into the original.
        """
        version = _version(tensor)
        if version is not None:
            for original, then, kept in self._seen:
                if original is tensor and then == version and kept.tensor is not None:
                    return kept
        kept = Kept(tensor.detach().clone(), tensor.dtype, str(tensor.device))
        if version is not None:
            self._seen = [*self._seen[-7:], (tensor, version, kept)]
        if self.folder is not None or tensor.device.type != "cpu":
            self._waiting.append(weakref.ref(kept))
            self._bytes += _bytes(tensor)
        return kept

    def make_room(self) -> None:
        """Brings over what waits, if it is more than the budget."""
        if self._bytes <= self.budget:
            return
        waiting = [kept for kept in (known() for known in self._waiting) if kept is not None]
        self._bytes = sum(_bytes(kept.tensor) for kept in waiting)
        if self._bytes <= self.budget:  # others were let go
            self._waiting = [weakref.ref(kept) for kept in waiting]
            return
        self.bring_over()

    def bring_over(self) -> None:
        """Brings over all that waits."""
        self._seen.clear()
        waiting = [kept for kept in (known() for known in self._waiting) if kept is not None]
        for kept in waiting:
            values = to_array(kept.tensor)
            kept.array = values
            if self.folder is not None:
                kept.array = self.empty(values.shape, values.dtype)
                kept.array[...] = values
            kept.tensor = None
        self._waiting.clear()
        self._bytes = 0

    def forget_originals(self) -> None:
        """Lets go of the loop's own tensors, which may be written to in ways that do not count."""
        self._seen.clear()

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """A new array to fill, in memory or in a file without a name in the folder."""
        if self.folder is None or not math.prod(shape):
            return np.empty(shape, dtype)
        with tempfile.TemporaryFile(dir=self.folder) as file:
            return np.memmap(file, dtype, "w+", shape=shape)

    def gather(self, kept: Sequence[Kept], part: tuple = ()) -> np.ndarray:
        """Tensors of one shape as one array ``(n, ...)``: float16, float32 or float64.

        Args:
            kept: At least one.
            part: An index into each.
        """
        dtype = functools.reduce(torch.promote_types, {item.whole for item in kept})
        first = kept[0].read()[part]
        array = self.empty((len(kept), *first.shape), _numpy_type(dtype))
        for place, item in enumerate(kept):
            array[place] = item.read()[part]
        return array


def to_array(tensor: Any) -> np.ndarray:
    """A tensor as float16, float32 or float64; numpy has no bfloat16, and float32 holds it all."""
    tensor = tensor.detach()
    if tensor.dtype not in (torch.float16, torch.float32, torch.float64):
        tensor = tensor.float()
    return tensor.cpu().numpy()


def _bytes(tensor: Any) -> int:
    return tensor.element_size() * tensor.nelement()


def _numpy_type(dtype: torch.dtype) -> Any:
    names = {torch.float16: np.float16, torch.float64: np.float64}
    return names.get(dtype, np.float32)


def _version(tensor: torch.Tensor) -> int | None:
    """How often a tensor was written into; None for those made in inference mode, which no one counts."""
    return None if tensor.is_inference() else tensor._version
