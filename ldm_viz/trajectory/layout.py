"""What a trajectory file holds, version 2.

A trajectory is one `safetensors <https://github.com/huggingface/safetensors>`_ file: eight bytes
(the header's length, little-endian), a JSON header, then the tensors' bytes. Any safetensors reader
opens it. With ``n`` steps and a batch of ``b`` it holds

- ``latents``, ``(n + 1, b, ...)``, F16, F32 or F64;
- ``timesteps``, ``sigmas``, ``snrs``, ``wall_times``, ``(n,)``, F64;
- ``x0``, ``step_outputs``, ``(n, b, ...)``, where there are any;
- ``noise_prediction.<branch>``, ``(n, b, ...)``, one for each branch there is;
- ``images``, ``(b, h, w, 3)`` or, of a video, ``(b, f, h, w, 3)``, U8, where there are any;
- ``frames.<name>.data``, ``(bytes,)``, U8, and ``frames.<name>.offsets``, ``(frames + 1,)``, I64:
  lossless WebP files end to end, and where each begins; ``step * b + sample`` counts the frames.
  Of a video each frame has ``f`` files, in order.

The header's ``__metadata__`` holds three strings: ``format`` (``"ldm_viz.trajectory"``),
``version`` (``"1"``, or ``"2"`` where there is a video) and ``trajectory``, a JSON object with ``settings``, ``status``, ``error``,
``x0_source``, ``frames_source``, ``noise_prediction`` (the branches, in order) and ``frames``
(``{name: [height, width]}``, of a video ``[f, height, width]``).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from .container import (
    TrajectoryFileError,
    parse_json,
    read_safetensors,
    shorten,
    write_safetensors,
)
from .frames import EncodedFrames, FrameSeries, encode_frames

if TYPE_CHECKING:
    from .model import Trajectory

FORMAT = "ldm_viz.trajectory"
VERSION = 2

_SIDE_LIMIT = 16383  # WebP's own


_PER_STEP = ("timesteps", "sigmas", "snrs", "wall_times")
_OPTIONAL = ("x0", "step_outputs", "images")
_DESCRIBED = {
    "settings": dict,
    "status": str,
    "error": str,
    "x0_source": str,
    "frames_source": str,
    "noise_prediction": list,
    "frames": dict,
}


def write_trajectory(path: Path, trajectory: Trajectory, frames: bool) -> None:
    """Writes a trajectory, with or without its frames.

    Raises:
        OSError: It cannot be written; nothing is left behind.
    """
    tensors = {name: getattr(trajectory, name) for name in ("latents", *_PER_STEP, *_OPTIONAL)}
    for branch, values in trajectory.noise_prediction.items():
        tensors[f"noise_prediction.{branch}"] = values
    sizes = {}
    for name in trajectory.frames if frames else ():
        data, offsets, sizes[name] = encode_frames(trajectory.frames[name])
        tensors[f"frames.{name}.data"], tensors[f"frames.{name}.offsets"] = data, offsets
    description = {
        "settings": dict(trajectory.settings),
        "status": trajectory.status,
        "error": trajectory.error,
        "x0_source": trajectory.x0_source,
        "frames_source": trajectory.frames_source if frames else "",
        "noise_prediction": list(trajectory.noise_prediction),
        "frames": sizes,
    }
    images = trajectory.images
    video = any(len(size) > 2 for size in sizes.values()) or (
        images is not None and images.ndim > 4
    )
    write_safetensors(
        path,
        {name: array for name, array in tensors.items() if array is not None},
        {
            "format": FORMAT,
            "version": "2" if video else "1",
            "trajectory": json.dumps(description),
        },
    )


def read_fields(path: Path) -> dict[str, Any]:
    """Reads a trajectory's fields from its file, checking every claim before it is used.

    Args:
        path: The file.

    Returns:
        Arguments for a :class:`Trajectory`, whose own checks are still to come.

    Raises:
        OSError: It cannot be read.
        TrajectoryFileError: It is not a trajectory's, is damaged, or is newer than this.
    """
    tensors, metadata = read_safetensors(path)
    if metadata.get("format") != FORMAT:
        names = ", ".join(sorted(tensors)[:4]) or "nothing"
        raise TrajectoryFileError(
            f"{path}: a safetensors file, but not a trajectory: it holds {shorten(names, 80)} and "
            f"says format {shorten(metadata.get('format'), quote=True)}, expected {FORMAT!r} as "
            "written by Trajectory.save."
        )
    version = metadata.get("version", "")
    if not (version.isascii() and version.isdigit() and len(version) < 6):
        raise TrajectoryFileError(
            f"{path}: format version {shorten(version, quote=True)}, expected a number."
        )
    if int(version) > VERSION:
        raise TrajectoryFileError(
            f"{path}: written in format version {version}; this ldm_viz reads up to {VERSION}. "
            "Upgrade ldm_viz to open it."
        )
    description = parse_json(path, metadata.get("trajectory", ""), "description")
    for name, kind in _DESCRIBED.items():
        if not isinstance(description.get(name), kind):
            raise TrajectoryFileError(
                f"{path}: the description's {name!r} is missing or not a {kind.__name__}."
            )

    def tensor(name: str) -> np.ndarray:
        if name not in tensors:
            raise TrajectoryFileError(f"{path}: the tensor {shorten(name, quote=True)} is missing.")
        return tensors[name]

    told = ("settings", "status", "error", "x0_source", "frames_source")
    fields: dict[str, Any] = {name: description[name] for name in told}
    fields |= {name: tensor(name) for name in ("latents", *_PER_STEP)}
    fields |= {name: tensors.get(name) for name in _OPTIONAL}
    fields["noise_prediction"] = {
        str(branch): tensor(f"noise_prediction.{branch}")
        for branch in description["noise_prediction"]
    }
    fields["frames"] = {}
    for name, size in description["frames"].items():
        data, offsets = tensor(f"frames.{name}.data"), tensor(f"frames.{name}.offsets")
        fields["frames"][name] = _checked_frames(
            path, name, size, data, offsets, batch=fields["latents"].shape[1:2]
        )
    return fields


def _checked_frames(
    path: Path, name: str, size: Any, data: np.ndarray, offsets: np.ndarray, batch: tuple[int, ...]
) -> FrameSeries:
    def refuse(reason: str) -> NoReturn:
        raise TrajectoryFileError(f"{path}: the frames {shorten(name, quote=True)} {reason}.")

    if not (
        isinstance(size, list)
        and len(size) in (2, 3)
        and all(type(side) is int and 0 < side <= _SIDE_LIMIT for side in size)
    ):
        refuse(f"claim the size {shorten(size)}, expected [height, width] of at most {_SIDE_LIMIT}")
    if (
        data.dtype != np.uint8
        or data.ndim != 1
        or offsets.dtype != np.int64
        or offsets.ndim != 1
        or not len(offsets)
    ):
        refuse("are not stored as bytes with offsets")
    if offsets[0] != 0 or offsets[-1] != len(data) or np.any(np.diff(offsets) < 0):
        refuse("have offsets that do not cover their bytes")
    files, each = len(offsets) - 1, size[0] if len(size) == 3 else 1
    frames = files // each
    if files % each or not batch or not batch[0] or frames % batch[0]:
        refuse(f"are {files}, which no number of steps fits")
    source = EncodedFrames(path, name, data, offsets, tuple(size))
    return FrameSeries(source, np.arange(frames).reshape(-1, batch[0]))
