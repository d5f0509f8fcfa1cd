"""The recorder leaves a pipeline as it found it, whatever happens, and says clearly what it cannot
do."""

import gc
import inspect
import threading
import time
import warnings
import weakref

import diffusers
import numpy as np
import pytest
import torch
from conditioned import build, photograph
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionPipeline
from pipelines import build_pipeline, call_arguments, use_scheduler
from zoo import ZOO

import ldm_viz as lv
from ldm_viz.capture import RecordingWarning, decoders, hooks
from ldm_viz.capture.arguments import OWN, check_pictures
from ldm_viz.capture.recorder import _recorders as recorders
from ldm_viz.capture.run import RunStopped


@pytest.fixture
def pipe():
    return build_pipeline()


def snapshot(pipe):
    """Everything a recorder could have touched: classes, instances, modules and their hooks."""
    graph = {}
    for instance in (pipe, pipe.scheduler, pipe.image_processor):
        for owner in type(instance).__mro__[:-1]:
            graph[owner] = list(vars(owner).items())
        graph[id(instance)] = [
            (k, id(v)) for k, v in vars(instance).items() if not k.startswith("_num")
        ]
    for component in (pipe.unet, pipe.vae, pipe.text_encoder):
        for module in component.modules():
            graph[type(module)] = list(vars(type(module)).items())
            hooks = [(k, list(v.items())) for k, v in vars(module).items() if k.endswith("hooks")]
            graph[id(module)] = [hooks, list(vars(module))]
    # The scheduler's own counters and the pipeline's own flags change in any run.
    graph.pop(id(pipe.scheduler))
    graph["scheduler"] = sorted(set(vars(pipe.scheduler)) - {"num_inference_steps", "_step_index"})
    graph[id(pipe)] = [item for item in graph[id(pipe)] if item[0] not in PIPELINE_FLAGS]
    return graph


PIPELINE_FLAGS = (
    "_internal_dict",  # made anew when a component is assigned
    "_interrupt",
    "_guidance_scale",
    "_guidance_rescale",
    "_clip_skip",
    "_cross_attention_kwargs",
)


@pytest.fixture
def unchanged(pipe):
    """Checks on leaving that the pipeline is as it was when the test began."""
    pipe(**call_arguments("text-to-image"))
    before = snapshot(pipe)
    yield
    after = snapshot(pipe)
    assert after.keys() == before.keys()
    for key in before:
        assert after[key] == before[key], key
    assert not hooks._patches
    assert hooks.active() is None


def raiser(error, at=2):
    """A function that raises on its at-th call."""
    calls = []

    def call(*args, **kwargs):
        calls.append(1)
        if len(calls) == at:
            raise error

    return call


class Boom(Exception):
    pass


@pytest.mark.parametrize(
    "error", [Boom("no"), KeyboardInterrupt(), SystemExit(1), torch.OutOfMemoryError("no")]
)
@pytest.mark.parametrize("where", ["unet", "scheduler", "callback", "decoder"])
def test_hooks_are_gone_after_an_error(pipe, unchanged, where, error, monkeypatch):
    arguments = call_arguments("text-to-image")
    fail = raiser(error, at=1 if where == "decoder" else 3)
    with monkeypatch.context() as patch:
        if where == "unet":
            handle = pipe.unet.register_forward_pre_hook(fail)
        elif where == "scheduler":
            original = diffusers.DDIMScheduler._get_variance
            patch.setattr(
                diffusers.DDIMScheduler,
                "_get_variance",
                lambda *a, **k: fail() or original(*a, **k),
            )
        elif where == "callback":
            arguments["callback_on_step_end"] = lambda pipe, step, timestep, tensors: (
                fail() or tensors
            )
        else:
            pipe.vae.decode = fail
        with lv.Recorder(pipe) as recorder, pytest.raises(type(error)) as raised:
            pipe(**arguments)
        if where == "unet":
            handle.remove()
        if where == "decoder":
            del pipe.vae.decode
    assert raised.value is error
    trajectory = recorder.trajectory
    steps = {"unet": 2, "scheduler": 2, "callback": 3, "decoder": 4}[where]
    assert len(trajectory) == steps
    assert trajectory.status == ("failed" if isinstance(error, Exception) else "interrupted")
    assert type(error).__name__ in trajectory.error
    assert trajectory.images is None and not trajectory.frames
    bare = pipe(**call_arguments("text-to-image", output_type="latent")).images
    if where == "decoder":
        assert np.array_equal(trajectory.latents[-1], bare.numpy())
    decoded = recorder.decode()
    assert decoded.frames["latents"].shape == (steps + 1, 1, 16, 16, 3)
    assert recorder.trajectory is decoded


