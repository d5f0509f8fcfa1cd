"""Trajectories as values and as files, whole, damaged, foreign and hostile."""

import copy
import errno
import functools
import json
import os
import pickle
import resource
import sys
import tempfile
import time
import tracemalloc

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import ldm_viz as lv
from ldm_viz.imaging import encode_image
from ldm_viz.trajectory import container
from ldm_viz.trajectory import frames as stored


def make(steps=5, batch=2, latent=(4, 8, 8), side=16, dtype=np.float32, **changes):
    rng = np.random.default_rng(0)

    def floats(*shape):
        return rng.standard_normal((*shape, batch, *latent)).astype(dtype)

    def pictures(*shape):
        return rng.integers(0, 256, (*shape, batch, side, side, 3), dtype=np.uint8)

    fields = {
        "latents": floats(steps + 1),
        "timesteps": np.linspace(981, 1, steps),
        "sigmas": np.geomspace(14.6, 0.03, steps) if steps else np.zeros(0),
        "snrs": np.linspace(0.005, 1000, steps),
        "x0": floats(steps),
        "x0_source": "scheduler",
        "noise_prediction": {
            name: floats(steps) for name in ("unconditional", "conditional", "guided")
        },
        "frames": {"latents": pictures(steps + 1), "x0": pictures(steps)},
        "frames_source": "exact",
        "images": pictures(),
        "wall_times": np.linspace(0.1, 1, steps),
        "settings": {
            "pipeline": "StableDiffusionPipeline",
            "scheduler": "DDIMScheduler",
            "prompt": ["a red star", "a boat"],
            "guidance_scale": 7.5,
            "seed": 7,
        },
    }
    return lv.Trajectory(**fields | changes)


def assert_same(one, other):
    for name in (
        "latents",
        "timesteps",
        "sigmas",
        "snrs",
        "x0",
        "step_outputs",
        "images",
        "wall_times",
    ):
        a, b = getattr(one, name), getattr(other, name)
        assert (a is None) == (b is None), name
        if a is not None:
            assert a.dtype == b.dtype and np.array_equal(a, b, equal_nan=True), name
    for name in ("noise_prediction", "frames"):
        a, b = getattr(one, name), getattr(other, name)
        assert list(a) == list(b), name
        assert all(np.array_equal(a[key], b[key]) for key in a), name
    for name in ("settings", "status", "error", "x0_source", "frames_source"):
        assert getattr(one, name) == getattr(other, name), name
    assert repr(one) == repr(other)


def test_steps():
    trajectory = make()
    assert len(trajectory) == 5 and len(list(trajectory)) == 5
    step = trajectory[-2]
    assert step.step == 3 and step.timestep == trajectory.timesteps[3]
    assert np.array_equal(step.latents, trajectory.latents[3])
    assert np.array_equal(step.next_latents, trajectory.latents[4])
    assert list(step.noise_prediction) == ["unconditional", "conditional", "guided"]
    assert np.array_equal(trajectory[np.int64(2)].x0, trajectory.x0[2])
    assert repr(step).startswith("Step 3: timestep")
    for wrong in (5, -6):
        with pytest.raises(IndexError, match="outside this trajectory of 5 steps"):
            trajectory[wrong]
    for wrong in (1.0, "1", None):
        with pytest.raises(TypeError, match="indexed by step"):
            trajectory[wrong]


def test_slices():
    trajectory = make()
    part = trajectory[1:3]
    assert len(part) == 2
    assert np.array_equal(part.latents, trajectory.latents[1:4])
    assert np.array_equal(part.frames["latents"], trajectory.frames["latents"][1:4])
    assert np.array_equal(part.frames["x0"], trajectory.frames["x0"][1:3])
    assert np.array_equal(
        part.noise_prediction["guided"], trajectory.noise_prediction["guided"][1:3]
    )
    assert len(trajectory[3:1]) == 0 and len(trajectory[9:]) == 0
    assert_same(trajectory[:], trajectory)
    with pytest.raises(ValueError, match="consecutive"):
        trajectory[::2]


