"""Malicious archives write nothing outside their folder, and leave no files."""

from __future__ import annotations

import gzip
import os
import struct
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest
from archive_makers import make_tar, make_zip, tar_with, zip_symlink
from recbole_cierec.dataset_converters.pictures.archives import ArchiveLimits, extract_archive

from recbole_cierec.errors import DataError

FILES = {"a.jpg": b"first", "deep/er/b.jpg": b"second" * 1000, "empty.jpg": b""}
ZERO = bytes(1 << 20)


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def place(tmp_path):
    """A folder for the target, inside one that is watched."""
    home = tmp_path / "home"
    home.mkdir()
    return home / "out"


def refused(archive: Path, place: Path, limits: ArchiveLimits | None = None) -> str:
    """Unpack, expect a refusal in one line, and nothing on the disk; returns the line."""
    before = {p: p.stat().st_mtime_ns for p in archive.parent.iterdir() if p != place.parent}
    with pytest.raises(DataError) as caught:
        extract_archive(archive, place, limits)
    assert list(place.parent.iterdir()) == []
    after = {p: p.stat().st_mtime_ns for p in archive.parent.iterdir() if p != place.parent}
    assert after == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda path: make_zip(path, FILES.items()),
        lambda path: make_zip(path, FILES.items(), zipfile.ZIP_STORED),
        lambda path: make_tar(path, FILES.items()),
        lambda path: make_tar(path, FILES.items(), "w:gz"),
        lambda path: make_tar(path, [(f"./{name}", c) for name, c in FILES.items()], "w:gz"),
    ],
    ids=["zip", "stored", "tar", "tar.gz", "dotted"],
)
def test_plain_archives_are_unpacked_whole(tmp_path, place, make):
    done = extract_archive(make(tmp_path / "archive"), place)
    assert files_in(place) == FILES
    assert (done.files, done.bytes) == (3, sum(map(len, FILES.values())))
    assert list(place.parent.iterdir()) == [place]


def test_tar_with_folders_of_the_system_tar(tmp_path, place):
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub" / ("n" * 150 + ".jpg")).write_bytes(b"x")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(source, arcname=".")
    extract_archive(tmp_path / "a.tar", place)
    assert files_in(place) == {"sub/" + "n" * 150 + ".jpg": b"x"}


def test_modes_of_the_archive_are_not_taken_over(tmp_path, place):
    info = tarfile.TarInfo("x.jpg")
    info.mode = 0o6777
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.addfile(info)
    extract_archive(tmp_path / "a.tar", place)
    assert (place / "x.jpg").stat().st_mode & 0o7111 == 0


BAD_NAMES = ["../x", "a/../../x", "/x", "..\\x", "C:\\x", "C:x", "\\\\host\\x", "a/./b", "nul"]
BAD_NAMES += ["a/con.jpg", "a\nb", "x" * 300, "", "..", "a//b", "dot."]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_that_lead_elsewhere_refuse_a_tar(tmp_path, place, name):
    archive = make_tar(tmp_path / "a.tar", [("good.jpg", b"1"), (name, b"evil")])
    assert "nothing was unpacked" in refused(archive, place)


@pytest.mark.parametrize("name", [name for name in BAD_NAMES if name])
def test_names_that_lead_elsewhere_refuse_a_zip(tmp_path, place, name):
    archive = make_zip(tmp_path / "a.zip", [("good.jpg", b"1"), (name, b"evil")])
    assert "nothing was unpacked" in refused(archive, place)


def test_nul_in_a_zipped_name_is_seen(tmp_path, place):
    archive = make_zip(tmp_path / "a.zip", [("good.jpgQ.exe", b"1")])
    archive.write_bytes(archive.read_bytes().replace(b"jpgQ", b"jpg\0"))
    assert "control character" in refused(archive, place)


@pytest.mark.parametrize(
    ("kind", "target"),
    [
        (tarfile.SYMTYPE, "/etc"),
        (tarfile.SYMTYPE, ".."),
        (tarfile.LNKTYPE, "/etc/passwd"),
        (tarfile.LNKTYPE, "good.jpg"),
        (tarfile.CHRTYPE, ""),
        (tarfile.BLKTYPE, ""),
        (tarfile.FIFOTYPE, ""),
        (b"?", ""),
    ],
)
def test_links_and_devices_refuse_a_tar(tmp_path, place, kind, target):
    archive = tar_with(tmp_path / "a.tar", ("good.jpg", tarfile.REGTYPE, ""), ("x", kind, target))
    assert "member 'x'" in refused(archive, place)


