"""A live run as people meet it: its view with a model that is played, and real JupyterLab."""

import base64
import json
import math
import threading
import time

import numpy as np
import pytest
from browser import (
    PATIENCE,
    check_accessibility,
    chromium,  # noqa: F401
    lab,  # noqa: F401
    open_watched,
    set_theme,
)
from jupyter_client.manager import start_new_kernel
from playwright.sync_api import expect
from trajectories import pooled, scene

from ldm_viz.labs.live_view import LiveView
from ldm_viz.widgets.sources import module_text, style_text

pytestmark = pytest.mark.browser

NASTY = "a <b>boat</b> </script><script>alert(1)</script> & 'so' on"

HARNESS = """
const listeners = new Map();
const state = JSON.parse(document.querySelector("#state").textContent);
window.saved = [];
window.model = {
  get: (name) => state[name],
  set(name, value) {
    state[name] = value;
    for (const f of [...(listeners.get("change:" + name) ?? [])]) f();
  },
  save_changes: () => window.saved.push({ asked: state._stop_asked }),
  on: (event, f) => listeners.set(event, (listeners.get(event) ?? new Set()).add(f)),
  off: (event, f) => listeners.get(event)?.delete(f),
};
window.countListeners = () => [...listeners.values()].reduce((sum, set) => sum + set.size, 0);
const bytes = (text) => new DataView(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
window.tell = (news) => {
  news.curve = bytes(news.curve);
  if (news.picture) news.picture.rgb = bytes(news.picture.rgb);
  window.model.set("_news", news);
};
const widget = live();
window.life = new AbortController();
widget.initialize({ model: window.model, signal: window.life.signal });
window.show = (place) => {
  const end = new AbortController();
  widget.render({ model: window.model, el: document.querySelector(place), signal: end.signal });
  return end;
};
window.first = window.show("#first");
"""


def news_of(view):
    """What a view was told last, as JSON."""

    def plain(value):
        if isinstance(value, bytes):
            return base64.b64encode(value).decode()
        return {k: plain(v) for k, v in value.items()} if isinstance(value, dict) else value

    return plain(view._news)


def told(steps, upto, side=16, channels=4):
    """All that is told of a run's first steps."""
    view = LiveView("", [])
    for done in range(1, upto + 1):
        share = done / (steps or upto)
        noise = np.random.default_rng(1).random((side, side, 3))
        picture = share * pooled(scene(64), side) + (1 - share) * noise
        view.tell(
            done=done,
            steps=steps,
            words=[f"timestep {1000 - done}", "σ 2.10", "mostly noise"],
            elapsed=0.4 * done,
            remaining=0.4 * (steps - done) if steps else None,
            spread=np.array([1 - 0.2 * share * (c + 1) for c in range(channels)]),
            picture=(255 * picture).astype(np.uint8) if side > 1 else None,
        )
        yield news_of(view)


@pytest.fixture
def page_file(tmp_path):
    state = {
        "_about": {"prompt": NASTY, "facts": ["StableDiffusionPipeline", "DDIMScheduler"]},
        "_phase": "preparing",
        "_news": {},
        "_end": {},
        "_stop_asked": False,
        "_stopping": False,
    }
    path = tmp_path / "live.html"
    inert = json.dumps(state).replace("<", "\\u003c")
    path.write_text(
        "<!doctype html><html lang=en><meta charset=utf-8><title>A live run</title>"
        "<meta name=color-scheme content='light dark'>"
        f"<style>body {{ margin: 0; background: Canvas }} {style_text('live')}</style>"
        "<main><div id=first></div><div id=second></div></main>"
        f"<script id=state type=application/json>{inert}</script>"
        f"<script type=module>{module_text('live')}{HARNESS}</script>",
        encoding="utf-8",
    )
    return path


@pytest.fixture
def opened(chromium, page_file):  # noqa: F811
    with open_watched(chromium) as watched:
        watched.page.goto(page_file.as_uri())
        watched.page.wait_for_selector(".ldm-live[data-phase=preparing]")
        yield watched.page
        assert watched.errors == []


