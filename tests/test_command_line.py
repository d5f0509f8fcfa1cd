"""``python -m ldm_viz``: what it writes, what it says, and what it does when things go wrong."""

import errno
import os
import signal
import subprocess
import sys
import webbrowser
from pathlib import Path

import pytest
from PIL import Image

import ldm_viz
import ldm_viz.imaging
from ldm_viz.__main__ import SCHEDULERS, main

ROOT = Path(__file__).resolve().parent.parent
QUICK = ("--steps", "4", "--seed", "1")


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CI", "true")  # a test opens no browser


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A recorded run in a file."""
    file = tmp_path_factory.mktemp("saved") / "star.safetensors"
    assert main(["record", "a green star at night", "--out", str(file), *QUICK]) == 0
    return file


def _at_step(monkeypatch, step: int, act) -> None:
    """Have the embedded model do ``act()`` when it is asked for the noise of ``step``."""
    load_tiny = ldm_viz.load_tiny

    def load():
        pipe = load_tiny()
        calls = []

        def hook(*_):
            calls.append(None)
            if len(calls) == step + 1:
                act()

        pipe.unet.register_forward_pre_hook(hook)
        return pipe

    monkeypatch.setattr(ldm_viz, "load_tiny", load)


@pytest.mark.parametrize("command", ["demo", "record", "open", "export"])
def test_help_has_examples(command, capsys):
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    told = capsys.readouterr().out
    assert f"python -m ldm_viz {command} " in told.split("examples:")[1] or command == "demo"
    for line in told.split("examples:")[1].strip().splitlines():
        assert line.strip().startswith(f"python -m ldm_viz {command}")


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out == f"ldm_viz {ldm_viz.__version__}\n"


def test_demo_writes_a_page_and_prints_only_its_path(tmp_path, capsys):
    assert main(["demo", *QUICK]) == 0
    page = tmp_path / "demo.html"
    assert capsys.readouterr().out == f"{page}\n"
    assert "<html" in page.read_text(encoding="utf-8")
    assert main(["demo", *QUICK]) == 0, "a second time replaces the page"


def test_words_that_the_model_never_learnt_are_told(tmp_path, capsys):
    assert main(["demo", *QUICK, "--prompt", "a red dragon at night"]) == 0
    assert "never learnt: dragon\n" in capsys.readouterr().err
    assert main(["demo", *QUICK, "--prompt", "a red fish at night"]) == 0
    assert "never learnt" not in capsys.readouterr().err


def test_demo_opens_the_page_where_there_is_a_display(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(webbrowser, "open", opened.append)
    monkeypatch.setenv("DISPLAY", ":99")
    assert main(["demo", *QUICK]) == 0
    assert opened == [], "not in CI"
    monkeypatch.delenv("CI")
    monkeypatch.delenv("SSH_CONNECTION", raising=False)
    assert main(["demo", *QUICK, "--no-open"]) == 0
    assert opened == []
    assert main(["demo", *QUICK]) == 0
    assert opened == [(tmp_path / "demo.html").as_uri()]


def test_a_prompt_is_text_in_the_page(tmp_path):
    prompt = "</script><script>alert('boat')</script>"
    assert main(["demo", *QUICK, "--prompt", prompt]) == 0
    assert prompt not in (tmp_path / "demo.html").read_text(encoding="utf-8")


def test_record_keeps_what_was_asked_for(saved):
    run = ldm_viz.open_trajectory(saved)
    assert len(run) == 4
    assert run.status == "complete"
    assert run.settings["prompt"] == "a green star at night"
    assert run.settings["seed"] == 1
    assert run.frames["x0"].shape[:2] == (4, 1)


def test_record_takes_a_model_from_a_folder(tmp_path):
    ldm_viz.load_tiny().save_pretrained("model")
    arguments = ["record", "a red moon", "--model", "model", "--negative-prompt", "night", *QUICK]
    assert main([*arguments, "--device", "cpu", "--guidance", "3"]) == 0
    run = ldm_viz.open_trajectory(tmp_path / "run.safetensors")
    assert (len(run), run.settings["guidance_scale"]) == (4, 3.0)
    assert run.settings["negative_prompt"] == "night"


def test_record_does_not_replace_a_run_unasked(saved, capsys):
    before = saved.read_bytes()
    again = ["record", "a red moon", "--out", str(saved), *QUICK]
    assert main(again) == 2
    assert "--force" in capsys.readouterr().err
    assert saved.read_bytes() == before


def test_record_with_force_replaces(tmp_path):
    (tmp_path / "run.safetensors").write_text("old")
    assert main(["record", "a red moon", "--frames", "none", "--force", *QUICK]) == 0
    run = ldm_viz.open_trajectory(tmp_path / "run.safetensors")
    assert run.settings["prompt"] == "a red moon"
    assert dict(run.frames) == {}


def test_open_writes_a_page_beside_the_run(saved, capsys):
    assert main(["open", str(saved)]) == 0
    page = saved.with_suffix(".html")
    assert capsys.readouterr().out == f"{page}\n"
    assert "a green star at night" in page.read_text(encoding="utf-8")


def test_open_needs_no_torch(saved, tmp_path):
    code = (
        "import sys\n"
        "for name in ('torch', 'diffusers', 'transformers'): sys.modules[name] = None\n"
        "from ldm_viz.__main__ import main\n"
        "sys.exit(main(['open', sys.argv[1], '--out', 'page.html', '--no-open']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(saved)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(tmp_path / "page.html")


@pytest.mark.parametrize("name", [name for name in SCHEDULERS if name != "flow-euler"])
def test_every_scheduler_runs_the_embedded_model(name, tmp_path):
    assert main(["record", "a blue fish", "--scheduler", name, "--frames", "none", *QUICK]) == 0
    run = ldm_viz.open_trajectory(tmp_path / "run.safetensors")
    assert run.settings["scheduler"] == SCHEDULERS[name]
    assert abs(run.latents).max() < 100


BAD_INPUT = {
    "no command": ([], "COMMAND"),
    "unknown command": (["paint"], "'paint'"),
    "no steps": (["demo", "--steps", "0"], "from 1 to 1000"),
    "negative steps": (["demo", "--steps", "-3"], "from 1 to 1000"),
    "too many steps": (["demo", "--steps", "1001"], "from 1 to 1000"),
    "steps in words": (["demo", "--steps", "many"], "'many'"),
    "negative seed": (["demo", "--seed", "-1"], "'-1'"),
    "guidance that is no number": (["demo", "--guidance", "nan"], "'nan'"),
    "unknown scheduler": (["demo", "--scheduler", "magic"], "ddim, ddpm"),
    "a scheduler of another family": (["demo", "--scheduler", "flow-euler"], "dpm++2m"),
    "a folder as the page": (["demo", "--out", "."], "ends in .html"),
    "a page in no folder": (["demo", "--out", "nowhere/page.html"], "no folder nowhere"),
    "a page in a file": (["demo", "--out", "file.txt/page.html"], "no folder file.txt"),
    "a folder named like a page": (["demo", "--out", "folder.html"], "is a folder"),
    "a run that is no safetensors": (["record", "x", "--out", "run.zip"], ".safetensors"),
    "no prompt": (["record"], "PROMPT"),
    "a model in no folder": (["record", "x", "--model", "./nowhere"], "no folder ./nowhere"),
    "a folder that is no model": (["record", "x", "--model", "folder.html"], "model_index.json"),
    "a model that is not here": (["record", "x", "--model", "nobody/nothing"], "nobody/nothing"),
    "a device that is not here": (["record", "x", "--device", "warp"], "warp"),
    "a file that is not there": (["open", "nowhere.safetensors"], "nowhere.safetensors"),
    "a file of another kind": (["open", "file.txt"], "file.txt"),
    "a folder as a run": (["open", "folder.html", "--out", "a.html"], "folder.html"),
    "the run as its own page": (["open", "a.safetensors", "--out", "a.safetensors"], ".html"),
    "an export of nothing": (["export", "nowhere.safetensors", "a.gif"], "nowhere.safetensors"),
    "an export of another kind": (["export", "file.txt", "a.gif"], "file.txt"),
    "an export to nowhere": (["export", "file.txt"], "OUT"),
    "a sample before the first": (["export", "a", "b.gif", "--sample", "-1"], "'-1'"),
    "an export too small": (["export", "a", "b.gif", "--size", "2"], "from 16 to 4096"),
    "an export at no speed": (["export", "a", "b.gif", "--fps", "fast"], "'fast'"),
    "an export of an unknown video": (["export", "a", "b.gif", "--video", "first"], "'first'"),
}


@pytest.mark.parametrize("case", BAD_INPUT)
def test_bad_input_gets_one_line(case, tmp_path, capfd):
    (tmp_path / "file.txt").write_text("not a run")
    (tmp_path / "folder.html").mkdir()
    arguments, told = BAD_INPUT[case]
    try:
        status = main(arguments)
    except SystemExit as stop:
        status = stop.code
    seen = capfd.readouterr()
    assert status == 2
    assert seen.out == ""
    last = seen.err.splitlines()[-1]
    assert last.startswith("python -m ldm_viz")
    assert told in last
    assert "Traceback" not in seen.err
    assert [line for line in seen.err.splitlines() if not line.startswith("Loading")] == [last]


def test_a_cut_file_gets_one_line(saved, tmp_path, capsys):
    (tmp_path / "cut.safetensors").write_bytes(saved.read_bytes()[:2000])
    assert main(["open", "cut.safetensors"]) == 2
    assert "cut.safetensors" in capsys.readouterr().err
    assert not (tmp_path / "cut.html").exists()


def test_ctrl_c_ends_the_run_after_its_step_and_keeps_it(tmp_path, monkeypatch, capsys):
    _at_step(monkeypatch, 3, lambda: signal.raise_signal(signal.SIGINT))
    assert main(["record", "a red star", "--steps", "8"]) == 130
    run = ldm_viz.open_trajectory(tmp_path / "run.safetensors")
    assert len(run) == 4
    assert run.status == "interrupted"
    assert run.frames["x0"].shape[0] == 4
    assert "4 steps are kept" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_ctrl_c_ends_the_run_at_once_and_keeps_it(tmp_path, monkeypatch, capsys):
    def twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    _at_step(monkeypatch, 3, twice)
    assert main(["demo", "--steps", "8"]) == 130
    assert "3 steps are kept" in capsys.readouterr().err
    assert "<html" in (tmp_path / "demo.html").read_text(encoding="utf-8")


def test_ctrl_c_before_the_run_leaves_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(ldm_viz, "load_tiny", lambda: signal.raise_signal(signal.SIGINT))
    assert main(["demo"]) == 130
    assert "before there was a step" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_fails_is_kept_as_far_as_it_came(tmp_path, monkeypatch, capsys):
    def fail():
        raise RuntimeError("the denoiser is tired")

    _at_step(monkeypatch, 2, fail)
    assert main(["record", "a red star", "--steps", "8"]) == 1
    run = ldm_viz.open_trajectory(tmp_path / "run.safetensors")
    assert (len(run), run.status) == (2, "failed")
    assert "the denoiser is tired" in run.error
    told = capsys.readouterr()
    assert "the denoiser is tired" in told.err
    assert told.out.endswith("run.safetensors\n")


def test_a_full_disk_does_not_lose_the_run(tmp_path, monkeypatch, capsys):
    save = ldm_viz.Trajectory.save

    def no_room(run, path, **options):
        if Path(path).parent == Path():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return save(run, path, **options)

    monkeypatch.setattr(ldm_viz.Trajectory, "save", no_room)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert main(["record", "a red star", *QUICK]) == 1
    told = capsys.readouterr()
    assert os.strerror(errno.ENOSPC) in told.err
    assert len(ldm_viz.open_trajectory(told.out.strip())) == 4


def test_export_writes_an_animation_and_prints_its_path(saved, tmp_path, capsys):
    options = ("--series", "latents, x0", "--fps", "10", "--hold", "0.5", "--size", "64")
    assert main(["export", str(saved), "star.gif", *options, "--no-labels"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'star.gif'}\n"
    with Image.open("star.gif") as image:
        assert image.n_frames == 5
        assert image.height == 64 and 128 < image.width < 140
        image.seek(4)
        assert image.info["duration"] == 500


def test_export_takes_its_other_options(saved, capsys):
    assert main(["export", str(saved), "star.webp", "--steps", "2", "--quality", "30"]) == 0
    with Image.open("star.webp") as image:
        assert image.n_frames == 3
    options = ("--series", "guided", "--channel", "3", "--sample", "0", "--video", "middle")
    assert main(["export", str(saved), "star.png", *options]) == 0
    assert main(["export", str(saved), "star.html"]) == 0
    assert "a green star at night" in Path("star.html").read_text(encoding="utf-8")


BAD_EXPORTS = {
    "an unknown ending": (["star.avi"], ".gif"),
    "no folder": (["nowhere/star.gif"], "no folder nowhere"),
    "an unknown series": (["star.gif", "--series", "latents,moon"], "'moon'; this run has latents"),
    "no such sample": (["star.gif", "--sample", "1"], "between 0 and 0, not 1"),
    "no such channel": (["star.gif", "--series", "guided", "--channel", "4"], "not 4"),
    "too fast": (["star.gif", "--fps", "51"], "0.1 to 50"),
    "no ffmpeg": (["star.mp4"], "not on PATH"),
    "no video": (["star.gif", "--video", "final"], "none"),
    "quality of a GIF": (["star.gif", "--quality", "9"], "quality is for"),
}


@pytest.mark.parametrize("case", BAD_EXPORTS)
def test_an_export_that_cannot_be_gets_one_line_and_leaves_nothing(
    case, saved, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("PATH", str(tmp_path))
    arguments, told = BAD_EXPORTS[case]
    assert main(["export", str(saved), *arguments]) == 2
    seen = capsys.readouterr()
    assert seen.out == ""
    last = seen.err.splitlines()[-1]
    assert last.startswith("python -m ldm_viz export: ") and told in last
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_during_an_export_leaves_the_old_file(saved, tmp_path, monkeypatch, capsys):
    (tmp_path / "star.gif").write_bytes(b"old")
    colourise = ldm_viz.imaging.colourise
    seen = []

    def stop_at_the_third(*arguments):
        seen.append(None)
        if len(seen) == 3:
            signal.raise_signal(signal.SIGINT)
        return colourise(*arguments)

    monkeypatch.setattr("ldm_viz.exports.panels.colourise", stop_at_the_third)
    assert main(["export", str(saved), "star.gif", "--series", "guided"]) == 130
    told = capsys.readouterr()
    assert told.out == "" and "nothing was written" in told.err
    assert [path.name for path in tmp_path.iterdir()] == ["star.gif"]
    assert (tmp_path / "star.gif").read_bytes() == b"old"


def test_export_needs_no_torch(saved, tmp_path):
    code = (
        "import sys\n"
        "for name in ('torch', 'diffusers', 'transformers'): sys.modules[name] = None\n"
        "from ldm_viz.__main__ import main\n"
        "sys.exit(main(['export', sys.argv[1], 'star.gif']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(saved)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == str(tmp_path / "star.gif")
