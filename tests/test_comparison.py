"""Runs side by side in Python: which steps belong together, where runs part, and what the widget sends."""

import base64
import json
import re

import numpy as np
import pytest
import traitlets
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from pipelines import build_pipeline, call_arguments, use_scheduler
from test_explorer import NASTY, Elements, decode_codes
from trajectories import make_trajectory

import ldm_viz as lv
from ldm_viz.comparison import (
    VISIBLE,
    align,
    differences,
    distances,
    first_parting,
    name_runs,
    relative_distance,
    setting_differences,
    subtract,
)
from ldm_viz.imaging import decode_image
from ldm_viz.trajectory import Trajectory
from ldm_viz.widgets.comparison import compare


def run_with(snrs, *, latents=None, **changes):
    """A run of nothing but noise levels."""
    snrs = np.asarray(snrs, dtype=np.float64)
    if latents is None:
        latents = np.zeros((len(snrs) + 1, 1, 1, 2, 2), np.float32)
    sigmas = np.full(len(snrs), np.nan)
    times = np.arange(len(snrs), dtype=np.float64)
    return Trajectory(latents=latents, timesteps=times, sigmas=sigmas, snrs=snrs, **changes)


LEVELS = st.lists(
    st.one_of(st.floats(1e-12, 1e12), st.sampled_from([0.0, np.inf])), min_size=1, max_size=12
)


@given(st.lists(LEVELS, min_size=2, max_size=5))
def test_by_step_runs_stay_at_their_last_step(levels):
    runs = [run_with(one) for one in levels]
    steps = align(runs)
    assert steps.shape == (max(map(len, runs)), len(runs))
    for k, run in enumerate(runs):
        np.testing.assert_array_equal(steps[: len(run), k], np.arange(len(run)))
        assert (steps[len(run) :, k] == len(run) - 1).all()


@given(st.lists(LEVELS.map(sorted), min_size=2, max_size=5))
def test_by_noise_no_other_step_is_nearer_and_none_goes_back(levels):
    runs = [run_with(one) for one in levels]
    steps = align(runs, "noise")
    longest = int(np.argmax([len(run) for run in runs]))
    np.testing.assert_array_equal(steps[:, longest], np.arange(len(runs[longest])))
    with np.errstate(divide="ignore"):
        known = [np.clip(np.log(run.snrs), -60, 60) for run in runs]
    for k, own in enumerate(known):
        assert (np.diff(steps[:, k]) >= 0).all()
        apart = np.abs(known[longest][:, None] - own)
        chosen = np.take_along_axis(apart, steps[:, [k]], axis=1)
        assert (chosen <= apart.min(axis=1, keepdims=True) + 1e-9).all()


def test_by_noise_repeated_levels_are_gone_through_in_order():
    heun = run_with([0.1, 1.0, 1.0, 10.0, 10.0])
    np.testing.assert_array_equal(align([heun, heun], "noise").T, [range(5)] * 2)


def test_ten_and_twenty_steps_meet_where_the_noise_is_the_same():
    ten, twenty = make_trajectory(10), make_trajectory(20)
    steps = align([ten, twenty], "noise")
    assert len(steps) == 20 and list(steps[-1]) == [9, 19]
    assert len(set(steps[:, 0])) == 10
    ratios = ten.snrs[steps[:, 0]] / twenty.snrs[steps[:, 1]]
    by_step = align([ten, twenty])
    worse = ten.snrs[by_step[:, 0]] / twenty.snrs[by_step[:, 1]]
    assert np.abs(np.log(ratios)).max() < np.abs(np.log(worse)).max()


def test_unknown_levels_lie_between_their_neighbours_and_none_at_all_is_refused():
    patchy = run_with([0.01, np.nan, 100.0])
    np.testing.assert_array_equal(
        align([patchy, run_with([0.01, 1.0, 100.0])], "noise")[:, 0], range(3)
    )
    with pytest.raises(ValueError, match='run 1 has no known noise levels.*by="step"'):
        align([patchy, run_with([np.nan, np.nan])], "noise")
    with pytest.raises(ValueError, match="run 1 has no step"):
        align([patchy, run_with([])])
    with pytest.raises(ValueError, match="'time'; there are 'step' and 'noise'"):
        align([patchy, patchy], "time")


