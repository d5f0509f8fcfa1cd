"""The explorer as people meet it: an exported page with no network, its view alone, and real JupyterLab."""

import base64
import json
import re
import time

import pytest
from browser import (  # noqa: F401
    PATIENCE,
    check_accessibility,
    chromium,
    lab,
    open_watched,
    run_notebook,
    set_theme,
)
from playwright.sync_api import expect
from test_explorer import NASTY, partial_runs
from trajectories import make_trajectory

import ldm_viz as lv
from ldm_viz.widgets.maps import DELTA
from ldm_viz.widgets.sources import module_text, style_text

pytestmark = pytest.mark.browser

STEPS = 9

# A picture of what each canvas of the stage holds, cheap to compare.
DIGESTS = """() => [...document.querySelectorAll(".ldm-stage canvas")].map((canvas) => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let sum = 0;
  for (let i = 0; i < data.length; i++) sum = (sum * 31 + data[i]) >>> 0;
  return sum;
})"""


def at_step(page, step):
    page.wait_for_selector(f".ldm-explorer[data-step='{step}'][data-ready=true]")


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    settings = {**make_trajectory(1).settings, "prompt": NASTY}
    run = make_trajectory(STEPS, settings=settings)
    return lv.explore(run).to_html(tmp_path_factory.mktemp("page") / "run.html")


@pytest.fixture
def opened(chromium, page_file):  # noqa: F811
    with open_watched(chromium) as watched:
        watched.page.goto(page_file.as_uri())
        at_step(watched.page, 0)
        yield watched
        assert watched.errors == []
        assert [url for url in watched.requests if not url.startswith(("file:", "data:"))] == []


def test_a_page_from_disk_draws_and_changes_at_each_step(opened, page_file):
    page = opened.page
    seen = [page.evaluate(DIGESTS)]
    assert len(seen[0]) == 5
    page.get_by_role("slider", name="Step").focus()
    for step in range(1, STEPS):
        page.keyboard.press("ArrowRight")
        at_step(page, step)
        seen.append(page.evaluate(DIGESTS))
    for panel in range(5):
        assert len({digests[panel] for digests in seen}) == STEPS
    page.keyboard.press("ArrowRight")
    assert page.get_by_role("slider", name="Step").input_value() == str(STEPS - 1)
    page.keyboard.press("Home")
    at_step(page, 0)
    assert page.evaluate(DIGESTS) == seen[0]
    page.keyboard.press("End")
    at_step(page, STEPS - 1)
    page.keyboard.press("ArrowLeft")
    at_step(page, STEPS - 2)
    assert {url for url in opened.requests if url.startswith("file:")} == {page_file.as_uri()}


def test_keys_work_before_anything_has_the_focus_and_after_a_click(opened):
    page = opened.page
    page.keyboard.press("ArrowRight")
    at_step(page, 1)
    page.locator(".ldm-stage canvas").first.click()
    assert page.evaluate("document.activeElement.type") == "range"
    page.keyboard.press("End")
    at_step(page, STEPS - 1)
    page.get_by_label("Branch").focus()
    page.keyboard.press("Home")
    at_step(page, STEPS - 1)


def test_a_prompt_is_text(opened):
    page = opened.page
    assert page.locator(".ldm-prompt").text_content() == NASTY
    assert page.title() == re.sub("[ \\t\\n]+", " ", NASTY)
    assert page.locator("img").count() == 0


def test_the_step_is_told_to_those_who_listen(opened):
    page = opened.page
    slider = page.get_by_role("slider", name="Step")
    slider.focus()
    page.keyboard.press("ArrowRight")
    at_step(page, 1)
    said = slider.get_attribute("aria-valuetext")
    assert said.startswith("step 1 of 9 · timestep 778 · σ")
    expect(page.locator(".ldm-words")).to_contain_text("mostly noise")
    for control in page.locator("button, select, input").all():
        label = control.evaluate("e => e.getAttribute('aria-label') || e.labels?.[0]?.textContent")
        assert label


def test_branch_channel_and_colours_are_chosen(opened):
    page = opened.page
    seen = [page.evaluate(DIGESTS)[3]]
    for label, option in (
        ("Branch", DELTA), ("Channel", "channel 2"), ("Colours", "step scale"), ("Channel", "norm"),
        ("Branch", "conditional"),
    ):  # fmt: skip
        page.get_by_label(label, exact=True).select_option(label=option)
        page.wait_for_function(f"(before) => ({DIGESTS})()[3] !== before", arg=seen[-1])
        seen.append(page.evaluate(DIGESTS)[3])
    expect(page.locator("[data-panel=noise] .ldm-ends span").first).to_have_text("0")


