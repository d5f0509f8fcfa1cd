"""Pictures that take long to make: a preview at once, the pictures themselves in the kernel's idle time."""

import asyncio
import time

import numpy as np
import pytest
from browser import chromium, lab, open_watched, run_notebook  # noqa: F401
from playwright.sync_api import expect
from trajectories import make_trajectory

import ldm_viz as lv
from ldm_viz.imaging import decode_image
from ldm_viz.previews import preview_map, preview_pictures
from ldm_viz.trajectory import FrameSeries
from ldm_viz.trajectory.frames import FrameSource
from ldm_viz.widgets.pictures import FINAL, PREVIEW, PictureFiles, ladder


class Slow(FrameSource):
    """Pictures of a run, handed out one by one, with a note of which."""

    costly = True

    def __init__(self, pictures, breaks_at=None, seconds=0.0):
        super().__init__()
        self.seconds = seconds
        self.pictures = pictures.reshape(-1, *pictures.shape[2:])
        self.picture_shape = pictures.shape[2:]
        self.made = []
        self.breaks_at = breaks_at

    def make(self, numbers):
        for number in numbers:
            if number == self.breaks_at:
                raise RuntimeError("out of memory")
            time.sleep(self.seconds)
            self.made.append(number)
            yield number, self.pictures[number].copy()


def slow_run(steps=12, side=256, batch=1, breaks_at=None, seconds=0.0):
    run = make_trajectory(steps, side=side, factor=8, batch=batch)
    frames = {}
    for name, pictures in run.frames.items():
        source = Slow(np.asarray(pictures), breaks_at if name == "latents" else None, seconds)
        numbers = np.arange(len(pictures) * batch).reshape(-1, batch)
        frames[name] = FrameSeries(source, numbers)
    return run.replace(frames=frames), run


def grades(explorer):
    return {name: head["grades"] for name, head in explorer._series.items()}


def test_with_no_idle_time_to_come_previews_stand_until_all_is_made():
    run, _ = slow_run()
    explorer = lv.explore(run)
    assert run.frames["latents"].source.made == [] == run.frames["x0"].source.made
    assert grades(explorer) == {"latents": [[PREVIEW] * 13], "x0": [[PREVIEW] * 12]}
    assert explorer._note.startswith("Exact pictures: 0 of 25.")
    sizes = explorer._series["latents"]["lengths"][0]
    assert decode_image(explorer._frames[: sizes[0]]).shape == (32, 32, 3)
    explorer.finish()
    assert explorer._note == "" and set(np.ravel(grades(explorer)["x0"])) == {FINAL}
    assert sorted(run.frames["latents"].source.made) == list(range(13))
    explorer.finish()
    assert len(run.frames["latents"].source.made) == 13


def test_a_page_has_the_exact_pictures():
    run, _ = slow_run(4)
    explorer = lv.explore(run)
    assert "Exact pictures" not in explorer.to_html()
    assert len(run.frames["x0"].source.made) == 4


def test_the_idle_loop_fills_in_around_the_step_first_and_sends_the_state():
    run, plain = slow_run(side=256)

    async def look():
        explorer = lv.explore(run, step=9)
        sent = []
        explorer.observe(lambda change: sent.append(explorer._note), "_frames")
        assert run.frames["x0"].source.made == []
        while explorer._note:
            await asyncio.sleep(0.02)
        return explorer, sent

    explorer, sent = asyncio.run(asyncio.wait_for(look(), 60))
    made = run.frames["x0"].source.made
    assert made[0] == 9 and sorted(made) == list(range(12))
    assert sent[-1] == "" and set(np.ravel(grades(explorer)["latents"])) == {FINAL}
    lengths = explorer._series["latents"]["lengths"][0]
    last = decode_image(explorer._frames[sum(lengths[:-1]) : sum(lengths)])
    assert np.abs(last.astype(float) - plain.frames["latents"][-1, 0]).mean() < 6


def test_a_widget_that_is_closed_asks_for_no_more():
    run, _ = slow_run()

    async def look():
        explorer = lv.explore(run)
        explorer.close()
        await asyncio.sleep(0.5)

    asyncio.run(look())
    assert run.frames["latents"].source.made == []