def test_a_slice_says_which_steps_it_holds(tmp_path):
    trajectory = make()
    steps = len(trajectory)
    assert trajectory.part is None and f": {steps} steps of" in repr(trajectory)
    part = trajectory[1:][1:3]
    assert part.part == (2, 4, steps)
    assert f": 2 steps (2 to 3 of {steps}) of" in repr(part)
    assert f": 1 step (3 of {steps}) of" in repr(part[1:])
    assert f": 0 steps (none of {steps}) of" in repr(part[2:])
    assert part.select(0).part == part.part
    assert lv.Trajectory.open(part.save(tmp_path / "part.safetensors")).part == part.part
    for nonsense in ("x", [1, 2], [3, 1, 9], [0, 9, 9], [0.5, 5.5, 9], [0, steps, 10**4000]):
        assert make(settings={"part": nonsense}).part is None


def test_select():
    trajectory = make()
    one = trajectory.select(-1)
    assert one.batch_size == 1 and one.settings["prompt"] == "a boat"
    assert np.array_equal(one.latents[:, 0], trajectory.latents[:, 1])
    assert np.array_equal(one.frames["x0"][:, 0], trajectory.frames["x0"][:, 1])
    assert np.array_equal(one.images[0], trajectory.images[1])
    with pytest.raises(IndexError, match="batch of 2"):
        trajectory.select(2)


def test_arrays_are_read_only_and_the_callers_stay_writable():
    latents = np.zeros((3, 1, 4, 2, 2), np.float32)
    trajectory = lv.Trajectory(latents, *np.zeros((3, 2)))
    with pytest.raises(ValueError, match="read-only"):
        trajectory.latents[0] = 1
    latents[0] = 1
    with pytest.raises(TypeError):
        trajectory.settings["a"] = 1
    with pytest.raises(AttributeError):
        trajectory.status = "failed"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latents": np.zeros((3, 2), np.float32)}, "latents must have shape"),
        ({"latents": [[0.0]]}, "latents must be a numpy array"),
        ({"latents": np.zeros((6, 2, 4, 8, 8), complex)}, "latents must hold float16"),
        ({"timesteps": np.zeros(4)}, r"timesteps has shape \(4,\), expected \(5\)"),
        ({"x0": np.zeros((4, 2, 4, 8, 8), np.float32)}, "x0 has shape"),
        (
            {"noise_prediction": {"guided": np.zeros((5, 1, 4, 8, 8))}},
            r"noise_prediction\['guided'\] has shape",
        ),
        ({"frames": {"pictures": np.zeros((5, 2, 4, 4, 3), np.uint8)}}, "frames may hold"),
        ({"frames": {"x0": np.zeros((6, 2, 4, 4, 3), np.uint8)}}, "x0.* has shape"),
        ({"frames": {"x0": np.zeros((5, 2, 4, 4, 3), np.float32)}}, "must hold uint8"),
        ({"images": np.zeros((1, 4, 4, 3), np.uint8)}, "images has shape"),
        ({"status": "fine"}, "status must be one of complete, interrupted, failed"),
    ],
)
def test_parts_must_fit(changes, message):
    with pytest.raises(ValueError, match=message):
        make(**changes)


def test_repr_is_two_lines_whatever_the_prompt():
    trajectory = make(
        settings={
            "pipeline": "P",
            "prompt": "<script>alert(1)</script>\n\x1b[2J" + "x" * 500,
            "guidance_scale": 7.5,
        },
        status="failed",
        error="ValueError: no\nway",
    )
    text = repr(trajectory)
    assert text.count("\n") == 1 and "\x1b" not in text and len(text) < 500
    assert (
        "5 steps of P" in text
        and "2 samples of 4×8×8 float32" in text
        and "sigma 14.6 → 0.03" in text
    )
    assert repr(make()) == repr(make())
    assert repr(make(wall_times=np.arange(5.0))) == repr(make())
    assert "0 steps" in repr(make(steps=0))


