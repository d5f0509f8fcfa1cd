"""How quickly the steps of a run follow a key, in JupyterLab: the explorer beside other ways.

One notebook in a real JupyterLab, in headless Chromium, shows the same run of 50 steps at 512x512
in each of these ways, a cell each:

- explorer: ``lv.explore(run)``, with all its panels;
- interact: ``ipywidgets.interact``, which draws a PIL picture for each value of a slider;
- image: an ``ipywidgets.Image`` that gets its bytes, encoded before, from an observed slider;
- plotly: a plotly ``FigureWidget`` whose heatmap (a latent channel) follows an observed slider;
- stack: a ``Stack`` of all pictures as ``Image`` widgets, linked in the browser to a slider and a
  ``Play``, so that the kernel has no part in it.

A key press is a real one: the browser is given an arrow key, at a random moment of its frame, while
the way's slider has the focus. Time begins with the event's own time stamp. It ends, the same for
all ways, in two places:

- painted: the browser has painted the first frame that holds the new picture. In every frame's
  animation callback a message is posted, which arrives when the frame's callbacks, layout and
  painting are done; whether the picture is new is looked at there. Frames that began before the key
  do not count. (What a way changes in the fraction of a millisecond between a later frame's
  painting and the message passes for painted one frame too early. The explorer draws when the key
  comes or in animation callbacks, so that can only help the others.)
- next frame: the begin of the first animation frame after that. By then the browser has handed the
  painted frame on. It is later by up to one frame, so at 60 frames a second even a view that
  draws in the first frame there is has a median of 25 ms.

A picture is new when

- explorer: ``data-step`` of the view, and of every canvas on its stage that has one, is the new
  step. Each is set right after the drawing. That the pixels differ then is checked once;
- interact, image, stack: the ``img`` has another source than before, and has loaded it;
- plotly: the heatmap's ``image`` has another source. Its loading cannot be seen, and is left out.

Before that, every way is led through all its steps once. The ways take turns in rounds of shuffled
order, and only one is in sight at a time.

    python benchmarks/scrubbing.py
    python benchmarks/scrubbing.py --ways explorer stack --presses 100 --json scrubbing.json

Needs Chromium and the packages of the "test" extra, and plotly with its widgets for that way.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).resolve().parent
sys.path[:0] = [str(BENCHMARKS.parent), str(BENCHMARKS.parent / "tests")]

import numpy as np
from machine import Load, processor
from PIL import Image
from trajectories import make_trajectory, scene

STEPS = 50
SIDE = 512
SEED = 7
OPENINGS = 5  # of the explorer
FRAME = 1 / 60  # seconds
REPEAT = 1 / 30  # seconds between the presses of a key that is held
DRAG_SECONDS = 2.0
SLOW_FRAME = 34.0  # ms, two frames
WINDOW = {"width": 1280, "height": 1000}

MOST_MEDIAN = 17.0  # ms
MOST_P95 = 34.0
LEAST_RATIO = 10.0
MOST_STATE = 6e6  # bytes
MOST_PAGE = 8e6
MOST_CODE = 60e3
MOST_OPENING = 1.0  # seconds

# The notebook

SETUP = f"""import io, json, sys, time
sys.path.append({str(BENCHMARKS)!r})
import ipywidgets as widgets
from IPython.display import display
from PIL import Image
from scrubbing import make_run

import ldm_viz as lv

run = make_run()
last = len(run) - 1
frames = run.frames["latents"][: len(run), 0]
tops = {{}}
def encode(frame):
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "png")
    return file.getvalue()"""

EXPLORER = """called, clock = time.time(), time.perf_counter()
explorer = lv.explore(run)
seconds = time.perf_counter() - clock
with open("openings.jsonl", "a") as file:
    print(json.dumps({"called": called, "seconds": seconds}), file=file)
tops["explorer"] = [explorer]
explorer"""

INTERACT = """@widgets.interact(step=(0, last))
def show(step=0):
    return Image.fromarray(frames[step])
