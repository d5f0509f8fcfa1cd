"""Figures: what they hold is what the run holds, they become files, and their pages work offline."""

import base64
import html
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
import plotly.graph_objects as go
import plotly.io as pio
import pytest
from browser import chromium, open_watched  # noqa: F401
from conftest import find_chromium
from hypothesis import given
from hypothesis import strategies as st
from test_explorer import NASTY, partial_runs
from trajectories import make_trajectory

from ldm_viz.figures import (
    plot_filmstrip,
    plot_heatmaps,
    plot_schedule,
    plot_statistics,
    register_templates,
    save_figure,
)
from ldm_viz.figures.choices import check_steps, spread
from ldm_viz.figures.heatmaps import colour_limit
from ldm_viz.figures.look import BAD, line_colour
from ldm_viz.figures.wording import facts, plain
from ldm_viz.imaging import DIVERGING_DARK, DIVERGING_LIGHT, SEQUENTIAL, colourise, decode_image
from ldm_viz.statistics import (
    expected_std,
    guidance_delta,
    latent_statistics,
    prediction_statistics,
)
from ldm_viz.trajectory import Trajectory

STEPS = 7
PLOTS = {
    "statistics": plot_statistics,
    "heatmaps": lambda run: plot_heatmaps(run, "latents"),
    "filmstrip": plot_filmstrip,
    "schedule": plot_schedule,
}


@pytest.fixture(scope="module")
def run():
    return make_trajectory(STEPS, batch=2)


def panels(figure):
    """Curves by the panel's heading, then by their name."""
    found = {}
    for note, (row, column) in zip(figure.layout.annotations, grid(figure), strict=True):
        axis = figure.get_subplot(row, column).yaxis.plotly_name.replace("axis", "")
        found[note.text] = {trace.name: trace for trace in figure.data if trace.yaxis == axis}
    return found


def grid(figure):
    """Rows and columns of the panels that hold something."""
    rows, columns = figure._get_subplot_rows_columns()
    filled = len(figure.layout.annotations)
    return [(row, column) for row in rows for column in columns][:filled]


# Statistics


def test_curves_are_the_statistics(run):
    found = panels(plot_statistics(run, 1))
    latents, predictions = latent_statistics(run, 1), prediction_statistics(run, 1)
    for heading, values in (
        ("Mean of the latents", latents.mean),
        ("Standard deviation of the latents", latents.std),
    ):
        for c in range(4):
            np.testing.assert_array_equal(found[heading][f"channel {c}"].y, values[:, c])
    expected = found["Standard deviation of the latents"]["expected std"]
    np.testing.assert_array_equal(expected.y, expected_std(run))
    assert expected.line.dash == "dash"
    band = found["Range of the latents"]
    np.testing.assert_array_equal(band["smallest"].y, latents.minimum)
    np.testing.assert_array_equal(band["largest"].y, latents.maximum)
    assert band["largest"].fill == "tonexty"
    np.testing.assert_array_equal(found["Norm of the latents"]["norm"].y, latents.norm)
    for branch, norms in predictions.norms.items():
        np.testing.assert_array_equal(found["Norm of the noise prediction"][branch].y, norms)
    np.testing.assert_array_equal(found["Signal-to-noise ratio"]["SNR"].y, run.snrs)
    cosines = found["Cosine of conditional and unconditional"]["cosine"]
    np.testing.assert_array_equal(cosines.y, predictions.between_branches)
    cosines = found["Cosine of guided with the step before"]["cosine"]
    np.testing.assert_array_equal(cosines.y, predictions.between_steps)
    assert len(found) == 8


def test_every_curve_is_listed_once_in_the_legend(run):
    figure = plot_statistics(run)
    listed = [trace.name for trace in figure.data if trace.showlegend]
    assert listed == [f"channel {c}" for c in range(4)] + [
        "expected std",
        "guided",
        "conditional",
        "unconditional",
    ]
    many = plot_statistics(make_trajectory(3, channels=16))
    assert not [t for t in many.data if t.showlegend and t.name.startswith("channel")]
    assert "Mean of each of 16 channels" in panels(many)
    assert len({line_colour(c, 16) for c in range(16)}) == 16