def test_settings_become_plain():
    values = {
        "a": np.float32(0.5),
        "b": (1, 2),
        "c": float("nan"),
        "d": np.arange(2),
        "e": object,
        3: {"x": float("inf")},
    }
    plain = make(settings=values).settings
    assert json.loads(json.dumps(dict(plain), allow_nan=False)) == plain
    assert (
        plain["a"] == 0.5
        and plain["b"] == [1, 2]
        and plain["c"] == "nan"
        and plain["3"] == {"x": "inf"}
    )


def test_copies_and_pickles():
    trajectory = make()
    assert_same(copy.deepcopy(trajectory), trajectory)
    assert_same(pickle.loads(pickle.dumps(trajectory)), trajectory)


def test_shown_without_widgets(monkeypatch):
    monkeypatch.setitem(sys.modules, "ldm_viz.widgets.explorer", None)
    monkeypatch.delitem(vars(lv), "explore", raising=False)
    bundle = make()._repr_mimebundle_()
    assert bundle["text/plain"] == repr(make())
    assert bundle["image/png"].startswith(b"\x89PNG")
    assert "text/html" not in bundle


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("frames", [True, False])
def test_saved_and_opened(tmp_path, dtype, frames):
    trajectory = make(
        dtype=dtype, step_outputs=make(dtype=dtype).x0, status="interrupted", error="stopped"
    )
    path = tmp_path / "run.safetensors"
    assert trajectory.save(str(path), frames=frames) == path
    expected = trajectory if frames else trajectory.replace(frames={}, frames_source="")
    again = lv.open_trajectory(path)
    assert_same(again, expected)
    assert again.nbytes == expected.nbytes
    assert os.listdir(tmp_path) == ["run.safetensors"]


@pytest.mark.parametrize(
    "trajectory",
    [
        make(steps=0),
        make(x0=None, images=None, frames={}, noise_prediction={}, settings={}),
        make(sigmas=np.full(5, np.nan), snrs=np.full(5, np.inf)),
        make(latent=(7,), side=1),
        make(noise_prediction={"branch 0": make().x0, "guided": make().x0}),
        make(
            settings={"prompt": '<img src=x onerror="alert(1)"> \u2028 \u202e \U0001f600 "quoted"'}
        ),
        make().select(1),
        make()[1:3],
    ],
)
def test_odd_ones_survive(tmp_path, trajectory):
    trajectory.save(tmp_path / "run.safetensors")
    assert_same(lv.Trajectory.open(tmp_path / "run.safetensors"), trajectory)


def test_other_readers_can_read_it(tmp_path):
    trajectory = make()
    trajectory.save(tmp_path / "run.safetensors")
    with safetensors.safe_open(tmp_path / "run.safetensors", "numpy") as file:
        assert file.metadata()["format"] == "ldm_viz.trajectory"
        assert np.array_equal(file.get_tensor("latents"), trajectory.latents)
        assert np.array_equal(
            file.get_tensor("noise_prediction.guided"), trajectory.noise_prediction["guided"]
        )


def test_stored_frames_are_only_decoded_when_touched(tmp_path, monkeypatch):
    trajectory = make()
    path = trajectory.save(tmp_path / "run.safetensors")
    decoded = []
    original = stored.decode_image
    monkeypatch.setattr(
        stored, "decode_image", lambda *a, **k: decoded.append(1) or original(*a, **k)
    )
    again = lv.Trajectory.open(path)
    again.save(tmp_path / "copy.safetensors")
    part = again[1:3].select(0)
    repr(part), part.nbytes, "x0" in part.frames, len(part.frames)
    part.save(tmp_path / "part.safetensors")
    assert not decoded
    assert np.array_equal(part.frames["x0"], trajectory.frames["x0"][1:3, :1])
    assert len(decoded) == 2
    assert part.frames["x0"] is part.frames["x0"]
    assert_same(lv.Trajectory.open(tmp_path / "part.safetensors"), trajectory[1:3].select(0))
    assert_same(lv.Trajectory.open(tmp_path / "copy.safetensors"), trajectory)