def test_hooks_are_gone_after_success_and_an_error_between_calls(pipe, unchanged):
    with pytest.raises(Boom), lv.Recorder(pipe) as recorder:
        pipe(**call_arguments("text-to-image"))
        pipe(**call_arguments("text-to-image", num_inference_steps=3))
        raise Boom
    assert [len(t) for t in recorder.trajectories] == [4, 3]
    pipe(**call_arguments("text-to-image"))
    assert len(recorder.trajectories) == 2


def test_forward_attributes_of_others_stay(pipe, unchanged):
    """Caching and offloading put a forward on instances; it is still there, and was called,
    afterwards."""
    original, calls = pipe.unet.forward, []

    def forward(*args, **kwargs):
        calls.append(1)
        return original(*args, **kwargs)

    pipe.unet.forward = forward
    with lv.Recorder(pipe) as recorder:
        pipe(**call_arguments("text-to-image"))
    assert vars(pipe.unet)["forward"] is forward and len(calls) == 4
    assert len(recorder.trajectory) == 4
    del pipe.unet.forward


def test_a_patch_put_on_top_meanwhile_stays(pipe):
    cls = type(pipe.scheduler)
    original = vars(cls)["step"]
    with lv.Recorder(pipe) as recorder:

        def meddle(pipe, step, timestep, tensors):
            if step == 1:
                ours = vars(cls)["step"]
                cls.step = lambda *args, **kwargs: ours(*args, **kwargs)
            return tensors

        pipe(**call_arguments("text-to-image", callback_on_step_end=meddle))
    try:
        assert vars(cls)["step"] is not original
        pipe(**call_arguments("text-to-image"))
        assert len(recorder.trajectories) == 1
        assert len(recorder.trajectory) == 4
    finally:
        cls.step = original


def test_interruption_by_the_pipelines_flag(pipe, unchanged):
    def interrupt(pipe, step, timestep, tensors):
        pipe._interrupt = step == 1
        return tensors

    arguments = call_arguments("text-to-image", callback_on_step_end=interrupt)
    bare = pipe(**arguments).images
    with lv.Recorder(pipe) as recorder:
        recorded = pipe(
            **{**arguments, **call_arguments("text-to-image"), "callback_on_step_end": interrupt}
        ).images
    assert np.array_equal(bare, recorded)
    trajectory = recorder.trajectory
    assert trajectory.status == "interrupted" and len(trajectory) == 2
    assert trajectory.error == "stopped after 2 of 4 steps"
    assert np.array_equal(trajectory.frames["latents"][-1], trajectory.images)


def test_stop(pipe, unchanged):
    steps = []

    def look(live):
        steps.append((live.step, live.steps, tuple(live.latents.shape), live.x0 is not None))
        if live.step == 1:
            recorder.stop()

    with lv.Recorder(pipe, on_step=look) as recorder:
        recorder.stop()  # nothing runs: nothing happens
        pipe(**call_arguments("text-to-image"))
    assert steps == [(0, 4, (1, 4, 8, 8), True), (1, 4, (1, 4, 8, 8), True)]
    assert recorder.trajectory.status == "interrupted"


UNINTERRUPTED = [one for one in ZOO if not hasattr(getattr(diffusers, one.pipeline), "interrupt")]