tops["interact"] = [show.widget]"""

IMAGE = """encoded = [encode(frame) for frame in frames]
slider, picture = widgets.IntSlider(max=last), widgets.Image(value=encoded[0])
slider.observe(lambda change: picture.set_trait("value", encoded[change.new]), "value")
tops["image"] = [widgets.VBox([slider, picture])]
display(*tops["image"])"""

PLOTLY = """import plotly.graph_objects as go
latents = run.latents[:, 0, 0, ::-1]
trace = go.Heatmap(z=latents[0], zmin=-4, zmax=4, colorscale="RdBu")
heatmap = go.FigureWidget(trace, layout={"width": 560, "height": 520})
slider = widgets.IntSlider(max=last)
slider.observe(lambda change: heatmap.data[0].update(z=latents[change.new]), "value")
tops["plotly"] = [widgets.VBox([slider, heatmap])]
display(*tops["plotly"])"""

STACK = """slider, play = widgets.IntSlider(max=last), widgets.Play(max=last)
stack = widgets.Stack([widgets.Image(value=encode(frame)) for frame in frames], selected_index=0)
links = [
    widgets.jslink((slider, "value"), (stack, "selected_index")),
    widgets.jslink((play, "value"), (slider, "value")),
]
tops["stack"] = [widgets.VBox([widgets.HBox([play, slider]), stack]), *links]
display(tops["stack"][0])"""

PAYLOAD = """import base64
from ipywidgets.embed import dependency_state

def wire_bytes(entry):
    text = len(json.dumps(entry["state"]).encode())
    return text + sum(len(base64.b64decode(buffer["data"])) for buffer in entry.get("buffers", ()))

payload = {"ways": {}}
if "explorer" in tops:
    payload["page"] = len(explorer.to_html().encode())  # makes what pictures are missing, too
    payload["code"] = len(explorer._esm.encode()) + len(explorer._css.encode())
for way, parts in tops.items():
    models = dependency_state(parts, drop_defaults=False)
    state = sum(map(wire_bytes, models.values()))
    payload["ways"][way] = {"state": state, "models": list(models)}
with open("payload.json", "w") as file:
    json.dump(payload, file)
