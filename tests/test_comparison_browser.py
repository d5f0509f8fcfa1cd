"""The comparison as people meet it: an exported page with no network, its view alone, and real JupyterLab."""

import base64
import json

import numpy as np
import pytest
from browser import (  # noqa: F401
    check_accessibility,
    chromium,
    lab,
    open_watched,
    run_notebook,
)
from playwright.sync_api import expect
from test_comparison import partial_pairs
from test_explorer import NASTY
from test_explorer_browser import HARNESS, PRESS, wait_for_text
from trajectories import make_trajectory

from ldm_viz.comparison import align
from ldm_viz.widgets.comparison import compare
from ldm_viz.widgets.sources import module_text, style_text

pytestmark = pytest.mark.browser

STEPS = 9

# What each canvas of the runs holds, cheap to compare; those that are hidden count as "".
DIGESTS = """() => [...document.querySelectorAll(".ldm-runs canvas")].map((canvas) => {
  if (!canvas.clientWidth) return "";
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let sum = 0;
  for (let i = 0; i < data.length; i++) sum = (sum * 31 + data[i]) >>> 0;
  return String(sum);
})"""

COLOURS = """(place) => {
  const canvas = document.querySelector(place);
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  const found = new Set();
  for (let i = 0; i < data.length; i += 4) found.add(data.slice(i, i + 4).join());
  return [...found];
}"""


def at_step(page, step):
    page.wait_for_selector(f".ldm-comparison[data-step='{step}'][data-ready=true]")


def three_runs():
    runs = [make_trajectory(STEPS, seed=k) for k in range(3)]
    return [run.replace(settings={**run.settings, "seed": k}) for k, run in enumerate(runs)]


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    runs = [run.replace(settings={**run.settings, "prompt": NASTY}) for run in three_runs()]
    # Arithmetic runs differ by the same map at each step, only stronger or weaker.
    return compare(runs, scale="run").to_html(tmp_path_factory.mktemp("page") / "runs.html")


@pytest.fixture
def opened(chromium, page_file):  # noqa: F811
    with open_watched(chromium) as watched:
        watched.page.goto(page_file.as_uri())
        at_step(watched.page, 0)
        yield watched
        assert watched.errors == []
        assert [url for url in watched.requests if not url.startswith(("file:", "data:"))] == []


def open_page(watched, runs, path, **traits):
    watched.page.goto(compare(runs, **traits).to_html(path).as_uri())
    watched.page.wait_for_selector(".ldm-comparison[data-ready=true]")
    return watched.page


def test_a_page_from_disk_draws_and_changes_at_each_step(opened):
    page = opened.page
    seen = [page.evaluate(DIGESTS)]
    # A picture of each run, and the difference of all but the reference.
    assert [bool(digest) for digest in seen[0]] == [True, False, True, True, True, True]
    page.get_by_role("slider", name="Step").focus()
    for step in range(1, STEPS):
        page.keyboard.press("ArrowRight")
        at_step(page, step)
        seen.append(page.evaluate(DIGESTS))
    for canvas in (0, 2, 3, 4, 5):
        assert len({digests[canvas] for digests in seen}) == STEPS
    page.keyboard.press("Home")
    at_step(page, 0)
    assert page.evaluate(DIGESTS) == seen[0]


def test_a_prompt_is_text_and_the_parting_is_told(opened):
    page = opened.page
    assert page.locator(".ldm-prompt").text_content() == NASTY
    assert page.locator("img").count() == 0
    expect(page.locator(".ldm-told")).to_have_text(
        "All runs differ from the start: other initial latents. They differ in seed 0, 1 and 2."
    )
    expect(page.locator("[data-run='2'] .ldm-caption")).to_have_text("differs from the start")
    expect(page.locator("[data-run='1'] h3")).to_have_text("1 seed 1")


def test_the_reference_the_series_and_the_difference_are_chosen(opened):
    page = opened.page
    before = page.evaluate(DIGESTS)
    page.get_by_label("Reference").select_option(label="2 seed 2")
    page.wait_for_selector(".ldm-comparison[data-reference='2']")
    after = page.evaluate(DIGESTS)
    assert [bool(digest) for digest in after] == [True, True, True, True, True, False]
    assert after[0] == before[0] and after[3] != before[3]
    expect(page.locator("[data-run='2'] .ldm-key")).to_contain_text("Difference to 2 seed 2")
    for label, option, changed in (
        ("Show", "guided prediction", [0, 1, 2, 3, 4]),
        ("Channel", "2", [0, 1, 2, 3, 4]),
        ("Show", "sample", [0, 2, 4]),
        ("Difference", "of pictures", [1, 3]),
    ):
        seen = page.evaluate(DIGESTS)
        page.get_by_label(label, exact=True).select_option(label=option)
        page.wait_for_function(
            f"([seen, changed]) => {{ const now = ({DIGESTS})(); return changed.every((i) => now[i] !== seen[i]); }}",
            arg=[seen, changed],
        )
    page.get_by_label("Difference", exact=True).select_option(label="none")
    page.wait_for_selector(".ldm-comparison[data-difference=none]")
    assert [bool(digest) for digest in page.evaluate(DIGESTS)] == [True, False] * 3


