"""Frames as they lie in a file: lossless WebP, decoded when they are looked at."""

from __future__ import annotations

import dataclasses
import math
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..imaging import decode_image, encode_image
from .container import TrajectoryFileError

_BYTES_LIMIT = 16 << 30


class StoredFrames(Mapping[str, np.ndarray]):
    """Frames by name, each array decoded when it is first asked for, and kept.

    Slicing and selecting only choose which frames will be decoded.
    """

    def __init__(self, path: Path, parts: Mapping[str, EncodedFrames]) -> None:
        self._path = path
        self._parts = dict(parts)
        self._decoded: dict[str, np.ndarray] = {}
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    def __contains__(self, name: object) -> bool:
        return name in self._parts  # Mapping's own would decode to find out

    def __getitem__(self, name: str) -> np.ndarray:
        part = self._parts[name]
        with self._lock:
            if name not in self._decoded:
                self._decoded[name] = part.decode(self._path, name)
            return self._decoded[name]

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of the decoded array, ``(n, b, h, w, 3)``, without decoding it."""
        part = self._parts[name]
        return (*part.index.shape, *part.size, 3)

    def indexed(self, keys: Mapping[str, tuple]) -> StoredFrames:
        """Chooses frames by an index into their ``(n, b)`` axes."""
        return StoredFrames(
            self._path,
            {
                n: dataclasses.replace(part, index=part.index[keys[n]])
                for n, part in self._parts.items()
            },
        )

    def encoded(self, name: str) -> list[bytes]:
        """The chosen frames' own bytes, in order."""
        part = self._parts[name]
        return [part.bytes_of(frame) for frame in part.index.ravel()]


@dataclass(frozen=True)
class EncodedFrames:
    """Frames end to end: which of them are wanted, and how large they are."""

    data: np.ndarray  # (bytes,) uint8
    offsets: np.ndarray  # (frames + 1,) int64
    index: np.ndarray  # (n, b) which frames
    size: tuple[int, int]  # height, width

    def bytes_of(self, frame: int) -> bytes:
        """One frame's file."""
        return self.data[self.offsets[frame] : self.offsets[frame + 1]].tobytes()

    def decode(self, path: Path, name: str) -> np.ndarray:
        """The wanted frames, ``(n, b, h, w, 3)``.

        Raises:
            TrajectoryFileError: One is damaged, or all are too large.
        """
        shape = (*self.index.shape, *self.size, 3)
        if math.prod(shape) > _BYTES_LIMIT:
            raise TrajectoryFileError(
                f"{path}: the frames {name!r} would take {math.prod(shape) / 2**30:.0f} GiB; "
                f"look at fewer steps: trajectory[:10].frames[{name!r}]."
            )
        pictures = []
        for frame in self.index.ravel():
            try:
                picture = decode_image(self.bytes_of(frame), max_pixels=self.size[0] * self.size[1])
            except ValueError as error:
                raise TrajectoryFileError(
                    f"{path}: frame {frame} of {name!r} is damaged: {error}"
                ) from error
            if picture.shape != shape[2:]:
                raise TrajectoryFileError(
                    f"{path}: frame {frame} of {name!r} has shape {picture.shape}, "
                    f"expected {shape[2:]}."
                )
            pictures.append(picture)
        array = np.stack(pictures).reshape(shape) if pictures else np.zeros(shape, np.uint8)
        array.flags.writeable = False
        return array


def encode_frames(
    frames: Mapping[str, np.ndarray], name: str
) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """One array of frames as WebP end to end, where each begins, and ``[height, width]``."""
    if isinstance(frames, StoredFrames):
        pictures, size = frames.encoded(name), frames.shape(name)[2:4]
    else:
        array = frames[name]
        size = array.shape[2:4]
        pictures = [encode_image(picture) for picture in array.reshape(-1, *array.shape[2:])]
    offsets = np.cumsum([0, *map(len, pictures)], dtype=np.int64)
    return np.frombuffer(b"".join(pictures), np.uint8), offsets, list(size)


def index_frames(
    frames: Mapping[str, np.ndarray], keys: Mapping[str, tuple]
) -> Mapping[str, np.ndarray]:
    """Indexes frames, by name, without decoding those of a file."""
    if isinstance(frames, StoredFrames):
        return frames.indexed(keys)
    return {name: array[keys[name]] for name, array in frames.items()}


def frame_size(frames: Mapping[str, np.ndarray]) -> tuple[int, int]:
    """Height and width of frames, without decoding them."""
    name = next(iter(frames))
    shape = frames.shape(name) if isinstance(frames, StoredFrames) else frames[name].shape
    return shape[2], shape[3]
