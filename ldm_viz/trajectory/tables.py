"""A trajectory for those who analyse: arrays with names on their axes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ..latent_layouts import LatentLayout

if TYPE_CHECKING:
    from .model import Trajectory

_PLAIN = {
    "planes": ("channel", "y", "x"),
    "video": ("channel", "frame", "y", "x"),
    "video, frames first": ("frame", "channel", "y", "x"),
    "video, channels last": ("frame", "y", "x", "channel"),
}


def to_dataset(trajectory: Trajectory) -> Any:
    """The trajectory as an ``xarray.Dataset``; see :meth:`Trajectory.to_xarray`."""
    try:
        import xarray
    except ImportError as error:
        raise ImportError(
            "to_xarray needs the package xarray; install it with: pip install xarray"
        ) from error
    latent = ("batch", *_axes(trajectory))
    arrays = {"latents": (("position", *latent), trajectory.latents)}
    for name in ("x0", "step_outputs"):
        if (values := getattr(trajectory, name)) is not None:
            arrays[name] = (("step", *latent), values)
    for branch, values in trajectory.noise_prediction.items():
        name = "noise_prediction_" + branch.replace(" ", "_")
        arrays[name] = (("step", *latent), values)
    steps = {
        "timestep": trajectory.timesteps,
        "sigma": trajectory.sigmas,
        "snr": trajectory.snrs,
        "wall_time": trajectory.wall_times,
    }
    return xarray.Dataset(
        arrays,
        coords={name: ("step", values) for name, values in steps.items()},
        attrs={
            "status": trajectory.status,
            "error": trajectory.error,
            "x0_source": trajectory.x0_source,
            "settings": json.dumps(dict(trajectory.settings)),
        },
    )


def _axes(trajectory: Trajectory) -> tuple[str, ...]:
    shape = trajectory.latent_shape
    told = LatentLayout.read(trajectory.settings.get("latent_layout"))
    axes = _PLAIN.get(told.name if told is not None else "planes", ())
    return axes if len(axes) == len(shape) else tuple(f"axis_{i}" for i in range(len(shape)))