def tell(page, all_news):
    for news in all_news:
        page.evaluate("(news) => { model.set('_phase', 'running'); tell(news); }", news)
    page.wait_for_selector(f".ldm-live[data-done='{news['done']}']")


def test_it_goes_from_preparing_to_the_last_step(opened):
    page = opened
    bar = page.get_by_role("progressbar", name="Progress of the run")
    expect(page.locator(".ldm-words")).to_have_text("Preparing")
    assert bar.get_attribute("aria-valuenow") is None
    expect(page.locator(".ldm-live-body")).to_be_hidden()
    tell(page, told(8, 3))
    assert [bar.get_attribute(f"aria-value{name}") for name in ("min", "now", "max")] == [
        "0", "3", "8",
    ]  # fmt: skip
    expect(page.locator(".ldm-words strong")).to_have_text("3 of 8 steps")
    expect(page.locator(".ldm-words")).to_contain_text("timestep 997")
    expect(page.locator(".ldm-live-time")).to_have_text("1 s · about 2 s left")
    widths = page.evaluate(
        "[...document.querySelectorAll('.ldm-progress, .ldm-progress i')].map((e) => e.clientWidth)"
    )
    page.wait_for_function(
        "(share) => Math.abs(document.querySelector('.ldm-progress i').clientWidth"
        " / document.querySelector('.ldm-progress').clientWidth - share) < 0.01",
        arg=3 / 8,
    )
    assert widths[0] > 0
    expect(page.locator("[aria-live=polite]")).to_have_text("25 % of the steps are done")
    tell(page, list(told(8, 8))[3:])
    assert page.locator(".ldm-live-strip canvas").get_attribute("data-count") == "8"
    assert page.locator(".ldm-plot .ldm-line").count() == 4


def test_the_preview_is_the_picture_that_was_sent(opened):
    page = opened
    *_, last = told(4, 4)
    tell(page, [last])
    page.wait_for_selector(".ldm-live-preview canvas[data-done='4']")
    sent = np.frombuffer(base64.b64decode(last["picture"]["rgb"]), np.uint8).reshape(16, 16, 3)
    drawn = page.evaluate(
        """() => {
          const canvas = document.querySelector(".ldm-live-preview canvas");
          const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
          return [canvas.width, canvas.height, [...data]];
        }"""
    )
    width, height, values = drawn
    assert width == height >= 256
    large = np.array(values).reshape(height, width, 4)[..., :3]
    rows = np.arange(16) * height // 16
    means = np.add.reduceat(np.add.reduceat(large, rows, 0), rows, 1) / (width / 16) ** 2
    assert np.abs(means - sent).mean() < 6
    # No steps at the borders of what was one pixel, as enlarged by doubling and smoothing.
    assert (
        np.abs(np.diff(large, axis=1)).max() <= np.abs(np.diff(sent.astype(int), axis=1)).max() / 4
    )


def test_a_prompt_is_text(opened):
    assert opened.locator(".ldm-live-prompt").text_content() == NASTY
    assert opened.locator(".ldm-live b, .ldm-live script").count() == 0


def test_stop_is_asked_for_once_and_says_what_follows(opened):
    page = opened
    tell(page, told(8, 3))
    button = page.get_by_role("button", name="Stop", exact=True)
    button.focus()
    page.keyboard.press("Enter")
    asking = page.get_by_role("button", name="Asking to stop…")
    expect(asking).to_be_focused()
    page.keyboard.press("Enter")
    assert page.evaluate("saved") == [{"asked": True}]
    page.evaluate("model.set('_stopping', true)")
    stopping = page.get_by_role("button", name="Stopping after this step…")
    expect(stopping).to_be_disabled()
    expect(stopping).to_be_focused()


