"""Stage 1: the pictures, drawn once, and the latents they become."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from ldm_viz.tiny.drawing import SIZE, draw
from ldm_viz.tiny.scenes import ATTRIBUTES, random_scene

_CHUNK = 2_000


def _draw_chunk(seed: int, start: int, stop: int) -> tuple[int, np.ndarray, np.ndarray]:
    pictures = np.empty((stop - start, SIZE, SIZE, 3), np.uint8)
    attributes = np.empty((stop - start, len(ATTRIBUTES)), np.int64)
    for i in range(start, stop):
        rng = np.random.default_rng([seed, i])
        scene = random_scene(rng)
        pictures[i - start] = draw(scene, rng)
        attributes[i - start] = scene.indices()
    return start, pictures, attributes


def make_pictures(folder: Path, count: int, seed: int, ranks: int) -> None:
    """Draws `count` scenes into `folder`, unless they are there.

    Writes ``pictures.npy`` (count, 64, 64, 3) uint8 and ``attributes.npy`` (count, 6) int64. The
    i-th picture depends on the seed and i alone. Held-out pairs never occur.
    """
    done = folder / "attributes.npy"
    if done.exists() and len(np.load(done, mmap_mode="r")) == count:
        return
    pictures = np.lib.format.open_memmap(
        folder / "pictures.npy", "w+", np.uint8, (count, SIZE, SIZE, 3)
    )
    attributes = np.empty((count, len(ATTRIBUTES)), np.int64)
    starts = range(0, count, _CHUNK)
    with ProcessPoolExecutor(ranks) as pool:
        stops = (min(s + _CHUNK, count) for s in starts)
        for start, some, values in pool.map(_draw_chunk, [seed] * len(starts), starts, stops):
            pictures[start : start + len(some)] = some
            attributes[start : start + len(some)] = values
    pictures.flush()
    np.save(done, attributes)


def load_pictures(folder: Path) -> tuple[np.ndarray, np.ndarray]:
    """The pictures and attributes `make_pictures` wrote, memory-mapped."""
    return np.load(folder / "pictures.npy", mmap_mode="r"), np.load(folder / "attributes.npy")
