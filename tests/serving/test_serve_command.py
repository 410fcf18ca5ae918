"""The command `serve`: what it refuses, how it starts and ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from recbole_cierec.__main__ import main
from recbole_cierec.errors import ConfigError
from recbole_cierec.serving.web import server

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def checkpoint(in_tmp):
    Path("a.pth").write_bytes(b"no checkpoint")
    return "a.pth"


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "name the checkpoint first"),
        (["--port=1"], "name the checkpoint first"),
        (["b.pth"], "b.pth: not found"),
        (["a.pth", "b.pth"], "b.pth: not found"),
        (["a.pth", "--port=many"], "--port must be a whole number"),
        (["a.pth", "--port=-1"], "--port must be 0 or more, not -1"),
        (["a.pth", "--hots=x"], "unknown flag --hots; did you mean 'host'?"),
        (["a.pth", "--port=99999"], "ports go up to 65535"),
        (["a.pth", "--host=256.0.0.1"], "is no address"),
        (["a.pth", "--host=192.0.2.1", "--port=0"], "cannot listen there"),
        (["a.pth", "--port=0"], "a.pth"),
    ],
)
def test_what_it_cannot_serve_is_one_line(checkpoint, capsys, flags, said):
    assert main(["serve", *flags]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_port_in_use_is_one_line_before_any_model_is_read(checkpoint, capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert main(["serve", checkpoint, f"--port={port}"]) == 2
    assert "address already in use" in capsys.readouterr().err


@pytest.mark.parametrize("module", ["fastapi", "uvicorn", "python_multipart"])
def test_a_missing_package_is_one_line(checkpoint, monkeypatch, capsys, module):
    monkeypatch.setitem(sys.modules, module, None)
    assert main(["serve", checkpoint]) == 2
    error = capsys.readouterr().err
    assert "pip install 'recbole-cierec[serve]'" in error
    assert module.replace("_", "-") in error
    assert error.count("\n") == 1


def test_other_addresses_than_the_loopback_are_warned_of(checkpoint, monkeypatch, caplog):
    hosts = []
    monkeypatch.setattr(server, "_run", lambda listener, paths, names, keys: hosts.extend(names))
    server.serve([checkpoint], host="127.0.0.1", port=0)
    assert set(hosts) == set(server.LOCAL)
    assert not caplog.records
    server.serve([checkpoint], host="0.0.0.0", port=0, allowed_hosts=["me.example"])  # noqa: S104
    assert "no password" in caplog.text
    assert {"me.example", socket.gethostname().lower(), "127.0.0.1"} <= set(hosts)
    assert "*" not in hosts


def test_listening_twice_is_refused():
    with server.listening("localhost", 0) as first:
        with pytest.raises(ConfigError, match="choose another port"):
            server.listening("127.0.0.1", first.getsockname()[1])


@pytest.mark.slow
def test_it_serves_two_models_and_ends_with_ctrl_c(world):
    command = [sys.executable, "-m", "recbole_cierec", "serve"]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [*command, world.content, world.content, "--port=0"],
        cwd=world.folder,
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        line = process.stdout.readline()
        assert line.startswith("serving MF_Content, MF_Content-2 at http://127.0.0.1:")
        with httpx.Client(base_url=line.split(" at ")[1].split()[0]) as browser:  # stays connected
            assert browser.get("/api/health").json()["models"] == 2
            began = time.perf_counter()
            process.send_signal(signal.SIGINT)
            _, error = process.communicate(timeout=20)
        assert process.returncode == 130
        assert error == "interrupted\n"
        assert time.perf_counter() - began < 10  # below 1 s on an idle machine
    finally:
        process.kill()
        process.wait()
