"""Every scheduler that diffusers exports: recording changes nothing, and the recorded x0 is the known
one where the model is an oracle, which knows the clean sample.

The oracle needs to know at which noise level its sample is. That is told here for each scheduler on
its own, and proved by the run itself: with the right level and prediction it ends at the clean
sample.
"""

import contextlib
import inspect
import math
from dataclasses import dataclass, field
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline

import ldm_viz as lv
from ldm_viz.capture import predictions

VE, VP, FLOW = "variance exploding", "variance preserving", "flow"
CLEAN = (
    0.9 * torch.linspace(-3, 3, 256).sin().reshape(1, 4, 8, 8).double()
)  # clipping leaves it alone
STABLE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


# Where a sample is, as (family, alpha, scale), given the scheduler, the step's place and its time.


def by_time(scheduler, place, time):
    return preserving(scheduler.alphas_cumprod[int(time)].item())


def preserving(squared):
    return VP, math.sqrt(squared), math.sqrt(1 - squared)


def one_earlier(scheduler, place, time):
    """An inversion begins at the clean sample and is told the time it goes to."""
    if place == 0:
        return preserving(scheduler.initial_alpha_cumprod.item())
    return by_time(scheduler, place, scheduler.timesteps[place - 1])


def exploding(scheduler, place, time):
    return VE, 1.0, scheduler.sigmas[place].item()


def exploding_by_time(scheduler, place, time):
    """Second-order schedulers look between two sigmas; in time, that is log-linear."""
    sigmas = ((1 - scheduler.alphas_cumprod) / scheduler.alphas_cumprod).sqrt().log()
    return VE, 1.0, math.exp(np.interp(float(time), np.arange(1000), sigmas.numpy()))


def exploding_halfway(scheduler, place, time):
    around = scheduler.sigmas[[place - 1, place]] if place % 2 else scheduler.sigmas[[place]]
    return VE, 1.0, around.log().mean().exp().item()


def by_sigma(scheduler, place, time):
    return preserving(1 / (1 + scheduler.sigmas[place].item() ** 2))


def flow(scheduler, place, time):
    sigma = scheduler.sigmas[place].item()
    return FLOW, 1 - sigma, sigma


def flow_from_noise(scheduler, place, time):
    _, alpha, scale = flow(scheduler, place, time)
    return FLOW, scale, alpha


def flow_by_time(scheduler, place, time):
    return FLOW, float(time), 1 - float(time)


def cosine(scheduler, place, time):
    angles = [(t + 0.008) / 1.008 * math.pi / 2 for t in (float(time[0]), 0.0)]
    squared = (math.cos(angles[0]) / math.cos(angles[1])) ** 2
    return preserving(min(max(squared, 1e-4), 0.9999))


def circle(scheduler, place, time):
    return VP, scheduler.alphas[place].item(), scheduler.betas[place].item()


def trigonometric(scheduler, place, time):
    return VP, max(0.0, math.cos(time)), 0.5 * math.sin(time)


# What an oracle answers, given the noise, the clean sample, the noisy one and where that is.

ANSWERS = {
    "epsilon": lambda noise, clean, x, alpha, scale: noise,
    "sample": lambda noise, clean, x, alpha, scale: clean.expand_as(x),
    "v_prediction": lambda noise, clean, x, alpha, scale: (
        (alpha * noise - scale * clean) / math.hypot(alpha, scale)
    ),
    "flow_prediction": lambda noise, clean, x, alpha, scale: noise - clean,
    "to data": lambda noise, clean, x, alpha, scale: clean - noise,
    "trigflow": lambda noise, clean, x, alpha, scale: (alpha * x - clean) / (2 * scale),
    # EDM: x0 = (x / 4 ± s / 2 · F · √(s² + 1 / 4)) / (s² + 1 / 4), the sign being minus for v.
    "EDM epsilon": lambda noise, clean, x, alpha, s: (
        (clean * (s**2 + 0.25) - x / 4) / (s / 2 * math.sqrt(s**2 + 0.25))
    ),
    "EDM v_prediction": lambda noise, clean, x, alpha, s: (
        (x / 4 - clean * (s**2 + 0.25)) / (s / 2 * math.sqrt(s**2 + 0.25))
    ),
    "cosine v_prediction": lambda noise, clean, x, alpha, s: (
        (x - clean * (s**2 + 1)) / (s * math.sqrt(s**2 + 1))
    ),
    "consistency": lambda noise, clean, x, alpha, s: (
        (clean - x / 4 / ((s - 0.002) ** 2 + 0.25)) * math.sqrt(s**2 + 0.25) / (s / 2 - 0.001)
    ),
    "grid": lambda noise, clean, x, alpha, scale: (noise - clean).repeat(1, 1, 10),
}


