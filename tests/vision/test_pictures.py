"""Decoding one file: every kind of picture, and files that are not pictures."""

import io
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageFile

from recbole_cierec.errors import ConfigError, PictureError
from recbole_cierec.vision.pictures import PictureSpec, decode_picture

REPOSITORY = Path(__file__).parents[2]
RED, GREEN, BLUE, YELLOW, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255,) * 3


def plain(mode, colour, size=(8, 8)):
    return Image.new(mode, size, colour)


def quadrants(width=40, height=24):
    """Red top left, green top right, blue bottom left, yellow bottom right: no symmetry."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2, : width // 2], pixels[: height // 2, width // 2 :] = RED, GREEN
    pixels[height // 2 :, : width // 2], pixels[height // 2 :, width // 2 :] = BLUE, YELLOW
    return pixels


def encoded(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def saved(folder, image, kind="PNG", **options):
    file = folder / f"picture.{kind.lower()}"
    file.write_bytes(encoded(image, kind, **options))
    return file


def reason(path, spec=None):
    with pytest.raises(PictureError) as caught:
        decode_picture(path, spec or PictureSpec(8))
    assert caught.value.path == str(path)
    assert "\n" not in str(caught.value)
    assert len(caught.value.reason) < 150
    return caught.value.reason


# ---- kinds of pictures ---------------------------------------------------------------------------

PALETTE = Image.new("P", (8, 8), 1)
PALETTE.putpalette([9, 8, 7, 10, 200, 30])

KINDS = {  # picture, format, options, colour worked out by hand
    "1-bit black": (plain("1", 0), "PNG", {}, (0, 0, 0)),
    "1-bit white": (plain("1", 1), "PNG", {}, WHITE),
    "grey": (plain("L", 77), "PNG", {}, (77, 77, 77)),
    "grey, clear": (plain("LA", (100, 0)), "PNG", {}, WHITE),
    "grey, opaque": (plain("LA", (100, 255)), "PNG", {}, (100, 100, 100)),
    "grey with clear value": (plain("L", 77), "PNG", {"transparency": 77}, WHITE),
    "grey with other clear value": (plain("L", 77), "PNG", {"transparency": 78}, (77,) * 3),
    "palette": (PALETTE, "PNG", {}, (10, 200, 30)),
    "palette, clear entry": (PALETTE, "PNG", {"transparency": 1}, WHITE),
    "palette, other clear entry": (PALETTE, "PNG", {"transparency": 0}, (10, 200, 30)),
    "palette with half alpha": (PALETTE, "PNG", {"transparency": b"\xff\x80"}, (132, 227, 142)),
    "rgb with clear colour": (plain("RGB", RED), "PNG", {"transparency": RED}, WHITE),
    "rgba, half clear black": (plain("RGBA", (0, 0, 0, 128)), "PNG", {}, (127, 127, 127)),
    "rgba, clear": (plain("RGBA", (1, 2, 3, 0)), "PNG", {}, WHITE),
    "webp rgba": (plain("RGBA", (0, 0, 0, 128)), "WEBP", {"lossless": True}, (127, 127, 127)),
    "webp": (plain("RGB", BLUE), "WEBP", {"lossless": True}, BLUE),
    "gif": (PALETTE, "GIF", {}, (10, 200, 30)),
    "gif, clear": (PALETTE, "GIF", {"transparency": 1}, WHITE),
    "bmp": (plain("RGB", (1, 2, 3)), "BMP", {}, (1, 2, 3)),
    "jpeg grey": (plain("L", 77), "JPEG", {}, (77, 77, 77)),
    "jpeg cmyk": (plain("CMYK", (0, 255, 255, 0)), "JPEG", {"quality": 100}, RED),
    "jpeg ycbcr": (plain("YCbCr", (76, 85, 255)), "JPEG", {"quality": 100}, RED),
    "jpeg progressive": (plain("L", 9), "JPEG", {"progressive": True}, (9, 9, 9)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_picture_becomes_rgb_on_white(tmp_path, kind):
    image, file_format, options, colour = KINDS[kind]
    pixels = decode_picture(saved(tmp_path, image, file_format, **options), PictureSpec(6))
    assert pixels.shape == (6, 6, 3)
    assert pixels.dtype == np.uint8
    tolerance = 3 if file_format == "JPEG" else 1 if "half" in kind or "rgba" in kind else 0
    assert np.abs(pixels.astype(int) - colour).max() <= tolerance


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, 0), (128, 0), (129, 1), (257, 1), (1000, 4), (32768, 128), (65278, 254), (65535, 255)],
)
def test_sixteen_bit_grey_is_scaled_and_not_clipped(tmp_path, value, expected):
    image = Image.fromarray(np.full((8, 8), value, np.uint16))
    assert (decode_picture(saved(tmp_path, image), PictureSpec(4)) == expected).all()


def test_clear_value_of_sixteen_bit_grey_is_white(tmp_path):
    values = np.full((8, 8), 1000, np.uint16)
    values[:, 4:] = 2000
    pixels = decode_picture(
        saved(tmp_path, Image.fromarray(values), transparency=2000), PictureSpec(8)
    )
    assert (pixels[:, :4] == 4).all()
    assert (pixels[:, 4:] == 255).all()


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_first_frame_of_an_animation_is_taken(tmp_path, kind):
    options = {"save_all": True, "append_images": [plain("RGB", BLUE), plain("RGB", GREEN)]}
    options |= {"lossless": True} if kind == "WEBP" else {}
    file = saved(tmp_path, plain("RGB", RED), kind, duration=50, **options)
    with Image.open(file) as image:
        assert image.n_frames == 3
    assert (decode_picture(file, PictureSpec(4)) == RED).all()


def test_colour_profile_does_not_change_the_range(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    file = saved(tmp_path, plain("RGB", (200, 100, 50)), "JPEG", icc_profile=profile, quality=100)
    pixels = decode_picture(file, PictureSpec(4))
    assert np.abs(pixels.astype(int) - (200, 100, 50)).max() <= 2


@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (3, 2)])
def test_extreme_shapes_keep_their_colour(tmp_path, size, resize):
    file = saved(tmp_path, plain("RGB", (10, 20, 30), size))
    pixels = decode_picture(file, PictureSpec(16, resize))
    assert pixels.shape == (16, 16, 3)
    painted = (pixels == (10, 20, 30)).all(-1)
    assert painted.any()
    assert (painted | (pixels == 255).all(-1)).all()  # only the picture and white
    assert painted.all() or resize == "pad"


def test_name_of_the_file_does_not_matter(tmp_path):
    file = tmp_path / "wrong.jpg"
    file.write_bytes(encoded(plain("RGB", GREEN), "PNG"))
    assert (decode_picture(file, PictureSpec(4)) == GREEN).all()


# ---- geometry ------------------------------------------------------------------------------------


def gradients(width, height):
    """Red grows from 0 to 255 from left to right, green from top to bottom."""
    across = 255 * (np.arange(width) + 0.5) / width
    down = 255 * (np.arange(height) + 0.5) / height
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0], pixels[..., 1] = across[None, :], down[:, None]
    return Image.fromarray(pixels)


@pytest.mark.parametrize("size", [(1203, 801), (811, 1207), (150, 100), (20, 30)])
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_squash_shows_the_whole_picture(tmp_path, kind, size):
    file = saved(tmp_path, gradients(*size), kind, **{"quality": 95} if kind == "JPEG" else {})
    pixels = decode_picture(file, PictureSpec(32)).astype(float)
    expected = 255 * (np.arange(32) + 0.5) / 32
    inner = slice(2, -2)  # the antialiasing filter is cut off at the edges
    assert np.abs(pixels[16, inner, 0] - expected[inner]).max() < 4
    assert np.abs(pixels[inner, 16, 1] - expected[inner]).max() < 4


def test_reduced_jpeg_keeps_its_proportions(tmp_path):
    # libjpeg rounds 129 / 8 up to 17 pixels; the picture takes 16.125 of them.
    file = saved(tmp_path, gradients(129, 129), "JPEG", quality=95)
    pixels = decode_picture(file, PictureSpec(8)).astype(float)
    assert np.abs(pixels[4, 1:-1, 0] - 255 * (np.arange(1, 7) + 0.5) / 8).max() < 4


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_crop_shows_the_middle_square(tmp_path, kind):
    file = saved(tmp_path, gradients(1200, 400), kind)
    pixels = decode_picture(file, PictureSpec(32, "crop")).astype(float)
    third = 255 * (1 / 3 + (np.arange(32) + 0.5) / 32 / 3)  # columns 400 to 800 of 1200
    assert np.abs(pixels[16, 2:-2, 0] - third[2:-2]).max() < 4
    assert np.abs(pixels[2:-2, 16, 1] - 255 * (np.arange(2, 30) + 0.5) / 32).max() < 5


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_pad_shows_the_whole_picture_between_white_borders(tmp_path, kind):
    file = saved(tmp_path, gradients(400, 1200), kind)
    pixels = decode_picture(file, PictureSpec(30, "pad")).astype(float)
    assert (pixels[:, :10] == 255).all()
    assert (pixels[:, 20:] == 255).all()
    assert (pixels[:, 10:20, 2] < 60).all()
    assert np.abs(pixels[2:-2, 15, 1] - 255 * (np.arange(2, 28) + 0.5) / 30).max() < 5


def test_reduction_averages_instead_of_picking_pixels(tmp_path):
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255
    pixels = decode_picture(saved(tmp_path, Image.fromarray(stripes)), PictureSpec(4))
    assert np.abs(pixels.astype(int) - 127).max() < 8


# EXIF 2.3, tag 0x0112: which visible side the first stored row and the first stored column are.
STORED = {
    1: lambda up: up,  # row: top, column: left
    2: lambda up: up[:, ::-1],  # top, right
    3: lambda up: up[::-1, ::-1],  # bottom, right
    4: lambda up: up[::-1],  # bottom, left
    5: lambda up: up.swapaxes(0, 1),  # left, top
    6: lambda up: up[:, ::-1].swapaxes(0, 1),  # right, top
    7: lambda up: up[::-1, ::-1].swapaxes(0, 1),  # right, bottom
    8: lambda up: up[::-1].swapaxes(0, 1),  # left, bottom
}


@pytest.mark.parametrize("resize", ["squash", "crop", "pad"])
@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation_gives_the_upright_picture(tmp_path, orientation, resize):
    upright, spec = quadrants(), PictureSpec(17, resize)
    expected = decode_picture(saved(tmp_path, Image.fromarray(upright)), spec)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    for kind, options, tolerance in [
        ("PNG", {}, 1),
        ("WEBP", {"lossless": True}, 1),
        ("JPEG", {"quality": 100, "subsampling": 0}, 12),
    ]:
        pixels = decode_picture(saved(tmp_path, stored, kind, exif=exif, **options), spec)
        assert np.abs(pixels.astype(int) - expected).max() <= tolerance
    if resize == "squash":
        assert (expected[0, 0] == RED).all()
        assert (expected[0, -1] == GREEN).all()
        assert (expected[-1, 0] == BLUE).all()


def test_damaged_exif_leaves_the_picture_as_stored(tmp_path):
    for exif in (b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM" + b"\xff" * 50):
        file = saved(tmp_path, plain("RGB", GREEN), "JPEG", exif=exif, quality=100)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            assert decode_picture(file, PictureSpec(4))[0, 0, 1] > 250


# ---- refusals ------------------------------------------------------------------------------------

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.97])
@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("WEBP", {"lossless": True}),
        ("WEBP", {}),
        ("GIF", {}),
        ("BMP", {}),
    ],
)
def test_truncated_file_is_refused_even_where_truncation_is_allowed(
    tmp_path, monkeypatch, kind, options, share
):
    whole = encoded(NOISE, kind, **options)
    file = tmp_path / "cut"
    file.write_bytes(whole[: int(len(whole) * share)])
    reason(file)
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)  # as other libraries do
    reason(file)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is True
    file.write_bytes(whole)
    assert decode_picture(file, PictureSpec(8)).std() > 0


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "empty file"),
        (b"<!DOCTYPE html><html><body>404 Not Found</body></html>", "not a JPEG"),
        (b"just some text\n", "not a JPEG"),
        (b"\0" * 1000, "not a JPEG"),
        (b"\xff\xd8\xff", ""),
        (encoded(plain("RGB", RED), "TIFF"), "not a JPEG"),
        (encoded(plain("RGB", RED), "ICO"), "not a JPEG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a JPEG"),
    ],
)
def test_what_is_no_picture_is_refused(tmp_path, content, why):
    file = tmp_path / "item.jpg"
    file.write_bytes(content)
    assert why in reason(file)


def test_what_is_no_file_is_refused(tmp_path):
    assert "folder" in reason(tmp_path)
    assert "no such file" in reason(tmp_path / "missing.jpg")
    (tmp_path / "link.jpg").symlink_to(tmp_path / "gone.jpg")
    assert "no such file" in reason(tmp_path / "link.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")  # opening it would wait for ever
    assert "not a regular file" in reason(tmp_path / "pipe.jpg")
    with open(tmp_path / "long.jpg", "wb") as stream:
        stream.truncate(2 * 2**30)  # sparse: takes no disk space
    assert "too long" in reason(tmp_path / "long.jpg")


def test_file_without_read_permission_is_refused():
    # pytest's own folders are closed to other users, so a folder of our own, as another user.
    folder = Path(tempfile.mkdtemp())
    user = os.geteuid()
    try:
        folder.chmod(0o755)
        file = saved(folder, plain("RGB", RED))
        file.chmod(0)
        if user == 0:
            os.seteuid(65534)
        assert "permission" in reason(file)
    finally:
        os.seteuid(user)
        shutil.rmtree(folder)


def test_fault_of_the_machine_is_not_blamed_on_the_picture(tmp_path, monkeypatch):
    file = saved(tmp_path, plain("RGB", RED))

    def exhausted(*args, **kwargs):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(Image, "open", exhausted)
    with pytest.raises(OSError, match="Too many open files"):
        decode_picture(file, PictureSpec(8))


@pytest.mark.parametrize("values", [(0, "squash", 9), (8, "stretch", 9), (8, "crop", 0)])
def test_impossible_spec_is_refused(values):
    with pytest.raises(ConfigError):
        PictureSpec(*values)


# ---- bombs ---------------------------------------------------------------------------------------


def chunk(kind, content):
    crc = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)


def png(width, height, *chunks):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


def zeros(count):
    packer = zlib.compressobj(9)
    block = bytes(10**6)
    return b"".join(packer.compress(block) for _ in range(count // 10**6 + 1)) + packer.flush()


def webp_canvas(width, height):
    """An extended WebP whose canvas is large and whose only frame is 1 x 1."""
    frame = encoded(plain("RGB", RED, (1, 1)), "WEBP", lossless=True)[12:]
    animation = bytes(6) + bytes(6) + b"\x64\0\0\0" + frame
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBP" + b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + sides
    body += b"ANIM" + struct.pack("<I", 6) + bytes(6)
    body += b"ANMF" + struct.pack("<I", len(animation)) + animation
    return b"RIFF" + struct.pack("<I", len(body)) + body


def jpeg_header(width, height):
    frame = struct.pack(">HBHHB", 11, 8, height, width, 1) + b"\x01\x11\0"
    return b"\xff\xd8\xff\xc0" + frame + b"\xff\xda" + struct.pack(">HB", 8, 1) + b"\x01\0\0\x3f\0"


def jpeg_with(segment, count):
    whole = encoded(plain("RGB", GREEN), "JPEG")
    body = segment + bytes(65533 - len(segment))
    return whole[:2] + (b"\xff\xe1\xff\xff" + body) * count + whole[2:]


BOMBS = {
    "png": lambda: png(30000, 30000, chunk(b"IDAT", zeros(30000 * 3751))),
    "png at warning level": lambda: png(10000, 9500, chunk(b"IDAT", zeros(9500 * 1251))),
    "png header only": lambda: png(65535, 65535),
    "jpeg header only": lambda: jpeg_header(65535, 65535),
    "gif": lambda: (  # 20 KB, its only frame as large as the screen
        b"GIF89a"
        + struct.pack("<HHBBB", 65535, 65535, 0x80, 0, 0)
        + bytes(6)
        + struct.pack("<BHHHHB", 0x2C, 0, 0, 65535, 65535, 0)
        + b"\2"
        + (b"\xff" + bytes(255)) * 80
        + b"\0;"
    ),
    "gif frame": lambda: (
        b"GIF89a\1\0\1\0\x80\0\0" + bytes(6) + b",\0\0\0\0\xff\xff\xff\xff\0\2\2L\1\0;"
    ),
    "webp": lambda: webp_canvas(16383, 16383),
    "webp at warning level": lambda: webp_canvas(9999, 9999),
    "bmp": lambda: (
        b"BM" + struct.pack("<IIIIiiHHIIiiII", 54, 0, 54, 40, 65535, 65535, 1, 24, *[0] * 6)
    ),
    "png text": lambda: png(8, 8, chunk(b"zTXt", b"a\0\0" + zeros(50 * 10**6))),
    "png many texts": lambda: png(8, 8, *[chunk(b"zTXt", b"a\0\0" + zeros(9 * 10**5))] * 100),
    "jpeg exif": lambda: jpeg_with(b"Exif\0\0", 400),
}


@pytest.fixture(scope="module")
def bombs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bombs")
    for name, make in BOMBS.items():
        (folder / name).write_bytes(make())
    return folder


@pytest.mark.parametrize("action", ["ignore", "error"])
@pytest.mark.parametrize("name", BOMBS)
def test_bomb_is_refused_at_once_without_loading_pixels(bombs, monkeypatch, name, action):
    def load(image):
        raise AssertionError("pixels were loaded")

    for kind in (ImageFile.ImageFile, Image.Image):
        monkeypatch.setattr(kind, "load", load)
    began = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter(action)
        why = reason(bombs / name)
    assert time.process_time() - began < 1
    assert "pixels" in why or "text" in name or "exif" in name


def test_bombs_take_less_than_50_mb(bombs):
    # A separate process: the peak of this one is that of its most demanding test.
    script = """
