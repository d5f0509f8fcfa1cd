"""The explorer in Python: its traits, what it sends, its still picture and its page."""

import base64
import hashlib
import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import traitlets
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from trajectories import make_trajectory

import ldm_viz as lv
from ldm_viz.imaging import decode_image
from ldm_viz.trajectory import Trajectory
from ldm_viz.widgets.maps import BUDGET, DELTA, quantise
from ldm_viz.widgets.packing import pack
from ldm_viz.widgets.pictures import shown_steps
from ldm_viz.widgets.sources import module_text, page_script, read_view, split_imports

NASTY = (
    "</script><script>alert(1)</script><img src=x onerror=alert(2)> <!-- & \u2028 ]]> ' \" \\ 猫"
)
VIEWS = [
    "explorer",
    "comparison",
    "conditioning",
    "live",
    "filmstrip",
    "noise_heatmap",
    "latent_statistics",
    "picture_strip",
]
BRANCHES = ["unconditional", "conditional", "guided", DELTA]


@pytest.fixture(scope="module")
def run():
    return make_trajectory(9)


@pytest.fixture
def explorer(run):
    return lv.explore(run)


def frame_at(pictures, series, sample, index):
    """A picture as the browser finds it: by the lengths of the files before it."""
    at = 0
    for name, head in pictures.header.items():
        for b, lengths in enumerate(head["lengths"]):
            for i, length in enumerate(lengths):
                if (name, b, i) == (series, sample, index):
                    return decode_image(pictures.data[at : at + length])
                at += length
    raise KeyError(series)


def decode_codes(codes, scale, bits):
    half = 1 << (bits - 1)
    values = (codes.astype(np.float64) - half) * scale / (half - 3)
    values[codes == 0], values[codes == 1] = np.nan, -np.inf
    values[codes == 2 * half - 1] = np.inf
    return values


def map_at(packed, name, sample, step):
    """A heatmap's values as the browser finds them, shape (channels, h, w)."""
    head = packed.header["maps"]
    stacks = {stack["name"]: stack for stack in head["stacks"]}
    if "sum" in stacks[name]:
        return sum(map_at(packed, part, sample, step) for part in stacks[name]["sum"])
    coded = [stack["name"] for stack in head["stacks"] if "scales" in stack]
    codes = np.frombuffer(packed.maps, "<u1" if head["bits"] == 8 else "<u2")
    codes = codes.reshape(len(coded), head["batch"], head["steps"], *head["shape"])
    scale = stacks[name]["scales"][sample][step]
    return decode_codes(codes[coded.index(name), sample, step], scale, head["bits"])


def test_it_begins_where_it_is_told(run):
    explorer = lv.explore(run, step=-1, channel="norm", branch=DELTA, speed=4, scale="step")
    assert (explorer.step, explorer.channel, explorer.branch) == (8, "norm", DELTA)
    assert lv.explore(run).branch == "guided" and lv.explore(run).step == 0
    assert lv.explore(run, step=np.int64(3)).step == 3


def test_current_is_the_step_behind_what_is_shown(explorer, run):
    explorer.step = 5
    assert explorer.current.step == 5 and explorer.trajectory is run
    np.testing.assert_array_equal(explorer.current.latents, run.latents[5])


@pytest.mark.parametrize(
    ("trait", "value", "said"),
    [
        ("step", 9, "between 0 and 8, not 9"),
        ("step", -1, "between 0 and 8, not -1"),
        ("step", "3", "step"),
        ("sample", 1, "between 0 and 0"),
        ("branch", "uncond", "'unconditional', 'conditional', 'guided', 'guidance delta'"),
        ("channel", 4, "0 to 3 and 'norm'"),
        ("channel", -1, "0 to 3 and 'norm'"),
        ("channel", "mean", "0 to 3 and 'norm'"),
        ("channel", True, "0 to 3 and 'norm'"),
        ("scale", "all", "'run' and 'step'"),
        ("speed", 0, "above 0"),
        ("speed", float("nan"), "above 0"),
    ],
)
def test_wrong_values_are_refused_with_the_known_ones(explorer, trait, value, said):
    before = getattr(explorer, trait)
    with pytest.raises(traitlets.TraitError, match=re.escape(said)):
        setattr(explorer, trait, value)
    assert getattr(explorer, trait) == before
    if (trait, value) != ("step", -1):
        with pytest.raises(traitlets.TraitError, match=re.escape(said)):
            lv.explore(explorer.trajectory, **{trait: value})