def test_a_big_file_opens_at_once(tmp_path):
    big = np.zeros((51, 4, 4, 128, 128), np.float16)
    run = lv.Trajectory(
        big,
        *np.ones((3, 50)),
        x0=big[1:],
        noise_prediction={name: big[1:] for name in ("unconditional", "guided")},
    )
    path = run.save(tmp_path / "big.safetensors")
    assert path.stat().st_size > 100e6
    seconds = []
    for _ in range(5):  # the best of a few, as other programs may want the machine too
        began = time.perf_counter()
        again = lv.Trajectory.open(path)
        seconds.append(time.perf_counter() - began)
    assert min(seconds) < 0.05
    tracemalloc.start()
    lv.Trajectory.open(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e6
    assert again.latents.shape == big.shape


def replace_header(path, change):
    """Rewrites a file's header through a function of the parsed one."""
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    change(header)
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])


def describe(change):
    def apply(header):
        description = json.loads(header["__metadata__"]["trajectory"])
        change(description)
        header["__metadata__"]["trajectory"] = json.dumps(description)

    return apply


HEADERS = {
    "newer": (
        lambda h: h["__metadata__"].update(version="3"),
        "format version 3; this ldm_viz reads up to 2",
    ),
    "odd version": (lambda h: h["__metadata__"].update(version="x"), "expected a number"),
    "foreign": (lambda h: h["__metadata__"].update(format="pt"), "not a trajectory"),
    "no metadata": (lambda h: h.pop("__metadata__"), "not a trajectory"),
    "metadata is a list": (lambda h: h.update(__metadata__=[1]), "metadata is not text"),
    "metadata not text": (lambda h: h["__metadata__"].update(version=1), "metadata is not text"),
    "no description": (lambda h: h["__metadata__"].pop("trajectory"), "description is not JSON"),
    "no latents": (lambda h: h.pop("latents"), "'latents' is missing"),
    "no timesteps": (lambda h: h.pop("timesteps"), "'timesteps' is missing"),
    "no branch": (
        lambda h: h.pop("noise_prediction.guided"),
        "noise_prediction.guided' is missing",
    ),
    "no frames": (lambda h: h.pop("frames.x0.data"), "frames.x0.data' is missing"),
    "odd dtype": (lambda h: h["latents"].update(dtype="X9"), "makes no sense"),
    "negative": (lambda h: h["latents"].update(shape=[-6, 2, 4, 8, -8]), "makes no sense"),
    "not numbers": (lambda h: h["latents"].update(shape=[6.0, 2, 4, 8, 8]), "makes no sense"),
    "bools": (lambda h: h["latents"].update(data_offsets=[True, 100]), "makes no sense"),
    "huge": (lambda h: h["latents"].update(shape=[2**60, 2**60]), "makes no sense"),
    "beyond": (lambda h: h["latents"].update(data_offsets=[10**9, 10**9 + 12288]), "cut short"),
    "an entry is a list": (lambda h: h.update(latents=[1]), "makes no sense"),
    "many axes": (
        lambda h: h["latents"].update(shape=[6, 2, 4, 8, 8] + [1] * 90),
        "makes no sense",
    ),
    "other shape": (lambda h: h["latents"].update(shape=[6, 2, 256]), "do not fit together"),
    "settings": (describe(lambda d: d.update(settings=[1])), "'settings' is missing or not a dict"),
    "status": (describe(lambda d: d.update(status="fine")), "status must be"),
    "status type": (describe(lambda d: d.pop("status")), "'status' is missing"),
    "branches": (describe(lambda d: d.update(noise_prediction=[{"a": 1}])), "is missing"),
    "frame size": (describe(lambda d: d["frames"].update(x0=[16, 10**6])), "claim the size"),
    "frame size type": (describe(lambda d: d["frames"].update(x0="big")), "claim the size"),
    "frame name": (describe(lambda d: d["frames"].update(y=[1, 1])), "is missing"),
}