def test_values_are_read_in_all_runs_at_once(opened):
    page = opened.page
    page.get_by_label("Channel", exact=True).select_option(label="1")
    canvas = page.locator("[data-run='1'] canvas").nth(1)
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 3.5 / 16, box["y"] + box["height"] * 5.5 / 16)
    runs = three_runs()
    for k in (1, 2):
        value = (runs[k].x0 - runs[0].x0)[0, 0, 1, 5, 3]
        shown = f"{value:.3g}".replace("-", "−")
        readout = page.locator(f"[data-run='{k}'] .ldm-value")
        expect(readout).to_contain_text(f"row 5, column 3: Δ {shown[:4]}")
    page.mouse.move(2, 2)
    expect(page.locator("[data-run='1'] .ldm-value")).to_have_text("")


@pytest.mark.parametrize("difference", ["values", "pictures"])
@pytest.mark.parametrize(("scheme", "zero"), [("light", "251,250,247"), ("dark", "21,23,27")])
def test_a_run_and_itself_differ_by_nothing(chromium, tmp_path, difference, scheme, zero):  # noqa: F811
    run = make_trajectory(STEPS)
    with open_watched(chromium, color_scheme=scheme) as watched:
        page = open_page(watched, [run, run], tmp_path / "same.html", difference=difference)
        expect(page.locator(".ldm-told")).to_have_text("The runs are bit-identical throughout.")
        expect(page.locator(".ldm-flag")).to_be_hidden()
        for step in (0, 5):
            page.evaluate(PRESS, [".ldm-comparison", step])
            at_step(page, step)
            assert page.evaluate(COLOURS, "[data-run='1'] .ldm-half + .ldm-half canvas") == [
                f"{zero},255"
            ]
        assert watched.errors == []


def test_by_noise_level_ten_steps_go_with_twenty(chromium, tmp_path):  # noqa: F811
    runs = [make_trajectory(10), make_trajectory(20)]
    steps = align(runs, "noise")
    with open_watched(chromium) as watched:
        page = open_page(watched, runs, tmp_path / "noise.html", step=7)
        words = page.locator("[data-run='0'] .ldm-words strong")
        expect(words).to_have_text("step 7 of 10")
        expect(page.locator("[data-run='1'] .ldm-words strong")).to_have_text("step 7 of 20")
        before = page.evaluate(DIGESTS)
        page.get_by_label("Align by").select_option(label="noise level")
        expect(words).to_have_text(f"step {steps[7][0]} of 10")
        assert page.evaluate(DIGESTS)[0] != before[0]
        expect(page.locator(".ldm-transport .ldm-words")).to_contain_text("SNR")
        page.get_by_role("slider", name="Step").focus()
        page.keyboard.press("End")
        at_step(page, 19)
        expect(words).to_have_text("step 9 of 10")
        assert watched.errors == []


def test_where_they_part_is_marked_and_reached_by_a_click(chromium, tmp_path):  # noqa: F811
    run = make_trajectory(STEPS)
    latents = run.latents.copy()
    latents[5:] += np.float32(0.5)
    with open_watched(chromium) as watched:
        page = open_page(watched, [run, run.replace(latents=latents)], tmp_path / "part.html")
        expect(page.locator(".ldm-told")).to_contain_text("part at step 4: next latents")
        assert page.locator(".ldm-parted").count() == len(page.locator(".ldm-chart").all())
        page.get_by_role("button", name="they part at step 4").click()
        at_step(page, 4)
        assert watched.errors == []


@pytest.mark.parametrize("width", [360, 400, 700, 1080, 1300, 1600])
@pytest.mark.parametrize("count", [2, 3, 6])
def test_nothing_overflows_at_any_width(chromium, tmp_path, width, count):  # noqa: F811
    runs = (three_runs() * 2)[:count]
    names = [
        f"a rather long name of run {k} with a-word-that-cannot-be-broken" for k in range(count)
    ]
    with open_watched(chromium, viewport={"width": width, "height": 900}) as watched:
        page = open_page(watched, runs, tmp_path / "wide.html", names=names)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        outside = page.evaluate(
            """() => {
              const frame = document.querySelector(".ldm-comparison").getBoundingClientRect();
              return [...document.querySelectorAll(".ldm-comparison :is(canvas, select, button, input, p, figure)")]
                .filter((e) => { const r = e.getBoundingClientRect(); return r.width && (r.left < frame.left - 1 || r.right > frame.right + 1); })
                .map((e) => e.className || e.tagName);
            }"""
        )
        assert outside == []
        # All pictures of one row begin at one height, and none is too small to see.
        tops = page.evaluate(
            "[...document.querySelectorAll('.ldm-run')].map((run) => { const box = run.querySelector('.ldm-box').getBoundingClientRect(); return [run.getBoundingClientRect().top, box.top, box.width]; })"
        )
        for top in {run[0] for run in tops}:
            assert len({run[1] for run in tops if run[0] == top}) == 1
        assert min(run[2] for run in tops) > 120


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_barrier_is_found_by_axe(chromium, page_file, scheme):  # noqa: F811
    with open_watched(chromium, color_scheme=scheme) as watched:
        page = watched.page
        page.goto(page_file.as_uri())
        page.wait_for_selector(f".ldm-comparison[data-ready=true][data-theme={scheme}]")
        page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        check_accessibility(page)


