"""How quickly the conditioning lab draws what was changed, and that no request ever waits in a queue.

The lab of the embedded model, in this process: its times run from the moment the kernel hears of a
change to the moment the picture is handed to the browser. A change in the browser takes some ten
milliseconds more each way. First, changes one at a time; then a drag, thirty changes a second.

    python benchmarks/conditioning.py
    taskset -c 0,1 python benchmarks/conditioning.py --threads 2 --json conditioning.json
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from PIL import Image
from scrubbing import Load, processor

import ldm_viz as lv
from ldm_viz.tiny.drawing import draw
from ldm_viz.tiny.scenes import Scene

MOST_SECONDS = 1.0
MOST_PREVIEW = 0.2
DRAG = 60  # changes
DRAG_RATE = 30.0  # a second


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measures everything."""
    torch.set_num_threads(options.threads)
    scene = Scene("boat", "blue", "day", "water", "large", "centre")
    boat = Image.fromarray(draw(scene, np.random.default_rng(1)))
    pipe = lv.load_tiny(adapter=True)
    lab = lv.ConditioningLab(pipe, 'image("boat")', {"boat": boat}, steps=options.steps)
    lab.wait()
    load = Load()
    seconds, previews = [], []
    for change in range(options.changes):
        lab.expression = f'image("boat") - "day" + {0.5 + change / options.changes:.3f} * "night"'
        result = lab.wait()
        seconds.append(result.seconds)
        previews.append(result.preview_seconds)
        time.sleep(0.1)
    asked, begun, drawn = lab._drawer.asked, lab._drawer.begun, len(lab.history)
    for change in range(DRAG):
        lab.expression = f'image("boat") + {change / DRAG:.4f} * "night"'
        time.sleep(1 / DRAG_RATE)
    released = time.perf_counter()
    last = lab.wait()
    lag = time.perf_counter() - released
    found = {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "threads": options.threads,
        "torch": torch.__version__,
        "steps": options.steps,
        "load": load.read(),
        "seconds": seconds,
        "preview_seconds": previews,
        "drag": {
            "asked": lab._drawer.asked - asked,
            "begun": lab._drawer.begun - begun,
            "drawn": len(lab.history) - drawn,
            "last_is_the_last": last.expression == lab.expression,
            "lag": lag,
        },
    }
    lab.close()
    return found


def report(found: dict[str, Any]) -> str:
    """All figures as text."""
    drag = found["drag"]
    rows = []
    for name, key, most in (
        ("new picture", "seconds", MOST_SECONDS),
        ("first coarse picture", "preview_seconds", MOST_PREVIEW),
    ):
        times = np.array(found[key])
        median = float(np.median(times))
        rows.append(
            f"{name:22} median {median:.3f} s, 95th percentile {np.percentile(times, 95):.3f} s"
            f"   aim {most:g} s{'' if median <= most else '   MISSED'}"
        )
    return "\n".join(
        [
            "{processor}, {cores} cores, {threads} torch threads, torch {torch}, {steps} steps; "
            "others kept {others:.2f} cores busy".format(
                others=found["load"]["cores_of_others"], **found
            ),
            *rows,
            (
                f"a drag of {drag['asked']} changes: {drag['begun']} begun, {drag['drawn']} drawn to the "
                f"end; the last one {drag['lag']:.2f} s after the release, and it is "
                f"{'the last asked for' if drag['last_is_the_last'] else 'NOT THE LAST'}"
            ),
        ]
    )


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description="Measures how quickly the lab draws.")
    parser.add_argument("--changes", type=int, default=25)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to a file")
    options = parser.parse_args()
    found = measure(options)
    print(report(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