def test_values_are_read_under_the_pointer(opened):
    page = opened.page
    box = page.locator("[data-panel=noise] .ldm-cells").bounding_box()
    page.mouse.move(box["x"] + box["width"] * 3.5 / 16, box["y"] + box["height"] * 5.5 / 16)
    value = make_trajectory(STEPS).noise_prediction["guided"][0, 0, 0, 5, 3]
    shown = f"{value:.3g}".replace("-", "−")
    expect(page.locator("[data-panel=noise] .ldm-value")).to_contain_text(
        f"row 5, column 3: {shown[:4]}"
    )
    page.mouse.move(2, 2)
    expect(page.locator("[data-panel=noise] .ldm-value")).not_to_contain_text("row")


def test_playing_runs_to_the_end_and_begins_again(opened):
    page = opened.page
    page.get_by_label("Speed").select_option(label="30 steps a second")
    page.get_by_role("button", name="Play").click()
    at_step(page, STEPS - 1)
    expect(page.get_by_role("button", name="Play")).to_be_visible()
    page.get_by_label("Speed").select_option(label="1 step a second")
    page.get_by_role("slider", name="Step").focus()
    page.keyboard.press(" ")
    expect(page.get_by_role("button", name="Pause")).to_be_visible()
    page.keyboard.press(" ")
    expect(page.get_by_role("button", name="Play")).to_be_visible()


def test_the_filmstrip_and_the_charts_can_be_scrubbed(opened):
    page = opened.page
    film = page.locator(".ldm-film").bounding_box()
    page.mouse.click(film["x"] + film["width"] * 4.5 / STEPS, film["y"] + 10)
    at_step(page, 4)
    page.locator(".ldm-plot").first.scroll_into_view_if_needed()
    plot = page.locator(".ldm-plot").first.bounding_box()
    page.mouse.move(plot["x"] + plot["width"] * 2.1 / STEPS, plot["y"] + 10)
    expect(page.locator(".ldm-chart em").first).to_have_text("step 2")
    page.mouse.down()
    page.mouse.move(plot["x"] + plot["width"] * 6 / STEPS, plot["y"] + 10, steps=4)
    page.mouse.up()
    at_step(page, 6)


@pytest.mark.parametrize("width", [360, 400, 700, 1000, 1300, 1600])
def test_nothing_overflows_at_any_width(opened, width):
    page = opened.page
    page.set_viewport_size({"width": width, "height": 900})
    page.wait_for_function("(width) => innerWidth === width", arg=width)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    outside = page.evaluate(
        """() => {
          const frame = document.querySelector(".ldm-explorer").getBoundingClientRect();
          return [...document.querySelectorAll(".ldm-explorer :is(canvas, select, button, input, p, figure)")]
            .filter((e) => { const r = e.getBoundingClientRect(); return r.width && (r.left < frame.left - 1 || r.right > frame.right + 1); })
            .map((e) => e.className || e.tagName);
        }"""
    )
    assert outside == []


def test_light_and_dark_follow_the_system(chromium, page_file):  # noqa: F811
    digests = {}
    for scheme in ("light", "dark"):
        with open_watched(chromium, color_scheme=scheme) as watched:
            watched.page.goto(page_file.as_uri())
            at_step(watched.page, 0)
            watched.page.wait_for_selector(f".ldm-explorer[data-theme={scheme}]")
            digests[scheme] = watched.page.evaluate(DIGESTS)
            assert watched.errors == []
    # The pictures are the same, the heatmap's zero is not.
    assert digests["light"][:3] == digests["dark"][:3] and digests["light"][3] != digests["dark"][3]


def test_panels_are_chosen(opened):
    page = opened.page
    page.get_by_text("Panels").click()
    for name, label in (
        ("x0", "predicted x_0"),
        ("filmstrip", "filmstrip"),
        ("noise", "noise prediction"),
    ):
        panel = page.locator(f"[data-panel={name}]")
        expect(panel).to_be_visible()
        page.get_by_label(label, exact=True).uncheck()
        expect(panel).to_be_hidden()
    assert page.locator(".ldm-stage").get_attribute("data-squares") == "3"
    page.keyboard.press("ArrowRight")
    page.get_by_label("predicted x_0").check()
    at_step(page, 1)
    page.wait_for_function(
        "() => document.querySelector('[data-panel=x0] canvas').dataset.step === '1'"
    )
    page.get_by_label("predicted x_0").focus()
    page.keyboard.press(" ")
    expect(page.locator("[data-panel=x0]")).to_be_hidden()
    expect(page.get_by_role("button", name="Play")).to_be_visible()


