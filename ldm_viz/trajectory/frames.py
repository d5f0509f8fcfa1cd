"""Pictures of a run that are made when they are looked at, and how they lie in a file."""

from __future__ import annotations

import math
import threading
from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from ..imaging import decode_image, encode_image
from .container import TrajectoryFileError

_ARRAY_LIMIT = 16 << 30  # bytes of one array of pictures
_CACHE_LIMIT = 1 << 30  # bytes of pictures that a source keeps
_READ_LIMIT = 1 << 28  # bytes of pictures that are made before the first is handed on


class FrameSource(ABC):
    """Makes the pictures of one series, each when it is asked for, and keeps what fits.

    Attributes:
        picture_shape: Shape of one picture, ``(h, w, 3)``, or ``(f, h, w, 3)`` for a video.
        costly: Whether a model has to run to make one.
        coarse: The same pictures in the resolution of what they are made from, where they are an
            enlargement of those; else None.
        quiet: Whether no progress is shown.
    """

    picture_shape: tuple[int, ...]
    costly: bool = False
    coarse: FrameSource | None = None
    quiet: bool = False

    def __init__(self) -> None:
        self._kept: OrderedDict[int, np.ndarray] = OrderedDict()
        self._bytes = 0
        self._lock = threading.RLock()

    @abstractmethod
    def make(self, numbers: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Makes pictures, uint8 of ``picture_shape``; may give others than those asked for too."""

    @contextmanager
    def quietly(self) -> Iterator[None]:
        """Shows no progress inside the block."""
        before, self.quiet = self.quiet, True
        try:
            yield
        finally:
            self.quiet = before

    def read(self, numbers: Sequence[int]) -> Iterator[np.ndarray]:
        """The pictures of these numbers, in order."""
        at_once = max(1, _READ_LIMIT // max(1, math.prod(self.picture_shape)))
        for begin in range(0, len(numbers), at_once):
            yield from self._read(numbers[begin : begin + at_once])

    def _read(self, numbers: Sequence[int]) -> list[np.ndarray]:
        with self._lock:
            found = {k: self._kept[k] for k in numbers if k in self._kept}
            missing = [k for k in dict.fromkeys(numbers) if k not in found]
            for number, picture in self.make(missing) if missing else ():
                picture.flags.writeable = False
                found[number] = picture
                self._keep(number, picture)
            return [found[k] for k in numbers]

    def _keep(self, number: int, picture: np.ndarray) -> None:
        if number in self._kept or picture.nbytes > _CACHE_LIMIT:
            return
        self._kept[number] = picture
        self._bytes += picture.nbytes
        while self._bytes > _CACHE_LIMIT:
            self._bytes -= self._kept.popitem(last=False)[1].nbytes

    def encoded(self, numbers: Sequence[int]) -> Iterator[bytes]:
        """The files of these pictures, lossless WebP; of a video, one each video frame."""
        for picture in self.read(numbers):
            for image in picture.reshape(-1, *picture.shape[-3:]):
                yield encode_image(image)


class FrameSeries(NDArrayOperatorsMixin):
    """Pictures ``(n, b, h, w, 3)`` uint8, made when they are looked at; of videos ``(n, b, f, h, w, 3)``.

    It is indexed as an array is, and gives arrays; only the pictures that an index names are made.
    ``np.asarray(series)`` makes them all, and so does whatever else an array can do.
    """

    dtype = np.dtype(np.uint8)

    def __init__(self, source: FrameSource, numbers: np.ndarray) -> None:
        self.source = source
        self.numbers = numbers  # (n, b) which of the source's pictures

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of all pictures together, without making them."""
        return (*self.numbers.shape, *self.source.picture_shape)

    @property
    def ndim(self) -> int:
        """Axes of all pictures together."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Values of all pictures together."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of all pictures together, once they are made."""
        return self.size

    def __len__(self) -> int:
        return len(self.numbers)

    def __iter__(self) -> Iterator[np.ndarray]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, key: Any) -> np.ndarray:
        keys = key if isinstance(key, tuple) else (key,)
        if any(k is Ellipsis for k in keys):
            place = next(i for i, k in enumerate(keys) if k is Ellipsis)
            fill = (slice(None),) * (self.ndim - len(keys) + 1)
            keys = (*keys[:place], *fill, *keys[place + 1 :])
        if any(k is None for k in keys):
            return np.asarray(self)[keys]
        head, tail = keys[:2], keys[2:]
        numbers = self.numbers[head]
        if numbers.ndim == 0:
            return next(self.source.read([int(numbers)]))[tail]
        return self._stack(numbers, tail)

    def _stack(self, numbers: np.ndarray, tail: tuple) -> np.ndarray:
        whole = self.source.picture_shape
        picture = np.empty(0, np.uint8).reshape(0, *whole)[(slice(None), *tail)].shape[1:]
        if (total := numbers.size * math.prod(picture)) > _ARRAY_LIMIT:
            raise MemoryError(
                f"These {numbers.size} pictures of {'×'.join(map(str, picture))} would take "
                f"{total / 2**30:.0f} GiB; look at fewer at once, for example frames['x0'][:10]."
            )
        array = np.empty((numbers.size, *picture), np.uint8)
        flat = [int(k) for k in numbers.ravel()]
        for place, made in enumerate(self.source.read(flat)):
            array[place] = made[tail]
        array = array.reshape(*numbers.shape, *picture)
        array.flags.writeable = False
        return array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = self._stack(self.numbers, ())
        return array if dtype is None or dtype == array.dtype else array.astype(dtype)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        arrays = [np.asarray(i) if isinstance(i, FrameSeries) else i for i in inputs]
        return getattr(ufunc, method)(*arrays, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or not hasattr(np.ndarray, name):
            raise AttributeError(f"a FrameSeries has no attribute {name!r}")
        return getattr(np.asarray(self), name)

    def __repr__(self) -> str:
        return f"FrameSeries of shape {self.shape}, made when looked at"

    def __reduce__(self) -> tuple:
        return np.asarray, (np.asarray(self),)

    @property
    def costly(self) -> bool:
        """Whether a model has to run to make a picture."""
        return self.source.costly

    @property
    def coarse(self) -> FrameSeries | None:
        """The pictures before they were enlarged, where that is all the difference; else None."""
        source = self.source.coarse
        return None if source is None else FrameSeries(source, self.numbers)

    def indexed(self, key: tuple) -> FrameSeries:
        """Chooses pictures by an index into the ``(n, b)`` axes, without making them."""
        return FrameSeries(self.source, self.numbers[key])

    def encoded(self) -> list[bytes]:
        """The pictures' files, in order."""
        return list(self.source.encoded([int(k) for k in self.numbers.ravel()]))


class EncodedFrames(FrameSource):
    """Pictures as they lie in a trajectory file: lossless WebP files end to end.

    Args:
        path: The file, for messages.
        name: The series' name, for messages.
        data: ``(bytes,)`` uint8, the files end to end.
        offsets: ``(files + 1,)`` int64, where each begins.
        size: ``(height, width)``, or ``(frames, height, width)`` for a video.
    """

    def __init__(
        self, path: Path, name: str, data: np.ndarray, offsets: np.ndarray, size: tuple[int, ...]
    ) -> None:
        super().__init__()
        self.picture_shape = (*size, 3)
        self._where = f"{path}: frame"
        self._name, self._data, self._offsets = name, data, offsets
        self._each = size[0] if len(size) == 3 else 1

    def encoded(self, numbers: Sequence[int]) -> Iterator[bytes]:
        """The files' own bytes."""
        for number in numbers:
            for place in range(number * self._each, (number + 1) * self._each):
                yield self._data[self._offsets[place] : self._offsets[place + 1]].tobytes()

    def make(self, numbers: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Decodes.

        Raises:
            TrajectoryFileError: One is damaged.
        """
        height, width = self.picture_shape[-3:-1]
        for number in numbers:
            images = []
            for file in self.encoded([number]):
                what = f"{self._where} {number} of {self._name!r}"
                try:
                    image = decode_image(file, max_pixels=height * width)
                except ValueError as error:
                    raise TrajectoryFileError(f"{what} is damaged: {error}") from error
                if image.shape != (height, width, 3):
                    raise TrajectoryFileError(
                        f"{what} has shape {image.shape}, expected {(height, width, 3)}."
                    )
                images.append(image)
            yield number, np.stack(images).reshape(self.picture_shape)


def encode_frames(frames: np.ndarray | FrameSeries) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """A series as WebP end to end, where each begins, and its size as in :class:`EncodedFrames`."""
    if isinstance(frames, FrameSeries):
        files = frames.encoded()
    else:
        files = [encode_image(image) for image in frames.reshape(-1, *frames.shape[-3:])]
    offsets = np.cumsum([0, *map(len, files)], dtype=np.int64)
    return np.frombuffer(b"".join(files), np.uint8), offsets, list(frames.shape[2:-1])


def index_frames(frames: Mapping[str, Any], keys: Mapping[str, tuple]) -> dict[str, Any]:
    """Indexes series, by name, by their first axes, without making pictures."""
    return {
        name: series.indexed(keys[name]) if isinstance(series, FrameSeries) else series[keys[name]]
        for name, series in frames.items()
    }


def middle_frame(pictures: Any) -> np.ndarray:
    """Of videos ``(..., f, h, w, 3)`` the frame in the middle, ``(..., h, w, 3)``."""
    return pictures[(*(slice(None),) * (pictures.ndim - 4), pictures.shape[-4] // 2)]


def frame_at(video: np.ndarray, at: float) -> np.ndarray:
    """Of a video ``(f, h, w, 3)`` the frame at a place from 0, its first, to 1, its last."""
    return video[math.floor(at * (len(video) - 1) + 0.5)]