class Oracle(torch.nn.Module):
    def __init__(self, answer):
        super().__init__()
        self.answer = ANSWERS[answer]

    def forward(self, x, clean, alpha, scale):
        noise = (x.double() - alpha * clean) / scale if scale else torch.zeros_like(x)
        return self.answer(noise, clean, x.double(), alpha, scale).to(x.dtype)


@dataclass
class Case:
    """A scheduler in a loop: how it is made and set, where its samples are, what its model says."""

    name: str
    where: Any
    predicts: str = "epsilon"
    options: dict = field(default_factory=dict)
    timing: dict = field(default_factory=dict)
    steps: int = 6
    clean: torch.Tensor = CLEAN
    dtype: torch.dtype = torch.float32
    begin: int = 0
    extra: Any = None  # further arguments of a step, from (scheduler, place, its last outputs)
    times: Any = lambda scheduler: scheduler.timesteps
    ends: bool = True  # at the clean sample
    known: bool = True  # whether x0 can be known

    def __str__(self):
        said = [self.name, self.predicts] if self.predicts != "epsilon" else [self.name]
        for name, value in (self.options | self.timing).items():
            said.append(name if value is True else f"{name}={value}")
        said += [str(self.dtype)] if self.dtype != torch.float32 else []
        return " ".join([*said, *(["begun later"] if self.begin else [])])

    def scheduler(self):
        cls = getattr(diffusers, self.name)
        taken = inspect.signature(cls).parameters
        own = {k: v for k, v in STABLE.items() if k in taken and "trained_betas" in taken}
        if "prediction_type" in taken and self.predicts in ("epsilon", "sample", "v_prediction"):
            own["prediction_type"] = self.predicts
        return cls(**(own | self.options))


class Pipeline(DiffusionPipeline):
    """One loop for all schedulers."""

    def __init__(self, unet, scheduler):
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)

    @torch.no_grad()
    def __call__(self, case, generator):
        scheduler = self.scheduler
        own = {"sigmas", "timesteps"} & set(case.timing)
        count = {} if own else {"num_inference_steps": case.steps}
        scheduler.set_timesteps(**count, **case.timing)
        times = case.times(scheduler)[case.begin :]
        if case.begin:
            scheduler.set_begin_index(case.begin)
        taken = inspect.signature(scheduler.step).parameters
        asked = {"eta": 0.7, "generator": generator}
        asked = {name: value for name, value in asked.items() if name in taken}
        _, alpha, scale = case.where(scheduler, case.begin, times[0])
        noise = torch.randn(case.clean.shape, generator=generator, dtype=torch.float64)
        x = (alpha * case.clean + scale * noise).to(case.dtype)
        output, levels, last = None, [], math.inf
        for place, time in enumerate(times, case.begin):
            if float(time) > last and hasattr(scheduler, "undo_step"):
                x = scheduler.undo_step(x, int(last), generator)
                last = float(time)
                continue
            last = float(time)
            if hasattr(scheduler, "scale_model_input"):
                scheduler.scale_model_input(x, time)
            levels.append(case.where(scheduler, place, time))
            predicted = self.unet(x, case.clean, *levels[-1][1:])
            more = case.extra(scheduler, place, output) if case.extra else {}
            given = {"model_output": predicted, "timestep": time, "sample": x} | more
            # By place up to the sample, as pipelines call them.
            placed = [given.pop(name) for name in list(taken)[: list(taken).index("sample") + 1]]
            output = scheduler.step(*placed, **given, **asked, return_dict=False)
            x = output[0]
        return x, levels


def repaint(scheduler, place, output):
    return {"original_image": CLEAN.float(), "mask": (torch.ones(8, 8).tril()).float()}


