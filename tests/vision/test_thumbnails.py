"""Thumbnails: proportions, bounds, and files that are refused."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from recbole_cierec.errors import PictureError
from recbole_cierec.vision.thumbnails import MOST_BYTES, SIDE, thumbnail


def opened(root, name, **keys) -> Image.Image:
    return Image.open(io.BytesIO(thumbnail(root, name, **keys)))


@pytest.mark.parametrize(("size", "small"), [((800, 400), (320, 160)), ((30, 60), (160, 320))])
def test_the_longer_side_is_320_pixels(tmp_path, size, small):
    Image.new("RGB", size, (200, 30, 30)).save(tmp_path / "a.png")
    picture = opened(tmp_path, "a.png")
    assert (picture.format, picture.size) == ("JPEG", small)
    assert np.abs(np.asarray(picture, int) - (200, 30, 30)).max() < 8


def test_a_turned_photo_is_upright_and_loses_its_metadata(tmp_path):
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "where I live"
    Image.new("RGB", (400, 200)).save(tmp_path / "a.jpg", exif=exif)
    jpeg = thumbnail(tmp_path, "a.jpg", side=100)
    assert Image.open(io.BytesIO(jpeg)).size == (50, 100)
    assert b"where I live" not in jpeg
    assert not Image.open(io.BytesIO(jpeg)).getexif()


def test_noise_is_compressed_until_it_fits(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert 10_000 < len(thumbnail(tmp_path, "a.png")) <= MOST_BYTES
    Image.fromarray(pixels.repeat(8, 0).repeat(8, 1)).save(tmp_path / "b.png")
    with pytest.raises(PictureError, match="bytes at 2560 pixels"):
        thumbnail(tmp_path, "b.png", side=2560)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "no picture is named"),
        ("none.png", "no such file"),
        ("../out.png", "leaves the picture folder"),
        ("a.txt", "not a JPEG"),
        ("large.png", "above the limit of 100"),
    ],
)
def test_the_reason_of_a_refusal_is_said(tmp_path, name, reason):
    (tmp_path / "a.txt").write_text("text")
    Image.new("1", (11, 10)).save(tmp_path / "large.png")
    with pytest.raises(PictureError) as caught:
        thumbnail(tmp_path, name, max_pixels=100)
    assert reason in caught.value.reason
