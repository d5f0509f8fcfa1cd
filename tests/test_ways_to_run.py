"""Recorded to the bit however the models are run: compiled, offloaded, with adapters, in halves."""

import accelerate
import diffusers
import numpy as np
import peft
import pytest
import torch
from pipelines import build_pipeline, call_arguments

import ldm_viz as lv

BRANCHES = ["unconditional", "conditional", "guided"]


def compare(pipe, **changes):
    """Runs bare and recorded; returns the trajectory."""

    def images():
        torch.manual_seed(11)
        return pipe(**call_arguments("text-to-image", **changes)).images

    bare, state = images(), torch.random.get_rng_state()
    with lv.Recorder(pipe, progress=False) as recorder:
        recorded = images()
    assert np.array_equal(bare, recorded)
    assert torch.equal(state, torch.random.get_rng_state())
    trajectory = recorder.trajectory
    assert "recording_faults" not in trajectory.settings
    assert list(trajectory.noise_prediction) == BRANCHES
    if changes.get("output_type") != "latent":
        assert np.array_equal(trajectory.frames["latents"][-1], trajectory.images)
    return trajectory


@pytest.fixture
def compiled_frames():
    torch._dynamo.reset()
    yield torch._dynamo.utils.counters
    torch._dynamo.reset()


def test_a_compiled_autoencoder(compiled_frames):
    pipe = build_pipeline()
    pipe.vae = torch.compile(pipe.vae, backend="aot_eager")
    assert compare(pipe).settings["latent_scaling"] == "divided"
    assert compare(pipe, output_type="latent").frames["x0"].shape == (4, 1, 16, 16, 3)
    pipe.vae.decode = torch.compile(pipe.vae.decode, backend="aot_eager")
    compare(pipe)


@pytest.mark.parametrize("in_place", [False, True])
def test_compiled_models(in_place, compiled_frames):
    pipe = build_pipeline()
    plain = compare(pipe)
    if in_place:
        pipe.unet.compile(backend="aot_eager", fullgraph=True)
    else:
        pipe.unet = torch.compile(pipe.unet, backend="aot_eager")
    pipe(**call_arguments("text-to-image"))
    before = compiled_frames["stats"]["unique_graphs"]
    assert before > 0
    trajectory = compare(pipe)
    assert compiled_frames["stats"]["unique_graphs"] == before, "recording compiled it anew"
    np.testing.assert_allclose(trajectory.x0, plain.x0, atol=1e-4)


def test_offloaded_models():
    pipe = build_pipeline()
    plain = compare(pipe)
    for part in (pipe.unet, pipe.text_encoder, pipe.vae):
        accelerate.cpu_offload(part, torch.device("cpu"))
    assert next(pipe.unet.parameters()).is_meta
    trajectory = compare(pipe)
    assert np.array_equal(trajectory.latents, plain.latents)
    assert next(pipe.unet.parameters()).is_meta


def test_models_offloaded_one_after_the_other():
    pipe = build_pipeline()
    hook = None
    pipe._all_hooks = []
    for part in (pipe.text_encoder, pipe.unet, pipe.vae):
        _, hook = accelerate.cpu_offload_with_hook(part, torch.device("cpu"), prev_module_hook=hook)
        pipe._all_hooks.append(hook)
    compare(pipe)
    assert hasattr(pipe.unet, "_hf_hook")


def test_low_rank_adapters():
    pipe = build_pipeline()
    plain = compare(pipe)
    config = peft.LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights="gaussian")
    torch.manual_seed(0)
    pipe.unet.add_adapter(config)
    with torch.no_grad():
        for name, weights in pipe.unet.named_parameters():
            if "lora_B" in name:
                weights.normal_()
    adapted = compare(pipe)
    assert not np.allclose(adapted.latents[-1], plain.latents[-1])
    pipe.unet.disable_adapters()
    assert np.array_equal(compare(pipe).latents, plain.latents)


def test_slices_and_tiles():
    pipe = build_pipeline()
    pipe.enable_attention_slicing()
    pipe.vae.enable_slicing()
    pipe.vae.enable_tiling()
    pipe.vae.tile_sample_min_size, pipe.vae.tile_latent_min_size = 8, 4
    compare(pipe, num_images_per_prompt=3)


def test_memory_formats_and_processors():
    pipe = build_pipeline()
    pipe.unet.to(memory_format=torch.channels_last)
    pipe.vae.to(memory_format=torch.channels_last)
    compare(pipe)
    pipe.unet.set_attn_processor(diffusers.models.attention_processor.AttnProcessor())
    compare(pipe)


def test_free_u_and_fused_projections():
    pipe = build_pipeline()
    pipe.fuse_qkv_projections()
    compare(pipe)


def test_autocast():
    pipe = build_pipeline()
    with torch.autocast("cpu", torch.bfloat16):
        compare(pipe)


def test_inference_mode():
    pipe = build_pipeline()
    with torch.inference_mode():
        trajectory = compare(pipe)
    assert trajectory.frames["x0"][0].shape == (1, 16, 16, 3)


def test_nothing_of_the_models_is_changed():
    pipe = build_pipeline()
    classes = [type(part) for part in (pipe, pipe.unet, pipe.vae, pipe.scheduler)]
    before = [dict(vars(kind)) for kind in classes]
    hooks = [len(m._forward_hooks) for m in pipe.unet.modules()]
    compare(pipe)
    assert [dict(vars(kind)) for kind in classes] == before
    assert "__call__" not in vars(type(pipe.unet))
    assert hooks == [len(m._forward_hooks) for m in pipe.unet.modules()]
    assert "forward" not in vars(pipe.unet) and "decode" not in vars(pipe.vae)
