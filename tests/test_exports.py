"""Runs as animations, contact sheets and pages: what is in the files, when, and what is left after a failure."""

import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from ldm_viz.exports import SUFFIXES, ExportError, animate, export
from ldm_viz.exports.exporting import _spread
from ldm_viz.exports.film import ACCENT, describe_steps
from ldm_viz.exports.writers import _whole_times
from ldm_viz.imaging import colourise, decode_image
from ldm_viz.trajectory import FrameSeries
from ldm_viz.trajectory.frames import FrameSource
from tests.trajectories import make_trajectory

ROOT = Path(__file__).resolve().parent.parent
ANIMATED = (".gif", ".webp")
WRITTEN = (".gif", ".webp", ".mp4", ".png")

STAND_IN = """#!{python}
import json, sys, time
arguments = sys.argv[1:]
if {fails}:
    sys.stdin.buffer.read(100)
    sys.exit("Unknown encoder 'libx264'")
received = len(sys.stdin.buffer.read())
if {waits}:
    time.sleep(300)
with open(arguments[-1], "w") as file:
    json.dump({{"arguments": arguments, "received": received}}, file)
"""


@pytest.fixture(scope="module")
def run():
    return make_trajectory(6, side=32)


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Puts a program named ffmpeg on PATH that writes down what it was given."""
    if os.name == "nt":
        pytest.skip("a script is no program on Windows")

    def put(fails: bool = False, waits: bool = False) -> Path:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        program = folder / "ffmpeg"
        program.write_text(STAND_IN.format(python=sys.executable, fails=fails, waits=waits))
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(folder))
        return folder

    return put


def video_run(steps: int = 4, frames: int = 5, side: int = 32):
    """A run of a video whose frames are of one colour each: 10 times the step and 20 times the frame."""
    plain = make_trajectory(steps, side=side)
    series = np.zeros((steps + 1, 1, frames, side, side, 3), np.uint8)
    series += (10 * np.arange(steps + 1, dtype=np.uint8)).reshape(-1, 1, 1, 1, 1, 1)
    series += (20 * np.arange(frames, dtype=np.uint8)).reshape(1, 1, -1, 1, 1, 1)
    return plain.replace(frames={"latents": series, "x0": series[:-1]}, images=series[-1])


class Source(FrameSource):
    """Makes a run's pictures when asked, writes down which, and breaks at one of them."""

    def __init__(self, pictures: np.ndarray, breaks_at: int = -1, error: type = RuntimeError):
        super().__init__()
        self.pictures = pictures.reshape(-1, *pictures.shape[2:])
        self.picture_shape = pictures.shape[2:]
        self.asked: list[list[int]] = []
        self.breaks_at, self.error = breaks_at, error

    def make(self, numbers):
        assert self.quiet, "the export tells its progress itself"
        self.asked.append(list(numbers))
        for number in numbers:
            if number == self.breaks_at:
                raise self.error("the decoder is tired")
            yield number, self.pictures[number].copy()


def lazy(run, **how):
    """The run with its latents' pictures made when they are looked at, and their source."""
    pictures = run.frames["latents"]
    source = Source(pictures, **how)
    numbers = np.arange(pictures.shape[0] * pictures.shape[1]).reshape(pictures.shape[:2])
    return run.replace(frames={"latents": FrameSeries(source, numbers)}), source


def read_back(path: Path) -> tuple[list[np.ndarray], list[int]]:
    """An animation's frames, and how many milliseconds each is shown."""
    frames, times = [], []
    with Image.open(path) as image:
        assert image.info["loop"] == 0, "for ever"
        for place in range(image.n_frames):
            image.seek(place)
            image.load()
            frames.append(np.asarray(image.convert("RGB")))
            times.append(image.info["duration"])
    return frames, times


@pytest.mark.parametrize("suffix", ANIMATED)
def test_an_animation_has_a_frame_each_step_and_holds_the_end(suffix, run, tmp_path):
    path = export(run, tmp_path / f"run{suffix}", fps=10, hold=1.5)
    assert path == tmp_path / f"run{suffix}"
    frames, times = read_back(path)
    assert times == [100] * 6 + [1500]
    drawn = list(animate(run))
    assert [frame.shape for frame in frames] == [frame.shape for frame in drawn]
    for found, wanted in zip(frames, drawn, strict=True):
        assert np.abs(found.astype(int) - wanted).mean() < 5
        others = [np.abs(found.astype(int) - other).mean() for other in drawn]
        assert np.argmin(others) == np.argmin(
            [np.abs(wanted - d.astype(int)).mean() for d in drawn]
        )