ODD = arrays.arrays(
    np.float32, (6,), elements=st.floats(width=32, allow_nan=True, allow_infinity=True)
)


@given(ODD, ODD)
@settings(max_examples=200)
@pytest.mark.filterwarnings("error")
def test_distances_and_differences_are_zero_only_for_the_same(a, b):
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    np.testing.assert_array_equal(subtract(a, b)[same], 0)
    assert relative_distance(a, a) == 0 and not subtract(a, a).any()
    distance = relative_distance(a, b)
    assert distance == relative_distance(b, a) and distance >= 0
    if np.isfinite(a).all() and np.isfinite(b).all():
        assert distance <= 2 + 1e-5
    elif not same[~(np.isfinite(a) & np.isfinite(b))].all():
        assert distance == np.inf


def test_distances_have_the_size_one_expects():
    random = np.random.default_rng(0)
    a, b = random.normal(size=(2, 100_000))
    assert relative_distance(a, b) == pytest.approx(2**0.5, abs=0.01)
    assert relative_distance(a, -a) == pytest.approx(2, abs=1e-5)
    assert relative_distance(a, 1.01 * a) == pytest.approx(0.01, rel=0.01)
    assert relative_distance(a * 1e30, b * 1e30) == pytest.approx(2**0.5, abs=0.01)


STEPS = 5


def record(pipe, *, seed=3, **changes):
    import torch

    changes = {
        "num_inference_steps": STEPS,
        "generator": torch.Generator().manual_seed(seed),
    } | changes
    with lv.Recorder(pipe) as recorder:
        pipe(**call_arguments("text-to-image", **changes))
    return recorder.trajectory


@pytest.fixture(scope="module")
def recorded():
    """Real runs: the same again, and with one thing changed each."""
    from diffusers import EulerDiscreteScheduler

    def push(pipe, step, timestep, values):
        return {"latents": values["latents"] + 0.1} if step == 3 else values

    pipe = build_pipeline()
    runs = {
        "plain": record(pipe),
        "again": record(pipe),
        "seed": record(pipe, seed=4),
        "guidance": record(pipe, guidance_scale=3.0),
        "prompt": record(pipe, prompt="a blue fish"),
        "pushed": record(pipe, callback_on_step_end=push),
        "longer": record(pipe, num_inference_steps=2 * STEPS),
    }
    return runs | {"euler": record(use_scheduler(pipe, EulerDiscreteScheduler))}


@pytest.mark.parametrize(
    ("name", "step", "what", "said"),
    [
        ("again", None, "", "bit-identical throughout."),
        ("seed", 0, "initial latents", "from the start.*differ in: seed 3 and 4."),
        ("guidance", 0, "guided", "part at step 0: guided prediction.*guidance 7 and 3."),
        ("prompt", 0, "conditional", "part at step 0: conditional prediction"),
        ("pushed", 3, "next latents", "the same latents and part at step 3: next latents"),
        ("longer", 0, "noise level", "noise level. They differ in: steps 5 and 10"),
    ],
)
def test_where_real_runs_part(recorded, name, step, what, said):
    parting = first_parting([recorded["plain"], recorded[name]])
    assert (parting.step, parting.what) == (step, what)
    assert re.search(said, str(parting))
    assert (parting.distance > 0) == (step is not None)


def test_another_scheduler_begins_with_the_same_noise_in_another_scale(recorded):
    parting = first_parting([recorded["plain"], recorded["euler"]], VISIBLE)
    ratio = recorded["euler"].latents[0].std() / recorded["plain"].latents[0].std()
    assert parting.what != "initial latents" and parting.scale == pytest.approx(ratio, rel=1e-5)
    assert f"scaled by {ratio:.1f}" in str(parting) or "scale ×" in str(parting)
    # In one scale they begin together, but for what the two schedules make of the last noise level.
    assert distances(recorded["plain"], recorded["euler"])["latents"][0] < 0.005