def previous_x0(scheduler, place, output):
    back = scheduler.timesteps[place - 1] if place else None
    return {"old_pred_original_sample": output and output[1], "timestep_back": back}


def previous_time(scheduler, place, output):
    rest = scheduler.timesteps[place + 1 :]
    return {"prev_timestep": rest[0] if len(rest) else None}


def stage_noise(scheduler, place, output):
    return {
        "cur_sampling_step": place,
        "dmd_noisy_tensor": VIDEO.float(),
        "dmd_sigmas": scheduler.sigmas,
        "dmd_timesteps": scheduler.timesteps,
        "all_timesteps": scheduler.timesteps,
    }


VIDEO = CLEAN.reshape(1, 4, 1, 8, 8)
TOKENS = CLEAN.reshape(1, 64, 4)
KINDS = ("epsilon", "v_prediction", "sample")
SPACINGS = [{"timestep_spacing": spacing} for spacing in ("linspace", "leading", "trailing")]
SIGMAS = [{f"use_{name}_sigmas": True} for name in ("karras", "exponential", "beta")]
ZERO_SNR = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}
NO_CLIP = {"clip_sample": False}
HALF = torch.float16


def cases():
    # Variance preserving, by time.
    for name in (
        "DDIMScheduler",
        "DDIMParallelScheduler",
        "DDPMScheduler",
        "DDPMParallelScheduler",
    ):
        for spacing in SPACINGS:
            # Trailing timesteps of 6 end at 166; 1000 // 6 less than that is not yet the end.
            yield Case(name, by_time, options=spacing, ends="trailing" not in spacing.values())
        for kind in KINDS:
            yield Case(name, by_time, kind, NO_CLIP | {"steps_offset": 1})
        yield Case(name, by_time, "v_prediction", ZERO_SNR, ends=False)
    for kind in KINDS:
        yield Case("CogVideoXDDIMScheduler", by_time, kind)
        yield Case("CogVideoXDPMScheduler", by_time, kind, extra=previous_x0)
        for noiseless in (True, False) if kind != "sample" else (False,):
            options = {"set_alpha_to_one": noiseless}
            yield Case("DDIMInverseScheduler", one_earlier, kind, options, ends=False)
        if kind != "sample":
            yield Case("PNDMScheduler", by_time, kind, {"skip_prk_steps": True}, ends=False)
            yield Case("PNDMScheduler", by_time, kind, steps=8, ends=False)
        yield Case("LCMScheduler", by_time, kind, steps=4)
        unheeded = {"clip_sample": True, "thresholding": True}
        yield Case("TCDScheduler", by_time, kind, unheeded, steps=4, ends=False)
    yield Case("CogVideoXDDIMScheduler", by_time, "v_prediction", ZERO_SNR, ends=False)
    yield Case("PNDMScheduler", by_time, options={"timestep_spacing": "trailing"}, ends=False)
    yield Case("LCMScheduler", by_time, "v_prediction", ZERO_SNR, steps=4)
    yield Case("TCDScheduler", by_time, "v_prediction", ZERO_SNR, steps=4, ends=False)
    for kind in ("epsilon", "sample"):
        yield Case("UnCLIPScheduler", by_time, kind, extra=previous_time)
    yield Case(
        "RePaintScheduler",
        by_time,
        options={"eta": 0.3},
        timing={"jump_length": 2, "jump_n_sample": 2},
        extra=repaint,
    )
    # Variance preserving, by sigma.
    for name, more in {
        "DPMSolverMultistepScheduler": [
            {"algorithm_type": "sde-dpmsolver++"},
            {"algorithm_type": "dpmsolver", "final_sigmas_type": "sigma_min"},
            {"use_lu_lambdas": True},
            {"euler_at_final": True},
            {"solver_order": 3},
        ],
        "DPMSolverSinglestepScheduler": [{"solver_order": 3}, {"lower_order_final": True}],
        "DPMSolverMultistepInverseScheduler": [],
        "DEISMultistepScheduler": [],
        "UniPCMultistepScheduler": [{"predict_x0": False, "final_sigmas_type": "sigma_min"}],
        "SASolverScheduler": [{"algorithm_type": "noise_prediction"}],
    }.items():
        sharp = name in ("DPMSolverMultistepScheduler", "UniPCMultistepScheduler")
        for kind in KINDS:
            yield Case(name, by_sigma, kind, ends=False)
        for options in [*SIGMAS, *more]:
            ends = sharp and "final_sigmas_type" not in options
            yield Case(name, by_sigma, options=options, ends=ends)
        for spacing in SPACINGS if name != "DPMSolverSinglestepScheduler" else []:
            yield Case(name, by_sigma, "v_prediction", spacing, ends=False)
        for kind in ("flow_prediction", "epsilon"):
            options = {"use_flow_sigmas": True, "flow_shift": 3.0, "prediction_type": kind}
            yield Case(name, flow, kind, options, ends=False)
    for name in ("DPMSolverMultistepScheduler", "UniPCMultistepScheduler"):
        yield Case(name, by_sigma, "v_prediction", ZERO_SNR)
        yield Case(name, by_sigma, dtype=HALF)
        yield Case(name, by_sigma, begin=2)
        options = {"use_flow_sigmas": True, "use_dynamic_shifting": True}
        options["prediction_type"] = "flow_prediction"
        yield Case(name, flow, "flow_prediction", options, {"mu": 0.8})
    # Variance exploding.
    for name in (
        "EulerDiscreteScheduler",
        "EulerAncestralDiscreteScheduler",
        "LMSDiscreteScheduler",
    ):
        for kind in ("epsilon", "v_prediction"):
            yield Case(name, exploding, kind, ends=name != "LMSDiscreteScheduler")
        for options in SPACINGS + (SIGMAS if "Ancestral" not in name else []):
            yield Case(name, exploding, options=options, ends=name != "LMSDiscreteScheduler")
        yield Case(name, exploding, begin=2, ends=name != "LMSDiscreteScheduler")
    yield Case("EulerDiscreteScheduler", exploding, "sample")
    yield Case("EulerDiscreteScheduler", exploding, dtype=HALF)
    yield Case("EulerDiscreteScheduler", exploding, "v_prediction", ZERO_SNR)
    yield Case(
        "EulerDiscreteScheduler",
        exploding,
        "v_prediction",
        {
            "timestep_type": "continuous",
            "use_karras_sigmas": True,
            "sigma_min": 0.002,
            "sigma_max": 700.0,
        },
    )
    for name in (
        "HeunDiscreteScheduler",
        "KDPM2DiscreteScheduler",
        "KDPM2AncestralDiscreteScheduler",
        "DPMSolverSDEScheduler",
    ):
        for kind in ("epsilon", "v_prediction"):
            yield Case(name, exploding_by_time, kind, {"timestep_spacing": "leading"})
        for options in SIGMAS:
            if "KDPM2" not in name or options != SIGMAS[0]:  # whose timesteps are rounded
                yield Case(name, exploding_by_time, options=options)
        leading = {"timestep_spacing": "leading", "steps_offset": 1}
        yield Case(name, exploding_by_time, options=leading, begin=2)
    karras = {"use_karras_sigmas": True}
    yield Case("KDPM2DiscreteScheduler", exploding_halfway, options=karras)
    # EDM and consistency models.
    for name in ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"):
        for kind in ("epsilon", "v_prediction"):
            for schedule in ("karras", "exponential"):
                options = {"prediction_type": kind, "sigma_schedule": schedule}
                yield Case(name, exploding, f"EDM {kind}", options)
        yield Case(name, exploding, "EDM epsilon", {"final_sigmas_type": "sigma_min"}, ends=False)
    yield Case(
        "EDMDPMSolverMultistepScheduler",
        exploding,
        "EDM epsilon",
        {"algorithm_type": "sde-dpmsolver++"},
    )
    for schedule in ("karras", "exponential"):
        options = {"sigma_schedule": schedule}
        yield Case("CosineDPMSolverMultistepScheduler", exploding, "cosine v_prediction", options)
    yield Case("CMStochasticIterativeScheduler", exploding, "consistency", ends=False)
    yield Case(
        "CMStochasticIterativeScheduler",
        exploding,
        "consistency",
        {"clip_denoised": False},
        {"timesteps": [30, 12, 0]},
        ends=False,
    )
    # Flow.
    euler = "FlowMatchEulerDiscreteScheduler"
    for name in (euler, "FlowMatchLCMScheduler"):
        for options in [{"shift": 3.0}, {"shift_terminal": 0.1}, *SIGMAS]:
            yield Case(name, flow, "flow_prediction", options)
        for shifting in ("exponential", "linear"):
            options = {"use_dynamic_shifting": True, "time_shift_type": shifting}
            yield Case(name, flow, "flow_prediction", options, {"mu": 0.8})
        yield Case(name, flow, "flow_prediction", timing={"sigmas": [1.0, 0.7, 0.2]})
        yield Case(name, flow, "flow_prediction", {"shift": 3.0}, begin=2)
        yield Case(name, flow, "flow_prediction", {"shift": 3.0}, steps=1)
    yield Case(euler, flow, "flow_prediction", dtype=HALF)
    # Cosmos gives it the sigmas of EDM, which a flow's cannot be.
    yield Case(euler, exploding, timing={"sigmas": [80.0, 5.0, 1.0, 0.002]})
    yield Case(euler, flow, "flow_prediction", {"stochastic_sampling": True})
    # Mochi's samples begin as noise at sigma 0; whoever adds noise by such a sigma contradicts it.
    yield Case(euler, flow_from_noise, "to data", {"invert_sigmas": True})
    opposed = {"invert_sigmas": True, "stochastic_sampling": True}
    yield Case(euler, flow, "flow_prediction", opposed, ends=False, known=False)
    yield Case("FlowMatchHeunDiscreteScheduler", flow, "flow_prediction", {"shift": 3.0})
    yield Case("FlowMapEulerDiscreteScheduler", flow, "flow_prediction", {"shift": 3.0})
    for eta in (0.0, 1.0):
        yield Case("LTXEulerAncestralRFScheduler", flow, "flow_prediction", {"eta": eta})
    sigmas = {"sigmas": [1.0, 0.8, 0.3, 0.0]}
    yield Case("LTXEulerAncestralRFScheduler", flow, "flow_prediction", timing=sigmas)
    yield Case("MiniMaxH3Scheduler", flow, "to data")
    yield Case("MiniMaxH3Scheduler", flow, "to data", steps=2)
    yield Case("PiflowScheduler", flow, "grid", clean=TOKENS, steps=4)
    yield Case(
        "RFD4ProteinaScheduler",
        flow_by_time,
        "to data",
        {
            "schedule_mode": "log",
            "noise_mode": "1/t",
            "tsr_k": 2.0,
            "tsr_sigma": 0.5,
            "tail_steps": 0,
        },
        clean=TOKENS,
        extra=lambda *_: {"emit_mask": torch.ones(1, 64)},
        ends=False,
    )
    for kind in ("unipc", "euler"):
        options = {"stages": 1, "stage_range": [0, 1], "scheduler_type": kind}
        yield Case("HeliosScheduler", flow, "flow_prediction", options, clean=VIDEO)
    # In a pyramid a flow leads from one noisy size to the next.
    stage = {"timing": {"stage_index": 0}, "clean": VIDEO, "ends": False, "known": False}
    yield Case("HeliosScheduler", flow, "flow_prediction", **stage)
    yield Case("HeliosDMDScheduler", flow, "flow_prediction", **stage, extra=stage_noise)
    # Others.
    yield Case("IPNDMScheduler", circle, "v_prediction", ends=False)
    yield Case("SCMScheduler", trigonometric, "trigflow", steps=2, times=lambda s: s.timesteps[:-1])
    yield Case(
        "SCMScheduler",
        trigonometric,
        "trigflow",
        timing={"intermediate_timesteps": None},
        times=lambda s: s.timesteps[:-1],
    )
    yield Case(
        "DDPMWuerstchenScheduler",
        cosine,
        times=lambda s: s.timesteps[:-1].expand(1, -1).T,
        ends=False,
    )


