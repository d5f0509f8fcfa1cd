"""How fast a saved run opens, and in how little memory: 50 steps of the size of SDXL.

Each figure comes from a fresh process that never imports torch: with the file in the system's
cache, and, where the system lets go of it when asked, from the disk.

    python benchmarks/opening.py
    python benchmarks/opening.py --frames --json opening.json
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

STEPS = 50
LATENT = (1, 4, 128, 128)
PICTURE = 1024
MOST_SECONDS = 0.050
MOST_MIB = 50


# In the process that opens


def open_once(path: str) -> dict[str, Any]:
    """Opens a file and reads one step; what each takes, in seconds and MiB."""
    begin = time.perf_counter()
    import ldm_viz as lv

    open_trajectory = lv.open_trajectory
    figures: dict[str, Any] = {"import_seconds": time.perf_counter() - begin}
    reset_peak()
    before = memory()
    begin = time.perf_counter()
    run = open_trajectory(path)
    figures["open_seconds"] = time.perf_counter() - begin
    after = memory()
    figures["open_mib"] = after["VmRSS"] - before["VmRSS"]
    figures["open_peak_mib"] = after["VmHWM"] - before["VmRSS"]
    begin = time.perf_counter()
    touch(run[STEPS // 2])
    figures["step_seconds"] = time.perf_counter() - begin
    figures["step_mib"] = memory()["VmRSS"] - after["VmRSS"]
    for number, name in enumerate(("first_picture_seconds", "picture_seconds")):
        if run.frames:
            begin = time.perf_counter()
            _ = run.frames["x0"][STEPS // 2 + number]
            figures[name] = time.perf_counter() - begin
    figures["torch"] = "torch" in sys.modules
    return figures


def touch(step: Any) -> None:
    """Reads every number of a step."""
    arrays = [step.latents, step.next_latents, step.x0, *step.noise_prediction.values()]
    for array in arrays:
        array.max()


def reset_peak() -> None:
    """Lets the kernel's high-water mark begin anew."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        print("the high-water mark cannot be reset here", file=sys.stderr)


def memory() -> dict[str, float]:
    """Resident memory, now and at its highest, in MiB; NaN where there is no /proc."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return {"VmRSS": float("nan"), "VmHWM": float("nan")}
    found = re.findall(r"(VmRSS|VmHWM):\s+(\d+)", status)
    return {name: int(kib) / 1024 for name, kib in found}


# In the process that measures


def save_example(folder: Path, dtype: str, frames: bool) -> Path:
    """Saves a run with all its tensors, made of random numbers."""
    import numpy as np

    import ldm_viz as lv

    rng = np.random.default_rng(7)

    def noise(count: int) -> np.ndarray:
        return rng.standard_normal((count, *LATENT), np.float32).astype(dtype)

    sigmas = np.geomspace(14.6, 0.03, STEPS)
    run = lv.Trajectory(
        latents=noise(STEPS + 1),
        timesteps=np.linspace(981, 1, STEPS).round(),
        sigmas=sigmas,
        snrs=sigmas**-2,
        x0=noise(STEPS),
        x0_source="computed",
        noise_prediction={n: noise(STEPS) for n in ("unconditional", "conditional", "guided")},
        frames={"latents": pictures(STEPS + 1), "x0": pictures(STEPS)} if frames else {},
        frames_source="exact" if frames else "",
        images=pictures(1)[0],
        settings={"pipeline": "StableDiffusionXLPipeline", "prompt": "random numbers"},
    )
    return run.save(folder / f"{dtype}.safetensors")


def pictures(count: int) -> Any:
    """Pictures of coarse random colours, ``(count, 1, h, w, 3)``."""
    import numpy as np

    coarse = np.random.default_rng(7).integers(0, 256, (count, 1, 128, 128, 3), np.uint8)
    return coarse.repeat(PICTURE // 128, axis=2).repeat(PICTURE // 128, axis=3)


def forget(path: Path) -> bool:
    """Asks the system to let go of what it caches of a file; whether it can be asked."""
    if not hasattr(os, "posix_fadvise"):
        return False
    with path.open("rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return True


def measure(path: Path, times: int, cold: bool) -> dict[str, Any]:
    """Opens a file in several processes, one after the other; medians and the worst."""
    runs = []
    for _ in range(times):
        if cold and not forget(path):
            return {}
        if not cold:
            path.read_bytes()
        command = [sys.executable, __file__, "--open", str(path)]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        runs.append(json.loads(done.stdout))
    if any(run.pop("torch") for run in runs):
        raise RuntimeError("opening a file imported torch")
    return {
        "median": {name: statistics.median(run[name] for run in runs) for name in runs[0]},
        "worst": {name: max(run[name] for run in runs) for name in runs[0]},
    }


def report(name: str, mib: float, figures: dict[str, Any]) -> str:
    """One file's figures as text."""
    median, worst = figures["median"], figures["worst"]
    good = worst["open_seconds"] < MOST_SECONDS and worst["open_peak_mib"] < MOST_MIB
    parts = [
        f"{name:26}{mib:6.0f} MiB",
        f"open {1000 * median['open_seconds']:6.2f} ms (worst {1000 * worst['open_seconds']:.2f})",
        f"+{median['open_mib']:.1f} MiB (peak +{worst['open_peak_mib']:.1f})",
        f"one step {1000 * median['step_seconds']:.2f} ms, +{median['step_mib']:.1f} MiB",
        f"import {median['import_seconds']:.2f} s",
        "within the targets" if good else "TARGET MISSED",
    ]
    if "picture_seconds" in median:
        first, next_one = median["first_picture_seconds"], median["picture_seconds"]
        parts.insert(-2, f"a picture {1000 * next_one:.1f} ms (the first {1000 * first:.1f})")
    return ", ".join(parts)


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description="Measures how a saved run opens.")
    parser.add_argument("--times", type=int, default=7, help="processes for each figure")
    parser.add_argument("--frames", action="store_true", help="with stored pictures (slow to save)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to a file")
    parser.add_argument("--open", metavar="FILE", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.open:
        print(json.dumps(open_once(options.open)))
        return
    result = {}
    print(
        f"{STEPS} steps of {LATENT}; targets: opening in less than {1000 * MOST_SECONDS:.0f} ms "
        f"and {MOST_MIB} MiB, without torch; load {os.getloadavg()[0]:.2f}"
    )
    with tempfile.TemporaryDirectory() as folder:
        for dtype in ("float16", "float32"):
            path = save_example(Path(folder), dtype, options.frames)
            mib = path.stat().st_size / 2**20
            for place, cold in (("from cache", False), ("from disk", True)):
                figures = measure(path, options.times, cold)
                if figures:
                    result[f"{dtype}, {place}"] = {"file_mib": mib, **figures}
                    print(report(f"{dtype}, {place}", mib, figures), flush=True)
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
