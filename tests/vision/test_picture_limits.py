"""Small files that require much work, and unusual ones that require little."""

import io
import struct
import time
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from recbole_cierec.errors import PictureError
from recbole_cierec.vision import picture_limits
from recbole_cierec.vision.pictures import PictureSpec, decode_picture

NOISE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (48, 64, 3), np.uint8))
MIB = 2**20


def jpeg(image=NOISE, **options):
    stream = io.BytesIO()
    image.save(stream, "JPEG", **options)
    return stream.getvalue()


def segment(marker, content):
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(content) + 2) + content


def with_header(*parts):
    """A JPEG with additional bytes between the start and the first segment."""
    whole = jpeg()
    return whole[:2] + b"".join(parts) + whole[2:]


def with_scans(count, side, between=b"", **options):
    """A JPEG whose last scan is repeated ``count`` times."""
    whole = jpeg(Image.new("L", (side, side)), **options)
    last = whole.rfind(b"\xff\xda")
    return whole[:-2] + (between + whole[last:-2]) * count + whole[-2:]


def chunk(kind, content=b""):
    crc = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)


def png(*before, behind=(), pieces=1):
    """A white PNG of 8 x 8 pixels, with chunks before and after the pixels."""
    pixels = zlib.compress((b"\0" + b"\xff" * 8) * 8)
    size = -(-len(pixels) // pieces)
    data = [chunk(b"IDAT", pixels[k : k + size]) for k in range(0, len(pixels), size)]
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + b"".join([header, *before, *data, *behind, chunk(b"IEND")])


def gif(comment):
    stream = io.BytesIO()
    NOISE.convert("P").save(stream, "GIF")
    whole = stream.getvalue()
    at = 13 + 3 * 256  # after the header and the palette
    return whole[:at] + b"!\xfe" + comment + b"\0" + whole[at:]


def compressed_bmp(side):
    """A BMP whose every row is one run of one pixel."""
    data = b"\1\7\0\0" * side + b"\0\1"
    header = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, len(data), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", 0, 0, 0, 1078) + header + bytes(range(4)) * 256 + data


def exif_directory(count, size):
    """EXIF data whose ``count`` entries all point to the same ``size`` bytes."""
    entries = b"".join(
        struct.pack("<HHII", 1000 + k, 7, size, 14 + 12 * count) for k in range(count)
    )
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, count) + entries + bytes(4 + size)


def in_segments(exif):
    first, rest = exif[:65000], exif[65000:]
    parts = [first, *(b"Exif\0\0" + rest[k : k + 65000] for k in range(0, len(rest), 65000))]
    return [segment(0xE1, part) for part in parts]


def webp(metadata):
    stream = io.BytesIO()
    NOISE.save(stream, "WEBP", exif=b"Exif\0\0" + bytes(metadata))
    return stream.getvalue()


