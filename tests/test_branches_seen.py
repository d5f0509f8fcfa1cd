"""What the models gave is found again in what the steps received, whatever was done to it between."""

import types

import diffusers
import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline, FlowMatchEulerDiscreteScheduler

import ldm_viz as lv

SHAPE = (1, 4, 3, 6, 6)  # a video's latents, so that there is an axis of frames
BRANCHES = ["unconditional", "conditional", "guided"]


class Model(torch.nn.Module):
    """Gives ``give(sample, which)``: which is 0 for the unconditional branch, 1 for the conditional."""

    def __init__(self, give):
        super().__init__()
        self.give = give

    def forward(self, sample, which):
        return self.give(sample, which)


class Helper(torch.nn.Module):
    """A control network, an adapter: something else the loop asks."""

    def forward(self, sample):
        return [torch.ones(1, 8, 3, 6, 6), torch.ones(1, 16, 3, 3, 3)]


class Guided(DiffusionPipeline):
    """A loop of our own; ``mix`` makes of the model's outputs what the scheduler receives."""

    def __init__(self, transformer, scheduler, adapter=None):
        super().__init__()
        self.register_modules(transformer=transformer, scheduler=scheduler, adapter=adapter)
        self.mix = None

    @torch.no_grad()
    def __call__(self, num_inference_steps=4):
        self.scheduler.set_timesteps(num_inference_steps)
        latents = torch.linspace(-2, 2, int(np.prod(SHAPE))).cos().reshape(SHAPE)
        for i, timestep in enumerate(self.scheduler.timesteps):
            if self.adapter is not None and i == 0:
                self.adapter(latents)
            velocity = self.mix(self.transformer, latents)
            latents = self.scheduler.step(velocity, timestep, latents, return_dict=False)[0]
        return types.SimpleNamespace(frames=None)


def velocity(sample, which):
    return torch.sin((2.0 + which) * sample) + 0.1 * which


def record(give, mix, adapter=None):
    pipe = Guided(Model(give), FlowMatchEulerDiscreteScheduler(), adapter)
    pipe.mix = mix
    with lv.Recorder(pipe, frames=None) as recorder:
        pipe()
    trajectory = recorder.trajectory
    assert "recording_faults" not in trajectory.settings
    return trajectory


def check(trajectory, g=3.0):
    assert list(trajectory.noise_prediction) == BRANCHES
    u, c, guided = (trajectory.noise_prediction[name] for name in BRANCHES)
    latents = torch.tensor(trajectory.latents[:-1])
    assert np.array_equal(c, velocity(latents, 1)) and np.array_equal(u, velocity(latents, 0))
    np.testing.assert_allclose(u + g * (c - u), guided, atol=1e-5)
    assert f"{g:g} ×" in trajectory.settings["guidance_note"]


def plain(model, latents):
    u, c = model(latents, 0), model(latents, 1)
    return u + 3.0 * (c - u)


def test_one_call_for_each():
    check(record(velocity, plain))


def test_a_tuple_whose_second_is_meant():
    def mix(model, latents):
        u, c = model(latents, 0)[1], model(latents, 1)[1]
        return u + 3.0 * (c - u)

    check(record(lambda x, which: (torch.ones(2, 7), velocity(x, which)), mix))


def test_lists_of_samples():
    """As with Z-Image: one tensor for each sample, with an axis more, and negated."""

    def give(x, which):
        return ([-velocity(x, k)[0].unsqueeze(2) for k in (1, 0)],)

    def mix(model, latents):
        c, u = (-output.squeeze(2).unsqueeze(0) for output in model(latents, None)[0])
        return u + 3.0 * (c - u)

    trajectory = record(give, mix)
    check(trajectory)
    assert "negative" in trajectory.settings["guidance_note"]


@pytest.mark.parametrize("axis", [1, 2, 4])
@pytest.mark.parametrize("trailing", [False, True])
def test_a_part_of_the_output_is_left_out(axis, trailing):
    def give(x, which):
        good = velocity(x, which)
        more = torch.ones_like(good)
        return torch.cat([more, good] if trailing else [good, more], axis)

    def mix(model, latents):
        size = latents.shape[axis]
        begin = size if trailing else 0
        u, c = (model(latents, k).narrow(axis, begin, size) for k in (0, 1))
        return u + 3.0 * (c - u)

    check(record(give, mix))


@pytest.mark.parametrize("g", [1.7, 3.0, 30.0])
def test_the_other_way_to_write_guidance(g):
    """``(g) c + (1 - g) u`` rounds otherwise than ``u + g (c - u)``."""

    def mix(model, latents):
        return g * model(latents, 1) + (1 - g) * model(latents, 0)

    check(record(velocity, mix), g)


def test_other_models_are_not_taken_for_branches():
    check(record(velocity, plain, adapter=Helper()))


def test_outputs_of_another_shape_are_told():
    def mix(model, latents):
        return model(latents, 1).flatten()[: latents.numel()].reshape(latents.shape)

    trajectory = record(lambda x, which: velocity(x, which).reshape(1, 8, -1), mix)
    assert list(trajectory.noise_prediction) == ["guided"]
    assert "another shape" in trajectory.settings["guidance_note"]


def test_two_loops_after_one_call():
    """Video and sound: one call of the model, a step of each; both are recorded whole."""

    class Both(Guided):
        @torch.no_grad()
        def __call__(self):
            other = type(self.scheduler).from_config(self.scheduler.config)
            self.sound_scheduler = other
            self.scheduler.set_timesteps(3)
            other.set_timesteps(3)
            latents, sound = torch.ones(SHAPE).cumsum(2), torch.ones(1, 2, 5, 4).cumsum(2)
            for timestep in self.scheduler.timesteps:
                outputs = [self.transformer((latents, sound), which) for which in (0, 1)]
                (u, us), (c, cs) = outputs
                latents = self.scheduler.step(u + 3.0 * (c - u), timestep, latents)[0]
                sound = other.step(us + 3.0 * (cs - us), timestep, sound)[0]

    scheduler = FlowMatchEulerDiscreteScheduler()
    model = Model(lambda both, which: tuple(velocity(x, which) for x in both))
    pipe = Both(model, scheduler)
    pipe.sound_scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    with lv.Recorder(pipe, frames=None) as recorder:
        pipe()
    video, sound = recorder.trajectories
    check(video)
    check(sound)
    assert (video.latent_shape, sound.latent_shape) == (SHAPE[1:], (2, 5, 4))


def test_values_that_are_not_finite_are_found():
    def give(x, which):
        good = velocity(x, which)
        give.calls += 1
        if give.calls > 4:
            good[..., 0, 0] = float("nan")
        return good

    give.calls = 0
    with pytest.warns(UserWarning, match="first noise_prediction.* at step 2"):
        trajectory = record(give, plain)
    found = trajectory.nonfinite
    assert found["noise_prediction['guided']"] == [2, 3]
    assert found["latents"] == [3, 4] and found["x0"] == [2, 3]
