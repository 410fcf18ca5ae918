"""``--images`` with an archive, through the whole command; malicious ones are refused."""

from __future__ import annotations

import io
import struct
import tarfile
import zipfile
from pathlib import Path

import pytest
from archive_makers import make_tar, make_zip, tar_with, zip_symlink
from recbole_cierec.dataset_converters.__main__ import main

FOODS = """\
recipe_id,recipe_name,image_url,ingredients,cooking_directions,nutritions
i1,Pork,https://p.example/1.jpg,salt,x,x
i2,Egg,https://p.example/2.jpg,salt,x,x
"""
AMAZON = '{"reviewerID": "u1", "asin": "i1", "overall": 5, "unixReviewTime": 5, "vote": "1"}\n'
META = '{"asin": "i1", "category": ["A"], "imageURL": []}\n{"asin": "i2", "category": ["A"]}\n'
PICTURES = [("posters/i1.jpg", b"one"), ("posters/deep/i2.png", b"two"), ("readme.txt", b"none")]


def table(write) -> list[str]:
    rows = write("t.csv", "user_id,item_id,file\nu1,i1,posters/i1.jpg\nu1,i2,posters/deep/i2.png\n")
    return ["table", "--interactions", str(rows)]


def table_with_a_column(write) -> list[str]:
    words = table(write)
    return [*words, "--items", words[-1], "--image-column", "file"]


def movielens(write) -> list[str]:
    write("movies.csv", "movieId,title,genres\ni1,One,Drama\ni2,Two,Drama\n")
    rows = "userId,movieId,rating,timestamp\nu1,i1,4.0,964982703\nu1,i2,4.0,964982703\n"
    return ["movielens", "--folder", str(write("ratings.csv", rows).parent)]


def allrecipes(write) -> list[str]:
    head = "user_id,recipe_id,rating,dateLastModified\n"
    for split, item in (("train", "i1"), ("valid", "i2"), ("test", "i2")):
        write(f"core-data-{split}_rating.csv", f'{head}u1,{item},5,"2010-08-25T14:38:53.84\n"\n')
    return ["allrecipes", "--folder", str(write("core-data_recipe.csv", FOODS).parent)]


def hafr(write) -> list[str]:
    import numpy as np

    for split in ("train", "valid", "test"):
        write(f"data.{split}.rating", "0\t1\t1\n")
    folder = write("data_id_ingre_num_file", "0\t1\n1\t1\n").parent
    np.save(folder / "data_ingre_code_file.npy", np.array([[4], [7]]))
    return ["allrecipes", "--release", str(folder / "data")]


def amazon(write) -> list[str]:
    reviews = write("r.json", AMAZON + AMAZON.replace("i1", "i2"))
    return ["amazon", "--reviews", str(reviews), "--metadata", str(write("m.json", META))]


MAKERS = {"zip": make_zip, "tar": make_tar, "tar.gz": lambda p, m: make_tar(p, m, "w:gz")}


CASES = [(table_with_a_column, kind) for kind in MAKERS]
CASES += [(words, "zip") for words in (table, movielens, allrecipes, amazon)]


@pytest.mark.parametrize(("words", "kind"), CASES)
def test_an_archive_gives_the_same_folder_as_its_contents_would(convert, write, words, kind):
    words = words(write)
    for name, content in PICTURES:
        write(f"unpacked/{name}", content)
    folder = write("unpacked/note.txt", "x").parent
    archive = MAKERS[kind](folder.parent / f"pictures.{kind}", PICTURES)
    packed = convert(*words, "--images", archive, "--name", "packed")
    plain = convert(*words, "--images", folder, "--name", "plain")
    assert packed.rows("item") == plain.rows("item")
    found = {row[0]: (packed.folder / row[2]).read_bytes() for row in packed.rows("item")}
    assert found == {"i1": b"one", "i2": b"two"}
    assert len([path for path in packed.folder.rglob("*") if path.is_file()]) == len(
        [path for path in plain.folder.rglob("*") if path.is_file()]
    )
    assert archive.name in [entry["file"] for entry in packed.manifest["inputs"]]
    assert packed.manifest["options"]["images"] == archive.name
    assert sorted(p.name for p in packed.folder.parent.iterdir()) == ["packed", "plain"]


def test_hafrs_release_takes_an_archive_as_well(convert, write):
    words = hafr(write)
    archive = make_zip(Path(words[-1]).with_name("p.zip"), [("1.jpg", b"one")])
    made = convert(*words, "--images", archive)
    assert [row[2] is not None for row in made.rows("item")] == [True]