PACKED = zlib.compress(bytes(MIB - 1), 9)
COMMENT = segment(0xFE, b"c")
LONG_EXIF = segment(0xE1, b"Exif\0\0" + bytes(65000))
BOMBS = {
    "scans of a progressive JPEG": (lambda: with_scans(5000, 600, progressive=True), "scans"),
    "scans behind stray bytes": (
        lambda: with_scans(5000, 600, b"\0stray", progressive=True),
        "scans",
    ),
    "scans behind comments that end the picture": (
        lambda: with_scans(5000, 600, segment(0xFE, b"\xff\xd9"), progressive=True),
        "scans",
    ),
    "EXIF": (lambda: with_header(LONG_EXIF * 17), "EXIF"),
    "EXIF behind stray bytes": (lambda: with_header(COMMENT, b"\0\0", LONG_EXIF * 17), "EXIF"),
    "EXIF behind padding": (lambda: with_header(b"\xff" * 9, LONG_EXIF * 17), "EXIF"),
    "stray bytes": (lambda: with_header(COMMENT, bytes(10 * MIB)), "small pieces for header"),
    "empty segments": (lambda: with_header(segment(0xFE, b"") * MIB), "small pieces for header"),
    "PNG EXIF": (lambda: png(chunk(b"eXIf", bytes(65 * MIB))), "bytes of metadata"),
    "PNG EXIF behind the pixels": (
        lambda: png(behind=[chunk(b"eXIf", bytes(65 * MIB))]),
        "bytes of metadata",
    ),
    "PNG unknown chunk": (lambda: png(chunk(b"prVt", bytes(65 * MIB))), "bytes of metadata"),
    "PNG profiles": (lambda: png(*[chunk(b"iCCP", b"a\0\0" + PACKED)] * 999), "profiles"),
    "PNG texts": (lambda: png(*[chunk(b"zTXt", b"\0\0" + PACKED)] * 999), "texts"),
    "PNG texts behind the pixels": (
        lambda: png(behind=[chunk(b"iTXt", b"a\0\1\0\0\0" + PACKED[:100])] * 999),
        "texts",
    ),
    "PNG empty chunks": (lambda: png(*[chunk(b"prVt")] * MIB), "small pieces for header"),
    "PNG empty pixels": (lambda: png(*[chunk(b"IDAT")] * MIB), "small pieces for a picture of 8 x"),
    "GIF comment in pieces": (lambda: gif(b"\1a" * 5 * MIB), "small pieces for header"),
    "WebP EXIF": (lambda: webp(65 * MIB), "bytes for header"),
    "BMP runs": (lambda: compressed_bmp(5000), "compressed BMP"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bomb_is_refused_at_once(tmp_path, name):
    make, words = BOMBS[name]
    file = tmp_path / "picture"
    file.write_bytes(make())
    began = time.process_time()
    with pytest.raises(PictureError, match=words) as caught:
        decode_picture(file, PictureSpec(8))
    assert time.process_time() - began < 1.5
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: with_header(*in_segments(exif_directory(2000, 100_000))),
        lambda: png(chunk(b"eXIf", exif_directory(2000, 100_000)[6:])),
    ],
)
def test_exif_entries_that_share_their_bytes_take_no_more_memory(tmp_path, make):
    file = tmp_path / "picture"
    file.write_bytes(make())
    tracemalloc.start()
    decode_picture(file, PictureSpec(8))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5 * MIB  # each of the 2,000 would take 100 kB


def scans(count):
    """The fewest bytes with so many markers of scans."""
    return b"\xff\xda\0\0" * count


def read_through(file, header, step):
    with open(file, "rb") as stream:
        reader = picture_limits.limited(file, stream)
        reader.read(header)
        reader.begin_pixels((8, 8))
        reader.seek(0)
        while reader.read(step):
            pass


@pytest.mark.parametrize("step", [1, 2, 3, 64])
def test_scans_are_counted_whatever_pieces_they_are_read_in(tmp_path, monkeypatch, step):
    monkeypatch.setattr(picture_limits, "_FEW_SCANS", 9)
    monkeypatch.setattr(picture_limits, "_SCANNED_PIXELS", 1)
    file, thumbnail = tmp_path / "picture", b"\xff\xd8\xff" + scans(30)
    header = len(thumbnail) + 2  # it ends within the first scan
    file.write_bytes(thumbnail + scans(9))
    read_through(file, header, step)
    file.write_bytes(thumbnail + scans(10))
    with pytest.raises(PictureError, match="more than 9 scans of a picture of 8 x 8"):
        read_through(file, header, step)


def mpo():
    stream = io.BytesIO()
    NOISE.save(stream, "MPO", save_all=True, append_images=[NOISE.rotate(180)])
    return stream.getvalue()


