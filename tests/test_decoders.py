"""Frames: exactly the pipeline's own pictures, or a linear map that is close; nothing else
touched."""

import gc
import weakref

import diffusers
import numpy as np
import PIL.Image
import pytest
import torch
from pipelines import build_pipeline, call_arguments, use_scheduler
from zoo import ZOO, autoencoder, flow_autoencoder

import ldm_viz as lv
from ldm_viz.capture import RecordingWarning, decoders, linear, scaling
from ldm_viz.capture.calls import DecoderCall
from ldm_viz.capture.finding import find_decoding
from ldm_viz.capture.frames import decode_frames
from ldm_viz.capture.linear import linear_map
from ldm_viz.latent_layouts import guess_layout


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
    monkeypatch.setitem(decoders._PIXELS_AT_ONCE, "cpu", at_once)
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
    linear._maps.clear()
    for method in ("exact", "linear"):
        np.asarray(decode_frames(pipe, trajectory, method, progress=False).frames["latents"])
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

    decoding = find_decoding(pipe, record(pipe))
    pipe.vae.decode = decode
    found = linear_map(decoding, 2)
    scaled = weights.T.numpy() / pipe.vae.config.scaling_factor
    np.testing.assert_allclose(found[:-1], scaled, atol=1e-4)
    assert linear_map(decoding, 2) is found and len(calls) == 1


def test_linear_frames_have_the_shape_of_exact_ones(pipe):
    exact = record(pipe, frames="exact")
    linear = record(pipe, frames="linear")
    assert linear.frames["latents"].shape == exact.frames["latents"].shape
    assert linear.frames["x0"].std() > 5
    assert linear.frames_source == "linear"


def test_maps_die_with_their_autoencoder():
    gc.collect()
    before = len(linear._maps)
    pipe = build_pipeline()
    trajectory = record(pipe, frames="linear")
    assert trajectory.frames["x0"].shape == (4, 1, 16, 16, 3)
    assert len(linear._maps) == before + 1
    del pipe, trajectory
    gc.collect()
    assert len(linear._maps) == before


def test_half_precision_is_upcast_only_by_pipelines_that_do_it():
    pipe = build_pipeline(dtype=torch.float16)
    assert pipe.vae.config.force_upcast
    dtypes = []
    original = pipe.vae.decode
    pipe.vae.decode = lambda latents, **options: (
        dtypes.append(latents.dtype) or original(latents, **options)
    )
    trajectory = record(pipe)
    np.asarray(decode_frames(pipe, trajectory, progress=False).frames["x0"])
    assert set(dtypes) == {torch.float16}
    dtypes.clear()
    scaling._seen.clear()
    pipe.upcast_vae = lambda: None
    np.asarray(decode_frames(pipe, trajectory, progress=False).frames["x0"])
    assert set(dtypes) == {torch.float32}
    assert pipe.vae.dtype == torch.float16


def test_latents_of_something_else(pipe):
    trajectory = record(pipe)
    packed = lv.Trajectory(trajectory.latents.reshape(5, 1, 64, 4), *np.ones((3, 4)))
    with pytest.raises(
        ValueError, match=r"shape \(64, 4\) do not fit the pipeline's AutoencoderKL"
    ):
        decode_frames(pipe, packed)
    with pytest.raises(ValueError, match="must be 'exact', 'linear', an AutoencoderTiny"):
        decode_frames(pipe, trajectory, "quick")

    class Bare:
        def __init__(self):
            self.vae = None

    with pytest.raises(ValueError, match="no autoencoder"):
        decode_frames(Bare(), trajectory)


def test_progress_goes_to_the_error_stream_and_leaves_nothing(pipe, capsys):
    trajectory = record(pipe)
    frames = decode_frames(pipe, trajectory, progress=True).frames["x0"]
    assert not capsys.readouterr().err
    np.asarray(frames)
    shown = capsys.readouterr()
    assert not shown.out and "Decoding frames" in shown.err
    np.asarray(decode_frames(pipe, trajectory, progress=False).frames["x0"])
    assert "Decoding" not in capsys.readouterr().err


