"""Starts the server: port first, then the models, then uvicorn."""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import Mapping, Sequence
from contextlib import suppress
from ctypes import CDLL
from ipaddress import ip_address
from logging import getLogger
from pathlib import Path

import psutil

from recbole_cierec.compat.optional_packages import require
from recbole_cierec.errors import ConfigError
from recbole_cierec.terminal import reason, say

LOCAL = ("127.0.0.1", "localhost", "[::1]", "::1")
WAITS = 1  # seconds for answers under way, after Ctrl-C
BACKLOG = 256
_NEEDED = (("fastapi", "FastAPI"), ("uvicorn", "Server"), ("python_multipart", "__version__"))


def serve(
    checkpoints: Sequence[str | os.PathLike[str]],
    host: str = "127.0.0.1",
    port: int = 8000,
    allowed_hosts: Sequence[str] = (),
    cmd_line: Mapping[str, str] | None = None,
) -> None:
    """Serve models until Ctrl-C.

    Args:
        checkpoints: One or more.
        host: Address to listen on; others than this machine can reach any but 127.0.0.1.
        port: 0: a free one.
        allowed_hosts: Further names by which browsers reach the server.
        cmd_line: Keys over those of the runs, as texts.

    Raises:
        UserError: A package or checkpoint is missing, the port is in use, or a checkpoint cannot be
            used.
    """
    for module, name in _NEEDED:
        require(module, name, "serve (pip install 'recbole-cierec[serve]')")
    for path in map(Path, checkpoints):
        if not path.is_file():
            raise ConfigError(f"{path}: not found; name checkpoints, as saved/MODEL-TIME.pth")
    with listening(host, port) as listener:
        address, port = listener.getsockname()[:2]
        if not ip_address(address).is_loopback:
            getLogger().warning(
                f"listening on {address}: whoever reaches this machine can use it, and no "
                "password is asked; --host=127.0.0.1 is for this machine alone"
            )
        _run(listener, checkpoints, [*_hosts(host, address), *allowed_hosts], cmd_line)


def _run(
    listener: socket.socket,
    checkpoints: Sequence[str | os.PathLike[str]],
    hosts: Sequence[str],
    cmd_line: Mapping[str, str] | None,
) -> None:
    import uvicorn

    from recbole_cierec.serving.trained import load_trained
    from recbole_cierec.serving.web.app import make_app
    from recbole_cierec.serving.web.served import ServedModel

    models: list[ServedModel] = []
    for path in map(Path, checkpoints):
        trained = load_trained(path, None, cmd_line)
        same = sum(model.trained.name == trained.name for model in models)
        models.append(ServedModel(f"{trained.name}-{same + 1}" if same else trained.name, trained))
        models[-1].warm_up()
    _settle()
    config = uvicorn.Config(
        make_app(models, hosts),
        log_config=None,
        access_log=False,
        server_header=False,
        lifespan="on",
        ws="none",
        timeout_graceful_shutdown=WAITS,
    )
    address, port = listener.getsockname()[:2]
    shown = f"[{address}]" if ":" in address else address
    say(f"serving {', '.join(m.name for m in models)} at http://{shown}:{port} (Ctrl-C ends)")
    uvicorn.Server(config).run([listener])


def _settle() -> None:
    """Give memory of loading back, and leave what now exists out of garbage collections: it lives
    as long as the process, whose end is quick then."""
    gc.collect()
    gc.freeze()
    with suppress(OSError, AttributeError):  # other C libraries have no malloc_trim
        CDLL(None).malloc_trim(0)


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 is a free one.

    Raises:
        ConfigError: The port is in use, or the address is not one of this machine.
    """
    if port > 65535:
        raise ConfigError(f"--port={port}: ports go up to 65535")
    try:
        (family, kind, protocol, _, address), *_ = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        listener = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError, OverflowError) as error:
        raise ConfigError(f"--host={host}: is no address ({reason(error)})") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        listener.close()
        why = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"--host={host} --port={port}: cannot listen there ({why.lower()}); "
            "choose another port, or 0 for a free one"
        ) from error
    return listener


def _hosts(host: str, address: str) -> list[str]:
    """Names of this server that a browser may use."""
    names = [*LOCAL, host, address]
    if ip_address(address).is_unspecified:
        found = [a.address for each in psutil.net_if_addrs().values() for a in each]
        names += [socket.gethostname(), socket.getfqdn(), *found]
    return list(dict.fromkeys(name.lower() for name in names if name and "*" not in name))