@pytest.mark.parametrize("specimen", UNINTERRUPTED, ids=lambda specimen: specimen.name)
def test_a_pipeline_that_knows_no_interruption_is_stopped_too(specimen):
    pipe = specimen.build()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with lv.Recorder(pipe, frames=None) as recorder:
            pipe(**specimen.arguments())
        whole = recorder.trajectories[0]
        seen = []

        def look(live):
            seen.append(live.step)
            stopping.stop()

        with lv.Recorder(pipe, on_step=look) as stopping, pytest.raises(RunStopped) as raised:
            pipe(**specimen.arguments())
    assert isinstance(raised.value, KeyboardInterrupt)
    assert str(raised.value) == f"stopped after 1 of {len(whole)} steps"
    (stopped,) = stopping.trajectories
    assert stopped.status == "interrupted" and stopped.error == str(raised.value)
    assert seen == [0] and len(stopped) == 1
    assert np.array_equal(stopped.latents, whole.latents[:2])
    assert not hooks._patches and hooks.active() is None


def test_the_last_step_of_a_pipeline_that_knows_no_interruption_is_not_lost():
    specimen = next(one for one in UNINTERRUPTED if one.pipeline == "PixArtAlphaPipeline")
    pipe = specimen.build()

    def look(live):
        if live.step + 1 == live.steps:
            recorder.stop()

    with lv.Recorder(pipe, frames=None, on_step=look) as recorder:
        assert pipe(**specimen.arguments()).images is not None
    assert recorder.trajectory.complete


def test_a_pipeline_that_does_not_heed_its_own_flag_is_stopped(pipe, unchanged, monkeypatch):
    monkeypatch.setattr(StableDiffusionPipeline, "interrupt", property(lambda self: False))
    with (
        lv.Recorder(pipe, on_step=lambda live: live.step == 1 and recorder.stop()) as recorder,
        pytest.raises(RunStopped, match="stopped after 2 of 4 steps"),
    ):
        pipe(**call_arguments("text-to-image"))
    assert len(recorder.trajectory) == 2 and recorder.trajectory.status == "interrupted"
    assert recorder.trajectory.frames["x0"].shape == (2, 1, 16, 16, 3)


def test_a_stopped_run_is_what_record_returns(monkeypatch):
    monkeypatch.setattr(StableDiffusionPipeline, "interrupt", property(lambda self: False))
    pipe = build_pipeline()

    def look(live):
        (recorder,) = recorders.values()
        recorder.stop()

    run = lv.record(pipe, "a boat", seed=1, num_inference_steps=3, on_step=look, progress=False)
    assert run.status == "interrupted" and len(run) == 1 and run.frames["latents"].any()


def test_a_claimed_pipeline_is_refused_to_other_threads(pipe, unchanged):
    taken = []
    with lv.Recorder(pipe) as recorder:
        thread = threading.Thread(
            target=lambda: taken.append(pipe(**call_arguments("text-to-image")))
        )
        recorder.claim(thread)
        refused = "This StableDiffusionPipeline is at work in a live run"
        for attempt in (
            lambda: pipe(**call_arguments("text-to-image")),
            lambda: lv.record(pipe, "a boat", num_inference_steps=2),
            lv.Recorder(pipe).__enter__,
        ):
            with pytest.raises(lv.RecordingError, match=refused):
                attempt()
        thread.start()
        thread.join()
    assert len(taken) == len(recorder.trajectories) == 1
    pipe(**call_arguments("text-to-image"))


@pytest.mark.parametrize(
    "scheduler",
    [
        diffusers.DDIMScheduler,
        diffusers.PNDMScheduler,
        diffusers.EulerDiscreteScheduler,
        diffusers.DPMSolverMultistepScheduler,
        diffusers.UniPCMultistepScheduler,
        diffusers.HeunDiscreteScheduler,
    ],
)
def test_a_live_step_tells_of_x0_and_noise_what_the_run_tells_later(pipe, scheduler):
    use_scheduler(pipe, scheduler)
    seen = []

    def look(live):
        part = live.predict_x0(slice(1, 2))
        assert torch.equal(part, live.x0[1:2])
        seen.append((live.x0.numpy(), live.latents.numpy(), live.sigma, live.snr))

    arguments = call_arguments("text-to-image", prompt=["a boat", "a star"])
    with lv.Recorder(pipe, frames=None, on_step=look) as recorder:
        pipe(**arguments)
    run = recorder.trajectory
    x0, latents, sigmas, snrs = map(np.array, zip(*seen, strict=True))
    assert np.array_equal(x0, run.x0)
    assert np.array_equal(latents, run.latents[1:])
    assert np.array_equal(sigmas, run.sigmas) and np.array_equal(snrs, run.snrs)


