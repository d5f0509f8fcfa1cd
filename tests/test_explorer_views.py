"""The views' JavaScript, without a browser: syntax and pure functions, in the node that Playwright brings."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from playwright._impl._driver import compute_driver_executable
from test_explorer import VIEWS

from ldm_viz.statistics import format_figure
from ldm_viz.widgets.maps import quantise
from ldm_viz.widgets.sources import module_text, page_script, read_view

HERE = Path(__file__).resolve().parent
NODE = str(compute_driver_executable()[0])


def run_node(*arguments: str, **environment: str) -> None:
    found = subprocess.run(
        [NODE, *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert found.returncode == 0, found.stdout[-4000:] + found.stderr[-4000:]


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("text", [module_text, page_script])
def test_joined_texts_are_valid_modules(text, view, tmp_path):
    path = tmp_path / "view.mjs"
    path.write_text(text(view), encoding="utf-8")
    run_node("--check", str(path))


def test_pure_functions(tmp_path):
    core = tmp_path / "core.mjs"
    core.write_text(read_view("core.js"), encoding="utf-8")
    figures = [3.1234, 0.1, 721, -14.648, 0, 1e-5, -1e-7, 123456, 0.00999, 99999, 0.0355, 12.5]
    values = np.array([0.0, 1.5, -2.25, np.nan, np.inf, -np.inf, 1e-3])
    coded = []
    for bits in (8, 16):
        codes, scale = quantise(values, bits)
        text = [v if np.isfinite(v) else str(v) for v in values.tolist()]
        coded.append({"bits": bits, "codes": codes.tolist(), "scale": scale, "values": text})
    run_node(
        "--test",
        str(HERE / "explorer_core.test.mjs"),
        LDM_VIZ_CORE=str(core),
        LDM_VIZ_FIGURES=json.dumps([[v, format_figure(v)] for v in figures]),
        LDM_VIZ_CODES=json.dumps(coded),
    )


def test_the_views_types_fit():
    """JSDoc types of all views, by TypeScript's own compiler (Debian: node-typescript)."""
    compiler = shutil.which("tsc")
    if compiler is None:
        if os.environ.get("CI"):
            pytest.fail("tsc is missing: apt-get install node-typescript")
        pytest.skip("tsc is not installed")
    found = subprocess.run(
        [compiler, "--project", str(HERE / "jsconfig.json")],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert found.returncode == 0, found.stdout[-4000:]