@pytest.mark.parametrize("x", ["step", "timestep", "sigma", "snr"])
def test_the_axis_below_is_the_one_asked_for(run, x):
    figure = plot_statistics(run, x=x)
    found = panels(figure)
    norm = found["Norm of the latents"]["norm"]
    places = {
        "step": np.arange(STEPS + 1),
        "timestep": run.timesteps,
        "sigma": run.sigmas,
        "snr": run.snrs,
    }[x]
    np.testing.assert_array_equal(norm.x, places)
    np.testing.assert_array_equal(norm.y, latent_statistics(run).norm[: len(places)])
    assert figure.layout.xaxis.type == ("log" if x in ("sigma", "snr") else None)
    assert figure.layout.xaxis.autorange == ("reversed" if x in ("timestep", "sigma") else None)
    assert ("Signal-to-noise ratio" in found) == (x != "snr")
    titles = [axis.title.text for axis in figure.select_xaxes() if axis.title.text]
    assert set(titles) == {{"sigma": "σ", "snr": "signal-to-noise ratio"}.get(x, x)}


def test_flow_matching_has_a_plain_sigma_axis_and_other_zeros_are_left_out(run):
    flow = run.replace(
        sigmas=np.linspace(1, 0, STEPS), settings={**run.settings, "noise_schedule": "flow"}
    )
    figure = plot_statistics(flow, x="sigma")
    assert figure.layout.xaxis.type is None
    assert panels(figure)["Norm of the latents"]["norm"].x[-1] == 0
    zero = run.replace(sigmas=np.append(run.sigmas[:-1], 0.0))
    norm = panels(plot_statistics(zero, x="sigma"))["Norm of the latents"]["norm"]
    np.testing.assert_array_equal(norm.x, run.sigmas[:-1])


def test_every_point_tells_its_step_and_timestep(run):
    trace = panels(plot_statistics(run))["Norm of the latents"]["norm"]
    assert [list(told) for told in trace.customdata[:2]] == [["0", "853"], ["1", "711"]]
    assert list(trace.customdata[-1]) == [str(STEPS), "–"]
    for part in ("%{customdata[0]}", "%{customdata[1]}", "%{y"):
        assert part in trace.hovertemplate


def test_panels_are_those_asked_for_in_their_order(run):
    figure = plot_statistics(run, panels=["steps", "std", "steps"], columns=2)
    assert list(panels(figure)) == [
        "Cosine of guided with the step before",
        "Standard deviation of the latents",
    ]
    assert list(panels(plot_statistics(run, x="snr", panels="snr"))) == ["Signal-to-noise ratio"]


def test_bad_values_are_counted_in_a_panel_of_their_own(run):
    latents = run.latents.copy()
    latents[2, 0, 1, :3] = np.nan
    figure = plot_statistics(run.replace(latents=latents))
    (curve,) = panels(figure)["Latents that are NaN or infinite"].values()
    assert list(curve.y) == [0, 0, 48, 0, 0, 0, 0, 0]


# Heatmaps


@pytest.mark.parametrize(
    ("branch", "values"),
    [
        ("guided", lambda run: run.noise_prediction["guided"]),
        ("conditional", lambda run: run.noise_prediction["conditional"]),
        ("unconditional", lambda run: run.noise_prediction["unconditional"]),
        ("guidance delta", guidance_delta),
        ("latents", lambda run: run.latents),
        ("x0", lambda run: run.x0),
    ],
)
def test_maps_of_every_branch_are_the_runs_own_values(run, branch, values):
    figure = plot_heatmaps(run, branch, sample=1)
    values = values(run)[:, 1]
    assert [frame.name for frame in figure.frames] == [str(i) for i in range(len(values))]
    for step, frame in enumerate(figure.frames):
        np.testing.assert_array_equal([trace.z for trace in frame.data], values[step])
        assert frame.traces == (0, 1, 2, 3)
    np.testing.assert_array_equal([trace.z for trace in figure.data], values[0])
    axis = figure.layout.coloraxis
    assert axis.cmax == -axis.cmin == pytest.approx(colour_limit(values))
    assert [stop for _, stop in axis.colorscale] == list(DIVERGING_LIGHT)


def test_one_channel_and_the_norm(run):
    guided = run.noise_prediction["guided"][:, 0]
    figure = plot_heatmaps(run, channel=2, steps=[3, -1])
    np.testing.assert_array_equal(figure.data[0].z, guided[3, 2])
    assert [frame.name for frame in figure.frames] == ["3", str(STEPS - 1)]
    figure = plot_heatmaps(run, channel="norm", steps=[4])
    np.testing.assert_allclose(figure.data[0].z, np.linalg.norm(guided[4], axis=0), rtol=1e-6)
    axis = figure.layout.coloraxis
    assert axis.cmin == 0 and [stop for _, stop in axis.colorscale] == list(SEQUENTIAL)
    assert len(figure.data) == 1 and not figure.frames and not figure.layout.sliders