def test_a_live_step_is_readable_after_its_tensors_were_brought_over(pipe):
    use_scheduler(pipe, diffusers.DPMSolverMultistepScheduler)
    kept = []
    with lv.Recorder(pipe, frames=None, on_step=kept.append) as recorder:
        pipe(**call_arguments("text-to-image"))
    for live, x0 in zip(kept, recorder.trajectory.x0, strict=True):
        for tensors in (live._event.sample, live._event.model_output):
            tensors.array, tensors.tensor = tensors.read(), None
        assert np.array_equal(live.x0, x0)


def test_stop_at_the_last_step_is_a_complete_run(pipe):
    with lv.Recorder(pipe, on_step=lambda live: live.step == 3 and recorder.stop()) as recorder:
        pipe(**call_arguments("text-to-image"))
    assert recorder.trajectory.complete


def test_a_fault_of_on_step_does_not_stop_the_run(pipe, unchanged):
    bare = pipe(**call_arguments("text-to-image")).images
    with (
        lv.Recorder(pipe, on_step=raiser(Boom("oh"))) as recorder,
        pytest.warns(RecordingWarning, match="Boom: oh"),
    ):
        images = pipe(**call_arguments("text-to-image")).images
    assert np.array_equal(bare, images)
    assert "Boom" in recorder.trajectory.settings["recording_faults"][0]


@pytest.mark.parametrize(
    "name",
    [
        "storage.Kept",
        "run.DecoderCall",
        "run.is_autoencoder",
        "run._is_denoiser",
        "run._is_scheduler",
        "run.may_hold_branches",
        "run.frozen_generators",
        "run.memory_format",
        "run.assemble",
        "run.describe_call",
        "recorder.picture_array",
        "run.predictions.named_outputs",
        "run.predictions.noise_level",
        "run.predictions.predict_x0",
        "loops.describe_scheduler",
        "storage.Storage.bring_over",
        "storage.Storage.gather",
        "loops.tell_branches",
        "recorder.decode_frames",
        "recorder.estimate_run",
        "recorder.find_decoding",
        "recorder._tell_nonfinite",
    ],
)
def test_our_own_faults_never_reach_the_run(pipe, unchanged, name, monkeypatch):
    scheduler = pipe.scheduler
    use_scheduler(pipe, diffusers.DPMSolverMultistepScheduler)
    bare = pipe(**call_arguments("text-to-image")).images

    def broken(*args, **kwargs):
        raise Boom(name)

    monkeypatch.setattr(f"ldm_viz.capture.{name}", broken)
    with lv.Recorder(pipe), warnings.catch_warnings():
        warnings.simplefilter("error", RecordingWarning)  # not even a warning made an error
        images = pipe(**call_arguments("text-to-image")).images
    assert np.array_equal(bare, images)
    pipe.scheduler = scheduler


@pytest.mark.parametrize("error", [Boom("no"), KeyboardInterrupt()])
def test_the_trajectory_survives_when_decoding_fails(pipe, unchanged, error, monkeypatch):
    original = pipe.vae.decode
    calls = []

    def decode(*args, **kwargs):
        calls.append(1)
        if len(calls) == 3:
            raise error
        return original(*args, **kwargs)

    pipe.vae.decode = decode
    with monkeypatch.context() as patch:
        patch.setitem(decoders._PIXELS_AT_ONCE, "cpu", 1)
        with lv.Recorder(pipe) as recorder:
            assert pipe(**call_arguments("text-to-image")).images is not None
        frames = recorder.trajectory.frames["latents"]
        assert len(calls) == 1, (
            "the pipeline's own picture; the others only when they are looked at"
        )
        with pytest.raises(type(error)):
            np.asarray(frames)
        assert len(calls) == 3
        assert np.array_equal(frames[-1], recorder.trajectory.images)
    del pipe.vae.decode
    assert recorder.trajectory.complete


