"""Downloads from a faulty server on the loopback."""

from __future__ import annotations

import csv
import io
import os
import random
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil
import pytest

pytest.importorskip("aiohttp")

from image_server import picture, serving
from PIL import Image
from recbole_cierec.dataset_converters.images import main

from recbole_cierec.vision.pictures import PictureSpec, decode_picture

FAST = ["--backoff", "0.02", "--rate", "0", "--host-rate", "0", "--timeout", "5"]
HERE = ["--allow-private", "127.0.0.1"]


@pytest.fixture
def server():
    with serving() as running:
        yield running


def write_list(folder: Path, rows, header=("path", "url")) -> Path:
    file = folder / "list.tsv"
    file.write_text("".join("\t".join(cells) + "\n" for cells in [header, *rows]))
    return file


def files_in(folder: Path) -> dict[str, bytes]:
    """All files below a folder except the list of failures."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "failures.tsv"
    }


def failures_in(folder: Path) -> dict[str, str]:
    text = (folder / "failures.tsv").read_text()
    rows = list(csv.DictReader(io.StringIO(text), delimiter="\t", quoting=csv.QUOTE_NONE))
    return {row["path"]: row["reason"] for row in rows}


@pytest.fixture
def download(tmp_path, server):
    """``download({path: url or /path}, *options)`` -> (exit code, files, failures)."""

    def run(rows: dict[str, str], *options: str, here: bool = True):
        full = {path: server.url + url if url[:1] == "/" else url for path, url in rows.items()}
        into = tmp_path / "into"
        words = ["--list", str(write_list(tmp_path, full.items())), "--into", str(into)]
        code = main([*words, *FAST, *(HERE if here else []), *options])
        return code, files_in(into), failures_in(into)

    return run


def reason_of(download, url: str, *options: str) -> str:
    code, files, failures = download({"x.png": url, "ok.png": "/good/1.png"}, *options)
    assert (code, list(files)) == (0, ["ok.png"])
    return failures["x.png"]


def test_pictures_arrive_byte_for_byte_in_their_folders(download, capsys):
    rows = {"a.png": "/good/1.png", "deep/er/b.png": "/good/2.png"}
    code, files, failures = download(rows)
    assert code == 0
    assert files == {"a.png": picture(1), "deep/er/b.png": picture(2)}
    assert failures == {}
    assert "2 pictures fetched" in capsys.readouterr().out


def test_requests_say_who_asks(download, server):
    download({"a.png": "/good/1.png"}, "--contact", "me@example.org")
    headers = server.log[0][2]
    assert headers["User-Agent"].startswith("recbole_cierec/")
    assert "me@example.org" in headers["User-Agent"]
    assert headers["Accept-Encoding"] == "identity"
    assert "Cookie" not in headers


def test_an_item_list_gives_files_the_names_that_converters_use(tmp_path, server):
    from recbole_cierec.dataset_converters.tables.picture_names import target_of

    ids = ["../../etc/passwd", "con", "x" * 300, "plain"]
    rows = [(item, f"{server.url}/good/{k}.png") for k, item in enumerate(ids)]
    file = write_list(tmp_path, rows, ("item_id", "url"))
    assert main(["--list", str(file), "--into", str(tmp_path / "into"), *FAST, *HERE]) == 0
    expected = {target_of(item, ".png"): picture(k) for k, item in enumerate(ids)}
    assert {Path(p).stem: b for p, b in files_in(tmp_path / "into").items()} == {
        Path(p).stem: b for p, b in expected.items()
    }


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("/status/404/x", "HTTP 404"),
        ("/status/403/x", "HTTP 403"),
        ("/status/204/x", "HTTP 204"),
        ("/loop/x", "more than 5 redirects"),
        ("/lost/x", "without a Location"),
        ("/html/x", "text/html"),
        ("/htmlaspicture/x", "not a JPEG"),
        ("/pictureashtml/x", "text/html"),
        ("/gzip/x", "gzip"),
        ("/declaredhuge/x", "1,000,000,000,000 bytes declared"),
        ("/bomb/x", "more pixels than"),
        ("/empty/x", "empty file"),
    ],
)
def test_hopeless_answers_are_refused_after_one_attempt(download, server, url, reason):
    assert reason in reason_of(download, url)
    assert server.asked[url] == (6 if "loop" in url else 1)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("/status/500/x", "HTTP 500 (3 attempts)"),
        ("/cutalways/x", "broke off (3 attempts)"),
        ("/noise/x", "not HTTP (3 attempts)"),
    ],
)
def test_passing_troubles_are_tried_again_and_counted(download, server, url, reason):
    assert reason in reason_of(download, url, "--attempts", "3")
    assert server.asked[url] == 3


@pytest.mark.parametrize(
    ("url", "content", "requests"),
    [
        ("/flaky/x", picture(5), 3),
        ("/cut/x", picture(1), 2),
        ("/cutsilently/x", picture(1), 2),
        ("/untyped/x", picture(3), 1),
        ("/storage/x", picture(4), 1),
    ],
)
def test_pictures_come_in_the_end(download, server, url, content, requests):
    code, files, _ = download({"x.png": url})
    assert (code, files) == (0, {"x.png": content})
    assert server.asked[url] == requests


def test_a_picture_longer_than_its_declared_length_is_not_kept(download):
    reason = reason_of(download, "/shortlength/x", "--attempts", "2")
    assert "damaged" in reason or "broke off" in reason or "not HTTP" in reason


def test_any_type_leaves_the_verdict_to_the_decoder(download):
    rows = {"good.png": "/pictureashtml/x", "bad.png": "/html/x"}
    _, files, failures = download(rows, "--any-type")
    assert files == {"good.png": picture(2)}
    assert "not a JPEG" in failures["bad.png"]


def test_a_few_redirects_are_followed(download):
    assert download({"x.png": "/hop/5/9.png"})[1] == {"x.png": picture(9)}


@pytest.mark.parametrize("url", ["/huge/x", "/endlesshead/x"])
def test_endless_answers_are_cut(download, server, url):
    began = time.monotonic()
    reason_of(download, url, "--max-bytes", "1000000", "--attempts", "1")
    assert time.monotonic() - began < 4
    assert server.sent < 50_000_000  # the system's buffers, not the disk


def test_an_endless_line_within_the_answer_meets_the_deadline_in_little_memory(download):
    process = psutil.Process()
    before = process.memory_info().rss
    reason = reason_of(download, "/endlesschunk/x", "--timeout", "1", "--attempts", "1")
    assert reason == "no whole answer within 1 s (1 attempts)"
    assert process.memory_info().rss - before < 50e6


def test_a_server_that_drips_meets_the_deadline_of_the_whole_answer(download):
    began = time.monotonic()
    reason = reason_of(download, "/drip/x", "--timeout", "0.4", "--attempts", "2")
    assert reason == "no whole answer within 0.4 s (2 attempts)"
    assert time.monotonic() - began < 3


@pytest.mark.parametrize(("url", "least"), [("/busy/1/x", 1.0), ("/busydate/x", 0.9)])
def test_retry_after_holds_back_the_host(download, server, url, least):
    _, files, _ = download({"x.png": url, "y.png": "/status/404/y"}, "--workers", "1")
    assert list(files) == ["x.png"]
    times = [when for path, when, _ in server.log if path == url]
    assert least <= times[1] - times[0] < 4
    others = [when for path, when, _ in server.log if path != url]
    assert others[0] - times[0] >= least


def test_max_wait_caps_what_a_server_asks_for(download):
    began = time.monotonic()
    _, files, _ = download({"x.png": "/busy/86400/x"}, "--max-wait", "0.2")
    assert list(files) == ["x.png"]
    assert 0.2 <= time.monotonic() - began < 3


@pytest.mark.parametrize("option", ["--host-rate", "--rate"])
def test_rates_are_kept_without_bursts(download, server, option):
    with serving("127.0.0.2") as other:
        places = [server.url, server.url if option == "--host-rate" else other.url]
        rows = {f"{k}.png": f"{places[k % 2]}/good/{k}.png" for k in range(8)}
        _, files, _ = download(rows, option, "40", "--allow-private")
        times = sorted(when for _, when, _ in server.log + other.log)
    assert len(files) == len(times) == 8
    assert times[-1] - times[0] >= 7 / 40 - 0.03
    assert times[4] - times[0] >= 4 / 40 - 0.03


def test_the_wait_doubles_from_one_attempt_to_the_next(download, server):
    words = ["--attempts", "4", "--backoff", "0.1"]
    assert "HTTP 500 (4 attempts)" in reason_of(download, "/status/500/x", *words)
    times = [when for path, when, _ in server.log if "500" in path]
    waits = [later - earlier for earlier, later in pairwise(times)]
    # Jitter adds at most the first wait; the rest allows for a slow machine.
    assert all(0.1 * 2**k <= wait < 0.1 * 2**k + 0.1 + 0.5 for k, wait in enumerate(waits))


def test_a_host_never_has_more_than_its_share_at_a_time(download, server):
    with serving("127.0.0.2") as other:
        places = [server.url, other.url]
        rows = {f"{k}.png": f"{places[k % 2]}/wait/{k}.png" for k in range(24)}
        words = ["--per-host", "2", "--workers", "3", "--allow-private"]
        assert len(download(rows, *words)[1]) == 24
        assert (server.most_active, other.most_active) == (2, 2)


def test_a_host_that_pauses_does_not_hold_back_the_others(download, server):
    with serving("127.0.0.2") as other:
        rows = {f"{k}.png": "/busy/1/x" if k == 0 else f"/good/{k}.png" for k in range(6)}
        rows |= {f"{k}.png": f"{other.url}/good/{k}.png" for k in range(6, 9)}
        _, files, _ = download(rows, "--workers", "1", "--allow-private")
        assert len(files) == 9
        asked = min(when for path, when, _ in server.log if "busy" in path)
        assert all(when - asked < 0.9 for _, when, _ in other.log)
        later = [when for _, when, _ in server.log if when > asked]
        assert min(later) - asked >= 1


def test_every_picture_comes_in_the_end_whatever_troubles_are_between(download, server):
    rows = {f"{k}.png": f"/again/{k % 4}/{k}.png" for k in range(60)}
    _, files, _ = download(rows, "--backoff", "0.001")
    assert files == {f"{k}.png": picture(k) for k in range(60)}
    assert {path: server.asked[path] for path in rows.values()} == {
        path: k % 4 + 1 for k, path in enumerate(rows.values())
    }


def test_private_addresses_are_refused_unless_allowed(download, server, capsys):
    port = server.server_port
    hosts = ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f.1", "[::1]"]
    hosts += ["0.0.0.0"]  # noqa: S104
    hosts += ["[::ffff:127.0.0.1]", "169.254.169.254", "10.0.0.1", "[64:ff9b::7f00:1]"]
    rows = {f"{k}.png": f"http://{host}:{port}/good/1.png" for k, host in enumerate(hosts)}
    code, files, failures = download(rows, "--attempts", "1", here=False)
    assert (code, files, len(failures)) == (2, {}, len(hosts))
    assert server.log == []
    assert "error: none of 11 pictures could be fetched" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("place", "reason"),
    [
        ("file:///etc/passwd", "redirected: scheme 'file' is not http or https"),
        ("ftp://127.0.0.1/x", "redirected: scheme 'ftp'"),
        ("http://user:word@127.0.0.1/x", "redirected: URL with a user name"),
        ("http://[::1/x", "redirected: not a URL"),
        ("mailto:me", "redirected: scheme 'mailto'"),
    ],
)
def test_redirects_to_other_schemes_are_refused(download, server, place, reason):
    server.places["/to/x"] = place
    assert reason in reason_of(download, "/to/x")


def test_redirect_to_another_private_address_is_refused(download, server):
    with serving("127.0.0.2") as other:
        server.places["/to/x"] = f"{other.url}/good/1.png"
        assert "not public address" in reason_of(download, "/to/x")
        assert other.log == []
        assert "x.png" in download({"x.png": "/to/x"}, "--allow-private")[1]


def test_unusable_rows_are_listed_and_the_others_fetched(download, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "into").mkdir()
    (tmp_path / "into" / "link").symlink_to(tmp_path / "outside")
    bad = ["../x.png", "/x.png", "a/../../x.png", "a\\b.png", "C:x.png", "nul.png", "link/x.png"]
    bad += ["failures.tsv", ".downloading/x.png", "a//b.png", "x" * 300, "a/."]
    rows = {path: "/good/1.png" for path in bad}
    rows |= {"ok.png": "/good/2.png", "file.png": "file:///etc/passwd", "none.png": "x.png"}
    code, files, failures = download(rows)
    assert (code, files) == (0, {"ok.png": picture(2)})
    assert sorted(failures) == sorted([*bad, "file.png", "none.png"])
    assert list((tmp_path / "outside").iterdir()) == []


def test_two_urls_for_one_path_are_a_failure_and_repeats_are_not(tmp_path, server):
    rows = [("a.png", f"{server.url}/good/{k}.png") for k in (1, 1, 2)]
    file = write_list(tmp_path, rows)
    assert main(["--list", str(file), "--into", str(tmp_path / "into"), *FAST, *HERE]) == 0
    assert files_in(tmp_path / "into") == {"a.png": picture(1)}
    assert failures_in(tmp_path / "into") == {"a.png": "line 2 has another URL for this path"}


def test_good_files_stay_and_damaged_ones_are_fetched_anew(download, server, tmp_path):
    into = tmp_path / "into"
    into.mkdir()
    (into / "1.png").write_bytes(picture(100))
    (into / "2.png").write_bytes(picture(100)[:200])
    (into / "3.png").write_bytes(b"")
    _, files, _ = download({f"{k}.png": f"/good/{k}.png" for k in (1, 2, 3)})
    assert files == {"1.png": picture(100), "2.png": picture(2), "3.png": picture(3)}
    assert sorted(server.asked) == ["/good/2.png", "/good/3.png"]


def test_resized_pictures_are_what_training_would_make(download, tmp_path):
    _, files, _ = download({"x.png": "/good/1.png", "y.jpg": "/good/1.png"}, "--resize", "10")
    (tmp_path / "source.png").write_bytes(picture(1))
    expected = decode_picture(tmp_path / "source.png", PictureSpec(10))
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(files["x.png"]))), expected)
    with Image.open(io.BytesIO(files["y.jpg"])) as image:
        assert (image.format, image.size) == ("JPEG", (10, 10))


def test_dry_run_asks_no_server(tmp_path, server, capsys):
    file = write_list(tmp_path, [("a.png", f"{server.url}/good/1.png"), ("../b", "x")])
    assert main(["--list", str(file), "--into", str(tmp_path / "into"), "--dry-run"]) == 0
    assert "1 would be fetched from 1 hosts, 1 rows are unusable" in capsys.readouterr().out
    assert server.log == []
    assert not (tmp_path / "into").exists()


@pytest.mark.parametrize(
    ("content", "words", "message"),
    [
        (b"a,b\n", [], "first line must be"),
        (b"path\turl\n", [], "no rows"),
        (b"path\turl\na\thttp://e.org/\n", ["--workers", "0"], "--workers is 0"),
        (b"path\turl\na\thttp://e.org/\n", ["--timeout", "nan"], "--timeout is nan"),
        (b"path\turl\na\thttp://e.org/\n", ["--contact", "a\nB: c"], "--contact"),
        (b"path\turl\na\thttp://e.org/\n", ["--allow-private", "x"], "--allow-private"),
        (b"path\turl\na.gif\thttp://e.org/\n", ["--resize", "9"], "must end in"),
        (b"x" * 100_000, [], "more than"),
    ],
)
def test_wrong_lists_and_options_give_one_line(tmp_path, capsys, content, words, message):
    (tmp_path / "list.tsv").write_bytes(content)
    place = ["--list", str(tmp_path / "list.tsv"), "--into", str(tmp_path / "into")]
    assert main([*place, *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1


def test_a_second_download_into_the_same_folder_is_refused(tmp_path, server, capsys):
    from recbole_cierec.dataset_converters.download.run import locked

    file = write_list(tmp_path, [("a.png", f"{server.url}/good/1.png")])
    with locked(tmp_path / "into"):
        assert main(["--list", str(file), "--into", str(tmp_path / "into"), *FAST, *HERE]) == 2
    assert "another download" in capsys.readouterr().err


def start(file: Path, into: Path) -> subprocess.Popen:
    """The command in a separate process."""
    words = ["--list", str(file), "--into", str(into), *FAST, *HERE, "--workers", "3"]
    return subprocess.Popen(
        [sys.executable, "-m", "recbole_cierec.dataset_converters", "images", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def is_temporary(path: str) -> bool:
    return Path(path).name.startswith((".downloading", ".recbole_cierec-"))


def wait_until_asked(server, count: int) -> None:
    deadline = time.monotonic() + 60
    while len(server.log) < count:
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_killed_and_run_again_it_ends_with_the_same_files(tmp_path, server):
    expected = {f"{k % 4}/{k}.png": picture(k) for k in range(60)}
    rows = [(path, f"{server.url}/wait/{path.split('/')[1]}") for path in expected]
    rows.append(("bad.png", f"{server.url}/status/404/x"))
    file, into = write_list(tmp_path, rows), tmp_path / "into"
    moments = [(random.randint(1, 18), random.uniform(0, 0.02)) for _ in range(3)]
    for asked, later in moments:
        server.log.clear()
        process = start(file, into)
        wait_until_asked(server, asked)
        time.sleep(later)
        process.kill()
        process.communicate()
        left = {p: b for p, b in files_in(into).items() if not is_temporary(p)}
        assert left.items() <= expected.items(), moments
    # Each time three of the requests may have been in progress, and one picture is missing.
    assert len(left) >= sum(asked for asked, _ in moments) - 3 * 4, moments
    assert main(["--list", str(file), "--into", str(into), *FAST, *HERE]) == 0
    assert files_in(into) == expected
    assert failures_in(into) == {"bad.png": "HTTP 404"}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_leave_only_whole_files(tmp_path, server, number, code):
    expected = {f"{k}.png": picture(k) for k in range(80)}
    file = write_list(tmp_path, [(path, f"{server.url}/wait/{path}") for path in expected])
    process = start(file, tmp_path / "into")
    wait_until_asked(server, 20)
    process.send_signal(number)
    _, error = process.communicate(timeout=30)
    assert process.returncode == code
    assert error == {143: "terminated\n", 130: "interrupted\n"}[code]
    files = files_in(tmp_path / "into")
    assert 0 < len(files) < 80
    assert files.items() <= expected.items()
