"""A recorded run gives what an unrecorded one gives, to the bit, and the recording holds what
really happened."""

import functools
import inspect
import warnings

import diffusers
import numpy as np
import pytest
import torch
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback, SDCFGCutoffCallback
from pipelines import PIPELINES, build_pipeline, call_arguments, use_scheduler

import ldm_viz as lv

SCHEDULERS = [
    "DDIMScheduler",
    "DDPMScheduler",
    "PNDMScheduler",
    "LMSDiscreteScheduler",
    "EulerDiscreteScheduler",
    "EulerAncestralDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "DEISMultistepScheduler",
    "UniPCMultistepScheduler",
    "SASolverScheduler",
    "LCMScheduler",
    "TCDScheduler",
]
ETA = ("DDIMScheduler", "TCDScheduler")
OPTIONS = {
    "DPMSolverMultistepScheduler": [
        {"algorithm_type": "sde-dpmsolver++"},
        {"use_karras_sigmas": True},
    ],
    "EulerDiscreteScheduler": [{"use_karras_sigmas": True}, {"timestep_spacing": "trailing"}],
    "UniPCMultistepScheduler": [{"predict_x0": False}],
}
# Without it PNDM begins with 12 Runge-Kutta steps, which 4 steps do not reach.
REQUIRED = {"PNDMScheduler": {"skip_prk_steps": True}}

pipeline = functools.cache(build_pipeline)


def run(pipe, arguments):
    """Pictures of a run with a fresh generator, and the state the generator and torch were left
    in."""
    arguments = {**arguments, "generator": torch.Generator().manual_seed(3)}
    torch.manual_seed(11)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        images = pipe(**arguments).images
    return images, arguments["generator"].get_state(), torch.random.get_rng_state()


def compare(pipe, arguments, **options):
    """Runs bare and recorded, checks that they are equal, and returns the trajectory."""
    bare = run(pipe, arguments)
    with lv.Recorder(pipe, progress=False, **options) as recorder:
        recorded = run(pipe, arguments)
    for name, one, other in zip(
        ("pictures", "generator", "global generator"), bare, recorded, strict=True
    ):
        assert np.array_equal(one, other, equal_nan=name == "pictures"), name
    trajectory = recorder.trajectory
    assert "recording_faults" not in trajectory.settings
    assert trajectory.complete
    return trajectory


@pytest.mark.parametrize("kind", PIPELINES)
@pytest.mark.parametrize("name", SCHEDULERS)
def test_scheduler(name, kind):
    pipe = use_scheduler(pipeline(kind), getattr(diffusers, name), **REQUIRED.get(name, {}))
    for guidance in (1.0, 7.0):
        for eta in (0.0, 1.0) if name in ETA else (0.0,):
            trajectory = compare(pipe, call_arguments(kind, guidance_scale=guidance, eta=eta))
            check(trajectory, guidance)


@pytest.mark.parametrize(
    ("name", "options"),
    [(name, options) for name, several in OPTIONS.items() for options in several],
)
def test_scheduler_options(name, options):
    pipe = use_scheduler(pipeline(), getattr(diffusers, name), **options)
    check(compare(pipe, call_arguments("text-to-image")), 7.0)


def check(trajectory, guidance):
    """What must hold of any complete run."""
    steps = len(trajectory)
    assert np.isfinite(trajectory.sigmas).all()
    assert (np.diff(trajectory.wall_times) > 0).all()
    assert trajectory.x0.shape[0] == steps
    branches = trajectory.noise_prediction
    if guidance > 1:
        assert list(branches) == ["unconditional", "conditional", "guided"]
        u, c = branches["unconditional"], branches["conditional"]
        np.testing.assert_allclose(u + guidance * (c - u), branches["guided"], rtol=1e-4, atol=1e-5)
        assert not np.allclose(u, c)
    else:
        assert list(branches) == ["guided"]
    assert np.array_equal(trajectory.frames["latents"][-1], trajectory.images)
    assert trajectory.frames_source == "exact"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(
    "name", ["DDIMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler"]
)
def test_half_precision(name, dtype):
    pipe = use_scheduler(pipeline(dtype=dtype), getattr(diffusers, name))
    trajectory = compare(pipe, call_arguments("text-to-image"))
    assert trajectory.latents.dtype == (np.float16 if dtype == torch.float16 else np.float32)
    assert list(trajectory.noise_prediction) == ["unconditional", "conditional", "guided"]
    assert np.array_equal(trajectory.frames["latents"][-1], trajectory.images)


@pytest.mark.parametrize("kind", PIPELINES)
def test_batches(kind):
    pipe = use_scheduler(pipeline(kind), diffusers.EulerAncestralDiscreteScheduler)
    prompts = ["a red star", "a boat at sunset"]
    arguments = call_arguments(
        kind, prompt=prompts, negative_prompt=["blue", "day"], num_images_per_prompt=2
    )
    trajectory = compare(pipe, arguments)
    check(trajectory, 7.0)
    assert trajectory.batch_size == 4
    assert trajectory.select(2).settings["prompt"] == "a boat at sunset"
    assert trajectory.select(1).settings["negative_prompt"] == "blue"