def test_a_second_recorder_on_the_same_pipeline_is_refused(pipe, unchanged):
    with lv.Recorder(pipe) as recorder:
        with pytest.raises(lv.RecordingError, match="being recorded already"):
            lv.Recorder(pipe).__enter__()
        with pytest.raises(lv.RecordingError), recorder:
            pass
        with pytest.raises(lv.RecordingError):
            lv.record(pipe, "a star", num_inference_steps=2)
        pipe(**call_arguments("text-to-image"))
    assert len(recorder.trajectory) == 4
    with lv.Recorder(pipe) as other:
        pipe(**call_arguments("text-to-image"))
    assert len(other.trajectories) == len(recorder.trajectories) == 1


def test_two_pipelines_sharing_modules(pipe, unchanged):
    """Each recorder hears its own pipeline only, also where a pipeline runs inside another's
    callback."""
    other = StableDiffusionImg2ImgPipeline(**pipe.components, requires_safety_checker=False)
    other.set_progress_bar_config(disable=True)
    other.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config)
    third = StableDiffusionPipeline(**pipe.components, requires_safety_checker=False)
    third.set_progress_bar_config(disable=True)
    third.scheduler = diffusers.DDIMScheduler.from_config(pipe.scheduler.config)
    alone = pipe(**call_arguments("text-to-image")).images

    def nested(pipe, step, timestep, tensors):
        if step == 1:
            other(**call_arguments("image-to-image", strength=1.0, num_inference_steps=3))
            third(**call_arguments("text-to-image", num_inference_steps=2))
        return tensors

    with lv.Recorder(pipe) as first, lv.Recorder(other) as second:
        images = pipe(**call_arguments("text-to-image", callback_on_step_end=nested)).images
        other(**call_arguments("image-to-image", strength=1.0, num_inference_steps=5))
    assert np.array_equal(alone, images)
    assert [len(t) for t in first.trajectories] == [4]
    assert [len(t) for t in second.trajectories] == [3, 5]
    assert list(first.trajectory.noise_prediction) == ["unconditional", "conditional", "guided"]