def test_writing_through_a_symbolic_link_is_impossible(tmp_path, place):
    (tmp_path / "outside").mkdir()
    link = ("x", tarfile.SYMTYPE, str(tmp_path / "outside"))
    tar = tar_with(tmp_path / "a.tar", link, ("x/evil", tarfile.REGTYPE, ""))
    refused(tar, place)
    archive = make_zip(
        tmp_path / "a.zip", [zip_symlink("x", str(tmp_path / "outside")), ("x/evil", b"evil")]
    )
    assert "a link" in refused(archive, place)
    assert list((tmp_path / "outside").iterdir()) == []


def test_a_target_that_is_a_link_is_refused(tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "outside")
    with pytest.raises(DataError, match="into a new folder"):
        extract_archive(make_zip(tmp_path / "a.zip", FILES.items()), tmp_path / "out")


def test_a_folder_with_files_is_not_mixed_with_an_archive(tmp_path, place):
    place.mkdir()
    (place / "mine").write_bytes(b"1")
    with pytest.raises(DataError, match="into a new folder"):
        extract_archive(make_zip(tmp_path / "a.zip", FILES.items()), place)
    assert files_in(place) == {"mine": b"1"}


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_duplicate_names_are_refused(tmp_path, place):
    members = [("a.jpg", b"1"), ("./a.jpg", b"2")]
    assert "same name" in refused(make_tar(tmp_path / "a.tar", members), place)
    members = [("a.jpg", b"1"), ("a.jpg", b"2")]
    assert "same name" in refused(make_zip(tmp_path / "a.zip", members), place)


def test_a_name_that_is_file_and_folder_is_refused(tmp_path, place):
    members = [("a", b"1"), ("a/b", b"2")]
    assert "cannot be unpacked" in refused(make_tar(tmp_path / "a.tar", members), place)
    assert "cannot be unpacked" in refused(make_zip(tmp_path / "a.zip", members), place)


def test_bombs_are_refused_by_their_ratio(tmp_path, place):
    members = [(f"{k}.jpg", ZERO) for k in range(64)]
    archive = make_zip(tmp_path / "a.zip", members)
    assert 64 * len(ZERO) / archive.stat().st_size > 900
    assert "above the limit" in refused(archive, place)
    assert "above the limit" in refused(make_tar(tmp_path / "a.tar.gz", members, "w:gz"), place)


def test_a_bomb_of_ten_thousand_to_one_by_overlapping_members(tmp_path, place):
    """All entries of the directory point to the same data (zipfile may refuse that by itself)."""
    single = make_zip(tmp_path / "one.zip", [("aaaa", ZERO)]).read_bytes()
    start = single.index(b"PK\x01\x02")
    entry, end = single[start : single.index(b"PK\x05\x06")], single[single.index(b"PK\x05\x06") :]
    count = 3000
    entries = b"".join(entry.replace(b"aaaa", f"{k:04}".encode()) for k in range(count))
    end = end[:8] + struct.pack("<HHII", count, count, len(entries), start) + end[20:]
    archive = tmp_path / "a.zip"
    archive.write_bytes(single[:start] + entries + end)
    assert count * len(ZERO) / archive.stat().st_size > 10_000
    assert "above the limit" in refused(archive, place)


def test_a_zip_that_declares_less_than_it_holds(tmp_path, place):
    archive = make_zip(tmp_path / "a.zip", [("a.jpg", ZERO * 40)])
    size, lie = struct.pack("<I", 40 * len(ZERO)), struct.pack("<I", 100)
    archive.write_bytes(archive.read_bytes().replace(size, lie))
    assert "damaged" in refused(archive, place)


def test_total_member_and_count_limits_hold_at_their_edge(tmp_path, place):
    members = [("a", b"12345"), ("b", b"12345")]
    archive = make_zip(tmp_path / "a.zip", members)
    assert "above the limit" in refused(archive, place, ArchiveLimits(total_bytes=9))
    assert "declares 5 bytes" in refused(archive, place, ArchiveLimits(member_bytes=4))
    assert "more than 1 members" in refused(archive, place, ArchiveLimits(members=1))
    assert extract_archive(archive, place, ArchiveLimits(10, 5, 2)).bytes == 10


def test_a_giant_tar_header_is_not_read_into_memory(tmp_path, place):
    """A pax header of 1 GB, compressed a thousandfold."""
    info = tarfile.TarInfo("pax")
    info.type, info.size = tarfile.XHDTYPE, 1 << 30
    with gzip.open(tmp_path / "a.tar.gz", "wb", compresslevel=1) as file:
        file.write(info.tobuf())
        for _ in range(12):
            file.write(ZERO)
    tracemalloc.start()
    message = refused(tmp_path / "a.tar.gz", place)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "tar header of over" in message
    assert peak < 30 << 20