def test_the_time_of_a_gif_is_right_on_the_whole(run, tmp_path):
    _, times = read_back(export(run, tmp_path / "run.gif", fps=8, hold=0))
    assert set(times) == {120, 130}
    assert sum(times) == pytest.approx(7000 / 8, abs=5)


@given(st.lists(st.floats(0.02, 10), min_size=1, max_size=200), st.sampled_from([1, 10]))
def test_rounded_times_do_not_drift(seconds, unit):
    times = _whole_times(seconds, unit)
    assert len(times) == len(seconds) and min(times) >= unit
    assert all(time % unit == 0 for time in times)
    for k in range(len(times)):
        assert sum(times[: k + 1]) == pytest.approx(1000 * sum(seconds[: k + 1]), abs=0.51 * unit)


@given(st.integers(1, 300), st.integers(1, 300))
def test_steps_are_spread_evenly_from_first_to_last(count, wanted):
    places = _spread(count, wanted)
    assert places[0] == 0 and len(places) == min(count, wanted) == len(set(places))
    if len(places) > 1:
        assert places[-1] == count - 1
        assert np.ptp(np.diff(places)) <= 1


def test_bare_frames_are_the_run_s_own_pictures(run):
    frames = list(animate(run, labels=False, size=32))
    assert len(frames) == 7
    for step, frame in enumerate(frames[:-1]):
        assert np.array_equal(frame[:, :32], run.frames["latents"][step, 0])
        assert np.array_equal(frame[:, -32:], run.frames["x0"][step, 0])
    assert np.array_equal(frames[-1][:, :32], run.images[0])
    assert np.array_equal(frames[-1][:, -32:], run.images[0])


def test_the_end_is_what_the_pipeline_returned(run):
    images = 255 - run.images
    for series in ("latents", "x0"):
        *_, last = animate(run.replace(images=images), series=series, labels=False, size=32)
        assert np.array_equal(last, images[0])
    other = np.zeros((1, 64, 64, 3), np.uint8)  # enlarged by the pipeline after its loop
    *_, last = animate(run.replace(images=other), series="x0", labels=False, size=32)
    assert np.array_equal(last, run.frames["latents"][6, 0])


@pytest.mark.parametrize("broken", ["interrupted", "part"])
def test_a_run_that_broke_off_does_not_end_with_a_finished_picture(broken, run):
    part = run[:4] if broken == "part" else run.replace(status="interrupted", images=None)
    steps = len(part)
    *_, last = animate(part, labels=False, size=32)
    assert np.array_equal(last[:, :32], run.frames["latents"][steps, 0])
    assert np.array_equal(last[:, -32:], run.frames["x0"][steps - 1, 0])


def test_words_tell_the_step_and_how_the_run_ended(run):
    words = describe_steps(run, [2])
    assert words[0].place == "step 2 of 6"
    assert words[0].details[0].startswith("timestep 499 · σ ")
    assert "step" not in words[0].details[0].replace("timestep", "")
    lengths = [len(details) for details in words[0].details]
    assert lengths == sorted(lengths, reverse=True)
    assert (words[1].place, words[1].details[0]) == ("finished", "after 6 steps")
    assert describe_steps(run[:2], [])[0].place == "end"
    assert "0 to 1 of 6" in describe_steps(run[:2], [])[0].details[0]
    assert describe_steps(run.replace(status="failed"), [])[0].place == "failed"


def test_labels_draw_words_and_a_line_that_grows(run):
    frames = list(animate(run, size=64))
    bare = next(animate(run, size=64, labels=False))
    assert frames[0].shape[0] > bare.shape[0]
    lines = [int((frame == ACCENT).all(axis=2).sum()) for frame in frames]
    assert lines[0] == 0 and (np.diff(lines) > 0).all()
    below = {frame[-20:].tobytes() for frame in frames}
    assert len(below) == 7, "each step has its words"


