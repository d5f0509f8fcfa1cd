"""What a reader tries first works: the notebooks print what they show, the README's code runs."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def _name(path: Path) -> str:
    return path.name


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=_name)
def test_notebook_prints_what_it_printed(notebook, tmp_path):
    # In a folder of its own, so that the files it writes are not left beside it.
    shutil.copy(notebook, tmp_path)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--quiet", "--tb=short"),
            *("--nbval", "--nbval-current-env", "--nbval-cell-timeout=300"),
            *(f"--rootdir={tmp_path}", "-c", os.devnull, notebook.name),
        ],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]])},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=_name)
def test_notebook_is_saved_whole_and_small(notebook):
    book = nbformat.read(notebook, as_version=4)
    nbformat.validate(book)
    assert "widgets" not in book.metadata, "saved without widget state: run `make notebooks`"
    cells = [cell for cell in book.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        assert not [output for output in cell.outputs if output.output_type == "error"]
        assert not [output for output in cell.outputs if output.get("name") == "stderr"]
    assert notebook.stat().st_size < 1_000_000


def _blocks(language: str) -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_the_code_of_the_readme_runs(tmp_path, monkeypatch):
    import diffusers

    import ldm_viz

    embedded = ldm_viz.load_tiny()

    class FromTheHub:
        """Stands for the model that the README takes from the hub."""

        def to(self, device):
            assert device == "cuda"
            return embedded

    pipeline = diffusers.StableDiffusionPipeline
    load = pipeline.from_pretrained

    def from_pretrained(name, **options):
        from_hub = str(name).startswith("stable-diffusion-v1-5/")
        return FromTheHub() if from_hub else load(name, **options)

    monkeypatch.setattr(pipeline, "from_pretrained", from_pretrained)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    for block in _blocks("python"):
        exec(block, names)
    assert len(ldm_viz.open_trajectory("lighthouse.safetensors")) == 30
    assert isinstance(names["run"], ldm_viz.Trajectory)


def test_the_commands_of_the_readme_are_understood(monkeypatch):
    from ldm_viz import __main__ as command_line

    lines = [line for block in _blocks("sh") for line in block.splitlines()]
    commands = [line for line in lines if line.startswith("python -m ldm_viz")]
    assert len(commands) >= 3
    for command in commands:
        command_line._parser().parse_args(shlex.split(command)[3:])
    targets = {line.split()[1] for line in lines if line.startswith("make ")}
    rules = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert [target for target in targets if f"\n{target}:" not in rules] == []


def test_the_links_of_the_readme_lead_somewhere():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = re.findall(r"\]\(([^)\s]+)\)|(?:src|srcset)=\"([^\"]+)\"", text)
    local = {link for pair in links for link in pair if link and "://" not in link}
    assert local
    assert [link for link in sorted(local) if not (ROOT / link).exists()] == []
