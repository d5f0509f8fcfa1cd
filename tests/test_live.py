"""Runs in the background: the same to the bit, stopped, failing, and never dearer than they may be."""

import asyncio
import base64
import itertools
import os
import signal
import subprocess
import sys
import threading
import time
import warnings

import diffusers
import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from pipelines import build_pipeline, use_scheduler
from zoo import ZOO

import ldm_viz as lv
import ldm_viz.labs.live as living
from ldm_viz.capture import RecordingWarning, hooks, linear
from ldm_viz.capture.finding import find_decoding
from ldm_viz.capture.recorder import _recorders
from ldm_viz.capture.run import LiveStep
from ldm_viz.labs.courier import Courier
from ldm_viz.labs.governor import Governor
from ldm_viz.labs.live import watch

PATIENCE = 60
PROMPT = "a red star at night"
CALL = {"seed": 3, "num_inference_steps": 6, "height": 16, "width": 16}


@pytest.fixture
def pipe():
    """A pipeline, checked afterwards to be free again and as it was."""
    made = build_pipeline()
    made.set_progress_bar_config(disable=False)
    before = dict(vars(made))
    yield made
    assert not hooks._patches and not _recorders and not living._running
    assert not [t for t in threading.enumerate() if t.name.startswith("ldm_viz")]
    changed = {"_internal_dict", "_interrupt", "_num_timesteps", "_guidance_scale"}
    changed |= {"_guidance_rescale", "_clip_skip", "_cross_attention_kwargs", "scheduler"}
    after = vars(made)
    assert {k: id(v) for k, v in before.items() if k not in changed} == {
        k: id(v) for k, v in after.items() if k not in changed
    }


@pytest.fixture(autouse=True)
def no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error", RecordingWarning)
        yield


class Boom(Exception):
    pass


class Gate:
    """Holds a run at a step until it is let go."""

    def __init__(self, step=1):
        self.step, self.reached, self.open = step, threading.Event(), threading.Event()

    def __call__(self, live):
        if live.step == self.step:
            self.reached.set()
            assert self.open.wait(PATIENCE)


def news_of(run):
    """All that is told to the view from now on."""
    told = []
    run._view.observe(lambda change: told.append(change.new), "_news")
    return told


def at_gate(pipe, gate, **options):
    run = watch(pipe, PROMPT, **{**CALL, "on_step": gate, **options})
    assert gate.reached.wait(PATIENCE)
    return run


# The run itself


@pytest.mark.parametrize(
    "scheduler", [diffusers.DDIMScheduler, diffusers.DPMSolverMultistepScheduler]
)
@pytest.mark.parametrize("seed", [3, None])
def test_a_live_run_is_the_same_to_the_bit(pipe, scheduler, seed):
    use_scheduler(pipe, scheduler)
    call = {**CALL, "seed": seed}
    torch.manual_seed(5)
    recorded = lv.record(pipe, PROMPT, **call)
    torch.manual_seed(5)
    run = watch(pipe, PROMPT, **call)
    shown = run.wait(PATIENCE)
    assert run.status == "complete" and run.error is None and run.trajectory is shown
    assert shown.settings == recorded.settings and shown.complete
    assert np.array_equal(shown.images, recorded.images)
    assert np.array_equal(shown.latents, recorded.latents)
    for name in ("latents", "x0"):
        assert np.array_equal(shown.frames[name], recorded.frames[name])
    for name, values in recorded.noise_prediction.items():
        assert np.array_equal(shown.noise_prediction[name], values)


