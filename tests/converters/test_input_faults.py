"""Broken input and interrupted runs: counted, named, and no partial result remains."""

from __future__ import annotations

import errno
import gzip
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import duckdb
import pytest
from packaging.version import Version
from recbole_cierec.dataset_converters.__main__ import main
from recbole_cierec.dataset_converters.tables import workspace
from recbole_cierec.dataset_converters.tables.bad_records import BadRecords
from recbole_cierec.dataset_converters.tables.output import file_digest, temporary_folder
from recbole_cierec.dataset_converters.tables.records import parse_literal, read_json_lines
from recbole_cierec.dataset_converters.tables.sql import ref
from recbole_cierec.dataset_converters.tables.workspace import Workspace

from recbole_cierec.errors import ConfigError, DataError

needs_duckdb_2 = pytest.mark.skipif(
    Version(duckdb.__version__) < Version("2"),
    reason="duckdb 1 reports no progress of such a statement, and needs smaller files",
)


def review(user="u1", item="i1", rating=5.0, when=10, **more) -> str:
    record = {"reviewerID": user, "asin": item, "overall": rating, "unixReviewTime": when}
    return json.dumps({**record, "verified": True, **more})


GOOD = [review(f"u{k}", f"i{k}") for k in range(8)]
BAD = {
    2: ("not json", "is not JSON"),
    4: (review(user=""), "has no reviewerID"),
    5: (review(item=None), "has no asin"),
    7: (review(rating="five"), "overall is not a number"),
    8: ('{"reviewerID": "u", "asin": "i", "overall": NaN, "unixReviewTime": 1}', "cannot be used"),
    9: ('{"reviewerID": "u", "asin": "i", "overall": 1, "unixReviewTime": 1', "is not JSON"),
    11: ('["reviewerID"]', "is not a record"),
    12: ("{} {}", "is not JSON"),
}


def test_each_bad_line_is_named_with_its_number_and_reason(convert, write):
    lines, good = {}, iter(GOOD)
    for number in range(1, 17):
        # Line 14 is blank, line 15 holds blanks only: neither is a record.
        blank = {14: "", 15: "  \t"}
        lines[number] = blank.get(number) or (BAD[number][0] if number in BAD else next(good, ""))
    path = write("r.json", "\n".join(lines[number] for number in sorted(lines)))
    made = convert("amazon", "--reviews", path, "--max-bad-share", "1")
    (entry,) = made.manifest["bad_records"]
    named = {example["line"]: example["reason"] for example in entry["first"]}
    assert named == {number: reason for number, (_, reason) in BAD.items()}
    assert entry["bad"] == len(BAD)
    assert entry["records"] == len(BAD) + len(made.rows())
    assert f"  {path.name}, line 2: is not JSON" in made.report


def test_bytes_that_are_no_utf8_spoil_their_line_only(convert, write):
    lines = [line.encode() for line in GOOD]
    lines[3] = lines[3].replace(b"u3", b"u\xff")
    made = convert(
        "amazon", "--reviews", write("r.json", b"\n".join(lines)), "--max-bad-share", "1"
    )
    assert made.manifest["bad_records"][0]["first"] == [{"line": 4, "reason": "is not UTF-8"}]
    assert [row[0] for row in made.rows()] == ["u0", "u1", "u2", "u4", "u5", "u6", "u7"]


def test_a_byte_order_mark_and_windows_line_ends_are_no_fault(convert, write):
    content = b"\xef\xbb\xbf" + "\r\n".join(GOOD).encode()
    made = convert("amazon", "--reviews", write("r.json", content))
    assert [row[0] for row in made.rows()] == [f"u{k}" for k in range(8)]
    assert made.manifest["bad_records"] == []


def test_too_large_a_share_of_bad_lines_stops_with_the_first_of_them(convert, write, tmp_path):
    path = write("r.json", "\n".join([*GOOD[:3], "broken", *GOOD[3:]]))
    with pytest.raises(DataError, match=r"1 of 9 records cannot be used \(the first: line 4"):
        convert("amazon", "--reviews", path)
    assert list((tmp_path / "out").iterdir()) == []
    assert len(convert("amazon", "--reviews", path, "--max-bad-share", "0.12").rows()) == 8