@pytest.mark.parametrize("size", [16, 40, 100, 700])
def test_words_stay_inside_frames_of_every_size(size, run):
    branch = {"a branch\nwith a name\x1b[31m " * 400: run.noise_prediction["guided"]}
    odd = run.replace(noise_prediction=branch)
    for series in (("latents",), ("latents", "x0", *branch)):
        for frame in animate(odd, series=series, size=size, steps=1):
            edge = np.concatenate([frame[:, -4:], frame[:, :4]], axis=1)
            assert (edge == 255).all()
            assert (frame[-2:] == 255).all() and (frame[:2] == 255).all()


def test_paper_stays_white_in_a_gif(run, tmp_path):
    for frame in read_back(export(run, tmp_path / "run.gif"))[0]:
        assert (frame[0] == 255).all() and (frame[:, -1] == 255).all()


def test_a_gif_has_one_palette(run, tmp_path):
    data = export(run, tmp_path / "run.gif", series=("latents", "guided")).read_bytes()
    place, tables = 13 + 3 * 2 ** ((data[10] & 7) + 1), []
    assert data[10] & 128, "it has one for all frames"
    while data[place] != 0x3B:
        if data[place] == 0x2C:  # an image
            tables.append(bool(data[place + 9] & 128))
            place += 11
        else:  # an extension
            place += 2
        while data[place]:
            place += 1 + data[place]
        place += 1
    assert tables == [False] * 7


@pytest.mark.parametrize("suffix", ANIMATED)
def test_pictures_that_do_not_change_take_their_time_all_the_same(suffix, run, tmp_path):
    still = run.frames["latents"][-3:].repeat(3, axis=0)[:7]
    still = run.replace(frames={"latents": still}, images=None)
    path = export(still, tmp_path / f"run{suffix}", labels=False, fps=10, hold=0.5)
    assert sum(read_back(path)[1]) == 1100


def test_the_longer_side_of_a_picture_is_the_size():
    tall = make_trajectory(2, side=32)
    frames = {"latents": np.ascontiguousarray(tall.frames["latents"][:, :, :, :12])}
    tall = tall.replace(frames=frames, images=None)
    for size, expected in ((64, (64, 24)), (16, (16, 6)), (None, (256, 96))):
        frame = next(animate(tall, size=size, labels=False))
        assert frame.shape == (*expected, 3)
    assert next(animate(make_trajectory(1, side=1024), labels=False, series="x0")).shape[0] == 512


def test_series_are_shown_side_by_side_in_the_order_asked_for(run):
    frame = next(animate(run, series=("x0", "guided", "latents"), labels=False, size=32))
    assert frame.shape[1] > 3 * 32
    assert np.array_equal(frame[:, :32], run.frames["x0"][0, 0])
    assert np.array_equal(frame[:, -32:], run.frames["latents"][0, 0])


def test_heatmaps_have_one_scale_over_the_run(run):
    channel = run.noise_prediction["guided"][:, 0, 2].astype(float)
    limit = float(np.quantile(np.abs(channel), 0.998))
    frames = list(animate(run, series="guided", channel=2, labels=False, size=16))
    assert len(frames) == 7
    for step, frame in enumerate(frames):
        values = channel[min(step, 5)]
        cells = np.kron(values, np.ones((2, 2)))
        assert np.array_equal(frame, colourise(cells, limit))
    branches = run.noise_prediction
    delta = (branches["conditional"] - branches["unconditional"])[:, 0, 0].astype(float)
    frame = next(animate(run, series="guidance delta", labels=False, size=16))[::2, ::2]
    assert np.array_equal(frame, colourise(delta[0], float(np.quantile(np.abs(delta), 0.998))))


def test_bad_values_stand_out_and_a_branch_that_was_not_computed_is_grey(run):
    guided = run.noise_prediction["guided"].copy()
    guided[0, 0, 0, 0, 0] = np.nan
    conditional = np.full_like(guided, np.nan)
    odd = run.replace(noise_prediction={"guided": guided, "conditional": conditional})
    first, *_ = animate(odd, series=("guided", "conditional"), labels=False, size=16)
    assert tuple(first[0, 0]) == (214, 36, 159)
    assert np.ptp(first[:, -16:]) == 0 and 200 < first[0, -1, 0] < 250