def test_what_is_no_trajectory_and_unknown_options_are_named(run):
    for thing in (None, "run.safetensors", {"latents": 1}):
        with pytest.raises(TypeError, match=f"not {type(thing).__name__}.*open_trajectory"):
            lv.explore(thing)
    with pytest.raises(
        TypeError, match="'stepp'.*frame, panels, playing, sample, scale, speed, step"
    ):
        lv.explore(run, stepp=3)
    with pytest.raises(traitlets.TraitError, match="between 0 and 8, not 40"):
        lv.explore(run, step=40)


def test_changes_from_the_browser_are_observed(explorer):
    heard = []
    explorer.observe(lambda change: heard.append(change.new), "step")
    explorer.set_state({"step": 4})
    explorer.set_state({"branch": DELTA, "channel": "norm"})
    assert heard == [4] and explorer.branch == DELTA and explorer.channel == "norm"


def test_the_repr_is_the_same_each_time_and_says_where_it_stands(run):
    explorer = lv.explore(run, step=2)
    assert (
        repr(explorer)
        == repr(lv.explore(run, step=2))
        == (
            "Explorer: step 2 of 9 · timestep 667 · σ 2.93 · SNR 0.117: mostly noise\n"
            "  64×64 pictures, noise predictions: unconditional, conditional, guided, guidance delta"
        )
    )


def test_a_still_picture_goes_with_the_view(explorer):
    data, _ = explorer._repr_mimebundle_()
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == explorer.model_id
    assert data["text/plain"] == repr(explorer)
    picture = decode_image(base64.b64decode(data["image/png"]))
    assert picture.shape[0] > 256 and picture.shape[1] > 6 * 128
    assert explorer.still() == explorer.still()


def test_small_pictures_are_sent_to_the_pixel():
    run = make_trajectory(5, batch=2)
    explorer = lv.explore(run)
    for series, index in (("latents", 0), ("latents", 5), ("x0", 3)):
        for b in range(2):
            np.testing.assert_array_equal(
                frame_at(explorer._pictures, series, b, index), run.frames[series][index, b]
            )


def test_maps_are_sent_with_sixteen_bits_where_they_fit():
    run = make_trajectory(5, batch=2)
    packed = pack(run)
    assert packed.branches == tuple(BRANCHES) and packed.channels == 4
    sent, latents = map_at(packed, "latents", 1, 3), run.latents[3, 1]
    np.testing.assert_allclose(sent, latents, atol=np.abs(latents).max() / 32000)
    for branch in BRANCHES[:3]:
        sent = map_at(packed, branch, 1, 3)
        values = run.noise_prediction[branch][3, 1]
        np.testing.assert_allclose(sent, values, atol=np.abs(values).max() / 32000)
    delta = run.noise_prediction["conditional"] - run.noise_prediction["unconditional"]
    np.testing.assert_allclose(
        map_at(packed, DELTA, 0, 2), delta[2, 0], atol=np.abs(delta[2, 0]).max() / 32000
    )


