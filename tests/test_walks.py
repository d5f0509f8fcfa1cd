"""Walks between conditions and seeds, grids of weights, and the strip that shows a walk."""

import base64
import io
import re
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
import traitlets
from browser import (  # noqa: F401
    check_accessibility,
    chromium,
    lab,
    open_watched,
    run_notebook,
)
from conditioned import build
from diffusers import EulerAncestralDiscreteScheduler
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from playwright.sync_api import expect

import ldm_viz as lv
from ldm_viz.capture.arguments import checked_seed
from ldm_viz.exports import ExportError
from ldm_viz.labs import batches
from ldm_viz.labs.grids import Grid, grid
from ldm_viz.labs.noise import BetweenSeeds, slerp_noise
from ldm_viz.labs.walks import Walk, tell_plain, walk
from ldm_viz.tiny.loading import GUIDANCE
from ldm_viz.widgets.picture_strip import PictureStrip

RED, BLUE = "a red boat on water", "a blue boat at night"
QUICK = {"num_inference_steps": 2, "guidance_scale": 2.5, "progress": False}


@pytest.fixture(scope="module")
def pipe():
    return lv.load_tiny()


@pytest.fixture(scope="module")
def joint():
    return lv.load_tiny(adapter=True)


@pytest.fixture(scope="module")
def short(pipe):
    return walk(pipe, RED, BLUE, 5, seed=(1, 2), **QUICK)


@pytest.fixture
def ancestral(pipe, monkeypatch):
    """The pipeline with a scheduler that draws noise in every step."""
    scheduler = EulerAncestralDiscreteScheduler.from_config(pipe.scheduler.config)
    monkeypatch.setattr(pipe, "scheduler", scheduler)
    return pipe


def alone(pipe, prompt, seed, **call):
    """What the pipeline draws of a prompt, with nothing of ours."""
    call = {"num_inference_steps": 2, "guidance_scale": 2.5, **call}
    return np.asarray(pipe(prompt, generator=torch.Generator().manual_seed(seed), **call).images[0])


def apart(a, b):
    return int(np.abs(np.asarray(a).astype(int) - b).max())


