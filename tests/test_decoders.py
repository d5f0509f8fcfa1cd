"""Frames: exactly the pipeline's own pictures, or a linear map that is close; nothing else
touched."""

import gc

import diffusers
import numpy as np
import pytest
import torch
from pipelines import build_pipeline, call_arguments, use_scheduler

import ldm_viz as lv
from ldm_viz.capture import decoders
from ldm_viz.capture.decoders import decode_frames, linear_map


@pytest.fixture(scope="module")
def pipe():
    return build_pipeline()


def record(pipe, scheduler=diffusers.DDIMScheduler, frames=None, **changes):
    use_scheduler(pipe, scheduler)
    with lv.Recorder(pipe, frames=frames) as recorder:
        pipe(**call_arguments("text-to-image", **changes))
    return recorder.trajectory


def decode(pipe, latents):
    with torch.no_grad():
        image = pipe.vae.decode(torch.tensor(latents) / pipe.vae.config.scaling_factor).sample
        pictures = pipe.image_processor.postprocess(image, "np")
    return (pictures * 255).round().astype(np.uint8)


@pytest.mark.parametrize("at_once", [1, 1 << 19])
def test_every_frame_is_its_latents_decoded(pipe, monkeypatch, at_once):
    monkeypatch.setattr(decoders, "_PIXELS_AT_ONCE", at_once)
    trajectory = record(pipe, frames="exact", num_images_per_prompt=3)
    for step in range(len(trajectory) + 1):
        # Larger batches may be rounded differently by the convolutions.
        difference = trajectory.frames["latents"][step].astype(int) - decode(
            pipe, trajectory.latents[step]
        )
        assert np.abs(difference).max() <= (at_once > 1)
    assert np.array_equal(trajectory.frames["x0"][-1], decode(pipe, trajectory.x0[-1]))
    assert np.array_equal(trajectory.frames["latents"][-1], trajectory.images)


def test_k_diffusion_latents_are_decoded_in_the_variance_preserving_scale(pipe):
    trajectory = record(pipe, diffusers.EulerDiscreteScheduler, frames="exact")
    scaled = trajectory.latents[0] / np.sqrt(1 + trajectory.sigmas[0] ** 2)
    assert trajectory.latents[0].std() > 5 and 0.5 < scaled.std() < 1.5
    difference = trajectory.frames["latents"][0].astype(int) - decode(
        pipe, scaled.astype(np.float32)
    )
    assert np.abs(difference).max() <= 1
    assert np.array_equal(trajectory.frames["latents"][-1], trajectory.images)


@pytest.mark.parametrize(
    "name",
    [
        "EulerDiscreteScheduler",
        "HeunDiscreteScheduler",
        "DPMSolverMultistepScheduler",
        "LCMScheduler",
    ],
)
def test_the_last_x0_is_the_picture_where_the_last_step_lands_on_it(pipe, name):
    trajectory = record(pipe, getattr(diffusers, name), frames="exact")
    difference = trajectory.frames["x0"][-1].astype(int) - trajectory.images
    assert np.abs(difference).max() <= 1


def test_decoding_later_and_from_a_file(pipe, tmp_path):
    trajectory = record(pipe)
    assert not trajectory.frames and trajectory.frames_source == ""
    saved = lv.Trajectory.open(trajectory.save(tmp_path / "run.safetensors"))
    decoded = decode_frames(pipe, saved, progress=False)
    assert np.array_equal(decoded.frames["latents"][-1], trajectory.images)
    again = record(pipe, frames="exact")
    assert np.array_equal(decoded.frames["x0"], again.frames["x0"])


def test_no_global_random_number_is_drawn(pipe):
    trajectory = record(pipe)
    before = torch.random.get_rng_state()
    decoders._maps.clear()
    for method in ("exact", "linear"):
        decode_frames(pipe, trajectory, method, progress=False)
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_linear_map_fits_and_is_kept():
    """An autoencoder that is itself linear, up to its resolution, is found exactly."""
    pipe = build_pipeline()
    weights = torch.randn(3, 4, generator=torch.Generator().manual_seed(1)) * 0.02
    calls = []

    def decode(latents, return_dict=True):
        calls.append(1)
        image = torch.einsum("oc,nchw->nohw", weights, latents) + 0.1
        return (torch.nn.functional.interpolate(image, scale_factor=2.0),)

    pipe.vae.decode = decode
    found = linear_map(pipe, pipe.vae)
    scaled = weights.T.numpy() / pipe.vae.config.scaling_factor
    np.testing.assert_allclose(found[:-1], scaled, atol=1e-4)
    assert linear_map(pipe, pipe.vae) is found and len(calls) == 1


def test_linear_frames_have_the_shape_of_exact_ones(pipe):
    exact = record(pipe, frames="exact")
    linear = record(pipe, frames="linear")
    assert linear.frames["latents"].shape == exact.frames["latents"].shape
    assert linear.frames["x0"].std() > 5
    assert linear.frames_source == "linear"


def test_maps_die_with_their_autoencoder():
    gc.collect()
    before = len(decoders._maps)
    pipe = build_pipeline()
    linear_map(pipe, pipe.vae)
    assert len(decoders._maps) == before + 1
    del pipe
    gc.collect()
    assert len(decoders._maps) == before


def test_half_precision_is_upcast_only_by_pipelines_that_do_it():
    pipe = build_pipeline(dtype=torch.float16)
    assert pipe.vae.config.force_upcast
    dtypes = []
    original = pipe.vae.decode
    pipe.vae.decode = lambda latents, **options: (
        dtypes.append(latents.dtype) or original(latents, **options)
    )
    trajectory = record(pipe)
    decode_frames(pipe, trajectory, progress=False)
    assert set(dtypes) == {torch.float16}
    dtypes.clear()
    pipe.upcast_vae = lambda: None
    decode_frames(pipe, trajectory, progress=False)
    assert set(dtypes) == {torch.float32}
    assert pipe.vae.dtype == torch.float16


def test_latents_of_something_else(pipe):
    trajectory = record(pipe)
    packed = lv.Trajectory(trajectory.latents.reshape(5, 1, 64, 4), *np.ones((3, 4)))
    with pytest.raises(ValueError, match=r"these are \(64, 4\)"):
        decode_frames(pipe, packed)
    with pytest.raises(ValueError, match="decoded 'exact' or 'linear'"):
        decode_frames(pipe, trajectory, "quick")

    class Bare:
        vae = None

    with pytest.raises(ValueError, match="no autoencoder"):
        decode_frames(Bare(), trajectory)


def test_progress_goes_to_the_error_stream_and_leaves_nothing(pipe, capsys):
    trajectory = record(pipe)
    decode_frames(pipe, trajectory, progress=True)
    shown = capsys.readouterr()
    assert not shown.out and "Decoding frames" in shown.err
    decode_frames(pipe, trajectory, progress=False)
    assert "Decoding" not in capsys.readouterr().err