@pytest.mark.parametrize("name", HEADERS)
def test_headers_that_lie(tmp_path, name):
    change, message = HEADERS[name]
    path = make().save(tmp_path / "run.safetensors")
    replace_header(path, change)
    with pytest.raises(lv.TrajectoryFileError) as raised:
        lv.Trajectory.open(path)
    assert str(path) in str(raised.value)
    assert message in str(raised.value)


class Evil:
    def __reduce__(self):
        return os.system, ("touch /tmp/ldm_viz_was_here",)


def foreign_files():
    rng = np.random.default_rng(0)
    yield "empty", b""
    yield "short", b"\x10\x00\x00"
    yield "text", b"a text file, nothing more\n" * 10
    yield "json", b'{"latents": [1, 2, 3]}'
    yield "html", b"<html><script>alert(1)</script></html>"
    yield "noise", rng.bytes(4096)
    yield "zeros", bytes(4096)
    yield "pickle", pickle.dumps(Evil())
    yield "huge header", (2**63).to_bytes(8, "little") + bytes(100)
    yield "deep", (100_000).to_bytes(8, "little") + b"[" * 100_000
    yield "not an object", (2).to_bytes(8, "little") + b"[]"
    yield "numbers", (5000).to_bytes(8, "little") + b"9" * 5000
    yield "weights", safetensors.numpy.save({"unet.weight": np.zeros((4, 4), np.float32)})
    yield "png", encode_image(np.zeros((8, 8, 3), np.uint8), format="png")