def test_runs_with_parts_missing_draw_with_no_error(chromium, tmp_path):  # noqa: F811
    for name, runs in partial_pairs().items():
        with open_watched(chromium) as watched:
            page = open_page(watched, runs, tmp_path / f"{name}.html")
            for option in page.get_by_label("Show", exact=True).locator("option").all():
                page.get_by_label("Show", exact=True).select_option(option.text_content())
                page.evaluate(
                    "new Promise((done) => requestAnimationFrame(() => setTimeout(done)))"
                )
            assert watched.errors == [], name
            if name == "other shapes":
                page.get_by_label("Show", exact=True).select_option(label="predicted x0")
                expect(
                    page.locator("[data-run='1'] .ldm-half + .ldm-half .ldm-missing")
                ).to_have_text("Not to be subtracted")


@pytest.fixture
def two_views(chromium, tmp_path):  # noqa: F811
    """Two views of one model, whose listeners, pictures and observers are counted."""
    comparison = compare(three_runs())
    names = [*comparison.options(), "_header", "_series", "_note"]
    values = {name: getattr(comparison, name) for name in names}
    encoded = {
        name: base64.b64encode(getattr(comparison, name)).decode()
        for name in ("_frames", "_maps", "_charts")
    }
    state = json.dumps({"values": values, "bytes": encoded})
    harness = HARNESS.replace("explorer.", "comparison.")
    path = tmp_path / "harness.html"
    path.write_text(
        f"<!doctype html><meta charset=utf-8><style>{style_text('comparison')}</style>"
        "<div id=first></div><div id=second></div>"
        f"<script id=state type=application/json>{state}</script>"
        f"<script type=module>{module_text('comparison')}{harness}</script>",
        encoding="utf-8",
    )
    with open_watched(chromium) as watched:
        watched.page.goto(path.as_uri())
        for place in ("#first", "#second"):
            watched.page.wait_for_selector(f"{place} .ldm-comparison[data-ready=true]")
        yield watched.page
        assert watched.errors == []


def test_two_views_move_together_and_python_hears_once(two_views):
    page = two_views
    page.evaluate(PRESS, ["#first", 6])
    for place in ("#first", "#second"):
        page.wait_for_selector(f"{place} .ldm-comparison[data-step='6']")
    page.wait_for_function("window.saved.length > 0")
    page.evaluate("new Promise((done) => setTimeout(done, 400))")
    assert page.evaluate("window.saved") == [{"step": 6, "playing": False}]


def test_disposal_leaves_nothing_behind(two_views):
    page = two_views
    assert page.evaluate("window.bitmaps") > 3 * 2 * STEPS
    page.evaluate("window.first.abort()")
    assert page.locator("#first > *").count() == 0
    page.evaluate("window.model.set('step', 3)")
    page.wait_for_selector("#second .ldm-comparison[data-step='3']")
    page.evaluate("window.second.abort(); window.life.abort()")
    assert page.evaluate("[window.countListeners(), window.bitmaps, window.observing]") == [0, 0, 0]
    page.evaluate("window.model.set('playing', true); window.model.set('step', 0)")


CELL = f"""
from pathlib import Path
from trajectories import make_trajectory
from ldm_viz.widgets.comparison import compare

comparison = compare([make_trajectory({STEPS}, seed=k) for k in range(2)])
heard = Path("compared.txt")
comparison.observe(lambda change: heard.open("a").write(f"{{change.new}} "), ["step", "reference"])
comparison
"""


@pytest.mark.slow
def test_jupyterlab_draws_and_tells_python(chromium, lab):  # noqa: F811
    name = lab.write_notebook("comparison.ipynb", CELL)
    with open_watched(chromium, offline=False) as watched:
        page = watched.page
        run_notebook(page, lab.address(name), ".ldm-comparison[data-ready=true]")
        seen = page.evaluate(DIGESTS)
        page.evaluate(PRESS, [".ldm-comparison", 5])
        at_step(page, 5)
        assert page.evaluate(DIGESTS)[0] != seen[0]
        wait_for_text(lab.folder / "compared.txt", "5")
        page.get_by_label("Reference").select_option(index=1)
        assert wait_for_text(lab.folder / "compared.txt", "1")[-2:] == ["5", "1"]
        ours = [text for text in watched.errors if "ldm" in text.lower() or "anywidget" in text]
        assert ours == []
