"""Judges the embedded model: ``python -m ldm_viz.tiny.judge``.

Objects are told by a classifier trained on drawings alone, which knows a class for pictures with no
clean object; everything else is measured on the pixels. Both are first tried on fresh drawings, so
that their own errors are in the report.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ldm_viz.tiny.captions import caption, plain
from ldm_viz.tiny.checks import measure
from ldm_viz.tiny.classifier import NO_CLEAN_OBJECT, ObjectClassifier
from ldm_viz.tiny.drawing import draw
from ldm_viz.tiny.loading import GUIDANCE, STEPS, WEIGHTS, load_joint_space, load_tiny
from ldm_viz.tiny.scenes import ATTRIBUTES, Scene, random_scene

_BATCH = 25

TARGETS: dict[str, float] = {
    "seen.object": 0.98,
    "seen.colour": 0.98,
    "seen.object and colour": 0.97,
    "seen.time": 0.99,
    "seen.ground": 0.98,
    "seen.size": 0.97,
    "seen.position": 0.92,
    "seen.exactly one object": 0.97,
    "held out.object and colour": 0.90,
    "autoencoder.psnr": 32.0,
    "joint space.zero-shot object": 0.95,
    "joint space.zero-shot colour": 0.99,
    "joint space.retrieval at 1": 0.95,
    "image alone.object and colour": 0.85,
    "checks on drawings.object": 0.99,
}
"""What the model is meant to reach."""

_SCHEDULERS = {
    "PNDM": "PNDMScheduler",
    "LMS": "LMSDiscreteScheduler",
    "Euler": "EulerDiscreteScheduler",
    "DPM++ 2M": "DPMSolverMultistepScheduler",
}


@dataclass(frozen=True)
class Verdict:
    """How well pictures show their scenes: the share that is right, by attribute."""

    shares: dict[str, float]
    wrong: list[int]
    """Indices of the pictures whose object or colour is wrong, or that show no clean object."""


def judge_pictures(
    pictures: np.ndarray, scenes: Sequence[Scene], classifier: ObjectClassifier
) -> Verdict:
    """Compares pictures with the scenes they should show.

    Args:
        pictures: (n, 64, 64, 3) uint8.
        scenes: What each should show.
        classifier: Names the objects.
    """
    names = classifier.classify(pictures)
    right: dict[str, list[bool]] = {name: [] for name in ATTRIBUTES}
    single = []
    for picture, scene, name in zip(pictures, scenes, names, strict=True):
        measured = measure(picture, scene.object)
        right["object"].append(name == scene.object)
        for attribute in ("colour", "time", "ground", "size", "position"):
            right[attribute].append(getattr(measured, attribute) == getattr(scene, attribute))
        single.append(name != NO_CLEAN_OBJECT and measured.patches == 1)
    both = np.logical_and(right["object"], right["colour"])
    shares = {name: float(np.mean(values)) for name, values in right.items()}
    shares["object and colour"] = float(both.mean())
    shares["exactly one object"] = float(np.mean(single))
    return Verdict(shares, np.flatnonzero(~both).tolist())


def scenes_and_prompts(
    count: int, seed: int, *, held_out: bool | None
) -> tuple[list[Scene], list[str]]:
    """Random scenes with captions that say all of each."""
    rng = np.random.default_rng([seed, 77])
    scenes = [random_scene(rng, held_out=held_out) for _ in range(count)]
    return scenes, [caption(scene, rng, say=ATTRIBUTES).text for scene in scenes]


def generate(
    pipe: Any, prompts: Sequence[str], seed: int, note: Callable[[int], None] = lambda n: None
) -> np.ndarray:
    """Generates a picture a prompt, each from a seed of its own: (n, 64, 64, 3) uint8."""
    parts = []
    for i in range(0, len(prompts), _BATCH):
        some = list(prompts[i : i + _BATCH])
        generators = [
            torch.Generator().manual_seed(seed * 100_003 + i + j) for j in range(len(some))
        ]
        parts.append(
            pipe(
                some,
                num_inference_steps=STEPS,
                guidance_scale=GUIDANCE,
                generator=generators,
                output_type="np",
            ).images
        )
        note(i + len(some))
    return np.rint(np.concatenate(parts) * 255).astype(np.uint8)


def _drawings(count: int, seed: int) -> tuple[np.ndarray, list[Scene]]:
    pictures, scenes = [], []
    for i in range(count):
        rng = np.random.default_rng([seed, 5, i])
        scenes.append(random_scene(rng, held_out=None))
        pictures.append(draw(scenes[-1], rng))
    return np.stack(pictures), scenes


@torch.no_grad()
def reconstruct(vae: Any, pictures: np.ndarray) -> np.ndarray:
    """Pictures through the autoencoder and back, (n, 64, 64, 3) uint8."""
    parts = []
    for i in range(0, len(pictures), 50):
        x = torch.from_numpy(pictures[i : i + 50]).permute(0, 3, 1, 2).float() / 127.5 - 1
        y = vae.decode(vae.encode(x).latent_dist.mode()).sample.clamp(-1, 1)
        parts.append(((y + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy())
    return np.concatenate(parts)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB, the mean over pictures."""
    squared = ((a.astype(float) - b) ** 2).mean((1, 2, 3))
    return float((10 * np.log10(255**2 / np.maximum(squared, 1e-6))).mean())