def test_of_several_runs_the_earliest_parting_counts(recorded):
    runs = [recorded[name] for name in ("plain", "pushed", "guidance")]
    parting = first_parting(runs)
    assert (parting.runs, parting.step, parting.what) == ((0, 2), 0, "guided")
    with pytest.raises(ValueError, match="two runs or more, not 1"):
        first_parting(runs[:1])


def test_nan_is_the_same_as_nan_and_a_run_cut_short_ends(recorded):
    run = recorded["plain"]
    latents = run.latents.copy()
    latents[2] = np.nan
    broken = run.replace(latents=latents)
    assert first_parting([broken, broken.replace(latents=latents.copy())]).step is None
    found = first_parting([run, broken])
    assert (found.step, found.what, found.distance) == (1, "next latents", np.inf)
    ended = first_parting([run, run[:3]])
    assert (ended.step, ended.what) == (3, "end")
    assert "alike until one ends after step 2" in str(ended)


def test_within_a_tolerance_runs_are_alike(recorded):
    run = recorded["plain"]
    near = run.replace(latents=run.latents * np.float32(1 + 1e-6))
    assert first_parting([run, near]).step == 0
    assert first_parting([run, near], 1e-3).step is None
    assert "alike to 0.001" in str(first_parting([run, near], 1e-3))


def test_differences_are_the_runs_own(recorded):
    run, other = recorded["plain"], recorded["guidance"]
    found = differences(other, run, "guided")
    expected = other.noise_prediction["guided"][:, 0] - run.noise_prediction["guided"][:, 0]
    np.testing.assert_array_equal(found, expected)
    assert not differences(run, run, "x0").any()
    assert not differences(other, run, "latents")[0].any()
    longer = differences(recorded["longer"], run, "x0", by="noise")
    assert len(longer) == 2 * STEPS
    with pytest.raises(ValueError, match="in 'x1'; they share 'latents', 'x0', 'guided', 'un"):
        differences(run, other, "x1")
    with pytest.raises(ValueError, match="shapes 4×8×8 and 4×16×16 cannot be subtracted"):
        differences(run, make_trajectory(5))


def test_runs_are_named_by_what_tells_them_apart(recorded):
    def names(*chosen):
        return name_runs([recorded[name] for name in chosen])

    assert names("plain", "seed") == ["seed 3", "seed 4"]
    assert names("plain", "guidance") == ["guidance 7", "guidance 3"]
    assert names("plain", "euler") == ["DDIMScheduler", "EulerDiscreteScheduler"]
    assert names("plain", "prompt") == ["a red star at night", "a blue fish"]
    assert names("plain", "again") == ["run 0", "run 1"]
    assert names("plain", "seed", "longer") == ["seed 3, 5 steps", "seed 4", "10 steps"]
    assert names("plain", "again", "seed") == ["run 0: seed 3", "run 1: seed 3", "seed 4"]
    assert list(setting_differences([recorded["plain"], recorded["seed"]])) == ["seed"]


def pair(**changes):
    """Two made-up runs that differ by a seed."""
    first = make_trajectory(9)
    other = make_trajectory(9, seed=1, **changes)
    return [first, other.replace(settings={**other.settings, "seed": 8})]


@pytest.fixture
def comparison():
    return compare(pair())


def test_it_begins_where_it_is_told():
    made = compare(*pair(), step=-1, by="noise", reference=1, series="guided", channel=2)
    assert (made.step, made.by, made.reference, made.series, made.channel) == (
        8,
        "noise",
        1,
        "guided",
        2,
    )
    assert made.names == ("seed 7", "seed 8")
    assert compare(pair(), names=["a", "b"]).names == ("a", "b")
    assert compare(pair()).series == "x0"