def test_the_slider_and_the_buttons_go_through_the_frames(run):
    figure = plot_heatmaps(run, steps=4)
    names = [frame.name for frame in figure.frames]
    assert names == ["0", "2", "4", "6"]
    (slider,) = figure.layout.sliders
    assert [step.label for step in slider.steps] == names
    assert [list(step.args[0]) for step in slider.steps] == [[name] for name in names]
    assert [len(menu.buttons) for menu in figure.layout.updatemenus] == [2]
    assert all("redraw" in str(step.args[1]) for step in slider.steps)
    words = [frame.layout.title.text for frame in figure.frames]
    assert [f"step {name} of {STEPS}" in text for name, text in zip(names, words, strict=True)]
    assert len(set(words)) == 4


def test_the_colours_cover_the_run_without_its_outliers():
    run = make_trajectory(4)
    latents = run.latents.copy()
    latents[1, 0, 0, 0, 0] = -1e6
    figure = plot_heatmaps(run.replace(latents=latents), "latents")
    axis = figure.layout.coloraxis
    assert axis.cmax < 10
    assert [text[:2] for text in axis.colorbar.ticktext] == ["≤ ", "0", "≥ "]
    assert figure.frames[1].data[0].z[0, 0] == -1e6


@given(st.lists(st.floats(width=32, allow_infinity=True, allow_nan=True), min_size=1, max_size=400))
def test_the_limit_is_a_magnitude_that_nearly_all_stay_within(values):
    values = np.array(values, np.float32)
    limit = colour_limit(values[:, None])
    sizes = np.abs(values[np.isfinite(values)])
    assert limit > 0 and np.isfinite(limit)
    if sizes.any():
        assert limit == 1.0 or limit in sizes
        assert (sizes > limit).sum() <= max(0.002 * len(sizes), 0) or limit == 1.0


def test_bad_values_show_the_bad_ground_and_are_said():
    run = make_trajectory(3)
    latents = run.latents.copy()
    latents[1, 0, 2, 3, 4], latents[1, 0, 2, 3, 5] = np.nan, np.inf
    figure = plot_heatmaps(run.replace(latents=latents), "latents")
    z = figure.frames[1].data[2].z
    assert np.isnan(z[3, 4:6]).all() and np.isfinite(np.delete(z.ravel(), [52, 53])).all()
    assert figure.frames[1].layout.plot_bgcolor == BAD
    assert "Magenta" in figure.layout.title.text
    assert "Magenta" not in plot_heatmaps(run, "latents").layout.title.text


def test_a_branch_that_was_not_computed_at_a_step_is_not_bad():
    run = make_trajectory(3)
    branches = {name: values.copy() for name, values in run.noise_prediction.items()}
    branches["unconditional"][1] = np.nan
    run = run.replace(noise_prediction=branches)
    for branch in ("unconditional", "guidance delta"):
        figure = plot_heatmaps(run, branch)
        grounds = [frame.layout.plot_bgcolor for frame in figure.frames]
        assert grounds == [BAD, "#ffffff", BAD]
        assert "not computed" in figure.frames[1].layout.title.text
        assert "Magenta" not in figure.layout.title.text


def test_rows_run_from_the_top_and_cells_are_square():
    run = make_trajectory(2, frames=False)
    figure = plot_heatmaps(run, channel=0)
    assert list(figure.layout.yaxis.range) == [15.5, -0.5]
    assert list(figure.layout.xaxis.range) == [-0.5, 15.5]
    assert figure.layout.yaxis.scaleanchor == "x"


def test_packed_and_video_latents_are_laid_out():
    latents = np.random.default_rng(0).normal(size=(3, 1, 24, 64)).astype(np.float32)
    run = make_trajectory(2).replace(
        latents=latents,
        x0=None,
        noise_prediction={},
        frames={},
        images=None,
        settings={"height": 64, "width": 96},
    )
    figure = plot_heatmaps(run, "latents")
    assert len(figure.data) == 16 and figure.data[0].z.shape == (8, 12)
    assert figure.data[5].z[1, 2] == latents[0, 0, 1, 5 * 4 + 2]
    assert "unpacked" in figure.layout.title.text
    video = partial_runs()["video"]
    figure = plot_heatmaps(video, "branch 0")
    np.testing.assert_array_equal(
        figure.data[1].z, video.noise_prediction["branch 0"][0, 0, 1, 1].astype(np.float32)
    )
    assert "frame 1 of 3" in figure.layout.title.text