@pytest.fixture
def before_unet(pipe):
    """Has a function called with the batch, two samples a picture, before each forward of the UNet."""
    handles = []

    def use(function):
        handles.append(
            pipe.unet.register_forward_pre_hook(lambda module, args: function(len(args[0]) // 2))
        )

    yield use
    for handle in handles:
        handle.remove()


# The pictures of a walk


@pytest.mark.parametrize("way", ["slerp", "lerp"])
def test_the_ends_are_what_the_pipeline_draws_of_them(ancestral, way):
    found = walk(ancestral, RED, BLUE, 3, way=way, seed=(1, 2), batch=1, **QUICK)
    assert np.array_equal(found.pictures[0], alone(ancestral, RED, 1))
    assert np.array_equal(found.pictures[-1], alone(ancestral, BLUE, 2))
    assert apart(found.pictures[1], found.pictures[0]) > 20
    assert found.status == "complete" and not found.error and len(found) == found.frames == 3
    assert found.amounts == (0, 0.5, 1) and found.seeds == (1, 2)
    assert found.conditions == (f'"{RED}"', f'{way}("{RED}", "{BLUE}", 0.5)', f'"{BLUE}"')
    assert not found.pictures.flags.writeable


def test_the_middle_is_drawn_of_the_condition_that_is_written(pipe):
    found = walk(pipe, RED, BLUE, 4, seed=6, batch=1, **QUICK)
    vector = lv.embed(pipe, found.conditions[1])
    call = lv.condition(pipe, vector, guidance_scale=2.5)
    assert np.array_equal(found.pictures[1], alone(pipe, None, 6, **call))
    assert found.conditions[1].endswith("1/3)")


def test_the_first_is_drawn_alone_and_batches_change_only_roundings(ancestral, before_unet):
    sizes = []
    before_unet(sizes.append)
    call = {**QUICK, "seed": (1, 2), "negative": "a tree"}
    found = walk(ancestral, RED, BLUE, 6, **call)
    assert sizes == [1, 1, 5, 5]
    one = walk(ancestral, RED, BLUE, 6, **call, batch=1)
    assert np.array_equal(found.pictures[0], one.pictures[0])
    assert apart(found.pictures, one.pictures) <= 3
    assert apart(found.pictures, walk(ancestral, RED, BLUE, 6, **call, batch=4).pictures) <= 3
    assert apart(one.pictures, walk(ancestral, RED, BLUE, 6, **QUICK, seed=(1, 2)).pictures) > 3


def test_a_walk_between_seeds_alone_mixes_the_noise(pipe):
    found = walk(pipe, RED, RED, 5, seed=(1, 2), batch=1, **QUICK)
    assert set(found.conditions) == {f'"{RED}"'}
    latents = [
        torch.randn(1, *pipe_shape(pipe), generator=torch.Generator().manual_seed(seed))
        for seed in (1, 2)
    ]
    between = slerp_noise(*latents, 0.25)
    call = {"num_inference_steps": 2, "guidance_scale": 2.5, "latents": between}
    assert np.array_equal(found.pictures[1], np.asarray(pipe(RED, **call).images[0]))
    back = walk(pipe, RED, RED, 5, seed=(2, 1), batch=1, **QUICK)
    assert apart(back.pictures[::-1], found.pictures) <= 1


def pipe_shape(pipe):
    side = pipe.unet.config.sample_size
    return pipe.unet.config.in_channels, side, side


@pytest.mark.parametrize("task", ["image-to-image", "inpainting"])
def test_pipelines_that_begin_with_a_picture_walk_too(pipe, task):
    other = lv.load_tiny(task, sharing=pipe)
    picture = Image.fromarray(alone(pipe, "a green tree on grass", 5))
    more = {"image": picture, "strength": 0.9}
    if task == "inpainting":
        more["mask_image"] = Image.new("L", picture.size, 255)
    call = {**QUICK, "num_inference_steps": 3}
    found = walk(other, RED, BLUE, 4, seed=(1, 2), **call, **more)
    one = walk(other, RED, BLUE, 4, seed=(1, 2), batch=1, **call, **more)
    assert apart(found.pictures, one.pictures) <= 3
    plain = {"num_inference_steps": 3, **more}
    assert np.array_equal(one.pictures[-1], alone(other, BLUE, 2, **plain))
    assert apart(one.pictures[1], one.pictures[0]) > 3


def test_joint_vectors_go_one_at_a_time(joint):
    picture = alone(lv.load_tiny(), RED, 3, num_inference_steps=8)
    start = lv.image(joint, picture, name="boat")
    sizes = []
    hook = joint.unet.register_forward_pre_hook(
        lambda module, args: sizes.append(len(args[0]) // 2)
    )
    try:
        found = walk(joint, start, "at night", 3, seed=4, batch=3, prompt="a boat", **QUICK)
    finally:
        hook.remove()
    assert set(sizes) == {1}
    assert found.conditions[1] == 'slerp(image("boat"), "at night", 0.5)'
    for place, vector in ((0, start), (2, lv.text(joint, "at night", space="joint"))):
        call = lv.condition(joint, vector, prompt="a boat", guidance_scale=2.5)
        assert np.array_equal(found.pictures[place], once(joint, call))
    # An adapter's zeros beside prompts are a list as well.
    assert len(walk(joint, RED, BLUE, 3, **QUICK)) == 3


@pytest.mark.filterwarnings("ignore:__array__")
def test_pipelines_with_two_text_encoders_walk_too():
    pipe = build("StableDiffusionXLPipeline")
    call = {"num_inference_steps": 2, "height": 32, "width": 32}
    words = {"seed": (1, 2), "negative": "boat", "progress": False}
    found = walk(pipe, "a star", "a blue boat", 5, **words, **call)
    one = walk(pipe, "a star", "a blue boat", 5, batch=1, **words, **call)
    assert apart(found.pictures, one.pictures) <= 3 and found.status == "complete"
    for place, prompt, seed in ((0, "a star", 1), (-1, "a blue boat", 2)):
        plain = {"negative_prompt": "boat", "guidance_scale": 5.0, **call}
        assert np.array_equal(one[place], alone(pipe, prompt, seed, **plain))
    assert apart(one[2], one[0]) > 20 and apart(one[2], one[-1]) > 20
    sums = grid(pipe, "a star", ("blue", [0, 1]), seed=1, negative="boat", progress=False, **call)
    assert np.array_equal(sums[0, 0], one[0]) and apart(sums[0, 1], sums[0, 0]) > 3


def once(pipe, call):
    generator = torch.Generator().manual_seed(4)
    return np.asarray(pipe(**call, num_inference_steps=2, generator=generator).images[0])


# Noise


@given(st.integers(0, 2**32), st.floats(0, 1), st.sampled_from([torch.float32, torch.float16]))
@settings(max_examples=40)
def test_mixed_noise_is_noise(seed, amount, dtype):
    generator = torch.Generator().manual_seed(seed)
    a, b = (torch.randn(1, 4, 16, 16, generator=generator).to(dtype) for _ in range(2))
    mixed = slerp_noise(a, b, amount)
    assert mixed.dtype == dtype and mixed.shape == a.shape
    low, high = sorted([float(a.double().norm()), float(b.double().norm())])
    assert 0.99 * low <= float(mixed.double().norm()) <= 1.01 * high
    assert torch.allclose(mixed, slerp_noise(b, a, 1 - amount), atol=2e-3)
    assert torch.allclose(slerp_noise(a, b, 0), a) and torch.allclose(slerp_noise(a, b, 1), b)
    assert torch.allclose(slerp_noise(a, a, amount), a, atol=2e-3)


def test_only_the_draws_of_its_generators_are_mixed():
    mine, others, free = (torch.Generator().manual_seed(seed) for seed in (1, 2, 3))
    with BetweenSeeds({id(mine): (others, 0.5)}) as between:
        plain = torch.randn(3, generator=free)
        assert between.unused == {id(mine)}
        first = torch.randn(2, 3, generator=mine)
        second = torch.randn(3, generator=mine)
        assert not between.unused
    assert torch.equal(plain, torch.randn(3, generator=torch.Generator().manual_seed(3)))
    a, b = (torch.Generator().manual_seed(seed) for seed in (1, 2))
    for found in (first, second):
        x, y = (torch.randn(found.shape, generator=g) for g in (a, b))
        assert torch.equal(found, slerp_noise(x, y, 0.5))


def test_noise_that_cannot_be_mixed_is_told(pipe, monkeypatch):
    noise = torch.randn(1, *pipe_shape(pipe))
    fixed = staticmethod(lambda *args, **kwargs: noise)
    monkeypatch.setattr(pipe, "prepare_latents", fixed.__func__, raising=False)
    with pytest.warns(UserWarning, match="only 1 picture could .*cannot be mixed"):
        walk(pipe, RED, BLUE, 3, seed=(1, 2), batch=1, **QUICK)


# Memory, failures, stopping


def test_what_does_not_fit_is_halved_and_nothing_is_drawn_twice(pipe, before_unet):
    sizes = []

    def full(size):
        sizes.append(size)
        if size > 2:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    before_unet(full)
    found = walk(pipe, RED, BLUE, 8, seed=1, batch=7, **QUICK)
    assert found.status == "complete" and len(found) == 8
    assert sizes == [7, 3, 1, 1, 1, 1, 1, 1] + [1, 1] * 5
    sizes.clear()
    assert len(walk(pipe, RED, BLUE, 5, seed=1, batch=4, **QUICK)) == 5
    assert sizes == [4, 2, 2, 2, 2, 1, 1]


def test_as_many_are_drawn_at_a_time_as_half_of_the_memory_holds(pipe, monkeypatch):
    picture = np.zeros((64, 64, 3), np.uint8)
    each = 64 * 64 * batches._BYTES_A_PIXEL
    for free, expected in ((0, 1), (2 * each, 1), (6 * each, 3), (10**15, batches.MOST["cpu"])):
        monkeypatch.setattr(batches, "_free_memory", lambda device, free=free: free)
        assert batches._fitting(pipe, picture) == expected
    monkeypatch.undo()
    assert 1e7 < batches._free_memory(torch.device("cpu")) < 1e14


@pytest.mark.parametrize("size", [1, 4])
def test_a_failing_frame_keeps_those_before_and_is_named(pipe, monkeypatch, size):
    original = pipe.vae.decode
    blue = lv.embed(pipe, f'slerp("{RED}", "{BLUE}", 0.5)').main
    seen = []
    encode = pipe.encode_prompt

    def note(*args, **kwargs):
        seen.append(kwargs.get("prompt_embeds"))
        return encode(*args, **kwargs)

    def broken(*args, **kwargs):
        if any(torch.equal(one, blue[0]) for one in seen[-1]):
            raise RuntimeError("the decoder\nis broken")
        return original(*args, **kwargs)

    monkeypatch.setattr(pipe, "encode_prompt", note)
    monkeypatch.setattr(pipe.vae, "decode", broken)
    with pytest.warns(UserWarning, match="only 2 pictures could be drawn; frame 2") as caught:
        found = walk(pipe, RED, BLUE, 5, seed=1, batch=size, **QUICK)
    assert caught[0].filename == __file__
    assert found.status == "failed" and len(found) == 2 and found.frames == 5
    assert found.error == "frame 2 (amount 0.5): RuntimeError: the decoder is broken"
    assert found.amounts == (0, 0.25) and len(found.conditions) == 2
    assert "2 of 5 pictures" in repr(found) and found.error in repr(found)


def test_what_the_first_frame_raises_is_raised(pipe, before_unet):
    def broken(size):
        raise RuntimeError("CUDA error: device-side assert")

    before_unet(broken)
    before = getattr(pipe, "_progress_bar_config", None)
    with pytest.raises(RuntimeError, match="device-side") as caught:
        walk(pipe, RED, BLUE, 5, batch=4, **QUICK)
    assert caught.value.__notes__ == ["ldm_viz: raised while frame 0 (amount 0) was drawn."]
    assert getattr(pipe, "_progress_bar_config", None) == before


def test_an_interrupt_keeps_what_is_done(pipe, before_unet):
    steps = []

    def interrupt(size):
        steps.append(size)
        if len(steps) == 6:
            raise KeyboardInterrupt

    before_unet(interrupt)
    found = walk(pipe, RED, BLUE, 5, seed=1, batch=1, **QUICK)
    assert found.status == "stopped" and len(found) == 2 and not found.error
    assert np.array_equal(found.pictures[0], alone(pipe, RED, 1))


def test_cancelling_ends_after_the_step(pipe):
    event, steps = threading.Event(), []

    def on_step(pipe, step, timestep, kwargs):
        steps.append(step)
        if len(steps) == 3:
            event.set()
        return kwargs

    found = walk(
        pipe, RED, BLUE, 4, seed=1, cancel=event, batch=1, callback_on_step_end=on_step, **QUICK
    )
    assert found.status == "stopped" and len(found) == 1 and steps == [0, 1, 0]
    none = walk(pipe, RED, BLUE, 4, seed=1, cancel=event, **QUICK)
    assert none.status == "stopped" and len(none) == 0 and none.pictures.shape == (0, 0, 0, 3)
    assert none._repr_mimebundle_() == {"text/plain": repr(none)}
    with pytest.raises(ValueError, match="no picture: it was stopped"):
        none.save("walk.gif")


# Arguments


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"frames": 1}, ValueError, "frames must be a whole number from 2"),
        ({"frames": 2.5}, ValueError, "frames must be a whole number"),
        ({"way": "cubic"}, ValueError, "way must be 'slerp' or 'lerp', not 'cubic'"),
        ({"seed": (1, 2, 3)}, ValueError, "one seed or the two at the ends, not 3"),
        ({"seed": "one"}, ValueError, "seed must be an integer"),
        ({"batch": 0}, ValueError, "batch must be a whole number of pictures"),
        ({"stop": RED}, ValueError, "one seed, so all pictures would be alike"),
        ({"stop": None}, TypeError, "stop must be an Embedding or a str"),
        ({"generator": None}, TypeError, r"generator cannot be given here: give seed=…"),
        ({"negative_prompt": "a"}, TypeError, r"give negative=…"),
        ({"prompt": "a boat"}, TypeError, "the condition stands in its place"),
        ({"num_inference_step": 3}, TypeError, "did you mean num_inference_steps"),
        ({"num_inference_steps": 0}, ValueError, "num_inference_steps must be"),
        ({"frame": 3}, TypeError, "did you mean frames"),
        ({"guidance_scale": "x"}, TypeError, "guidance_scale must be a number.* not 'x'"),
        ({"guidance_scale": True}, TypeError, "guidance_scale must be a number.* not True"),
        ({"guidance_scale": float("nan")}, ValueError, "must be a finite number, not nan"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_drawn(
    pipe, before_unet, change, error, words
):
    drawn = []
    before_unet(drawn.append)
    with pytest.raises(error, match=words):
        walk(**{"pipe": pipe, "start": RED, "stop": BLUE, **QUICK, **change})
    assert drawn == []


@pytest.mark.parametrize("seed", [2**64, -(2**63) - 1, 1.5, "one", True, None])
def test_seeds_are_those_of_record(pipe, seed):
    with pytest.raises(ValueError) as theirs:
        checked_seed(seed)
    for draw in (
        lambda: walk(pipe, RED, BLUE, seed=seed, **QUICK),
        lambda: walk(pipe, RED, BLUE, seed=(0, seed), **QUICK),
        lambda: grid(pipe, RED, ("night", [0, 1]), seed=seed, **QUICK),
    ):
        with pytest.raises(ValueError) as found:
            draw()
        assert str(found.value) == str(theirs.value)


def test_a_negative_seed_draws_what_record_does(pipe):
    run = lv.record(pipe, RED, seed=-3, num_inference_steps=2, guidance_scale=2.5)
    assert np.array_equal(walk(pipe, RED, BLUE, 2, seed=-3, **QUICK)[0], run.images[0])


def test_the_usual_guidance_is_taken_where_none_is_given(pipe, monkeypatch):
    call = {"num_inference_steps": 2, "progress": False, "seed": 4, "batch": 1}
    night = ("at night", [0, 1])
    for none in ({}, {"guidance_scale": None}):
        found = walk(pipe, RED, BLUE, 2, **call, **none)
        assert np.array_equal(found[0], alone(pipe, RED, 4, guidance_scale=GUIDANCE))
        assert np.array_equal(grid(pipe, RED, night, **call, **none)[0, 0], found[0])
    assert apart(walk(pipe, RED, BLUE, 2, **call, guidance_scale=7.5)[0], found[0]) > 3
    monkeypatch.setattr(type(pipe), "name_or_path", "another model")
    assert np.array_equal(
        walk(pipe, RED, BLUE, 2, **call)[0], alone(pipe, RED, 4, guidance_scale=7.5)
    )


@pytest.mark.parametrize(
    ("words", "seems", "cure"),
    [
        ('"a red boat" - "red" + "blue"', "reads as an expression", "lv.embed(pipe, {!r})"),
        ("'a boat'", "reads as an expression", "lv.embed(pipe, {!r})"),
        ("boat.PNG", "looks like the name of a picture", "lv.image(pipe, {!r})"),
    ],
)
def test_texts_that_seem_to_be_more_are_prompts_and_told_of(pipe, words, seems, cure):
    for name, draw in {
        "start": lambda: walk(pipe, words, BLUE, 2, seed=3, **QUICK)[0],
        "stop": lambda: walk(pipe, BLUE, words, 2, seed=3, **QUICK)[-1],
        "base": lambda: grid(pipe, words, ("snow", [0]), seed=3, **QUICK)[0, 0],
        "the term of across": lambda: grid(pipe, RED, (words, [0]), **QUICK),
        "the term of down": lambda: grid(pipe, RED, ("snow", [0]), (words, [0]), **QUICK),
        "negative": lambda: walk(pipe, RED, BLUE, 2, negative=words, **QUICK),
    }.items():
        with pytest.warns(UserWarning) as caught:
            picture = draw()
        (told,) = [one for one in caught if "taken as a plain prompt" in str(one.message)]
        assert str(told.message).startswith(f"{name} is the text {words!r}, which {seems}")
        assert str(told.message).endswith(f"give {cure.format(words)}")
        assert told.filename == __file__
        if name in ("start", "stop", "base"):
            assert np.array_equal(picture, alone(pipe, words, 3))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("words", [RED, "a boat, 2 * red", 'a "red" boat', "a boat.", "a png", ""])
def test_plain_prompts_are_not_told_of(pipe, words):
    tell_plain(words, "start")
    tell_plain(lv.text(pipe, RED) - lv.text(pipe, "day"), "start")


def test_spaces_are_kept_apart(pipe, joint):
    picture = lv.image(joint, np.zeros((64, 64, 3), np.uint8))
    with pytest.raises(lv.SpaceError, match="walk needs operands of one space"):
        walk(joint, picture, lv.text(joint, RED, space="prompt"), **QUICK)
    with pytest.raises(lv.SpaceError):
        walk(pipe, picture, 2 * picture, **QUICK)
    with pytest.raises(lv.EmbeddingError, match="is zero"):
        walk(pipe, lv.text(pipe, RED) - lv.text(pipe, RED), BLUE, **QUICK)
    with pytest.raises(TypeError, match="Expected a diffusers pipeline"):
        walk("pipe", RED, BLUE)


# Positions


def test_a_walk_is_a_row_of_its_pictures(short):
    assert len(list(short)) == len(short) == 5
    assert np.array_equal(np.stack(list(short)), short.pictures)
    assert np.array_equal(short[3], short.pictures[3])
    assert np.array_equal(short[-1], short.pictures[4]) and short[1:3].shape == (2, 64, 64, 3)
    with pytest.raises(IndexError):
        short[5]
    with pytest.raises(ValueError, match="read-only"):
        short[0][0, 0] = 0


def test_a_grid_is_rows_of_pictures():
    pictures = np.arange(6, dtype=np.uint8)[:, None, None, None].repeat(3, axis=-1)
    pictures = pictures.reshape(2, 3, 1, 1, 3)
    drawn, term = np.ones((2, 3), bool), ('"a"', (0.0, 1.0, 2.0))
    found = Grid(pictures, drawn, term, ('"b"', (0.0, 1.0)), (("",) * 3,) * 2, '"c"', 0)
    assert len(found) == 2
    assert [[int(picture[0, 0, 0]) for picture in row] for row in found] == [[0, 1, 2], [3, 4, 5]]
    assert (found[1, 2] == 5).all() and found[1, 2].shape == (1, 1, 3)
    assert np.array_equal(found[-1], pictures[1])
    with pytest.raises(IndexError):
        found[2]


# Files


def test_it_is_saved_by_its_ending(short, tmp_path):
    for ending, count in (("gif", 5), ("webp", 5)):
        with Image.open(short.save(tmp_path / f"walk.{ending}")) as picture:
            assert picture.n_frames == count and picture.width > 256
    with Image.open(short.save(tmp_path / "back.webp", bounce=True, labels=False)) as picture:
        assert picture.n_frames == 8 and picture.size == (256, 256)
        frames = []
        for place in range(8):
            picture.seek(place)
            frames.append(np.asarray(picture.convert("RGB")))
        assert apart(frames[5], frames[3]) < apart(frames[5], frames[4])
    sheet = Image.open(short.save(tmp_path / "walk.png", size=64, labels=False))
    tile = np.asarray(sheet)[16 : 16 + 64, 16 : 16 + 64]
    assert np.array_equal(tile, short.pictures[0])
    assert "<title>&quot;a red boat" in short.save(tmp_path / "walk.html").read_text()


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="ffmpeg is not installed")
def test_a_video_holds_its_ends(short, tmp_path):
    path = short.save(tmp_path / "walk.mp4", fps=10, hold=0.5)
    command = ["ffprobe", "-v", "error", "-count_frames", "-show_entries", "stream=nb_read_frames"]
    said = subprocess.run([*command, "-of", "csv=p=0", path], capture_output=True, text=True)
    assert said.stdout.strip() == "13"


def test_files_that_cannot_be_written_are_refused(short, tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"'walk.bmp' ends in no format.*\.mp4 \(a video"):
        short.save(tmp_path / "walk.bmp")
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        short.save(tmp_path / "nowhere" / "walk.gif")
    with pytest.raises(ValueError, match="fps must be a number from 0.1 to 50, not 90"):
        short.save(tmp_path / "walk.gif", fps=90)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "walk.mp4").write_bytes(b"before")
    with pytest.raises(ExportError, match="ffmpeg, which is not on PATH"):
        short.save(tmp_path / "walk.mp4")
    assert (tmp_path / "walk.mp4").read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["walk.mp4"]


