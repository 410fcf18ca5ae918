"""Pictures that img2dataset downloaded: folders or shards, each with a parquet file next to it."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import pytest
from archive_makers import make_tar

from recbole_cierec.errors import DataError

URLS = [f"https://p.example/{k}.jpg" for k in range(5)]
# The result of each URL: in two shards, one download failed, the last URL was never listed.
ROWS = {
    "00000": [("000000000", URLS[0], "success"), ("000000001", URLS[1], "failed_to_download")],
    "00001": [("000010000", URLS[2], "success"), ("000010001", URLS[3], "success")],
}


def write_fetched(folder: Path, form: str) -> Path:
    """The output of img2dataset for output_format files or webdataset."""
    folder.mkdir()
    for shard, rows in ROWS.items():
        files = {}
        for key, url, status in rows:
            files[f"{key}.json"] = json.dumps({"key": key, "status": status}).encode()
            if status == "success":
                files[f"{key}.jpg"] = f"picture of {url}".encode()
        if form == "webdataset":
            make_tar(folder / f"{shard}.tar", files.items())
        else:
            (folder / shard).mkdir()
            for name, content in files.items():
                (folder / shard / name).write_bytes(content)
        values = ", ".join(
            f"('{url}', '{key}', '{status}', NULL, 256::INT)" for key, url, status in rows
        )
        names = "url, key, status, error_message, width"
        query = f"SELECT * FROM (VALUES {values}) AS rows({names})"
        duckdb.connect().execute(f"COPY ({query}) TO '{folder / shard}.parquet'")
        (folder / f"{shard}_stats.json").write_text("{}")
    return folder


@pytest.fixture
def words(write) -> list[object]:
    rows = "".join(f"u{k},i{k},{url}\n" for k, url in enumerate(URLS))
    path = write("t.csv", f"user_id,item_id,picture\n{rows}")
    return ["table", "--interactions", path, "--items", path, "--image-column", "picture"]


@pytest.mark.parametrize("form", ["files", "webdataset"])
def test_fetched_pictures_are_found_by_their_url(convert, words, tmp_path, form):
    made = convert(*words, "--images", write_fetched(tmp_path / "fetched", form))
    rows = {row[0]: row[2] for row in made.rows("item")}
    read = {item: made.folder / path for item, path in rows.items()}
    found = {item: path.read_text() for item, path in read.items() if path.is_file()}
    assert found == {f"i{k}": f"picture of {URLS[k]}" for k in (0, 2, 3)}
    # The others can still be downloaded.
    assert made.urls() == [(rows["i1"], URLS[1]), (rows["i4"], URLS[4])]
    inputs = [entry["file"] for entry in made.manifest["inputs"]]
    assert inputs[-2:] == ["00000.parquet", "00001.parquet"]
    assert any("3 of 5 addresses of items match the pictures of" in line for line in made.report)


def test_addresses_match_as_the_converters_list_them(convert, write, tmp_path):
    """Blanks after an address are removed in the list for img2dataset."""
    meta = {"asin": "i0", "category": ["a"], "imageURLHighRes": [f"{URLS[0]} "]}
    review = {"reviewerID": "u", "asin": "i0", "overall": 1, "unixReviewTime": 1, "vote": "1"}
    files = ["--reviews", write("r.json", json.dumps(review))]
    files += ["--metadata", write("m.json", json.dumps(meta))]
    fetched = write_fetched(tmp_path / "fetched", "files")
    made = convert("amazon", *files, "--images", fetched)
    ((_, _, path, _),) = made.rows("item")
    assert (made.folder / path).read_text() == f"picture of {URLS[0]}"


def test_icons_are_recognised_by_the_address_of_a_fetched_picture(convert, words, tmp_path):
    fetched = write_fetched(tmp_path / "fetched", "files")
    made = convert(*words, "--images", fetched, "--no-picture", "example/2.")
    assert [row[0] for row in made.rows("item") if row[2] is None] == ["i2"]
    assert "items whose picture is a 'no image' icon: 1" in made.report


def test_pictures_of_another_list_are_refused(convert, write, tmp_path):
    rows = "".join(f"u,i{k},https://other.example/{k}.jpg\n" for k in range(40))
    path = write("t.csv", f"user_id,item_id,picture\n{rows}")
    words = ["--interactions", path, "--items", path, "--image-column", "picture"]
    fetched = write_fetched(tmp_path / "fetched", "files")
    with pytest.raises(DataError, match="only 0 of 40 addresses of items match the pictures of"):
        convert("table", *words, "--images", fetched)


def test_data_without_addresses_are_told_so(convert, write, tmp_path):
    path = write("t.csv", "user_id,item_id\nu,000000000\n")
    fetched = write_fetched(tmp_path / "fetched", "files")
    with pytest.raises(DataError, match="are found by URL; no item has one"):
        convert("table", "--interactions", path, "--images", fetched)


def test_an_output_without_any_picture_is_refused(convert, words, tmp_path):
    fetched = write_fetched(tmp_path / "fetched", "files")
    for path in fetched.glob("*/*.jpg"):
        path.unlink()
    with pytest.raises(DataError, match="none of the URLs in its parquet files has a picture"):
        convert(*words, "--images", fetched)


def test_a_damaged_table_is_one_line(convert, words, tmp_path):
    fetched = write_fetched(tmp_path / "fetched", "files")
    (fetched / "00000.parquet").write_bytes(b"PAR1 or not")
    with pytest.raises(DataError, match=r"00000\.parquet: cannot be read"):
        convert(*words, "--images", fetched)


def test_a_folder_of_pictures_with_some_other_table_stays_one(convert, write):
    path = write("t.csv", "user_id,item_id\nu,1\n")
    picture = write("pictures/1.jpg", b"one")
    duckdb.connect().execute(f"COPY (SELECT 1 AS url) TO '{picture.parent / 'x.parquet'}'")
    made = convert("table", "--interactions", path, "--images", picture.parent)
    assert (made.folder / made.rows("item")[0][2]).read_bytes() == b"one"