def test_what_is_asked_of_record_can_be_asked_of_watch(pipe, tmp_path):
    told = []
    run = watch(
        pipe,
        [PROMPT, "a boat"],
        **CALL,
        frames=None,
        keep=["x0"],
        on_step=lambda live: told.append(live.step),
        memory_budget=0,
        folder=tmp_path,
        guidance_scale=3.0,
    ).wait(PATIENCE)
    assert told == list(range(6))
    assert run.batch_size == 2 and not run.frames and not run.noise_prediction
    assert run.settings["guidance_scale"] == 3.0 and run.x0.shape[0] == 6


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"prompt": 3}, TypeError),
        ({"stepps": 4}, TypeError),
        ({"num_inference_steps": 0}, ValueError),
        ({"seed": 1, "generator": torch.Generator()}, ValueError),
        ({"frames": "quick"}, ValueError),
        ({"keep": ["nothing"]}, ValueError),
        ({"on_step": 5}, TypeError),
        ({"memory_budget": -1}, ValueError),
    ],
)
def test_what_record_refuses_is_refused_before_anything_begins(pipe, arguments, error):
    with pytest.raises(error) as refused:
        watch(pipe, **arguments)
    with pytest.raises(error) as expected:
        lv.record(pipe, **arguments)
    assert str(refused.value) == str(expected.value)
    with pytest.raises(TypeError, match="diffusers pipeline"):
        watch("pipe")


def test_a_pipeline_at_work_is_refused_and_free_afterwards(pipe):
    gate = Gate()
    run = at_gate(pipe, gate)
    for attempt in (pipe, lambda p: lv.record(pipe, p), lambda p: watch(pipe, p)):
        with pytest.raises(lv.RecordingError, match=r"at work in a live run.*run\.wait\(\)"):
            attempt(PROMPT)
    gate.open.set()
    assert len(run.wait(PATIENCE)) == 6
    assert len(run.recorder.trajectories) == 1
    assert len(watch(pipe, PROMPT, **CALL).wait(PATIENCE)) == 6


def test_two_pipelines_run_at_once():
    pipes = build_pipeline(), build_pipeline()
    alone = [lv.record(pipe, PROMPT, **{**CALL, "seed": seed}) for seed, pipe in enumerate(pipes)]
    runs = [watch(pipe, PROMPT, **{**CALL, "seed": seed}) for seed, pipe in enumerate(pipes)]
    for run, expected in zip(runs, alone, strict=True):
        assert np.array_equal(run.wait(PATIENCE).latents, expected.latents)


def test_wait_gives_up_in_time_and_the_run_goes_on(pipe):
    gate = Gate()
    run = at_gate(pipe, gate)
    with pytest.raises(TimeoutError, match=r"not ended within 0\.01 s. It goes on"):
        run.wait(0.01)
    assert run.status == "running" and run.trajectory is None and run.explorer is None
    gate.open.set()
    assert run.wait(PATIENCE).complete


# Stopped


def test_stop_keeps_what_there_is(pipe):
    gate = Gate(2)
    run = at_gate(pipe, gate)
    run.stop()
    assert run._view._stopping and run.status == "running"
    gate.open.set()
    stopped = run.wait(PATIENCE)
    whole = lv.record(pipe, PROMPT, **CALL)
    assert run.status == stopped.status == "interrupted" and run.error is None
    assert np.array_equal(stopped.latents, whole.latents[:4])
    assert stopped.frames["x0"].shape[0] == 3
    assert run._view._end["text"] == "Stopped after 3 of 6 steps."
    assert repr(run) == (
        "LiveRun of StableDiffusionPipeline: interrupted, stopped after 3 of 6 steps"
    )
    run.stop()  # too late: nothing happens


def test_stop_before_the_first_step_ends_after_it(pipe, monkeypatch):
    begun, go = threading.Event(), threading.Event()
    original = pipe.encode_prompt

    def encode(*args, **kwargs):
        begun.set()
        assert go.wait(PATIENCE)
        return original(*args, **kwargs)

    monkeypatch.setattr(pipe, "encode_prompt", encode)
    run = watch(pipe, PROMPT, **CALL)
    assert begun.wait(PATIENCE)
    run.stop()
    go.set()
    assert len(run.wait(PATIENCE)) == 1 and run.status == "interrupted"
    monkeypatch.undo()


def test_the_button_stops(pipe):
    gate = Gate()
    run = at_gate(pipe, gate)
    run._view.set_state({"_stop_asked": True})  # as the browser does it
    assert run._view._stopping
    gate.open.set()
    assert len(run.wait(PATIENCE)) == 2


