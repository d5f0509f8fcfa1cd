"""Noise between that of two seeds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

__all__ = ["BetweenSeeds", "slerp_noise"]

_PARALLEL = 0.9995  # cosine above which an arc is a straight line


def slerp_noise(a: torch.Tensor, b: torch.Tensor, amount: float) -> torch.Tensor:
    """The point on the arc between two draws of noise, taken as one vector each (Shoemake 1985).

    Between them a straight line would be shorter than noise ever is: half way it has 0.71 times the
    length, and pictures drawn from it are flat.

    Args:
        a: the draw at amount 0.
        b: the draw at amount 1, of the same shape.
        amount: 0 to 1.

    Returns:
        Noise of the same shape and type.
    """
    x, y = a.double(), b.double()
    size = x.norm() * y.norm()
    cosine = ((x * y).sum() / size.clamp(min=1e-30)).clamp(-1, 1)
    if abs(cosine) > _PARALLEL:
        return ((1 - amount) * x + amount * y).to(a.dtype)
    angle = cosine.arccos()
    mixed = ((1 - amount) * angle).sin() * x + (amount * angle).sin() * y
    return (mixed / angle.sin()).to(a.dtype)


class BetweenSeeds(TorchFunctionMode):
    """Within it, what is drawn from some generators lies between their noise and that of others.

    Whatever a pipeline draws from them is mixed: the initial noise, and the noise that some schedulers
    add in each step. So neighbours on a walk look alike with those, too.

    Args:
        others: by the id of a generator that is handed to the pipeline, the other generator and the
            amount, 0 for the first's noise and 1 for the other's.

    Attributes:
        unused: ids of generators from which nothing was drawn yet.
    """

    def __init__(self, others: Mapping[int, tuple[torch.Generator, float]]) -> None:
        super().__init__()
        self._others = dict(others)
        self.unused = set(others)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        drawn = func(*args, **kwargs)
        key = id(kwargs.get("generator"))
        if func is not torch.randn or key not in self._others:
            return drawn
        self.unused.discard(key)
        other, amount = self._others[key]
        return slerp_noise(drawn, func(*args, **{**kwargs, "generator": other}), amount)