def test_threads(pipe, unchanged):
    """Pipelines of one class in several threads, some recorded, some not."""
    pipes = [pipe, *(build_pipeline() for _ in range(2))]
    expected = pipe(**call_arguments("text-to-image")).images
    results, lengths, errors = {}, {}, []
    barrier = threading.Barrier(len(pipes))

    def work(place, recorded):
        try:
            barrier.wait()
            for repeat in range(2):
                steps = call_arguments(
                    "text-to-image", callback_on_step_end=lambda *g: time.sleep(0.001) or g[3]
                )
                if recorded:
                    with lv.Recorder(pipes[place], frames=None) as recorder:
                        results[place, repeat] = pipes[place](**steps).images
                    lengths[place, repeat] = [len(t) for t in recorder.trajectories]
                else:
                    results[place, repeat] = pipes[place](**steps).images
        except BaseException as error:
            errors.append(error)

    threads = [
        threading.Thread(target=work, args=(place, place % 2 == 0)) for place in range(len(pipes))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(results) == 6 and all(
        np.array_equal(images, expected) for images in results.values()
    )
    assert set(map(tuple, lengths.values())) == {(4,)}


def test_a_recorder_entered_elsewhere_than_the_run(pipe, unchanged):
    with lv.Recorder(pipe) as recorder:
        thread = threading.Thread(target=lambda: pipe(**call_arguments("text-to-image")))
        thread.start()
        thread.join()
    assert len(recorder.trajectory) == 4


def test_scheduler_exchanged_inside_the_block(pipe):
    with lv.Recorder(pipe) as recorder:
        pipe(**call_arguments("text-to-image"))
        use_scheduler(pipe, diffusers.EulerDiscreteScheduler)
        pipe(**call_arguments("text-to-image"))
    assert [t.settings["scheduler"] for t in recorder.trajectories] == [
        "DDIMScheduler",
        "EulerDiscreteScheduler",
    ]


def test_a_scheduler_that_extends_another_counts_once(pipe):
    class Louder(diffusers.DDIMScheduler):
        def step(self, *args, **kwargs):
            return super().step(*args, **kwargs)

    pipe.scheduler = Louder.from_config(pipe.scheduler.config)
    with lv.Recorder(pipe) as recorder:
        pipe(**call_arguments("text-to-image"))
    assert len(recorder.trajectory) == 4


def test_a_pipeline_that_inherits_its_call(pipe):
    class Mine(StableDiffusionPipeline):
        pass

    class Louder(StableDiffusionPipeline):
        def __call__(self, *args, **kwargs):
            return super().__call__(*args, **kwargs)

    bare = pipe(**call_arguments("text-to-image")).images
    for kind in (Mine, Louder):
        other = kind(**pipe.components, requires_safety_checker=False)
        other.set_progress_bar_config(disable=True)
        with lv.Recorder(other) as recorder, lv.Recorder(pipe) as unused:
            assert np.array_equal(other(**call_arguments("text-to-image")).images, bare)
        assert [len(t) for t in recorder.trajectories] == [4]
        assert not unused.trajectories


def test_nothing_keeps_the_pipeline_alive():
    pipe = build_pipeline()
    with lv.Recorder(pipe) as recorder:
        pipe(**call_arguments("text-to-image"))
    trajectory, gone = recorder.trajectory, weakref.ref(pipe)
    del pipe, recorder
    gc.collect()
    assert gone() is None
    assert len(trajectory) == 4


def test_record_is_the_same_as_calling(pipe):
    bare = pipe(
        "a boat",
        generator=torch.Generator().manual_seed(7),
        num_inference_steps=3,
        output_type="np",
    ).images
    trajectory = lv.record(pipe, "a boat", seed=7, num_inference_steps=3, progress=False)
    assert np.array_equal(trajectory.images, (bare * 255).round().astype(np.uint8))
    assert trajectory.settings["seed"] == 7
    assert trajectory.settings["prompt"] == "a boat"
    assert trajectory.settings["pipeline"] == "StableDiffusionPipeline"


def test_record_hands_over_what_it_has(pipe, unchanged):
    def interrupt(pipe, step, timestep, tensors):
        if step == 1:
            raise KeyboardInterrupt
        return tensors

    with pytest.raises(KeyboardInterrupt) as raised:
        lv.record(pipe, "a boat", num_inference_steps=4, callback_on_step_end=interrupt)
    assert len(raised.value.trajectory) == 2
    assert "2 steps recorded so far" in raised.value.__notes__[0]
    with pytest.raises(ValueError) as refused:
        lv.record(pipe, "a boat", height=3, width=3)
    assert refused.value.trajectory is None


@pytest.mark.parametrize("steps", [0, -1, 10**9, 2.5, "5", None, True, float("nan"), [4]])
def test_steps_that_make_no_sense(pipe, steps):
    with pytest.raises(
        ValueError, match="num_inference_steps must be a whole number from 1 to 1000"
    ):
        lv.record(pipe, "a boat", num_inference_steps=steps)


@pytest.mark.parametrize("prompt", [3, b"a boat", ["a", 3], [], {"a": 1}, ("a", "b")])
def test_prompts_that_make_no_sense(pipe, prompt):
    with pytest.raises(TypeError, match="prompt must be text or a list of texts"):
        lv.record(pipe, prompt)


@pytest.mark.parametrize(
    "wrong", [None, "stable-diffusion", StableDiffusionPipeline, torch.nn.Linear(1, 1), object()]
)
def test_what_is_not_a_pipeline(wrong):
    for function in (lv.record, lv.Recorder):
        with pytest.raises(TypeError, match="Expected a diffusers pipeline, got"):
            function(wrong)


def test_options_that_make_no_sense(pipe):
    with pytest.raises(ValueError, match="keep may hold"):
        lv.Recorder(pipe, keep=("latents", "noise"))
    with pytest.raises(ValueError, match="frames must be"):
        lv.Recorder(pipe, frames="fast")
    with pytest.raises(TypeError, match="on_step"):
        lv.Recorder(pipe, on_step=3)
    with pytest.raises(ValueError, match="seed"):
        lv.record(pipe, "a boat", seed="seven")
    with pytest.raises(ValueError, match="either seed or generator"):
        lv.record(pipe, "a boat", seed=7, generator=torch.Generator())
    with pytest.raises(lv.RecordingError, match="Nothing has been recorded"):
        lv.Recorder(pipe).decode()


def test_a_pipeline_without_weights(pipe):
    pipe.unet.to("meta")
    with pytest.raises(ValueError, match=r"pipeline's unet .* has no weights"):
        lv.record(pipe, "a boat")


def test_a_run_without_steps(pipe):
    with lv.Recorder(pipe) as recorder:
        pipe(**call_arguments("text-to-image", callback_on_step_end=None), timesteps=None)
    pipe.scheduler.set_timesteps = lambda *args, **kwargs: setattr(
        pipe.scheduler, "timesteps", torch.tensor([])
    )
    with pytest.raises(lv.RecordingError, match="without a step"):
        lv.record(pipe, "a boat", num_inference_steps=2)
    assert len(recorder.trajectories) == 1


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [
        ("steps", "num_inference_steps"),
        ("num_steps", "num_inference_steps"),
        ("num_inference_step", "num_inference_steps"),
        ("guidance", "guidance_scale"),
        ("cfg_scale", "guidance_scale"),
        ("heigth", "height"),
        ("negativeprompt", "negative_prompt"),
        ("num_images", "num_images_per_prompt"),
        ("frame", "frames"),
        ("sed", "seed"),
        ("memory", "memory_budget"),
    ],
)
def test_an_argument_the_pipeline_would_swallow_is_refused(wrong, meant):
    says = rf"takes no argument '{wrong}'; did you mean {meant}\?"
    with pytest.raises(TypeError, match=says):
        lv.record(build_pipeline(), "a cat", **{wrong: 3})