def test_it_tells_how_a_run_failed(opened):
    page = opened
    tell(page, told(8, 3))
    page.evaluate(
        """() => {
          const end = { status: "failed", text: "Failed after 3 of 8 steps.", why: "Boom: <i>no</i>",
            details: "Traceback <b>", notes: ["A note."] };
          model.set("_end", end);
        }"""
    )
    status = page.get_by_role("status")
    expect(status).to_have_text("Failed after 3 of 8 steps. Boom: <i>no</i>")
    expect(page.get_by_role("button", name="Stop")).to_be_hidden()
    page.get_by_text("Traceback", exact=True).click()
    expect(page.locator("pre")).to_have_text("Traceback <b>")
    expect(page.locator(".ldm-live-note")).to_have_text("A note.")
    page.evaluate("model.set('_news', {}); model.set('_phase', 'ended')")
    page.wait_for_selector(".ldm-live[data-phase=ended]")
    expect(page.locator(".ldm-live-head, .ldm-live-body, .ldm-live-strip").first).to_be_hidden()
    expect(status).to_be_visible()
    check_accessibility(page, ".ldm-live")


def test_runs_of_other_kinds_are_drawn(opened):
    page = opened
    for number, (steps, side, channels) in enumerate([(None, 16, 1), (3, 1, 16), (3, 32, 4)]):
        tell(page, told(steps, 3, side, channels))
        hidden = page.locator(".ldm-live-preview").is_hidden()
        assert hidden == (side == 1), number
        known = page.get_by_role("progressbar").get_attribute("aria-valuenow")
        assert known == ("3" if steps else None)
        assert page.locator(".ldm-plot .ldm-line").count() == channels
    page.evaluate(
        "(news) => tell(news)",
        {**next(told(3, 1)), "curve": base64.b64encode(np.full(5, math.nan, "<f4")).decode()},
    )
    page.wait_for_selector(".ldm-live[data-done='1']")
    expect(page.locator(".ldm-readout")).to_contain_text("NaN")


def test_a_new_loop_begins_the_strip_anew(opened):
    page = opened
    tell(page, told(8, 5))
    tell(page, told(6, 2))
    page.wait_for_selector(".ldm-live-strip canvas[data-count='2']")


def test_another_view_shows_the_same_and_both_let_go(opened):
    page = opened
    tell(page, told(8, 4))
    alone = page.evaluate("countListeners()")
    page.evaluate("window.second = show('#second')")
    page.wait_for_selector("#second .ldm-live-strip canvas[data-count='4']")
    page.evaluate("second.abort()")
    page.wait_for_function("(count) => countListeners() === count", arg=alone)
    assert page.locator("#second .ldm-live").count() == 0
    page.evaluate("first.abort(); life.abort()")
    assert page.evaluate("countListeners()") == 0


@pytest.mark.parametrize("width", [320, 400, 700, 1000, 1600])
def test_nothing_overflows_at_any_width(opened, width):
    page = opened
    page.set_viewport_size({"width": width, "height": 900})
    tell(page, told(60, 50))
    page.wait_for_function("(width) => innerWidth === width", arg=width)
    outside = page.evaluate(
        """() => {
          const frame = document.querySelector(".ldm-live").getBoundingClientRect();
          return [...document.querySelectorAll(".ldm-live *")].filter((e) => {
            const r = e.getBoundingClientRect();
            return r.width > 1 && (r.left < frame.left - 1 || r.right > frame.right + 1);
          }).map((e) => e.className || e.tagName);
        }"""
    )
    assert outside == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_barrier_is_found_by_axe(chromium, page_file, scheme):  # noqa: F811
    with open_watched(chromium, color_scheme=scheme) as watched:
        page = watched.page
        page.goto(page_file.as_uri())
        page.wait_for_selector(f".ldm-live[data-theme={scheme}]")
        tell(page, told(8, 5))
        check_accessibility(page, ".ldm-live")
        page.evaluate("model.set('_stop_asked', true)")
        page.get_by_role("button", name="Asking to stop…").wait_for()
        check_accessibility(page, ".ldm-live")


def test_it_holds_still_where_less_motion_is_asked_for(chromium, page_file):  # noqa: F811
    with open_watched(chromium, reduced_motion="reduce") as watched:
        page = watched.page
        page.goto(page_file.as_uri())
        page.wait_for_selector(".ldm-live[data-phase=preparing]")
        tell(page, told(None, 3))
        assert page.evaluate("document.getAnimations().length") == 0


