"""What all tests share: no network, repeatable random tests, and Chromium found or its absence told."""

import os
import shutil

# Before anything imports the hub's client: a test that asks the network for a model must fail at once.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import hypothesis
import pytest

hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")

CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM_CURE = "Chromium is not here. Debian: apt install chromium. Elsewhere: python -m playwright install chromium"


def find_chromium() -> str | None:
    """Path of a Chromium: one on PATH, else the one Playwright downloaded, else None."""
    for name in CHROMIUM_NAMES:
        path = shutil.which(name)
        if path:
            return path
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        path = playwright.chromium.executable_path
    return path if os.path.exists(path) else None


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("browser") is None or _chromium_is_here():
        return
    if os.environ.get("CI"):
        pytest.fail(CHROMIUM_CURE, pytrace=False)
    pytest.skip(CHROMIUM_CURE)


_found: list[bool] = []


def _chromium_is_here() -> bool:
    if not _found:
        _found.append(find_chromium() is not None)
    return _found[0]