CASES = list(cases())
ELSEWHERE = {
    "AmusedScheduler": "tokens",
    "BlockRefinementScheduler": "tokens",
    "DiscreteDDIMScheduler": "tokens",
    "EntropyBoundScheduler": "tokens",
    "VQDiffusionScheduler": "tokens",
    "KarrasVeScheduler": "a loop of its own",
    "ScoreSdeVeScheduler": "a loop of its own",
}


def exported():
    """Names of the schedulers of PyTorch that diffusers exports."""
    return {
        name
        for name in dir(diffusers)
        if name.endswith("Scheduler") and not name.startswith("Flax")
    }


def test_all_schedulers_are_here():
    assert {case.name for case in CASES} | set(ELSEWHERE) == exported()
    others = {name for name in dir(diffusers) if "Scheduler" in name and "Flax" not in name}
    for name in others - exported():
        assert name == "SchedulerMixin" or name.endswith("SchedulerOutput")


def run_twice(pipe, *arguments):
    """Runs bare and recorded and checks that these are equal, generators included."""
    results = []
    recorder = lv.Recorder(pipe, frames=None, progress=False)
    for context in (contextlib.nullcontext(), recorder):
        torch.manual_seed(5)
        generator = torch.Generator().manual_seed(3)
        with context:
            output = pipe(*arguments, generator)
        results.append((output[0], generator.get_state(), torch.random.get_rng_state()))
    for bare, recorded in zip(*results, strict=True):
        assert torch.equal(bare, recorded)
    trajectory = recorder.trajectory
    assert "recording_faults" not in trajectory.settings
    assert np.array_equal(trajectory.latents[-1], results[0][0].numpy())
    return trajectory, output


