"""Tensors wait within a budget, in memory or in files that leave no trace."""

import gc
import os
from pathlib import Path

import diffusers
import numpy as np
import pytest
import torch
from pipelines import build_pipeline, call_arguments, use_scheduler

import ldm_viz as lv
from ldm_viz.capture.storage import Storage


@pytest.fixture(scope="module")
def pipe():
    return build_pipeline()


def record(pipe, **options):
    with lv.Recorder(pipe, frames=None, **options) as recorder:
        pipe(**call_arguments("text-to-image"))
    return recorder.trajectory


def same(one, other):
    assert np.array_equal(one.latents, other.latents)
    assert np.array_equal(one.x0, other.x0)
    for branch, values in one.noise_prediction.items():
        assert np.array_equal(values, other.noise_prediction[branch])
    assert (one.step_outputs is None) == (other.step_outputs is None)


@pytest.mark.parametrize("budget", [0, 3000, 1 << 30])
def test_a_folder_holds_what_memory_would(pipe, tmp_path, budget):
    use_scheduler(pipe, diffusers.DPMSolverMultistepScheduler)
    usual = record(pipe)
    filed = record(pipe, folder=tmp_path, memory_budget=budget)
    same(usual, filed)
    assert os.listdir(tmp_path) == [], "its files have no names"
    for values in (filed.latents, filed.x0, *filed.noise_prediction.values()):
        base = values
        while base.base is not None and not isinstance(base, np.memmap):
            base = base.base
        assert isinstance(base, np.memmap)
    again = lv.Trajectory.open(filed.save(tmp_path / "run.safetensors"))
    same(usual, again)


def test_files_vanish_with_the_trajectory(pipe, tmp_path):
    def open_files():
        maps = Path("/proc/self/maps").read_text(encoding="utf-8")
        return maps.count(str(tmp_path))

    if not os.path.exists("/proc/self/maps"):
        pytest.skip("this system does not tell what is mapped")
    filed = record(pipe, folder=tmp_path)
    assert open_files() > 0
    del filed
    gc.collect()
    assert open_files() == 0


def test_what_is_brought_over_is_let_go(tmp_path):
    storage = Storage(budget=100, folder=tmp_path)
    tensors = [torch.full((10,), float(i)) for i in range(5)]
    kept = []
    for tensor in tensors:
        storage.make_room()
        kept.append(storage.keep(tensor))
    assert [item.tensor is None for item in kept] == [True, True, True, False, False]
    storage.bring_over()
    assert all(item.tensor is None for item in kept)
    assert np.array_equal(storage.gather(kept)[:, 0], np.arange(5))


def test_a_copy_is_made_once_and_again_after_a_change():
    storage = Storage()
    tensor = torch.zeros(3)
    first = storage.keep(tensor)
    assert storage.keep(tensor) is first
    tensor += 1
    second = storage.keep(tensor)
    assert second is not first
    tensor.mul_(5)
    assert np.array_equal(storage.gather([first, second]), [[0, 0, 0], [1, 1, 1]])
    with torch.inference_mode():
        uncounted = torch.zeros(3)
        one = storage.keep(uncounted)
        uncounted += 1
        assert np.array_equal(storage.keep(uncounted).read(), np.ones(3))
        assert np.array_equal(one.read(), np.zeros(3))


@pytest.mark.parametrize(
    ("dtypes", "expected"),
    [
        ((torch.float16, torch.float16), np.float16),
        ((torch.bfloat16, torch.bfloat16), np.float32),
        ((torch.float16, torch.float32), np.float32),
        ((torch.float32, torch.float64), np.float64),
    ],
)
def test_types_widen_and_never_narrow(dtypes, expected):
    storage = Storage()
    kept = [storage.keep(torch.tensor([1 / 3], dtype=dtype)) for dtype in dtypes]
    array = storage.gather(kept)
    assert array.dtype == expected
    for values, dtype in zip(array, dtypes, strict=True):
        assert torch.equal(torch.tensor(values).to(dtype), torch.tensor([1 / 3], dtype=dtype))


def test_options_that_make_no_sense(pipe, tmp_path):
    with pytest.raises(ValueError, match="memory_budget must be a number of bytes, not '1 GB'"):
        lv.Recorder(pipe, memory_budget="1 GB")
    with pytest.raises(NotADirectoryError, match="no-such-folder is not"):
        lv.Recorder(pipe, folder=tmp_path / "no-such-folder")


def test_keep_and_what_it_takes(pipe):
    use_scheduler(pipe, diffusers.DDIMScheduler)
    for keep, branches in (("guided", 1), ("noise_prediction", 3), ("x0", 0)):
        trajectory = record(pipe, keep=keep)
        assert len(trajectory.noise_prediction) == branches
        assert (trajectory.x0 is not None) == (keep == "x0")
        told = lv.estimate(pipe, num_inference_steps=4, height=16, width=16, keep=[keep])
        arrays = [trajectory.latents, *trajectory.noise_prediction.values()]
        arrays += [] if trajectory.x0 is None else [trajectory.x0]
        assert told.nbytes == sum(array.nbytes for array in arrays)
        assert told.latent_shape == trajectory.latent_shape


def test_an_estimate_reads_as_a_table():
    pipe = build_pipeline()
    told = lv.estimate(pipe, num_inference_steps=50, height=1024, width=1024, batch=2)
    lines = repr(told).splitlines()
    assert lines[0].startswith("50 steps of 2 × 4×512×512: ")
    assert len(lines) == 1 + len(told.parts)
    del pipe.vae
    pipe.vae = None
    with pytest.raises(ValueError, match="does not tell the shape of its latents"):
        lv.estimate(pipe)


def test_a_large_recording_is_told_at_its_first_step(pipe, monkeypatch, capsys):
    record(pipe, progress=True)
    assert "Recording" not in capsys.readouterr().err
    monkeypatch.setattr("ldm_viz.capture.recorder._WORTH_TELLING", 1000)
    record(pipe, progress=True)
    assert "Recording 4 steps of 1 × 4×8×8: " in capsys.readouterr().err
    record(pipe, progress=False)
    assert "Recording" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"keep": "guidd"}, "keep may hold"),
        ({"keep": ["nois"]}, "keep may hold"),
        ({"num_inference_steps": 0}, "num_inference_steps must be a positive whole number, not 0"),
        ({"height": 64.0}, "height must be"),
        ({"batch": True}, "batch must be"),
    ],
)
def test_estimates_check_what_they_are_asked(pipe, arguments, message):
    with pytest.raises(ValueError, match=message):
        lv.estimate(pipe, **arguments)


def test_an_estimate_for_latents_whose_shape_is_known(pipe):
    assert lv.estimate(pipe, latent_shape=(16, 5, 8, 8), keep="latents").nbytes == 51 * 5120 * 4