def test_the_next_sample_is_what_the_next_step_begins_with(opened):
    page = opened.page
    before = page.evaluate(DIGESTS)
    page.keyboard.press("ArrowRight")
    at_step(page, 1)
    assert page.evaluate(DIGESTS)[0] == before[2] != before[0]


def test_a_click_on_a_channel_chooses_it(opened):
    page = opened.page
    cells = page.locator("[data-panel=channels] .ldm-cells")
    cells.scroll_into_view_if_needed()
    box = cells.bounding_box()
    values = make_trajectory(STEPS).latents[0, 0]
    column, row = 16 + 3, 16 + 5  # of channel 3, which is at the lower right
    spot = (
        box["x"] + box["width"] * (column + 0.5) / 32,
        box["y"] + box["height"] * (row + 0.5) / 32,
    )
    page.mouse.move(*spot)
    shown = f"{values[3, 5, 3]:.3g}".replace("-", "−")
    readout = page.locator("[data-panel=channels] .ldm-value")
    expect(readout).to_contain_text(f"channel 3, row 5, column 3: {shown[:4]}")
    page.mouse.click(*spot)
    expect(page.get_by_label("Channel", exact=True).locator("option:checked")).to_have_text(
        "channel 3"
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_barrier_is_found_by_axe(chromium, page_file, scheme):  # noqa: F811
    with open_watched(chromium, color_scheme=scheme) as watched:
        page = watched.page
        page.goto(page_file.as_uri())
        page.wait_for_selector(f".ldm-explorer[data-ready=true][data-theme={scheme}]")
        page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        check_accessibility(page)


def test_it_holds_still_where_less_motion_is_asked_for(chromium, page_file):  # noqa: F811
    with open_watched(chromium, reduced_motion="reduce") as watched:
        page = watched.page
        page.goto(page_file.as_uri())
        at_step(page, 0)
        moving = """() => [...document.querySelectorAll(".ldm-view, .ldm-view *")].filter((element) => {
          const style = getComputedStyle(element);
          return parseFloat(style.transitionDuration) > 0 || style.animationName !== "none";
        }).length"""
        assert page.evaluate(moving) == 0
        assert page.evaluate("document.getAnimations().length") == 0


def test_runs_with_parts_missing_draw_with_no_error(chromium, tmp_path):  # noqa: F811
    runs = partial_runs()
    runs["batch"] = make_trajectory(3, batch=3)
    for name, run in runs.items():
        path = lv.explore(run).to_html(tmp_path / f"{name}.html")
        with open_watched(chromium) as watched:
            watched.page.goto(path.as_uri())
            at_step(watched.page, 0)
            assert watched.errors == [], name
            if name == "batch":
                before = watched.page.evaluate(DIGESTS)
                watched.page.get_by_label("Sample", exact=True).select_option("2")
                watched.page.wait_for_function(
                    f"(before) => ({DIGESTS})().every((d, i) => d !== before[i])", arg=before
                )
                expect(watched.page.locator(".ldm-prompt")).to_contain_text("number 2")
            if name == "interrupted":
                expect(watched.page.locator(".ldm-status")).to_have_text("Interrupted. stopped")


# Keys in one go, as from a key held down: Playwright's own may be slower than the settling time on a loaded machine.
PRESS = """([place, count]) => {
  const slider = document.querySelector(`${place} input[type=range]`);
  for (let i = 0; i < count; i++) slider.dispatchEvent(new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true }));
}"""

HARNESS = """
const state = JSON.parse(document.querySelector("#state").textContent);
for (const [name, text] of Object.entries(state.bytes)) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  state.values[name] = new DataView(bytes.buffer);
}
const listeners = new Map();
window.saved = [];
window.model = {
  get: (name) => state.values[name],
  set(name, value) {
    if (state.values[name] === value) return;
    state.values[name] = value;
    for (const f of [...(listeners.get("change:" + name) ?? [])]) f();
  },
  save_changes: () => window.saved.push({ step: state.values.step, playing: state.values.playing }),
  on: (event, f) => listeners.set(event, (listeners.get(event) ?? new Set()).add(f)),
  off: (event, f) => listeners.get(event)?.delete(f),
};
window.countListeners = () => [...listeners.values()].reduce((sum, set) => sum + set.size, 0);
window.bitmaps = 0;
const create = window.createImageBitmap;
window.createImageBitmap = async (...all) => { const made = await create(...all); window.bitmaps += 1; return made; };
const close = ImageBitmap.prototype.close;
ImageBitmap.prototype.close = function () { window.bitmaps -= 1; return close.call(this); };
// Playwright observes the page as well: only what this file starts is counted.
window.observing = 0;
for (const name of ["ResizeObserver", "MutationObserver"]) {
  const { observe, disconnect } = window[name].prototype;
  window[name].prototype.observe = function (...all) {
    const called = new Error().stack.split(location.href).length > 2;
    if (called && !this.ours) window.observing += 1;
    this.ours ||= called;
    return observe.apply(this, all);
  };
  window[name].prototype.disconnect = function () { if (this.ours) window.observing -= 1; return disconnect.call(this); };
}
window.show = (id) => {
  const controller = new AbortController();
  explorer.render({ model: window.model, el: document.querySelector(id), signal: controller.signal });
  return controller;
};
window.life = new AbortController();
explorer.initialize({ model: window.model, signal: window.life.signal });
window.first = window.show("#first");
window.second = window.show("#second");
"""


@pytest.fixture
def two_views(chromium, tmp_path):  # noqa: F811
    """Two views of one model, whose listeners, pictures and observers are counted."""
    explorer = lv.explore(make_trajectory(STEPS))
    names = (*explorer.options(), "_header", "_series", "_note")
    values = {name: getattr(explorer, name) for name in names}
    encoded = {
        name: base64.b64encode(getattr(explorer, name)).decode()
        for name in ("_frames", "_maps", "_charts")
    }
    path = tmp_path / "harness.html"
    path.write_text(
        f"<!doctype html><meta charset=utf-8><style>{style_text('explorer')}</style>"
        "<div id=first></div><div id=second></div>"
        f"<script id=state type=application/json>{json.dumps({'values': values, 'bytes': encoded})}</script>"
        f"<script type=module>{module_text('explorer')}{HARNESS}</script>",
        encoding="utf-8",
    )
    with open_watched(chromium) as watched:
        watched.page.goto(path.as_uri())
        for place in ("#first", "#second"):
            watched.page.wait_for_selector(f"{place} .ldm-explorer[data-ready=true]")
        yield watched.page
        assert watched.errors == []


def test_two_views_move_together_and_python_hears_once(two_views):
    page = two_views
    page.evaluate(PRESS, ["#first", 6])
    for place in ("#first", "#second"):
        page.wait_for_selector(f"{place} .ldm-explorer[data-step='6']")
    page.wait_for_function("window.saved.length > 0")
    page.evaluate("new Promise((done) => setTimeout(done, 400))")
    assert page.evaluate("window.saved") == [{"step": 6, "playing": False}]


def test_two_views_play_at_one_speed(two_views):
    page = two_views
    page.evaluate("window.model.set('speed', 20); window.model.set('playing', true)")
    page.wait_for_selector(f"#second .ldm-explorer[data-step='{STEPS - 1}']")
    page.wait_for_function("window.model.get('playing') === false")
    assert page.evaluate("window.saved") == [{"step": STEPS - 1, "playing": False}]


def test_better_pictures_take_the_place_of_previews_with_no_gap(two_views):
    page = two_views
    read = "document.querySelector('#first [data-panel=x0] canvas').getContext('2d').getImageData(9, 9, 1, 1).data.join()"
    before = page.evaluate(read)
    # The same files, said to be others, in another order: x0 first shows what was the sample.
    page.evaluate(
        """() => {
          const series = window.model.get("_series");
          const { latents, x0 } = series;
          const better = (one) => one.map((files) => files.map(() => 2));
          const [first, ...lengths] = latents.lengths[0];
          const bytes = new Uint8Array(window.model.get("_frames").buffer);
          const last = first + lengths.reduce((sum, length) => sum + length, 0);
          const reordered = new Uint8Array(bytes.length - first);
          reordered.set(bytes.subarray(last));
          reordered.set(bytes.subarray(first, last), bytes.length - last);
          window.model.set("_series", {
            x0: { ...x0, grades: better(x0.grades) },
            latents: { ...x0, lengths: [lengths], grades: better(x0.grades) },
          });
          window.model.set("_frames", new DataView(reordered.buffer));
        }"""
    )
    page.wait_for_selector("#first .ldm-explorer[data-ready=true]")
    assert page.evaluate(read) == before
    assert page.locator("#first [data-panel=x0] canvas").get_attribute("data-step") == "0"
    page.wait_for_function("window.bitmaps === 2 * 2 * 9")


def test_the_echo_of_a_busy_kernel_does_not_pull_the_step_back(two_views):
    page = two_views
    page.evaluate(PRESS, ["#first", 2])
    page.wait_for_function("window.saved.length === 1")
    page.evaluate(PRESS, ["#first", 3])
    page.evaluate("window.model.set('step', 2)")  # what was told before the last keys
    assert page.evaluate("window.model.get('step')") == 5
    page.evaluate("window.model.set('step', 7)")  # what was never told is somebody else's wish
    assert page.evaluate("window.model.get('step')") == 7
    page.evaluate("window.model.set('step', 1); window.model.set('speed', 2)")
    page.evaluate("window.model.set('playing', true)")
    page.wait_for_function("window.model.get('step') === 2")
    page.evaluate("window.model.set('step', 1)")
    assert page.evaluate("window.model.get('step')") == 2
    page.evaluate("window.model.set('playing', false)")


def test_disposal_leaves_nothing_behind(two_views):
    page = two_views
    assert page.evaluate("window.bitmaps") > 2 * 2 * STEPS
    before = page.evaluate("window.countListeners()")
    page.evaluate("window.first.abort()")
    assert page.locator("#first > *").count() == 0
    assert page.evaluate("window.countListeners()") < before
    page.evaluate("window.model.set('step', 3)")
    page.wait_for_selector("#second .ldm-explorer[data-step='3']")
    page.evaluate("window.second.abort(); window.life.abort()")
    assert page.evaluate("[window.countListeners(), window.bitmaps, window.observing]") == [0, 0, 0]
    page.evaluate("window.model.set('playing', true); window.model.set('step', 0)")


CELL = f"""
from pathlib import Path
from trajectories import make_trajectory
import ldm_viz as lv

explorer = lv.explore(make_trajectory({STEPS}))
heard = Path("heard.txt")
explorer.observe(lambda change: heard.open("a").write(f"{{change.new}} "), "step")
explorer
"""


def wait_for_text(path, text):
    end = time.monotonic() + PATIENCE / 1000
    while time.monotonic() < end:
        if path.exists() and path.read_text().split()[-1:] == [text]:
            return path.read_text().split()
        time.sleep(0.05)
    raise AssertionError(
        f"expected {text!r} last in {path.read_text() if path.exists() else 'no file'}"
    )


@pytest.mark.slow
def test_jupyterlab_draws_scrubs_and_tells_python_the_settled_step(chromium, lab):  # noqa: F811
    name = lab.write_notebook("explorer.ipynb", CELL)
    with open_watched(chromium, offline=False) as watched:
        page = watched.page
        sent = []
        page.on("websocket", lambda socket: socket.on("framesent", lambda data: sent.append(data)))
        run_notebook(page, lab.address(name), ".ldm-explorer[data-ready=true]")
        set_theme(page, "JupyterLab Light")
        page.wait_for_selector(".ldm-explorer[data-theme=light]")
        seen = [page.evaluate(DIGESTS)]
        slider = page.get_by_role("slider", name="Step")
        slider.focus()
        for step in range(1, 6):
            page.keyboard.press("ArrowRight")
            page.wait_for_selector(f".ldm-explorer[data-step='{step}']")
            seen.append(page.evaluate(DIGESTS))
        assert all(len({digests[panel] for digests in seen}) == 6 for panel in range(5))
        heard = wait_for_text(lab.folder / "heard.txt", "5")
        # Frames reach the list only while Playwright is at work, and waiting for a file is not.
        page.evaluate("new Promise((done) => setTimeout(done, 200))")
        before = len(sent)
        page.evaluate(PRESS, [".ldm-explorer", 3])
        assert wait_for_text(lab.folder / "heard.txt", "8") == [*heard, "8"]
        page.evaluate("new Promise((done) => setTimeout(done, 400))")
        messages = [data for data in map(as_bytes, sent[before:]) if b"comm_msg" in data]
        assert len(messages) == 1, [data[-150:] for data in messages]
        page.locator(".ldm-stage canvas").first.click()
        page.keyboard.press("Home")
        at_step(page, 0)
        page.keyboard.press("End")
        at_step(page, STEPS - 1)
        light = page.evaluate(DIGESTS)
        set_theme(page, "JupyterLab Dark")
        page.wait_for_selector(".ldm-explorer[data-theme=dark]")
        assert page.evaluate(DIGESTS)[3] != light[2]
        assert (
            page.evaluate("getComputedStyle(document.querySelector('.ldm-explorer')).colorScheme")
            == "dark"
        )
        # The other way round: Python moves the browser.
        page.evaluate(
            """async () => {
              const { sessionContext } = window.jupyterapp.shell.currentWidget;
              await sessionContext.session.kernel.requestExecute({ code: "explorer.step = 2" }).done;
            }"""
        )
        at_step(page, 2)
        ours = [text for text in watched.errors if "ldm" in text.lower() or "anywidget" in text]
        assert ours == []


def as_bytes(data):
    return data if isinstance(data, bytes) else data.encode()