def test_current_gives_the_steps_behind_what_is_shown():
    ten, twenty = make_trajectory(10), make_trajectory(20)
    made = compare(ten, twenty, step=19)
    assert [one.step for one in made.current] == [9, 19]
    made.step = 11
    assert [one.step for one in made.current] == [9, 11]
    made.by = "noise"
    assert [one.step for one in made.current] == list(align([ten, twenty], "noise")[11])
    heard = []
    made.observe(lambda change: heard.append(change.new), "step")
    made.set_state({"step": 4})
    assert heard == [4]


@pytest.mark.parametrize(
    ("trait", "value", "said"),
    [
        ("step", 9, "between 0 and 8, not 9"),
        ("by", "time", "'step' and 'noise'"),
        ("reference", 2, "0 (seed 7), 1 (seed 8)"),
        ("series", "x1", "'x0', 'latents', 'latents maps', 'x0 maps', 'guided', 'unconditional'"),
        ("difference", "all", "'values', 'pictures', 'none'"),
        ("channel", 4, "0 to 3 and 'norm'"),
        ("scale", "all", "'run' and 'step'"),
        ("speed", 0, "above 0"),
    ],
)
def test_wrong_values_are_refused_with_the_known_ones(comparison, trait, value, said):
    before = getattr(comparison, trait)
    with pytest.raises(traitlets.TraitError, match=re.escape(said)):
        setattr(comparison, trait, value)
    assert getattr(comparison, trait) == before
    with pytest.raises(traitlets.TraitError, match=re.escape(said)):
        compare(pair(), **{trait: value})


def test_what_cannot_be_compared_is_told():
    run = make_trajectory(3)
    with pytest.raises(ValueError, match="takes 2 to 6 runs, not 1"):
        compare(run)
    with pytest.raises(ValueError, match="takes 2 to 6 runs, not 7"):
        compare([run] * 7)
    with pytest.raises(TypeError, match="comparison shows a Trajectory, not str.*open_trajectory"):
        compare(run, "run.safetensors")
    with pytest.raises(ValueError, match="run 1 has no step.*leave it out"):
        compare(run, make_trajectory(0))
    with pytest.raises(ValueError, match="a name for each of the 2 runs, not 1"):
        compare(run, run, names=["one"])
    with pytest.raises(IndexError, match="sample 1 is not in the batch of run 1, which has 1"):
        compare(make_trajectory(3, batch=2), run, sample=1)
    with pytest.raises(TypeError, match="'stepp'; the comparison has by, channel, difference"):
        compare(run, run, stepp=1)


def test_the_samples_of_one_run_are_compared():
    run = make_trajectory(4, batch=3)
    made = compare(run)
    assert made.names[2] == "a red boat on the water at sunset, number 2"
    np.testing.assert_array_equal(made.trajectories[1].latents, run.latents[:, 1:2])
    other = compare(run, run, sample=2)
    np.testing.assert_array_equal(other.trajectories[0].x0, run.x0[:, 2:])


def test_the_repr_tells_where_they_part_and_how_far_they_are(comparison):
    comparison.step = 2
    near = distances(*pair())["x0"][2]
    assert repr(comparison) == repr(compare(pair(), step=2))
    assert repr(comparison).splitlines()[:3] == [
        "Comparison of 2 runs by step: step 2 of 9 · timestep 667 · σ 2.93 · SNR 0.117: mostly noise",
        "  The runs differ from the start: other initial latents. They differ in seed 7 and 8.",
        "  0 seed 7: the reference",
    ]
    assert "differs from the start, distance of latents 1.3" in repr(comparison)
    assert f"x0 {near:.3g}" in repr(comparison)


def test_a_still_picture_goes_with_the_view(comparison):
    data, _ = comparison._repr_mimebundle_()
    assert data["text/plain"] == repr(comparison)
    picture = decode_image(base64.b64decode(data["image/png"]))
    assert picture.shape[0] > 2 * 128 and picture.shape[1] > 6 * 128
    assert comparison.still() == compare(pair()).still()


