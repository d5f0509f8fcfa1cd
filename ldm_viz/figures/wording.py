"""Words of a run in figures: cut to a length, and escaped, because plotly reads its texts as markup."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ldm_viz.statistics import format_timestep, step_words
from ldm_viz.trajectory.model import steps_in_words

if TYPE_CHECKING:
    from ldm_viz.trajectory import Trajectory

# Pixels of a letter of a quiet line, in the widest of the usual fonts.
LETTER = 7.2

# Plotly draws <b> or <a href> in a text as markup and, where MathJax is loaded, $…$ as a formula.
_ENTITIES = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;", "$": "&#36;"})


def plain(value: Any, limit: int = 80) -> str:
    """A value as one line of text that plotly shows as it is.

    Args:
        value: what is shown; line breaks become spaces.
        limit: characters; a longer text is cut with an ellipsis.
    """
    text = " ".join(str(value).split()).encode("utf-8", "replace").decode()
    return (text if len(text) <= limit else text[: limit - 1] + "…").translate(_ENTITIES)


def prompt_words(run: Trajectory, sample: int) -> str:
    """The prompt of one sample, not cut and not escaped; empty where there is none."""
    prompt = run.select(sample).settings.get("prompt")
    if isinstance(prompt, list):
        prompt = ", ".join(map(str, prompt))
    return " ".join(str(prompt or "").split())


def facts(run: Trajectory, sample: int, width: float = 880) -> list[str]:
    """The run in quiet lines: prompt, scheduler, guidance, steps, seed; escaped.

    Args:
        run: the run.
        sample: position in the batch.
        width: pixels that a line may take.
    """
    settings = run.select(sample).settings
    letters = int(width / LETTER)
    parts = []
    if prompt := prompt_words(run, sample):
        parts.append(f"“{plain(prompt, max(16, min(72, letters - 2)))}”")
    if settings.get("scheduler"):
        parts.append(plain(settings["scheduler"], 32))
    guidance = settings.get("guidance_scale")
    if isinstance(guidance, int | float) and not isinstance(guidance, bool):
        parts.append(f"guidance {guidance:g}")
    parts.append(steps_in_words(run))
    if isinstance(settings.get("seed"), int):
        parts.append(f"seed {settings['seed']}")
    if run.batch_size > 1:
        parts.append(f"sample {sample} of {run.batch_size}")
    if not run.complete:
        parts.append(run.status)
    return _lines(parts, letters)


def _lines(parts: Sequence[str], letters: int) -> list[str]:
    """Parts joined into lines of so many letters, broken between parts only."""
    lines = [parts[0]]
    for part in parts[1:]:
        joined = f"{lines[-1]} · {part}"
        if len(html.unescape(joined)) > letters:
            lines.append(part)
        else:
            lines[-1] = joined
    return lines


def timestep_words(run: Trajectory, position: int) -> str:
    """The timestep of a position, ``–`` where it has none: after the last step, or unknown."""
    if position >= len(run) or run.timesteps[position] != run.timesteps[position]:
        return "–"
    return format_timestep(run.timesteps[position])


def position_words(run: Trajectory, position: int) -> str:
    """Where a position stands; that after the last step is what the run ended with."""
    return step_words(run, position) if position < len(run) else "after the last step"