@pytest.mark.parametrize("cut", [30, 200, -9])
def test_a_download_that_broke_off_is_refused(convert, write, tmp_path, cut):
    packed = gzip.compress("\n".join(GOOD * 3000).encode())
    with pytest.raises(DataError, match=r"r\.json\.gz"):
        convert("amazon", "--reviews", write("r.json.gz", packed[:cut]))
    assert not list((tmp_path / "out").glob("*")) or not list((tmp_path / "out").iterdir())


def test_what_is_no_archive_is_refused(convert, write):
    for name in ("r.json.gz", "r.json.zst"):
        with pytest.raises(DataError, match="cannot be read"):
            convert("amazon", "--reviews", write(name, b"<html>no such file</html>" * 50))


@pytest.mark.parametrize(
    "line",
    [
        b"{'a': __import__('os').system('true')}",
        b"{'a': " + b"[" * 5000 + b"]" * 5000 + b"}",
        b"-" * 900_000 + b"1",
        b"{'a': 1} + {'b': 2}",
        b"[1]",
        b"{'a': \xff}",
        b"{'a': '" + b"x" * (1 << 20) + b"'}",
        b"",
    ],
)
def test_a_literal_that_is_no_plain_record_is_refused_and_nothing_is_run(line):
    with pytest.raises(ValueError, match="is "):
        parse_literal(line)


def test_values_that_json_does_not_have_spoil_their_line_only(convert, write):
    metadata = "{'asin': 'i0', 'title': {1, 2}}\n{'asin': 'i1', 'title': 'fine', 'imUrl': 'x'}\n"
    reviews = [line.replace('"verified": true', '"helpful": [0, 0]') for line in GOOD]
    words = ("--reviews", write("r.json", "\n".join(reviews)), "--max-bad-share", "1")
    made = convert("amazon", *words, "--metadata", write("m.json", metadata))
    assert [row[:2] for row in made.rows("item")] == [("i1", "fine")]


def test_rows_stay_in_the_order_of_the_file_with_several_threads(tmp_path):
    path = tmp_path / "many.jsonl"
    count = 300_000
    with path.open("w") as file:
        for number in range(count):
            file.write(f'{{"n": "{number}", "pad": "{"x" * (number % 90)}"}}\n')
    space = Workspace(tmp_path, "500MB", 4, BadRecords(0.0))
    try:
        read_json_lines(
            space,
            "t",
            path,
            {"n": "VARCHAR"},
            {"n": f"CAST({ref('n')} AS BIGINT)"},
            lambda _: "",
            required=["n"],
        )
        assert space.value("SELECT count(*) FROM t WHERE n = rowid") == count
    finally:
        space.close()


@needs_duckdb_2
def test_the_progress_of_a_long_statement_is_shown(tmp_path, monkeypatch):
    shown = []

    class Bar(workspace.tqdm):
        def update(self, n=1):
            shown.append(n)

    monkeypatch.setattr(workspace, "tqdm", Bar)
    monkeypatch.setattr(workspace, "_POLL", 0.01)
    space = Workspace(tmp_path, "500MB", 1, BadRecords(0.0))
    try:
        query = "SELECT hash(range) AS h FROM range(3000000) ORDER BY h"
        space.run(f"CREATE TABLE t AS {query}", "sort")
    finally:
        space.close()
    assert 0 < max(shown) <= 100