def test_many_long_headers_in_a_row_are_not_read_into_memory_either(tmp_path, place):
    """Each is within the limit of one header; a global header keeps its contents."""
    content = b"1048576 k=" + b"x" * ((1 << 20) - 11) + b"\n"
    with gzip.open(tmp_path / "a.tar.gz", "wb", compresslevel=1) as file:
        for _ in range(40):
            info = tarfile.TarInfo("pax")
            info.type, info.size = tarfile.XGLTYPE, 1 << 20
            file.write(info.tobuf() + content)
    assert "tar header of over" in refused(tmp_path / "a.tar.gz", place)


def test_headers_that_announce_headers_without_end(tmp_path, place):
    info = tarfile.TarInfo("x")
    info.type = tarfile.GNUTYPE_LONGNAME
    info.size = 1
    block = info.tobuf(tarfile.GNU_FORMAT) + b"x".ljust(512, b"\0")
    (tmp_path / "a.tar").write_bytes(block * 3000)
    assert "damaged" in refused(tmp_path / "a.tar", place)


def test_sparse_members_are_refused(tmp_path, place):
    info = tarfile.TarInfo("x")
    info.pax_headers = {
        "GNU.sparse.major": "0",
        "GNU.sparse.minor": "1",
        "GNU.sparse.name": "x",
        "GNU.sparse.map": "0,0",
        "GNU.sparse.size": "1000000000000",
    }
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(info)
    refused(tmp_path / "a.tar", place)


def test_encrypted_and_oddly_packed_zips_are_refused(tmp_path, place):
    packed = make_zip(tmp_path / "lzma.zip", FILES.items(), zipfile.ZIP_LZMA)
    assert "deflate" in refused(packed, place)
    archive = make_zip(tmp_path / "a.zip", [("a.jpg", b"1")])
    data = bytearray(archive.read_bytes())
    data[data.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(data)
    assert "encrypted" in refused(archive, place)


@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz"])
def test_damaged_archives_are_refused_wherever_they_end(tmp_path, place, kind):
    content = {f"{k}.jpg": os.urandom(3000) for k in range(10)}
    if kind == "zip":
        whole = make_zip(tmp_path / "w", content.items())
    else:
        whole = make_tar(tmp_path / "w", content.items(), "w:gz" if kind == "tar.gz" else "w")
    data = whole.read_bytes()
    ends = [0, 1, 3, 100, 511, 512, 513, len(data) // 2, len(data) // 1024 * 512]
    # Of a tar, the padding to 10 KiB may be missing, as some programs leave it out.
    ends.append(3584 * 5 if kind == "tar" else len(data) - 10)
    for end in ends:
        (tmp_path / "cut").write_bytes(data[:end])
        assert "damaged" in refused(tmp_path / "cut", place)


def test_a_damaged_header_in_the_middle_is_not_the_end(tmp_path, place):
    archive = make_tar(tmp_path / "a.tar", [("a", b"1"), ("b", b"2")])
    data = bytearray(archive.read_bytes())
    data[1024] ^= 0xFF  # the second name
    archive.write_bytes(data)
    assert "damaged" in refused(archive, place)


@pytest.mark.parametrize("place_of_flip", [-8, -6, -1])
def test_a_wrong_checksum_or_length_at_the_end_of_gzip_is_found(tmp_path, place, place_of_flip):
    archive = make_tar(tmp_path / "a.tar.gz", [("a", b"1")], "w:gz")
    data = bytearray(archive.read_bytes())
    data[place_of_flip] ^= 1
    archive.write_bytes(data)
    assert "damaged" in refused(archive, place)


def test_a_flipped_byte_in_a_zip_is_found(tmp_path, place):
    archive = make_zip(tmp_path / "a.zip", [("a", b"secret" * 9)], zipfile.ZIP_STORED)
    archive.write_bytes(archive.read_bytes().replace(b"secret", b"secreT", 1))
    assert "damaged" in refused(archive, place)


def test_other_files_are_refused(tmp_path, place):
    (tmp_path / "text").write_text("no archive\n" * 200)
    assert "damaged" in refused(tmp_path / "text", place)
    assert "cannot be unpacked" in refused(tmp_path / "missing.zip", place)
    (tmp_path / "folder").mkdir()
    assert "cannot be unpacked" in refused(tmp_path / "folder", place)