def test_a_dry_run_reads_the_archive_and_leaves_nothing(write, tmp_path, capsys):
    words = table(write)
    archive = make_zip(tmp_path / "p.zip", PICTURES)
    out = tmp_path / "out"
    assert main([*words, "--images", str(archive), "--dry-run", "--output", str(out)]) == 0
    assert "nothing written" in capsys.readouterr().out
    assert not out.exists()


def links(path: Path, kind: bytes, target: str) -> Path:
    members = [("i1.jpg", tarfile.REGTYPE, ""), ("x", kind, target)]
    return tar_with(path, *members, ("x/i2.jpg", tarfile.REGTYPE, ""))


def nul(path: Path) -> Path:
    make_zip(path, [("i1.jpgQ.exe", b"1")])
    path.write_bytes(path.read_bytes().replace(b"jpgQ", b"jpg\0"))
    return path


def overlapping(path: Path) -> Path:
    """A bomb of more than 10,000 to 1: all entries refer to the same compressed zeros."""
    single = make_zip(path, [("aaaa", bytes(1 << 20))]).read_bytes()
    start, stop = single.index(b"PK\x01\x02"), single.index(b"PK\x05\x06")
    count = 3000
    entries = b"".join(
        single[start:stop].replace(b"aaaa", f"{k:04}".encode()) for k in range(count)
    )
    end = single[stop : stop + 8] + struct.pack("<HHII", count, count, len(entries), start)
    path.write_bytes(single[:start] + entries + end + single[stop + 20 :])
    assert count * (1 << 20) > 10_000 * path.stat().st_size
    return path


def zeros(path: Path) -> Path:
    buffer = io.BytesIO(bytes(64 << 20))
    with tarfile.open(path, "w:gz") as archive:
        info = tarfile.TarInfo("i1.jpg")
        info.size = len(buffer.getvalue())
        archive.addfile(info, buffer)
    return path


EVIL = {
    "dots": lambda p: make_zip(p, [("i1.jpg", b"1"), ("../i2.jpg", b"evil")]),
    "dots in a tar": lambda p: make_tar(p, [("i1.jpg", b"1"), ("a/../../i2.jpg", b"evil")]),
    "absolute": lambda p: make_zip(p, [(str(p.parent / "evil.jpg"), b"evil")]),
    "absolute in a tar": lambda p: make_tar(p, [(str(p.parent / "evil.jpg"), b"evil")]),
    "symlink": lambda p: links(p, tarfile.SYMTYPE, str(p.parent / "outside")),
    "zipped symlink": lambda p: make_zip(
        p, [zip_symlink("x", str(p.parent / "outside")), ("x/i2.jpg", b"evil")]
    ),
    "hard link": lambda p: links(p, tarfile.LNKTYPE, str(p.parent / "outside" / "secret.jpg")),
    "device": lambda p: links(p, tarfile.CHRTYPE, ""),
    "bomb": overlapping,
    "bomb in a tar.gz": zeros,
    "duplicate": lambda p: make_tar(p, [("i1.jpg", b"1"), ("i1.jpg", b"2")]),
    "nul": nul,
    "drive": lambda p: make_zip(p, [("C:\\i1.jpg", b"evil")]),
    "drive in a tar": lambda p: make_tar(p, [("C:/i1.jpg", b"evil")]),
    "no archive": lambda p: p.write_text("<html>not found</html>") and p,
}


HARM = [(table, kind) for kind in EVIL] + [(movielens, "symlink"), (allrecipes, "bomb")]


@pytest.mark.parametrize(("words", "kind"), HARM)
def test_harm_in_an_archive_is_one_line_and_leaves_nothing(write, tmp_path, capsys, words, kind):
    words, out = words(write), tmp_path / "out"
    secret = write("outside/secret.jpg", b"secret")
    archive = EVIL[kind](secret.parent.parent / "pictures")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert main([*words, "--images", str(archive), "--output", str(out)]) == 2
    stdout, error = capsys.readouterr()
    assert stdout == ""
    assert error.startswith(f"error: {archive}: ")
    assert error.count("\n") == 1
    assert list(out.iterdir()) == []
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path != out}
    assert after == before


def test_a_place_that_is_not_there_is_one_line(write, tmp_path, capsys):
    for words in (table, table_with_a_column, movielens, allrecipes, amazon):
        assert main([*words(write), "--images", str(tmp_path / "none.zip")]) == 2
        assert "no such folder or archive of pictures" in capsys.readouterr().err


def test_an_archive_without_pictures_is_one_line(write, tmp_path, capsys):
    archive = make_zip(tmp_path / "p.zip", [("readme.txt", b"x")], zipfile.ZIP_STORED)
    assert main([*movielens(write), "--images", str(archive), "--output", str(tmp_path)]) == 2
    assert "holds no picture" in capsys.readouterr().err