def judge_joint(count: int, seed: int) -> dict[str, float]:
    """Zero-shot classification and retrieval on fresh drawings of the training's pairs."""
    space = load_joint_space()
    rng = np.random.default_rng([seed, 9])
    scenes = [random_scene(rng) for _ in range(count)]
    pictures = [Image.fromarray(draw(scene, rng)) for scene in scenes]
    normalize = torch.nn.functional.normalize
    images = normalize(space.embed_images(pictures), dim=1)

    def read(texts: list[str]) -> torch.Tensor:
        return normalize(space.embed_texts(texts), dim=1)

    figures = {}
    for attribute, form in (("object", "a {}"), ("colour", "a {} object")):
        values = list(ATTRIBUTES[attribute])
        best = (images @ read([form.format(v) for v in values]).T).argmax(1).tolist()
        right = [values[b] == getattr(s, attribute) for b, s in zip(best, scenes, strict=True)]
        figures[f"zero-shot {attribute}"] = float(np.mean(right))
    # Scenes with all six attributes alike are one caption: finding either of them is right.
    best = (images @ read([plain(scene) for scene in scenes]).T).argmax(1).tolist()
    figures["retrieval at 1"] = float(
        np.mean([scenes[b] == s for b, s in zip(best, scenes, strict=True)])
    )
    return figures


@torch.no_grad()
def generate_from_images(pictures: np.ndarray, seed: int) -> np.ndarray:
    """A picture from each picture's embedding alone, the prompt empty: (n, 64, 64, 3) uint8."""
    pipe, made = load_tiny(adapter=True), []
    for i, picture in enumerate(pictures):
        result = pipe(
            "",
            ip_adapter_image=Image.fromarray(picture),
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            generator=torch.Generator().manual_seed(seed * 100_003 + i),
        )
        made.append(np.asarray(result.images[0]))
    return np.stack(made)


