"""The command line: ``python -m ldm_viz demo | record | open | export``.

Messages and progress go to stderr; the last line on stdout is the path of the file that was written.
Exit status: 0 done, 1 the run failed on its way, 2 what was asked for cannot be done, 130 stopped by Ctrl-C.
"""

import argparse
import math
import os
import signal
import sys
import tempfile
import warnings
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import ldm_viz
from ldm_viz.tiny.loading import GUIDANCE, STEPS

if TYPE_CHECKING:
    from ldm_viz.trajectory import Trajectory

SCHEDULERS = {
    "ddim": "DDIMScheduler",
    "ddpm": "DDPMScheduler",
    "deis": "DEISMultistepScheduler",
    "dpm++2m": "DPMSolverMultistepScheduler",
    "dpm++2s": "DPMSolverSinglestepScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler-a": "EulerAncestralDiscreteScheduler",
    "flow-euler": "FlowMatchEulerDiscreteScheduler",
    "heun": "HeunDiscreteScheduler",
    "kdpm2": "KDPM2DiscreteScheduler",
    "kdpm2-a": "KDPM2AncestralDiscreteScheduler",
    "lms": "LMSDiscreteScheduler",
    "pndm": "PNDMScheduler",
    "unipc": "UniPCMultistepScheduler",
}
"""Short names of diffusers' schedulers, as ``--scheduler`` takes them."""

DEMO_PROMPT = "a large blue boat on the water at sunset"

PROGRAM = "python -m ldm_viz"
OWN = "the pipeline's own"


class CommandError(Exception):
    """What was asked for cannot be done; the message is one line for the person who asked."""


class _Parser(argparse.ArgumentParser):
    """A parser whose complaints are one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (--help tells more)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: The words after ``python -m ldm_viz``; those of this process when None.

    Returns:
        The exit status, as the module's description lists them.
    """
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except CommandError as error:
        _say(f"{PROGRAM} {options.command}: {error}")
        return 2
    except KeyboardInterrupt:
        _say(f"{PROGRAM} {options.command}: stopped before there was a step to keep")
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog=PROGRAM,
        description="Record what a latent diffusion pipeline does, step by step, and look at it.",
        epilog="'python -m ldm_viz COMMAND --help' tells what a command takes, with examples.",
    )
    parser.add_argument("--version", action="version", version=f"ldm_viz {ldm_viz.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    demo = _command(
        commands,
        "demo",
        _demo,
        "record the embedded model and write the run as a page",
        "Record one run of the embedded model and write it as one page that needs no network.",
        """
        python -m ldm_viz demo
        python -m ldm_viz demo --prompt "a yellow fish in blue water" --seed 3 --scheduler euler-a
        """,
    )
    demo.add_argument("--prompt", default=DEMO_PROMPT, help="what to draw (default: %(default)r)")
    _add_run_options(demo, steps=STEPS, guidance=GUIDANCE)
    demo.add_argument(
        "--out",
        type=Path,
        default=Path("demo.html"),
        metavar="PAGE",
        help="the page to write, replaced if it is there (default: %(default)s)",
    )
    _add_no_open(demo)

    record = _command(
        commands,
        "record",
        _record,
        "record a run and keep it in one file",
        "Record one run of the embedded model, or of a text-to-image pipeline of your own, in one file.",
        """
        python -m ldm_viz record "a green star at night" --out star.safetensors
        python -m ldm_viz record "a lighthouse in fog" --model ./stable-diffusion-v1-5 --steps 30
        """,
    )
    record.add_argument("prompt", metavar="PROMPT", help="what to draw")
    record.add_argument(
        "--model",
        metavar="FOLDER_OR_NAME",
        help="a folder with a diffusers pipeline, or a name on the hub (default: the embedded model)",
    )
    _add_run_options(record, steps=None, guidance=None)
    record.add_argument("--negative-prompt", metavar="TEXT", help="what to keep away from")
    record.add_argument(
        "--width", type=_whole("width", 8, 16384), metavar="PIXELS", help="of the picture"
    )
    record.add_argument(
        "--height", type=_whole("height", 8, 16384), metavar="PIXELS", help="of the picture"
    )
    record.add_argument(
        "--frames",
        choices=("exact", "linear", "none"),
        default="exact",
        help="the picture of every step: decoded by the VAE, by a fast linear map, or none "
        "(default: %(default)s)",
    )
    record.add_argument(
        "--device", help="cpu, cuda, cuda:1, mps (default: a GPU if a --model can have one)"
    )
    record.add_argument(
        "--dtype",
        choices=("float32", "float16", "bfloat16"),
        help="of the model's weights (default: float16 on a GPU, else float32)",
    )
    record.add_argument(
        "--out",
        type=Path,
        default=Path("run.safetensors"),
        metavar="FILE",
        help="the file to write (default: %(default)s)",
    )
    record.add_argument("--force", action="store_true", help="replace the file if it is there")

    show = _command(
        commands,
        "open",
        _open,
        "write a recorded run as a page",
        "Write a recorded run as one page that needs no network. Needs neither the model nor torch.",
        """
        python -m ldm_viz open star.safetensors
        python -m ldm_viz open star.safetensors --out star-for-mail.html --no-open
        """,
    )
    show.add_argument("file", type=Path, metavar="RUN", help="a file that 'record' wrote")
    show.add_argument(
        "--out",
        type=Path,
        metavar="PAGE",
        help="the page to write, replaced if it is there (default: RUN with the ending .html)",
    )
    _add_no_open(show)

    export = _command(
        commands,
        "export",
        _export,
        "write a recorded run as an animation or a contact sheet",
        "Write a recorded run as a file to show: .gif, .webp, .mp4 (with ffmpeg), .png (a contact sheet) or "
        ".html.\nNeeds neither the model nor torch.",
        """
        python -m ldm_viz export star.safetensors star.gif
        python -m ldm_viz export star.safetensors star.mp4 --series latents,x0,guided --size 512 --fps 12
        python -m ldm_viz export star.safetensors star.png --steps 9
        """,
    )
    _add_export_options(export)
    return parser