@pytest.mark.parametrize(("count", "size"), [(1, (420, 234)), (8, (1098, 234)), (9, (772, 348))])
def test_a_sheet_holds_all_pictures(count, size):
    pictures = np.full((count, 32, 48, 3), 7, np.uint8)
    amounts = tuple(np.linspace(0, 1, count).tolist())
    found = Walk(pictures, amounts, ("c",) * count, (0, 0), "slerp", count)
    sheet = np.asarray(Image.open(io.BytesIO(found.still())))
    assert (sheet == 7).all(axis=2).sum() == pytest.approx(count * 128 * 85, rel=0.02)
    assert (sheet.shape[1], sheet.shape[0]) == size


# Grids


def test_a_grid_is_of_sums(pipe):
    found = grid(
        pipe, RED, ("at night", [0, 0.5]), ("snow", [-1, 0, 1.5]), seed=3, batch=1, **QUICK
    )
    assert found.pictures.shape == (3, 2, 64, 64, 3) and found.drawn.all()
    assert np.array_equal(found.pictures[1, 0], alone(pipe, RED, 3))
    assert found.conditions[1][0] == f'"{RED}"'
    assert found.conditions[2][1] == f'"{RED}" + 0.5 * "at night" + 1.5 * "snow"'
    call = lv.condition(pipe, lv.embed(pipe, found.conditions[2][1]), guidance_scale=2.5)
    assert np.array_equal(found.pictures[2, 1], alone(pipe, None, 3, **call))
    assert found.row_labels == ('-1 * "snow"', '0 * "snow"', '1.5 * "snow"')
    assert found.column_labels == ('0 * "at night"', '0.5 * "at night"')
    assert repr(found) == (
        f'Grid: "{RED}", "at night" across, "snow" down, 3×2 pictures of 64×64, seed 3, complete'
    )
    data, metadata = found._repr_mimebundle_()
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(data["image/png"]))))
    assert np.array_equal(sheet, found.sheet())
    alt = metadata["image/png"]["alt"]
    assert all(label in alt for label in (*found.row_labels, *found.column_labels))
    batched = grid(pipe, RED, ("at night", [0, 0.5]), ("snow", [-1, 0, 1.5]), seed=3, **QUICK)
    assert apart(batched.pictures, found.pictures) <= 3


