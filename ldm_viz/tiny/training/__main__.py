"""The training command: every stage in turn, each taken up where it was left."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from pathlib import Path

from ldm_viz.tiny.loading import WEIGHTS

PICTURES = 80_000
ENCODED = 48_000
"""How many of the pictures the denoiser learns from."""

STAGES = ("data", "autoencoder", "joint", "classifier", "text", "diffusion", "export")


def train(work: Path, target: Path, stages: list[str], ranks: int, effort: float) -> None:
    """Runs stages.

    Args:
        work: Folder for data and checkpoints; needs 3 GB.
        target: Where `export` writes the model.
        stages: Which to run, of `STAGES`.
        ranks: Processes to train with, one a core.
        effort: Factor on how many samples each stage sees.
    """
    from ldm_viz.tiny.architecture import build_tokenizer
    from ldm_viz.tiny.training import autoencoder, data, diffusion, joint, judge_classifier
    from ldm_viz.tiny.training.export import export
    from ldm_viz.tiny.training.ranks import launch

    def samples(count: int) -> int:
        return int(count * effort)

    work.mkdir(parents=True, exist_ok=True)
    pictures, encoded = samples(PICTURES), samples(ENCODED)
    for stage in stages:
        sys.stderr.write(f"stage: {stage}\n")
        if stage == "data":
            data.make_pictures(work, pictures, seed=1, ranks=ranks)
            if not (work / "tokenizer").exists():  # what was trained with it must keep it
                build_tokenizer().save_pretrained(work / "tokenizer")
        elif stage == "autoencoder":
            launch(autoencoder.train_autoencoder, ranks, work, samples(AUTOENCODER_SAMPLES))
        elif stage == "joint":
            launch(joint.train_joint, ranks, work, samples(JOINT_SAMPLES))
        elif stage == "classifier":
            judge_classifier.make_examples(work, samples(CLASSIFIER_EXAMPLES), 6, ranks)
            count = samples(CLASSIFIER_SAMPLES)
            launch(judge_classifier.train_classifier, ranks, work, count)
        elif stage == "text":
            launch(diffusion.train_text, ranks, work, samples(TEXT_SAMPLES))
        elif stage == "diffusion":
            launch(diffusion.make_latents, ranks, work, encoded)
            diffusion.make_embeddings(work, encoded)
            launch(diffusion.train_diffusion, ranks, work, samples(DIFFUSION_SAMPLES), ranks)
        else:
            export(work, target)


AUTOENCODER_SAMPLES = 84_000
JOINT_SAMPLES = 70_000
CLASSIFIER_EXAMPLES = 26_000
CLASSIFIER_SAMPLES = 110_000
TEXT_SAMPLES = 27_000
DIFFUSION_SAMPLES = 360_000


def main() -> int:
    """Parses the command line and trains."""
    parser = argparse.ArgumentParser(
        prog="python -m ldm_viz.tiny.training",
        description="Trains the embedded model. Interrupt it at will: it goes on where it was.",
    )
    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "ldm_viz-training"
    parser.add_argument("--work", type=Path, default=default, help="checkpoints (%(default)s)")
    parser.add_argument("--target", type=Path, default=WEIGHTS, help="where to write the model")
    parser.add_argument("--stage", choices=STAGES, action="append", help="only this; repeatable")
    parser.add_argument("--ranks", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--effort", type=float, default=1.0, help="factor on all sample counts")
    parser.add_argument("--fresh", action="store_true", help="forget earlier checkpoints")
    options = parser.parse_args()
    if options.ranks < 1 or options.effort <= 0:
        parser.error("--ranks must be at least 1 and --effort above 0")
    if options.fresh:
        shutil.rmtree(options.work, ignore_errors=True)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    try:
        train(
            options.work,
            options.target,
            options.stage or list(STAGES),
            options.ranks,
            options.effort,
        )
    except KeyboardInterrupt:
        sys.stderr.write("stopped; the same command goes on from the last checkpoint\n")
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