def test_only_what_is_looked_at_is_decoded(pipe, monkeypatch):
    trajectory = record(pipe, frames="exact", num_images_per_prompt=2)
    decoded = []
    original = pipe.vae.decode
    monkeypatch.setattr(
        pipe.vae, "decode", lambda z, *a, **k: decoded.append(len(z)) or original(z, *a, **k)
    )
    frames = trajectory.frames["x0"]
    assert frames.shape == (4, 2, 16, 16, 3) and frames.dtype == np.uint8 and not decoded
    one = frames[1, 1]
    assert decoded == [1] and one.shape == (16, 16, 3)
    assert np.array_equal(frames[1][1], one) and decoded == [1, 1]
    assert np.array_equal(trajectory[1:3].select(1).frames["x0"][0, 0], one)
    assert np.array_equal(frames[..., 1, :, :, :][1], one) and sum(decoded) == 6
    whole = np.asarray(frames)
    assert sum(decoded) == 8, "each is decoded once"
    assert np.array_equal(frames[:, :, 2:5, -1], whole[:, :, 2:5, -1])
    assert np.array_equal(frames[[0, 2], 1], whole[[0, 2], 1])
    assert np.array_equal(frames[None, -1], whole[None, -1])
    assert frames.mean() == whole.mean() and (frames == whole).all()
    with pytest.raises(IndexError):
        frames[4]
    with pytest.raises(ValueError, match="read-only"):
        whole[0] = 0


def test_a_small_autoencoder(pipe):
    tiny = diffusers.AutoencoderTiny(
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
        latent_channels=4,
    ).eval()
    trajectory = record(pipe, frames=tiny)
    assert trajectory.frames_source == "tiny"
    with torch.no_grad():
        image = tiny.decode(torch.tensor(trajectory.latents[-1])).sample
    expected = pipe.image_processor.postprocess(image, "np")
    assert np.array_equal(trajectory.frames["latents"][-1], (expected * 255).round())


def test_a_function_of_ones_own(pipe):
    shapes = []

    def paint(latents):
        shapes.append(tuple(latents.shape))
        return [PIL.Image.new("RGB", (6, 5), (int(i), 2, 3)) for i in range(len(latents))]

    trajectory = record(pipe, frames=paint, num_images_per_prompt=2)
    assert trajectory.frames_source == "custom"
    assert trajectory.frames["x0"].shape == (4, 2, 5, 6, 3)
    assert (trajectory.frames["x0"][1] == [[[[0, 2, 3]]], [[[1, 2, 3]]]]).all()
    assert {shape[1:] for shape in shapes} == {(4, 8, 8)}
    with pytest.warns(
        RecordingWarning, match=r"must return uint8 pictures of shape \(1, h, w, 3\)"
    ):
        wrong = record(pipe, frames=lambda latents: latents)
    assert not wrong.frames and wrong.complete


def calls_of(vae, given, **kwargs):
    return [DecoderCall(vae, given, (), {"return_dict": False} | kwargs, (len(given), 3, 16, 16))]


@pytest.mark.parametrize("name", ["divided", "times the reciprocal", "shifted", "as they are"])
def test_the_scaling_is_learnt_from_what_was_decoded(pipe, name):
    vae = flow_autoencoder()
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    given = scaling._TABLE[name](latents, vae)
    learned = scaling.learn_decoding(latents.numpy(), calls_of(vae, given))
    assert learned.exact and torch.equal(learned.prepare(latents), given)