@pytest.mark.parametrize(
    ("name", "data"),
    list(foreign_files()),
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_foreign_files(tmp_path, name, data):
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(lv.TrajectoryFileError) as raised:
        lv.Trajectory.open(path)
    assert str(path) in str(raised.value) and len(str(raised.value)) < 500
    assert not os.path.exists("/tmp/ldm_viz_was_here")


def test_files_that_are_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        lv.Trajectory.open(tmp_path / "nowhere.safetensors")
    with pytest.raises(IsADirectoryError):
        lv.Trajectory.open(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        make().save(tmp_path / "nowhere" / "run.safetensors")
    with pytest.raises(IsADirectoryError):
        make().save(tmp_path)
    assert not os.listdir(tmp_path)


def test_cut_short_anywhere(tmp_path):
    path = make(steps=2, batch=1, latent=(2, 2, 2), side=4).save(tmp_path / "run.safetensors")
    data = path.read_bytes()
    for length in [*range(64), *range(64, len(data) - 1, 37), len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(lv.TrajectoryFileError):
            lv.Trajectory.open(path)


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_byte_may_be_wrong(tmp_path, data):
    """A damaged file is refused or opens as some trajectory; it never does anything else."""
    path = tmp_path / "run.safetensors"
    original = bytearray(small_file())
    for _ in range(data.draw(st.integers(1, 4))):
        original[data.draw(st.integers(0, len(original) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(original)
    try:
        trajectory = lv.Trajectory.open(path)
        repr(trajectory)
        [trajectory.frames[name] for name in trajectory.frames]
    except lv.TrajectoryFileError as error:
        assert str(path) in str(error)


@functools.cache
def small_file():
    """The bytes of a small trajectory file."""
    with tempfile.TemporaryDirectory() as folder:
        trajectory = make(steps=2, batch=1, latent=(2, 2, 2), side=4)
        return trajectory.save(os.path.join(folder, "small.safetensors")).read_bytes()


def test_damaged_frames_are_named(tmp_path):
    trajectory = make()
    path = trajectory.save(tmp_path / "run.safetensors")
    with safetensors.safe_open(path, "numpy") as file:
        frames = file.get_tensor("frames.x0.data").tobytes()
    data = bytearray(path.read_bytes())
    begin = data.index(frames)
    data[begin : begin + 40] = bytes(40)
    path.write_bytes(data)
    again = lv.Trajectory.open(path)
    assert np.array_equal(again.frames["latents"], trajectory.frames["latents"])
    with pytest.raises(lv.TrajectoryFileError, match="frame 0 of 'x0' is damaged"):
        np.asarray(again.frames["x0"])


def test_frames_of_another_size_than_claimed(tmp_path):
    path = make().save(tmp_path / "run.safetensors")
    replace_header(path, describe(lambda d: d["frames"].update(x0=[8, 32])))
    with pytest.raises(lv.TrajectoryFileError, match="has shape"):
        np.asarray(lv.Trajectory.open(path).frames["x0"])
    replace_header(path, describe(lambda d: d["frames"].update(x0=[8, 8])))
    with pytest.raises(lv.TrajectoryFileError, match="damaged"):
        np.asarray(lv.Trajectory.open(path).frames["x0"])


def full_disk(monkeypatch, after):
    """Lets this many bytes be written, then says that no room is left."""
    original = container.Path.open

    def limited(self, *args, **kwargs):
        file = original(self, *args, **kwargs)
        if self.suffix != ".part":
            return file
        written = [0]

        class Limited:
            def write(self, data):
                written[0] += len(data)
                if written[0] > after:
                    raise OSError(errno.ENOSPC, "No space left on device")
                return file.write(data)

            def __getattr__(self, name):
                return getattr(file, name)

            def __enter__(self):
                return self

            def __exit__(self, *raised):
                file.close()

        return Limited()

    monkeypatch.setattr(container.Path, "open", limited)


@pytest.mark.parametrize("after", [0, 100, 20_000])
def test_a_full_disk(tmp_path, monkeypatch, after):
    trajectory = make()
    path = tmp_path / "run.safetensors"
    trajectory.replace(status="failed").save(path)
    before = path.read_bytes()
    full_disk(monkeypatch, after)
    with pytest.raises(OSError, match="No space left") as raised:
        trajectory.save(path)
    assert "whole in memory" in raised.value.__notes__[0]
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["run.safetensors"]
    monkeypatch.undo()
    trajectory.save(path)
    assert_same(lv.Trajectory.open(path), trajectory)


def test_a_real_limit_on_the_file_size(tmp_path):
    trajectory = make()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, limits[1]))
    try:
        with pytest.raises(OSError) as raised:
            trajectory.save(tmp_path / "run.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert raised.value.errno == errno.EFBIG
    assert not os.listdir(tmp_path)
    assert_same(trajectory, make())


def test_interrupted_while_saving(tmp_path, monkeypatch):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(container.os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        make().save(tmp_path / "run.safetensors")
    assert not os.listdir(tmp_path)


def test_to_xarray_names_the_axes_and_copies_nothing():
    trajectory = make(steps=3, batch=2)
    data = trajectory.to_xarray()
    assert data.latents.dims == ("position", "batch", "channel", "y", "x")
    assert data.latents.shape == trajectory.latents.shape
    assert np.shares_memory(data.x0.values, trajectory.x0)
    assert list(data.coords) == ["timestep", "sigma", "snr", "wall_time"]
    assert {"noise_prediction_unconditional", "noise_prediction_guided"} <= set(data.data_vars)
    expected = trajectory.latents.std(axis=(2, 3, 4))
    np.testing.assert_allclose(data.latents.std(("channel", "y", "x")), expected, rtol=1e-4)
    assert json.loads(data.attrs["settings"])["seed"] == 7
    video = {"name": "video, frames first", "pattern": "f c h w -> c f h w"}
    packed = trajectory.replace(settings={"latent_layout": {**video, "sizes": {}}})
    assert packed.to_xarray().x0.dims == ("step", "batch", "axis_0", "axis_1", "axis_2")