def test_large_runs_show_fewer_steps_and_channels_and_say_so():
    latents = np.random.default_rng(0).standard_normal((61, 1, 8, 128, 128), np.float32)
    unknown = np.full(60, np.nan)
    run = Trajectory(latents=latents, timesteps=unknown, sigmas=unknown, snrs=unknown)
    figure = plot_heatmaps(run, "latents")
    assert 10 < len(figure.frames) < 60
    assert (figure.frames[0].name, figure.frames[-1].name) == ("0", "60")
    assert f"{len(figure.frames)} of 61 steps are shown" in figure.layout.title.text
    assert len(plot_heatmaps(run, "latents", steps=list(range(30))).frames) == 30
    wide = make_trajectory(1, channels=40, frames=False)
    figure = plot_heatmaps(wide, steps=[0])
    assert len(figure.data) == 32 and "32 of 40 channels" in figure.layout.title.text
    assert plot_heatmaps(wide, channel=39, steps=[0]).data[0].z.shape == (16, 16)


# Filmstrip


def pictures(figure):
    return [decode_image(base64.b64decode(t.source.partition(",")[2])) for t in figure.data]


def test_pictures_are_the_runs_own_row_by_row(run):
    figure = plot_filmstrip(run, steps=[0, 3, -1], sample=1)
    expected = [
        run.frames[name][step, 1] for name in ("latents", "x0") for step in (0, 3, STEPS - 1)
    ]
    np.testing.assert_array_equal(pictures(figure), expected)
    labels = [note.text for note in figure.layout.annotations]
    assert labels[:2] == ["latents x<sub>t</sub>", "predicted x<sub>0</sub>"]
    assert [label[:6] for label in labels[2:]] == ["step 0", "step 3", "step 6"]
    assert "t = 427" in labels[3] and "timestep 427" in figure.data[1].hovertemplate


def test_the_series_and_the_number_of_steps_are_chosen(run):
    assert len(plot_filmstrip(run).data) == 12
    figure = plot_filmstrip(run, series="x0", steps=2)
    np.testing.assert_array_equal(pictures(figure), run.frames["x0"][[0, STEPS - 1], 0])
    figure = plot_filmstrip(run, series=("x0", "latents"), steps=1)
    np.testing.assert_array_equal(pictures(figure)[1], run.frames["latents"][0, 0])
    assert plot_filmstrip(run, tile=200).layout.width > plot_filmstrip(run).layout.width


def test_without_pictures_the_first_channel_is_drawn():
    run = make_trajectory(3, frames=False)
    figure = plot_filmstrip(run)
    limit = colour_limit(run.latents[:, 0, 0])
    assert len(figure.data) == 6
    drawn = pictures(figure)[1][8::16, 8::16]
    np.testing.assert_array_equal(drawn, colourise(run.latents[1, 0, 0], limit))
    labels = [note.text for note in figure.layout.annotations]
    assert labels[0].endswith("channel 0") and labels[1].endswith("channel 0")


def test_of_videos_the_middle_frame_is_shown():
    run = make_trajectory(2)
    videos = np.random.default_rng(0).integers(0, 255, (3, 1, 5, 8, 12, 3), dtype=np.uint8)
    figure = plot_filmstrip(run.replace(frames={"latents": videos}), series="latents", steps=[1])
    np.testing.assert_array_equal(pictures(figure)[0], videos[1, 0, 2])


# Schedules


def test_schedules_are_the_runs_own_side_by_side(run):
    other = make_trajectory(4)
    figure = plot_schedule(run, other)
    found = panels(figure)
    assert list(found) == ["Noise level σ", "Signal-to-noise ratio", "Timestep"]
    names = ["DDIMScheduler, 7 steps", "DDIMScheduler, 4 steps"]
    for curves, field in zip(found.values(), ("sigmas", "snrs", "timesteps"), strict=True):
        assert list(curves) == names
        for trace, one in zip(curves.values(), (run, other), strict=True):
            np.testing.assert_array_equal(trace.y, getattr(one, field))
            np.testing.assert_array_equal(trace.x, np.arange(len(one)))
    assert [trace.name for trace in figure.data if trace.showlegend] == names
    assert figure.layout.yaxis.type == "log" and figure.layout.yaxis3.type == "linear"


