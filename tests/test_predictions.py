"""Noise levels and predicted x0 against known truths: the denoiser is replaced by one that knows
the clean sample."""

import diffusers
import numpy as np
import pytest
import torch
from diffusers import (
    DiffusionPipeline,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
)
from pipelines import build_pipeline, call_arguments, use_scheduler

import ldm_viz as lv
from ldm_viz.capture.branches import tell_branches

PRESERVING = [
    "DDIMScheduler",
    "DDIMParallelScheduler",
    "DDPMScheduler",
    "DDPMParallelScheduler",
    "PNDMScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "DEISMultistepScheduler",
    "UniPCMultistepScheduler",
    "SASolverScheduler",
    "LCMScheduler",
    "TCDScheduler",
]
EXPLODING = [
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "LMSDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
]
OPTIONS = {"PNDMScheduler": {"skip_prk_steps": True}}
ABAR = diffusers.DDIMScheduler(
    beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear"
).alphas_cumprod.double()
SIGMAS = ((1 - ABAR) / ABAR).sqrt().numpy()
CLEAN = torch.linspace(-1, 1, 256).sin().reshape(1, 4, 8, 8).double()


def true_sigma(timestep):
    """By the training schedule; between two timesteps, where second-order schedulers look,
    log-linear."""
    return float(np.exp(np.interp(float(timestep), np.arange(1000), np.log(SIGMAS))))


class Oracle(torch.nn.Module):
    """Stands in for a UNet and predicts without error, whatever sample it is shown, that it came
    from CLEAN."""

    def __init__(self, unet, prediction, exploding):
        super().__init__()
        self.config = unet.config
        self.dtype, self.device = unet.dtype, unet.device
        self.prediction, self.exploding = prediction, exploding
        self.levels = []

    def forward(self, sample, timestep, **others):
        sigma = true_sigma(timestep)
        self.levels.append(sigma)
        alpha = 1 / np.sqrt(1 + sigma**2)
        scale = sigma * alpha
        # A variance-exploding scheduler shows the model its sample already in the
        # variance-preserving scale.
        noise = (sample.double() - alpha * CLEAN) / scale
        predicted = {
            "epsilon": noise,
            "sample": CLEAN.expand_as(noise),
            "v_prediction": alpha * noise - scale * CLEAN,
        }[self.prediction]
        return (predicted.to(sample.dtype),)


def record_oracle(name, prediction, **options):
    pipe = build_pipeline()
    options = {"timestep_spacing": "leading"} | OPTIONS.get(name, {}) | options
    use_scheduler(pipe, getattr(diffusers, name), prediction_type=prediction, **options)
    pipe.register_modules(unet=Oracle(pipe.unet, prediction, name in EXPLODING))
    arguments = call_arguments("text-to-image", guidance_scale=1.0, num_inference_steps=6)
    with lv.Recorder(pipe, frames=None) as recorder:
        pipe(**arguments)
    return recorder.trajectory, np.array(pipe.unet.levels)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("name", PRESERVING + EXPLODING)
def test_x0_is_the_known_one(name, prediction):
    trajectory, levels = record_oracle(name, prediction)
    np.testing.assert_allclose(
        trajectory.x0, np.broadcast_to(CLEAN, trajectory.x0.shape), atol=1e-4
    )
    np.testing.assert_allclose(trajectory.sigmas, levels, rtol=1e-4)
    np.testing.assert_allclose(trajectory.snrs, 1 / levels**2, rtol=1e-3)
    family = "variance exploding" if name in EXPLODING else "variance preserving"
    assert trajectory.settings["noise_schedule"] == family
    assert trajectory.x0_source in ("scheduler", "computed")


@pytest.mark.parametrize(
    "name", ["DDIMScheduler", "DPMSolverMultistepScheduler", "EulerDiscreteScheduler"]
)
def test_x0_of_a_model_that_predicts_it(name):
    trajectory, _ = record_oracle(name, "sample")
    np.testing.assert_allclose(
        trajectory.x0, np.broadcast_to(CLEAN, trajectory.x0.shape), atol=1e-4
    )