def test_generators_for_each_sample():
    pipe = use_scheduler(pipeline(), diffusers.DDPMScheduler)

    def images():
        generators = [torch.Generator().manual_seed(seed) for seed in (5, 6)]
        return pipe(
            **call_arguments("text-to-image", num_images_per_prompt=2, generator=generators)
        ).images

    bare = images()
    with lv.Recorder(pipe) as recorder:
        assert np.array_equal(images(), bare)
    assert recorder.trajectory.settings["seed"] == [5, 6]
    assert recorder.trajectory.select(1).settings["seed"] == 6


def test_guidance_rescale_leaves_branches_unlabelled():
    pipe = use_scheduler(pipeline(), diffusers.DDIMScheduler)
    trajectory = compare(pipe, call_arguments("text-to-image", guidance_rescale=0.7))
    assert list(trajectory.noise_prediction) == ["branch 0", "branch 1", "guided"]
    assert "not labelled" in trajectory.settings["guidance_note"]


def test_the_zero_prompt_equals_the_negative():
    pipe = use_scheduler(pipeline(), diffusers.DDIMScheduler)
    trajectory = compare(pipe, call_arguments("text-to-image", prompt="", negative_prompt=""))
    u, c = (trajectory.noise_prediction[name] for name in ("unconditional", "conditional"))
    np.testing.assert_allclose(u, c, atol=1e-6)


@pytest.mark.parametrize("output_type", ["pil", "np", "pt"])
@pytest.mark.parametrize("return_dict", [True, False])
def test_output_types(output_type, return_dict):
    pipe = use_scheduler(pipeline(), diffusers.DDIMScheduler)
    with lv.Recorder(pipe) as recorder:
        pipe(**call_arguments("text-to-image", output_type=output_type, return_dict=return_dict))
    trajectory = recorder.trajectory
    assert np.array_equal(trajectory.frames["latents"][-1], trajectory.images)


def test_latent_output():
    pipe = use_scheduler(pipeline(), diffusers.DDIMScheduler)
    with lv.Recorder(pipe) as recorder:
        latents = pipe(**call_arguments("text-to-image", output_type="latent")).images
    assert recorder.trajectory.images is None
    assert np.array_equal(recorder.trajectory.latents[-1], latents.numpy())


def test_latents_are_those_of_the_loop():
    """Seen from outside: a callback of the user's sees the same latents; inpainting's blend is kept
    beside the step's."""
    pipe = use_scheduler(pipeline("inpainting"), diffusers.DDIMScheduler)
    seen, outputs = [], []

    def look(pipe, step, timestep, tensors):
        seen.append(tensors["latents"].clone())
        return tensors

    original = type(pipe.scheduler).step

    @functools.wraps(original)
    def spy(*args, **kwargs):
        outputs.append(original(*args, **kwargs)[0].clone())
        return (outputs[-1],)

    pipe.scheduler.step = functools.partial(spy, pipe.scheduler)
    try:
        with lv.Recorder(pipe) as recorder:
            pipe(**call_arguments("inpainting", callback_on_step_end=look))
    finally:
        del pipe.scheduler.step
    trajectory = recorder.trajectory
    assert np.array_equal(trajectory.latents[1:], torch.stack(seen).numpy())
    assert np.array_equal(trajectory.step_outputs, torch.stack(outputs).numpy())
    outside = trajectory.latents[1:-1, :, :, :, 4:] - trajectory.step_outputs[:-1, :, :, :, 4:]
    assert np.abs(outside).max() > 0.01
    assert np.array_equal(
        trajectory.latents[1:, :, :, :, :4], trajectory.step_outputs[:, :, :, :, :4]
    )


@pytest.mark.parametrize("way", ["torch", "data", "numpy"])
def test_in_place_changes_are_seen(way):
    pipe = use_scheduler(pipeline(), diffusers.DDIMScheduler)

    def halve(pipe, step, timestep, tensors):
        latents = tensors["latents"]
        if way == "torch":
            latents.mul_(0.5)
        elif way == "data":  # these two are not counted by torch
            latents.data.mul_(0.5)
        else:
            latents.numpy()[:] *= 0.5
        return tensors

    trajectory = compare(pipe, call_arguments("text-to-image", callback_on_step_end=halve))
    np.testing.assert_array_equal(trajectory.latents[1:], trajectory.step_outputs * 0.5)


class Halve(PipelineCallback):
    tensor_inputs = ["latents"]

    def callback_fn(self, pipeline, step_index, timesteps, callback_kwargs):
        assert list(callback_kwargs) == ["latents"]
        return {"latents": callback_kwargs["latents"] * 0.5}


class Embeddings(PipelineCallback):
    tensor_inputs = ["prompt_embeds"]

    def callback_fn(self, pipeline, step_index, timesteps, callback_kwargs):
        assert "prompt_embeds" in callback_kwargs
        return {"prompt_embeds": callback_kwargs["prompt_embeds"] * 1.1}


def halve_blindly(pipe, step, timestep, tensors):
    """Asks for other tensors and returns latents none the less."""
    assert list(tensors) == ["prompt_embeds"]
    return {"latents": torch.full((1, 4, 8, 8), 0.1 * step), **tensors}


