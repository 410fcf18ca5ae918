"""Leftovers of killed processes are removed at once; files in progress stay."""

from __future__ import annotations

import errno
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recbole_cierec.files import leftovers
from recbole_cierec.files.leftovers import FILE_SUFFIX, TEMPORARY, claimed, clear_leftovers

BUILDER = """
import sys
from pathlib import Path
from recbole_cierec.files.leftovers import claimed
folder = Path(sys.argv[1])
with claimed(folder) as building, claimed(folder, suffix=".tmp") as writing:
    building.mkdir()
    (building / "half").write_text("half")
    writing.write_text("half")
    print("ready", flush=True)
    sys.stdin.read()
"""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_leftovers_are_told_from_work_by_whether_the_process_lives(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", BUILDER, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout.readline() == b"ready\n"
    at_work = names(tmp_path)
    assert len(at_work) == 4  # a folder, a file and their locks
    year_ago = time.time() - 365 * 86400
    for path in [*tmp_path.rglob("*")]:
        os.utime(path, (year_ago, year_ago))
    clear_leftovers(tmp_path, TEMPORARY)
    assert names(tmp_path) == at_work
    process.kill()
    process.communicate()
    clear_leftovers(tmp_path, "another-prefix-")
    assert names(tmp_path) == at_work
    clear_leftovers(tmp_path, TEMPORARY)
    assert names(tmp_path) == []


def fail_in(folder: Path) -> None:
    with claimed(folder, suffix=FILE_SUFFIX) as writing:
        writing.write_text("half")
        raise ZeroDivisionError


def test_nothing_is_left_of_work_that_ends_or_fails(tmp_path):
    with claimed(tmp_path) as building:
        building.mkdir()
        (building / "x").write_text("half")
    with pytest.raises(ZeroDivisionError):
        fail_in(tmp_path)
    assert names(tmp_path) == []


def test_a_forked_child_neither_clears_nor_releases_what_its_parent_works_on(tmp_path):
    with claimed(tmp_path) as building:
        building.mkdir()
        before = names(tmp_path)
        for act in (lambda: clear_leftovers(tmp_path, TEMPORARY), lambda: 1 / 0):
            child = multiprocessing.get_context("fork").Process(target=leave, args=(act,))
            child.start()
            child.join()
            clear_leftovers(tmp_path, TEMPORARY)
            assert names(tmp_path) == before


def leave(act) -> None:
    sys.stderr = open(os.devnull, "w")
    act()


def test_only_files_and_folders_with_our_names_are_cleared(tmp_path, monkeypatch):
    dead = f"{TEMPORARY}0123456789ab"
    others = {f"{TEMPORARY}notes", f"{TEMPORARY}notes.tmp", "0123456789ab", f"{dead[:-1]}.tmp"}
    for name in others:
        (tmp_path / name).write_text("of somebody else")
    (tmp_path / f"{TEMPORARY}folder").mkdir()
    (tmp_path / dead).write_text("a sign, not an unfinished file")
    os.mkfifo(tmp_path / f"{dead[:-1]}c.tmp")
    (tmp_path / f"{dead[:-1]}d").symlink_to(tmp_path)
    with socket.socket(socket.AF_UNIX) as bound:
        monkeypatch.chdir(tmp_path)  # the path of a socket has at most 108 bytes
        bound.bind(f"{dead[:-1]}e.tmp")
    kept = names(tmp_path)
    (tmp_path / f"{dead[:-1]}f.tmp").write_text("half")
    (tmp_path / f"{dead[:-1]}f.old").mkdir()
    (tmp_path / f"{dead[:-1]}f.lock").touch()
    clear_leftovers(tmp_path, TEMPORARY)
    assert names(tmp_path) == kept


def build_and_clear(folder: Path, times: int, lost) -> None:
    for _ in range(times):
        with claimed(folder) as building:
            building.mkdir()
            (building / "x").write_text("whole")
            clear_leftovers(folder, TEMPORARY)
            if not (building / "x").exists():
                lost.put(building.name)


def test_processes_that_build_and_clear_at_once_lose_nothing(tmp_path):
    context = multiprocessing.get_context("fork")
    lost = context.SimpleQueue()
    rivals = [context.Process(target=build_and_clear, args=(tmp_path, 100, lost)) for _ in range(4)]
    for rival in rivals:
        rival.start()
    for rival in rivals:
        rival.join()
    assert [rival.exitcode for rival in rivals] == [0] * 4
    assert lost.empty()
    assert names(tmp_path) == []


def test_a_lock_that_another_process_clears_before_it_is_taken_is_replaced(tmp_path, monkeypatch):
    acquire, stolen = leftovers.FileLock.acquire, []

    def late(lock, *args, **options):
        taken = acquire(lock, *args, **options)
        if not stolen:
            stolen.append(lock.lock_file)
            os.unlink(lock.lock_file)
        return taken

    monkeypatch.setattr(leftovers.FileLock, "acquire", late)
    with claimed(tmp_path) as building:
        assert not stolen[0].startswith(str(building))
        assert names(tmp_path) == [f"{building.name}.lock"]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
@pytest.mark.filterwarnings("ignore:flock not supported")
def test_where_locks_do_not_work_nothing_is_cleared(tmp_path, monkeypatch, number):
    fcntl = pytest.importorskip("fcntl")

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with claimed(tmp_path) as building:
        building.mkdir()
        clear_leftovers(tmp_path, TEMPORARY)
        assert building.is_dir()
    assert names(tmp_path) == []
