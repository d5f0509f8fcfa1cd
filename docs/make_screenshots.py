"""Makes the README's screenshots of the explorer, in real JupyterLab, light and dark.

    python docs/make_screenshots.py                    # records a run of the embedded model
    python docs/make_screenshots.py --run boat.safetensors --step 12

Needs Chromium and the packages of the "test" extra.
"""

import argparse
import io
import shutil
import sys
import tempfile
from pathlib import Path

DOCS = Path(__file__).resolve().parent
sys.path[:0] = [str(DOCS.parent), str(DOCS.parent / "tests")]

from browser import open_chromium, open_lab, open_watched, run_notebook, set_theme
from PIL import Image

PROMPT = "a large blue boat on the water at sunset"
THEMES = {"light": "JupyterLab Light", "dark": "JupyterLab Dark"}
CELL = """import ldm_viz as lv

run = lv.{source}
lv.explore(run, step={step}, branch={branch!r}, channel={channel!r})"""


def main() -> None:
    """Takes the screenshots that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, help="a saved run to show instead of a fresh one")
    parser.add_argument("--prompt", default=PROMPT)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--step", type=int, default=9)
    parser.add_argument("--branch", default="guided")
    parser.add_argument("--channel", default="0")
    parser.add_argument("--width", type=int, default=1180, help="of the window, in CSS pixels")
    parser.add_argument("--out", type=Path, default=DOCS / "screenshots")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    channel = int(options.channel) if options.channel.isdecimal() else options.channel
    with tempfile.TemporaryDirectory() as folder, open_lab(Path(folder)) as lab:
        source = (
            f"record(\n    lv.load_tiny(), {options.prompt!r}, seed={options.seed},\n"
            "    num_inference_steps=25, guidance_scale=2.5,\n)"
        )
        if options.run is not None:
            shutil.copy(options.run, lab.folder / options.run.name)
            source = f"open_trajectory({options.run.name!r})"
        cell = CELL.format(source=source, step=options.step, branch=options.branch, channel=channel)
        lab.write_notebook("watch-a-run.ipynb", cell)
        size = {"width": options.width, "height": 1345}
        with (
            open_chromium() as browser,
            open_watched(browser, offline=False, viewport=size, device_scale_factor=1.5) as watched,
        ):
            page = watched.page
            address = lab.address("watch-a-run.ipynb")
            run_notebook(page, address, f".ldm-explorer[data-step='{options.step}']")
            page.evaluate(
                """() => {
                  const { commands, shell } = window.jupyterapp;
                  shell.collapseLeft();
                  shell.collapseRight?.();
                  shell.currentWidget.content.deselectAll();
                }"""
            )
            for name, theme in THEMES.items():
                set_theme(page, theme)
                page.wait_for_selector(f".ldm-explorer[data-ready=true][data-theme={name}]")
                panel = page.locator(".jp-NotebookPanel")
                target = options.out / f"explorer-{name}.png"
                shot = io.BytesIO(panel.screenshot(animations="disabled"))
                Image.open(shot).convert("RGB").save(target, optimize=True)
                print(target)


if __name__ == "__main__":
    main()
