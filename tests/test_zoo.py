"""Every family of pipelines: recorded to the bit, with the right events, branches and latents."""

import functools
import warnings

import diffusers
import numpy as np
import pytest
import torch
from zoo import ZOO

import ldm_viz as lv
from ldm_viz.latent_layouts import LatentLayout

_build = functools.cache(lambda specimen: specimen.build())


def each(specimens):
    """Runs a test for each of these."""
    return pytest.mark.parametrize("specimen", specimens, ids=lambda specimen: specimen.name)


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


@each(ZOO)
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
    assert recorder.trajectory is runs[-1]
    assert [trajectory.images is None for trajectory in runs] == [True] * (len(runs) - 1) + [False]
    assert set(recorder.trajectory.noise_prediction) == set(specimen.branches)
    outputs = iter(seen)
    for trajectory in runs:
        assert "recording_faults" not in trajectory.settings
        assert trajectory.complete
        assert np.isfinite(trajectory.latents).all()
        guided = torch.stack([next(outputs) for _ in range(len(trajectory))])
        if specimen.values == "tokens":  # with neither noise levels nor predictions of noise
            assert trajectory.x0 is None and trajectory.settings["x0_note"]
            assert not trajectory.noise_prediction and trajectory.settings["guidance_note"]
            assert np.isnan(trajectory.sigmas).all() and np.isnan(trajectory.snrs).all()
            continue
        assert np.isfinite(trajectory.x0).all()
        sigmas, noise = trajectory.sigmas, trajectory.snrs == 0
        assert np.isfinite(sigmas[~noise]).all() and (sigmas[noise] >= 1).all()
        assert (np.diff(sigmas) <= 0).all()
        batch, channels = trajectory.latents.shape[1:3]
        guided = guided[:, :batch, :channels].float().numpy()
        assert np.array_equal(trajectory.noise_prediction["guided"], guided)
    assert next(outputs, None) is None, "a step was not recorded"


@each([specimen for specimen in ZOO if specimen.returned])
def test_the_last_latents_are_the_pipelines_own(specimen):
    pipe = _build(specimen)
    with lv.Recorder(pipe, frames=None) as recorder:
        own, _ = run(pipe, specimen.arguments() | {"output_type": "latent"})
    last = specimen.returned(pipe, torch.tensor(recorder.trajectory.latents[-1])).numpy()
    # Some pipelines unpack what they return: the same values in another order.
    assert np.array_equal(np.sort(own, axis=None), np.sort(last, axis=None))


@functools.cache
def shown(specimen):
    """The pictures that a pipeline returned, and its recorded run."""
    pipe = _build(specimen)
    with lv.Recorder(pipe) as recorder:
        own, _ = run(pipe, specimen.arguments())
    return (own * 255).round().astype(np.uint8), recorder.trajectory


@each(ZOO)
def test_the_last_frame_is_the_pipelines_own_picture(specimen):
    pictures, trajectory = shown(specimen)
    assert np.array_equal(trajectory.images, pictures)
    if specimen.values == "tokens":
        assert not trajectory.frames, "those still masked stand for no picture"
        assert "do not fit the pipeline's VQModel" in trajectory.settings["frames_note"]
        return
    assert "frames_note" not in trajectory.settings
    assert np.array_equal(trajectory.frames["latents"][-1], pictures)
    assert trajectory.frames["x0"].shape == (len(trajectory), *pictures.shape)
    # Not only the last, whose decoding was watched: the others by the rule that was found.
    changes = np.diff(trajectory.frames["latents"].astype(float), axis=0)
    assert all(change.any() for change in changes[:-1]), "the last step may be too small to see"


@each([specimen for specimen in ZOO if specimen.values == "latents"])
def test_the_layout_and_the_scaling_of_the_latents_are_known(specimen):
    pictures, trajectory = shown(specimen)
    settings, latents = trajectory.settings, trajectory.latents
    assert settings["latent_layout"]["name"] == specimen.layout
    assert (settings["latent_scaling"] == "fitted") == specimen.fitted
    planes = LatentLayout.read(settings["latent_layout"]).unpack(latents)
    assert planes.ndim == pictures.ndim + 1  # frames are an axis of both, or of neither
    down = pictures.shape[-2] / planes.shape[-1]
    assert down.is_integer() and planes.shape[-2] * down == pictures.shape[-3]


@each([specimen for specimen in ZOO if hasattr(getattr(diffusers, specimen.pipeline), "interrupt")])
def test_a_frame_is_what_the_pipeline_shows_when_it_is_stopped_there(specimen):
    pipe = _build(specimen)
    with lv.Recorder(pipe, frames=None, on_step=lambda step: recorder.stop()) as recorder:
        own, _ = run(pipe, specimen.arguments())
    stopped, (_, whole) = recorder.trajectory, shown(specimen)
    assert len(stopped) == 1 and stopped.status == "interrupted"
    assert np.array_equal(stopped.latents, whole.latents[:2])
    if whole.settings["noise_schedule"] == "variance exploding":
        return  # its latents are brought to another scale before they are shown
    frame = whole.frames["x0"][0] if specimen.shows_x0 else whole.frames["latents"][1]
    # It was decoded together with other steps' latents, which rounds otherwise.
    assert np.abs(frame - (own * 255).round()).max() <= 1
