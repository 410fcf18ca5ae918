"""``image_decode: fast``: close to a full decode and antialiased resize, and just as safe."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from recbole_cierec.errors import ConfigError, PictureError
from recbole_cierec.vision import fast_resize
from recbole_cierec.vision.pictures import PictureSpec, decode_picture

SIZE = 224


def like_a_photo(width: int, height: int, seed: int = 0, steepness: float = 1.5) -> Image.Image:
    """Noise whose amplitude falls with the frequency, as in photographs; channels correlate."""
    rng = np.random.default_rng(seed)
    spectrum = np.fft.rfft2(rng.standard_normal((3, height, width)))
    down, along = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None]
    frequency = np.hypot(down, along) * min(width, height)
    frequency[0, 0] = 1
    values = np.fft.irfft2(spectrum / frequency**steepness, s=(height, width))
    values = (values - values.mean()) / values.std()
    values[1:] = 0.7 * values[0] + 0.3 * values[1:]
    pixels = (128 + 50 * values).clip(0, 255).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))


def saved(folder, picture, kind="JPEG", **options):
    file = folder / f"picture.{kind.lower()}"
    picture.save(file, kind, **options)
    return file


def full(file, resize: str) -> np.ndarray:
    """Every pixel decoded, and one antialiased resize."""
    with Image.open(file) as opened:
        picture = opened.convert("RGB")
    width, height = picture.size
    if resize == "pad":
        wide, high = (round(side * SIZE / max(width, height)) for side in (width, height))
        square = Image.new("RGB", (SIZE, SIZE), "white")
        small = picture.resize((wide, high), Image.Resampling.BILINEAR)
        square.paste(small, ((SIZE - wide) // 2, (SIZE - high) // 2))
        return np.asarray(square)
    box = (0.0, 0.0, width, height)
    if resize == "crop":
        side = min(width, height)
        left, top = (width - side) / 2, (height - side) / 2
        box = (left, top, left + side, top + side)
    return np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.BILINEAR, box=box))


def fast(file, resize="squash", **options) -> np.ndarray:
    return decode_picture(file, PictureSpec(SIZE, resize, decode="fast", **options))


def errors(found: np.ndarray, wanted: np.ndarray) -> tuple[float, int]:
    """Mean and largest absolute difference, of 255."""
    difference = np.abs(found.astype(int) - wanted.astype(int))
    return float(difference.mean()), int(difference.max())


@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
@pytest.mark.parametrize("size", [(500, 500), (499, 451), (375, 501), (1001, 905), (150, 200)])
def test_a_photo_differs_by_less_than_one_level_on_average(tmp_path, size, resize):
    file = saved(tmp_path, like_a_photo(*size), quality=85)
    mean, largest = errors(fast(file, resize), full(file, resize))
    assert mean < 1
    assert largest <= 10


def test_a_very_noisy_picture_differs_by_a_few_levels(tmp_path):
    file = saved(tmp_path, like_a_photo(500, 500, steepness=1.1), quality=85)
    mean, largest = errors(fast(file), full(file, "squash"))
    assert mean < 4
    assert largest <= 40


@pytest.mark.parametrize("mode", ["RGB", "L", "P"])
def test_a_picture_of_another_format_differs_by_one_level_at_most(tmp_path, mode):
    file = saved(tmp_path, like_a_photo(500, 480).convert(mode), "PNG")
    mean, largest = errors(fast(file), full(file, "squash"))
    assert mean < 0.02
    assert largest <= 1


def test_pictures_of_the_size_itself_stay_as_they_are(tmp_path):
    pixels = np.asarray(like_a_photo(SIZE, SIZE))
    assert (fast(saved(tmp_path, Image.fromarray(pixels), "PNG")) == pixels).all()


def test_exif_orientation_is_applied(tmp_path):
    picture, exif = like_a_photo(500, 400), Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    file = saved(tmp_path, picture, quality=95, exif=exif)
    turned = saved(tmp_path, picture, "PNG")
    wanted = np.rot90(full(turned, "squash"), -1)
    assert errors(fast(file), wanted)[0] < 2


def test_pixels_to_the_right_of_a_drafted_picture_keep_their_place(tmp_path):
    """449 pixels become 225 at half the size, of which the last shows half a pixel."""
    ramp = np.abs(np.arange(449) - 417).clip(0, 32) * 7.5 + 8  # a valley near the right side
    pixels = np.broadcast_to(ramp.astype(np.uint8)[None, :, None], (448, 449, 3))
    picture = Image.fromarray(pixels.copy())
    file = saved(tmp_path, picture, quality=100)
    found, wanted = (x.astype(float).mean((0, 2)) for x in (fast(file), full(file, "squash")))
    sides = np.abs(found - wanted)[195:205], np.abs(found - wanted)[211:220]  # not its bottom
    assert max(side.max() for side in sides) < 3  # without the box's half pixel it is 8


def test_large_pictures_are_left_to_pillow():
    """So that no second copy of them is made, and a crop between pixels stays where it is."""
    assert fast_resize.can_resize((224, 224), (0, 0, 1300, 1300))
    assert not fast_resize.can_resize((224, 224), (0, 0, 1400, 1300))
    assert not fast_resize.can_resize((224, 224), (0.5, 0, 300.5, 300))


def test_what_is_no_whole_picture_is_refused_with_the_same_reason(tmp_path):
    whole = io.BytesIO()
    like_a_photo(300, 300).save(whole, "JPEG")
    data = whole.getvalue()
    damaged = {"cut": data[: len(data) // 2], "text": b"no picture", "header": data[:100]}
    scans = io.BytesIO()
    like_a_photo(300, 300).save(scans, "JPEG", progressive=True)
    many = scans.getvalue()
    first = many.index(b"\xff\xda")
    damaged["scans"] = many[:-2] + 20_000 * many[first : first + 12] + many[-2:]
    damaged["large"] = data
    for name, content in damaged.items():
        file = tmp_path / f"{name}.jpg"
        file.write_bytes(content)
        reasons = set()
        for decode in ("exact", "fast"):
            limit = 10_000 if name == "large" else PictureSpec.max_pixels
            with pytest.raises(PictureError) as caught:
                decode_picture(file, PictureSpec(SIZE, max_pixels=limit, decode=decode))
            reasons.add(caught.value.reason)
        assert len(reasons) == 1, name


def test_stores_of_both_are_told_apart_and_exact_ones_keep_their_key():
    assert "decode" not in PictureSpec(8).recipe()
    assert PictureSpec(8, decode="fast").recipe()["decode"] == "fast"


def test_an_unknown_value_is_one_line():
    with pytest.raises(ConfigError, match="image_decode is 'draft'; use one of exact, fast"):
        PictureSpec(8, decode="draft")