def map_of(comparison, name, position):
    """Values of a map as the browser finds them, shape (channels, h, w), and half a code's worth."""
    head = comparison._header["maps"]
    stacks = {stack["name"]: stack for stack in head["stacks"]}
    stack = stacks[name]
    if "sum" in stack:
        (one, a), (other, b) = (map_of(comparison, term, position) for term in stack["sum"])
        return one + stack.get("sign", 1) * other, a + b
    coded = [one["name"] for one in head["stacks"] if "scales" in one]
    codes = np.frombuffer(comparison._maps, "<u1" if head["bits"] == 8 else "<u2")
    codes = codes.reshape(len(coded), head["steps"], *head["shape"])
    scale = stack["scales"][0][position]
    half = scale / (2 * ((1 << (head["bits"] - 1)) - 3))
    return decode_codes(codes[coded.index(name), position], scale, head["bits"]), half


@pytest.mark.parametrize("base", [0, 1])
@pytest.mark.parametrize("by", ["step", "noise"])
def test_maps_and_their_differences_are_the_runs_own(recorded, base, by):
    runs = [recorded[name] for name in ("plain", "guidance", "longer")]
    made = compare(runs, reference=base)
    steps = align(runs, by)
    for k, run in enumerate(runs):
        for position in (0, 7):
            sent, half = map_of(made, f"{by}:x0/{k}", position)
            np.testing.assert_allclose(sent, run.x0[steps[position, k], 0], atol=1.01 * half + 1e-7)
            for other in range(3):
                name = f"{by}:guided/{k}-{other}"
                if other == k or other != base and k == base:
                    assert name not in {stack["name"] for stack in made._header["maps"]["stacks"]}
                    continue
                sent, half = map_of(made, name, position)
                a = run.noise_prediction["guided"][steps[position, k], 0]
                b = runs[other].noise_prediction["guided"][steps[position, other], 0]
                np.testing.assert_allclose(sent, a - b, atol=1.01 * half + 1e-7)


def test_what_is_the_same_is_sent_as_exactly_zero(recorded):
    made = compare([recorded[name] for name in ("plain", "again", "pushed")])
    for position in range(STEPS):
        assert not map_of(made, "step:latents/1-0", position)[0].any()
        assert map_of(made, "step:latents/2-0", position)[0].any() == (position > 3)
        np.testing.assert_array_equal(
            map_of(made, "step:latents/2-1", position)[0],
            map_of(made, "step:latents/2-0", position)[0],
        )


def test_bad_values_stay_those_of_the_run_they_are_in():
    first, other = pair()
    latents = first.latents.copy()
    latents[3, 0, 1, 2, 2] = np.nan
    made = compare(first.replace(latents=latents), other, other)
    assert np.isnan(map_of(made, "step:latents/0", 3)[0]).sum() == 1
    assert np.isfinite(map_of(made, "step:latents/1", 3)[0]).all()
    assert np.isnan(map_of(made, "step:latents/1-0", 3)[0]).sum() == 1
    assert not map_of(made, "step:latents/2-1", 3)[0].any()


def test_curves_are_sent_for_each_alignment_and_reference(recorded):
    runs = [recorded[name] for name in ("plain", "guidance", "longer")]
    made = compare(runs)
    charts = made._header["charts"]
    numbers = np.frombuffer(made._charts, "<f4").reshape(len(charts), 2, 3, 3, 2 * STEPS)
    assert [chart["title"] for chart in charts][:2] == [
        "Distance: sample",
        "Distance: predicted x0",
    ]
    np.testing.assert_allclose(
        numbers[1, 0, 2, 1], [relative_distance(runs[1].x0[i, 0], runs[2].x0[j, 0]) for _, i, j in align(runs)], rtol=1e-5,
    )  # fmt: skip
    assert np.isnan(numbers[0, :, 1, 1]).all()
    levels = [runs[k].snrs[align(runs, "noise")[:, k]] for k in range(3)]
    np.testing.assert_allclose(numbers[-1, 1, 0], levels, rtol=1e-6)
    # The mark is where the first of them has parted, of each alignment and reference.
    assert made._header["marks"] == [0] * 6
    assert compare(recorded["plain"], recorded["pushed"])._header["marks"][0] == 3
    assert compare(recorded["plain"], recorded["again"])._header["marks"] == [-1] * 4