def test_a_grids_sheet_has_each_picture_in_its_place(pipe, tmp_path):
    vector = lv.text(pipe, "at night") - lv.text(pipe, "day")
    found = grid(pipe, RED, (vector, [0, 1]), **QUICK)
    assert found.column_labels[1] == '1 * ("at night" - "day")' and found.row_labels == ("",)
    assert found.conditions == ((f'"{RED}"', f'"{RED}" + "at night" - "day"'),)
    for ending in ("png", "webp"):
        sheet = np.asarray(Image.open(found.save(tmp_path / f"grid.{ending}", size=64)))
        for column in range(2):
            left = 16 + 70 * column
            assert np.array_equal(sheet[46:110, left : left + 64], found.pictures[0, column])
    with pytest.raises(ValueError, match=r"\.png \(a contact sheet\), \.webp"):
        found.save(tmp_path / "grid.gif")


def test_a_grid_that_is_stopped_is_grey_where_nothing_was_drawn(pipe, before_unet):
    steps = []

    def interrupt(size):
        steps.append(size)
        if len(steps) == 7:
            raise KeyboardInterrupt

    before_unet(interrupt)
    found = grid(pipe, RED, ("snow", [0, 1]), ("day", [0, 1]), batch=1, **QUICK)
    assert found.status == "stopped" and found.drawn.tolist() == [[True, True], [True, False]]
    assert (found.pictures[1, 1] == 232).all() and "3 of 2×2 pictures" in repr(found)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"across": "night"}, TypeError, "across must be a term and its weights"),
        ({"across": ("night", 3)}, TypeError, "the weights of across must be a list"),
        ({"across": ("night", [])}, ValueError, "across has no weights"),
        ({"across": (3, [1])}, TypeError, "the term of across must be an Embedding or a str"),
        ({"down": ("day", [float("nan")])}, ValueError, "a weight of down must be a finite"),
        ({"down": ("day", range(300))}, ValueError, "300 × 2 are 600 pictures, and 400"),
        ({"down": (RED, [-1])}, lv.EmbeddingError, "is zero"),
    ],
)
def test_bad_grids_are_refused(pipe, change, error, words):
    with pytest.raises(error, match=words):
        grid(**{"pipe": pipe, "base": RED, "across": ("night", [0, 1]), **QUICK, **change})