@pytest.mark.parametrize(
    "words",
    [
        "",
        "amazn",
        "amazon",
        "amazon --reviews x --user-core 0",
        "amazon --reviews x --user-core two",
        "amazon --reviews x --max-bad-share 2",
        "amazon --reviews x --name ../up",
        "amazon --reviews x --memory lots",
        "amazon --reviews x --after yesterday",
        "amazon --reviews x --after 2015-01-01 --before 2014-01-01",
        "amazon --reviews x --bogus",
        "amazon --reviews x --bo\x1bgus",
        "images --list x",
        "images --list x --into y --workers two",
        "amazon --reviews missing.json",
        "allrecipes",
        "allrecipes --folder missing",
        "movielens --folder missing",
        "table --interactions missing.csv",
        "table --interactions missing.parquet",
        "table --interactions missing.xls",
    ],
)
def test_a_mistake_on_the_command_line_gives_one_line_and_code_2(
    words, capsys, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    assert main(words.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert not list(tmp_path.rglob(".*part*"))


def test_an_option_is_not_guessed_from_its_beginning(convert, write):
    with pytest.raises(ConfigError, match="--review"):
        convert("amazon", "--review", write("r.json", "\n".join(GOOD)))


def test_a_folder_is_replaced_only_when_told_and_only_a_conversion(convert, write, tmp_path):
    path = write("r.json", "\n".join(GOOD))
    made = convert("amazon", "--reviews", path)
    with pytest.raises(DataError, match="exists already; give --overwrite"):
        convert("amazon", "--reviews", path)
    convert("amazon", "--reviews", path, "--overwrite", "--duplicates", "first")
    precious = tmp_path / "out" / "precious"
    precious.mkdir()
    (precious / "work.txt").write_text("years")
    with pytest.raises(DataError, match=r"holds no conversion\.json"):
        convert("amazon", "--reviews", path, "--overwrite", "--name", "precious")
    assert (precious / "work.txt").read_text() == "years"
    assert sorted(p.name for p in made.folder.parent.iterdir()) == ["made", "precious"]


def test_an_error_leaves_the_earlier_conversion_as_it_was(convert, write):
    made = convert("amazon", "--reviews", write("r.json", "\n".join(GOOD)))
    before = {p.name: p.read_bytes() for p in made.folder.iterdir()}
    with pytest.raises(DataError):
        convert("amazon", "--reviews", write("bad.json", "\n".join([*GOOD, "x"])), "--overwrite")
    assert {p.name: p.read_bytes() for p in made.folder.iterdir()} == before
    assert len(list(made.folder.parent.iterdir())) == 1


def test_pictures_that_were_downloaded_survive_another_conversion(convert, write):
    records = [
        {"asin": f"i{k}", "category": ["A"], "imageURLHighRes": [f"https://p.example/{k}.jpg"]}
        for k in range(8)
    ]
    metadata = write("m.json", "\n".join(json.dumps(record) for record in records))
    words = ("--reviews", write("r.json", "\n".join(GOOD)), "--metadata", metadata)
    made = convert("amazon", *words)
    path = made.folder / made.urls()[0][0]
    path.parent.mkdir(parents=True)
    path.write_bytes(b"downloaded")
    again = convert("amazon", *words, "--overwrite")
    assert path.read_bytes() == b"downloaded"
    assert again.rows("item")[0][2] == made.rows("item")[0][2]


def test_a_dry_run_counts_and_writes_nothing(write, tmp_path, capsys):
    path = write("r.json", "\n".join(GOOD))
    assert (
        main(["amazon", "--reviews", str(path), "--dry-run", "--output", str(tmp_path / "o")]) == 0
    )
    out = capsys.readouterr().out
    assert "nothing written" in out
    assert out.splitlines()[1].split() == ["read", "8", "8", "8"]
    assert not (tmp_path / "o").exists()


@pytest.mark.skipif(os.name == "nt", reason="no such names there")
@pytest.mark.parametrize("name", ["a[1].json", "a*.json.gz", "what?.json", "it's.json", "r.tsv"])
def test_names_of_files_are_no_patterns_and_no_sql(convert, write, name):
    content = "\n".join(GOOD).encode()
    write("a1.json", b"another")
    if name.endswith("tsv"):
        path = write("[x] *'/r.tsv", "user_id\titem_id\n" + "u\ti\n" * 8)
        made = convert("table", "--interactions", path, "--duplicates", "all")
    else:
        path = write(name, gzip.compress(content) if name.endswith("gz") else content)
        made = convert("amazon", "--reviews", path)
    assert len(made.rows()) == 8
    assert made.manifest["inputs"][0]["file"] == path.name


def test_equal_conversions_are_equal_bytes(convert, write):
    path = write("r.json", "\n".join(GOOD))

    def content(threads):
        words = ("--threads", threads, "--overwrite")
        folder = convert("amazon", "--reviews", path, *words).folder
        return {file.name: file.read_bytes() for file in folder.iterdir()}

    assert content(1) == content(4)


@pytest.mark.skipif(os.name == "nt", reason="no limit of that kind")
@pytest.mark.parametrize("kilobytes", [16, 500, 800, pytest.param(3000, marks=needs_duckdb_2)])
def test_a_disk_that_is_full_is_one_line_wherever_it_happens(write, tmp_path, kilobytes):
    """A limit on the file size simulates a full disk: any write may fail."""
    records = (f'{{"asin": "i{k}", "category": ["{k}"]}}\n' for k in range(9999))
    meta = write("m.json", "".join(records))
    reviews = write("r.json", "".join(review(f"u{k}", f"i{k}") + "\n" for k in range(9999)))
    command = [sys.executable, "-m", "recbole_cierec.dataset_converters", "amazon", "--output"]
    command += [str(tmp_path / "out"), "--reviews", str(reviews), "--metadata", str(meta)]
    limited = f'ulimit -f {kilobytes * 2}; exec "$@"'  # blocks of 512 bytes
    done = subprocess.run(["sh", "-c", limited, "sh", *command], capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert f"error: {tmp_path / 'out'}: " in done.stderr
    assert "failed (File too large); check this disk, or set --output" in done.stderr
    assert list((tmp_path / "out").iterdir()) == []


def test_a_disk_that_is_full_when_items_are_written(convert, write, tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("recbole_cierec.dataset_converters.tables.output.title_cell", full)
    path = write("t.csv", "user_id,item_id\na,1\n")
    items = write("i.csv", "item_id\n1\n")
    with pytest.raises(DataError, match="made: No space left on device"):
        convert("table", "--interactions", path, "--items", items)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_an_output_that_is_a_file_is_one_line(write, tmp_path, capsys, place):
    (tmp_path / "file").write_text("mine")
    words = ["amazon", "--reviews", str(write("r.json", "\n".join(GOOD)))]
    assert main([*words, "--output", str(tmp_path / place)]) == 2
    assert "is a file, or below one; give a folder" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_places_without_permission_are_one_line(write, tmp_path, capsys):
    path = write("r.json", "\n".join(GOOD))
    (tmp_path / "shut").mkdir(mode=0o500)
    assert main(["amazon", "--reviews", str(path), "--output", str(tmp_path / "shut")]) == 2
    assert "cannot be written to (Permission denied)" in capsys.readouterr().err
    path.chmod(0)
    assert main(["amazon", "--reviews", str(path), "--output", str(tmp_path)]) == 2
    assert f"error: {path}: cannot be read (Permission denied)\n" == capsys.readouterr().err


@pytest.mark.skipif(os.name == "nt", reason="signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_run_that_is_ended_leaves_nothing(tmp_path, number):
    path = tmp_path / "r.json"
    lines = [review(f"u{k}", f"i{k}", pad="x" * 100) + "\n" for k in range(1000)]
    with path.open("w") as file:
        for _ in range(400):
            file.writelines(lines)
    command = [sys.executable, "-m", "recbole_cierec.dataset_converters", "amazon"]
    command += ["--reviews", str(path), "--output", str(tmp_path / "out")]
    started = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path
    )
    out = tmp_path / "out"
    while not list(out.glob(".amazon.part-*/work.duckdb")) and started.poll() is None:
        time.sleep(0.01)
    time.sleep(0.1)
    started.send_signal(number)
    started.communicate(timeout=120)
    assert started.returncode == 128 + number
    assert list(out.iterdir()) == []


def test_hashing_of_the_input_ends_with_a_conversion_that_fails(tmp_path):
    path, given_up = tmp_path / "large", threading.Event()
    with path.open("wb") as file:
        file.truncate(1 << 36)  # takes no disk space, and minutes to hash
    hashing = threading.Thread(target=file_digest, args=(path, given_up), daemon=True)
    hashing.start()
    given_up.set()
    hashing.join(timeout=60)
    assert not hashing.is_alive()


def test_what_a_killed_run_left_goes_with_the_next_run_but_not_what_another_uses(
    convert, write, tmp_path
):
    target = tmp_path / "out" / "made"
    with temporary_folder(target, dry_run=False) as running:
        dead = target.parent / ".made.part-0123456789ab"
        dead.mkdir()
        (dead / "work.duckdb").write_bytes(b"x")
        convert("amazon", "--reviews", write("r.json", "\n".join(GOOD)))
        assert not dead.exists()
        assert running.is_dir()
    assert [path.name for path in target.parent.iterdir()] == ["made"]


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_killed_dry_run_with_an_archive_leaves_nothing_behind_the_next_run(write, tmp_path):
    """Both keep what they unpack in the system's temporary folder."""
    picture = write("pictures.zip", b"")
    with zipfile.ZipFile(picture, "w") as archive:
        for k in range(3000):
            archive.writestr(f"i{k}.jpg", b"x" * 3000)
    rows = write("t.csv", "user_id,item_id\nu,i1\n")
    home = tmp_path / "temporary"
    home.mkdir()
    command = [sys.executable, "-m", "recbole_cierec", "convert", "table", "--dry-run"]
    command += ["--interactions", str(rows), "--images", str(picture)]
    environ = {**os.environ, "TMPDIR": str(home)}
    started = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=tmp_path, env=environ)
    while not list(home.glob("*/*/*.jpg")) and started.poll() is None:
        time.sleep(0.002)
    started.kill()
    started.wait()
    assert list(home.glob("*/*/*.jpg"))
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=tmp_path, env=environ)
    assert list(home.iterdir()) == []


def test_all_ways_to_start_print_the_same_help(tmp_path):
    root = Path(__file__).resolve().parents[2]
    if not (root / "dataset_converters").is_dir():
        pytest.skip("needs a checkout")
    starts = [
        (["dataset_converters"], root),
        (["recbole_cierec.dataset_converters"], tmp_path),
        (["recbole_cierec", "convert"], tmp_path),
    ]
    texts = {
        subprocess.run(
            [sys.executable, "-m", *start, "table", "--help"],
            cwd=folder,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for start, folder in starts
    }
    (text,) = texts
    assert text.startswith("usage: python -m recbole_cierec convert table ")
    assert "--annotation-columns" in text


def test_what_the_database_says_never_reaches_the_user(convert, write, tmp_path):
    """Files that do not match their names, and too little memory: a clear message and its place."""
    good = tmp_path / "good.parquet"
    rows = "SELECT i AS user_id, i AS item_id FROM range(99) r(i)"
    duckdb.connect().execute(f"COPY ({rows}) TO '{good}'")
    content = good.read_bytes()
    chance, said = random.Random(3), []
    for _ in range(25):
        broken = bytearray(content)
        for _ in range(8):
            broken[chance.randrange(len(broken))] = chance.randrange(256)
        path = write("broken.parquet", bytes(broken))
        try:
            convert("table", "--interactions", path, "--overwrite", "--max-bad-share", "1")
        except DataError as error:
            said.append(str(error))
    assert len(said) > 10
    assert all(line.startswith(str(path)) and line.isprintable() for line in said)
    assert not any("Error" in line for line in said)
    empty = write("t.parquet", b"PAR1" + b"\0" * 20 + b"PAR1")
    with pytest.raises(DataError, match=r"cannot be read; is it damaged, or of another format"):
        convert("table", "--interactions", empty, "--overwrite")  # a broken one may have been read
    reviews = write("r.json", "\n".join(review(f"u{k}", f"i{k}") for k in range(9999)))
    with pytest.raises(DataError, match="needs more memory than 5MB; raise --memory"):
        convert("amazon", "--reviews", reviews, "--memory", "5MB", "--name", "small")


def test_a_line_without_end_is_named(convert, write):
    path = write("r.json", GOOD[0] + "\n" + '{"asin": "' + "x" * 17_000_000 + '"}\n')
    with pytest.raises(DataError, match=r"r\.json, line 2: is longer than 16 MiB"):
        convert("amazon", "--reviews", path)


@pytest.mark.skipif(sys.platform != "linux", reason="names are text elsewhere")
def test_names_of_files_that_are_no_text(convert, write, tmp_path):
    folder = write("pictures/1.jpg", b"x").parent
    path = write("t.csv", "user_id,item_id\na,1\n")
    odd = path.with_name(os.fsdecode(b"t\xff.csv"))
    path.rename(odd)
    made = convert("table", "--interactions", odd, "--images", folder)
    assert made.rows() == [("a", "1")]
    (folder / os.fsdecode(b"2\xff.jpg")).touch()
    with pytest.raises(DataError, match="this name is not UTF-8; rename it"):
        convert("table", "--interactions", odd, "--images", folder, "--overwrite")
