"""The container of a trajectory file: tensors and text in the safetensors format.

Written straight from memory, whole or not at all; read by mapping the file, without trusting it.
"""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "U8": "|u1"}
DTYPE_NAMES = {np.dtype(code): name for name, code in _DTYPES.items()}
_HEADER_LIMIT = 64 << 20


class TrajectoryFileError(ValueError):
    """A file that is not a readable trajectory; says which, what was found and what expected."""


def write_safetensors(
    path: Path, tensors: Mapping[str, np.ndarray], metadata: Mapping[str, str]
) -> None:
    """Writes tensors and metadata to a file that appears whole or not at all.

    Raises:
        OSError: It cannot be written; what was there before is untouched.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; give the path of a file to write")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} to write {path.name} into")
    # Widest first keeps every tensor aligned to its item size, as safetensors' own writer does.
    order = sorted(tensors, key=lambda name: (-tensors[name].dtype.itemsize, name))
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    end = 0
    for name in order:
        array = tensors[name]
        begin, end = end, end + array.nbytes
        dtype = DTYPE_NAMES[array.dtype]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    part = path.with_name(f".ldm_viz-{os.getpid()}-{threading.get_ident()}.part")
    try:
        with part.open("wb") as file:
            file.write(len(text).to_bytes(8, "little"))
            file.write(text)
            for name in order:
                dtype = _DTYPES[DTYPE_NAMES[tensors[name].dtype]]  # little-endian everywhere
                array = np.ascontiguousarray(tensors[name].astype(dtype, copy=False))
                file.write(array.reshape(-1).view(np.uint8).data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException as error:
        part.unlink(missing_ok=True)
        if isinstance(error, OSError):
            error.add_note(f"Nothing was written to {path}; the trajectory is whole in memory.")
        raise


def read_safetensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Tensors of a file, as read-only views of the mapped file, and its metadata.

    Raises:
        OSError: It cannot be read.
        TrajectoryFileError: It is not a safetensors file, or is damaged.
    """
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        start = file.read(8)
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > min(size - 8, _HEADER_LIMIT):
            raise TrajectoryFileError(
                f"{path}: not a trajectory, or cut short: {size} bytes beginning with {start!r}, "
                "expected a safetensors file as written by Trajectory.save."
            )
        header = parse_json(path, file.read(length), "header")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise TrajectoryFileError(f"{path}: the header's metadata is not text.")
    begin, room = 8 + length, size - 8 - length
    contents = np.asarray(np.memmap(path, np.uint8, mode="r"))
    if len(contents) != size:
        raise TrajectoryFileError(f"{path}: the file changed while it was being opened.")
    tensors = {}
    for name, entry in header.items():
        try:
            dtype, shape = np.dtype(_DTYPES[entry["dtype"]]), entry["shape"]
            first, last = entry["data_offsets"]
            sound = len(shape) <= 16 and all(
                type(number) is int and 0 <= number < 1 << 62 for number in (first, last, *shape)
            )
        except (KeyError, TypeError, ValueError):
            sound = False
        if not sound or last - first != math.prod(shape) * dtype.itemsize:
            raise TrajectoryFileError(
                f"{path}: the header's entry for {shorten(name, quote=True)} makes no sense."
            )
        if last > room:
            raise TrajectoryFileError(
                f"{path}: cut short: {shorten(name, quote=True)} ends at byte {begin + last} of a "
                f"file of {size}."
            )
        tensors[name] = contents[begin + first : begin + last].view(dtype).reshape(shape)
    return tensors, metadata


def parse_json(path: Path, text: str | bytes, what: str) -> dict[str, Any]:
    """The JSON object that is ``what`` in a file; its text may be anything."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise TrajectoryFileError(
            f"{path}: not a trajectory, or damaged: the {what} is not JSON ({error})."
        ) from None
    if not isinstance(value, dict):
        raise TrajectoryFileError(
            f"{path}: the {what} is a {type(value).__name__}, expected an object."
        )
    return value


def shorten(value: Any, limit: int = 60, quote: bool = False) -> str:
    """A value as text on one line, cut short; prompts may hold line breaks and worse."""
    text = json.dumps(value, ensure_ascii=False)[:200] if isinstance(value, list) else str(value)
    text = text if len(text) <= limit else text[: limit - 1] + "…"
    return repr(text) if quote else repr(text)[1:-1]