def test_runs_are_named_apart_and_as_told(run):
    assert [t.name for t in plot_schedule(run, run).data[:2]] == [
        "DDIMScheduler, 7 steps",
        "DDIMScheduler, 7 steps (2)",
    ]
    figure = plot_schedule(run, run, names=["<b>one</b>", "two"])
    assert [t.name for t in figure.data[:2]] == ["&lt;b&gt;one&lt;/b&gt;", "two"]
    alone = plot_schedule(run)
    assert not [t for t in alone.data if t.showlegend] and "boat" in alone.layout.title.text


def test_what_one_run_does_not_know_another_still_shows(run):
    blank = run.replace(sigmas=np.full(STEPS, np.nan), snrs=np.full(STEPS, np.nan))
    figure = plot_schedule(blank, run, names=["blank", "known"])
    assert list(panels(figure)["Noise level σ"]) == ["known"]
    assert sorted(t.name for t in figure.data if t.showlegend) == ["blank", "known"]


# All of them


def test_they_are_plain_figures_with_the_runs_facts_in_the_head(run):
    for name, plot in PLOTS.items():
        figure = plot(run)
        assert type(figure) is go.Figure, name
        for fact in ("red boat", "DDIMScheduler", "guidance 5", f"{STEPS} steps", "sample 0 of 2"):
            assert fact in figure.layout.title.text, name
        json.loads(figure.to_json())


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", partial_runs())
def test_runs_with_parts_missing_are_drawn_or_refused_in_words(name):
    run = partial_runs()[name]
    refused = set()
    for kind, plot in PLOTS.items():
        try:
            json.loads(plot(run).to_json())
        except ValueError as error:
            refused.add(kind)
            assert re.search("no step|no maps|nothing is known", str(error)), error
    unknown = {"schedule"} if name in ("packed", "video", "vectors", "wide") else set()
    flat = {"heatmaps", "filmstrip"} if name in ("packed", "vectors") else set()
    assert refused == (set(PLOTS) if name == "no steps" else unknown | flat)


def test_a_slice_says_which_steps_it_holds(run):
    assert "3 steps (2 to 4 of 7)" in plot_statistics(run[2:5]).layout.title.text


def test_templates_are_registered_and_the_default_is_left_alone(run):
    assert {"ldm_viz", "ldm_viz_dark"} <= set(pio.templates)
    assert pio.templates.default == "plotly"
    pio.templates["ldm_viz"].layout.paper_bgcolor = "red"
    register_templates()
    assert pio.templates["ldm_viz"].layout.paper_bgcolor == "#ffffff"
    light, dark = (plot_heatmaps(run, template=t) for t in ("ldm_viz", "ldm_viz_dark"))
    assert light.layout.template.layout.paper_bgcolor == "#ffffff"
    assert dark.layout.template.layout.paper_bgcolor == "#15171b"
    assert [stop for _, stop in dark.layout.coloraxis.colorscale] == list(DIVERGING_DARK)
    for plot in (plot_statistics, plot_filmstrip, plot_schedule):
        figure = plot(run, template="plotly_white+ldm_viz_dark")
        assert figure.layout.template.layout.paper_bgcolor == "#15171b"


def test_no_figure_offers_to_send_itself_away(run):
    assert "sendChartToCloud" in plot_statistics(run).layout.template.layout.modebar.remove


def test_the_display_side_needs_no_torch():
    code = "import sys; sys.modules['torch'] = None; import ldm_viz.figures; print('diffusers' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.stdout.strip() == "False", done.stderr


