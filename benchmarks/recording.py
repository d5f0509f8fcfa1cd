"""What recording a run costs: beside the bare pipeline, and beside decoding in a callback.

Every round runs each way once, in a shuffled order; what counts are the ratios within a round, so
that slow changes of the machine cancel out. Peak memory is read in a process of its own for each
way.

    python benchmarks/recording.py --model tiny
    python benchmarks/recording.py --model sd15 --json sd15.json
"""

from __future__ import annotations

import argparse
import functools
import gc
import json
import os
import platform
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import psutil
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from machine import Load, processor
from transformers import CLIPTextConfig, CLIPTextModel

import ldm_viz as lv
from ldm_viz.tiny.loading import GUIDANCE, STEPS

SEED = 7
PROMPT = "a small blue boat on the water at sunset"
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)


@dataclass(frozen=True)
class Subject:
    """A pipeline, and what it is called with each time."""

    pipe: Any
    arguments: dict[str, Any]
    device: str

    @property
    def steps(self) -> int:
        """Denoising steps of a call."""
        return self.arguments["num_inference_steps"]

    def run(self, **more: Any) -> Any:
        """Calls the pipeline and returns its pictures."""
        generator = torch.Generator().manual_seed(SEED)
        return self.pipe(**self.arguments, **more, generator=generator).images

    def clock(self) -> float:
        """The time, once all that was queued on a GPU is done."""
        if self.device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()


# The ways to run it


def bare(subject: Subject) -> Any:
    """The pipeline as it is."""
    return subject.run()


def recorded(subject: Subject, frames: str | None) -> Any:
    """Everything kept, and all pictures looked at."""
    with lv.Recorder(subject.pipe, frames=frames, progress=False) as recorder:
        images = subject.run()
    pictures = all_pictures(recorder.trajectory) if frames else {}
    return images, recorder.trajectory, pictures


