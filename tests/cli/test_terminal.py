"""Terminal and log get one line of text for any input."""

from __future__ import annotations

import io
import logging
import subprocess
import sys

import pytest
import torch

from recbole_cierec import logs
from recbole_cierec.__main__ import main
from recbole_cierec.cli.exit_codes import run_command
from recbole_cierec.errors import DataError
from recbole_cierec.terminal import one_line, printable

ESCAPE = "\x1b]0;title\x07"  # a terminal would take it as its title


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Küche 料理 😀", "Küche 料理 😀"),
        ("a\x1b[31mb", r"a\x1b[31mb"),
        ("a\x9b31mb", r"a\x9b31mb"),  # the same in one byte
        ("a\x00b\x7f", r"a\x00b\x7f"),
        ("abc\u202etxt.exe", r"abc\u202etxt.exe"),  # would be read from right to left
        ("a\udcff", r"a\udcff"),  # of a file name that is not UTF-8; it cannot be printed
    ],
)
def test_control_characters_are_shown(text, shown):
    assert printable(text) == one_line(text) == shown


def test_line_breaks_stay_in_text_and_are_shown_in_a_line():
    assert printable("a\n\tb\rc") == "a\n\tb\\rc"
    assert one_line("a\n\tb\u2028c") == r"a\n\tb\u2028c"


@pytest.mark.parametrize(
    "flag",
    [
        f"--dataset=x{ESCAPE}",
        f"--model={ESCAPE}",
        f"--{ESCAPE}=1",
        f"--epochs={ESCAPE}",
        f"--config_files=no{ESCAPE}.yaml",
        f"--resume=nowhere/{ESCAPE}",
        "--dataset=a\nb",
    ],
)
def test_an_error_is_one_line_whatever_the_arguments_hold(tiny, flag, capsys):
    given = {f"--{k}": str(v) for k, v in {"model": "MF", "dataset": "tiny", **tiny()}.items()}
    given |= dict([flag.split("=", 1)])
    assert main([f"{key}={value}" for key, value in given.items()]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("error: ")
    assert "\x1b" not in said


@pytest.mark.parametrize("colored", [False, True])
def test_a_message_cannot_send_codes_through_the_log(colored, monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(logs, "wants_color", lambda _: colored)
    formatter = logs._stream_formatter(stream, "%(levelname)s  %(message)s")
    record = logging.LogRecord("x", logging.WARNING, "", 0, "%s is bad", (ESCAPE,), None)
    line = formatter.format(record)
    assert r"\x1b]0;title\x07 is bad" in line
    assert ("\x1b[33m" in line) == colored  # of the level, in a terminal
    assert "\x1b]" not in line


@pytest.mark.parametrize("words", [[], ["compare"]])
def test_a_reader_that_has_gone_ends_the_command_without_a_trace(words):
    command = [sys.executable, "-m", "recbole_cierec", *words, "--help"]
    done = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    done.stdout.close()
    with done.stderr:
        assert done.stderr.read() == ""
    assert done.wait() == 141


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB."),
        RuntimeError("[enforce fail at alloc_cpu.cpp:118] err == 0. can't allocate memory: ..."),
    ],
)
def test_too_little_memory_is_one_line(error, capsys):
    def job(_):
        raise error

    assert run_command(job, [], str) == 2
    assert capsys.readouterr().err.startswith("error: not enough memory; lower train_batch_size")


def test_other_errors_of_torch_keep_their_trace():
    def job(_):
        raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes"):
        run_command(job, [], str)


def test_an_error_of_several_lines_is_one(capsys):
    def job(_):
        raise DataError("a\nb")

    assert run_command(job, [], str) == 2
    assert capsys.readouterr().err == "error: a\\nb\n"