def test_an_argument_that_is_like_none_is_told_what_there_is():
    with pytest.raises(TypeError, match="no argument 'xyz'; it takes prompt, .*guidance_scale"):
        lv.record(build_pipeline(), "a cat", xyz=3)


def test_what_record_itself_takes_may_be_meant():
    own = [p.name for p in inspect.signature(lv.record).parameters.values() if p.name != "pipe"]
    assert sorted(OWN) == sorted(set(own) - {"call"})


def test_an_image_adapter_needs_a_picture():
    pipe = build("StableDiffusionPipeline", adapters=["plain"])
    call = {"num_inference_steps": 1, "height": 32, "width": 32, "guidance_scale": 3.0}
    with pytest.raises(TypeError, match="argument of type 'NoneType' is not iterable"):
        pipe("a star", **call)
    with pytest.raises(TypeError) as refused:
        check_pictures(pipe, {"prompt": "a star", "ip_adapter_image": None, **call})
    for words in (
        "has an image adapter",
        "ip_adapter_image=picture",
        "**lv.condition(pipe, lv.text(pipe, 'a star'))",
        "pipe.unload_ip_adapter()",
        "lv.load_tiny()",
    ):
        assert words in str(refused.value)
    # Each of the cures.
    given = {"prompt": "a star", "ip_adapter_image": photograph(), **call}
    blank = lv.condition(pipe, lv.text(pipe, "a star"), guidance_scale=3.0) | call
    for cured in (given, blank):
        check_pictures(pipe, cured)
        assert len(lv.record(pipe, **cured)) == 1
    with pytest.raises(TypeError, match="image adapter"):
        lv.record(pipe, "a star", **call)
    pipe.unload_ip_adapter()
    check_pictures(pipe, {"prompt": "a star"})
    assert len(lv.record(pipe, "a star", **call)) == 1


def test_what_can_be_called_without_a_picture_is_not_refused():
    for specimen in ZOO:
        check_pictures(specimen.build(), specimen.arguments())