def contact_sheet(pictures: np.ndarray, columns: int, path: Path) -> None:
    """Writes pictures as a PNG grid, twice enlarged."""
    rows = -(-len(pictures) // columns)
    blank = np.zeros((rows * columns - len(pictures), *pictures.shape[1:]), np.uint8)
    tiles = np.concatenate([pictures, blank]).reshape(rows, columns, *pictures.shape[1:])
    grid = tiles.swapaxes(1, 2).reshape(rows * 64, columns * 64, 3)
    image = Image.fromarray(grid)
    image.resize((image.width * 2, image.height * 2), Image.Resampling.NEAREST).save(path)


def _seconds_a_picture(pipe: Any) -> float:
    """Median wall time of one guided picture of 25 steps."""
    times = []
    for _ in range(6):
        start = time.perf_counter()
        pipe("a red boat on water", num_inference_steps=STEPS, guidance_scale=GUIDANCE)
        times.append(time.perf_counter() - start)
    return float(np.median(times[1:]))


def judge(count: int, seed: int, folder: Path) -> dict[str, dict[str, float]]:
    """Measures everything and writes contact sheets.

    Args:
        count: Prompts for the seen pairs; half as many for the held-out ones and the images.
        seed: Chooses scenes, words and noise; none of training's.
        folder: Where ``report.json`` and the contact sheets go.

    Returns:
        Section -> figure -> value.
    """
    folder.mkdir(parents=True, exist_ok=True)
    classifier = ObjectClassifier.load(WEIGHTS / "judge" / "classifier.safetensors")
    report: dict[str, dict[str, float]] = {}

    def tell(section: str, figures: dict[str, float]) -> None:
        report[section] = figures
        for name, value in figures.items():
            target = TARGETS.get(f"{section}.{name}")
            aim = "" if target is None else f"   aim {target:g}"
            missed = "   MISSED" if target is not None and value < target else ""
            sys.stdout.write(f"{section + ': ' + name:<44} {value:8.3f}{aim}{missed}\n")
        sys.stdout.flush()

    real, real_scenes = _drawings(max(count, 500), seed)
    tell("checks on drawings", judge_pictures(real, real_scenes, classifier).shares)
    contact_sheet(real[:96], 16, folder / "real.png")

    pipe = load_tiny()
    tell("speed", {f"seconds for {STEPS} guided steps": _seconds_a_picture(pipe)})
    back = reconstruct(pipe.vae, real[:500])
    tell("autoencoder", {"psnr": psnr(real[:500], back)})
    contact_sheet(back[:96], 16, folder / "reconstructed.png")

    scenes, prompts = scenes_and_prompts(count, seed, held_out=False)
    made = generate(pipe, prompts, seed)
    seen = judge_pictures(made, scenes, classifier)
    tell("seen", seen.shares)
    contact_sheet(made[:96], 16, folder / "generated.png")
    if seen.wrong:
        contact_sheet(made[seen.wrong[:48]], 16, folder / "wrong.png")

    others, words = scenes_and_prompts(count // 2, seed + 1, held_out=True)
    unseen = generate(pipe, words, seed + 1)
    tell("held out", judge_pictures(unseen, others, classifier).shares)
    contact_sheet(unseen[:96], 16, folder / "held_out.png")

    import diffusers

    ddim = pipe.scheduler
    fewer = max(100, count // 4)
    start = judge_pictures(made[:fewer], scenes[:fewer], classifier).shares
    for name, kind in _SCHEDULERS.items():
        pipe.scheduler = getattr(diffusers, kind).from_config(ddim.config)
        result = judge_pictures(generate(pipe, prompts[:fewer], seed), scenes[:fewer], classifier)
        lost = {k: result.shares[k] - start[k] for k in ("object and colour", "exactly one object")}
        tell(f"{name} less DDIM", lost)
    pipe.scheduler = ddim

    if (WEIGHTS / "joint_text").exists():
        tell("joint space", judge_joint(500, seed))
        pictures, pictured = [], []
        rng = np.random.default_rng([seed, 11])
        for _ in range(count // 4):
            pictured.append(random_scene(rng))
            pictures.append(draw(pictured[-1], rng))
        remade = generate_from_images(np.stack(pictures), seed)
        tell("image alone", judge_pictures(remade, pictured, classifier).shares)
        pairs = np.stack([np.stack(pictures[:48]), remade[:48]], 1).reshape(-1, 64, 64, 3)
        contact_sheet(pairs, 16, folder / "image_alone.png")
    (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    return report


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line; the exit status is 1 where a target is missed."""
    parser = argparse.ArgumentParser(prog="python -m ldm_viz.tiny.judge", description=__doc__)
    parser.add_argument("--prompts", type=int, default=500, help="prompts for the seen pairs")
    parser.add_argument("--seed", type=int, default=int(time.time()) % 1_000_000)
    parser.add_argument("--out", type=Path, default=Path("judged"), help="folder for the sheets")
    options = parser.parse_args(arguments)
    if options.prompts < 20:
        parser.error(f"--prompts is {options.prompts}; at least 20 are needed")
    report = judge(options.prompts, options.seed, options.out)
    missed = False
    for key, target in TARGETS.items():
        section, figure = key.split(".", 1)
        missed |= report.get(section, {}).get(figure, 0.0) < target
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