def test_x0_with_other_spacings():
    for spacing in ("linspace", "trailing"):
        trajectory, _ = record_oracle("DDIMScheduler", "epsilon", timestep_spacing=spacing)
        np.testing.assert_allclose(
            trajectory.x0[1:], np.broadcast_to(CLEAN, trajectory.x0[1:].shape), atol=1e-4
        )


@pytest.mark.parametrize(
    "name", ["DPMSolverMultistepScheduler", "UniPCMultistepScheduler", "SASolverScheduler"]
)
@pytest.mark.parametrize("options", [{}, {"use_karras_sigmas": True}, {"thresholding": True}])
def test_computed_x0_is_the_schedulers_own(name, options):
    """These solvers work on x0 without returning it; what they keep of it must be what was
    computed."""
    pipe = use_scheduler(build_pipeline(), getattr(diffusers, name), **options)
    kept = []

    def look(pipe, step, timestep, tensors):
        kept.append(pipe.scheduler.model_outputs[-1].clone())
        return tensors

    with lv.Recorder(pipe, frames=None) as recorder:
        pipe(**call_arguments("text-to-image", callback_on_step_end=look))
    np.testing.assert_allclose(
        recorder.trajectory.x0, torch.stack(kept).numpy(), rtol=1e-4, atol=1e-4
    )
    noted = "thresholding" in recorder.trajectory.settings.get("x0_note", "")
    assert noted == ("thresholding" in options)


def test_clipping_is_noted():
    pipe = use_scheduler(build_pipeline(), diffusers.DDPMScheduler, clip_sample=True)
    pipe.scheduler.register_to_config(clip_sample=True)
    with lv.Recorder(pipe, frames=None) as recorder:
        pipe(**call_arguments("text-to-image"))
    assert np.abs(recorder.trajectory.x0).max() <= 1.0
    assert "clipped" in recorder.trajectory.settings["x0_note"]


class FlowPipeline(DiffusionPipeline):
    """A pipeline nobody has heard of, with a loop of its own and no callback."""

    def __init__(self, transformer, scheduler):
        super().__init__()
        self.register_modules(transformer=transformer, scheduler=scheduler)

    @torch.no_grad()
    def __call__(self, num_inference_steps=4):
        self.scheduler.set_timesteps(num_inference_steps)
        latents = torch.linspace(-2, 2, 256).cos().reshape(1, 4, 8, 8)
        for timestep in self.scheduler.timesteps:
            velocity = self.transformer(latents, timestep)
            latents = self.scheduler.step(velocity, timestep, latents, return_dict=False)[0]
        return (latents,)


class FlowOracle(torch.nn.Module):
    def forward(self, sample, timestep):
        sigma = float(timestep) / 1000
        noise = (sample.double() - (1 - sigma) * CLEAN) / sigma
        return (noise - CLEAN).float()


@pytest.mark.parametrize(
    "scheduler",
    [
        FlowMatchEulerDiscreteScheduler(shift=3.0),
        FlowMatchHeunDiscreteScheduler(),
        diffusers.UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
        diffusers.DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
    ],
    ids=lambda scheduler: type(scheduler).__name__,
)
def test_flow(scheduler):
    pipe = FlowPipeline(FlowOracle(), scheduler)
    with lv.Recorder(pipe, frames=None) as recorder:
        latents = pipe()[0]
    trajectory = recorder.trajectory
    assert trajectory.settings["noise_schedule"] == "flow"
    # UniPC and DPM-Solver round their timesteps, so that the oracle is slightly off; Euler and Heun
    # do not.
    exact = type(scheduler).__name__.startswith("Flow")
    np.testing.assert_allclose(
        trajectory.x0, np.broadcast_to(CLEAN, trajectory.x0.shape), atol=1e-4 if exact else 5e-3
    )
    sigmas = trajectory.timesteps / 1000
    np.testing.assert_allclose(trajectory.sigmas, sigmas, atol=1e-6 if exact else 2e-3)
    np.testing.assert_allclose(
        trajectory.snrs, ((1 - sigmas) / sigmas) ** 2, rtol=1e-3 if exact else 0.1, atol=1e-4
    )
    assert np.array_equal(trajectory.latents[-1], latents.numpy())