# The strip


def strip_of(count=6, **traits):
    pictures = np.zeros((count, 40, 64, 3), np.uint8)
    pictures[..., 0] = np.linspace(0, 250, count).astype(np.uint8)[:, None, None]
    labels = [f"amount {i} · frame {i} of {count}" for i in range(count)]
    details = [f'<img src=x onerror="document.title = 1"> & "{i}"' for i in range(count)]
    return PictureStrip(pictures, labels, details, title="from <b>here</b>", **traits)


def test_a_walk_is_shown_as_a_strip(short):
    data, _ = short._repr_mimebundle_()
    assert data["text/plain"] == repr(short)
    assert repr(short) == (
        f'Walk: "{RED}" to "{BLUE}", 5 pictures of 64×64, seeds 1 to 2, complete'
    )
    assert Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).width > 400
    assert "application/vnd.jupyter.widget-view+json" in data
    strip = short.strip
    assert strip is short.strip and np.array_equal(strip.pictures, short.pictures)
    strip.frame = 3
    assert np.array_equal(strip.current, short.pictures[3])
    assert repr(strip).endswith("frame 3: amount 0.750 · picture 4 of 5 · seeds 1 to 2")
    assert "picture 1 of 5" in strip.labels[0] and "picture 5 of 5" in strip.labels[-1]


