"""Runs made from arithmetic alone: a scene that emerges from noise, shaped like a recorded trajectory."""

from __future__ import annotations

from typing import Any

import numpy as np

from ldm_viz.trajectory import Trajectory


def scene(side: int, shift: float = 0.0) -> np.ndarray:
    """A sunset over water, shape (side, side, 3), float in 0..1."""
    y, x = np.mgrid[0:side, 0:side] / side
    sky = np.stack([0.98 - 0.25 * y, 0.55 + 0.3 * y, 0.42 + 0.1 * y + 0.25 * (0.5 - y)], axis=-1)
    waves = 0.04 * np.sin(40 * y + 6 * np.sin(9 * x))
    sea = np.stack([0.10 + waves, 0.32 + waves + 0.1 * y, 0.48 + waves + 0.1 * y], axis=-1)
    picture = np.where(y[..., None] > 0.62, sea, sky)
    sun = np.hypot(x - 0.62 + shift, y - 0.45) < 0.16
    picture[sun & (y <= 0.62)] = (1.0, 0.87, 0.45)
    hull = (np.abs(x - 0.36 + shift) < 0.17 - 1.2 * np.maximum(y - 0.62, 0)) & (
        np.abs(y - 0.66) < 0.05
    )
    mast = (np.abs(x - 0.36 + shift) < 0.012) & (y > 0.34) & (y < 0.62)
    sail = (x > 0.375 - shift) & (x - 0.375 + shift < 0.55 * (y - 0.34)) & (y > 0.34) & (y < 0.58)
    picture[hull] = (0.72, 0.14, 0.16)
    picture[mast] = (0.25, 0.16, 0.12)
    picture[sail] = (0.97, 0.95, 0.92)
    return picture.clip(0, 1)


def pooled(picture: np.ndarray, side: int) -> np.ndarray:
    """Area mean of a square picture down to ``side``."""
    factor = len(picture) // side
    return picture.reshape(side, factor, side, factor, 3).mean(axis=(1, 3))


def make_trajectory(
    steps: int = 25,
    *,
    side: int = 64,
    factor: int = 4,
    channels: int = 4,
    batch: int = 1,
    frames: bool = True,
    branches: bool = True,
    x0: bool = True,
    seed: int = 0,
    dtype: Any = np.float32,
    **changes: Any,
) -> Trajectory:
    """A run of a made-up model on DDIM's schedule, with pictures ``side`` wide."""
    random = np.random.default_rng(seed)
    latent_side = side // factor
    pictures = [scene(side, 0.08 * b) for b in range(batch)]
    mix = np.random.default_rng(5).normal(size=(3, channels))
    clean = np.stack(
        [np.moveaxis((pooled(p, latent_side) - 0.5) @ mix * 2.2, -1, 0) for p in pictures]
    )
    noise = random.normal(size=clean.shape)
    grain = [random.normal(size=(side, side, 3)) for _ in range(batch)]
    stride = 1000 // max(steps, 1)
    timesteps = np.arange(steps)[::-1] * float(stride) + 1
    alphas = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
    abar = np.append(alphas[timesteps.astype(int)], 1.0) if steps else np.array([alphas[-1]])
    known = 1 - np.sqrt(1 - abar)[:, None, None, None, None] * 0.85
    blurred = clean.mean(axis=(-2, -1), keepdims=True) * 0.6
    predicted = known * clean + (1 - known) * (blurred + 0.2 * noise)
    a, s = (np.sqrt(v)[:, None, None, None, None] for v in (abar, 1 - abar))
    latents = a * predicted + s * (noise + 0.6 * (1 - known) * (blurred - clean))
    guided = (latents - a * predicted)[:steps] / np.maximum(s[:steps], 1e-3)
    push = 0.1 * (clean - blurred) * s[:steps] + 0.02 * random.normal(size=guided.shape)
    drawn: dict[str, np.ndarray] = {}
    if frames:

        def draw(weights: np.ndarray, noisy: bool) -> np.ndarray:
            out = np.empty((len(weights), batch, side, side, 3), np.uint8)
            for i, w in enumerate(weights):
                for b, picture in enumerate(pictures):
                    flat = picture.mean(axis=(0, 1))
                    mixed = w * picture + (1 - w) * flat
                    if noisy:
                        mixed = np.sqrt(abar[i]) * mixed + np.sqrt(1 - abar[i]) * (
                            0.5 + 0.25 * grain[b]
                        )
                    out[i, b] = (255 * mixed.clip(0, 1)).round()
            return out

        drawn = {"latents": draw(known.ravel(), True), "x0": draw(known.ravel()[:steps], False)}
        if not x0:
            del drawn["x0"]
    fields: dict[str, Any] = {
        "latents": latents.astype(dtype),
        "timesteps": timesteps,
        "sigmas": np.sqrt((1 - abar) / abar)[:steps],
        "snrs": (abar / np.maximum(1 - abar, 1e-12))[:steps],
        "x0": predicted[:steps].astype(dtype) if x0 else None,
        "x0_source": "scheduler" if x0 else "",
        "noise_prediction": {
            "unconditional": (guided - 5 * push).astype(dtype),
            "conditional": (guided - 4 * push).astype(dtype),
            "guided": guided.astype(dtype),
        }
        if branches
        else {},
        "frames": drawn,
        "frames_source": "exact" if frames else "",
        "images": drawn["latents"][-1] if frames else None,
        "wall_times": np.arange(1, steps + 1) * 0.04,
        "settings": {
            "pipeline": "StableDiffusionPipeline",
            "prompt": "a red boat on the water at sunset"
            if batch == 1
            else [f"a red boat on the water at sunset, number {b}" for b in range(batch)],
            "negative_prompt": "",
            "seed": 7,
            "num_inference_steps": steps,
            "guidance_scale": 5.0,
            "eta": 0.0,
            "height": side,
            "width": side,
            "scheduler": "DDIMScheduler",
            "scheduler_config": {"beta_schedule": "scaled_linear", "prediction_type": "epsilon"},
            "prediction_type": "epsilon",
            "noise_schedule": "variance preserving",
            "versions": {"ldm_viz": "0.1.0", "diffusers": "0.42.0", "torch": "2.13.0"},
            "device": "cpu",
            "dtype": "float32",
        },
        "status": "complete",
        "error": "",
    }
    fields.update(changes)
    return Trajectory(**fields)
