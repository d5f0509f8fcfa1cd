"""Makes the README's screenshots in real JupyterLab, light and dark.

    python docs/make_screenshots.py                    # all of them, with runs of the embedded model
    python docs/make_screenshots.py comparison live    # some of them

Needs Chromium and the packages of the "test" extra.
"""

import argparse
import io
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS.parent), str(DOCS.parent / "tests")]

from browser import open_chromium, open_lab, open_watched, run_notebook, set_theme
from PIL import Image

THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}


@dataclass(frozen=True)
class Shot:
    """A cell to run, and what to wait for before the picture is taken."""

    cell: str
    ready: str  # selector
    height: int  # of the window, in CSS pixels
    done: int = 0  # steps of a live run


SHOTS = {
    "explorer": Shot(
        """import ldm_viz as lv

run = lv.record(
    lv.load_tiny(), "a large blue boat on the water at sunset", seed=7,
    num_inference_steps=25, guidance_scale=2.5,
)
lv.explore(run, step=9)""",
        ".ldm-explorer[data-step='9'][data-ready=true]",
        1760,
    ),
    "comparison": Shot(
        """import ldm_viz as lv

pipe, prompt = lv.load_tiny(), "a large blue boat on the water at sunset"
runs = [
    lv.record(pipe, prompt, seed=7, num_inference_steps=25, guidance_scale=scale)
    for scale in (1.5, 2.5, 5)
]
lv.compare(runs, step=9)""",
        ".ldm-comparison[data-step='9'][data-ready=true]",
        1310,
    ),
    "conditioning": Shot(
        """import ldm_viz as lv

boat = lv.record(
    lv.load_tiny(), "a large green boat on water by day", seed=3, guidance_scale=2.5,
    num_inference_steps=25,
).images[0]
pipe = lv.load_tiny(adapter=True)
lab = lv.ConditioningLab(pipe, 'image("boat") - "day" + "night"', {"boat": boat}, seed=3)
lab""",
        ".ldm-lab .ldm-near-pictures li:nth-child(6)",
        1330,
    ),
    "live": Shot(
        """import ldm_viz as lv

live = lv.watch(
    lv.load_tiny(), "a large blue boat on the water at sunset", seed=7,
    num_inference_steps=500, guidance_scale=2.5,
)
live""",
        ".ldm-live[data-phase=running]",
        960,
        done=280,
    ),
}


def main() -> None:
    """Takes the screenshots that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[[], *SHOTS], help="which; all by default")
    parser.add_argument("--width", type=int, default=1180, help="of the window, in CSS pixels")
    parser.add_argument("--out", type=Path, default=DOCS / "screenshots")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        open_lab(Path(folder)) as lab,
        open_chromium() as browser,
    ):
        for name in options.names or SHOTS:
            take(browser, lab, name, options)


def take(browser, lab, name: str, options: argparse.Namespace) -> None:
    """Runs a notebook of one cell and takes a picture of it in both themes."""
    shot = SHOTS[name]
    lab.write_notebook(f"{name}.ipynb", shot.cell)
    size = {"width": options.width, "height": shot.height}
    with open_watched(browser, offline=False, viewport=size, device_scale_factor=1.5) as watched:
        page = watched.page
        run_notebook(page, lab.address(f"{name}.ipynb"), ".jp-OutputArea-output .ldm-view")
        page.evaluate(
            """() => {
              const { shell } = window.jupyterapp;
              shell.collapseLeft();
              shell.collapseRight?.();
              shell.currentWidget.content.deselectAll();
            }"""
        )
        for scheme, theme in THEMES.items():
            set_theme(page, theme)
            page.wait_for_selector(shot.ready)
            page.wait_for_function(
                "(done) => Number(document.querySelector('.ldm-view').dataset.done ?? done) >= done",
                arg=shot.done,
            )
            page.wait_for_function(
                "(s) => getComputedStyle(document.querySelector('.ldm-view')).colorScheme === s",
                arg=scheme,
            )
            panel = page.locator(".jp-NotebookPanel")
            target = options.out / f"{name}-{scheme}.png"
            picture = io.BytesIO(panel.screenshot(animations="disabled"))
            Image.open(picture).convert("RGB").save(target, optimize=True)
            print(target)


if __name__ == "__main__":
    main()