def test_an_unknown_scaling_is_fitted_to_what_was_decoded():
    """As in models that normalise packed latents: each place of a patch has its own factor."""
    vae = autoencoder(4)
    generator = torch.Generator().manual_seed(0)
    packed = torch.randn(2, 16, 16, generator=generator)
    layout = guess_layout((16, 16), 4, (16, 16))
    factors = torch.rand(16, generator=generator) + 0.5
    given = layout.unpack(packed * factors + 0.1 * factors)
    learned = scaling.learn_decoding(packed.numpy(), calls_of(vae, given))
    assert not learned.exact and learned.scaling == "fitted"
    other = torch.randn(3, 16, 16, generator=generator)
    expected = layout.unpack(other * factors + 0.1 * factors)
    np.testing.assert_allclose(learned.prepare(other), expected, atol=1e-5)
    noise = torch.randn(given.shape, generator=generator)
    assert scaling.learn_decoding(packed.numpy(), calls_of(vae, noise)) is None


def test_a_scaling_from_outside(pipe, monkeypatch):
    monkeypatch.setattr(scaling, "_TABLE", dict(scaling._TABLE))
    monkeypatch.setattr(scaling, "_seen", weakref.WeakKeyDictionary())
    lv.add_scaling("tripled", lambda latents, vae: 3 * latents)
    assert find_decoding(pipe, record(pipe, output_type="latent")).scaling == "tripled"
    trajectory = record(pipe, frames="exact")
    assert trajectory.settings["latent_scaling"] == "divided", "what was seen outweighs the table"
    assert np.array_equal(trajectory.frames["latents"][-1], trajectory.images)
    with pytest.raises(TypeError, match="must be a function"):
        lv.add_scaling("none", None)


def test_what_was_seen_serves_a_run_that_decodes_nothing(pipe):
    decoded = record(pipe, frames="exact")
    latent = record(pipe, frames="exact", output_type="latent")
    assert np.array_equal(latent.frames["x0"][0], decoded.frames["x0"][0])
    assert np.array_equal(latent.frames["latents"][-1], decoded.images)


def test_decoders_that_draw_noise_draw_the_same(pipe, monkeypatch):
    """With the generator as it was when the pipeline decoded, and without touching the user's."""
    original = pipe.vae.decode

    def decode(z, return_dict=True, generator=None):
        noise = torch.randn(z.shape, generator=generator)
        return original(z + noise, return_dict=return_dict)

    monkeypatch.setattr(pipe.vae, "decode", decode)
    generator = torch.Generator().manual_seed(3)
    with lv.Recorder(pipe) as recorder:
        pipe(**call_arguments("text-to-image", generator=generator))
    state = generator.get_state()
    trajectory = recorder.trajectory
    assert np.array_equal(trajectory.frames["latents"][-1], trajectory.images)
    assert torch.equal(state, generator.get_state())


def test_pictures_after_the_pipeline_is_gone():
    pipe = build_pipeline()
    trajectory = record(pipe, frames="exact")
    unet = weakref.ref(pipe.unet)
    del pipe
    gc.collect()
    assert unet() is None, "of the pipeline only the decoder is kept"
    assert np.array_equal(trajectory.frames["latents"][-1], trajectory.images)


@pytest.mark.parametrize(("frames", "chunk"), [(3, 2), (5, 3), (4, 4)])
def test_frames_that_are_decoded_in_chunks(frames, chunk):
    """With Stable Video Diffusion each chunk is told how many frames it has."""
    specimen = next(s for s in ZOO if s.pipeline == "StableVideoDiffusionPipeline")
    pipe = specimen.build()
    given = specimen.arguments() | {"num_frames": frames, "decode_chunk_size": chunk}
    with lv.Recorder(pipe) as recorder:
        pipe(**given)
    trajectory = recorder.trajectory
    assert trajectory.frames["x0"].shape[1:3] == (1, frames)
    assert np.array_equal(trajectory.frames["latents"][-1], trajectory.images)
    shown = trajectory.frames["latents"][1, 0]
    planes = np.swapaxes(trajectory.latents[1], 0, 1)[:, 0] / np.sqrt(1 + trajectory.sigmas[1] ** 2)
    factor = pipe.vae.config.scaling_factor
    parts = torch.tensor(planes.astype(np.float32) / factor).split(chunk)
    with torch.no_grad():
        made = torch.cat([pipe.vae.decode(part, num_frames=len(part)).sample for part in parts])
    expected = ((made / 2 + 0.5).clamp(0, 1) * 255).round().permute(0, 2, 3, 1).numpy()
    assert np.abs(shown - expected).max() <= 1


