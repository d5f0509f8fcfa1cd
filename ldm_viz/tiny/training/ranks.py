"""Training on the cores of one machine: one single-threaded process a core, weights averaged.

Each rank takes its own optimiser steps and every few steps the weights are averaged (local SGD,
Stich 2019, arXiv:1805.09767). On a CPU this beats one multi-threaded process, and keeps its pace
when the machine is shared. Checkpoints are written by rank 0, whole or not at all, so a run that
was killed goes on where it stood, with any number of ranks.
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from ldm_viz.tiny.training.muon import Muon

AVERAGE_EVERY = 8
CHECKPOINT_SECONDS = 90.0
EMA_DECAY = 0.998
_BF16_CHECKS = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
_HAS_BF16 = any(getattr(torch.cpu, name)() for name in _BF16_CHECKS if hasattr(torch.cpu, name))


@dataclass
class Progress:
    """How far a stage has come, and the learning rate that belongs there.

    The rate rises over the first samples, stays, and falls to nothing over the last part
    (warm-up, stable, decay), so that a run can be made longer without having planned it.
    """

    total: int
    peak_rate: float
    warmup: int = 4_000
    cooldown: float = 0.35
    samples: int = 0

    @property
    def share(self) -> float:
        """The learning rate now, as a share of its peak."""
        rise = min(1.0, (self.samples + 1) / self.warmup)
        left = (self.total - self.samples) / max(1.0, self.cooldown * self.total)
        return rise * max(0.02, min(1.0, left))

    @property
    def done(self) -> bool:
        """Whether all samples were seen."""
        return self.samples >= self.total


@dataclass
class Stage:
    """One training stage of one rank: modules, optimiser, moving average, checkpoint."""

    name: str
    folder: Path
    modules: Mapping[str, nn.Module]
    progress: Progress
    rank: int = 0
    world: int = 1
    rates: Mapping[str, float] = field(default_factory=dict)
    """Factors on the learning rate, by a part of the parameter's name (``module.layer.weight``)."""
    muon_rate: float = 0.0
    """The peak rate of Muon for weight matrices inside the networks; 0 leaves all to AdamW."""

    def __post_init__(self) -> None:
        matrices: dict[tuple[float, float], list[torch.Tensor]] = {}
        others: dict[tuple[float, float], list[torch.Tensor]] = {}
        for module, network in self.modules.items():
            for name, p in network.named_parameters(prefix=module):
                if not p.requires_grad:
                    continue
                factor = math.prod(f for part, f in self.rates.items() if part in name)
                decay = 0.01 if p.ndim > 1 else 0.0
                inner = self.muon_rate and _is_inner(name, p)
                peak = factor * (self.muon_rate if inner else self.progress.peak_rate)
                (matrices if inner else others).setdefault((peak, decay), []).append(p)
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(_groups(others), betas=(0.9, 0.98), fused=True)
        ]
        if matrices:
            self.optimizers.append(Muon(_groups(matrices)))
        self.average = {
            name: {k: v.detach().clone().float() for k, v in module.state_dict().items()}
            for name, module in self.modules.items()
        }
        self.steps = 0
        self._saved = self._logged = time.monotonic()
        self._sums: dict[str, float] = {}
        self._count = 0
        self._load()

    @property
    def checkpoint(self) -> Path:
        """Where the stage's checkpoint is kept."""
        return self.folder / f"{self.name}.checkpoint"

    def _load(self) -> None:
        if not self.checkpoint.exists():
            return
        state = torch.load(self.checkpoint, weights_only=True)
        for name, module in self.modules.items():
            if name in state["modules"]:
                module.load_state_dict(state["modules"][name])
                self.average[name] = state["average"][name]
        found = state.get("optimizers", [])
        same = [_sizes(o.state_dict()) for o in self.optimizers] == [_sizes(o) for o in found]
        if same and set(self.modules) == set(state["modules"]):
            for optimizer, kept in zip(self.optimizers, found, strict=True):
                asked = [
                    {k: g[k] for k in ("peak", "weight_decay")} for g in optimizer.param_groups
                ]
                optimizer.load_state_dict(kept)
                for group, rates in zip(optimizer.param_groups, asked, strict=True):
                    group.update(rates)
        self.progress.samples = state["samples"]
        self.steps = state["steps"]

    def save(self) -> None:
        """Writes the checkpoint, replacing the last one at once."""
        state = {
            "modules": {k: m.state_dict() for k, m in self.modules.items()},
            "average": self.average,
            "optimizers": [o.state_dict() for o in self.optimizers],
            "samples": self.progress.samples,
            "steps": self.steps,
        }
        scratch = self.checkpoint.with_suffix(".writing")
        torch.save(state, scratch)
        os.replace(scratch, self.checkpoint)

    def step(self, loss: torch.Tensor, samples: int, **figures: float | torch.Tensor) -> None:
        """Takes one optimiser step; averages, logs and saves when it is time.

        Args:
            loss: Scalar to minimise.
            samples: Batch size of this rank.
            figures: What to log besides the loss.
        """
        groups = [group for o in self.optimizers for group in o.param_groups]
        parameters = [p for group in groups for p in group["params"]]
        for group in groups:
            group["lr"] = self.progress.share * group["peak"]
        for p in parameters:
            p.grad = None
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
        self.steps += 1
        self.progress.samples += samples * self.world
        if self.world > 1 and self.steps % AVERAGE_EVERY == 0:
            self._average_ranks(parameters)
        if self.steps % 4 == 0:
            self._update_average(EMA_DECAY**4)
        self._count += 1
        for name, value in {"loss": loss, **figures}.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(
                value.detach() if isinstance(value, torch.Tensor) else value
            )
        if self.rank == 0:
            self._report()

    def _average_ranks(self, parameters: list[torch.Tensor]) -> None:
        flat = torch.cat([p.detach().reshape(-1) for p in parameters])
        dist.all_reduce(flat)
        flat /= self.world
        at = 0
        with torch.no_grad():
            for p in parameters:
                p.copy_(flat[at : at + p.numel()].view_as(p))
                at += p.numel()

    @torch.no_grad()
    def _update_average(self, decay: float) -> None:
        decay = min(decay, (1 + self.steps) / (40 + self.steps))
        for name, module in self.modules.items():
            kept = self.average[name]
            for key, value in module.state_dict().items():
                if value.is_floating_point():
                    kept[key].lerp_(value.float(), 1 - decay)
                else:
                    kept[key] = value.clone()

    def _report(self) -> None:
        now = time.monotonic()
        if now - self._logged > 20 or self.progress.done:
            figures = "  ".join(f"{k} {v / self._count:.4f}" for k, v in self._sums.items())
            seen, total = self.progress.samples, self.progress.total
            sys.stderr.write(f"{self.name}  {seen:>8,} of {total:,}  {figures}\n")
            sys.stderr.flush()
            self._logged, self._sums, self._count = now, {}, 0
        if now - self._saved > CHECKPOINT_SECONDS:
            self.save()
            self._saved = now

    def averaged(self, name: str) -> nn.Module:
        """Loads the moving average into the module of this name and returns it."""
        module = self.modules[name]
        reference = module.state_dict()
        module.load_state_dict({k: v.to(reference[k].dtype) for k, v in self.average[name].items()})
        return module.eval()


