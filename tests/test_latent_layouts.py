"""Layouts of latents: packed ones become channels of pictures, videos keep their frames."""

import numpy as np
import pytest
import torch

import ldm_viz as lv
from ldm_viz import latent_layouts
from ldm_viz.latent_layouts import LatentLayout, fitting_layouts, guess_layout
from ldm_viz.statistics import channel_maps


@pytest.fixture
def table(monkeypatch):
    monkeypatch.setattr(latent_layouts, "_TABLE", dict(latent_layouts._TABLE))


def flux_packed(planes):
    """As Flux packs, written down another way."""
    b, c, h, w = planes.shape
    out = np.empty((b, h // 2 * (w // 2), 4 * c), planes.dtype)
    for row in range(h // 2):
        for column in range(w // 2):
            square = planes[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            out[:, row * (w // 2) + column] = square.reshape(b, -1)
    return out


def test_packed_latents_are_unpacked_and_packed_again():
    planes = np.random.default_rng(0).standard_normal((2, 4, 6, 10)).astype(np.float32)
    packed = flux_packed(planes)
    layout = guess_layout(packed.shape[1:], channels=4, picture=(48, 80))
    assert layout.name == "packed 2×2" and not layout.is_video
    assert np.array_equal(layout.unpack(packed), planes)
    assert np.array_equal(layout.pack(planes), packed)
    assert torch.equal(layout.unpack(torch.tensor(packed)), torch.tensor(planes))
    many = np.stack([packed, -packed])
    assert np.array_equal(layout.unpack(many)[1], -planes)


@pytest.mark.parametrize("name", latent_layouts.known_layouts())
def test_every_line_of_the_table_goes_there_and_back(name):
    pattern, fixed = latent_layouts._TABLE[name]
    planes = (3, 2, 4, 6) if LatentLayout(name, pattern).is_video else (3, 4, 6)
    sizes = dict(zip("cfhw" if len(planes) == 4 else "chw", planes, strict=True))
    for axis, patch in (("h", "p"), ("w", "q")):
        sizes[axis] //= fixed.get(patch, 1)
    layout = LatentLayout(name, pattern, sizes | fixed)
    values = np.arange(np.prod(planes)).reshape(1, *planes)
    packed = layout.pack(values)
    assert np.array_equal(layout.unpack(packed), values)
    found = fitting_layouts(packed.shape[1:], planes)
    assert name in [other.name for other in found]
    read = LatentLayout.read(layout.describe())
    assert np.array_equal(read.unpack(packed), values)


@pytest.mark.parametrize(
    ("shape", "channels", "name"),
    [
        ((4, 8, 8), None, "planes"),
        ((4, 8, 8), 4, "planes"),
        ((16, 5, 8, 12), 16, "video"),
        ((5, 16, 8, 12), 16, "video, frames first"),
        ((5, 8, 12, 16), 16, "video, channels last"),
        ((128, 8, 8), 32, "patches in channels"),
    ],
)
def test_shapes_tell(shape, channels, name):
    assert guess_layout(shape, channels).name == name


@pytest.mark.parametrize(
    ("shape", "channels", "picture"),
    [((4, 8, 8), 16, None), ((64, 16), None, None), ((7, 16), 4, (64, 64)), ((16,), None, None)],
)
def test_what_cannot_be_told_is_not_guessed(shape, channels, picture):
    assert guess_layout(shape, channels, picture) is None


def test_a_line_from_outside(table):
    lv.add_layout("columns", "(w h) (c q) -> c h (w q)", q=4)
    [layout] = fitting_layouts((6, 8), (2, 3, 8))
    assert layout.name == "columns" and layout.sizes == {"q": 4, "c": 2, "h": 3, "w": 2}
    assert layout.unpack(np.zeros((5, 1, 6, 8))).shape == (5, 1, 2, 3, 8)


@pytest.mark.parametrize(
    ("pattern", "sizes"),
    [
        ("c h w", {}),
        ("c h w -> c h", {}),
        ("c h w -> c h z", {}),
        ("c c w -> c c w", {}),
        ("(c h w -> c h w", {}),
        ("c h w; import os -> c h w", {}),
        ("(h w) c -> c h w", {"h": 0}),
        ("(h w) c -> c h w", {"h": 2.0}),
    ],
)
def test_a_line_that_makes_no_sense_is_refused(table, pattern, sizes):
    with pytest.raises(ValueError, match="no layout|positive integer"):
        lv.add_layout("mine", pattern, **sizes)
    assert "mine" not in latent_layouts.known_layouts()


@pytest.mark.parametrize(
    "told",
    [
        None,
        "planes",
        {"name": "x", "pattern": "c h w -> c h w"},
        {"name": "x", "pattern": "__import__('os')", "sizes": {}},
        {"name": "x", "pattern": "(h w) c -> c h w", "sizes": {"h": -1}},
        {"name": "x", "pattern": "(h w) c -> c h w", "sizes": {"h": 2**40}},
        {"name": "x", "pattern": "(batch w) c -> c batch w", "sizes": {}},
    ],
)
def test_a_file_may_claim_anything(told):
    assert LatentLayout.read(told) is None
    maps, note = channel_maps(np.zeros((2, 4, 8, 8)), (4, 8, 8), {"latent_layout": told})
    assert maps.shape == (2, 4, 8, 8) and note == ""


def test_latents_that_do_not_fit_are_told():
    layout = LatentLayout("tokens", "(h w) c -> c h w", {"h": 3, "w": 3})
    with pytest.raises(ValueError, match=r"shape \(4, 2\) are not laid out as 'tokens'"):
        layout.unpack(np.zeros((1, 4, 2)))
    described = layout.describe()
    maps, note = channel_maps(np.zeros((1, 4, 2)), (4, 2), {"latent_layout": described})
    assert maps is None and "no known grid" in note