@pytest.mark.parametrize(
    "name",
    [
        "KandinskyV22Pipeline",
        "StableCascadeDecoderPipeline",
        "Flux2KleinPipeline",
        "FluxPipeline",
        "QwenImagePipeline",
        "StableVideoDiffusionPipeline",
    ],
)
def test_a_run_that_decodes_nothing_is_decoded_by_what_its_parts_say(name):
    specimen = next(s for s in ZOO if s.pipeline == name)
    pipe, given = specimen.build(), specimen.arguments()
    with lv.Recorder(pipe) as recorder:
        pipe(**given, **{} if "output_type" in given else {"output_type": "np"})
    seen = recorder.trajectory
    scaling._seen.clear()
    with lv.Recorder(pipe) as recorder:
        pipe(**specimen.arguments() | {"output_type": "latent"})
    guessed = recorder.trajectory
    assert "recording_faults" not in guessed.settings
    difference = np.asarray(seen.frames["x0"]).astype(int) - guessed.frames["x0"]
    assert np.abs(difference).max() <= 1


@pytest.mark.parametrize(
    ("kept", "found"), [(slice(2, None), slice(2, None)), (slice(3), slice(3))]
)
def test_frames_that_only_condition_are_left_out(kept, found):
    """As with Wan VACE, which puts reference pictures before the video and drops them again."""
    vae = autoencoder(4)
    latents = torch.randn(1, 4, 5, 8, 8, generator=torch.Generator().manual_seed(0))
    given = latents[:, :, kept] / vae.config.scaling_factor
    call = DecoderCall(vae, given, (), {"return_dict": False}, (1, 3, 3, 16, 16))
    learned = scaling.learn_decoding(latents.numpy(), [call])
    assert learned.exact and learned.frames == found
    assert torch.equal(learned.prepare(latents), given)


def test_latents_that_are_changed_after_the_loop_are_noticed(pipe):
    plain = record(pipe)
    assert "latent_note" not in plain.settings
    call = DecoderCall(pipe.vae, torch.rand(1, 4, 8, 8), (), {"return_dict": False}, (1, 3, 16, 16))
    decoding = find_decoding(pipe, plain, [call])
    assert not decoding.follows and decoding.calls == (call,)
    other = DecoderCall(pipe.vae, torch.rand(1, 4, 4, 4), (), {}, (1, 3, 8, 8))
    decoding = find_decoding(pipe, plain, [other])
    assert not decoding.follows and not decoding.calls


def test_a_small_autoencoder_of_another_model(pipe):
    tiny = diffusers.AutoencoderTiny(
        encoder_block_out_channels=(8,), decoder_block_out_channels=(8,),
        num_encoder_blocks=(1,), num_decoder_blocks=(1,), latent_channels=16,
    )  # fmt: skip
    with pytest.warns(RecordingWarning, match="16 channels; the run's have 4"):
        trajectory = record(pipe, frames=tiny)
    assert not trajectory.frames


@pytest.mark.parametrize(
    ("video", "name"), [(True, "video"), (False, "one frame"), (None, "one frame")]
)
def test_a_video_of_one_frame_is_what_the_pipeline_returned(video, name):
    vae = autoencoder(4)
    latents = torch.randn(2, 4, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    given = latents[:, :, 0] / vae.config.scaling_factor
    learned = scaling.learn_decoding(latents.numpy(), calls_of(vae, given), video=video)
    assert learned.exact and learned.layout.name == name
    assert torch.equal(learned.prepare(latents), given)
