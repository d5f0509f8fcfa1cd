"""Coarse pictures of a run's steps, made of the run's own numbers, with no model at hand.

A latent pixel and the colour that is decoded from it are, to a good part, related by an affine map. A finished run
shows what it is: it holds its last latents and the picture that came of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from ldm_viz.statistics import channel_maps
from ldm_viz.trajectory.frames import frame_at

if TYPE_CHECKING:
    from ldm_viz.trajectory import Trajectory

__all__ = ["preview_map", "preview_pictures"]

_RIDGE = 1e-3  # of the latents' own variance: keeps channels that hardly vary from running wild


def preview_map(planes: np.ndarray, picture: np.ndarray) -> np.ndarray:
    """Fit the affine map from a latent pixel to a colour, by least squares.

    Args:
        planes: latents ``(channels, h, w)``.
        picture: what was decoded from them, ``(height, width, 3)`` uint8.

    Returns:
        ``(channels + 1, 3)`` float64: weights, and the colour of latents that are zero, in 0..1.

    Raises:
        ValueError: the latents are not all finite.
    """
    channels, height, width = planes.shape
    if not np.isfinite(planes).all():
        raise ValueError("no colours can be learnt from latents that are NaN or infinite")
    small = Image.fromarray(picture, "RGB").resize((width, height), Image.Resampling.BOX)
    colours = np.asarray(small, np.float64).reshape(-1, 3) / 255
    pixels = planes.reshape(channels, -1).T.astype(np.float64)
    middle, mean = pixels.mean(axis=0), colours.mean(axis=0)
    centred = pixels - middle
    covariance = centred.T @ centred
    ridge = _RIDGE * max(float(np.trace(covariance)) / channels, 1e-12)
    weights = np.linalg.solve(covariance + ridge * np.eye(channels), centred.T @ (colours - mean))
    return np.vstack([weights, mean - middle @ weights])


def preview_pictures(
    trajectory: Trajectory, sample: int = 0, at: float = 0.5
) -> dict[str, np.ndarray]:
    """Pictures of the latents and of x0 at every step, as coarse as the latents themselves.

    Args:
        trajectory: the run.
        sample: position in the batch.
        at: which frame of a video, from 0 for the first to 1 for the last.

    Returns:
        ``"latents"``: ``(steps + 1, h, w, 3)`` and ``"x0"``: ``(steps, h, w, 3)``, uint8, in the
        resolution of the latents, as far as the run has them.
        Empty where the run holds no finished picture, or latents with no layout in space.
    """
    if trajectory.images is None or not trajectory.complete:
        return {}
    shape, settings = trajectory.latent_shape, trajectory.settings
    planes, _ = channel_maps(trajectory.latents[:, sample], shape, settings, at)
    if planes is None or not planes.size:
        return {}
    image = trajectory.images[sample]
    try:
        weights = preview_map(planes[-1], frame_at(image, at) if image.ndim == 4 else image)
    except ValueError:
        return {}
    scales = np.ones(len(planes))
    if trajectory.settings.get("noise_schedule") == "variance exploding":
        scales[:-1] = 1 / np.sqrt(1 + np.nan_to_num(trajectory.sigmas) ** 2)
    made = {"latents": _painted(planes * scales[:, None, None, None], weights)}
    if trajectory.x0 is not None:
        planes, _ = channel_maps(trajectory.x0[:, sample], shape, settings, at)
        if planes is not None:
            made["x0"] = _painted(planes, weights)
    return made


def _painted(planes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """``(n, c, h, w)`` latents as ``(n, h, w, 3)`` colours."""
    pixels = np.moveaxis(np.asarray(planes, np.float32), 1, -1)
    colours = pixels @ weights[:-1].astype(np.float32) + weights[-1].astype(np.float32)
    return (255 * np.nan_to_num(colours).clip(0, 1)).round().astype(np.uint8)