def test_a_failing_decoder_is_told_of_and_what_is_there_stays():
    run, _ = slow_run(breaks_at=7)

    async def look():
        explorer = lv.explore(run)
        while "Not all" not in explorer._note:
            await asyncio.sleep(0.02)
        return explorer

    explorer = asyncio.run(asyncio.wait_for(look(), 60))
    assert explorer._note == "Not all exact pictures could be made: RuntimeError: out of memory"
    assert FINAL in grades(explorer)["x0"][0]
    with pytest.raises(RuntimeError, match="out of memory"):
        explorer.finish()


def test_the_other_samples_of_a_batch_come_after_the_one_that_is_looked_at():
    run, _ = slow_run(4, batch=2)
    files = PictureFiles(run)
    files.make_some(step=2, sample=1, count=9)
    assert {number % 2 for number in run.frames["latents"].source.made} == {1}
    files.make()
    assert files.missing == 0 and files.total == 18


def test_a_preview_looks_like_what_the_run_ended_with():
    run = make_trajectory(6, side=256, factor=8)
    made = preview_pictures(run)
    assert made["latents"].shape == (7, 32, 32, 3) and made["x0"].shape == (6, 32, 32, 3)
    shrunk = run.images[0].reshape(32, 8, 32, 8, 3).mean(axis=(1, 3))
    assert np.abs(made["latents"][-1] - shrunk).mean() < 25
    # Flat colours are learnt exactly: the map is affine.
    planes = np.random.default_rng(0).normal(size=(4, 8, 8))
    weights = np.array([[0.1, 0, 0], [0, 0.1, 0], [0, 0, 0.1], [0, 0, 0], [0.5, 0.4, 0.6]])
    colours = np.moveaxis(planes, 0, -1) @ weights[:4] + weights[4]
    picture = (255 * colours).round().clip(0, 255).astype(np.uint8)
    np.testing.assert_allclose(preview_map(planes, picture), weights, atol=0.01)


@pytest.mark.parametrize(
    "run",
    [
        make_trajectory(3).replace(images=None),
        make_trajectory(3).replace(status="failed"),
        make_trajectory(3, latents=np.full((4, 1, 4, 16, 16), np.nan, np.float32)),
    ],
)
def test_no_preview_where_colours_cannot_be_learnt(run):
    assert preview_pictures(run) == {}


def test_the_ladder_goes_down_and_never_enlarges():
    assert ladder(64)[0] == (64, None)
    assert ladder(512)[0] == (384, 84)
    for longest in (16, 64, 200, 2048):
        sides = [side for side, _ in ladder(longest)]
        assert sides == sorted(sides, reverse=True) and sides[0] <= longest


CELLS = (
    """
from test_filling import slow_run
import ldm_viz as lv

run, _ = slow_run(12, seconds=0.25)
explorer = lv.explore(run, step=6)
explorer
""",
    "made_before_the_next_cell = len(run.frames['x0'].source.made)",
)


@pytest.mark.browser
@pytest.mark.slow
def test_jupyterlab_shows_previews_at_once_and_the_exact_pictures_later(chromium, lab):  # noqa: F811
    name = lab.write_notebook("filling.ipynb", *CELLS)
    with open_watched(chromium, offline=False) as watched:
        page = watched.page
        run_notebook(page, lab.address(name), ".ldm-explorer[data-ready=true]")
        status = page.locator(".ldm-heading [role=status]")
        expect(status).to_contain_text("Exact pictures:")
        page.get_by_role("slider", name="Step").focus()
        page.keyboard.press("ArrowLeft")
        page.wait_for_selector(".ldm-explorer[data-step='5']")
        # 25 pictures take 6 seconds of the kernel's idle time; meanwhile the first exact ones come.
        expect(status).to_be_hidden(timeout=120_000)
        page.keyboard.press("ArrowRight")
        page.wait_for_selector(".ldm-explorer[data-step='6'][data-ready=true]")
        assert [text for text in watched.errors if "ldm" in text or "anywidget" in text] == []