def test_curves_are_sent_in_the_order_their_header_says():
    run = make_trajectory(5, batch=2)
    packed = pack(run)
    numbers = np.frombuffer(packed.charts, "<f4")
    at = 0
    for chart in packed.header["charts"]:
        count = 2 * len(chart["series"]) * chart["points"]
        values = numbers[at : at + count].reshape(2, len(chart["series"]), chart["points"])
        at += count
        if chart["title"] == "Latents: std":
            assert chart["expected"] and chart["series"][-1] == "expected"
            np.testing.assert_allclose(
                values[1, :4], run.latents[:, 1].std(axis=(2, 3), dtype=float).T, rtol=1e-6
            )
            np.testing.assert_array_equal(values[:, 4], 1)
    assert at == len(numbers)


@given(
    values=arrays.arrays(
        np.float32, (4, 5), elements=st.floats(width=32, allow_nan=True, allow_infinity=True)
    ),
    bits=st.sampled_from([8, 16]),
)
def test_quantised_values_keep_their_sign_their_size_and_what_is_bad(values, bits):
    codes, scale = quantise(values, bits)
    found = decode_codes(codes, scale, bits)
    assert codes.itemsize * 8 == bits
    finite = np.isfinite(values)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(values))
    np.testing.assert_array_equal(found == np.inf, values == np.inf)
    np.testing.assert_array_equal(found == -np.inf, values == -np.inf)
    within = finite & (np.abs(values.astype(float)) <= scale)
    step = scale / ((1 << (bits - 1)) - 3)
    assert (np.abs(found[within] - values[within]) <= 0.51 * step + 1e-45).all()
    outside = finite & ~within
    assert (np.sign(found) == np.sign(values))[outside].all()
    assert (np.abs(found[outside]) >= scale * (1 - 1e-12)).all()


def test_an_outlier_does_not_cost_the_rest_its_resolution():
    values = np.random.default_rng(0).normal(size=(1, 32, 32))
    values[0, 3, 3] = -1e6
    codes, scale = quantise(values, 8)
    assert scale < 20 and codes[0, 3, 3] == 2
    assert np.abs(decode_codes(codes, scale, 8) - values)[np.abs(values) < 5].max() < 0.06


@pytest.mark.parametrize(
    ("steps", "side", "batch", "channels"),
    [(50, 512, 1, 4), (12, 256, 6, 4), (4, 1024, 1, 16), (300, 64, 1, 4)],
)
def test_what_is_sent_stays_under_six_megabytes(steps, side, batch, channels):
    run = make_trajectory(
        steps, side=side, factor=8, channels=channels, batch=batch, frames=side < 512
    )
    if side >= 512:
        # Noise is what compresses worst; a few distinct pictures repeated keep the test quick.
        noise = np.random.default_rng(0).integers(0, 256, (3, side, side, 3), dtype=np.uint8)
        index = np.arange((steps + 1) * batch).reshape(steps + 1, batch) % 3
        run = run.replace(frames={"latents": noise[index], "x0": noise[index[:-1]]})
    explorer = lv.explore(run)
    explorer.finish()
    assert explorer._pictures.missing == 0 and explorer._note == ""
    state = explorer.get_state()
    sizes = {k: len(v) if isinstance(v, bytes) else len(json.dumps(v)) for k, v in state.items()}
    assert sum(sizes.values()) < 6e6, sizes
    code = sizes["_esm"] + sizes["_css"]
    assert code < 60_000
    assert len(explorer._header["maps"]["stacks"]) == 5
    assert len(explorer.to_html()) < 8e6


def test_where_space_is_short_the_conditional_prediction_is_a_sum():
    run = make_trajectory(50, side=512, factor=8, frames=False)
    packed = pack(run)
    stacks = {stack["name"]: stack for stack in packed.header["maps"]["stacks"]}
    assert stacks["conditional"]["sum"] == ["unconditional", DELTA]
    assert len(packed.maps) == 4 * 50 * 4 * 64 * 64
    for step in (0, 20, 49):
        values = run.noise_prediction["conditional"][step, 0]
        sent = map_at(packed, "conditional", 0, step)
        scales = [stacks[name]["scales"][0][step] for name in stacks["conditional"]["sum"]]
        np.testing.assert_allclose(sent, values, atol=sum(scales) / 250 * 1.01)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e6])
