"""A trajectory as the few compact bytes a view draws from: pictures, maps, charts and words.

Everything is bounded, whatever the run's size: pictures are shrunk and maps averaged until they fit. What was
given up is told in the header's notes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ldm_viz.imaging import DIVERGING_DARK, DIVERGING_LIGHT, SEQUENTIAL
from ldm_viz.statistics import step_words, video_frames
from ldm_viz.trajectory.model import steps_in_words
from ldm_viz.widgets.charts import pack_charts
from ldm_viz.widgets.maps import LATENTS, pack_maps
from ldm_viz.widgets.pictures import PictureFiles

if TYPE_CHECKING:
    from ldm_viz.trajectory import Trajectory


@dataclass(frozen=True)
class Packed:
    """What goes over the wire. Together it stays under 6 MB, so that a notebook or a page is easy to send."""

    header: dict[str, Any]  # JSON values only; says where everything in the bytes is
    pictures: PictureFiles
    maps: bytes  # unsigned integer codes, see pack_maps
    charts: bytes  # float32, little-endian
    branches: tuple[str, ...]  # noise predictions that can be shown
    channels: int  # 0 where there are no maps


def pack(
    trajectory: Trajectory,
    *,
    pictures: bool = True,
    maps: bool = True,
    charts: bool = True,
    at: float = 0.5,
    generation: int = 0,
) -> Packed:
    """Pack a run for a view.

    Args:
        trajectory: the run.
        pictures: whether the view shows pictures.
        maps: whether it shows maps.
        charts: whether it shows charts.
        at: which frame of a video is shown, from 0 for the first to 1 for the last.
        generation: how often this run has been packed before, so that a view can tell its pictures apart.

    Returns:
        Header and bytes. Of the pictures those are made that take no time.
    """
    notes: list[str] = []
    shown = trajectory if pictures else trajectory.replace(frames={}, images=None)
    files = PictureFiles(shown, at=at, generation=generation)
    notes += files.notes if pictures else []
    coded, maps_header = pack_maps(trajectory if maps else trajectory[:0], notes, at)
    curves, charts_header = pack_charts(trajectory if charts else trajectory[:0])
    steps = len(trajectory)
    if not steps:
        notes.insert(0, "No step was recorded.")
    header = {
        "steps": steps,
        "batch": trajectory.batch_size,
        "video": count_frames(trajectory),
        "samples": [_sample_text(trajectory, b) for b in range(trajectory.batch_size)],
        "facts": _facts(trajectory),
        "settings": _settings(trajectory.settings),
        "status": trajectory.status,
        "error": _cut(trajectory.error, 2000),
        "notes": notes,
        "words": [step_words(trajectory, i) for i in range(steps)],
        "prediction": _cut(trajectory.settings.get("prediction_type") or "", 40),
        "frames_source": trajectory.frames_source,
        "maps": maps_header,
        "charts": charts_header if charts else [],
        "colours": {
            "light": list(DIVERGING_LIGHT),
            "dark": list(DIVERGING_DARK),
            "sequential": list(SEQUENTIAL),
        },
    }
    names = tuple(s["name"] for s in maps_header["stacks"] if s["name"] != LATENTS)
    channels = maps_header["shape"][0] if maps_header["stacks"] else 0
    return Packed(header, files, coded, curves if charts else b"", names, channels)


def count_frames(trajectory: Trajectory) -> int:
    """How many frames a run's video has, as pictures if there are any, else as latents; 0 for pictures."""
    for every in trajectory.frames.values():
        return int(every.shape[2]) if every.ndim > 5 else 0
    return video_frames(trajectory.latent_shape, trajectory.settings)


def _cut(value: Any, limit: int) -> str:
    text = str(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _sample_text(trajectory: Trajectory, sample: int) -> dict[str, str]:
    """Prompt, negative prompt and seed of one sample."""

    def one(name: str) -> str:
        value = trajectory.settings.get(name)
        if isinstance(value, list | tuple) and value:
            value = value[min(sample * len(value) // trajectory.batch_size, len(value) - 1)]
        return "" if value is None else _cut(value, 4000)

    return {"prompt": one("prompt"), "negative": one("negative_prompt"), "seed": one("seed")}


def _facts(trajectory: Trajectory) -> list[list[str]]:
    """The settings worth a glance, as label and value; the seed comes with the sample."""
    settings = trajectory.settings
    count = steps_in_words(trajectory)
    planned = settings.get("num_inference_steps")
    whole = trajectory.part is None
    if whole and isinstance(planned, int) and planned != len(trajectory):
        count += f" ({planned} asked for)"
    facts = [["", count]]
    if settings.get("scheduler"):
        facts.insert(0, ["", _cut(settings["scheduler"], 80)])
    for name, label in (("guidance_scale", "guidance"), ("strength", "strength"), ("eta", "eta")):
        value = settings.get(name)
        if isinstance(value, int | float) and (value or name != "eta"):
            facts.append([label, f"{value:g}"])
    if settings.get("pipeline"):
        facts.append(["", _cut(settings["pipeline"], 80)])
    return facts


def _settings(settings: Mapping[str, Any]) -> list[list[str]]:
    """All settings, one line each, nested ones joined."""
    lines = []
    for name in settings:
        if name == "part":  # among the facts
            continue
        value = settings[name]
        if isinstance(value, Mapping):
            text = ", ".join(f"{key} {item}" for key, item in value.items())
        elif isinstance(value, list | tuple):
            text = ", ".join(map(str, value))
        else:
            text = str(value)
        lines.append([_cut(name, 60), _cut(text, 2000)])
    return lines