def classic(subject: Subject) -> Any:
    """A callback that decodes the latents at every step."""
    pictures = []

    def keep(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        latents = tensors["latents"] / pipe.vae.config.scaling_factor
        image = pipe.vae.decode(latents, return_dict=False)[0]
        pictures.extend(pipe.image_processor.postprocess(image, output_type="pil"))
        return tensors

    return subject.run(callback_on_step_end=keep), pictures


def all_pictures(trajectory: Any) -> dict[str, np.ndarray]:
    """Every frame as an array, whether it was decoded before or is only now."""
    return {name: np.asarray(trajectory.frames[name]) for name in ("latents", "x0")}


WAYS: dict[str, Callable[[Subject], Any]] = {
    "bare": bare,
    "recorded, with linear pictures": functools.partial(recorded, frames="linear"),
    "recorded, without pictures": functools.partial(recorded, frames=None),
    "classic callback": classic,
}
EXACT = "recorded, with exact pictures"
MEMORY_WAYS = WAYS | {EXACT: functools.partial(recorded, frames="exact")}


# The pipelines


def load(options: argparse.Namespace) -> Subject:
    """Loads the pipeline that the options name."""
    if options.model == "tiny":
        return Subject(
            lv.load_tiny(device=options.device),
            {"prompt": PROMPT, "num_inference_steps": options.steps, "guidance_scale": GUIDANCE},
            options.device,
        )
    dtype = torch.float16 if options.device == "cuda" else torch.float32
    pipe = full_size(options.device, dtype)
    embeds = torch.randn(2, 1, 77, 768, generator=torch.Generator().manual_seed(SEED))
    with_prompt, without = embeds.to(options.device, dtype)
    arguments = {
        "prompt_embeds": with_prompt,
        "negative_prompt_embeds": without,
        "num_inference_steps": options.steps,
        "guidance_scale": 7.5,
        "height": options.size,
        "width": options.size,
    }
    return Subject(pipe, arguments, options.device)


def full_size(device: str, dtype: torch.dtype) -> StableDiffusionPipeline:
    """Stable Diffusion 1.5 as to its size; its weights are random numbers."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
        vae = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            sample_size=512,
        )
    text = CLIPTextConfig(
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        projection_dim=768,
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
    )
    pipe = StableDiffusionPipeline(
        vae=filled(vae, device, dtype),
        text_encoder=CLIPTextModel(text).to(device, dtype).eval(),
        tokenizer=None,
        unet=filled(unet, device, dtype),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def filled(module: torch.nn.Module, device: str, dtype: torch.dtype) -> torch.nn.Module:
    """Gives weights to a module without any: small ones, so that all it computes is finite."""
    module = torch.nn.Module.to(module, dtype).to_empty(device=device)  # ModelMixin's to warns
    module.eval().requires_grad_(False)
    torch.manual_seed(SEED)
    for name, parameter in module.named_parameters():
        if parameter.ndim > 1:
            parameter.normal_(0, 0.02)
        else:
            parameter.fill_(1.0 if name.endswith("weight") else 0.0)
    return module


# Time


def timed(subject: Subject, way: Callable[[], Any]) -> dict[str, float]:
    """Seconds on the clock and of all cores; what the way returns is let go afterwards."""
    gc.collect()
    gc.disable()
    try:
        begin, cpu = subject.clock(), time.process_time()
        result = way()
        seconds, cpu = subject.clock() - begin, time.process_time() - cpu
    finally:
        gc.enable()
    del result
    return {"seconds": seconds, "cpu": cpu}


def measure_rounds(
    subject: Subject, ways: dict[str, Callable[[], Any]], rounds: int, label: str
) -> list[dict[str, dict[str, float]]]:
    """Runs every way once a round, in an order that a fixed seed shuffles."""
    order, shuffle = list(ways), random.Random(SEED)
    measured = []
    for number in range(rounds):
        tell(f"{label}: round {number + 1} of {rounds}")
        shuffle.shuffle(order)
        measured.append({name: timed(subject, ways[name]) for name in order})
    return measured


def summarise(
    measured: list[dict[str, dict[str, float]]], base: str
) -> dict[str, dict[str, float]]:
    """Medians of each way, and of its ratio to the base within a round."""
    summary = {}
    for name in sorted(measured[0]):
        seconds, ratio = column(measured, name, "seconds"), ratios(measured, name, base, "seconds")
        low, high = interval(ratio)
        tenth, ninetieth = np.percentile(ratio, [10, 90])
        summary[name] = {
            "seconds": np.median(seconds),
            "added_seconds": np.median(seconds - column(measured, base, "seconds")),
            "ratio": np.median(ratio),
            "ratio_ci95_low": low,
            "ratio_ci95_high": high,
            "ratio_p10": tenth,
            "ratio_p90": ninetieth,
            "cpu_seconds": np.median(column(measured, name, "cpu")),
            "cpu_ratio": np.median(ratios(measured, name, base, "cpu")),
        }
    return {n: {k: float(v) for k, v in values.items()} for n, values in summary.items()}


def column(measured: list[dict[str, dict[str, float]]], name: str, what: str) -> np.ndarray:
    """One way's figures, round by round."""
    return np.array([figures[name][what] for figures in measured])


def ratios(
    measured: list[dict[str, dict[str, float]]], name: str, base: str, what: str
) -> np.ndarray:
    """One way's figures over another's of the same round."""
    return column(measured, name, what) / column(measured, base, what)


def interval(values: np.ndarray) -> tuple[float, float]:
    """95 % confidence interval of the median, by bootstrap."""
    draws = np.random.default_rng(SEED).choice(values, (5000, len(values)))
    low, high = np.percentile(np.median(draws, axis=1), [2.5, 97.5])
    return float(low), float(high)


def warm_up(subject: Subject) -> dict[str, Any]:
    """Runs everything once.

    Returns:
        What the linear map's fit costs, the first time less the second; and whether the recorded
        run's picture is the bare one's.
    """
    tell("warm-up")
    reference = subject.run(output_type="np")
    with lv.Recorder(subject.pipe, frames=None, progress=False) as recorder:
        same = np.array_equal(reference, subject.run(output_type="np"))
    run = recorder.trajectory
    if "recording_faults" in run.settings:
        raise RuntimeError(f"not all was recorded: {run.settings['recording_faults']}")
    first, second = (
        timed(subject, lambda: all_pictures(recorder.decode(run, "linear"))) for _ in range(2)
    )
    return {"fit_seconds": first["seconds"] - second["seconds"], "same_picture": same}


# Exact pictures afterwards


def measure_exact(subject: Subject, rounds: int) -> dict[str, Any]:
    """Exact pictures of a recorded run, and the autoencoder alone with as many latents."""
    with lv.Recorder(subject.pipe, frames=None, progress=False) as recorder:
        subject.run()
    run = recorder.trajectory
    rows = np.concatenate([run.latents, run.x0]).reshape(-1, *run.latent_shape)
    latents = torch.from_numpy(rows).to(subject.device, subject.pipe.vae.dtype)
    tell("exact pictures: looking for the best batch size")
    each = {size: probe(subject, latents, size) for size in BATCH_SIZES if size <= len(latents)}
    best = min(each, key=each.__getitem__)
    ways = {
        "bare decoding": lambda: decode_bare(subject, latents, best),
        "exact pictures": lambda: all_pictures(recorder.decode(run, "exact")),
    }
    measured = measure_rounds(subject, ways, rounds, "exact pictures")
    return {
        "pictures": len(latents),
        "seconds_a_picture_by_batch_size": each,
        "best_batch_size": best,
        "rounds": measured,
        "summary": summarise(measured, "bare decoding"),
    }


@torch.no_grad()
def decode_bare(subject: Subject, latents: torch.Tensor, size: int) -> np.ndarray:
    """Latents to bytes by the autoencoder, a batch at a time."""
    vae = subject.pipe.vae
    parts = []
    for batch in latents.split(size):
        image = vae.decode(batch / vae.config.scaling_factor, return_dict=False)[0]
        image = (image / 2 + 0.5).clamp(0, 1).float().mul(255).round().to(torch.uint8)
        parts.append(image.permute(0, 2, 3, 1).cpu().numpy())
    return np.concatenate(parts)


def probe(subject: Subject, latents: torch.Tensor, size: int) -> float:
    """Seconds a picture takes in batches of a size: the best of a few, or one if it is slow."""
    seconds: list[float] = []
    try:
        while len(seconds) < 2 or (sum(seconds) < 0.5 and len(seconds) < 20):
            one = timed(subject, lambda: decode_bare(subject, latents[:size], size))
            seconds.append(one["seconds"])
            if one["seconds"] > 3:
                break
    except torch.OutOfMemoryError:
        return float("inf")
    return min(seconds) / size


# Memory


def measure_memory(options: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Peak memory of each way, run once in a process that does nothing else."""
    peaks = {}
    for name in MEMORY_WAYS:
        tell(f"memory: {name}")
        command = [sys.executable, __file__, "--memory-of", name, "--model", options.model]
        for option in ("steps", "size", "threads", "device"):
            command += [f"--{option}", str(getattr(options, option))]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        peaks[name] = json.loads(done.stdout.splitlines()[-1])
    return peaks


def peak_of(options: argparse.Namespace) -> dict[str, float]:
    """Runs one way once; MiB at its peak above what the loaded pipeline takes."""
    subject = load(options)
    gc.collect()
    cuda = options.device == "cuda"
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        on_gpu = torch.cuda.memory_allocated()
    loaded = reset_peak()
    kept = MEMORY_WAYS[options.memory_of](subject)
    peaks = {"host": peak_rss() - loaded, "loaded": loaded}
    if cuda:
        torch.cuda.synchronize()
        peaks["gpu"] = (torch.cuda.max_memory_allocated() - on_gpu) / 2**20
    del kept
    return peaks


def reset_peak() -> float:
    """Lets the kernel's high-water mark begin anew; returns what is resident now, in MiB."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        tell("the high-water mark cannot be reset here: loading the pipeline may hide peaks")
    return psutil.Process().memory_info().rss / 2**20


def peak_rss() -> float:
    """The high-water mark of resident memory, in MiB.

    On Linux it is read where a fresh process begins at nothing: ``ru_maxrss`` goes on from its
    parent's.
    """
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        import resource

        unit = 2**20 if sys.platform == "darwin" else 2**10
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    return int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 1024


# The machine


def describe_machine(options: argparse.Namespace) -> dict[str, Any]:
    """What the figures depend on."""
    cuda = options.device == "cuda"
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if cuda else "cpu",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "diffusers": diffusers.__version__,
        "ldm_viz": lv.__version__,
    }


# What is printed


def tell(text: str) -> None:
    """Says on stderr what goes on."""
    print(text, file=sys.stderr, flush=True)


def report(result: dict[str, Any]) -> str:
    """All figures as text."""
    machine, load = result["machine"], result["load"]
    lines = [
        "{model}: {steps} steps, {size}x{size}, {count} rounds".format(
            **result, count=len(result["rounds"])
        ),
        "{processor}, {cores} cores, {threads} torch threads, torch {torch}, diffusers "
        "{diffusers}, on {device}, ".format(**machine)
        + "load {load_begin:.2f} at the beginning and {load_end:.2f} at the end; in the rounds "
        "others kept {cores_of_others:.2f} cores busy".format(**load),
        "",
        *time_table(result["summary"], result["steps"]),
        "",
        f"fitting the linear map, once for an autoencoder: {result['fit_seconds']:.3f} s",
        f"the recorded run's picture is the bare one's: {'yes' if result['same_picture'] else 'NO'}",
    ]
    if result["memory"]:
        lines += ["", *memory_table(result["memory"])]
    if result["exact"]:
        lines += ["", *exact_table(result["exact"])]
    return "\n".join(lines)


def time_table(summary: dict[str, dict[str, float]], steps: int) -> list[str]:
    """One line a way; ratios are to the bare pipeline of the same round."""
    head = f"{'':31}{'median s':>9}{'ratio':>8}{'95% CI':>15}{'10-90%':>15}"
    lines = [head + f"{'CPU ratio':>11}{'ms a step':>11}"]
    for name in WAYS:
        s = summary[name]
        lines.append(
            f"{name:31}{s['seconds']:9.3f}{s['ratio']:8.3f}"
            f"{s['ratio_ci95_low']:8.3f}-{s['ratio_ci95_high']:<6.3f}"
            f"{s['ratio_p10']:8.3f}-{s['ratio_p90']:<6.3f}"
            f"{s['cpu_ratio']:11.3f}{s['added_seconds'] / steps * 1000:+11.2f}"
        )
    return lines


def memory_table(memory: dict[str, dict[str, float]]) -> list[str]:
    """Peaks above the loaded pipeline."""
    gpu = any("gpu" in peaks for peaks in memory.values())
    lines = [f"{'peak above the loaded pipeline':31}{'MiB':>9}" + f"{'GPU MiB':>9}" * gpu]
    for name, peaks in memory.items():
        lines.append(f"{name:31}{peaks['host']:9.1f}" + (f"{peaks['gpu']:9.1f}" if gpu else ""))
    return lines


def exact_table(exact: dict[str, Any]) -> list[str]:
    """Exact pictures after the run, beside the autoencoder alone."""
    each = exact["seconds_a_picture_by_batch_size"]
    lines = [
        f"{exact['pictures']} exact pictures after the run; ms a picture by batch size: "
        + ", ".join(f"{size}: {1000 * seconds:.1f}" for size, seconds in each.items())
        + f"; best: {exact['best_batch_size']}"
    ]
    for name, s in exact["summary"].items():
        lines.append(
            f"{name:31}{s['seconds']:9.3f}{s['ratio']:8.3f}"
            f"{s['ratio_ci95_low']:8.3f}-{s['ratio_ci95_high']:<6.3f}"
            f"{s['ratio_p10']:8.3f}-{s['ratio_p90']:<6.3f}{s['cpu_ratio']:11.3f}"
        )
    return lines


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Reads the options; what is not given depends on the model and the device."""
    parser = argparse.ArgumentParser(
        description="Measures what recording a run costs, beside the bare pipeline.",
        epilog="Needs a quiet machine: read the load that it prints.",
    )
    parser.add_argument("--model", choices=("tiny", "sd15"), default="tiny")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="the GPU where there is one")
    parser.add_argument("--rounds", type=int, help="rounds of all ways")
    parser.add_argument("--exact-rounds", type=int, help="rounds of decoding exactly; 0 for none")
    parser.add_argument("--steps", type=int, help="denoising steps")
    parser.add_argument("--size", type=int, help="side of the picture (sd15)")
    parser.add_argument("--threads", type=int, help="torch's threads")
    parser.add_argument("--no-memory", action="store_true", help="leave out the memory")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to a file")
    parser.add_argument("--memory-of", choices=tuple(MEMORY_WAYS), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    options.device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    for name, value in defaults(options.model, options.device).items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    return options


def defaults(model: str, device: str) -> dict[str, int]:
    """Such that all takes some minutes, on a processor with the full-size model about a quarter."""
    threads = torch.get_num_threads()
    if model == "tiny":
        return {"rounds": 40, "exact_rounds": 20, "steps": STEPS, "size": 64, "threads": threads}
    if device == "cuda":
        return {"rounds": 15, "exact_rounds": 5, "steps": 50, "size": 512, "threads": threads}
    return {"rounds": 5, "exact_rounds": 2, "steps": 3, "size": 256, "threads": threads}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measures everything the options ask for."""
    load_meanwhile = Load()
    memory = {} if options.no_memory else measure_memory(options)
    subject = load(options)
    warm = warm_up(subject)
    load_of_rounds = Load()
    ways = {name: functools.partial(way, subject) for name, way in WAYS.items()}
    measured = measure_rounds(subject, ways, options.rounds, "recording")
    busy = load_of_rounds.read() | {"load_begin": load_meanwhile.begin}
    exact = measure_exact(subject, options.exact_rounds) if options.exact_rounds else {}
    return {
        "model": options.model,
        "steps": options.steps,
        "size": options.size,
        "machine": describe_machine(options),
        "load": busy | {"load_end": psutil.getloadavg()[0]},
        **warm,
        "summary": summarise(measured, "bare"),
        "rounds": measured,
        "memory": memory,
        "exact": exact,
    }


def main() -> None:
    """Measures, prints and writes."""
    options = parse()
    torch.set_num_threads(options.threads)
    if options.memory_of:
        print(json.dumps(peak_of(options)))
        return
    result = measure(options)
    print(report(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