CELL = """
import time
import ldm_viz as lv
from ldm_viz.labs.live import watch

run = watch(lv.load_tiny(), "a small blue boat on the water at sunset", seed=7,
            num_inference_steps=500, guidance_scale=2.5, on_step=lambda live: time.sleep(0.2))
run
"""
# Runs while the run goes on, and keeps the kernel busy until that was stopped.
BUSY = """
end = time.monotonic() + {patience}
open("busy.txt", "w").write(run.status)
while run.status == "running" and time.monotonic() < end:
    time.sleep(0.05)
open("stopped.txt", "w").write(f"{{run.status}} {{len(run.trajectory)}}")
"""


@pytest.mark.slow
def test_jupyterlab_shows_a_run_stops_it_and_shows_the_explorer(chromium, lab):  # noqa: F811
    name = lab.write_notebook("live.ipynb", CELL, BUSY.format(patience=PATIENCE / 1000))
    with open_watched(chromium, offline=False) as watched:
        page = watched.page
        page.goto(lab.address(name))
        page.wait_for_function("window.jupyterapp !== undefined")
        page.evaluate("window.jupyterapp.restored.then(() => true)")
        page.wait_for_selector(".jp-NotebookPanel .jp-CodeCell")
        page.wait_for_function(
            "window.jupyterapp.shell.currentWidget?.sessionContext?.session?.kernel?.status === 'idle'"
        )
        # Not awaited: the second cell is not to end before the button is pressed.
        page.evaluate("void window.jupyterapp.commands.execute('notebook:run-all-cells')")
        page.wait_for_function(
            "Number(document.querySelector('.ldm-live')?.dataset.done ?? 0) >= 3"
        )
        for scheme, theme in (("light", "JupyterLab Light"), ("dark", "JupyterLab Dark")):
            set_theme(page, theme)
            page.wait_for_selector(f".ldm-live[data-theme={scheme}]")
        assert (lab.folder / "busy.txt").read_text() == "running"
        drawn = page.evaluate("document.querySelector('.ldm-live-preview canvas').dataset.done")
        assert int(drawn) >= 1
        page.get_by_role("button", name="Stop", exact=True).click()
        page.wait_for_selector(".ldm-live[data-phase=ended]")
        page.wait_for_selector(".ldm-explorer[data-ready=true]")
        status, steps = (lab.folder / "stopped.txt").read_text().split()
        assert status == "interrupted" and 3 <= int(steps) < 500
        text = f"Stopped after {steps} of 500 steps."
        expect(page.locator(".ldm-live").get_by_role("status")).to_have_text(text)
        expect(page.locator(".ldm-words strong").last).to_have_text(
            f"step {int(steps) - 1} of {steps}"
        )
        ours = [text for text in watched.errors if "ldm" in text.lower() or "anywidget" in text]
        assert ours == []


@pytest.mark.slow
def test_an_interrupted_kernel_goes_on_with_the_run_and_a_shut_down_one_ends():
    manager, client = start_new_kernel(kernel_name="python3")
    try:

        def execute(code, **options):
            reply = client.execute_interactive(
                code, timeout=PATIENCE / 1000, output_hook=lambda message: None, **options
            )
            return reply["content"]

        begun = execute(
            "import time, ldm_viz as lv\n"
            "from ldm_viz.labs.live import watch\n"
            "run = watch(lv.load_tiny(), 'a boat', num_inference_steps=900,\n"
            "            on_step=lambda live: time.sleep(0.05))\n"
            "while not run._view._news: time.sleep(0.01)"
        )
        assert begun["status"] == "ok", begun
        timer = threading.Timer(1, manager.interrupt_kernel)
        timer.start()
        assert execute("time.sleep(1000)")["ename"] == "KeyboardInterrupt"
        said = execute("", user_expressions={"left": "(run.status, run.error)"})
        text = said["user_expressions"]["left"]["data"]["text/plain"]
        assert text == "('running', None)"
        began = time.monotonic()
        client.shutdown()
        while manager.is_alive() and time.monotonic() < began + 30:
            time.sleep(0.05)
        assert not manager.is_alive()
    finally:
        client.stop_channels()
        if manager.is_alive():
            manager.shutdown_kernel(now=True)
