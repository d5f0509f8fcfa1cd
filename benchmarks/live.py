"""What it costs a run to be shown while it happens, beside one that is only recorded.

All is measured inside a real Jupyter kernel, so that what goes to a browser is packed and sent as it
would be; nobody draws it. Every round runs each way once, in a shuffled order; what counts are the
ratios within a round.

    python benchmarks/live.py --model tiny
    python benchmarks/live.py --model sd15 --json sd15.json
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import recording
import torch
from machine import Load
from recording import SEED, Subject, describe_machine, measure_rounds, summarise, tell, timed

import ldm_viz as lv
from ldm_viz.capture import linear
from ldm_viz.labs.glimpse import Glimpse
from ldm_viz.labs.live import watch

RECORDED = "recorded"
LIVE = "shown while it happens"


def arguments(subject: Subject) -> dict[str, Any]:
    """Those of a call, with the seed."""
    return {**subject.arguments, "seed": SEED, "frames": None}


def recorded(subject: Subject) -> Any:
    """Everything kept, nothing shown, in a thread of its own too.

    How torch's own threads wait for work depends on how many threads have called it.
    """
    with ThreadPoolExecutor(1) as pool:
        call = functools.partial(lv.record, subject.pipe, progress=False, **arguments(subject))
        return pool.submit(call).result()


def live(subject: Subject, counted: list[tuple[int, float]], preview: bool = True) -> Any:
    """The same in the background, shown, and waited for; adds its updates and what they took."""
    run = watch(subject.pipe, preview=preview, **arguments(subject))
    trajectory = run.wait()
    counted.append((run._governor.updates, run._governor.spent / run._seconds))
    run._view.close()
    run.close()
    return trajectory


def ways(subject: Subject, counted: list[tuple[int, float]]) -> dict[str, Callable[[], Any]]:
    """What is compared."""
    return {
        RECORDED: functools.partial(recorded, subject),
        LIVE: functools.partial(live, subject, counted),
        "shown without a preview": functools.partial(live, subject, [], preview=False),
    }


def fit_seconds(subject: Subject) -> float:
    """What the linear map's fit takes, once for an autoencoder, before its first run begins."""
    Glimpse(subject.pipe, {}).prepare()
    linear._maps.clear()
    return timed(subject, Glimpse(subject.pipe, {}).prepare)["seconds"]


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measures everything, here."""
    torch.set_num_threads(options.threads)
    subject, counted = recording.load(options), []
    tell("warm-up")
    fit = fit_seconds(subject)
    every = ways(subject, counted)
    same = np.array_equal(every[LIVE]().latents, every[RECORDED]().latents)
    counted.clear()
    load = Load()
    measured = measure_rounds(subject, every, options.rounds, "live")
    busy = load.read() | {"load_end": psutil.getloadavg()[0]}
    updates, shares = np.median(counted, axis=0)
    return {
        "model": options.model,
        "steps": options.steps,
        "size": options.size,
        "machine": describe_machine(options),
        "load": busy,
        "fit_seconds": fit,
        "same_latents": same,
        "updates": float(updates),
        "share": float(shares),
        "summary": summarise(measured, RECORDED),
        "rounds": measured,
    }


def measure_in_kernel(options: argparse.Namespace) -> dict[str, Any]:
    """Measures everything in a kernel of its own."""
    from jupyter_client.manager import start_new_kernel

    manager, client = start_new_kernel(kernel_name="python3")
    said: list[str] = []

    def hear(message: dict[str, Any]) -> None:
        content = message["content"]
        if message["msg_type"] == "stream" and content["name"] == "stdout":
            said.append(content["text"])
        elif message["msg_type"] == "stream":
            sys.stderr.write(content["text"])
        elif message["msg_type"] == "error":
            sys.stderr.write("\n".join(content["traceback"]) + "\n")

    settings = {name: value for name, value in vars(options).items() if name != "json"}
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent.resolve())!r})\n"
        f"import live; live.print_measured({settings!r})"
    )
    try:
        reply = client.execute_interactive(code, output_hook=hear, timeout=None)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    if reply["content"]["status"] != "ok":
        raise SystemExit("measuring in the kernel failed")
    return json.loads("".join(said))


def print_measured(settings: dict[str, Any]) -> None:
    """Measures in a thread, where no loop waits to make explorers, and prints the figures as JSON."""
    with ThreadPoolExecutor(1) as pool:
        result = pool.submit(measure, argparse.Namespace(**settings)).result()
    print(json.dumps(result))


def report(result: dict[str, Any]) -> str:
    """All figures as text."""
    lines = [
        "{model}: {steps} steps, {size}x{size}, {count} rounds".format(
            **result, count=len(result["rounds"])
        ),
        "{processor}, {cores} cores, {threads} torch threads, torch {torch}, diffusers "
        "{diffusers}, on {device}, ".format(**result["machine"])
        + "load {load_begin:.2f} at the beginning and {load_end:.2f} at the end; in the rounds "
        "others kept {cores_of_others:.2f} cores busy".format(**result["load"]),
        "",
        f"{'':31}{'median s':>9}{'ratio':>8}{'95% CI':>15}{'10-90%':>15}{'CPU ratio':>11}",
    ]
    for name in ways(None, []):  # type: ignore[arg-type]
        s = result["summary"][name]
        lines.append(
            f"{name:31}{s['seconds']:9.3f}{s['ratio']:8.3f}"
            f"{s['ratio_ci95_low']:8.3f}-{s['ratio_ci95_high']:<6.3f}"
            f"{s['ratio_p10']:8.3f}-{s['ratio_p90']:<6.3f}{s['cpu_ratio']:11.3f}"
        )
    shown = "{updates:.0f} updates of the view in a run, which took {share:.2%} of it as counted"
    lines += ["", shown.format(**result)]
    lines += [
        "fitting the linear map, once for an autoencoder, before its first run: "
        + f"{result['fit_seconds']:.3f} s"
    ]
    lines += [f"the latents are the recorded run's: {'yes' if result['same_latents'] else 'NO'}"]
    return "\n".join(lines)


def parse(given: list[str] | None = None) -> argparse.Namespace:
    """Reads the options; what is not given depends on the model and the device."""
    parser = argparse.ArgumentParser(
        description="Measures what showing a run while it happens costs it.",
        epilog="Needs a quiet machine: read the load that it prints.",
    )
    parser.add_argument("--model", choices=("tiny", "sd15"), default="tiny")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="the GPU where there is one")
    parser.add_argument("--rounds", type=int, help="rounds of all ways")
    parser.add_argument("--steps", type=int, help="denoising steps")
    parser.add_argument("--size", type=int, help="side of the picture (sd15)")
    parser.add_argument("--threads", type=int, help="torch's threads")
    parser.add_argument("--here", action="store_true", help="without a kernel: nothing is sent")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to a file")
    options = parser.parse_args(given)
    options.device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    usual = recording.defaults(options.model, options.device)
    if options.model == "tiny":
        usual["steps"] = 50
    for name in ("rounds", "steps", "size", "threads"):
        if getattr(options, name) is None:
            setattr(options, name, usual[name])
    return options


def main() -> None:
    """Measures, prints and writes."""
    options = parse()
    result = measure(options) if options.here else measure_in_kernel(options)
    print(report(result))
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
