"""One process works while the others wait, or all where a disk has no locks."""

from __future__ import annotations

import subprocess
import sys

import pytest
from filelock import FileLock, Timeout

from recbole_cierec.errors import OutputError
from recbole_cierec.files import locks
from recbole_cierec.files.leftovers import TEMPORARY, clear_leftovers
from recbole_cierec.files.locks import can_lock, locked, one_builder

HOLDER = """
import sys, time
from pathlib import Path
from recbole_cierec.files.locks import one_builder
with one_builder(Path(sys.argv[1])):
    print("building", flush=True)
    time.sleep(60)
"""
NO_LOCKS = [OSError(37, "No locks"), NotImplementedError(), Timeout("x")]


def refusing(error):
    def acquire(self, timeout):
        raise error

    return acquire


def test_a_disk_is_asked_whether_it_has_locks(tmp_path, monkeypatch):
    assert can_lock(tmp_path)
    monkeypatch.setattr(FileLock, "acquire", refusing(NotImplementedError("no flock")))
    assert not can_lock(tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_lock_is_free_again_after_an_error(tmp_path):
    path = tmp_path / "x.lock"

    def work():
        with locked(path) as mine, locked(path) as too:
            assert (mine, too) == (True, False)
            raise KeyError

    with pytest.raises(KeyError):
        work()
    with locked(path) as again:
        assert again


@pytest.mark.parametrize("error", NO_LOCKS, ids=lambda error: type(error).__name__)
def test_a_disk_without_locks_keeps_nobody_from_work(tmp_path, monkeypatch, error):
    monkeypatch.setattr(FileLock, "acquire", refusing(error))
    with locked(tmp_path / "x.lock") as one, one_builder(tmp_path / "x") as waited:
        assert one
        assert not waited
    assert not list(tmp_path.iterdir())


def test_the_lock_of_another_user_keeps_nobody_from_building(tmp_path, monkeypatch):
    monkeypatch.setattr(FileLock, "acquire", refusing(PermissionError(13, "Permission denied")))
    with one_builder(tmp_path / "x") as waited:
        assert not waited
    with pytest.raises(OutputError, match="Permission denied"), locked(tmp_path / "x.lock"):
        pass


def test_who_waits_for_a_builder_says_so_and_goes_on_when_it_is_killed(tmp_path, monkeypatch):
    final, messages = tmp_path / "features-1", []

    def kill_and_keep(text, *values):
        messages.append(text % values)
        builder.kill()

    command = [sys.executable, "-c", HOLDER, str(final)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as builder:
        assert builder.stdout.readline() == "building\n"
        clear_leftovers(tmp_path, TEMPORARY)  # does not take the lock for a leftover
        monkeypatch.setattr(locks.CONSOLE, "info", kill_and_keep)
        with one_builder(final) as waited:
            assert waited
    assert messages == [f"Waiting for another process that builds {final}"]
    assert not list(tmp_path.iterdir())


def test_a_builder_that_comes_alone_does_not_wait(tmp_path):
    for _ in range(2):
        with one_builder(tmp_path / "features-1") as waited:
            assert not waited
            assert [path.name for path in tmp_path.iterdir()] == [f"{TEMPORARY}features-1.lock"]
    assert not list(tmp_path.iterdir())