display({"text/html": "<p class='payload-written'>done</p>"}, raw=True)"""


@dataclasses.dataclass(frozen=True)
class Way:
    """A way to look at the steps of a run."""

    cell: str  # makes it
    picture: str  # selector, within the cell's output, of what shows the picture
    source: str  # attribute that tells one picture from another
    slider: str = ".noUi-handle"  # takes the keys
    position: str = "aria-valuenow"  # attribute of the slider, "" for its value


WAYS = {
    "explorer": Way(
        EXPLORER, ".ldm-explorer", "data-step", ".ldm-explorer input[type=range]", position=""
    ),
    "interact": Way(INTERACT, ".jp-OutputArea-output img", "src"),
    "image": Way(IMAGE, "img.widget-image", "src"),
    "plotly": Way(PLOTLY, ".heatmaplayer image", "href"),
    "stack": Way(STACK, "img.widget-image", "src"),
}

# In the page, from its very beginning: listens to the sockets, and watches a picture.
PROBE = r"""(() => {
  const probe = (window.probe = { messages: [] });
  const decoder = new TextDecoder();

  /* Type and size of a message, in the kernel protocol's binary or text form. */
  function note(direction, data) {
    let kind = "";
    const view = ArrayBuffer.isView(data) ? data : data instanceof ArrayBuffer ? new DataView(data) : null;
    if (view) {
      const numbers = new DataView(view.buffer, view.byteOffset, view.byteLength);
      const offset = (i) => Number(numbers.getBigUint64(8 * (i + 1), true));
      try {
        const header = new Uint8Array(view.buffer, view.byteOffset + offset(1), offset(2) - offset(1));
        kind = JSON.parse(decoder.decode(header)).msg_type;
      } catch {
        return;
      }
    } else if (typeof data === "string") {
      kind = data.match(/"msg_type":\s*"(\w+)"/)?.[1] ?? "";
    }
    if (kind) probe.messages.push({ direction, kind, bytes: view?.byteLength ?? data.length, time: performance.now() });
  }

  window.WebSocket = class extends WebSocket {
    constructor(...given) {
      super(...given);
      this.addEventListener("message", ({ data }) => note("received", data));
    }
    send(data) {
      note("sent", data);
      super.send(data);
    }
  };

  probe.cell = (index) => window.jupyterapp.shell.currentWidget.content.widgets[index].node;

  /* What a picture's element shows; null while it is on its way. */
  function shown(cell, { picture, source }) {
    const element = cell.querySelector(picture);
    if (!element) return null;
    const value = element.getAttribute(source);
    if (source === "data-step") {
      for (const canvas of element.querySelectorAll(".ldm-stage canvas[data-step]")) {
        if (canvas.dataset.step !== value) return null;
      }
      return value;
    }
    if (source === "src" && !(element.complete && element.naturalWidth)) return null;
    if (!value) return null;
    // Data URLs are long: their length and the middle tell them apart.
    const middle = value.length >> 1;
    return `${value.length}/${value.slice(middle, middle + 200)}`;
  }
  probe.shown = (index, way) => shown(probe.cell(index), way);

  /* Call back at the begin of each frame and when it is painted, until either returns true. */
  function eachFrame(begun, painted) {
    let over = false;
    const frame = () => {
      const start = performance.now();
      over ||= begun(start) === true;
      if (over) return;
      // Of all tasks this kind is the least late once a frame is done.
      scheduler.postTask(() => { over ||= painted(performance.now(), start) === true; }, { priority: "user-blocking" });
      requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  }

  /* Wait for one key press, and for what it brings. */
  probe.press = (index, way) => {
    const cell = probe.cell(index);
    const before = shown(cell, way);
    let begin = 0;
    let end = 0;
    window.addEventListener("keydown", (event) => { begin = event.timeStamp; }, { capture: true, once: true });
    probe.pressed = new Promise((resolve) => {
      eachFrame(
        (now) => {
          if (end) resolve({ painted: end - begin, next: now - begin });
          return end > 0;
        },
        (now, start) => {
          // A frame that began before the key has not painted what it brought.
          if (!begin || end || start < begin) return;
          const after = shown(cell, way);
          if (after !== null && after !== before) end = now;
        },
      );
    });
  };

  /* Collect what the begin of each frame finds shown, until it is told to stop. */
  probe.follow = (index, way) => {
    const cell = probe.cell(index);
    const record = { seen: [], keys: [], frames: [] };
    const listening = new AbortController();
    window.addEventListener("keydown", (event) => record.keys.push(event.timeStamp), { capture: true, signal: listening.signal });
    let last = shown(cell, way);
    eachFrame((now) => {
      record.frames.push(now);
      const value = shown(cell, way);
      if (value !== null && value !== last) record.seen.push({ time: now, value: (last = value) });
      return listening.signal.aborted;
    }, () => {});
    probe.messages.length = 0;
    probe.stop = () => {
      listening.abort();
      return { ...record, messages: probe.messages };
    };
  };

  /* Note when the explorer first appears, in the wall's time: the kernel notes the call in the same. */
  probe.openings = () => {
    for (const old of document.querySelectorAll(".ldm-explorer")) old.dataset.old = "true";
    const marks = {};
    probe.opened = new Promise((resolve) => {
      eachFrame(() => {}, () => {
        const root = document.querySelector(".ldm-explorer[data-step]:not([data-old])");
        if (!root) return false;
        const now = Date.now() / 1000;
        marks.painted ??= now;
        const canvases = [...root.querySelectorAll(".ldm-stage canvas")];
        if (canvases.length && canvases.every((canvas) => canvas.dataset.step)) marks.pictures ??= now;
        const filling = root.querySelector(".ldm-note[role=status]:not([hidden])");
        if (root.dataset.ready !== "true" || filling) return false;
        resolve({ ...marks, ready: now, canvases: canvases.length });
        return true;
      });
    });
  };

  probe.interval = (count) => new Promise((resolve) => {
    const times = [];
    const frame = (time) => (times.push(time) > count ? resolve(times) : requestAnimationFrame(frame));
    requestAnimationFrame(frame);
  });

  /* A few pixels of every canvas of the explorer's stage. */
  probe.pixels = () =>
    [...document.querySelectorAll(".ldm-explorer .ldm-stage canvas[data-step]")].map((canvas) => {
      const copy = new OffscreenCanvas(16, 16).getContext("2d");
      copy.drawImage(canvas, 0, 0, 16, 16);
      return copy.getImageData(0, 0, 16, 16).data.join();
    });
})();"""


def make_run() -> Any:
    """A run with pictures of the latents that are as hard to compress as decoded noise is.

    Returns:
        `ldm_viz.Trajectory` of ``STEPS`` steps, pictures ``SIDE`` wide, latents ``(4, 64, 64)``.
    """
    run = make_trajectory(STEPS, side=SIDE, factor=8)
    noise, picture = texture(SIDE), scene(SIDE)
    sigmas = np.append(run.sigmas, 0.0)
    kept = 1 / np.sqrt(1 + sigmas**2)
    pictures = np.empty((STEPS + 1, 1, SIDE, SIDE, 3), np.uint8)
    for step, (share, sigma) in enumerate(zip(kept, sigmas, strict=True)):
        mixed = share * (picture + sigma * 0.25 * noise) + (1 - share) * 0.5
        pictures[step, 0] = (255 * mixed.clip(0, 1)).round()
    frames = {**run.frames, "latents": pictures}
    return dataclasses.replace(run, frames=frames, images=pictures[-1])


def texture(side: int) -> np.ndarray:
    """Noise as autoencoders decode it: grain of the latents' size, and finer; of deviation 1."""
    draws = np.random.default_rng(SEED)
    total = np.zeros((side, side, 3))
    for cell, weight in ((16, 0.5), (8, 0.8), (4, 0.5), (2, 0.25), (1, 0.08)):
        for channel in range(3):
            coarse = Image.fromarray(draws.normal(size=(side // cell,) * 2).astype(np.float32))
            smooth = coarse.resize((side, side), Image.Resampling.BICUBIC)
            total[..., channel] += weight * np.asarray(smooth)
    return total / total.std()


# What is measured


class Notebook:
    """A running notebook with one cell for each way, and the page that shows it."""

    def __init__(self, page: Any, names: list[str]) -> None:
        self.page = page
        self.cells = {name: number for number, name in enumerate(names, 1)}
        self.at = dict.fromkeys(names, 0)
        self.random = random.Random(SEED)

    def see(self, name: str) -> None:
        """Brings a way into sight, and gives its slider the focus."""
        self.page.evaluate(
            """([index, slider]) => {
              const cell = window.probe.cell(index);
              cell.querySelector(".jp-Cell-outputArea").scrollIntoView({ block: "start" });
              cell.querySelector(slider).focus({ preventScroll: true });
            }""",
            [self.cells[name], WAYS[name].slider],
        )
        self.page.wait_for_timeout(500)

    def press(self, name: str) -> dict[str, float]:
        """One step on, or back from the last; how long it took, in ms.

        Raises:
            RuntimeError: the slider did not take the key.
        """
        way, at = WAYS[name], self.at[name]
        onward = at % (2 * STEPS - 2) < STEPS - 1
        probe = [self.cells[name], {"picture": way.picture, "source": way.source}]
        # Once the last key has been dealt with everywhere.
        self.page.wait_for_timeout(self.random.uniform(300, 420))
        self.page.wait_for_function("(given) => window.probe.shown(...given) !== null", arg=probe)
        self.page.evaluate("(given) => window.probe.press(...given)", probe)
        # What came before waits for frames itself: only now can a key come at any moment of one.
        time.sleep(self.random.uniform(0, 2 * FRAME))
        key = "ArrowRight" if onward else "ArrowLeft"
        self.page.keyboard.down(key)
        figures = self.page.evaluate("() => window.probe.pressed")
        # No finger is off a key within a frame; after its event Chromium puts off other tasks, the
        # message of the painted frame among them.
        self.page.keyboard.up(key)
        self.at[name] = at + 1
        turn = (at + 1) % (2 * STEPS - 2)
        expected = min(turn, 2 * STEPS - 2 - turn)
        if (found := self.position(name)) != expected:
            raise RuntimeError(f"{name} is at step {found} after a key, not at {expected}")
        return figures

    def position(self, name: str) -> int:
        """The step at which a way's slider stands."""
        way = WAYS[name]
        found = self.page.evaluate(
            """([index, slider, attribute]) => {
              const element = window.probe.cell(index).querySelector(slider);
              return attribute ? element.getAttribute(attribute) : element.value;
            }""",
            [self.cells[name], way.slider, way.position],
        )
        return round(float(found))

    def rewind(self, name: str) -> None:
        """Goes to the first step and waits until nothing happens any more."""
        self.page.keyboard.press("Home")
        self.at[name] = 0
        self.page.wait_for_timeout(2000)

    def hold(self, name: str) -> dict[str, float]:
        """Holds the arrow key from the first step to the last.

        Returns:
            Presses, those that the slider has lost at the end, and pictures seen; ms from the last
            press to the last picture; comm messages sent while it moves and afterwards, comm
            messages received, and the bytes of all that was.
        """
        self.rewind(name)
        way = WAYS[name]
        probe = [self.cells[name], {"picture": way.picture, "source": way.source}]
        self.page.evaluate("(given) => window.probe.follow(...given)", probe)
        begin = time.perf_counter()
        for press in range(STEPS - 1):
            self.page.wait_for_timeout(
                max(0.0, 1000 * (begin + press * REPEAT - time.perf_counter()))
            )
            self.page.keyboard.down("ArrowRight")
        self.page.keyboard.up("ArrowRight")
        seconds = time.perf_counter() - begin
        self.page.wait_for_timeout(5000)
        record = self.page.evaluate("() => window.probe.stop()")
        # A busy browser leaves out repetitions of a held key, so what counts is those that came.
        lost = min(len(record["keys"]), STEPS - 1) - self.position(name)
        return {"lost": lost, **held(record, seconds)}

    def drag(self, name: str) -> dict[str, float]:
        """Drags the explorer's slider over the whole range and back.

        Returns:
            Frames, those that took longer than ``SLOW_FRAME`` ms, the longest, and pictures seen.
        """
        self.rewind(name)
        way = WAYS[name]
        box = self.page.locator(way.slider).first.bounding_box()
        height, left, width = box["y"] + box["height"] / 2, box["x"] + 8, box["width"] - 16
        mouse = self.page.mouse
        mouse.move(left, height)
        mouse.down()
        probe = [self.cells[name], {"picture": way.picture, "source": way.source}]
        self.page.evaluate("(given) => window.probe.follow(...given)", probe)
        begin, moves, share = time.perf_counter(), 0, 0.0
        while share < 1:
            share = min(1.0, (time.perf_counter() - begin) / DRAG_SECONDS)
            mouse.move(left + width * (1 - abs(1 - 2 * share)), height)
            moves += 1
        record = self.page.evaluate("() => window.probe.stop()")
        mouse.up()
        intervals = np.diff(record["frames"])
        return {
            "moves": moves,
            "frames": len(intervals),
            "slow_frames": int((intervals > SLOW_FRAME).sum()),
            "longest": float(intervals.max()),
            "seen": len(record["seen"]),
            "sent": count(record["messages"], "sent", "comm_msg"),
        }


def held(record: dict[str, Any], seconds: float) -> dict[str, float]:
    """Figures of a key that was held, from what the page noted."""
    keys, seen, messages = record["keys"], record["seen"], record["messages"]
    moving = [m for m in messages if m["time"] <= keys[-1]]
    return {
        "steps": len(keys),
        "seconds": seconds,
        "seen": len(seen),
        "lag": seen[-1]["time"] - keys[-1] if seen else float("nan"),
        "sent_moving": count(moving, "sent", "comm_msg"),
        "sent_settling": count(messages, "sent", "comm_msg") - count(moving, "sent", "comm_msg"),
        "received": count(messages, "received", "comm_msg"),
        "received_bytes": sum(m["bytes"] for m in messages if m["direction"] == "received"),
    }


def count(messages: list[dict[str, Any]], direction: str, kind: str) -> int:
    """Messages of one kind in one direction."""
    return sum(m["direction"] == direction and m["kind"] == kind for m in messages)


def measure_openings(browser: Any, lab: Any) -> list[dict[str, float]]:
    """Opens the explorer in a fresh kernel, and in the same kernel again.

    Returns:
        For each time, in seconds: the call in the kernel, and from its begin to the first paint, to
        all panels drawn, and to all pictures decoded as good as they come.
    """
    from browser import open_watched, run_notebook

    lab.write_notebook("opening.ipynb", SETUP, EXPLORER)
    marks = []
    with open_watched(browser, offline=False, viewport=WINDOW) as watched:
        page = watched.page
        page.add_init_script(PROBE)
        page.add_init_script("window.probe.openings()")
        run_notebook(page, lab.address("opening.ipynb"), ".ldm-explorer[data-ready=true]")
        marks.append(page.evaluate("() => window.probe.opened"))
        for _ in range(OPENINGS - 1):
            page.wait_for_timeout(1500)
            page.evaluate(
                """() => {
                  window.probe.openings();
                  window.jupyterapp.shell.currentWidget.content.activeCellIndex = 1;
                  void window.jupyterapp.commands.execute("notebook:run-cell");
                }"""
            )
            marks.append(page.evaluate("() => window.probe.opened"))
    lines = (lab.folder / "openings.jsonl").read_text().splitlines()
    openings = []
    for mark, line in zip(marks, lines, strict=True):
        kernel = json.loads(line)
        times = {name: mark[name] - kernel["called"] for name in ("painted", "pictures", "ready")}
        openings.append({"call": kernel["seconds"], **times})
    return openings


def measure_ways(browser: Any, lab: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Everything that the ways do once they are open, and what they weigh."""
    from browser import open_watched, run_notebook

    names = [name for name in WAYS if name in options.ways]
    cells = [WAYS[name].cell for name in names]
    lab.write_notebook("scrubbing.ipynb", SETUP, *cells, PAYLOAD)
    keep_widget_states(lab.folder.parent / "settings")
    with open_watched(browser, offline=False, viewport=WINDOW) as watched:
        page = watched.page
        page.add_init_script(PROBE)
        run_notebook(page, lab.address("scrubbing.ipynb"), ".payload-written")
        for name in names:
            page.wait_for_selector(WAYS[name].slider)
        page.wait_for_timeout(3000)
        payload = json.loads((lab.folder / "payload.json").read_text())
        weigh_notebook(page, lab.folder / "scrubbing.ipynb", names, payload)
        notebook = Notebook(page, names)
        times = page.evaluate("() => window.probe.interval(120)")
        result: dict[str, Any] = {
            "version": browser.version,
            "interval": float(np.median(np.diff(times))),
            "payload": payload,
        }
        load = Load()
        result["rounds"] = list(press_rounds(notebook, names, options))
        result["load"] = load.read()
        result["held"] = {}
        for name in names:
            tell(f"holding a key: {name}")
            notebook.see(name)
            result["held"][name] = notebook.hold(name)
        if "explorer" in names:
            notebook.see("explorer")
            result["drag"] = notebook.drag("explorer")
        result["errors"] = watched.errors
    return result


def press_rounds(
    notebook: Notebook, names: list[str], options: argparse.Namespace
) -> Iterator[dict[str, list[dict[str, float]]]]:
    """Warms all ways up, then presses keys in each of them, round by round in shuffled order."""
    for name in names:
        tell(f"warm-up: {name}")
        notebook.see(name)
        if name == "explorer":
            notebook.page.wait_for_selector(".ldm-explorer[data-ready=true]")
            check_pixels(notebook)
        for _ in range(STEPS - 1):
            notebook.press(name)
    order = list(names)
    shares = np.diff(np.linspace(0, options.presses, options.rounds + 1).round().astype(int))
    for number, presses in enumerate(shares, 1):
        tell(f"round {number} of {options.rounds}")
        notebook.random.shuffle(order)
        figures = {}
        for name in order:
            notebook.see(name)
            figures[name] = [notebook.press(name) for _ in range(presses)]
        yield figures


def check_pixels(notebook: Notebook) -> None:
    """Makes sure that every canvas of the explorer does change with the step it claims to show.

    Raises:
        RuntimeError: one does not.
    """
    before = notebook.page.evaluate("() => window.probe.pixels()")
    notebook.press("explorer")
    after = notebook.page.evaluate("() => window.probe.pixels()")
    notebook.rewind("explorer")
    same = [i for i, (old, new) in enumerate(zip(before, after, strict=True)) if old == new]
    if not before or same:
        raise RuntimeError(f"of {len(before)} canvases these did not change with the step: {same}")


# What the ways weigh


def keep_widget_states(settings: Path) -> None:
    """Lets JupyterLab save the states of widgets with a notebook."""
    folder = settings / "@jupyter-widgets" / "jupyterlab-manager"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plugin.jupyterlab-settings").write_text('{"saveState": true}')


def weigh_notebook(page: Any, path: Path, names: list[str], payload: dict[str, Any]) -> None:
    """Saves the notebook, and adds to the payload what each way takes of it."""
    page.evaluate("() => window.jupyterapp.commands.execute('docmanager:save').then(() => true)")
    page.wait_for_timeout(1000)
    notebook = json.loads(path.read_text())
    saved = notebook["metadata"].get("widgets", {}).values()
    states = {model: state for group in saved for model, state in group["state"].items()}
    payload["notebook"] = path.stat().st_size
    for number, name in enumerate(names, 1):
        way = payload["ways"][name]
        models = way.pop("models")
        found = [states[model] for model in models if model in states]
        way["saved_cell"] = len(json.dumps(notebook["cells"][number]))
        way["saved_state"] = len(json.dumps(found)) if found else 0


# The machine


def describe_machine() -> dict[str, Any]:
    """What the figures depend on."""
    names = ("ldm_viz", "jupyterlab", "ipywidgets", "anywidget", "plotly")
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in names},
    }


# What is printed


def tell(text: str) -> None:
    """Says on stderr what goes on."""
    print(text, file=sys.stderr, flush=True)


def summarise(rounds: list[dict[str, list[dict[str, float]]]]) -> dict[str, dict[str, float]]:
    """Median, 95th percentile and worst of each way, by both rules, in ms; ratios of medians."""
    summary: dict[str, dict[str, float]] = {}
    for name in WAYS:
        if name not in rounds[0]:
            continue
        presses = [press for figures in rounds for press in figures[name]]
        summary[name] = {"presses": len(presses)}
        for rule in ("painted", "next"):
            times = np.array([press[rule] for press in presses])
            summary[name] |= {
                f"{rule}_median": float(np.median(times)),
                f"{rule}_p95": float(np.percentile(times, 95)),
                f"{rule}_worst": float(times.max()),
            }
            if "explorer" in rounds[0]:
                base = summary["explorer"][f"{rule}_median"]
                summary[name][f"{rule}_ratio"] = summary[name][f"{rule}_median"] / base
    return summary


def report(result: dict[str, Any]) -> str:
    """All figures as text."""
    machine, load = result["machine"], result["load"]
    packages = ", ".join(f"{name} {number}" for name, number in machine["packages"].items())
    lines = [
        f"{STEPS} steps, {SIDE}x{SIDE}, {len(result['rounds'])} rounds",
        f"{machine['processor']}, {machine['cores']} cores",
        f"Python {machine['python']}, Chromium {result['version']}, {packages}",
        "load {load_begin:.2f} at the beginning and {load_end:.2f} at the end of the rounds; in "
        "them browser and notebook kept {cores_own:.2f} cores busy, others "
        "{cores_of_others:.2f}".format(**load),
        f"a frame of the idle page: {result['interval']:.1f} ms",
        "",
        *time_table(result["summary"]),
        "",
        *held_table(result["held"]),
        "",
        *weight_table(result["payload"]),
    ]
    if "explorer" in result["summary"]:
        lines += ["", *explorer_lines(result), "", *target_lines(result)]
    if result["errors"]:
        lines += ["", f"the page's console had {len(result['errors'])} errors:", *result["errors"]]
    return "\n".join(lines)


def time_table(summary: dict[str, dict[str, float]]) -> list[str]:
    """One line a way; ratios are to the explorer's median."""
    head = f"{'median':>9}{'p95':>9}{'worst':>9}{'ratio':>8}"
    lines = [
        f"{'ms from a key press to':24}{'painted':>35}{'next frame':>38}",
        f"{'':10}{'presses':>14}{head}   {head}",
    ]
    for name, s in summary.items():
        columns = [
            f"{s[f'{rule}_median']:9.1f}{s[f'{rule}_p95']:9.1f}{s[f'{rule}_worst']:9.1f}"
            f"{s.get(f'{rule}_ratio', float('nan')):8.1f}"
            for rule in ("painted", "next")
        ]
        lines.append(f"{name:10}{s['presses']:14d}" + "   ".join(columns))
    return lines


def held_table(figures: dict[str, dict[str, float]]) -> list[str]:
    """One line a way; messages are those of the widgets."""
    head = f"{'a held key':10}{'steps':>7}{'a second':>10}{'lost':>6}{'seen':>6}{'lag ms':>9}"
    lines = [head + f"{'sent a step':>13}{'settling':>10}{'received':>10}{'received kB':>13}"]
    for name, h in figures.items():
        lines.append(
            f"{name:10}{h['steps']:7d}{h['steps'] / h['seconds']:10.1f}{h['lost']:6d}{h['seen']:6d}"
            f"{h['lag']:9.0f}"
            f"{h['sent_moving'] / h['steps']:13.2f}{h['sent_settling']:10d}{h['received']:10d}"
            f"{h['received_bytes'] / 1e3:13.0f}"
        )
    return lines


def weight_table(payload: dict[str, Any]) -> list[str]:
    """One line a way."""
    lines = [f"{'MB':10}{'state':>9}{'saved state':>14}{'saved cell':>13}"]
    for name, w in payload["ways"].items():
        lines.append(
            f"{name:10}{w['state'] / 1e6:9.2f}{w['saved_state'] / 1e6:14.2f}"
            f"{w['saved_cell'] / 1e6:13.2f}"
        )
    return [*lines, f"the notebook with all of them: {payload['notebook'] / 1e6:.1f} MB"]


def explorer_lines(result: dict[str, Any]) -> list[str]:
    """What is measured of the explorer alone."""
    first, *again = result["openings"]
    later = {name: float(np.median([opening[name] for opening in again])) for name in first}
    drag, payload = result["drag"], result["payload"]
    words = "explore() takes {call:.3f} s; from its call to the first paint {painted:.3f} s, to all"
    words += " panels {pictures:.3f} s, to the last picture at its best {ready:.3f} s"
    return [
        "in a fresh kernel " + words.format(**first),
        f"again, median of {len(again)}: " + words.format(**later),
        "dragging for {seconds:g} s: {frames} frames, {slow_frames} longer than {slow:g} ms, the "
        "longest {longest:.1f} ms; {moves} moves of the pointer, {seen} pictures seen, {sent} "
        "messages sent".format(seconds=DRAG_SECONDS, slow=SLOW_FRAME, **drag),
        f"page {payload['page'] / 1e6:.2f} MB, module and style {payload['code'] / 1e3:.1f} kB",
    ]


def target_lines(result: dict[str, Any]) -> list[str]:
    """The targets, and whether each is met."""
    own, payload = result["summary"]["explorer"], result["payload"]
    held_key = result["held"]["explorer"]
    targets = [
        ("median, painted", own["painted_median"], "<=", MOST_MEDIAN, "ms"),
        ("95th percentile, painted", own["painted_p95"], "<=", MOST_P95, "ms"),
        ("95th percentile, next frame", own["next_p95"], "<=", MOST_P95, "ms"),
        ("messages while moving", held_key["sent_moving"], "<=", 0, ""),
        ("messages when it settles", held_key["sent_settling"], "<=", 1, ""),
        ("state", payload["ways"]["explorer"]["state"] / 1e6, "<", MOST_STATE / 1e6, "MB"),
        ("page", payload["page"] / 1e6, "<", MOST_PAGE / 1e6, "MB"),
        ("code", payload["code"] / 1e3, "<", MOST_CODE / 1e3, "kB"),
        ("explore() to first paint", result["openings"][0]["painted"], "<", MOST_OPENING, "s"),
    ]
    if "interact" in result["summary"]:
        other = result["summary"]["interact"]
        for rule, words in (("painted", "painted"), ("next", "next frame")):
            name = f"quicker than interact, {words}"
            targets.insert(3, (name, other[f"{rule}_ratio"], ">=", LEAST_RATIO, "times"))
    return [target_line(*target) for target in targets]


def target_line(name: str, value: float, relation: str, bound: float, unit: str) -> str:
    """One target."""
    good = {"<=": value <= bound, "<": value < bound, ">=": value >= bound}[relation]
    return (
        f"{name + ':':36}{value:8.2f}  {relation:2} {bound:g} {unit:6}{'met' if good else 'MISSED'}"
    )


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Reads the options."""
    parser = argparse.ArgumentParser(
        description="Measures how quickly the steps of a run follow a key, in JupyterLab.",
        epilog="Needs a quiet machine: read the load that it prints.",
    )
    parser.add_argument("--presses", type=int, default=60, help="measured presses for each way")
    parser.add_argument("--rounds", type=int, default=6, help="rounds of all ways")
    parser.add_argument(
        "--ways", nargs="+", choices=tuple(WAYS), default=list(WAYS), help="all by default"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to a file")
    options = parser.parse_args(arguments)
    if not 1 <= options.rounds <= options.presses:
        parser.error(f"{options.presses} presses cannot make {options.rounds} rounds")
    return options


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measures everything the options ask for."""
    from browser import open_chromium, open_lab

    with (
        tempfile.TemporaryDirectory() as folder,
        open_lab(Path(folder)) as lab,
        open_chromium() as browser,
    ):
        openings = []
        if "explorer" in options.ways:
            tell("opening the explorer")
            openings = measure_openings(browser, lab)
        result = measure_ways(browser, lab, options)
    return {
        "machine": describe_machine(),
        "openings": openings,
        "summary": summarise(result["rounds"]),
        **result,
    }


def main() -> None:
    """Measures, prints and writes."""
    options = parse()
    result = measure(options)
    print(report(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