def test_a_run_without_pictures_is_shown_as_heatmaps_of_its_latents(tmp_path):
    run = make_trajectory(3, side=32, frames=False)
    frames = list(animate(run, labels=False, size=16))
    assert len(frames) == 4
    latents = run.latents[:, 0, 0].astype(float)
    limit = float(np.quantile(np.abs(latents), 0.998))
    for step, frame in enumerate(frames):
        assert np.array_equal(frame[::2, :16:2], colourise(latents[step], limit))
    assert len(read_back(export(run, tmp_path / "run.gif"))[0]) == 4


def test_heatmaps_of_exploding_latents_are_brought_to_one_scale():
    plain = make_trajectory(4, side=32, frames=False)
    scales = np.append(np.sqrt(1 + plain.sigmas**2), 1.0).reshape(-1, 1, 1, 1, 1)
    settings = {**plain.settings, "noise_schedule": "variance exploding"}
    exploding = plain.replace(
        latents=(plain.latents * scales).astype(np.float64), settings=settings
    )
    preserving = plain.replace(latents=plain.latents.astype(np.float64))
    pairs = zip(
        animate(preserving, series="latents", labels=False),
        animate(exploding, series="latents", labels=False),
        strict=True,
    )
    for wanted, found in pairs:
        assert np.abs(wanted.astype(int) - found).max() <= 2


def test_what_has_neither_pictures_nor_maps_is_refused_in_words():
    sound = make_trajectory(2, side=32, frames=False, branches=False, x0=False)
    sound = sound.replace(latents=np.zeros((3, 1, 77), np.float32))
    with pytest.raises(ValueError, match="neither pictures nor maps.*77 have no layout"):
        animate(sound)


def test_a_sample_of_a_batch_is_chosen(tmp_path):
    run = make_trajectory(2, side=32, batch=3)
    for sample in range(3):
        first, *_, last = animate(run, sample=sample, series="latents", labels=False, size=32)
        assert np.array_equal(first, run.frames["latents"][0, sample])
        assert np.array_equal(last, run.images[sample])
    for sample in (3, -1):
        with pytest.raises(IndexError, match=f"between 0 and 2, not {sample}"):
            animate(run, sample=sample)
        with pytest.raises(IndexError, match=f"between 0 and 2, not {sample}"):
            export(run, tmp_path / "run.html", sample=sample)


@pytest.mark.parametrize(
    ("steps", "shown"),
    [(1, [0]), (3, [0, 3, 5]), (99, range(6)), ([4, 1], [4, 1]), (range(0, 6, 2), [0, 2, 4])],
)
def test_steps_are_chosen_by_number_or_one_by_one(steps, shown, run):
    frames = list(animate(run, series="latents", steps=steps, labels=False, size=32))
    wanted = [run.frames["latents"][step, 0] for step in [*shown, 6]]
    assert np.array_equal(frames, wanted)


def test_pictures_are_made_in_blocks_when_they_are_needed():
    run, source = lazy(make_trajectory(40, side=16))
    frames = animate(run)
    assert source.asked == [], "nothing before the first frame is asked for"
    next(frames)
    assert len(source.asked[0]) < 20
    list(frames)
    numbers = [number for block in source.asked for number in block]
    assert sorted(numbers) == list(range(41)), "each once"


@pytest.mark.parametrize("video", ["middle", "final"])
def test_of_a_video_the_middle_frame_or_the_finished_one_is_shown(video, tmp_path):
    frames = list(animate(video_run(), series=None, labels=False, size=32, video=video))
    if video == "middle":
        values = [int(frame[0, 0, 0]) for frame in frames]
        assert values == [40, 50, 60, 70, 80]
        assert [int(frame[0, -1, 0]) for frame in frames] == values
    else:
        assert [int(frame[0, 0, 0]) for frame in frames] == [40, 60, 80, 100, 120]
        assert frames[0].shape == (32, 32, 3)
    _, times = read_back(export(video_run(), tmp_path / "run.webp", fps=10, video=video))
    assert times == [100] * 4 + [1000 if video == "middle" else 100]