def test_a_pipeline_that_knows_no_interruption_stops_too():
    specimen = next(one for one in ZOO if one.pipeline == "PixArtAlphaPipeline")
    pipe, gate = specimen.build(), Gate(0)
    run = watch(pipe, on_step=gate, **specimen.arguments())
    assert gate.reached.wait(PATIENCE)
    run.stop()
    gate.open.set()
    stopped = run.wait(PATIENCE)
    assert run.status == stopped.status == "interrupted" and run.error is None
    assert len(stopped) == 1 and stopped.frames["x0"].shape[0] == 1
    assert run.explorer.step == 0


def test_an_interrupt_in_wait_stops_the_run(pipe):
    def interrupt(live):
        if live.step == 2:
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            deadline = time.monotonic() + PATIENCE
            while not run._stop_asked and time.monotonic() < deadline:
                time.sleep(0.01)

    run = watch(pipe, PROMPT, **CALL, on_step=interrupt)
    with pytest.raises(KeyboardInterrupt):
        run.wait(PATIENCE)
    assert run.status == "interrupted" and len(run.trajectory) == 3
    assert run.wait() is run.trajectory


def test_an_interrupt_elsewhere_leaves_the_run_alone(pipe):
    gate = Gate()
    run = at_gate(pipe, gate)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)
    gate.open.set()
    assert run.wait(PATIENCE).complete


# Failing


@pytest.mark.parametrize("error", [Boom("no <b>"), KeyboardInterrupt("no <b>")])
def test_a_failing_run_says_at_which_step_and_why(pipe, error):
    def fail(pipe, step, timestep, tensors):
        if step == 3:
            raise error
        return tensors

    run = watch(pipe, PROMPT, **CALL, callback_on_step_end=fail)
    with pytest.raises(type(error)) as raised:
        run.wait(PATIENCE)
    assert raised.value is error is run.error
    failed = isinstance(error, Exception)
    assert run.status == run.trajectory.status == ("failed" if failed else "interrupted")
    end = run._view._end
    assert end["status"] == run.status
    assert end["text"] == f"{'Failed' if failed else 'Stopped'} after 4 of 6 steps."
    assert end["why"] == f"{type(error).__name__}: no <b>"
    assert "in fail" in end["details"] and end["notes"] == []
    assert len(run.trajectory) == 4 and run.trajectory.frames["x0"].shape[0] == 4
    assert run.explorer.step == 3 and run.children == (run._view, run.explorer)
    assert f"{run.status}, {type(error).__name__}: no <b> (after 4 steps)" in repr(run)
    assert run._view._phase == "ended"


def test_a_run_that_fails_before_its_first_step_shows_why(pipe):
    run = watch(pipe, PROMPT, **{**CALL, "width": 5})
    with pytest.raises(ValueError, match="divisible by"):
        run.wait(PATIENCE)
    assert run.status == "failed" and run.trajectory is None and run.explorer is None
    assert run._view._end["text"] == "Failed before the first step was done."
    assert "ValueError" in run._view._end["why"] and run._view._phase == "ended"
    assert run.children == (run._view,)
    assert "failed, ValueError" in repr(run) and run.still().startswith(b"\x89PNG")


