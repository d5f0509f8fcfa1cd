"""A look at one step of a run while it goes on: a small picture of x0 and the latents' spread."""

from __future__ import annotations

from typing import Any

import numpy as np

from ldm_viz.capture.autoencoders import channels_of, is_autoencoder, unwrapped
from ldm_viz.capture.finding import find_decoding, holds_pixels, run_layout
from ldm_viz.capture.linear import fit_map, known_map
from ldm_viz.capture.run import LiveStep
from ldm_viz.capture.scaling import Decoding
from ldm_viz.capture.storage import to_array
from ldm_viz.latent_layouts import LatentLayout
from ldm_viz.trajectory import Trajectory

LONGEST_SIDE = 128
"""Pixels of a preview's longer side, at most: of larger latents every second, third ... is taken."""

MOST_CHANNELS = 16
"""Of latents with more, one spread over all of them is told."""


class Glimpse:
    """Makes small pictures and figures of steps, by little arithmetic.

    Args:
        pipe: Whose steps they are.
        settings: Of the call, such as ``height`` and ``width``.
    """

    def __init__(self, pipe: Any, settings: dict[str, Any]) -> None:
        self._pipe = pipe
        known = ("height", "width")
        self._settings = {name: settings[name] for name in known if settings.get(name) is not None}
        self._layouts: dict[tuple[int, ...], LatentLayout | None] = {}
        self._weights: dict[tuple[int, ...], np.ndarray | None] = {}

    def prepare(self) -> None:
        """Fits the map from latents to colours before the run begins, if that was not done before.

        The shape of the run's latents is not known yet, but the map does not depend on it.
        """
        for channels in _channels(self._pipe):
            decoding = find_decoding(self._pipe, _standing_in((channels, 8, 8), {}))
            if decoding is not None and known_map(decoding.vae) is None:
                try:
                    fit_map(decoding, _scale(self._pipe))
                finally:
                    if getattr(self._pipe, "_all_hooks", None):
                        self._pipe.maybe_free_model_hooks()

    def picture(self, live: LiveStep) -> np.ndarray | None:
        """The first sample's predicted clean picture, coarsely; None where there is no way to it.

        Args:
            live: The step.

        Returns:
            ``(h, w, 3)`` uint8, of a pixel for each of the latents'.
        """
        shape = self._look(live)
        weights = self._weights[shape]
        x0 = None if weights is None else live.predict_x0(slice(1))
        if x0 is None or weights is None:
            return None
        planes = _still(self._layouts[shape], to_array(x0)[0])
        step = -(-max(planes.shape[-2:]) // LONGEST_SIDE)
        planes = planes[:, ::step, ::step].astype(np.float32)
        with np.errstate(invalid="ignore", over="ignore"):
            colours = np.tensordot(planes, weights[:-1], (0, 0)) + weights[-1]
            return (np.nan_to_num(colours).clip(-1, 1) * 127.5 + 127.5).round().astype(np.uint8)

    def spread(self, live: LiveStep) -> np.ndarray:
        """Standard deviation of the first sample's latents.

        Args:
            live: The step.

        Returns:
            ``(channels,)`` float32; ``(1,)``, over all of them, where they are many.
        """
        shape = self._look(live)
        latents, layout = to_array(live.latents[:1])[0], self._layouts[shape]
        if layout is not None:
            latents = layout.unpack(latents)
        elif latents.ndim == 2:
            latents = latents.T  # tokens with channels last
        values = latents.reshape(len(latents) if latents.ndim > 1 else 1, -1)
        values = values if len(values) <= MOST_CHANNELS else values.reshape(1, -1)
        with np.errstate(invalid="ignore", over="ignore"):
            return values.std(axis=1, dtype=np.float32)

    def _look(self, live: LiveStep) -> tuple[int, ...]:
        """Finds, once for each shape, how latents are laid out and what their colours are."""
        shape = tuple(live.latents.shape[1:])
        if shape in self._weights:
            return shape
        dtype = str(live.latents.dtype).removeprefix("torch.")
        standing_in = _standing_in(shape, {**self._settings, "dtype": dtype})
        self._weights[shape] = None
        self._layouts[shape] = run_layout(standing_in)
        if holds_pixels(self._pipe, standing_in):
            self._weights[shape] = _as_pixels(shape[0])
            return shape
        decoding = find_decoding(self._pipe, standing_in)
        if decoding is not None:
            self._layouts[shape] = decoding.layout
            self._weights[shape] = _known_weights(decoding)
        return shape


def _known_weights(decoding: Decoding) -> np.ndarray | None:
    weights = known_map(decoding.vae)
    return None if weights is None else weights.astype(np.float32)


def _standing_in(shape: tuple[int, ...], settings: dict[str, Any]) -> Trajectory:
    """A run without steps, to ask what becomes of latents of a shape."""
    nothing = np.zeros(0)
    return Trajectory(
        np.zeros((1, 1, *shape), np.float32), nothing, nothing, nothing, settings=settings
    )


def _channels(pipe: Any) -> list[int]:
    """Channels of the latents of each autoencoder that a pipeline has, where it says."""
    vaes = [unwrapped(part) for part in vars(pipe).values() if is_autoencoder(part)]
    return [channels for vae in vaes if (channels := channels_of(vae)) is not None]


def _scale(pipe: Any) -> int:
    """Pixels of a picture's side for one of the latents'."""
    found = getattr(pipe, "vae_scale_factor", None)
    return found if isinstance(found, int) else 8


def _as_pixels(channels: int) -> np.ndarray:
    """The map of what are pixels already."""
    same = np.eye(3) if channels == 3 else np.ones((1, 3))
    return np.concatenate([same, np.zeros((1, 3))]).astype(np.float32)


def _still(layout: LatentLayout | None, latents: np.ndarray) -> np.ndarray:
    """One sample's planes ``(c, h, w)``; of a video those of the frame in the middle."""
    if layout is None:
        return latents
    planes = layout.unpack(latents)
    return planes[:, planes.shape[1] // 2] if layout.is_video else planes