@pytest.mark.parametrize(
    ("plot", "options", "error", "said"),
    [
        (plot_statistics, {"x": "time"}, ValueError, "'time'; there are 'step', 'timestep', 'sigma'"),
        (plot_statistics, {"panels": ["std", "spread"]}, ValueError, "'spread'; this run has 'mean'"),
        (plot_statistics, {"panels": []}, ValueError, "name at least one: 'mean'"),
        (plot_statistics, {"columns": 0}, ValueError, "columns must be"),
        (plot_statistics, {"sample": 2}, IndexError, "between 0 and 1, not 2"),
        (plot_statistics, {"sample": 0.5}, TypeError, "integer, not 0.5"),
        (plot_statistics, {"template": "ldm"}, ValueError, "'ldm'; plotly knows 'ldm_viz'"),
        (plot_heatmaps, {"branch": "cond"}, ValueError, "'cond'; this run has 'unconditional'"),
        (plot_heatmaps, {"channel": 4}, ValueError, "0, 1, 2, 3, 'norm'"),
        (plot_heatmaps, {"channel": -1}, ValueError, "0, 1, 2, 3, 'norm'"),
        (plot_heatmaps, {"channel": True}, ValueError, "0, 1, 2, 3, 'norm'"),
        (plot_heatmaps, {"steps": [STEPS]}, IndexError, "between 0 and 6, not 7"),
        (plot_heatmaps, {"steps": []}, ValueError, "steps is empty"),
        (plot_heatmaps, {"steps": 0}, ValueError, "at least 1"),
        (plot_heatmaps, {"steps": "all"}, TypeError, "integer or a list of integers, not 'all'"),
        (plot_filmstrip, {"series": "images"}, ValueError, "'images'; this run has 'latents', 'x0'"),
        (plot_filmstrip, {"series": []}, ValueError, "name at least one: 'latents', 'x0'"),
        (plot_filmstrip, {"steps": [1, 2.5]}, TypeError, "integer, not 2.5"),
        (plot_filmstrip, {"sample": -3}, IndexError, "between 0 and 1, not -3"),
        (plot_filmstrip, {"tile": 2}, ValueError, "at least 16"),
        (plot_schedule, {"names": ["a", "b"]}, ValueError, "names must be a list of 1"),
        (plot_schedule, {"names": "a"}, ValueError, "names must be a list of 1"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_named_with_what_can(run, plot, options, error, said):
    with pytest.raises(error, match=re.escape(said)):
        plot(run, **options)


def test_runs_that_lack_what_is_asked_for_say_so(run):
    bare = make_trajectory(3, frames=False, branches=False, x0=False)
    with pytest.raises(ValueError, match="'guided'; this run has 'latents'$"):
        plot_heatmaps(bare)
    with pytest.raises(ValueError, match="'x0'; this run has 'latents'$"):
        plot_filmstrip(bare, series=["x0"])
    with pytest.raises(ValueError, match="does not know its sigma.*'step'"):
        plot_statistics(run.replace(sigmas=np.full(STEPS, np.nan)), x="sigma")
    with pytest.raises(ValueError, match="no run is given"):
        plot_schedule()
    for plot in (plot_statistics, plot_heatmaps, plot_filmstrip, plot_schedule):
        with pytest.raises(TypeError, match="not str.*open_trajectory"):
            plot("run.safetensors")


@given(st.integers(1, 300), st.integers(1, 40))
def test_steps_evenly_apart_begin_and_end_with_the_run(count, number):
    steps = spread(count, number)
    assert len(steps) == min(count, number) and steps == sorted(set(steps))
    assert steps[0] == 0 and (steps[-1] == count - 1 or number == 1)
    gaps = np.diff(steps)
    assert not len(gaps) or gaps.max() - gaps.min() <= 1
    assert check_steps(number, count) == steps
    assert check_steps([-1, 0, -1, -count], count) == list(dict.fromkeys([count - 1, 0]))


# Words


@given(st.text(max_size=300), st.integers(2, 60))
def test_escaped_words_hold_no_markup_and_read_as_they_were(text, limit):
    shown = plain(text, limit)
    assert not re.search(r"[<>$\n]|&(?!(amp|lt|gt|#36);)", shown)
    read = html.unescape(shown)
    one_line = " ".join(text.split()).encode("utf-8", "replace").decode()
    assert len(read) <= limit
    assert read == one_line or (read.endswith("…") and one_line.startswith(read[:-1]))


def test_a_long_prompt_is_cut_and_a_narrow_figure_takes_more_lines(run):
    long = run.replace(settings={**run.settings, "prompt": "word " * 100})
    (first, *more) = facts(long, 0, 300)
    assert first.endswith("…”") and len(first) <= 42 and len(more) >= 2
    assert " · ".join(more) == facts(long, 0, 1e9)[0].partition(" · ")[2]
    width = plot_heatmaps(long, channel=0).layout.width
    for line in facts(long, 0, width):
        assert len(html.unescape(line)) * 6 < width


class Elements(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []
        self.addresses = []

    def handle_starttag(self, tag, attributes):
        self.found.append(tag)
        named = dict(attributes)
        self.addresses += [named[name] for name in ("src", "href") if name in named]


def nasty_run():
    prompt = f"<a href='https://example.com'>link</a> $x^2$ <b>bold</b> {NASTY}"
    run = make_trajectory(3)
    settings = {"prompt": prompt, "scheduler": "<i>%{x}</i>" + NASTY, "seed": 7}
    branches = {"guided": run.noise_prediction["guided"], f"<b>{NASTY}": run.x0}
    return run.replace(settings=settings, noise_prediction=branches)


@pytest.mark.parametrize("plot", PLOTS)
def test_no_text_of_a_run_is_markup_to_plotly(plot):
    figure = PLOTS[plot](nasty_run())
    texts = [figure.layout.title.text, *(note.text for note in figure.layout.annotations)]
    texts += [trace.name or "" for trace in figure.data]
    texts += [trace.hovertemplate for trace in figure.data]
    texts += [frame.layout.title.text for frame in figure.frames]
    for text in texts:
        assert set(re.findall(r"</?([a-z]+)", text)) <= {"br", "span", "sub", "extra"}, text
        assert "href" not in re.sub("&lt;.*?&gt;", "", text) and "$" not in text
    assert "link" in figure.layout.title.text
    assert not any("i&gt;" in trace.hovertemplate for trace in figure.data)


def test_a_page_holds_nothing_but_the_figure(tmp_path):
    path = save_figure(plot_heatmaps(nasty_run()), tmp_path / "maps.html")
    text = path.read_text(encoding="utf-8")
    elements = Elements()
    elements.feed(text)
    assert set(elements.found) <= {
        "html", "head", "meta", "link", "title", "style", "body", "div", "script",
    }  # fmt: skip
    assert elements.found.count("script") == len(
        re.findall(r"'sha256-[^']+'", html.unescape(text[:4000]))
    )
    assert elements.addresses == ["data:,"]
    assert "<title>Noise prediction, guided" in text
    assert text == save_figure(plot_heatmaps(nasty_run()), tmp_path / "2.html").read_text("utf-8")


# Files


@pytest.mark.parametrize("name", ["figure", "figure.jpg", "figure.gif", ".html"])
def test_unknown_suffixes_list_the_known_ones(run, tmp_path, name):
    with pytest.raises(ValueError, match=re.escape(".html, .svg, .png, .pdf")):
        save_figure(plot_schedule(run), tmp_path / name)


def test_what_cannot_be_saved_says_why(run, tmp_path, monkeypatch):
    figure = plot_schedule(run)
    with pytest.raises(TypeError, match="not Trajectory; make one with plot_statistics"):
        save_figure(run, tmp_path / "a.html")
    with pytest.raises(FileNotFoundError, match="there is no folder .*nowhere to write a.html"):
        save_figure(figure, tmp_path / "nowhere" / "a.html")
    for options in ({"width": 0}, {"height": -1}, {"scale": float("nan")}):
        with pytest.raises(ValueError, match=f"{next(iter(options))} must be above 0"):
            save_figure(figure, tmp_path / "a.png", **options)
    monkeypatch.setitem(sys.modules, "kaleido", None)
    with pytest.raises(ImportError, match=re.escape("pip install 'ldm_viz[figures]'")):
        save_figure(figure, tmp_path / "a.png")
    assert list(tmp_path.iterdir()) == []


def test_a_browser_that_is_not_there_is_named_with_the_cure(run, tmp_path, monkeypatch):
    monkeypatch.setenv("BROWSER_PATH", str(tmp_path / "chrome"))
    with pytest.raises(RuntimeError) as caught:
        save_figure(plot_schedule(run), tmp_path / "a.pdf")
    for words in (
        str(tmp_path / "chrome"),
        "pip install 'ldm_viz[figures]'",
        "apt install chromium",
    ):
        assert words in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def with_browser(monkeypatch):
    if not os.environ.get("BROWSER_PATH"):
        monkeypatch.setenv("BROWSER_PATH", find_chromium())


@pytest.mark.slow
@pytest.mark.browser
@pytest.mark.parametrize("plot", PLOTS)
def test_pictures_are_drawn_by_a_real_browser(run, tmp_path, plot, with_browser):
    figure = PLOTS[plot](run)
    path = save_figure(figure, tmp_path / "figure.PNG", width=700, height=400, scale=1.5)
    picture = decode_image(path.read_bytes())
    assert picture.shape == (600, 1050, 3)
    assert picture.std() > 10 and (picture[0, :5] == 255).all()


@pytest.mark.slow
@pytest.mark.browser
def test_vector_files_hold_the_words_and_no_controls(run, tmp_path, with_browser):
    figure = plot_heatmaps(nasty_run())
    before = figure.to_json()
    text = save_figure(figure, tmp_path / "figure.svg").read_text(encoding="utf-8")
    root = ET.fromstring(text)
    words = "".join(root.itertext())
    assert "Noise prediction, guided" in words and "step 0 of 3" in words
    assert "<a href='https://example.com'>link</a> $x^2$ <b>bo" in words
    names = {element.tag.rpartition("}")[2] for element in root.iter()}
    assert not names & {"a", "b", "script", "foreignObject"}
    assert "slider" not in text and "updatemenu" not in text
    assert figure.to_json() == before
    pdf = save_figure(plot_schedule(run), tmp_path / "figure.pdf").read_bytes()
    assert pdf.startswith(b"%PDF-") and len(pdf) > 5000


# The page in a browser

SHOWN = """() => {
  const figure = document.querySelector("#figure");
  return {
    words: document.querySelector(".gtitle").textContent,
    values: figure._fullData.map((trace) => Array.from(trace.z, (row) => Array.from(row))),
  };
}"""
# What a map's picture holds, cheap to compare.
DRAWN = """() => [...document.querySelectorAll(".heatmaplayer image")].map(
  (image) => image.getAttribute("xlink:href") || image.getAttribute("href"))"""


@pytest.fixture(scope="module")
def page_file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures")
    return save_figure(plot_heatmaps(nasty_run()), folder / "maps.html")


@pytest.mark.browser
def test_the_page_works_offline_and_its_slider_and_buttons_move_it(chromium, page_file):  # noqa: F811
    run = nasty_run()
    with open_watched(chromium) as watched:
        page = watched.page
        page.goto(page_file.as_uri())
        page.wait_for_selector(".slider-group")
        first = page.evaluate(SHOWN)
        pictures = page.evaluate(DRAWN)
        assert "step 0 of 3" in first["words"]
        assert len(pictures) == 4 and len(set(pictures)) == 4
        rail = page.locator(".slider-rail-touch-rect").bounding_box()
        page.mouse.click(rail["x"] + rail["width"] / 2, rail["y"] + rail["height"] / 2)
        page.wait_for_function(
            "document.querySelector('.gtitle').textContent.includes('step 1 of 3')"
        )
        shown = page.evaluate(SHOWN)
        np.testing.assert_array_equal(
            np.float32(shown["values"]), run.noise_prediction["guided"][1, 0]
        )
        assert not set(pictures) & set(page.evaluate(DRAWN))
        play, pause = page.locator(".updatemenu-button").all()
        play.click()
        page.wait_for_function(
            "document.querySelector('.gtitle').textContent.includes('step 2 of 3')"
        )
        page.mouse.click(rail["x"] + 8, rail["y"] + rail["height"] / 2)
        page.wait_for_function(
            "document.querySelector('.gtitle').textContent.includes('step 0 of 3')"
        )
        # One move cuts the other short, which is no error.
        page.evaluate(
            """([a, b]) => { a.dispatchEvent(new MouseEvent("click"));
            b.dispatchEvent(new MouseEvent("click")); }""",
            [play.element_handle(), pause.element_handle()],
        )
        page.wait_for_timeout(300)
        assert "Share" not in page.evaluate(
            "[...document.querySelectorAll('.modebar-btn')].map((b) => b.dataset.title).join()"
        )
        assert page.locator("svg a, svg b, img").count() == 0
        assert "<a href='https://example.com'>link</a> $x^2$" in first["words"]
        assert watched.errors == []
        outside = [url for url in watched.requests if not url.startswith(("file:", "data:"))]
        assert outside == []


@pytest.mark.browser
@pytest.mark.parametrize("plot", ["statistics", "filmstrip", "schedule"])
def test_other_pages_draw_offline_without_a_complaint(chromium, run, tmp_path, plot):  # noqa: F811
    figure = PLOTS[plot](run)
    path = save_figure(figure, tmp_path / "figure.html", width=800)
    with open_watched(chromium) as watched:
        watched.page.goto(path.as_uri())
        drawn = "image" if plot == "filmstrip" else "path.js-line"
        watched.page.wait_for_selector(f".main-svg {drawn}", state="attached")
        assert watched.page.locator(".main-svg").first.bounding_box()["width"] == 800
        assert watched.errors == []
        assert all(url.startswith(("file:", "data:")) for url in watched.requests)


@pytest.mark.browser
def test_a_figure_of_ones_own_has_no_button_that_sends_it_away(chromium, tmp_path):  # noqa: F811
    path = save_figure(go.Figure(go.Scatter(y=[1, 2])), tmp_path / "figure.html")
    with open_watched(chromium) as watched:
        watched.page.goto(path.as_uri())
        watched.page.wait_for_selector(".modebar-btn", state="attached")
        titles = watched.page.evaluate(
            "[...document.querySelectorAll('.modebar-btn')].map((b) => b.dataset.title)"
        )
        assert any("Download" in title for title in titles)
        assert not any("Share" in title for title in titles)
