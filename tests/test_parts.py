"""The small parts alone: filmstrip, heatmap and statistics, by themselves and linked."""

import re

import pytest
import traitlets
from browser import (  # noqa: F401
    check_accessibility,
    chromium,
    lab,
    open_watched,
    run_notebook,
)
from playwright.sync_api import expect
from test_explorer import partial_runs
from trajectories import make_trajectory

import ldm_viz as lv
from ldm_viz.widgets.maps import DELTA

STEPS = 9
PARTS = [lv.Filmstrip, lv.NoiseHeatmap, lv.LatentStatistics]


@pytest.fixture(scope="module")
def run():
    return make_trajectory(STEPS)


@pytest.mark.parametrize("part", PARTS)
def test_a_part_carries_only_what_it_shows(part, run):
    widget = part(run, step=3)
    sizes = {name: len(getattr(widget, name)) for name in ("_frames", "_maps", "_charts")}
    carried = {
        lv.Filmstrip: {"_frames"},
        lv.NoiseHeatmap: {"_maps"},
        lv.LatentStatistics: {"_charts"},
    }
    assert {name for name, size in sizes.items() if size} == carried[part]
    assert widget.current.step == 3 and widget.trajectory is run
    assert repr(widget).startswith(f"{part.__name__}: step 3 of 9 · timestep 556")
    assert repr(widget) == repr(part(run, step=3))
    data, _ = widget._repr_mimebundle_()
    assert data["text/plain"] == repr(widget) and data["image/png"]


@pytest.mark.parametrize("part", PARTS)
def test_bad_input_is_refused_by_the_parts_own_name(part, run):
    with pytest.raises(TypeError, match=f"{part._name} shows a Trajectory, not str"):
        part("run.safetensors")
    with pytest.raises(TypeError, match=f"unknown option 'stepp'; {part._name} has .*slider, step"):
        part(run, stepp=1)
    with pytest.raises(traitlets.TraitError, match="between 0 and 8, not 9"):
        part(run, step=9)


def test_the_heatmaps_choices_are_checked(run):
    heatmap = lv.NoiseHeatmap(run, branch=DELTA, channel="norm")
    assert repr(heatmap).endswith("guidance delta, norm")
    with pytest.raises(traitlets.TraitError, match="unknown branch"):
        heatmap.branch = "nothing"
    assert lv.NoiseHeatmap(run).branch == "guided"
    with pytest.raises(traitlets.TraitError, match="0 to 3 and 'norm'"):
        lv.LatentStatistics(run, channel=4)


@pytest.mark.browser
@pytest.mark.parametrize("part", PARTS)
def test_a_parts_page_draws_moves_and_bars_nobody(part, run, chromium, tmp_path):  # noqa: F811
    path = part(run).to_html(tmp_path / "part.html")
    with open_watched(chromium) as watched:
        page = watched.page
        page.goto(path.as_uri())
        page.wait_for_selector(".ldm-part[data-ready=true][data-step='0']")
        # The channel's curve is not what moves: what follows the step is compared as a picture.
        before = page.locator(".ldm-part").screenshot()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowRight")
        page.wait_for_selector(".ldm-part[data-step='2']")
        expect(page.locator(".ldm-words")).to_contain_text("step 2 of 9")
        assert page.locator(".ldm-part").screenshot() != before
        check_accessibility(page)
        assert watched.errors == []


@pytest.mark.browser
def test_parts_of_partial_runs_draw_with_no_error(chromium, tmp_path):  # noqa: F811
    for name, partial in partial_runs().items():
        for part in PARTS:
            path = part(partial).to_html(tmp_path / f"{name}-{part.__name__}.html")
            with open_watched(chromium) as watched:
                watched.page.goto(path.as_uri())
                watched.page.wait_for_selector(".ldm-part[data-ready=true]")
                assert watched.errors == [], (name, part)


CELLS = (
    f"""
from trajectories import make_trajectory
import ipywidgets
import ldm_viz as lv

run = make_trajectory({STEPS})
explorer = lv.explore(run, panels=["latents", "x0"])
explorer
""",
    """
strip, heatmap = lv.Filmstrip(run), lv.NoiseHeatmap(run, slider=False)
statistics = lv.LatentStatistics(run, slider=False)
number = ipywidgets.IntSlider(max=len(run) - 1)
for one, trait in ((heatmap, "step"), (statistics, "step"), (explorer, "step"), (number, "value")):
    ipywidgets.jslink((strip, "step"), (one, trait))
ipywidgets.VBox([number, strip, heatmap, statistics])
""",
)


@pytest.mark.browser
@pytest.mark.slow
def test_linked_parts_move_together_in_jupyterlab(chromium, lab):  # noqa: F811
    name = lab.write_notebook("parts.ipynb", *CELLS)
    size = {"width": 1200, "height": 1600}
    with open_watched(chromium, offline=False, viewport=size) as watched:
        page = watched.page
        run_notebook(page, lab.address(name), ".ldm-filmstrip[data-ready=true]")
        page.locator(".ldm-filmstrip").get_by_role("slider", name="Step").focus()
        page.keyboard.press("End")
        for part in ("filmstrip", "noise-heatmap", "latent-statistics", "explorer"):
            page.wait_for_selector(f".ldm-{part}[data-step='{STEPS - 1}']")
        expect(page.locator(".widget-readout")).to_have_text(str(STEPS - 1))
        page.locator(".ldm-explorer").get_by_role("slider", name="Step").focus()
        page.keyboard.press("Home")
        for part in ("filmstrip", "noise-heatmap", "latent-statistics", "explorer"):
            page.wait_for_selector(f".ldm-{part}[data-step='0']")
        assert page.locator(".ldm-noise-heatmap").get_by_role("slider").count() == 0
        ours = [text for text in watched.errors if re.search("ldm|anywidget", text, re.IGNORECASE)]
        assert ours == []
