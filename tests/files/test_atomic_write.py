"""Files are replaced completely or not at all, and foreign files are never replaced."""

from __future__ import annotations

import os
import socket
import stat

import pytest

from recbole_cierec.errors import DataError, OutputError, UserError
from recbole_cierec.files.atomic_write import check_folder, check_output, replace, replacing


def write(file, text="new", **options):
    with replacing(file, **options) as stream:
        stream.write(text.encode())


def make(path, kind):
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(os.path.relpath(path))


def rename_over(file):
    source = file.with_name("source")
    source.write_text("new")
    try:
        replace(source, file)
    finally:
        source.unlink()


@pytest.mark.parametrize("kind", ["folder", "pipe", "socket"])
@pytest.mark.parametrize("linked", [False, True])
@pytest.mark.parametrize("act", [write, check_output, rename_over])
def test_only_a_regular_file_is_replaced(tmp_path, kind, linked, act):
    make(tmp_path / "real", kind)
    file = tmp_path / "real"
    if linked:
        file = tmp_path / "link"
        file.symlink_to(tmp_path / "real")
    before = os.lstat(tmp_path / "real"), sorted(os.listdir(tmp_path))
    with pytest.raises(OutputError, match=f"{file.name}: .*it is a {kind}") as caught:
        act(file)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, UserError)
    after = os.lstat(tmp_path / "real"), sorted(os.listdir(tmp_path))
    assert (before[0].st_ino, before[0].st_mode, before[1]) == (
        after[0].st_ino,
        after[0].st_mode,
        after[1],
    )


@pytest.mark.parametrize("there", [True, False])
def test_a_link_is_followed(tmp_path, there):
    (tmp_path / "disk").mkdir()
    if there:
        (tmp_path / "disk" / "real").write_text("old")
    (tmp_path / "link").symlink_to("disk/real")
    check_output(tmp_path / "link")
    write(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "disk" / "real").read_text() == "new"
    assert sorted(os.listdir(tmp_path / "disk")) == ["real"]


def test_a_file_that_the_check_does_not_know_stays(tmp_path):
    file = tmp_path / "notes"
    file.write_text("of somebody else")

    def ours(path):
        if path.read_text() != "ours":
            raise DataError(f"{path}: not ours")

    for act in (write, check_output):
        with pytest.raises(DataError, match="notes: not ours"):
            act(file, check=ours)
    assert file.read_text() == "of somebody else"
    file.write_text("ours")
    write(file, check=ours)
    write(tmp_path / "absent", check=ours)
    assert file.read_text() == (tmp_path / "absent").read_text() == "new"


@pytest.mark.parametrize("linked", [False, True])
def test_what_a_command_reads_is_no_output(tmp_path, linked):
    file, output = tmp_path / "read", tmp_path / ("link" if linked else "read")
    file.write_text("read")
    if linked:
        output.symlink_to(file)
    with pytest.raises(OutputError, match=r"\(this command reads it\); choose another file"):
        check_output(output, inputs=(None, tmp_path / "absent", file))
    check_output(tmp_path / "other", inputs=(file,))
    assert file.read_text() == "read"


def test_a_file_in_the_place_of_a_folder_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"file: .*\(it is a file\); give a folder"):
        check_folder(tmp_path / "file")
    for place in (tmp_path, tmp_path / "absent"):
        check_folder(place)


def interrupt(file):
    with replacing(file) as stream:
        stream.write(b"half")
        raise KeyboardInterrupt


def test_an_interrupted_file_is_the_old_one(tmp_path):
    file = tmp_path / "deep" / "file"
    write(file, "old")
    with pytest.raises(KeyboardInterrupt):
        interrupt(file)
    assert file.read_text() == "old"
    assert os.listdir(file.parent) == ["file"]
    assert stat.S_IMODE(file.stat().st_mode) & 0o444


@pytest.mark.parametrize(
    ("name", "words"),
    [("taken/file", "Not a directory|File exists"), ("x" * 300, "too long"), ("a\0b", "this name")],
)
@pytest.mark.parametrize("act", [write, check_output])
def test_an_impossible_place_is_one_line(tmp_path, name, words, act):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(OutputError, match=words) as caught:
        act(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert os.listdir(tmp_path) == ["taken"]


def test_a_full_disk_is_one_line_and_leaves_the_old_file(tmp_path, monkeypatch):
    file = tmp_path / "file"
    write(file, "old")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"file: cannot be written \(No space left on device\)"):
        write(file)
    assert file.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]