def test_the_strips_files_are_its_pictures():
    strip = strip_of()
    lengths = strip._series["pictures"]["lengths"][0]
    start = 0
    for length, expected in zip(lengths, strip.pictures, strict=True):
        file = Image.open(io.BytesIO(strip._frames[start : start + length]))
        assert np.array_equal(np.asarray(file), expected)
        start += length
    assert start == len(strip._frames)


def test_bad_strips_are_refused():
    pictures = np.zeros((2, 4, 4, 3), np.uint8)
    with pytest.raises(ValueError, match="there are 2 pictures and 1 labels"):
        PictureStrip(pictures, ["one"])
    with pytest.raises(ValueError, match="there are 2 pictures and 3 details"):
        PictureStrip(pictures, ["one", "two"], ["a"] * 3)
    with pytest.raises(ValueError, match=r"float64 of shape \(2, 4, 4, 3\)"):
        PictureStrip(pictures / 255, ["one", "two"])
    with pytest.raises(ValueError, match="at least one picture"):
        PictureStrip(pictures[:0], [])
    with pytest.raises(TypeError, match="'steps'; the strip has frame, playing, speed"):
        PictureStrip(pictures, ["one", "two"], steps=1)
    for name, value, words in (("frame", 6, "between 0 and 5, not 6"), ("speed", 0, "above 0")):
        with pytest.raises(traitlets.TraitError, match=words):
            strip_of(**{name: value})