@pytest.mark.parametrize(
    "arguments",
    [
        {"callback_on_step_end": Halve()},
        {"callback_on_step_end": Embeddings()},
        {"callback_on_step_end": MultiPipelineCallbacks([Halve()])},
        {"callback_on_step_end": MultiPipelineCallbacks([])},
        {"callback_on_step_end": SDCFGCutoffCallback(cutoff_step_ratio=None, cutoff_step_index=1)},
        {
            "callback_on_step_end": halve_blindly,
            "callback_on_step_end_tensor_inputs": ["prompt_embeds"],
        },
        {"callback_on_step_end": lambda *given: {}, "callback_on_step_end_tensor_inputs": []},
        {"callback_on_step_end_tensor_inputs": None},
    ],
    ids=[
        "function of latents",
        "embeddings",
        "several",
        "none",
        "cut-off",
        "blind",
        "empty",
        "no inputs",
    ],
)
def test_the_users_callback(arguments):
    pipe = use_scheduler(pipeline(), diffusers.DDIMScheduler)
    trajectory = compare(pipe, call_arguments("text-to-image", **arguments))
    assert np.array_equal(trajectory.frames["latents"][-1], trajectory.images)


def test_guidance_cut_off_in_the_middle():
    pipe = use_scheduler(pipeline(), diffusers.DDIMScheduler)
    cut = {"callback_on_step_end": SDCFGCutoffCallback(cutoff_step_ratio=None, cutoff_step_index=1)}
    trajectory = compare(pipe, call_arguments("text-to-image", **cut))
    branches = trajectory.noise_prediction
    assert list(branches) == ["unconditional", "conditional", "guided"]
    assert np.isnan(branches["unconditional"][2:]).all()
    assert np.array_equal(branches["conditional"][2:], branches["guided"][2:])
    assert np.isfinite(branches["unconditional"][:2]).all()


@pytest.mark.parametrize(
    "arguments",
    [
        {"callback_on_step_end": lambda *given: None},
        {"callback_on_step_end": lambda *given: {}, "callback_on_step_end_tensor_inputs": None},
        {
            "callback_on_step_end": lambda *given: {},
            "callback_on_step_end_tensor_inputs": ["nonsense"],
        },
        {"callback_on_step_end": 5},
        {"height": 3},
        {"no_such_argument_here": 3, "prompt": None},
        {"num_inference_steps": 2.5},
        {"prompt": 3},
    ],
)
def test_errors_are_the_pipelines_own(arguments):
    pipe = use_scheduler(pipeline(), diffusers.DDIMScheduler)
    errors = []
    for recorder in (None, lv.Recorder(pipe)):
        with pytest.raises(Exception) as raised:
            if recorder is None:
                pipe(**call_arguments("text-to-image", **arguments))
            else:
                with recorder:
                    pipe(**call_arguments("text-to-image", **arguments))
        errors.append((type(raised.value), str(raised.value)))
    assert errors[0] == errors[1]


def test_positional_arguments():
    pipe = use_scheduler(pipeline(), diffusers.DDIMScheduler)
    called = []
    names = list(inspect.signature(pipe.__call__).parameters)
    arguments = call_arguments("text-to-image") | {
        "callback_on_step_end": lambda pipe, step, timestep, tensors: called.append(step) or tensors
    }
    parameters = inspect.signature(pipe.__call__).parameters
    positional = [
        arguments.get(name, parameters[name].default) for name in names if name != "kwargs"
    ]
    with lv.Recorder(pipe) as recorder:
        images = pipe(*positional).images
    assert called == [0, 1, 2, 3]
    assert len(recorder.trajectory) == 4
    assert np.array_equal(pipe(**call_arguments("text-to-image")).images, images)


def test_signatures_stay():
    pipe = use_scheduler(pipeline(), diffusers.DDIMScheduler)
    before = inspect.signature(pipe.scheduler.step), inspect.signature(pipe.__call__)
    seen = []

    def look(pipe, step, timestep, tensors):
        seen.append((inspect.signature(pipe.scheduler.step), inspect.signature(pipe.__call__)))
        return tensors

    with lv.Recorder(pipe):
        pipe(**call_arguments("text-to-image", callback_on_step_end=look))
    assert seen == [before] * 4


def test_attention_slicing_does_not_matter():
    pipe = build_pipeline()
    pipe.enable_attention_slicing()
    check(compare(pipe, call_arguments("text-to-image")), 7.0)


def test_linear_frames():
    pipe = use_scheduler(pipeline(), diffusers.EulerDiscreteScheduler)
    trajectory = compare(pipe, call_arguments("text-to-image"), frames="linear")
    assert trajectory.frames_source == "linear"
    assert trajectory.frames["x0"].shape == (4, 1, 16, 16, 3)


def test_nothing_but_latents():
    pipe = use_scheduler(pipeline(), diffusers.DPMSolverMultistepScheduler)
    trajectory = compare(pipe, call_arguments("text-to-image"), keep="latents", frames=None)
    assert trajectory.x0 is None
    assert not trajectory.noise_prediction
    assert not trajectory.frames