def test_a_recorder_says_what_it_holds():
    pipe = build_pipeline()
    recorder = lv.Recorder(pipe, frames=None)
    assert repr(recorder) == "Recorder of StableDiffusionPipeline: no runs recorded"
    with recorder:
        pipe("a cat", num_inference_steps=1)
    assert repr(recorder) == "Recorder of StableDiffusionPipeline: 1 run recorded"


def chain(**changes):
    specimen = next(s for s in ZOO if s.pipeline == "KandinskyV22CombinedPipeline")
    return specimen.build(), specimen.arguments() | changes


def test_each_stage_of_a_chain_is_told_step_by_step():
    pipe, given = chain()
    seen = []
    with lv.Recorder(pipe, on_step=lambda live: seen.append((live.step, live.steps))) as recorder:
        pipe(**given)
    prior, decoder = recorder.trajectories
    counts = [len(prior), len(decoder)]
    assert seen == [(step, count) for count in counts for step in range(count)]
    assert recorder.trajectory is decoder and prior.images is None and not prior.frames
    assert prior.settings["loops"] == 2 and decoder.settings["loop"] == 1


@pytest.mark.parametrize("output", [None, "images", ["images", "latents"]])
def test_modular_pipelines_tell_their_settings_and_give_their_pictures(output):
    specimen = next(s for s in ZOO if s.pipeline == "ZImageAutoBlocks")
    pipe, given = specimen.build(), specimen.arguments()
    given |= {} if output is None else {"output": output}
    with lv.Recorder(pipe) as recorder:
        pipe(**given)
    trajectory = recorder.trajectory
    assert trajectory.settings["num_inference_steps"] == len(trajectory)
    assert trajectory.settings["seed"] == 5
    assert np.array_equal(trajectory.frames["latents"][-1], trajectory.images)


def test_what_is_changed_after_the_loop_is_noted():
    """Kandinsky 2.2 blends the picture to be inpainted in once more when its loop has ended."""
    specimen = next(s for s in ZOO if s.pipeline == "KandinskyV22Pipeline")
    pipe = specimen.build()

    class Blending(type(pipe)):
        def __call__(self, **given):
            latents = super().__call__(**given | {"output_type": "latent"}).images
            image = self.movq.decode(latents.flip(-1) ** 2, force_not_quantize=True)["sample"]
            image = (image * 0.5 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
            return (image.detach().numpy(),)

    changed = Blending(**pipe.components)
    changed.set_progress_bar_config(disable=True)
    with lv.Recorder(changed) as recorder:
        (picture,) = changed(**specimen.arguments())
    trajectory = recorder.trajectory
    assert "changed them afterwards" in trajectory.settings["latent_note"]
    assert np.array_equal(trajectory.frames["latents"][-1], (picture * 255).round())


def test_warnings_point_at_the_users_line(pipe):
    class NoStep(type(pipe)):
        def __call__(self):
            return None

    bare = NoStep(**pipe.components, requires_safety_checker=False)
    expected = pytest.warns(RecordingWarning, match="Nothing was recorded: NoStep returned")
    with expected as caught, lv.Recorder(bare):
        bare()
    assert caught[0].filename == __file__
    with pytest.warns(RecordingWarning, match="Not told of every step: on_step: Boom") as caught:
        lv.record(pipe, "x", num_inference_steps=1, on_step=boom, frames=None)
    assert caught[0].filename == __file__


def boom(live):
    raise Boom(repr(live))


def test_an_argument_that_the_call_refuses_is_no_fault_of_ours():
    specimen = next(s for s in ZOO if s.pipeline == "KandinskyV22Pipeline")
    pipe = specimen.build()
    with lv.Recorder(pipe), warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(TypeError, match="required positional arguments"):
            pipe(height=64)


def test_seeds(pipe):
    assert lv.record(pipe, "x", seed=np.int64(3), num_inference_steps=1).settings["seed"] == 3
    for seed in (2**70, 1.5, True, "3"):
        with pytest.raises(ValueError, match="at most 64 bits"):
            lv.record(pipe, "x", seed=seed)
