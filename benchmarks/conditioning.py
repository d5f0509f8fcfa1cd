"""How quickly the conditioning lab draws what was changed, and that no request ever waits in a queue.

The lab of the embedded model, twice. In this process times run from the moment the kernel hears of
a change to the moment the picture is handed to the browser: first, changes one at a time; then a
drag, thirty changes a second. After each single change the bare pipeline draws the same, to tell what
the lab adds from how quick the machine just is. In a real JupyterLab a slider is dragged with the mouse, and times run
from its release to the first frame that holds a coarse picture, and the new one.

    python benchmarks/conditioning.py
    taskset -c 0,1 python benchmarks/conditioning.py --threads 2 --json conditioning.json
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

import numpy as np
import torch
from machine import Load, processor
from PIL import Image

import ldm_viz as lv
from ldm_viz.tiny.drawing import draw
from ldm_viz.tiny.scenes import Scene

MOST_SECONDS = 1.0
MOST_PREVIEW = 0.2
DRAG = 60  # changes
DRAG_RATE = 30.0  # a second


def condition_of(pipe: Any, result: Any) -> dict[str, Any]:
    """What the bare pipeline takes, to draw what the lab has drawn."""
    return lv.condition(pipe, result.embedding, guidance_scale=result.guidance_scale)


SETUP = """import numpy as np, torch
from PIL import Image
import ldm_viz as lv
from ldm_viz.tiny.drawing import draw
from ldm_viz.tiny.scenes import Scene

torch.set_num_threads({threads})
scene = Scene("boat", "blue", "day", "water", "large", "centre")
boat = Image.fromarray(draw(scene, np.random.default_rng(1)))
pipe = lv.load_tiny(adapter=True)"""
LAB = """lab = lv.ConditioningLab(
    pipe, 'image("boat") - "day" + "night"', {{"boat": boat}}, steps={steps}
)
lab"""
WATCH = """(canvas) => {
  const told = { released: NaN, preview: NaN, picture: NaN };
  window.told = told;
  const painted = (name) => requestAnimationFrame(() => requestAnimationFrame((now) => {
    told[name] = now;
  }));
  const slider = document.querySelector('input[type=range][aria-label="Weight of night"]');
  slider.addEventListener("change", () => {
    told.released = performance.now();
    told.preview = told.picture = NaN;
    told.waiting = true;
  });
  new MutationObserver(() => {
    if (!told.waiting) return;
    const wanted = document.querySelector(".ldm-lab textarea").value;
    if (canvas.dataset.preview) { if (!told.seen) painted("preview"); told.seen = true; }
    else if (canvas.dataset.of === wanted) { painted("picture"); told.waiting = told.seen = false; }
  }).observe(canvas, { attributes: true });
}"""


def measure_browser(options: argparse.Namespace) -> dict[str, Any]:
    """Drags the slider of a weight in a real JupyterLab, and watches the lab's picture."""
    from browser import open_chromium, open_lab, open_watched, run_notebook

    places = np.random.default_rng(5).uniform(0.6, 1.0, options.changes)
    releases = []
    with (
        tempfile.TemporaryDirectory() as folder,
        open_lab(Path(folder)) as server,
        open_chromium() as browser,
        open_watched(browser, offline=False, viewport={"width": 1280, "height": 1300}) as watched,
    ):
        cells = SETUP.format(threads=options.threads), LAB.format(steps=options.steps)
        server.write_notebook("lab.ipynb", *cells)
        page = watched.page
        run_notebook(
            page, server.address("lab.ipynb"), ".ldm-lab .ldm-near-pictures li:nth-child(6)"
        )
        canvas = page.locator(".ldm-lab-result canvas")
        canvas.evaluate(WATCH)
        box = page.get_by_role("slider", name="Weight of night").bounding_box()
        load = Load()
        for place in places:
            middle = box["y"] + box["height"] / 2
            page.mouse.move(box["x"] + box["width"] * 0.5, middle)
            page.mouse.down()
            page.mouse.move(box["x"] + box["width"] * place, middle, steps=12)
            page.mouse.up()
            # Asked for now and then: asked for in each frame, the browser would draw sixty frames a
            # second, on the cores that the model needs.
            for _ in range(600):
                page.wait_for_timeout(100)
                told = page.evaluate("[told.released, told.preview, told.picture]")
                if not np.isnan(told[2]):
                    break
            releases.append(dict(zip(("released", "preview", "picture"), told, strict=True)))
            page.wait_for_timeout(400)
    return {
        "load": load.read(),
        "seconds": [(told["picture"] - told["released"]) / 1e3 for told in releases],
        "preview_seconds": [
            (told["preview"] - told["released"]) / 1e3
            for told in releases
            if not np.isnan(told["preview"])
        ],
    }


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measures everything."""
    torch.set_num_threads(options.threads)
    scene = Scene("boat", "blue", "day", "water", "large", "centre")
    boat = Image.fromarray(draw(scene, np.random.default_rng(1)))
    pipe = lv.load_tiny(adapter=True)
    lab = lv.ConditioningLab(pipe, 'image("boat")', {"boat": boat}, steps=options.steps)
    lab.wait()
    load = Load()
    seconds, previews, bare = [], [], []
    for change in range(options.changes):
        lab.expression = f'image("boat") - "day" + {0.5 + change / options.changes:.3f} * "night"'
        result = lab.wait()
        seconds.append(result.seconds)
        previews.append(result.preview_seconds)
        begun = time.perf_counter()
        pipe(**condition_of(pipe, result), num_inference_steps=options.steps)
        bare.append(time.perf_counter() - begun)
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
        "bare_seconds": bare,
        "drag": {
            "asked": lab._drawer.asked - asked,
            "begun": lab._drawer.begun - begun,
            "drawn": len(lab.history) - drawn,
            "last_is_the_last": last.expression == lab.expression,
            "lag": lag,
        },
    }
    lab.close()
    if options.browser:
        found["browser"] = measure_browser(options)
    return found


def rows_of(found: dict[str, Any]) -> list[str]:
    """A line each on new and on coarse pictures."""
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
    return rows


def report(found: dict[str, Any]) -> str:
    """All figures as text."""
    drag = found["drag"]
    rows = [f"in the kernel:  {row}" for row in rows_of(found)]
    bare = np.array(found["bare_seconds"])
    ratio = np.median(np.array(found["seconds"]) / bare)
    rows.append(
        f"the bare pipeline after each: median {np.median(bare):.3f} s; the lab takes {ratio:.2f} times as long"
    )
    if "browser" in found:
        rows += [f"in JupyterLab:  {row}" for row in rows_of(found["browser"])]
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
    parser.add_argument("--no-browser", dest="browser", action="store_false")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to a file")
    options = parser.parse_args()
    found = measure(options)
    print(report(found))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