def test_a_run_without_steps_fails(pipe, monkeypatch):
    monkeypatch.setattr(type(pipe), "__call__", lambda self, **call: None)
    run = watch(pipe, PROMPT, num_inference_steps=2)
    with (
        pytest.raises(lv.RecordingError, match="without a step"),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        run.wait(PATIENCE)
    assert run.status == "failed"


def test_pictures_that_cannot_be_decoded_are_left_out(pipe):
    calls = []

    def broken(latents):
        if len(calls) == 2:
            raise Boom("no picture")
        calls.append(1)  # the first two tell how large pictures are, of the latents and of x0
        return np.zeros((len(latents), 16, 16, 3), np.uint8)

    run = watch(pipe, PROMPT, **CALL, frames=broken)
    assert run.wait(PATIENCE).frames_source == "custom"
    shown = run.explorer.trajectory
    assert len(shown) == 6 and not shown.frames
    assert shown.settings["frames_note"] == "They could not be decoded: Boom: no picture"


# What is shown


def test_the_view_is_told_of_the_first_and_the_last_step(pipe):
    gate = Gate(0)
    run = at_gate(pipe, gate)
    told = news_of(run)
    gate.open.set()
    trajectory = run.wait(PATIENCE)
    done = [news["done"] for news in told]
    assert done[0] == 1 and done[-1] == 6 and done == sorted(set(done))
    for news in told:
        step = news["done"] - 1
        assert news["steps"] == 6 and news["channels"] == 4
        assert news["words"][0] == f"timestep {trajectory.timesteps[step]:.0f}"
        curve = np.frombuffer(news["curve"], "<f4").reshape(-1, 5)
        assert [int(row[0]) for row in curve] == [d for d in done if d <= news["done"]]
        latents = trajectory.latents[news["done"], 0]
        np.testing.assert_allclose(curve[-1, 1:], latents.std(axis=(1, 2)), rtol=1e-5)
        picture = news["picture"]
        seen = np.frombuffer(picture["rgb"], np.uint8).reshape(8, 8, 3)
        decoding = find_decoding(pipe, trajectory)
        weights = linear.linear_map(decoding, 2)
        colours = np.tensordot(trajectory.x0[step, 0], weights[:-1], (0, 0)) + weights[-1]
        expected = colours.clip(-1, 1) * 127.5 + 127.5
        assert np.abs(seen - expected).max() <= 0.51
    assert told[-1]["elapsed"] >= told[0]["elapsed"] > 0
    assert run._governor.updates == len(told)


def test_the_time_left_follows_from_the_steps_so_far(pipe):
    run = watch(pipe, PROMPT, **CALL)
    run.wait(PATIENCE)
    step = LiveStep(3, 7, 0.0, torch.zeros(1), None, None)
    run._pace = (1, 2.0)
    assert run._remaining(step, 8.0) == pytest.approx((8.0 - 2.0) / 2 * 3)
    run._pace = (3, 8.0)
    assert run._remaining(step, 8.0) is None


def test_without_a_preview_nothing_is_fitted(pipe):
    before = len(linear._maps)
    run = watch(pipe, PROMPT, **CALL, preview=False)
    run.wait(PATIENCE)
    assert len(linear._maps) == before and "picture" not in run._view._news
    assert run._view._news["done"] == 6


def test_the_map_is_fitted_once_before_the_run_and_draws_no_random_number(pipe):
    calls, original = [], pipe.vae.decode

    def decode(latents, *args, **kwargs):
        calls.append(tuple(latents.shape))
        return original(latents, *args, **kwargs)

    pipe.vae.decode = decode
    state = torch.random.get_rng_state()
    for _ in range(2):
        watch(pipe, PROMPT, **CALL).wait(PATIENCE)
    del pipe.vae.decode
    assert calls == [(4, 4, 8, 8), (1, 4, 8, 8), (1, 4, 8, 8)]
    assert torch.equal(state, torch.random.get_rng_state())


def test_a_preview_that_fails_does_not_touch_the_run(pipe, monkeypatch):
    def broken(*args):
        raise Boom("preview")

    monkeypatch.setattr("ldm_viz.labs.glimpse.Glimpse.picture", broken)
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("ignore")
        run = watch(pipe, PROMPT, **CALL)
        assert run.wait(PATIENCE).complete
    assert run._view._end["notes"] == ["Not all could be shown while it ran: Boom: preview."]


def test_a_fault_of_the_users_on_step_does_not_stop_what_is_shown(pipe):
    def broken(live):
        raise Boom("theirs")

    with warnings.catch_warnings(record=True):
        warnings.simplefilter("ignore")
        run = watch(pipe, PROMPT, **CALL, on_step=broken)
        trajectory = run.wait(PATIENCE)
    assert trajectory.complete and run._view._news["done"] == 6
    assert trajectory.settings["recording_faults"] == ["on_step: Boom: theirs"]


PREVIEWED = [
    "StableDiffusion3Pipeline",
    "FluxPipeline",
    "WanPipeline",
    "StableVideoDiffusionPipeline",
    "DDPMPipeline",
    "StableCascadeDecoderPipeline",
]


@pytest.mark.parametrize(
    "specimen",
    [next(one for one in ZOO if one.pipeline == name) for name in PREVIEWED],
    ids=PREVIEWED,
)
def test_other_families_are_shown(specimen):
    pipe = specimen.build()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        run = watch(pipe, **specimen.arguments())
        trajectory = run.wait(PATIENCE)
    assert run._view._end["notes"] == []
    news = run._view._news
    assert news["done"] == len(trajectory)
    picture = news["picture"]
    shape = (picture["height"], picture["width"], 3)
    assert np.frombuffer(picture["rgb"], np.uint8).reshape(shape).std() > 0


def test_a_half_precision_autoencoder_is_fitted_as_it_decodes():
    pipe = build_pipeline(dtype=torch.float16)
    pipe.upcast_vae = lambda: None
    dtypes, original = [], pipe.vae.decode

    def decode(latents, **options):
        dtypes.append(latents.dtype)
        return original(latents, **options)

    decoding = find_decoding(pipe, lv.record(pipe, PROMPT, **CALL, frames=None))
    decoding = type(decoding)(**{**vars(decoding), "dtype": torch.float32})
    pipe.vae.decode = decode
    assert np.isfinite(linear.linear_map(decoding, 2)).all()
    assert dtypes == [torch.float32] and pipe.vae.dtype == torch.float16


def test_an_autoencoder_that_gives_nothing_finite_is_refused():
    pipe = build_pipeline()
    decoding = find_decoding(pipe, lv.record(pipe, PROMPT, **CALL, frames=None))
    pipe.vae.decode = lambda latents, **options: (latents.repeat(1, 1, 2, 2)[:, :3] * torch.nan,)
    with pytest.raises(ValueError, match="decodes to values that are not finite"):
        linear.linear_map(decoding, 2)
    assert linear.known_map(pipe.vae) is None


# As a widget


def test_it_stands_for_itself_where_no_widget_can_live(pipe):
    gate = Gate()
    run = at_gate(pipe, gate)
    data = run._repr_mimebundle_()
    data = data[0] if isinstance(data, tuple) else data
    assert data["text/plain"] == repr(run) == "LiveRun of StableDiffusionPipeline: running"
    assert data["application/vnd.jupyter.widget-view+json"]["model_id"] == run.model_id
    going = base64.b64decode(data["image/png"])
    assert going.startswith(b"\x89PNG")
    gate.open.set()
    run.wait(PATIENCE)
    assert run.still().startswith(b"\x89PNG") and len(run.still()) > len(going)
    assert repr(run) == "LiveRun of StableDiffusionPipeline: complete, 6 steps"


def test_in_a_loop_the_explorer_comes_by_itself_and_the_bar_is_the_views(pipe, capsys):
    config = pipe._progress_bar_config

    async def main():
        gate = Gate()
        run = at_gate(pipe, gate)
        assert pipe._progress_bar_config == {"disable": True}
        gate.open.set()
        deadline, turns = time.monotonic() + PATIENCE, 0
        while len(run.children) < 2 and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
            turns += 1
        return run, turns

    run, turns = asyncio.run(main())
    assert turns > 1 and run.status == "complete"
    assert run.children == (run._view, run.explorer) and run.explorer.step == 5
    assert run._view._phase == "ended" and run._view._news == {}
    assert pipe._progress_bar_config is config
    assert "it/s" not in capsys.readouterr().err


def test_explorers_wait_for_other_live_runs(pipe):
    other = build_pipeline()

    async def main():
        gate = Gate()
        busy = at_gate(other, gate)
        run = watch(pipe, PROMPT, **CALL)
        while run.status == "running":
            await asyncio.sleep(0.01)
        await asyncio.sleep(3 * living._POLITE)
        assert run.children == (run._view,)
        gate.open.set()
        deadline = time.monotonic() + PATIENCE
        while len(run.children) + len(busy.children) < 4 and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        return run, busy

    for run in asyncio.run(main()):
        assert len(run.children) == 2


def test_a_script_that_does_not_wait_ends(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import time\n"
        "from pipelines import build_pipeline\n"
        "from ldm_viz.labs.live import watch\n"
        "run = watch(build_pipeline(), 'a star', num_inference_steps=900, height=16, width=16,\n"
        "            on_step=lambda live: time.sleep(0.1))\n"
        "while not run.recorder._runs: time.sleep(0.01)\n"
        "print('going', flush=True)\n"
    )
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert (done.returncode, done.stdout) == (0, "going\n"), done.stderr
    assert "Traceback" not in done.stderr


# Its cost


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


SECONDS = st.floats(1e-4, 20)


@given(
    steps=st.lists(SECONDS, min_size=1, max_size=200),
    costs=st.lists(st.floats(0, 2), min_size=200, max_size=200),
    share=st.floats(0.001, 0.5),
)
def test_what_is_spent_stays_within_the_share(steps, costs, share):
    clock = Clock()
    governor = Governor(share=share, most=8, clock=clock)
    moments, paid = [], []
    for seconds, cost in zip(steps, costs, strict=False):
        clock.now += seconds
        before, expected = governor.spent, max(paid[-3:], default=0.0)
        if governor.allows():
            if paid:
                assert before + expected <= share * clock.now
            moments.append(clock.now)
            governor.spend(cost, finished=True)
            paid.append(cost)
    assert moments[0] == steps[0], "the first is always shown"
    assert all(b - a >= 1 / 8 - 1e-9 for a, b in itertools.pairwise(moments))
    assert governor.updates == len(paid) and governor.spent == pytest.approx(sum(paid))


@given(
    steps=st.lists(SECONDS, min_size=2, max_size=200),
    cost=st.floats(1e-5, 2),
    share=st.floats(0.001, 0.5),
)
def test_updates_of_one_cost_take_no_more_than_the_share_and_the_first(steps, cost, share):
    clock = Clock()
    governor = Governor(share=share, most=8, clock=clock)
    for seconds in steps:
        clock.now += seconds
        if governor.allows():
            governor.spend(cost, finished=True)
    assert governor.spent <= max(cost, share * clock.now) + 1e-9
    # Nor much less, where nothing else holds it back.
    if min(steps) > 1 / 8 and max(steps) * share < cost:
        assert governor.spent >= share * clock.now - 2 * cost - share * max(steps)


def test_one_update_at_a_time_and_a_last_one_whatever_it_costs():
    clock = Clock()
    governor = Governor(share=0.01, clock=clock)
    assert governor.allows()
    clock.now = 1000.0
    assert not governor.allows() and not governor.allows(anyway=True), "one is on its way"
    governor.spend(1.0)
    governor.spend(50.0, finished=True)
    assert not governor.allows() and governor.allows(anyway=True)
    governor.spend(0.5, finished=True)
    assert governor.spent == 51.5 and governor.elapsed == 1000.0


def test_a_courier_delivers_the_newest_and_ends_with_what_is_left():
    started, go, got, told = threading.Event(), threading.Event(), [], []

    def deliver(live):
        got.append(live.step)
        started.set()
        assert go.wait(PATIENCE)
        if live.step == 3:
            raise Boom("three")

    courier = Courier(deliver, told.append)
    assert not courier.started
    courier.start()
    steps = [LiveStep(n, 9, 0.0, torch.zeros(1), None, None) for n in range(6)]
    courier.offer(steps[0])
    assert started.wait(PATIENCE)
    for step in steps[1:4]:
        courier.offer(step)
    go.set()
    deadline = time.monotonic() + PATIENCE
    while len(told) < 2 and time.monotonic() < deadline:
        time.sleep(0.005)
    courier.offer(steps[5])
    courier.close()
    assert got == [0, 3, 5] and len(told) == 3 and courier.faults == ["Boom: three"]
