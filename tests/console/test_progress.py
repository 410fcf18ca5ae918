"""Progress bars are drawn on a terminal, leave no trace, and lines appear above them."""

from __future__ import annotations

import os
import re
import struct
import sys
import threading

import pytest

from recbole_cierec import run

pty = pytest.importorskip("pty", reason="needs pseudo-terminals")
fcntl, termios = pytest.importorskip("fcntl"), pytest.importorskip("termios")


@pytest.fixture
def on_terminal(bare, monkeypatch):
    """``on_terminal(job)`` -> what the job writes to stderr, a pseudo-terminal."""

    def watch(job) -> str:
        host, terminal = pty.openpty()
        size = struct.pack("HHHH", 24, 100, 0, 0)  # rows, columns
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, size)
        parts = []

        def read() -> None:
            try:
                while part := os.read(host, 4096):
                    parts.append(part)
            except OSError:  # the terminal is closed
                pass

        reader = threading.Thread(target=read)
        reader.start()
        with os.fdopen(terminal, "w") as stream:
            monkeypatch.setattr(sys, "stderr", stream)
            with bare():
                job()
        reader.join(timeout=10)
        os.close(host)
        return b"".join(parts).decode()

    return watch


def screen(text: str) -> list[str]:
    """The lines that remain visible: a carriage return overwrites the line."""
    lines = []
    for line in text.split("\n"):
        shown = ""
        for part in line.removesuffix("\r").split("\r"):
            part = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", part)
            shown = part + shown[len(part) :]
        lines.append(shown.rstrip())
    return lines


def test_bars_of_training_decoding_and_evaluation_vanish(on_terminal, pictured):
    keys = pictured(state="info", train_batch_size=8)
    del keys["show_progress"]
    text = on_terminal(lambda: run("VBPR", "tiny", config_dict=keys))
    for title in ("epoch 1/2: ", "evaluate: ", "Encode pictures with squeezenet1_1: "):
        assert f"\r{title}" in text
    left = [line for line in screen(text) if line]
    assert [line.split()[1] for line in left if line.startswith("epoch")] == ["1/2", "2/2"]
    assert not any("batch/s" in line or "%|" in line for line in left)


def test_no_bars_where_stderr_is_no_terminal(bare, tiny, capsys):
    keys = tiny(state="info")
    del keys["show_progress"]
    with bare():
        run("BPR", "tiny", config_dict=keys)
    err = capsys.readouterr().err
    assert "\r" not in err
    assert "\x1b" not in err
