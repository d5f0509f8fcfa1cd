"""Statistics agree with their plain formulas, and bad values are counted rather than spread."""

import math

import numpy as np
import pytest
from trajectories import make_trajectory

from ldm_viz.statistics import (
    channel_maps,
    format_figure,
    format_timestep,
    guidance_delta,
    latent_statistics,
    noise_words,
    prediction_statistics,
    step_words,
)
from ldm_viz.trajectory import Trajectory


@pytest.fixture(scope="module")
def run():
    return make_trajectory(6, batch=2)


def test_latent_statistics_are_the_plain_formulas(run):
    found = latent_statistics(run, 1)
    latents = run.latents[:, 1].astype(np.float64)
    np.testing.assert_allclose(found.mean, latents.mean(axis=(2, 3)))
    np.testing.assert_allclose(found.std, latents.std(axis=(2, 3)))
    np.testing.assert_allclose(found.minimum, latents.min(axis=(1, 2, 3)))
    np.testing.assert_allclose(found.maximum, latents.max(axis=(1, 2, 3)))
    np.testing.assert_allclose(found.norm, np.sqrt((latents**2).sum(axis=(1, 2, 3))))
    assert found.mean.shape == (7, 4) and not found.nonfinite.any()


def test_half_precision_does_not_overflow():
    run = make_trajectory(2, dtype=np.float16)
    latents = np.full_like(run.latents, 60_000)
    found = latent_statistics(run.replace(latents=latents))
    assert found.std.max() == 0 and found.mean[0, 0] == 60_000 and np.isfinite(found.norm).all()


def test_bad_values_are_counted_and_left_out(run):
    latents = run.latents.copy()
    latents[2, 0, 1, 0, :3] = [np.nan, np.inf, -np.inf]
    latents[3, 0, 2] = np.nan
    latents[4] = np.nan
    found = latent_statistics(run.replace(latents=latents))
    kept = latents[2, 0, 1].astype(np.float64).ravel()[3:]
    assert found.nonfinite.tolist() == [0, 0, 3, 256, 1024, 0, 0]
    np.testing.assert_allclose(found.mean[2, 1], kept.mean())
    assert math.isnan(found.mean[3, 2]) and math.isfinite(found.mean[3, 1])
    assert math.isnan(found.norm[4]) and np.isnan(found.std[4]).all()


@pytest.mark.parametrize(
    ("sample", "error"), [(2, IndexError), (-1, IndexError), ("0", TypeError), (True, TypeError)]
)
def test_a_wrong_sample_is_named(run, sample, error):
    with pytest.raises(error, match="sample must be"):
        latent_statistics(run, sample)


def test_prediction_statistics_are_the_plain_formulas(run):
    found = prediction_statistics(run, 1)
    flat = {b: v[:, 1].reshape(6, -1).astype(np.float64) for b, v in run.noise_prediction.items()}
    for branch, values in flat.items():
        np.testing.assert_allclose(found.norms[branch], np.sqrt((values**2).sum(axis=1)))
    u, c, g = flat["unconditional"], flat["conditional"], flat["guided"]
    cosine = (u * c).sum(1) / np.sqrt((u**2).sum(1) * (c**2).sum(1))
    np.testing.assert_allclose(found.between_branches, cosine)
    step = (g[2] @ g[3]) / np.sqrt((g[2] @ g[2]) * (g[3] @ g[3]))
    assert math.isnan(found.between_steps[0]) and found.between_steps[3] == pytest.approx(step)


def test_absent_branches_are_told():
    found = prediction_statistics(make_trajectory(3, branches=False))
    assert found.norms == {} and found.between_branches is None and found.between_steps is None
    assert guidance_delta(make_trajectory(3, branches=False)) is None
    assert prediction_statistics(make_trajectory(0)).between_steps is None


def test_the_guidance_delta_is_conditional_minus_unconditional(run):
    branches = run.noise_prediction
    expected = branches["conditional"] - branches["unconditional"]
    np.testing.assert_array_equal(guidance_delta(run), expected)


def test_packed_latents_are_unpacked_as_flux_packs_them():
    maps = np.arange(2 * 16 * 6 * 8, dtype=np.float32).reshape(2, 16, 6, 8)
    # FluxPipeline._pack_latents
    packed = maps.reshape(2, 16, 3, 2, 4, 2).transpose(0, 2, 4, 1, 3, 5).reshape(2, 12, 64)
    found, note = channel_maps(packed, (12, 64), {"height": 48, "width": 64})
    np.testing.assert_array_equal(found, maps)
    assert "Packed" in note


def test_layouts_that_are_unknown_are_told_in_words():
    for settings in ({}, {"height": 48, "width": None}, {"height": 7, "width": 9000}):
        found, note = channel_maps(np.zeros((2, 12, 64)), (12, 64), settings)
        assert found is None and "12×64" in note
    found, note = channel_maps(np.zeros((2, 768)), (768,), {})
    assert found is None and "768" in note
    video, note = channel_maps(np.arange(2 * 4 * 3 * 5 * 5).reshape(2, 4, 3, 5, 5), (4, 3, 5, 5))
    assert video.shape == (2, 4, 5, 5) and "frame 1 of 3" in note


@pytest.mark.parametrize("shape", [(12, 64), (4, 3, 5, 5), (768,), (3, 2, 2, 2, 2)])
def test_any_latent_shape_has_statistics(shape):
    latents = np.random.default_rng(0).normal(size=(3, 1, *shape))
    nothing = np.full(2, np.nan)
    run = Trajectory(latents=latents, timesteps=nothing, sigmas=nothing, snrs=nothing)
    found = latent_statistics(run)
    assert found.mean.mean() == pytest.approx(latents.mean())
    assert step_words(run, 1) == "step 1 of 2"


def test_noise_levels_are_said_in_words(run):
    assert step_words(run, 0) == "step 0 of 6 · timestep 831 · σ 5.91 · SNR 0.0287: mostly noise"
    said = [noise_words(snr) for snr in (0, 1e-3, 0.1, 1, 10, 1e4, math.inf)]
    assert said == [
        "almost pure noise",
        "almost pure noise",
        "mostly noise",
        "noise and picture in equal parts",
        "mostly picture",
        "almost clean",
        "almost clean",
    ]
    assert noise_words(math.nan) == ""


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3.1234, "3.12"), (0.1, "0.100"), (721, "721"), (-14.648, "−14.6"), (0, "0"), (1e-5, "1.0e-5"),
        (123456, "1.2e5"), (math.nan, "NaN"), (-math.inf, "−∞"), (0.00999, "0.00999"),
    ],
)  # fmt: skip
def test_figures_have_three_digits(value, text):
    assert format_figure(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(961.0, "961"), (957.375, "957.4"), (0.25, "0.250"), (math.nan, "NaN")]
)
def test_timesteps_have_the_digits_they_need(value, text):
    assert format_timestep(value) == text