def _groups(parameters: Mapping[tuple[float, float], list[torch.Tensor]]) -> list[dict[str, Any]]:
    """Parameter groups from (peak rate, weight decay); `Stage.step` sets the rate itself."""
    return [
        {"params": some, "lr": peak, "peak": peak, "weight_decay": decay}
        for (peak, decay), some in parameters.items()
    ]


def _sizes(state: Mapping[str, Any]) -> list[int]:
    """How many parameters each group of an optimiser's state has."""
    return [len(group["params"]) for group in state["param_groups"]]


def _is_inner(name: str, parameter: torch.Tensor) -> bool:
    """Whether Muon suits a parameter: a matrix or kernel inside a network, not at its ends."""
    ends = ("embed", "conv_in", "conv_out", "projection", "vectors", "time_emb")
    return parameter.ndim > 1 and not any(end in name for end in ends)


def fast_autocast() -> torch.autocast:
    """Automatic bfloat16 where the processor has instructions for it; else plain float32.

    Without them bfloat16 is emulated, ten times slower than float32.
    """
    return torch.autocast("cpu", torch.bfloat16, enabled=_HAS_BF16)


def stratified(count: int, rng: np.random.Generator) -> torch.Tensor:
    """`count` numbers in [0, 1), one in each of as many equal parts, shuffled."""
    return torch.from_numpy(rng.permutation((np.arange(count) + rng.random(count)) / count))


def epochs(total: int, batch: int, rank: int, world: int, seed: int) -> Iterator[np.ndarray]:
    """Batches of indices for ever: each epoch a new permutation, of which a rank takes its share."""
    epoch = 0
    while True:
        order = np.random.default_rng([seed, epoch]).permutation(total)[rank::world]
        for i in range(len(order) // batch):
            yield np.sort(order[i * batch : (i + 1) * batch])
        epoch += 1


def _enter(rank: int, world: int, meeting: str, work: Callable[..., None], args: tuple) -> None:
    torch.set_num_threads(1 if not torch.cuda.is_available() else 4)
    torch.manual_seed(1_000 + rank)
    if world > 1:
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world)
    try:
        work(rank, world, *args)
    finally:
        if world > 1:
            dist.destroy_process_group()


def launch(work: Callable[..., None], world: int, *args: object) -> None:
    """Runs ``work(rank, world, *args)`` in `world` processes and waits for them."""
    with tempfile.TemporaryDirectory() as folder:
        meeting = (Path(folder) / "meeting").as_uri()
        if world == 1:
            _enter(0, 1, meeting, work, args)
        else:
            mp.spawn(_enter, (world, meeting, work, args), nprocs=world)
