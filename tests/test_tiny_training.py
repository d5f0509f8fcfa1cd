"""Training of the embedded model, cut to seconds: every stage runs, resumes, and what it writes loads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ldm_viz.tiny.architecture import build_scheduler, build_tokenizer
from ldm_viz.tiny.classifier import CLASSES, ObjectClassifier, examples
from ldm_viz.tiny.training.data import load_pictures, make_pictures
from ldm_viz.tiny.training.muon import Muon, orthogonalize
from ldm_viz.tiny.training.ranks import Progress, Stage, stratified
from ldm_viz.tiny.training.wording import UNSAID, describe


def test_the_tokenizer_encodes_anything_and_keeps_words_whole():
    tokenizer = build_tokenizer()
    assert tokenizer.tokenize("a Red mushroom") == ["a</w>", "red</w>", "mushroom</w>"]
    assert tokenizer.model_max_length == 32
    for text in ("", "日本語 ∑ 🎈", "x" * 500, "<script>"):
        ids = tokenizer(text, truncation=True, padding="max_length", max_length=32).input_ids
        assert len(ids) == 32
        assert ids[0] == tokenizer.bos_token_id
        assert tokenizer.eos_token_id in ids
    ids = tokenizer("a red boat at sea").input_ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == "a red boat at sea"
    again = build_tokenizer()
    assert again.get_vocab() == tokenizer.get_vocab()


def test_captions_as_tokens_mark_what_is_left_unsaid(tmp_path):
    tokenizer = build_tokenizer()
    attributes = np.array([[0, 1, 2, 3, 0, 1]] * 30)
    tokens, said = describe(attributes, np.random.default_rng(0), tokenizer)
    assert tokens.shape == (30, 32)
    assert ((said == torch.from_numpy(attributes)) | (said == UNSAID)).all()
    assert (said == UNSAID).any() and (said != UNSAID).any(1).all()


def test_pictures_do_not_depend_on_the_number_of_processes(tmp_path):
    for ranks in (1, 2):
        (tmp_path / str(ranks)).mkdir()
        make_pictures(tmp_path / str(ranks), 30, seed=5, ranks=ranks)
    one, two = load_pictures(tmp_path / "1"), load_pictures(tmp_path / "2")
    assert (one[0] == two[0]).all() and (one[1] == two[1]).all()


def test_stratified_times_cover_every_stretch():
    drawn = stratified(50, np.random.default_rng(0))
    assert sorted((drawn * 50).long().tolist()) == list(range(50))


def test_the_learning_rate_rises_stays_and_falls():
    rates = [Progress(1000, 1.0, 100, 0.4, seen).share for seen in range(0, 1001, 50)]
    assert rates[0] < 0.02 and rates[2:12] == [1.0] * 10
    assert rates[13:] == sorted(rates[13:], reverse=True) and rates[-1] == pytest.approx(0.02)


def test_a_stage_goes_on_from_its_checkpoint(tmp_path):
    def stage() -> Stage:
        torch.manual_seed(0)
        return Stage("toy", tmp_path, {"m": nn.Linear(3, 1)}, Progress(400, 0.1, 1, 0.5))

    def work(s: Stage, samples: int) -> None:
        while s.progress.samples < samples:
            x = torch.ones(2, 3)
            s.step((s.modules["m"](x) - 3).square().mean(), 2)

    whole = stage()
    work(whole, 200)
    first = Stage("cut", tmp_path, {"m": nn.Linear(3, 1)}, Progress(400, 0.1, 1, 0.5))
    first.modules["m"].load_state_dict(stage().modules["m"].state_dict())
    work(first, 100)
    first.save()
    second = Stage("cut", tmp_path, {"m": nn.Linear(3, 1)}, Progress(400, 0.1, 1, 0.5))
    assert second.progress.samples == 100
    work(second, 200)
    for a, b in zip(whole.modules["m"].parameters(), second.modules["m"].parameters(), strict=True):
        torch.testing.assert_close(a, b)


def test_a_resumed_stage_takes_the_rates_asked_for(tmp_path):
    def stage(rate: float, muon_rate: float = 0.02, **more: nn.Module) -> Stage:
        torch.manual_seed(0)
        modules = {"m": nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)), **more}
        return Stage(
            "two", tmp_path, modules, Progress(400, rate, 1, 0.5), rates={"0.bias": 2.0},
            muon_rate=muon_rate,
        )  # fmt: skip

    first = stage(0.1)
    first.step(first.modules["m"](torch.ones(2, 3)).square().mean(), 2)
    first.save()
    momentum = [v["velocity"] for v in first.optimizers[1].state.values()]
    again = stage(0.05)
    peaks = {g["peak"] for o in again.optimizers for g in o.param_groups}
    assert peaks == {0.05, 0.1, 0.02} and again.progress.samples == 2
    for kept, found in zip(momentum, again.optimizers[1].state.values(), strict=True):
        torch.testing.assert_close(found["velocity"], kept)
    for other in (stage(0.1, muon_rate=0.0), stage(0.1, n=nn.Linear(2, 2))):
        assert other.progress.samples == 2, "weights go on, the optimiser begins anew"
        assert not any(o.state for o in other.optimizers)
        torch.testing.assert_close(other.modules["m"][0].weight, first.modules["m"][0].weight)


@pytest.mark.parametrize("shape", [(8, 32), (32, 8), (16, 16)])
def test_muon_makes_updates_orthogonal(shape):
    torch.manual_seed(0)
    parts = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    sizes = torch.logspace(0, -1.3, min(shape))  # the smallest a twentieth of the largest
    update = orthogonalize(30 * parts.U @ torch.diag(sizes) @ parts.Vh)
    along = torch.diag(parts.U.T @ update @ parts.Vh.T)
    assert along.min() > 0.6 and along.max() < 1.25, "each direction is kept, its size is near 1"
    torch.testing.assert_close(parts.U @ torch.diag(along) @ parts.Vh, update, atol=1e-3, rtol=0)


def test_muon_learns_with_matrices_and_kernels():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.Flatten(), nn.Linear(96, 1))
    matrices = [p for p in network.parameters() if p.ndim > 1]
    muon = Muon([{"params": matrices}], lr=0.02)
    x = torch.randn(64, 2, 4, 4)
    target = x[:, :1].mean((2, 3)) - 0.5 * x[:, 1:].mean((2, 3))
    losses = []
    for _ in range(60):
        loss = (network(x) - target).square().mean()
        losses.append(loss.item())
        muon.zero_grad()
        loss.backward()
        muon.step()
    assert losses[-1] < 0.3 * losses[0]
    with pytest.raises(ValueError, match="no closure"):
        muon.step(lambda: 0.0)


def test_the_classifier_saves_and_loads(tmp_path):
    pictures, classes = examples(seed=0, start=0, count=24)
    assert set(classes) <= set(range(len(CLASSES))) and (classes == len(CLASSES) - 1).any()
    model = ObjectClassifier()
    model.save(tmp_path / "c.safetensors")
    again = ObjectClassifier.load(tmp_path / "c.safetensors")
    for kept, read in zip(model.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(read, kept.half().float(), rtol=0, atol=0)
    assert again.classify(pictures) == again.classify(pictures, batch=7)


def test_all_stages_from_nothing_to_a_pipeline_that_draws(tmp_path):
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    command = [
        sys.executable, "-m", "ldm_viz.tiny.training", "--effort", "0.004", "--ranks", "1",
        "--work", str(tmp_path / "work"), "--target", str(tmp_path / "model"),
    ]  # fmt: skip
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    from diffusers import StableDiffusionPipeline

    model = tmp_path / "model"
    pipe = StableDiffusionPipeline.from_pretrained(
        model, torch_dtype=torch.float32, safety_checker=None, requires_safety_checker=False
    )
    assert pipe("a red boat", num_inference_steps=2).images[0].size == (64, 64)
    pipe.load_ip_adapter(str(model), subfolder="adapter", weight_name="adapter.safetensors")
    embeds = [torch.randn(2, 1, 128)]
    made = pipe("", ip_adapter_image_embeds=embeds, num_inference_steps=2).images[0]
    assert made.size == (64, 64)
    assert pipe.scheduler.config.prediction_type == build_scheduler().config.prediction_type
    for file in Path(model).rglob("*.json"):
        assert "_name_or_path" not in json.dumps(json.loads(file.read_text()))
    assert (model / "judge" / "classifier.safetensors").is_file()


def test_the_training_command_refuses_nonsense(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "ldm_viz.tiny.training", "--ranks", "0"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and "--ranks" in done.stderr