@pytest.mark.parametrize("case", CASES, ids=str)
def test_scheduler(case):
    trajectory, (latents, levels) = run_twice(
        Pipeline(Oracle(case.predicts), case.scheduler()), case
    )
    assert len(trajectory) == len(levels)
    clean = case.clean.numpy()
    if case.ends:
        np.testing.assert_allclose(latents.double().numpy(), clean, atol=tolerance(case, 1e-3))
    if not case.known:
        assert trajectory.x0 is None
        assert f"unknown: how samples of {case.name}" in trajectory.settings["x0_note"]
        assert np.isnan(trajectory.sigmas).all()
        return
    family, alphas, scales = (np.array(values) for values in zip(*levels, strict=True))
    with np.errstate(divide="ignore"):
        gains = scales / alphas
    # x0 is a difference of numbers as large as these gains, which have been rounded.
    rounding = np.where(np.isfinite(gains) & (case.predicts == "epsilon"), gains / 300, 0)
    errors = np.abs(trajectory.x0 - clean).max(axis=tuple(range(1, trajectory.x0.ndim)))
    assert (errors <= tolerance(case, 1e-4) * np.maximum(1, rounding)).all(), errors
    assert trajectory.settings["noise_schedule"] == family[0]
    with np.errstate(divide="ignore"):
        sigmas = scales if family[0] == FLOW else gains
        snrs = (alphas / scales) ** 2
    np.testing.assert_allclose(trajectory.sigmas, sigmas, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(trajectory.snrs, snrs, rtol=1e-3, atol=1e-7)


def tolerance(case, usual):
    return usual if case.dtype == torch.float32 else 0.1


@pytest.mark.parametrize(
    ("name", "predicts", "note"),
    [
        ("DDIMScheduler", "epsilon", "clipped by the scheduler to ±1"),
        ("HeunDiscreteScheduler", "epsilon", "clipped by the scheduler to ±1"),
        ("EulerDiscreteScheduler", "epsilon", None),
        ("CogVideoXDDIMScheduler", "epsilon", None),
        ("TCDScheduler", "epsilon", None),
        ("FlowMatchEulerDiscreteScheduler", "flow_prediction", None),
        ("IPNDMScheduler", "v_prediction", None),
    ],
)
def test_a_configuration_holds_what_a_scheduler_does_not_heed(name, predicts, note):
    """from_config keeps all entries, those for other schedulers included."""
    others = {
        "clip_sample": True,
        "prediction_type": "epsilon",
        "thresholding": name == "TCDScheduler",
    }
    others |= {"use_flow_sigmas": True, "stages": 3, "sigma_data": 0.5, "invert_sigmas": False}
    scheduler = getattr(diffusers, name).from_config(STABLE | others)
    assert scheduler.config["clip_sample"]
    where = {"DDIMScheduler": by_time, "CogVideoXDDIMScheduler": by_time, "TCDScheduler": by_time}
    where |= {"FlowMatchEulerDiscreteScheduler": flow, "IPNDMScheduler": circle}
    case = Case(name, where.get(name, exploding_by_time), steps=4)
    trajectory, (_, levels) = run_twice(Pipeline(Oracle(predicts), scheduler), case)
    assert np.abs(trajectory.x0 - CLEAN.numpy()).max() <= 1e-4
    assert trajectory.settings["noise_schedule"] == levels[0][0]
    assert trajectory.settings.get("x0_note") == note


class Guess(torch.nn.Module):
    """Stands in for a model that gives scores to tokens."""

    def forward(self, tokens, time, classes_first):
        scores = torch.nn.functional.one_hot((7 * tokens + time) % 9, 9) * 2.0
        return scores.movedim(-1, 1).log_softmax(1) if classes_first else scores


class TokenPipeline(DiffusionPipeline):
    def __init__(self, transformer, scheduler):
        super().__init__()
        self.register_modules(transformer=transformer, scheduler=scheduler)

    @torch.no_grad()
    def __call__(self, shape, generator):
        scheduler = self.scheduler
        scheduler.set_timesteps(4)
        tokens = torch.full(shape, 9)
        of_vectors = hasattr(scheduler, "num_embed")
        for time in scheduler.timesteps:
            scores = self.transformer(tokens, time, of_vectors or len(shape) == 3)
            tokens = scheduler.step(scores, time, tokens, generator=generator).prev_sample
        return (tokens,)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        (name, shape)
        for name, why in ELSEWHERE.items()
        if why == "tokens"
        for shape in [(1, 16), (2, 16)]
    ]
    + [("AmusedScheduler", (1, 4, 4))],
)
def test_tokens_have_no_x0(name, shape):
    options = {
        "AmusedScheduler": {"mask_token_id": 9},
        "VQDiffusionScheduler": {"num_vec_classes": 10},
    }
    scheduler = getattr(diffusers, name)(**options.get(name, {}))
    trajectory, (tokens,) = run_twice(TokenPipeline(Guess(), scheduler), shape)
    assert not tokens.is_floating_point()
    assert trajectory.x0 is None
    assert "tokens" in trajectory.settings["x0_note"]
    assert np.isnan(trajectory.sigmas).all() and np.isnan(trajectory.snrs).all()