def test_the_finished_video_comes_from_the_pictures_where_nothing_was_returned():
    run = video_run().replace(images=None)
    frames = list(animate(run, labels=False, size=32, video="final", steps=[-1]))
    assert [int(frame[0, 0, 0]) for frame in frames] == [120]


def test_a_contact_sheet_has_a_row_each_series_and_the_end(run, tmp_path):
    red = np.zeros((7, 1, 32, 32, 3), np.uint8)
    red[..., 0] = 255
    run = run.replace(frames={"latents": red, "x0": red[:-1, ..., ::-1]}, images=None)

    def tiles(side: int, **options) -> tuple[float, float]:
        """How many red and blue tiles there are."""
        sheet = decode_image(export(run, tmp_path / "sheet.png", **options).read_bytes())
        counts = [(sheet == colour).all(axis=2).sum() for colour in ((255, 0, 0), (0, 0, 255))]
        return counts[0] / side**2, counts[1] / side**2

    assert tiles(192) == (6 + 2, 6), "all six steps, and the end twice: it is what x0 came to"
    assert tiles(40, steps=4, size=40) == (4 + 2, 4)
    assert tiles(40, steps=[2], size=40, series=("x0", "guided")) == (1, 1)
    assert tiles(40, size=40, labels=False) == (6 + 2, 6)
    bare = decode_image((tmp_path / "sheet.png").read_bytes())
    colours = {tuple(colour) for colour in bare.reshape(-1, 3).tolist()}
    assert colours == {(255, 255, 255), (255, 0, 0), (0, 0, 255)}, "no words"


def test_a_contact_sheet_has_no_heatmap_where_nothing_was_predicted(run, tmp_path):
    widths = []
    for series in ("latents", "guided"):
        path = export(run, tmp_path / "sheet.png", series=series, labels=False, steps=6)
        sheet = decode_image(path.read_bytes())
        widths.append(np.flatnonzero((sheet != 255).any(axis=(0, 2))).max())
    assert widths[0] - widths[1] == 192 + 6


def test_a_page_is_the_explorer(run, tmp_path):
    path = export(run, tmp_path / "run.html", sample=0, fps=4)
    page = path.read_text(encoding="utf-8")
    assert "<html" in page and "a red boat on the water at sunset" in page
    for option in ({"series": "x0"}, {"steps": 3}, {"size": 99}):
        with pytest.raises(ValueError, match=f"{next(iter(option))} has no meaning for a page"):
            export(run, path, **option)


