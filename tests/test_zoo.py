"""Every family of pipelines: recorded to the bit, with the right events, branches and latents."""

import functools
import warnings

import numpy as np
import pytest
import torch
from zoo import ZOO

import ldm_viz as lv

_build = functools.cache(lambda specimen: specimen.build())


def run(pipe, arguments):
    """What a call returns, as one array, and the state torch's own generator is left in."""
    torch.manual_seed(11)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        output = pipe(**arguments)
    pictures = output.frames if hasattr(output, "frames") else output.images
    return np.asarray(pictures), torch.random.get_rng_state()


@pytest.fixture
def received(monkeypatch):
    """What reaches the schedulers' own steps, seen from below the recorder."""
    seen = []

    def watch(pipe):
        schedulers = [part for part in vars(pipe).values() if hasattr(part, "set_timesteps")]
        for kind in {type(scheduler) for scheduler in schedulers}:
            original = kind.step

            @functools.wraps(original)
            def step(self, *args, _original=original, **kwargs):
                model_output = kwargs["model_output"] if "model_output" in kwargs else args[0]
                seen.append(model_output.detach().clone())
                return _original(self, *args, **kwargs)

            monkeypatch.setattr(kind, "step", step)
        return seen

    return watch


@pytest.mark.parametrize("specimen", ZOO, ids=lambda specimen: specimen.name)
def test_recorded_to_the_bit(specimen, received):
    pipe = _build(specimen)
    bare, state = run(pipe, specimen.arguments())
    seen = received(pipe)
    with lv.Recorder(pipe, frames=None) as recorder:
        recorded, state_after = run(pipe, specimen.arguments())
    assert np.array_equal(recorded, bare) and np.isfinite(bare).all()
    assert torch.equal(state_after, state)
    assert np.std(bare) > 0.01, "a picture of one colour would prove nothing"

    runs = recorder.trajectories
    assert tuple(map(len, runs)) == specimen.steps
    for trajectory in runs:
        assert "recording_faults" not in trajectory.settings
        assert trajectory.complete
        assert np.isfinite(trajectory.latents).all() and np.isfinite(trajectory.x0).all()
        assert np.isfinite(trajectory.sigmas).all() and (np.diff(trajectory.sigmas) <= 0).all()
    trajectory = runs[-1]
    assert set(trajectory.noise_prediction) == set(specimen.branches)
    batch, channels = trajectory.latents.shape[1:3]
    guided = torch.stack(seen[-len(trajectory) :])[:, :batch, :channels].float().numpy()
    assert np.array_equal(trajectory.noise_prediction["guided"], guided)


ON_PIXELS = ("DDPMPipeline", "DDIMPipeline")
ALWAYS_DECODES = ("DiTPipeline",)


@pytest.mark.parametrize("specimen", ZOO, ids=lambda specimen: specimen.name)
def test_the_last_latents_are_the_pipelines_own(specimen):
    if specimen.pipeline in (*ON_PIXELS, *ALWAYS_DECODES):
        pytest.skip("it returns no latents")
    pipe = _build(specimen)
    with lv.Recorder(pipe, frames=None) as recorder:
        own, _ = run(pipe, specimen.arguments() | {"output_type": "latent"})
    # Some pipelines unpack what they return: the same values in another order.
    assert np.array_equal(
        np.sort(own, axis=None), np.sort(recorder.trajectory.latents[-1], axis=None)
    )


@pytest.mark.parametrize("specimen", ZOO, ids=lambda specimen: specimen.name)
def test_the_last_frame_is_the_pipelines_own_picture(specimen):
    pipe = _build(specimen)
    with lv.Recorder(pipe) as recorder:
        own, _ = run(pipe, specimen.arguments())
    trajectory = recorder.trajectory
    pictures = (own * 255).round().astype(np.uint8)
    assert np.array_equal(trajectory.frames["latents"][-1], pictures)
    assert np.array_equal(trajectory.images, pictures)
    assert trajectory.frames["x0"].shape == (len(trajectory), *pictures.shape)
    if specimen.pipeline not in ON_PIXELS:
        assert trajectory.settings["latent_scaling"] != "fitted"
    # Not only the last, whose decoding was watched: the others by the rule that was found.
    changes = np.diff(trajectory.frames["latents"].astype(float), axis=0)
    assert all(change.any() for change in changes[:-1]), "the last step may be too small to see"