class Known(torch.nn.Module):
    """Stands in for the UNet of pipelines with a loop of their own; its samples are pictures."""

    def __init__(self, answer):
        super().__init__()
        self.config = diffusers.configuration_utils.FrozenDict(sample_size=8, in_channels=3)
        self.dtype, self.device = torch.float32, torch.device("cpu")
        self.answer = answer
        self.levels = []

    def forward(self, x, sigma):
        sigma = sigma.double().reshape(-1)[0].item()
        self.levels.append(sigma)
        return diffusers.models.unets.unet_2d.UNet2DOutput(
            self.answer(x.double(), sigma).to(x.dtype)
        )


PICTURE = CLEAN[:, :3]


def test_karras_ve():
    def answer(x, half):  # the pipeline shows half of sample and noise, and doubles what it is told
        return (PICTURE - (2 * x - 1)) / (2 * half) / half

    scheduler = diffusers.KarrasVeScheduler(sigma_max=50)
    pipe = diffusers.KarrasVePipeline(Known(answer), scheduler)
    trajectory, levels = record(pipe, num_inference_steps=6)
    assert len(trajectory) == 6 and trajectory.x0_source == "scheduler"
    errors = np.abs(trajectory.x0 - PICTURE.numpy()).max(axis=(1, 2, 3, 4))
    assert (errors <= 1e-4 * np.maximum(1, trajectory.sigmas / 100)).all()
    np.testing.assert_allclose(trajectory.sigmas, 2 * np.array(levels[::2]), rtol=1e-5)