def test_two_loops_are_two_trajectories():
    class Twice(FlowPipeline):
        def __call__(self):
            super().__call__(3)
            return super().__call__(4)

    pipe = Twice(FlowOracle(), FlowMatchEulerDiscreteScheduler())
    with lv.Recorder(pipe, frames=None) as recorder:
        pipe()
    assert [len(t) for t in recorder.trajectories] == [3, 4]
    assert [t.settings["loop"] for t in recorder.trajectories] == [0, 1]


class Unheard:
    """A scheduler that says nothing of itself."""

    def set_timesteps(self, count):
        self.timesteps = torch.arange(count).flip(0)

    def step(self, model_output, timestep, sample, return_dict=True):
        return (sample - 0.1 * model_output,)


def test_an_unknown_scheduler_is_recorded_as_far_as_can_be():
    pipe = FlowPipeline(FlowOracle(), FlowMatchEulerDiscreteScheduler())
    pipe.scheduler = Unheard()
    pipe.transformer = torch.nn.Identity()
    pipe.transformer.forward = lambda latents, timestep: latents
    with lv.Recorder(pipe, frames=None) as recorder:
        latents = pipe()[0]
    trajectory = recorder.trajectory
    assert np.isnan(trajectory.sigmas).all() and np.isnan(trajectory.snrs).all()
    assert trajectory.x0 is None
    assert "Unheard" in trajectory.settings["x0_note"]
    assert np.array_equal(trajectory.latents[-1], latents.numpy())
    assert "recording_faults" not in trajectory.settings


def branches(weight=7.0, rescale=1.0, steps=3, dtype=np.float32):
    rng = np.random.default_rng(0)
    u = rng.standard_normal((steps, 2, 4, 8, 8)).astype(dtype)
    c = u + 0.1 * rng.standard_normal(u.shape).astype(dtype)
    return u, c, (rescale * (u + dtype(weight) * (c - u))).astype(dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("scale", [7.0, None])
@pytest.mark.parametrize("swapped", [False, True])
def test_branches_are_told_by_their_weights(dtype, scale, swapped):
    u, c, guided = branches(dtype=dtype)
    outputs = [[b, a] if swapped else [a, b] for a, b in zip(u, c, strict=True)]
    told = tell_branches(outputs, guided, scale, np.finfo(dtype).eps)
    assert list(told.arrays) == ["unconditional", "conditional"]
    assert np.array_equal(told.arrays["conditional"], c)
    assert "7 ×" in told.note


@pytest.mark.parametrize("swapped", [False, True])
def test_branches_that_are_negated_before_the_step_are_told_too(swapped):
    u, c, guided = branches()
    outputs = [[-c_, -u_] if swapped else [-u_, -c_] for u_, c_ in zip(u, c, strict=True)]
    outputs[-1], guided[-1] = [-c[-1]], c[-1]
    told = tell_branches(outputs, guided, 7.0, np.finfo(np.float32).eps)
    assert np.array_equal(told.arrays["unconditional"][:-1], u[:-1])
    assert np.isnan(told.arrays["unconditional"][-1]).all()
    assert np.array_equal(told.arrays["conditional"], c)
    assert "negative" in told.note and "7 ×" in told.note


def test_branches_that_do_not_recombine_stay_unlabelled():
    u, c, guided = branches(rescale=0.9)
    told = tell_branches(
        [[a, b] for a, b in zip(u, c, strict=True)], guided, 7.0, np.finfo(np.float32).eps
    )
    assert list(told.arrays) == ["branch 0", "branch 1"]
    told = tell_branches([[a, b, a] for a, b in zip(u, c, strict=True)], guided, 7.0, 1e-7)
    assert list(told.arrays) == ["branch 0", "branch 1", "branch 2"]


def test_small_guidance_scales_need_the_scale_to_tell():
    u, c, guided = branches(weight=0.3)
    told = tell_branches(
        [[a, b] for a, b in zip(u, c, strict=True)], guided, 0.3, np.finfo(np.float32).eps
    )
    assert np.array_equal(told.arrays["conditional"], c)
