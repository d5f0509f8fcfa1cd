"""Pictures of a run's steps, decoded when they are looked at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from tqdm.auto import tqdm

from ..trajectory import FrameSeries, Trajectory
from ..trajectory.frames import FrameSource
from .calls import DecoderCall
from .decoders import METHODS, Decoder, make_decoder
from .finding import find_decoding
from .predictions import EXPLODING
from .scaling import Decoding


def check_method(frames: Any) -> None:
    """Refuses what cannot decode.

    Raises:
        ValueError: It is text, and not the name of a method.
        TypeError: It is neither text, nor a module with ``decode``, nor a function.
    """
    if frames is None or (isinstance(frames, str) and frames in METHODS):
        return
    if isinstance(frames, str):
        raise ValueError(
            f"frames must be 'exact', 'linear', an AutoencoderTiny, a function or None, not {frames!r}."
        )
    if not callable(frames):
        raise TypeError(
            "frames must be 'exact', 'linear', an AutoencoderTiny or a function of latents, not a "
            f"{type(frames).__name__}."
        )


def decode_frames(
    pipe: Any,
    trajectory: Trajectory,
    method: Any = "exact",
    *,
    progress: bool = True,
    calls: Sequence[DecoderCall] = (),
    decoding: Decoding | None = None,
) -> Trajectory:
    """Returns the trajectory with a picture of the latents and of x0 for every step.

    A picture is decoded when it is looked at. The last latents are decoded as the pipeline does it,
    in a batch of the same shape, so that the last frame is the pipeline's own picture to the bit.
    Draws no random number from torch's own generators.

    Args:
        pipe: A pipeline with the autoencoder that belongs to these latents.
        trajectory: What to decode.
        method: ``"exact"`` by the pipeline's own decoder; ``"linear"`` by a map from latents to
            colours fitted to it by least squares; a small autoencoder such as diffusers'
            ``AutoencoderTiny``; or a function that takes latents ``(n, channels, h, w)``, float32, as
            the denoiser knows them, and returns ``(n, h, w, 3)`` uint8 or as many PIL pictures.
        progress: Whether decoding many shows a progress bar.
        calls: What the pipeline itself decoded at the end of this run, where that was seen.
        decoding: How the latents are decoded, where that was found before.

    Raises:
        ValueError: The latents are not those of pictures, or of this pipeline's autoencoder.
    """
    check_method(method)
    decoding = decoding or find_decoding(pipe, trajectory, calls)
    decoder = make_decoder(pipe, trajectory, method, decoding)
    sets = {"latents": _Latents(trajectory.latents, _scales(trajectory))}
    if trajectory.x0 is not None and len(trajectory):
        sets["x0"] = _Latents(trajectory.x0, None)
    frames = {}
    for name, values in sets.items():
        numbers = np.arange(len(values) * values.batch).reshape(-1, values.batch)
        own = decoder.decode_last if name == "latents" else decoder.decode
        frames[name] = FrameSeries(_DecodedFrames(decoder, values, own, progress), numbers)
    return trajectory.replace(frames=frames, frames_source=decoder.source)


class _Latents:
    """Latents of all steps, each in the variance-preserving scale, and the last as it is."""

    def __init__(self, values: np.ndarray, scales: np.ndarray | None) -> None:
        self._values, self._scales = values, scales
        self.batch = values.shape[1]

    def __len__(self) -> int:
        return len(self._values)

    def read(self, numbers: Sequence[int]) -> np.ndarray:
        """Samples by number, ``step * batch + sample``."""
        places = [divmod(number, self.batch) for number in numbers]
        found = np.stack([self._values[place] for place in places])
        if self._scales is not None:
            scales = self._scales[[step for step, _ in places]]
            scales = scales.reshape(-1, *[1] * (found.ndim - 1))
            found = (found * scales).astype(found.dtype)
        return found


def _scales(trajectory: Trajectory) -> np.ndarray | None:
    if trajectory.settings.get("noise_schedule") != EXPLODING:
        return None
    return np.append(1 / np.sqrt(1 + np.nan_to_num(trajectory.sigmas) ** 2), 1.0)


class _DecodedFrames(FrameSource):
    """Pictures decoded from latents when they are looked at, several at a time.

    The last step's are always decoded together and alone, as the pipeline does it.
    """

    def __init__(
        self, decoder: Decoder, latents: _Latents, decode_last: Any, progress: bool
    ) -> None:
        super().__init__()
        self._decoder, self._latents, self._progress = decoder, latents, progress
        self._decode_last = decode_last
        self._shape = decoder.picture_shape
        self.costly = decoder.source in ("exact", "tiny", "custom")
        if decoder.coarse is not None:
            smaller = decoder.coarse
            self.coarse = _DecodedFrames(smaller, latents, smaller.decode, progress)

    @property
    def picture_shape(self) -> tuple[int, ...]:  # type: ignore[override]
        """Shape of one picture; where it cannot be foreseen, the last one is decoded to see."""
        if self._shape is None:
            last = len(self._latents) * self._latents.batch - 1
            self._shape = self._read([last])[0].shape
        return self._shape

    def make(self, numbers: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Decodes, a part at a time."""
        batch, decoder = self._latents.batch, self._decoder
        last_step = len(self._latents) - 1
        steps = {number // batch for number in numbers} - {last_step}
        if decoder.whole_batches:
            parts = [[step * batch + k for k in range(batch)] for step in sorted(steps)]
        else:
            before = [number for number in numbers if number // batch in steps]
            at_once = decoder.at_once
            parts = [before[i : i + at_once] for i in range(0, len(before), at_once)]
        if any(number // batch == last_step for number in numbers):
            parts.append([last_step * batch + k for k in range(batch)])
        total = sum(map(len, parts))
        hidden = self.quiet or not self._progress or total <= batch
        with tqdm(total=total, desc="Decoding frames", leave=False, disable=hidden) as bar:
            for part in parts:
                decode = self._decode_last if part[0] // batch == last_step else decoder.decode
                pictures = decode(self._latents.read(part))
                if len(pictures) != len(part):
                    raise ValueError(
                        f"The decoder returned {len(pictures)} pictures for {len(part)} latents."
                    )
                yield from zip(part, pictures, strict=True)
                bar.update(len(part))