def test_score_sde_ve():
    scheduler = diffusers.ScoreSdeVeScheduler(sigma_max=50.0)
    pipe = diffusers.ScoreSdeVePipeline(Known(lambda x, s: (PICTURE - x) / s**2), scheduler)
    trajectory, levels = record(pipe, num_inference_steps=6)
    assert len(trajectory) == 6 and trajectory.x0_source == "computed"
    assert np.abs(trajectory.x0 - PICTURE.numpy()).max() < 1e-4
    np.testing.assert_allclose(trajectory.sigmas, levels[1::2], rtol=1e-5)


def record(pipe, **arguments):
    pipe.set_progress_bar_config(disable=True)
    images = []
    recorder = lv.Recorder(pipe, frames=None, progress=False)
    for context in (contextlib.nullcontext(), recorder):
        pipe.unet.levels.clear()
        generator = torch.Generator().manual_seed(3)
        with context:
            output = pipe(**arguments, generator=generator, output_type="np")
        images.append((output.images, generator.get_state().numpy()))
    for bare, recorded in zip(*images, strict=True):
        assert np.array_equal(bare, recorded)
    assert "recording_faults" not in recorder.trajectory.settings
    return recorder.trajectory, pipe.unet.levels


def test_a_time_for_each_token():
    """LTX keeps some tokens nearer to the clean sample; their velocity points to it."""
    shares = torch.linspace(0.2, 1.0, 64).reshape(1, 64)

    def times(scheduler, place, output=None):
        return {"per_token_timesteps": shares * scheduler.timesteps[place]}

    def where(scheduler, place, time):
        sigmas = times(scheduler, place)["per_token_timesteps"][..., None].double() / 1000
        return FLOW, 1 - sigmas, sigmas

    case = Case("FlowMatchEulerDiscreteScheduler", where, clean=TOKENS, extra=times, steps=4)
    pipe = Pipeline(TokenOracle("to data"), case.scheduler())
    trajectory, _ = run_twice(pipe, case)
    assert np.abs(trajectory.x0 - TOKENS.numpy()).max() < 1e-4
    np.testing.assert_allclose(trajectory.sigmas, pipe.scheduler.sigmas[:-1], rtol=1e-6)