def _command(
    commands: "argparse._SubParsersAction[_Parser]",
    name: str,
    run: Callable[[argparse.Namespace], int],
    summary: str,
    description: str,
    examples: str,
) -> argparse.ArgumentParser:
    lines = [f"  {line.strip()}" for line in examples.strip().splitlines()]
    command = commands.add_parser(
        name,
        help=summary,
        description=description,
        epilog="\n".join(["examples:", *lines]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    command.set_defaults(run=run)
    return command


def _add_run_options(
    command: argparse.ArgumentParser, *, steps: int | None, guidance: float | None
) -> None:
    def default(value: object, embedded: object) -> str:
        return (
            f"(default: {f'{OWN}; {embedded} for the embedded model' if value is None else value})"
        )

    command.add_argument(
        "--seed",
        type=_whole("seed", 0, 2**63 - 1),
        default=0,
        metavar="NUMBER",
        help="the same seed gives the same picture (default: %(default)s)",
    )
    command.add_argument(
        "--steps",
        type=_whole("steps", 1, 1000),
        default=steps,
        metavar="NUMBER",
        help=f"denoising steps, 1 to 1000 {default(steps, STEPS)}",
    )
    command.add_argument(
        "--guidance",
        type=_finite,
        default=guidance,
        metavar="SCALE",
        help=f"how closely to follow the prompt; 1 is without guidance {default(guidance, GUIDANCE)}",
    )
    command.add_argument(
        "--scheduler",
        type=_scheduler_name,
        metavar="NAME",
        help=f"one of {', '.join(SCHEDULERS)} (default: {OWN})",
    )


def _add_export_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("file", type=Path, metavar="RUN", help="a file that 'record' wrote")
    command.add_argument(
        "out",
        type=Path,
        metavar="OUT",
        help="the file to write, replaced if it is there; its ending tells what it becomes",
    )
    command.add_argument(
        "--series",
        metavar="NAMES",
        help="what is shown, with commas between: latents, x0, guided, conditional, unconditional, "
        "'guidance delta' (default: latents,x0)",
    )
    command.add_argument(
        "--sample",
        type=_whole("sample", 0, 2**31),
        default=0,
        metavar="NUMBER",
        help="the position in the batch (default: %(default)s)",
    )
    command.add_argument(
        "--steps",
        type=_whole("steps", 1, 2**31),
        metavar="NUMBER",
        help="show so many steps, evenly apart (default: all; of a contact sheet seven)",
    )
    command.add_argument(
        "--size",
        type=_whole("size", 16, 4096),
        metavar="PIXELS",
        help="the longer side of each picture (default: as they are, within 256 to 512)",
    )
    command.add_argument(
        "--fps",
        type=_finite,
        default=8.0,
        metavar="NUMBER",
        help="steps a second (default: %(default)g)",
    )
    command.add_argument(
        "--hold",
        type=_finite,
        metavar="SECONDS",
        help="how long the last frame stays (default: 1; of a finished video 0)",
    )
    command.add_argument(
        "--quality",
        type=_whole("quality", 0, 100),
        metavar="NUMBER",
        help="of .webp and .mp4, 0 to 100 (default: 80)",
    )
    command.add_argument(
        "--channel",
        type=_whole("channel", 0, 2**31),
        default=0,
        metavar="NUMBER",
        help="the latent channel of heatmaps (default: %(default)s)",
    )
    command.add_argument(
        "--video",
        choices=("middle", "final"),
        default="middle",
        help="of a run that made a video: the frame in the middle at every step, or the finished video "
        "(default: %(default)s)",
    )
    command.add_argument(
        "--no-labels", dest="labels", action="store_false", help="only the pictures, no words"
    )


def _add_no_open(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--no-open",
        dest="open_page",
        action="store_false",
        help="only write the page; otherwise it is opened too where there is a display",
    )


def _whole(what: str, least: int, most: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a whole number from {least} to {most}, which {what} must be"
            )
        return value

    return parse


def _finite(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0 up")
    return value


def _scheduler_name(text: str) -> str:
    if text.lower() not in SCHEDULERS:
        raise argparse.ArgumentTypeError(
            f"there is no scheduler {text!r} here; there are {', '.join(SCHEDULERS)}"
        )
    return text.lower()


def _demo(options: argparse.Namespace) -> int:
    _check_page(options.out)
    pipe = _load(None, None, None)
    _tell_unknown_words(options.prompt)
    run, status = _recorded(pipe, options, frames="exact", guidance=options.guidance)
    _say(repr(run))
    page = _written(options.out, lambda: ldm_viz.explore(run).to_html(options.out))
    _show(page, options.open_page and status == 0)
    return status


def _record(options: argparse.Namespace) -> int:
    out: Path = options.out
    if out.suffix != ".safetensors":
        raise CommandError(f"--out {out}: a recorded run is a .safetensors file; name it so")
    if out.exists() and not options.force:
        raise CommandError(f"{out} is there already; --force replaces it, --out names another")
    _check_writable(out)
    if options.model is None:
        options.steps = options.steps or STEPS
        options.guidance = GUIDANCE if options.guidance is None else options.guidance
    pipe = _load(options.model, options.device, options.dtype)
    if options.model is None:
        _tell_unknown_words(options.prompt)
    run, status = _recorded(
        pipe,
        options,
        frames=None if options.frames == "none" else options.frames,
        negative_prompt=options.negative_prompt,
        guidance=options.guidance,
        width=options.width,
        height=options.height,
    )
    _say(repr(run))
    try:
        run.save(out)
    except OSError as error:
        _say(f"{PROGRAM} record: cannot write {out}: {error.strerror or error}")
        out = _saved_elsewhere(run, out.name)
        status = status or 1
    print(out.resolve(), flush=True)
    return status


def _open(options: argparse.Namespace) -> int:
    file: Path = options.file
    page: Path = options.out or file.with_suffix(".html")
    _check_page(page)
    run = _read(file)
    _say(repr(run))
    _show(_written(page, lambda: ldm_viz.explore(run).to_html(page)), options.open_page)
    return 0


def _export(options: argparse.Namespace) -> int:
    from ldm_viz.exports import ExportError, export

    out: Path = options.out
    run = _read(options.file)
    _say(repr(run))
    series = options.series
    try:
        _written(
            out,
            lambda: export(
                run,
                out,
                series=None if series is None else [name.strip() for name in series.split(",")],
                sample=options.sample,
                steps=options.steps,
                size=options.size,
                fps=options.fps,
                hold=options.hold,
                labels=options.labels,
                quality=options.quality,
                channel=options.channel,
                video=options.video,
                progress=None if sys.stderr.isatty() else False,
            ),
        )
    except (ValueError, IndexError, ExportError) as error:
        raise CommandError(_one_line(error)) from error
    except KeyboardInterrupt:
        _say("Stopped by Ctrl-C; nothing was written")
        return 130
    print(out.resolve(), flush=True)
    return 0


def _read(file: Path) -> "Trajectory":
    try:
        return ldm_viz.open_trajectory(file)
    except OSError as error:
        raise CommandError(f"cannot read {file}: {error.strerror or error}") from error
    except ldm_viz.TrajectoryFileError as error:
        raise CommandError(_one_line(error)) from error


def _load(model: str | None, device: str | None, dtype: str | None) -> Any:
    """Load the embedded model (None) or a diffusers pipeline from a folder or the hub."""
    _say("Loading the embedded model" if model is None else f"Loading {model}")
    # Both packages tell of parts that are not installed and not needed here.
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")
    import diffusers
    import torch
    import transformers

    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    if model is None:
        where = device or "cpu"
    else:
        where = device or (
            "cuda"
            if torch.cuda.is_available()
            else "mps"
            if torch.backends.mps.is_available()
            else "cpu"
        )
        folder = Path(model)
        if folder.is_dir() and not (folder / "model_index.json").is_file():
            raise CommandError(
                f"the folder {model} holds no diffusers pipeline: it has no model_index.json"
            )
        if not folder.is_dir() and (folder.is_absolute() or model.startswith((".", "~"))):
            raise CommandError(f"there is no folder {model}")
    try:
        chosen = getattr(
            torch, dtype or ("float32" if where == "cpu" or model is None else "float16")
        )
        with warnings.catch_warnings():
            # diffusers 0.42 renamed torch_dtype, which is the only name that older ones know.
            warnings.simplefilter("ignore", FutureWarning)
            if model is None:
                pipe = ldm_viz.load_tiny()
            else:
                pipe = diffusers.DiffusionPipeline.from_pretrained(model, torch_dtype=chosen)
        pipe.to(where, chosen)
    except Exception as error:  # whatever a hub, a folder or a driver answers
        if model is None:
            raise CommandError(_one_line(error)) from error
        raise CommandError(
            f"the model {model!r} does not load on {where}: {_one_line(error)}; "
            "give a folder with a diffusers pipeline, or a name on the hub"
        ) from error
    return pipe


def _tell_unknown_words(prompt: str) -> None:
    from ldm_viz.tiny.captions import unknown_words

    unknown = unknown_words(prompt)
    if unknown:
        _say(f"The embedded model never learnt: {', '.join(unknown)}")


def _recorded(
    pipe: Any, options: argparse.Namespace, *, frames: str | None, **call: Any
) -> "tuple[Trajectory, int]":
    """Record one run; when it stops on its way, what was recorded and the exit status for that."""
    _set_scheduler(pipe, options.scheduler)
    call = {
        "num_inference_steps": options.steps,
        "guidance_scale": call.pop("guidance", None),
        **call,
    }
    call = {name: value for name, value in call.items() if value is not None}
    progress = sys.stderr.isatty()
    pipe.set_progress_bar_config(disable=not progress)
    with _stopping_gently(pipe) as stopped:

        def on_step(*_: Any, **__: Any) -> None:
            # A stop asked for before the loop began was undone by the pipeline.
            if stopped:
                pipe._interrupt = True

        try:
            run = ldm_viz.record(
                pipe,
                options.prompt,
                seed=options.seed,
                frames=frames,
                progress=progress,
                on_step=on_step,
                **call,
            )
        except (Exception, KeyboardInterrupt) as error:
            partial = getattr(error, "trajectory", None)
            if partial is None or not len(partial):
                if isinstance(error, KeyboardInterrupt):
                    raise
                raise CommandError(f"nothing was recorded: {_one_line(error)}") from error
            partial = _with_pictures(pipe, partial, frames)
            if isinstance(error, KeyboardInterrupt):
                _say(f"Stopped by Ctrl-C; {len(partial)} steps are kept")
                return partial, 130
            _say(f"The run failed: {_one_line(error)}; {len(partial)} steps are kept")
            return partial, 1
    if stopped:
        _say(f"Stopped by Ctrl-C; {len(run)} steps are kept")
        return _with_pictures_made(pipe, run), 130
    return _with_pictures_made(pipe, run), 0


def _with_pictures_made(pipe: Any, run: "Trajectory") -> "Trajectory":
    """The run with its pictures decoded; without, where that cannot be: the run must not be lost."""
    import numpy as np

    try:
        for series in run.frames.values():
            np.asarray(series)
    except KeyboardInterrupt:
        _say("Stopped by Ctrl-C while decoding; the pictures are quick ones")
        return _with_pictures(pipe, run, "linear")
    except Exception as error:  # noqa: BLE001 - whatever the decoder raises
        _say(f"Its pictures could not be decoded: {_one_line(error)}")
        return run.replace(frames={}, frames_source="")
    return run


def _with_pictures(pipe: Any, partial: "Trajectory", frames: str | None) -> "Trajectory":
    """A run that broke off, with quick pictures of its steps where those can be had."""
    if frames is None:
        return partial
    try:
        return ldm_viz.Recorder(pipe).decode(partial, "linear")
    except Exception as error:  # noqa: BLE001 - what broke the run may break this, and must not lose it
        _say(f"Its pictures could not be decoded: {_one_line(error)}")
        return partial


def _set_scheduler(pipe: Any, name: str | None) -> None:
    if name is None:
        return
    import diffusers

    scheduler = getattr(diffusers, SCHEDULERS[name])
    possible = {known.__name__ for known in pipe.scheduler.compatibles}
    if scheduler.__name__ not in possible:
        fitting = [short for short, long in SCHEDULERS.items() if long in possible]
        raise CommandError(
            f"the scheduler {name!r} does not fit this pipeline; "
            f"{', '.join(fitting) or 'only its own'} would"
        )
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config)


@contextmanager
def _stopping_gently(pipe: Any) -> Iterator[list[int]]:
    """Let the first Ctrl-C end the run after the step it is in, and a second one end it at once."""
    stopped: list[int] = []

    def stop(number: int, _frame: object) -> None:
        stopped.append(number)
        pipe._interrupt = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _say("\nStopping after this step; Ctrl-C again stops at once")

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield stopped
    finally:
        signal.signal(signal.SIGINT, before)


def _check_page(page: Path) -> None:
    if page.suffix.lower() not in {".html", ".htm"}:
        raise CommandError(f"{page}: a page's name ends in .html; choose one with --out")
    _check_writable(page)


def _check_writable(out: Path) -> None:
    """Find out before the work, not after it, that there is no place for its result."""
    if out.is_dir():
        raise CommandError(f"{out} is a folder; --out names a file")
    if not out.parent.is_dir():
        raise CommandError(f"there is no folder {out.parent}; make it, or choose another --out")
    try:
        with tempfile.TemporaryFile(dir=out.parent):
            pass
    except OSError as error:
        raise CommandError(f"cannot write into {out.parent}: {error.strerror}") from error


def _written(out: Path, write: Callable[[], object]) -> Path:
    try:
        write()
    except OSError as error:
        raise CommandError(f"cannot write {out}: {error.strerror or error}") from error
    return out


def _saved_elsewhere(run: "Trajectory", name: str) -> Path:
    """Keep a run whose own place has no room for it in the first folder that has."""
    for folder in (tempfile.gettempdir(), Path.home()):
        try:
            out = Path(tempfile.mkdtemp(prefix="ldm_viz-", dir=folder)) / name
            run.save(out)
        except OSError:
            continue
        _say(f"The run is kept in {out}")
        return out
    raise CommandError("no other folder has room for the run either; it is lost")


def _show(page: Path, wanted: bool) -> None:
    page = page.resolve()
    if wanted and _has_display():
        webbrowser.open(page.as_uri())
    print(page, flush=True)


def _has_display() -> bool:
    if os.environ.get("CI") or os.environ.get("SSH_CONNECTION"):
        return False
    if sys.platform in {"darwin", "win32"}:
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if text else type(error).__name__


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