UNUSUAL = {
    "progressive CMYK": lambda: jpeg(NOISE.convert("CMYK"), progressive=True),
    "progressive": lambda: jpeg(progressive=True),
    "optimised for size": lambda: jpeg(NOISE, progressive=True, optimize=True, quality=20),
    "thumbnails of many scans": lambda: with_header(*[segment(0xE2, jpeg(progressive=True))] * 9),
    "two pictures": mpo,
    "another picture behind": lambda: jpeg() + jpeg(progressive=True) * 50,
    "a film behind": lambda: jpeg() + b"\xff\xda" * MIB,
    "EXIF of a megabyte": lambda: with_header(*in_segments(exif_directory(1, 1_000_000))),
    "some stray bytes": lambda: with_header(COMMENT, bytes(100)),
    "ten megabytes of XMP": lambda: with_header(segment(0xE1, b"http:" + bytes(65000)) * 160),
    "PNG in pieces": lambda: png(pieces=99),
    "PNG with texts": lambda: png(*[chunk(b"zTXt", b"a\0\0" + zlib.compress(b"b"))] * 99),
    "PNG with a time": lambda: png(chunk(b"tIME", bytes(7)), pieces=3),
    "GIF with a comment": lambda: gif(b"\x5a" + b"a" * 90 + (b"\x5a" + b"a" * 90) * 20_000),
    "WebP with EXIF": lambda: webp(MIB),
    "compressed BMP": lambda: compressed_bmp(100),
}


@pytest.mark.parametrize("name", UNUSUAL)
def test_unusual_picture_is_read(tmp_path, name):
    file = tmp_path / "picture"
    file.write_bytes(UNUSUAL[name]())
    assert decode_picture(file, PictureSpec(8)).shape == (8, 8, 3)


# ---- orientation, which is read without Pillow's help --------------------------------------------

UPRIGHT = np.zeros((16, 16, 3), np.uint8)
UPRIGHT[:8] = 255  # turned by 180 degrees it is white at the bottom


def exif(order="<", kind="H", number=3, prefix=b"Exif\0\0"):
    entry = struct.pack(f"{order}HHI", 0x0112, number, 1) + struct.pack(f"{order}{kind}", 3)
    magic = b"II*\0" if order == "<" else b"MM\0*"
    other = struct.pack(f"{order}HHI", 0x010F, 2, 3) + b"ab\0\0"
    directory = struct.pack(f"{order}H", 2) + other + entry.ljust(12, b"\0")
    return prefix + magic + struct.pack(f"{order}I", 8) + directory + bytes(4)


XMP = b'<rdf:Description tiff:Orientation="3" />'


def hexadecimal():
    text = exif().hex()
    return chunk(
        b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\nexif\n 9\n" + text.encode())
    )


TURNED = {
    "little-endian": {"exif": exif()},
    "big-endian": {"exif": exif(">")},
    "a long number": {"exif": exif(kind="I", number=4)},
    "a long number, big-endian": {"exif": exif(">", "I", 4)},
    "the prefix twice": {"exif": exif(prefix=b"Exif\0\0" * 2)},
    "cut behind the entry": {"exif": exif()[:-4]},
    "XMP": {"xmp": XMP},
}
AS_STORED = {
    "cut within the entry": {"exif": exif()[:-8]},
    "of bytes": {"exif": exif(kind="B", number=1)},
    "no directory": {"exif": b"Exif\0\0II*\0\xff\xff\xff\xff"},
    "an endless directory": {"exif": b"Exif\0\0II*\0" + struct.pack("<I", 8) + b"\xff\xff"},
    "nothing": {"exif": b"Exif\0\0"},
}


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
@pytest.mark.parametrize("name", [*TURNED, *AS_STORED])
def test_orientation_is_found_in_whatever_form(tmp_path, kind, name):
    stored = Image.fromarray(UPRIGHT)
    stored.save(tmp_path / "picture", kind, **(TURNED | AS_STORED)[name])
    pixels = decode_picture(tmp_path / "picture", PictureSpec(4))
    turned = pixels[0].mean() < 128 < pixels[-1].mean()
    assert turned == (name in TURNED)


@pytest.mark.parametrize(
    "part",
    [
        chunk(b"eXIf", exif()[6:]),
        chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP),
        hexadecimal(),
    ],
)
@pytest.mark.parametrize("behind", [False, True])
def test_orientation_of_a_png_is_found_on_either_side_of_the_pixels(tmp_path, part, behind):
    stream = io.BytesIO()
    Image.fromarray(UPRIGHT).save(stream, "PNG")
    whole = stream.getvalue()
    at = len(whole) - 12 if behind else 33
    (tmp_path / "picture").write_bytes(whole[:at] + part + whole[at:])
    pixels = decode_picture(tmp_path / "picture", PictureSpec(4))
    assert pixels[0].mean() < 128 < pixels[-1].mean()