class TokenOracle(Oracle):
    def forward(self, x, clean, alpha, scale):
        return self.answer((x.double() - alpha * clean) / scale, clean, x, alpha, scale).float()


def test_samples_of_different_times_have_no_common_level():
    scheduler = diffusers.DDPMWuerstchenScheduler()
    for times, known in (([0.5, 0.5], True), ([0.5, 0.7], False)):
        clock = predictions.Clock(torch.tensor(times), None, None, None)
        level = predictions.noise_level(scheduler, clock)
        assert math.isnan(level.sigma) != known
        x0 = predictions.predict_x0(scheduler, "epsilon", level, *np.zeros((2, 2, 4, 8, 8)))
        assert (x0 is not None) == known


def test_precision():
    """Whatever type the samples have, x0 is as near as that type's numbers lie."""
    scheduler = diffusers.UniPCMultistepScheduler(**STABLE)
    for sigma in (0.03, 1.0, 14.6, 4096.0):
        level = predictions.NoiseLevel(*preserving(1 / (1 + sigma**2)))
        noise = np.random.default_rng(0).standard_normal(CLEAN.shape)
        x = level.alpha * CLEAN.numpy() + level.scale * noise
        for dtype in (np.float16, np.float32, np.float64):
            given = x.astype(dtype), noise.astype(dtype)
            x0 = predictions.predict_x0(scheduler, "epsilon", level, *given)
            assert x0.dtype == dtype
            limit = np.finfo(dtype).eps * max(1, np.abs(noise).max() * sigma)
            with np.errstate(invalid="ignore"):
                assert np.nanmax(np.abs(x0 - CLEAN.numpy())) <= 2 * limit


def test_no_x0_where_no_signal_is_left():
    scheduler = diffusers.UniPCMultistepScheduler(**STABLE)
    level = predictions.NoiseLevel(VP, 0.0, 1.0)
    x, output = np.ones((2, *CLEAN.shape), np.float32)
    assert np.isnan(predictions.predict_x0(scheduler, "epsilon", level, x, output)).all()
    assert (predictions.predict_x0(scheduler, "v_prediction", level, x, output) == -1).all()
    assert level.sigma == math.inf and level.snr == 0.0


def test_shapes_that_do_not_fit_have_no_x0():
    level = predictions.NoiseLevel(FLOW, 0.5, 0.5)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    x, output = np.zeros((1, 64, 4), np.float32), np.zeros((1, 64, 8), np.float32)
    assert predictions.predict_x0(scheduler, "flow_prediction", level, x, output) is None