def test_the_strip_needs_no_model():
    code = (
        "import sys; sys.modules['torch'] = sys.modules['diffusers'] = None\n"
        "import numpy as np; from ldm_viz.widgets.picture_strip import PictureStrip\n"
        "print(len(PictureStrip(np.zeros((1, 8, 8, 3), np.uint8), ['a']).to_html()) > 1000)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stdout.strip() == "True", found.stderr


PLAY = """(root) => new Promise((resolve) => {
  const seen = [];
  new MutationObserver(() => {
    if (seen.at(-1) !== root.dataset.step) seen.push(root.dataset.step);
    if (seen.length > 1 && seen.at(-1) === "5") resolve(seen);
  }).observe(root, { attributes: true, attributeFilter: ["data-step"] });
  root.querySelector(".ldm-play").click();
})"""


@pytest.mark.browser
def test_the_strips_page_draws_moves_plays_and_bars_nobody(chromium, tmp_path):  # noqa: F811
    path = strip_of().to_html(tmp_path / "strip.html")
    for scheme in ("light", "dark"):
        with open_watched(chromium, color_scheme=scheme) as watched:
            page = watched.page
            page.goto(path.as_uri())
            page.wait_for_selector(f".ldm-picture-strip[data-ready=true][data-theme={scheme}]")
            slider = page.get_by_role("slider", name="Frame")
            expect(slider).to_have_attribute("max", "5")
            red = "(box) => [...box.querySelector('canvas').getContext('2d').getImageData(9, 9, 1, 1).data]"
            assert page.locator(".ldm-box").evaluate(red) == [0, 0, 0, 255]
            page.keyboard.press("ArrowRight")
            page.keyboard.press("ArrowRight")
            page.wait_for_selector(".ldm-picture-strip[data-step='2']")
            expect(slider).to_have_attribute("aria-valuetext", "amount 2 · frame 2 of 6")
            expect(page.locator(".ldm-words strong")).to_have_text("amount 2")
            expect(page.locator(".ldm-caption").last).to_have_text(
                '<img src=x onerror="document.title = 1"> & "2"'
            )
            expect(page.locator("h3")).to_have_text("from <b>here</b>")
            assert page.locator(".ldm-box").evaluate(red) == [100, 0, 0, 255]
            page.wait_for_timeout(100)  # the thumbnails' last one is drawn in a later frame
            check_accessibility(page)
            film = page.locator(".ldm-film").bounding_box()
            page.mouse.click(film["x"] + film["width"] - 5, film["y"] + 9)
            page.wait_for_selector(".ldm-picture-strip[data-step='5']")
            seen = page.locator(".ldm-picture-strip").evaluate(PLAY)
            assert seen == ["0", "1", "2", "3", "4", "5"]
            assert watched.errors == [] and page.locator("main img").count() == 0


LABEL = "amount 0.500 · picture 4 of 6 · seeds 1 to 2"


@pytest.mark.browser
@pytest.mark.parametrize("width", [290, 420, 560, 700])
def test_the_words_and_the_speed_have_room(chromium, tmp_path, width):  # noqa: F811
    pictures = np.zeros((6, 40, 64, 3), np.uint8)
    path = PictureStrip(pictures, [LABEL] * 6).to_html(tmp_path / "strip.html")
    with open_watched(chromium, viewport={"width": width, "height": 700}) as watched:
        page = watched.page
        page.goto(path.as_uri())
        page.wait_for_selector(".ldm-picture-strip[data-ready=true]")
        expect(page.get_by_label("Speed").locator("option")).to_have_text(
            ["1 picture a second", *(f"{n} pictures a second" for n in (2, 4, 8, 16, 30))]
        )
        words = page.locator(".ldm-words").bounding_box()
        speed = page.locator(".ldm-transport .ldm-choice").bounding_box()
        beside = words["x"] + words["width"] <= speed["x"]
        below = words["y"] + words["height"] <= speed["y"]
        assert beside or below
        assert words["height"] < 50, "two lines at most"
        assert page.evaluate("document.documentElement.scrollWidth") <= width


CELLS = (
    """
import ipywidgets, numpy as np
import ldm_viz as lv
from ldm_viz.labs.walks import walk
found = walk(lv.load_tiny(), "a red boat", "a blue boat", 4, num_inference_steps=2)
number = ipywidgets.IntText()
ipywidgets.link((found.strip, "frame"), (number, "value"))
number
""",
    "found",
)


@pytest.mark.browser
@pytest.mark.slow
def test_a_walk_in_jupyterlab_moves_both_ways(chromium, lab):  # noqa: F811
    name = lab.write_notebook("walk.ipynb", *CELLS)
    with open_watched(chromium, offline=False) as watched:
        page = watched.page
        run_notebook(page, lab.address(name), ".ldm-picture-strip[data-ready=true]")
        page.get_by_role("slider", name="Frame").focus()
        page.keyboard.press("End")
        expect(page.locator(".widget-text input")).to_have_value("3")
        page.locator(".widget-text input").fill("1")
        page.keyboard.press("Enter")
        page.wait_for_selector(".ldm-picture-strip[data-step='1']")
        ours = [text for text in watched.errors if re.search("ldm|anywidget", text, re.IGNORECASE)]
        assert ours == []