def test_rounding_is_told_from_a_parting(recorded):
    run = recorded["plain"]
    near = run.replace(latents=run.latents + np.float32(1e-7))
    told = compare(run, near)._header
    assert told["partings"][0][1]["step"] is None
    assert (
        "differ by rounding alone" in told["told"][0]
        or "rounding" in told["partings"][0][1]["words"]
    )


def test_what_is_sent_stays_under_six_megabytes():
    noise = np.random.default_rng(0).integers(0, 256, (3, 512, 512, 3), dtype=np.uint8)
    runs = []
    for k in range(6):
        run = make_trajectory(50, side=512, factor=8, frames=False, seed=k)
        index = np.arange(51).reshape(51, 1) % 3
        runs.append(run.replace(frames={"latents": noise[index], "x0": noise[index[:-1]]}))
    made = compare(runs)
    made.finish()
    state = made.get_state()
    sizes = {k: len(v) if isinstance(v, bytes) else len(json.dumps(v)) for k, v in state.items()}
    assert sum(sizes.values()) < 6e6, sizes
    assert made._header["maps"]["shape"][1] >= 16
    assert sizes["_esm"] + sizes["_css"] < 75_000


def partial_pairs():
    run = make_trajectory(5)
    unknown = {"sigmas": np.full(5, np.nan), "snrs": np.full(5, np.nan)}
    vectors = np.random.default_rng(0).normal(size=(4, 1, 32))
    bare = Trajectory(latents=vectors, timesteps=np.arange(3.0), sigmas=np.full(3, np.nan), snrs=np.full(3, np.nan))  # fmt: skip
    nothing = make_trajectory(5, frames=False, branches=False, x0=False)
    return {
        "nothing but latents": [nothing, nothing],
        "one with no pictures": [run, make_trajectory(5, frames=False)],
        "one with no predictions": [run, make_trajectory(5, branches=False)],
        "one with no x0": [make_trajectory(5, x0=False), run],
        "other shapes": [run, make_trajectory(5, side=128)],
        "no noise levels": [run, run.replace(**unknown)],
        "no settings": [make_trajectory(3, settings={}), make_trajectory(4, settings={})],
        "vectors": [bare, bare],
        "one step": [make_trajectory(1), run],
        "interrupted": [run[:3].replace(status="interrupted", error="stopped"), run],
        "all bad": [run.replace(latents=np.full((6, 1, 4, 16, 16), np.nan)), run],
    }


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", partial_pairs())
def test_runs_with_parts_missing_have_widget_still_and_page(name):
    made = compare(partial_pairs()[name])
    assert repr(made).startswith("Comparison of 2 runs by step: step 0")
    assert decode_image(made.still()).size
    assert "<!doctype html>" in made.to_html()
    json.dumps(made._header, allow_nan=False)
    if name == "other shapes":
        assert any("cannot be subtracted" in note for note in made._header["notes"])
        assert "x0/1-0" not in str(made._header["maps"])
    if name == "no noise levels":
        with pytest.raises(traitlets.TraitError, match='use by="step"'):
            made.by = "noise"


def test_nothing_in_a_run_can_become_markup_or_script(tmp_path):
    runs = [
        make_trajectory(2, settings={"prompt": NASTY, "scheduler": NASTY + str(k), NASTY: k})
        for k in range(2)
    ]
    path = compare(runs, names=[NASTY, "b"]).to_html(tmp_path / "runs.html")
    elements = Elements()
    elements.feed(path.read_text(encoding="utf-8"))
    tags = [tag for tag, _ in elements.found]
    assert tags.count("script") == 5 and "img" not in tags
