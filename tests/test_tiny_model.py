"""The embedded model as it is shipped: loads offline as standard pipelines, and draws what it is asked."""

from __future__ import annotations

import socket

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

import ldm_viz as lv
from ldm_viz.tiny import judge
from ldm_viz.tiny.classifier import ObjectClassifier
from ldm_viz.tiny.drawing import draw
from ldm_viz.tiny.loading import WEIGHTS
from ldm_viz.tiny.scenes import Scene, random_scene


@pytest.fixture(scope="module")
def pipe():
    return lv.load_tiny()


@pytest.fixture(scope="module")
def classifier():
    return ObjectClassifier.load(WEIGHTS / "judge" / "classifier.safetensors")


def test_the_weights_are_small_half_precision_safetensors_without_paths():
    files = [f for f in WEIGHTS.rglob("*") if f.is_file()]
    assert sum(f.stat().st_size for f in files) < 30e6
    assert {f.suffix for f in files} <= {".json", ".safetensors", ".txt"}
    for file in files:
        if file.suffix == ".json":
            assert "_name_or_path" not in file.read_text()


def test_it_loads_without_asking_the_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError(f"asked the network for {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    pipe = lv.load_tiny()
    assert type(pipe) is diffusers.StableDiffusionPipeline
    assert type(pipe.vae) is diffusers.AutoencoderKL
    assert type(pipe.unet) is diffusers.UNet2DConditionModel
    assert pipe.unet.dtype == torch.float32


def test_other_tasks_share_the_weights(pipe):
    kinds = {
        "image-to-image": diffusers.StableDiffusionImg2ImgPipeline,
        "inpainting": diffusers.StableDiffusionInpaintPipeline,
    }
    for task, kind in kinds.items():
        other = lv.load_tiny(task, sharing=pipe)
        assert other.name_or_path == pipe.name_or_path
        assert type(other) is kind
        assert other.unet is pipe.unet and other.vae is pipe.vae
        assert type(lv.load_tiny(task)) is kind
    with pytest.raises(ValueError, match="task is 'upscaling'; expected one of text-to-image"):
        lv.load_tiny("upscaling")
    with pytest.raises(ValueError, match="belongs to the shared"):
        lv.load_tiny("inpainting", sharing=pipe, adapter=True)


def test_it_draws_what_the_prompt_says(pipe, classifier):
    scenes, prompts = judge.scenes_and_prompts(30, seed=31, held_out=False)
    pictures = judge.generate(pipe, prompts, seed=31)
    shares = judge.judge_pictures(pictures, scenes, classifier).shares
    assert shares["object and colour"] >= 0.83, shares
    assert min(shares["time"], shares["ground"]) >= 0.93, shares


@pytest.mark.parametrize(
    "name",
    [
        "PNDMScheduler",
        "LMSDiscreteScheduler",
        "EulerDiscreteScheduler",
        "DPMSolverMultistepScheduler",
    ],
)
def test_other_schedulers_can_be_made_from_its_own(pipe, classifier, name):
    scenes, prompts = judge.scenes_and_prompts(12, seed=32, held_out=False)
    own = pipe.scheduler
    try:
        pipe.scheduler = getattr(diffusers, name).from_config(own.config)
        shares = judge.judge_pictures(
            judge.generate(pipe, prompts, seed=32), scenes, classifier
        ).shares
    finally:
        pipe.scheduler = own
    assert shares["object and colour"] >= 0.75, shares


def test_the_last_predicted_picture_is_the_picture(pipe):
    run = lv.record(pipe, "a white moon", seed=3, num_inference_steps=8, progress=False)
    assert (run.frames["x0"][-1] == run.images).all()
    assert (run.frames["latents"][-1] == run.images).all()
    np.testing.assert_array_equal(run.x0[-1], run.latents[-1])


def test_the_autoencoder_keeps_pictures(pipe):
    pictures, _ = judge._drawings(40, seed=9)
    assert judge.psnr(pictures, judge.reconstruct(pipe.vae, pictures)) >= 32


@pytest.fixture(scope="module")
def space():
    return lv.load_joint_space()


@pytest.fixture(scope="module")
def adapted():
    return lv.load_tiny(adapter=True)


def condition(vector: torch.Tensor) -> list[torch.Tensor]:
    """A joint-space vector as a pipeline takes it: without the condition, and with it."""
    vector = vector.reshape(1, 1, -1)
    return [torch.cat([torch.zeros_like(vector), vector])]


def test_the_joint_space_knows_what_pictures_show(space):
    figures = judge.judge_joint(120, seed=41)
    assert figures["zero-shot object"] >= 0.9, figures
    assert figures["zero-shot colour"] >= 0.97, figures
    assert figures["retrieval at 1"] >= 0.9, figures
    pictures, _ = judge._drawings(3, seed=42)
    images = [Image.fromarray(p) for p in pictures]
    vectors = space.embed_images(images)
    assert vectors.shape == space.embed_texts(["a red fish", "", "∑ 🎈"]).shape == (3, 128)
    assert vectors.dtype == torch.float32 and not vectors.requires_grad
    torch.testing.assert_close(space.embed_images(images[1:2]), vectors[1:2])
    large = [image.resize((256, 256), Image.Resampling.NEAREST) for image in images]
    near = torch.nn.functional.cosine_similarity(space.embed_images(large), vectors)
    assert near.min() > 0.95


def test_a_picture_alone_is_a_condition(adapted, classifier):
    assert type(adapted) is diffusers.StableDiffusionPipeline
    rng = np.random.default_rng(43)
    scenes = [random_scene(rng) for _ in range(16)]
    pictures = judge.generate_from_images(np.stack([draw(s, rng) for s in scenes]), seed=43)
    shares = judge.judge_pictures(pictures, scenes, classifier).shares
    assert shares["object and colour"] >= 0.7, shares
    assert shares["time"] >= 0.9, shares


def test_arithmetic_with_vectors_changes_what_it_says_and_keeps_the_rest(
    space, adapted, classifier
):
    rng = np.random.default_rng(44)
    scenes, pictures = [], []
    for thing in ("fish", "star", "house", "mushroom", "square", "heart"):
        scene = Scene(thing, "red", "day", "snow", "large", "centre")
        (vector,) = space.embed_images([Image.fromarray(draw(scene, rng))])
        red, green = space.embed_texts(["a red object", "a green object"])
        made = adapted(
            "",
            ip_adapter_image_embeds=condition(vector - red + green),
            num_inference_steps=25,
            guidance_scale=judge.GUIDANCE,
            generator=torch.Generator().manual_seed(44),
        ).images[0]
        scenes.append(Scene(thing, "green", "day", "snow", "large", "centre"))
        pictures.append(np.asarray(made))
    shares = judge.judge_pictures(np.stack(pictures), scenes, classifier).shares
    assert shares["colour"] >= 0.65 and shares["object"] >= 0.65, shares


def test_with_the_adapter_at_rest_the_model_is_the_plain_one(pipe, adapted):
    call = {"num_inference_steps": 4, "guidance_scale": 3.0, "output_type": "np"}
    plain = pipe("a red boat", generator=torch.Generator().manual_seed(1), **call).images
    adapted.set_ip_adapter_scale(0.0)
    try:
        rest = adapted(
            "a red boat",
            ip_adapter_image_embeds=condition(torch.ones(128)),
            generator=torch.Generator().manual_seed(1),
            **call,
        ).images
    finally:
        adapted.set_ip_adapter_scale(1.0)
    np.testing.assert_allclose(rest, plain, atol=1e-3)


def test_recording_with_the_adapter_is_bit_identical(adapted):
    embeds = condition(torch.linspace(-1, 1, 128))
    call = {"num_inference_steps": 3, "ip_adapter_image_embeds": embeds, "guidance_scale": 3.0}
    bare = adapted("", generator=torch.Generator().manual_seed(2), **call).images[0]
    run = lv.record(adapted, "", seed=2, progress=False, **call)
    assert (run.images[0] == np.asarray(bare)).all()
    assert set(run.noise_prediction) == {"unconditional", "conditional", "guided"}


def test_the_classifier_knows_objects_and_spoiled_drawings(classifier):
    from ldm_viz.tiny.classifier import CLASSES, examples

    pictures, classes = examples(seed=123_456, start=0, count=300)
    names = classifier.classify(pictures)
    right = np.array([CLASSES[c] for c in classes]) == names
    clean = classes < len(CLASSES) - 1
    assert right[clean].mean() >= 0.98
    assert right[~clean].mean() >= 0.9


def test_a_missing_weight_folder_is_explained(monkeypatch, tmp_path):
    from ldm_viz.tiny import loading

    monkeypatch.setattr(loading, "WEIGHTS", tmp_path)
    with pytest.raises(FileNotFoundError, match="reinstall ldm_viz, or train them with"):
        lv.load_tiny()
