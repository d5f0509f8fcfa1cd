"""Pictures survive the way to bytes and back, and bytes from anywhere cannot hurt."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from ldm_viz.imaging import (
    DIVERGING_DARK,
    DIVERGING_LIGHT,
    SEQUENTIAL,
    colour_table,
    colourise,
    contact_sheet,
    decode_image,
    encode_image,
    fit_image,
)

pictures = arrays.arrays(
    np.uint8,
    st.tuples(st.integers(1, 20), st.integers(1, 20), st.just(3)),
    elements=st.integers(0, 255),
)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("format", ["webp", "png"])
@given(picture=pictures)
def test_without_a_quality_every_pixel_comes_back(format, picture):
    assert np.array_equal(decode_image(encode_image(picture, format)), picture)


def test_lossy_pictures_are_smaller_and_close():
    y, x = np.mgrid[0:96, 0:96]
    picture = np.stack([x * 2, y * 2, 255 - x], axis=-1).astype(np.uint8)
    data = encode_image(picture, quality=80)
    assert len(data) < len(encode_image(picture)) or len(data) < 1500
    assert np.abs(decode_image(data).astype(int) - picture).mean() < 4


def test_views_and_non_contiguous_arrays_can_be_encoded():
    picture = noise(8, 6, 3)[::-1, ::2]
    assert np.array_equal(decode_image(encode_image(picture)), picture)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 4)),
        np.zeros((4, 4, 3)),
        np.zeros((4, 4, 4), np.uint8),
        np.zeros((0, 4, 3), np.uint8),
    ],
)
def test_what_is_no_picture_is_refused(array):
    with pytest.raises(ValueError, match="picture"):
        encode_image(array)


def test_unknown_formats_and_qualities_are_refused():
    with pytest.raises(ValueError, match="'jpeg'.*webp, png"):
        encode_image(noise(4, 4, 3), "jpeg")
    with pytest.raises(ValueError, match="101"):
        encode_image(noise(4, 4, 3), quality=101)


@given(data=st.binary(max_size=200))
def test_arbitrary_bytes_are_refused(data):
    with pytest.raises(ValueError):
        decode_image(data)


@pytest.mark.parametrize("format", ["webp", "png"])
def test_truncated_files_are_refused(format):
    data = encode_image(noise(32, 32, 3), format)
    for length in (0, 8, 20, 40, len(data) // 2, len(data) - 200):
        with pytest.raises(ValueError):
            decode_image(data[:length])


def test_other_formats_are_refused():
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4)).save(buffer, "GIF")
    with pytest.raises(ValueError, match="no WebP or PNG"):
        decode_image(buffer.getvalue())
    with pytest.raises(TypeError, match="bytes, not str"):
        decode_image("picture.png")


def test_a_small_file_cannot_fill_the_memory():
    def chunk(kind: bytes, data: bytes) -> bytes:
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" * 1000)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    with pytest.raises(ValueError, match="60000×60000|too large"):
        decode_image(bomb)
    with pytest.raises(ValueError, match="max_pixels"):
        decode_image(encode_image(noise(10, 10, 3)), max_pixels=99)
    assert decode_image(encode_image(noise(10, 10, 3)), max_pixels=100).shape == (10, 10, 3)


def test_pictures_are_fitted_by_their_longer_side():
    assert fit_image(noise(40, 80, 3), 20).shape == (10, 20, 3)
    assert fit_image(noise(300, 2, 3), 30).shape == (30, 1, 3)
    small = noise(5, 5, 3)
    assert fit_image(small, 20) is small
    with pytest.raises(ValueError, match="side"):
        fit_image(small, 0)


@pytest.mark.parametrize("stops", [DIVERGING_LIGHT, DIVERGING_DARK, SEQUENTIAL])
def test_colour_tables_run_from_first_to_last_stop_evenly(stops):
    table = colour_table(stops).astype(int)
    assert table.shape == (256, 3)
    for row, stop in ((0, stops[0]), (255, stops[-1])):
        assert "#" + bytes(table[row].tolist()).hex() == stop
    assert np.abs(np.diff(table, axis=0)).max() <= 8


@pytest.mark.parametrize("stops", [DIVERGING_LIGHT, DIVERGING_DARK])
def test_diverging_tables_change_lightness_one_way_from_zero(stops):
    lightness = colour_table(stops) @ [0.2126, 0.7152, 0.0722]
    outward = 1 if stops is DIVERGING_DARK else -1
    assert (outward * np.diff(lightness[128:]) > -0.5).all()
    assert (outward * np.diff(lightness[127::-1]) > -0.5).all()


def test_signed_values_are_painted_around_zero_and_bad_ones_stand_out():
    picture = colourise(np.array([[-2.0, 0.0, 2.0, np.nan, np.inf]]))
    blue, zero, orange, bad, infinite = picture[0].astype(int)
    assert blue[2] > blue[0] and orange[0] > orange[2] and zero.min() > 240
    assert np.array_equal(bad, infinite) and bad[0] > 200 and bad[1] < 60
    assert colourise(np.zeros((2, 2))).min() > 240
    with pytest.raises(ValueError, match="shape"):
        colourise(np.zeros(3))


def test_contact_sheets_hold_their_pictures_whatever_the_text():
    red = np.zeros((8, 8, 3), np.uint8)
    red[..., 0] = 255
    long = "a <b>prompt</b>\nwith everything 猫 🎨 \x1b[31m " * 20
    sheet = contact_sheet(
        [("row", [red] * 3)], column_labels=["a", long, ""], title=long, caption=long, tile=40
    )
    assert (sheet == (255, 0, 0)).all(axis=-1).sum() == 3 * 40 * 40
    assert contact_sheet([]).ndim == 3
