"""The house's rules: who may import whom, what an import costs, what a wheel carries."""

import ast
import json
import re
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

import ldm_viz

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "ldm_viz"

ARRAYS = frozenset({"numpy", "PIL", "safetensors", "xarray"})
MODELS = ARRAYS | {"torch", "diffusers", "transformers", "tokenizers", "scipy", "tqdm", "psutil"}
DISPLAY = ARRAYS | {"plotly", "kaleido", "anywidget", "ipywidgets", "traitlets", "IPython", "tqdm"}


@dataclass(frozen=True)
class Room:
    """What a module or subpackage of ldm_viz may import beside the standard library."""

    rooms: frozenset[str]
    packages: frozenset[str]


GROUND = frozenset(
    {"trajectory", "statistics", "imaging", "latent_layouts", "previews", "comparison"}
)
SHOWING = frozenset({"exports", "figures", "views", "widgets"})
HOUSE = {
    "trajectory": Room(GROUND, ARRAYS),
    "statistics": Room(GROUND, ARRAYS),
    "imaging": Room(GROUND, ARRAYS),
    "latent_layouts": Room(GROUND, ARRAYS),
    "previews": Room(GROUND, ARRAYS),
    "comparison": Room(GROUND, ARRAYS),
    "tiny": Room(GROUND | {"conditioning"}, MODELS),
    "capture": Room(GROUND, MODELS),
    "conditioning": Room(GROUND, MODELS),
    "figures": Room(GROUND, DISPLAY),
    "views": Room(frozenset(), frozenset()),
    "widgets": Room(GROUND | {"figures", "views"}, DISPLAY),
    "exports": Room(GROUND | {"widgets"}, DISPLAY),
    "labs": Room(
        GROUND | {"tiny", "capture", "conditioning"} | SHOWING,
        MODELS | DISPLAY,
    ),
    "__init__": Room(GROUND | {"tiny", "capture", "conditioning", "labs"} | SHOWING, MODELS),
    "__main__": Room(GROUND | {"tiny", "capture", "conditioning", "labs"} | SHOWING, MODELS),
}

MODULES = sorted(PACKAGE.rglob("*.py"))


def _room(module: Path) -> str:
    return module.relative_to(PACKAGE).parts[0].removesuffix(".py")


def _imports(module: Path) -> Iterator[tuple[int, str]]:
    """Each module that ``module`` imports when it runs, by its full dotted name, with the line."""
    package = ("ldm_viz", *module.relative_to(PACKAGE).parts[:-1])
    waiting: list[ast.AST] = [ast.parse(module.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            waiting.extend(node.orelse)
            continue
        waiting.extend(ast.iter_child_nodes(node))
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            base = ".".join([*start, *([node.module] if node.module else [])])
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}" if base == "ldm_viz" else base


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_room_imports_only_from_floors_below_it(module: Path) -> None:
    name = _room(module)
    assert name in HOUSE, (
        f"{name} has no floor yet: give it a line in HOUSE and in the README's map"
    )
    room = HOUSE[name]
    for line, imported in _imports(module):
        top, _, rest = imported.partition(".")
        where = f"{module.relative_to(ROOT)}:{line} imports {imported}"
        if top == "ldm_viz":
            other = rest.split(".")[0]
            # The package itself is on no floor: its public names are found when they are used.
            if other and other != "__version__" and other not in ldm_viz.__all__:
                assert other == name or other in room.rooms, where
        elif top not in sys.stdlib_module_names:
            assert top in room.packages, where


def test_the_rule_reader_sees_every_way_to_import(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path)
    module = tmp_path / "widgets" / "one.py"
    module.parent.mkdir()
    module.write_text(
        "import torch.nn as nn\nfrom ..capture import record\nfrom ldm_viz import capture\n"
        "from . import two\nif TYPE_CHECKING:\n    import xarray\ndef f():\n    import diffusers\n"
    )
    assert sorted(name for _, name in _imports(module)) == [
        "diffusers",
        "ldm_viz.capture",
        "ldm_viz.capture",
        "ldm_viz.widgets",
        "torch.nn",
    ]


def _loaded_by(code: str, *names: str) -> list[str]:
    """Those of ``names`` that a fresh Python has loaded after running ``code``."""
    watch = f"import json, sys; print(json.dumps([n for n in {names!r} if n in sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{watch}"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_importing_the_package_is_cheap() -> None:
    heavy = ("torch", "diffusers", "transformers", "plotly", "numpy", "ipywidgets", "anywidget")
    assert _loaded_by("import ldm_viz; dir(ldm_viz); import ldm_viz.__main__", *heavy) == []


def test_looking_at_a_run_needs_no_model() -> None:
    code = (
        "import ldm_viz as lv, ldm_viz.statistics, ldm_viz.imaging\n"
        "lv.Trajectory, lv.open_trajectory, lv.explore, lv.export"
    )
    assert _loaded_by(code, "torch", "diffusers", "transformers") == []


@pytest.mark.parametrize("name", ldm_viz.__all__)
def test_public_name_is_found_and_documented(name: str) -> None:
    value = getattr(ldm_viz, name)
    assert callable(value)
    assert value.__doc__ and value.__doc__.strip()


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(AttributeError, match="'recrod'.*Recorder.*record"):
        ldm_viz.recrod  # noqa: B018
    assert set(ldm_viz.__all__) <= set(dir(ldm_viz))


def test_type_checkers_see_the_same_public_names() -> None:
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = set()
    for node in block.body:
        if isinstance(node, ast.ImportFrom):
            seen |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Assign):
            seen |= {ast.unparse(target) for target in node.targets}
    assert seen == set(ldm_viz.__all__) == set(ldm_viz._HOMES)


def _our_files() -> list[Path]:
    """Every file of the project, whether committed yet or not."""
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("not a git checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    return [path for name in listed.split("\0") if name and (path := ROOT / name).is_file()]


def test_no_file_holds_a_path_of_somebodys_machine_or_a_download_address() -> None:
    machine = re.compile(rb"(?<![\w.~-])/(?:root|home|Users|work)/\w|\w:\\\\?Users\\")
    address = re.compile(rb"--(?:extra-)?index-url|--find-links|files\.pythonhosted\.org")
    for path in _our_files():
        content = path.read_bytes()
        if path == Path(__file__).resolve() or b"\0" in content[:8000]:
            continue
        found = machine.search(content) or address.search(content)
        assert not found, f"{path.relative_to(ROOT)} holds {found and found.group()!r}"


def test_a_wheel_carries_all_that_the_package_reads(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(
        PACKAGE, source / "ldm_viz", ignore=shutil.ignore_patterns("__pycache__", "*.pyc")
    )
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            f"from setuptools.build_meta import build_wheel; build_wheel({str(tmp_path)!r})",
        ],
        cwd=source,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    carried = {name for name in zipfile.ZipFile(wheel).namelist() if name.startswith("ldm_viz/")}
    ours = {path.relative_to(ROOT).as_posix() for path in _our_files() if PACKAGE in path.parents}
    assert ours - carried == set()
    assert carried - ours == set()