BAD = {
    "an unknown ending": ({"path": "run.avi"}, ValueError, r"run.avi.*\.gif.*\.webp.*\.mp4.*\.png"),
    "no ending": ({"path": "run"}, ValueError, r"'run'.*\.gif"),
    "no folder": ({"path": "nowhere/run.gif"}, FileNotFoundError, "no folder .*nowhere"),
    "a folder": ({"path": "folder.gif"}, IsADirectoryError, "folder.gif is a folder"),
    "an unknown series": (
        {"series": "noise"},
        ValueError,
        "'noise'; this run has latents, x0, unc",
    ),
    "no series": ({"series": ()}, ValueError, "series is empty"),
    "no such channel": ({"series": "guided", "channel": 4}, IndexError, "between 0 and 3, not 4"),
    "a sample in words": ({"sample": "first"}, TypeError, "'first'"),
    "no steps": ({"steps": 0}, ValueError, "at least 1"),
    "none of the steps": ({"steps": []}, ValueError, "steps is empty"),
    "a step too far": ({"steps": [0, 6]}, IndexError, "no step 6: there are 6"),
    "steps in words": ({"steps": "all"}, TypeError, "'all'"),
    "too small": ({"size": 8}, ValueError, "16 to 4096 pixels, not 8"),
    "a size in halves": ({"size": 99.5}, TypeError, "99.5"),
    "no speed": ({"fps": 0}, ValueError, "0.1 to 50"),
    "too fast for a GIF": ({"fps": 60}, ValueError, "50 steps a second for .gif, not 60"),
    "no number as speed": ({"fps": float("nan")}, ValueError, "not nan"),
    "a speed in words": ({"fps": "fast"}, TypeError, "'fast'"),
    "held for ever": ({"hold": float("inf")}, ValueError, "0 to 60 seconds"),
    "quality of a GIF": ({"quality": 80}, ValueError, "for .webp and .mp4"),
    "too good": ({"path": "run.webp", "quality": 101}, ValueError, "0 to 100"),
    "an unknown kind of video": ({"video": "first"}, ValueError, "'middle' or 'final'"),
    "no video": ({"video": "final"}, ValueError, "this run has none"),
    "a series of a finished video": (
        {"video": "final", "series": "x0"},
        ValueError,
        "leave series",
    ),
    "too wide": ({"series": ["x0"] * 9, "size": 4000}, ValueError, "16383 on a side"),
    "too much": ({"size": 4000, "steps": [0] * 99}, ValueError, "GiB.*export .mp4"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_refused_in_words_and_leaves_nothing(case, run, tmp_path):
    options, error, words = BAD[case]
    (tmp_path / "folder.gif").mkdir()
    path = tmp_path / options.get("path", "run.gif")
    with pytest.raises(error, match=words):
        export(run, **{**options, "path": path})
    assert [path.name for path in tmp_path.iterdir()] == ["folder.gif"]


def test_what_is_no_run_or_has_no_step_is_refused(tmp_path):
    with pytest.raises(TypeError, match="not ndarray; record one"):
        export(np.zeros((4, 4, 3)), tmp_path / "run.gif")
    with pytest.raises(TypeError, match="not str"):
        animate("run.safetensors")
    with pytest.raises(ValueError, match="no step"):
        animate(make_trajectory(0, side=32))


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
@pytest.mark.parametrize("suffix", WRITTEN)
def test_a_failure_leaves_the_old_file_and_nothing_else(suffix, error, tmp_path, stand_in):
    stand_in()
    run, _ = lazy(make_trajectory(30, side=16), breaks_at=29, error=error)
    folder = tmp_path / "out"
    folder.mkdir()
    path = folder / f"run{suffix}"
    for before in (None, b"old"):
        if before:
            path.write_bytes(before)
        with pytest.raises(error, match="tired"):
            export(run, path, steps=30, progress=False)
        assert {found.name: found.read_bytes() for found in folder.iterdir()} == (
            {path.name: before} if before else {}
        )


@pytest.mark.parametrize("suffix", [*WRITTEN, ".html"])
def test_a_file_is_replaced_and_is_as_readable_as_others(suffix, run, tmp_path, stand_in):
    stand_in()
    other = tmp_path / "other"
    other.touch()
    path = tmp_path / f"run{suffix.upper()}"
    path.write_bytes(b"old")
    assert export(run, path) == path
    assert path.read_bytes() != b"old"
    assert path.stat().st_mode == other.stat().st_mode
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([path.name, "other", "bin"])


@pytest.mark.parametrize("size", [33, 64])
@pytest.mark.parametrize("labels", [True, False])
def test_ffmpeg_gets_every_frame_in_even_sizes_and_nothing_of_the_prompt(
    size, labels, run, tmp_path, stand_in
):
    stand_in()
    path = export(run, tmp_path / "run.mp4", size=size, fps=12.5, hold=0.8, labels=labels)
    told = json.loads(path.read_text())
    arguments = told["arguments"]
    width, height = map(int, arguments[arguments.index("-video_size") + 1].split("x"))
    frame = next(animate(run, size=size, labels=labels))
    assert (height, width) == tuple(side + side % 2 for side in frame.shape[:2])
    assert told["received"] == (6 + 10) * width * height * 3
    pairs = dict(itertools.pairwise(arguments))
    assert pairs["-framerate"] == "12.5"
    assert pairs["-movflags"] == "+faststart"
    assert arguments[arguments.index("-c:v") :].count("yuv420p") == 1
    assert not any("boat" in argument for argument in arguments)


def test_quality_reaches_ffmpeg(run, tmp_path, stand_in):
    stand_in()
    factors = []
    for quality in (0, 50, 100):
        path = export(run, tmp_path / "run.mp4", quality=quality)
        arguments = json.loads(path.read_text())["arguments"]
        factors.append(int(arguments[arguments.index("-crf") + 1]))
    assert factors == sorted(factors, reverse=True) and 0 < factors[-1] < factors[0] <= 51


def test_better_quality_makes_larger_files(run, tmp_path):
    sizes = [
        export(run, tmp_path / "run.webp", quality=quality).stat().st_size for quality in (5, 95)
    ]
    assert sizes[0] < 0.7 * sizes[1]


def test_what_ffmpeg_says_when_it_fails_is_told(tmp_path, stand_in):
    stand_in(fails=True)
    run = make_trajectory(30, side=32)
    with pytest.raises(ExportError, match="status 1.*\n.*Unknown encoder 'libx264'"):
        export(run, tmp_path / "run.mp4", size=512)
    assert [path.name for path in tmp_path.iterdir()] == ["bin"]


def test_without_ffmpeg_the_cure_is_told_before_any_picture_is_made(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    run, source = lazy(make_trajectory(3, side=32))
    with pytest.raises(ExportError, match="not on PATH. Install it.*apt install ffmpeg"):
        export(run, tmp_path / "run.mp4")
    assert source.asked == []


def test_ffmpeg_is_ended_when_the_export_is_stopped(tmp_path, stand_in, monkeypatch):
    stand_in(waits=True)
    started = []

    class Popen(subprocess.Popen):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            started.append(self)

    monkeypatch.setattr(subprocess, "Popen", Popen)
    run, _ = lazy(make_trajectory(40, side=32), breaks_at=39, error=KeyboardInterrupt)
    with pytest.raises(KeyboardInterrupt):
        export(run, tmp_path / "run.mp4", size=64, progress=False)
    assert [process.returncode for process in started] == [-signal.SIGKILL]
    assert [path.name for path in tmp_path.iterdir()] == ["bin"]


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not on PATH")
def test_the_real_ffmpeg_writes_a_video_of_these_frames(run, tmp_path):
    path = export(run, tmp_path / "-run.mp4", size=65, fps=10, hold=0.5, labels=False, quality=100)
    data = path.read_bytes()
    assert data[4:8] == b"ftyp"
    assert 0 < data.index(b"moov") < data.index(b"mdat"), "it begins to play before it is loaded"
    assert b"boat" not in data
    wanted = list(animate(run, size=65, labels=False))
    height, width = (side + side % 2 for side in wanted[0].shape[:2])
    decoded = subprocess.run(
        ["ffmpeg", "-v", "error", "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "pipe:1"],
        capture_output=True,
        check=True,
    ).stdout
    frames = np.frombuffer(decoded, np.uint8).reshape(-1, height, width, 3)
    assert len(frames) == 6 + 5
    assert frames.shape[1] == 66
    for frame, drawn in zip(frames, [*wanted, *wanted[-1:] * 4], strict=True):
        assert np.abs(frame[:65, : drawn.shape[1]].astype(int) - drawn).mean() < 12
    last, drawn = frames[-1].astype(int), wanted[-1]
    assert np.abs(last[4:20, 4:60] - drawn[4:20, 4:60]).mean() < 4, "colours are not shifted"


def test_an_export_needs_no_model(run, tmp_path):
    run.save(tmp_path / "run.safetensors")
    code = (
        "import sys\n"
        "for name in ('torch', 'diffusers', 'transformers', 'ldm_viz.capture'): sys.modules[name] = None\n"
        "import ldm_viz as lv\n"
        "from ldm_viz.exports import export\n"
        "heavy = [n for n in ('plotly', 'anywidget', 'ipywidgets') if n in sys.modules]\n"
        "assert not heavy, heavy\n"
        "run = lv.open_trajectory('run.safetensors')\n"
        "for name in ('run.gif', 'run.png', 'run.html'): export(run, name)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert len(read_back(tmp_path / "run.gif")[0]) == 7


def test_progress_is_told_when_asked_for_and_only_then(run, tmp_path, capsys):
    export(run, tmp_path / "run.gif", progress=True)
    assert "Writing run.gif" in capsys.readouterr().err
    export(run, tmp_path / "run.gif", progress=False)
    list(animate(run))
    assert capsys.readouterr().err == ""


def test_every_ending_has_its_words():
    assert set(SUFFIXES) == {*WRITTEN, ".html"} and all(SUFFIXES.values())
