"""Chromium, pages with no network, and a real JupyterLab, for tests that look at what users see."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from conftest import find_chromium
from playwright.sync_api import Browser, Page, expect, sync_playwright

ROOT = Path(__file__).resolve().parents[1]
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
# Milliseconds. Only ever waited in full when something is broken, so generous for a loaded machine.
PATIENCE = 180_000
expect.set_options(timeout=PATIENCE / 3)


@contextmanager
def open_chromium() -> Iterator[Browser]:
    """A headless Chromium."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=ARGUMENTS)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Watched:
    """A page and what it said and asked for."""

    page: Page
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@contextmanager
def open_watched(browser: Browser, *, offline: bool = True, **context: Any) -> Iterator[Watched]:
    """A page whose console errors and requests are kept; offline, whatever is no file is refused."""
    context = {"viewport": {"width": 1000, "height": 900}, **context}
    surroundings = browser.new_context(**context)
    surroundings.set_default_timeout(PATIENCE)
    page = surroundings.new_page()
    watched = Watched(page)
    page.on("request", lambda request: watched.requests.append(request.url))
    page.on(
        "console",
        lambda message: watched.errors.append(message.text) if message.type == "error" else None,
    )
    page.on("pageerror", lambda error: watched.errors.append(str(error)))
    if offline:
        surroundings.route(
            lambda url: not url.startswith("file:"), lambda route: route.abort("blockedbyclient")
        )
    try:
        yield watched
    finally:
        surroundings.close()


@dataclass
class Lab:
    """A running JupyterLab."""

    url: str
    token: str
    folder: Path

    def address(self, notebook: str) -> str:
        return f"{self.url}lab/tree/{notebook}?token={self.token}&reset"

    def write_notebook(self, name: str, *cells: str) -> str:
        """Put a notebook of code cells into the served folder."""
        import nbformat

        notebook = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(cell) for cell in cells],
            metadata={"kernelspec": {"name": "python3", "display_name": "Python 3"}},
        )
        nbformat.write(notebook, self.folder / name)
        return name


@contextmanager
def open_lab(folder: Path) -> Iterator[Lab]:
    """JupyterLab on a free loopback port, with its own folders for everything it reads and keeps."""
    token = secrets.token_hex(16)
    served = folder / "notebooks"
    served.mkdir(parents=True)
    settings = folder / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    quiet = {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True}
    (settings / "notification.jupyterlab-settings").write_text(json.dumps(quiet))
    environment = {
        **os.environ,
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTER_DATA_DIR": str(folder / "data"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(folder / "workspaces"),
        "IPYTHONDIR": str(folder / "ipython"),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        "OMP_NUM_THREADS": "1",
    }
    command = [
        sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ServerApp.ip=127.0.0.1",
        "--ServerApp.port=0", "--ServerApp.port_retries=0", f"--ServerApp.root_dir={served}",
        f"--IdentityProvider.token={token}", "--LabApp.expose_app_in_browser=True",
        "--LabApp.extension_manager=readonly",
    ]  # fmt: skip
    with (folder / "lab.log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=served)
        try:
            yield Lab(_wait_for_server(process, folder), token, served)
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_for_server(process: subprocess.Popen, folder: Path) -> str:
    """The server's address, from the file it writes once it knows its port."""
    end = time.monotonic() + PATIENCE / 1000
    while time.monotonic() < end and process.poll() is None:
        for path in (folder / "runtime").glob("jpserver-*.json"):
            try:
                info = json.loads(path.read_text())
                with urllib.request.urlopen(f"{info['url']}api?token={info['token']}", timeout=10):
                    return info["url"]
            except (OSError, ValueError, KeyError):
                pass
        time.sleep(0.1)
    log = (folder / "lab.log").read_text(errors="replace")[-2000:]
    raise RuntimeError(f"JupyterLab did not start:\n{log}")


def check_accessibility(page: Page, place: str | None = None) -> None:
    """Have axe-core look at a page, or at a part of it, and fail on whatever it objects to."""
    found = Axe().run(page, context=place)
    assert found.violations_count == 0, found.generate_report()


def run_notebook(page: Page, address: str, ready: str) -> None:
    """Open a notebook in JupyterLab, run all its cells, and wait for what they show."""
    page.goto(address)
    page.wait_for_function("window.jupyterapp !== undefined")
    page.evaluate("window.jupyterapp.restored.then(() => true)")
    page.wait_for_selector(".jp-NotebookPanel .jp-CodeCell")
    page.wait_for_function(
        """() => {
          const panel = window.jupyterapp.shell.currentWidget;
          return panel?.sessionContext?.session?.kernel?.status === "idle";
        }"""
    )
    page.evaluate("window.jupyterapp.commands.execute('notebook:run-all-cells').then(() => true)")
    page.wait_for_selector(ready)


def set_theme(page: Page, name: str) -> None:
    """Change JupyterLab's theme, such as ``"JupyterLab Dark"``, and wait until it is on."""
    page.evaluate(
        "(theme) => window.jupyterapp.commands.execute('apputils:change-theme', { theme })"
        ".then(() => true)",
        name,
    )
    page.wait_for_function("(name) => document.body.dataset.jpThemeName === name", arg=name)


# Not of the session: while Playwright is there its loop is the running one, which a notebook's would be.
@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with open_chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with open_lab(tmp_path_factory.mktemp("lab")) as running:
        yield running