def test_no_sum_stands_in_for_values_that_are_bad_or_outliers(bad):
    run = make_trajectory(50, side=512, factor=8, frames=False)
    branches = {name: values.copy() for name, values in run.noise_prediction.items()}
    branches["conditional"][3, 0, 2, 5, 7] = bad
    packed = pack(run.replace(noise_prediction=branches))
    assert all("scales" in stack for stack in packed.header["maps"]["stacks"])
    assert len(packed.maps) <= BUDGET
    where = np.s_[2, 5 // packed.header["maps"]["factor"], 7 // packed.header["maps"]["factor"]]
    found = map_at(packed, "conditional", 0, 3)[where]
    [stack] = [s for s in packed.header["maps"]["stacks"] if s["name"] == "conditional"]
    assert np.isnan(found) if np.isnan(bad) else found > stack["scales"][0][3]


def test_averaged_maps_are_means_and_said_so():
    run = make_trajectory(30, side=1024, factor=8, channels=8, frames=False)
    packed = pack(run)
    head = packed.header["maps"]
    assert head["factor"] == 4 and head["shape"] == [8, 32, 32]
    expected = run.noise_prediction["guided"][7, 0].reshape(8, 32, 4, 32, 4).mean(axis=(2, 4))
    sent = map_at(packed, "guided", 0, 7)
    np.testing.assert_allclose(sent, expected, atol=np.abs(expected).max() / 240)
    assert any("4×4" in note for note in packed.header["notes"])


def video_run(steps=4, frames=9):
    random = np.random.default_rng(3)
    latents = random.normal(size=(steps + 1, 1, 4, 3, 8, 8)).astype(np.float32)
    pictures = random.integers(0, 255, (steps + 1, 1, frames, 32, 32, 3), dtype=np.uint8)
    return Trajectory(
        latents=latents,
        timesteps=np.arange(steps)[::-1] * 100.0,
        sigmas=np.ones(steps),
        snrs=np.ones(steps),
        noise_prediction={"guided": random.normal(size=latents[1:].shape).astype(np.float32)},
        frames={"latents": pictures},
    )


def test_every_frame_of_a_video_can_be_looked_at():
    run = video_run()
    explorer = lv.explore(run)
    assert explorer.frame == 4 and explorer._header["video"] == 9
    for frame, planes in ((4, 1), (0, 0), (8, 2)):
        explorer.frame = frame
        np.testing.assert_array_equal(
            frame_at(explorer._pictures, "latents", 0, 2), run.frames["latents"][2, 0, frame]
        )
        packed = SimpleNamespace(header=explorer._header, maps=explorer._maps)
        values = run.noise_prediction["guided"][1, 0, :, planes]
        np.testing.assert_allclose(
            map_at(packed, "guided", 0, 1), values, atol=np.abs(values).max() / 32000
        )
    grades = {grade for row in explorer._series["latents"]["grades"] for grade in row}
    assert grades == {5}
    with pytest.raises(
        traitlets.TraitError, match="between 0 and 8, not 9: its video has 9 frames"
    ):
        explorer.frame = 9
    with pytest.raises(traitlets.TraitError, match="it is no video's"):
        lv.explore(make_trajectory(2), frame=1)


def test_every_header_is_strict_json(run):
    latents = run.latents.copy()
    latents[3] = np.nan
    broken = run.replace(
        latents=latents,
        sigmas=np.full(9, np.nan),
        snrs=np.full(9, np.inf),
        settings={
            "prompt": NASTY,
            "guidance_scale": float("nan"),
            "scheduler_config": {"a": [1, None]},
        },
    )
    json.dumps(pack(broken).header, allow_nan=False)


def partial_runs():
    nothing = make_trajectory(4, frames=False, branches=False, x0=False)
    random = np.random.default_rng(0)
    unknown = np.full(3, np.nan)

    def bare(*shape, **fields):
        values = {"latents": random.normal(size=(4, 1, *shape)), "timesteps": unknown}
        return Trajectory(**values, sigmas=unknown, snrs=unknown, **fields)

    return {
        "nothing but latents": nothing,
        "no pictures": make_trajectory(4, frames=False),
        "no predictions": make_trajectory(4, branches=False),
        "no x0": make_trajectory(4, x0=False),
        "no steps": make_trajectory(0).replace(status="failed", error="at once"),
        "one step": make_trajectory(1),
        "interrupted": make_trajectory(4).replace(status="interrupted", error="stopped"),
        "packed": bare(12, 64, noise_prediction={"guided": random.normal(size=(3, 1, 12, 64))}),
        "video": bare(
            4, 3, 6, 5, noise_prediction={"branch 0": random.normal(size=(3, 1, 4, 3, 6, 5))}
        ),
        "vectors": bare(32, noise_prediction={"guided": random.normal(size=(3, 1, 32))}),
        "wide": bare(4, 3, 40, noise_prediction={"guided": random.normal(size=(3, 1, 4, 3, 40))}),
        "no settings": make_trajectory(3, settings={}),
        "all bad": make_trajectory(
            3,
            latents=np.full((4, 1, 4, 16, 16), np.nan),
            noise_prediction={"guided": np.full((3, 1, 4, 16, 16), np.inf)},
        ),
    }


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", partial_runs())
def test_runs_with_parts_missing_have_widget_still_and_page(name):
    run = partial_runs()[name]
    explorer = lv.explore(run)
    assert repr(explorer).startswith("Explorer: ")
    assert decode_image(explorer.still()).size
    assert "<!doctype html>" in explorer.to_html()
    json.dumps(explorer._header, allow_nan=False)
    if len(run):
        assert explorer.current.step == 0
    else:
        with pytest.raises(IndexError, match="no step"):
            _ = explorer.current
    if not explorer._branches:
        assert explorer.branch == ""
        with pytest.raises(traitlets.TraitError, match="none was recorded"):
            lv.explore(run, branch="guided")


def test_few_steps_are_shown_first_and_last_among_them():
    assert shown_steps(25) == [0, 5, 10, 14, 19, 24]
    assert shown_steps(3) == [0, 1, 2] and shown_steps(1) == [0] and shown_steps(0) == []


class Elements(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


def test_nothing_in_a_run_can_become_markup_or_script(run, tmp_path):
    settings = {"prompt": NASTY, "negative_prompt": NASTY, "scheduler": NASTY, NASTY: NASTY}
    nasty = run.replace(settings=settings, status="failed", error=NASTY)
    path = lv.explore(nasty).to_html(tmp_path / "run.html")
    text = path.read_text(encoding="utf-8")
    elements = Elements()
    elements.feed(text)
    tags = [tag for tag, _ in elements.found]
    assert tags.count("script") == 5 and "img" not in tags  # state, three buffers, module
    assert set(tags) <= {
        "html",
        "head",
        "meta",
        "link",
        "title",
        "style",
        "body",
        "main",
        "h1",
        "h2",
        "noscript",
        "script",
    }
    assert f"<title>{html.escape(NASTY)}</title>" in text
    state = re.search(
        r"<script type=\"application/json\" data-state>(.*?)</script>", text, re.DOTALL
    )
    assert json.loads(state[1])["_header"]["samples"][0]["prompt"] == NASTY


def test_the_page_lets_only_its_own_script_and_style_in(explorer):
    text = explorer.to_html(title="a title & <more>")
    assert "<title>a title &amp; &lt;more&gt;</title>" in text
    policy = html.unescape(re.search(r'Content-Security-Policy" content="(.*?)"', text)[1])
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy and "http" not in policy.replace("http-equiv", "")
    for kind, pattern in (
        ("script", r"<script type=\"module\">(.*?)</script>"),
        ("style", r"<style>(.*?)</style>"),
    ):
        content = re.search(pattern, text, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert not re.search(r"(src|href)=[\"']?(?!data:)[^\s>]*//", text)


def test_a_page_begins_where_the_widget_stands_and_does_not_play(run):
    explorer = lv.explore(run, step=4, branch=DELTA, channel="norm", playing=True)
    state = re.search(r"data-state>(.*?)</script>", explorer.to_html(), re.DOTALL)
    state = json.loads(state[1])
    assert (state["step"], state["branch"], state["channel"], state["playing"]) == (
        4,
        DELTA,
        "norm",
        False,
    )


def test_a_page_that_cannot_be_written_says_so(explorer, tmp_path):
    with pytest.raises(OSError):
        explorer.to_html(tmp_path / "no such folder" / "run.html")
    assert list(tmp_path.iterdir()) == []


def views(ending="js"):
    folder = Path(lv.__file__).parent / "views"
    return sorted(path.name for path in folder.glob(f"*.{ending}"))


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")
@pytest.mark.parametrize("view", VIEWS)
def test_what_is_joined_is_javascript(view, tmp_path):
    for name, text in (("view.mjs", module_text(view)), ("page.mjs", page_script(view))):
        file = tmp_path / name
        file.write_text(text)
        checked = subprocess.run(["node", "--check", str(file)], capture_output=True, text=True)
        assert checked.returncode == 0, checked.stderr


@pytest.mark.parametrize("view", VIEWS)
def test_views_are_joined_from_texts_each_module_once(view):
    joined = module_text(view)
    assert not re.search(r"^import\b", joined, re.MULTILINE)
    constant = re.sub("_(.)", lambda found: found[1].upper(), view)
    assert joined.rstrip().endswith(f"export default {constant};")
    assert joined.count("export default") == 1 and joined.count("function make(tag") == 1
    assert page_script(view).endswith(f"openPage({constant});\n")
    assert "export default" not in page_script(view)


def test_imports_are_read_and_others_refused():
    text = '// @ts-check\nimport { a } from "./a.js";\nimport {\n  b, c,\n} from "./b_c.js";\nconst d = 1;\n'
    assert split_imports(text, "view.js") == (["a", "b_c"], "const d = 1;\n")
    for wrong in (
        'import { a } from "./core.js";\nimport b from "x";\n',
        'const a = 1;\nimport { a } from "./core.js";\n',
        'import { a } from "https://cdn/x.js";\n',
        'export { a } from "./a.js";\n',
    ):
        with pytest.raises(ValueError, match="must begin with its imports"):
            split_imports(wrong, "view.js")
    with pytest.raises(ValueError, match="renames"):
        split_imports('import { a as b } from "./a.js";\n', "view.js")


def test_views_set_data_as_text_and_ask_nothing_of_the_network():
    for name in views():
        text = read_view(name)
        for word in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "fetch(",
            "XMLHttpRequest",
        ):
            assert word not in text, f"{name}: {word}"
        assert "getElementById" not in text
    for name in views("css"):
        assert "url(" not in read_view(name) and "@import" not in read_view(name)


def test_every_listener_is_tied_to_a_signal():
    text = "".join(map(read_view, views()))
    for match in re.finditer(r"\.addEventListener\(", text):
        depth, end = 1, match.end()
        while depth:
            depth += {"(": 1, ")": -1}.get(text[end], 0)
            end += 1
        call = text[match.start() : end]
        abort = text[: match.start()].endswith("signal")
        assert abort or re.search(r"\{ signal \},?\s*\)$", call), call[:120]


def test_a_page_into_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder .*nowhere to write run.html"):
        lv.explore(make_trajectory(2)).to_html(tmp_path / "nowhere" / "run.html")