import resource, sys, warnings
from pathlib import Path
from PIL import Image, GifImagePlugin, JpegImagePlugin, PngImagePlugin, WebPImagePlugin
from recbole_cierec.vision.pictures import PictureError, PictureSpec, decode_picture
warnings.simplefilter("ignore")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for file in sorted(Path(sys.argv[1]).iterdir()):
    try:
        decode_picture(file, PictureSpec(64))
    except PictureError:
        continue
    sys.exit(f"{file.name} was decoded")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(bombs)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 50 * 1024  # KiB


def test_limit_of_pixels_is_exact(tmp_path):
    file = saved(tmp_path, plain("RGB", RED, (10, 10)))
    assert decode_picture(file, PictureSpec(4, "squash", 100)).shape == (4, 4, 3)
    assert reason(file, PictureSpec(4, "squash", 99)) == "10 x 10 pixels, above the limit of 99"


def test_long_xmp_data_is_no_reason_to_refuse(tmp_path):
    file = tmp_path / "depth-map.jpg"
    file.write_bytes(jpeg_with(b"http://ns.adobe.com/xmp/extension/\0", 140))
    assert decode_picture(file, PictureSpec(4)).shape == (4, 4, 3)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")
def test_no_file_stays_open(tmp_path, bombs):
    good = saved(tmp_path, NOISE, "GIF", save_all=True, append_images=[NOISE.rotate(90)])
    cut = tmp_path / "cut.png"
    cut.write_bytes(encoded(NOISE, "PNG")[:5000])
    before = os.listdir("/proc/self/fd")
    kept = []  # a caught error keeps frames alive, and with them their open files
    for file in [good, cut, tmp_path, *sorted(bombs.iterdir())]:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                decode_picture(file, PictureSpec(4))
        except PictureError as error:
            kept.append(error)
    assert len(kept) == 2 + len(BOMBS)
    assert len(os.listdir("/proc/self/fd")) == len(before)
