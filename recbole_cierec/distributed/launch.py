"""Starts the processes of a run, or joins those that torchrun has started."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping
from typing import Any

from recbole_cierec import errors
from recbole_cierec.errors import ConfigError, UserError

LAUNCH = ("nproc", "world_size", "ip", "port", "group_offset")  # flags that launch takes

_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")
_POLL_SECONDS = 1.0
# Of a run, or of its loader, on this machine: more can only be a mistake, and would exhaust it.
MOST_PROCESSES = max(16, 4 * (os.cpu_count() or 1))


def torchrun_keys(environ: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """RecBole's keys for this process of torchrun; empty if torchrun did not start it."""
    if not all(name in environ for name in _TORCHRUN):
        return {}
    local_rank = int(environ["LOCAL_RANK"])
    world_size = int(environ["WORLD_SIZE"])
    return {
        "local_rank": local_rank,
        "offset": int(environ["RANK"]) - local_rank,
        "world_size": world_size,
        "nproc": int(environ.get("LOCAL_WORLD_SIZE", world_size)),
        "ip": environ["MASTER_ADDR"],
        "port": environ["MASTER_PORT"],
    }


def choose_port(port: str | int, *, alone: bool) -> str:
    """The port of the process group: the given one, or a free one if it is taken.

    Args:
        port: The requested port.
        alone: Whether all processes run on this machine; else other machines use the same port.

    Raises:
        ConfigError: It is no port.
    """
    try:
        number = int(port)
        if number < 1:
            raise ValueError("port 0 would be another one for each process")
        with socket.socket() as probe:
            probe.bind(("", number))
        return str(number)
    except (ValueError, OverflowError) as error:
        raise ConfigError(f"port '{port}' is not a number from 1 to 65535") from error
    except OSError:
        if not alone:
            return str(port)  # the first machine may be using it already
    with socket.socket() as probe:
        probe.bind(("", 0))
        return str(probe.getsockname()[1])


def launch(
    job: Any,
    arguments: dict[str, Any],
    nproc: int,
    world_size: int,
    ip: str,
    port: str | int,
    group_offset: int,
) -> Any:
    """Run a job in this process, which torchrun may have started, or in new ones.

    Args:
        job: A function of the package. Its argument ``config_dict`` goes to the configuration,
            which joins the process group.
        arguments: Its keyword arguments.
        nproc: Processes on this machine.
        world_size: Processes on all machines; 0 or less: ``nproc``.
        ip: The address of the first machine.
        port: Its port.
        group_offset: The rank of this machine's first process.

    Returns:
        The job's result; None on a machine without the first process.

    Raises:
        ConfigError: ``nproc`` far exceeds the processors of this machine.
    """
    if nproc > MOST_PROCESSES:
        raise ConfigError(f"nproc must be {MOST_PROCESSES} or less on this machine, not {nproc}")
    joined = torchrun_keys()
    if joined:
        arguments = {**arguments, "config_dict": {**arguments["config_dict"], **joined}}
    elif nproc > 1 or world_size > 1:
        world_size = nproc if world_size <= 0 else world_size
        keys = {"world_size": world_size, "nproc": nproc, "ip": ip, "offset": group_offset}
        keys["port"] = choose_port(port, alone=world_size == nproc)
        return spawn(job, arguments, keys)
    return run_and_leave(job, arguments)


def run_and_leave(job: Any, arguments: dict[str, Any]) -> Any:
    """Run a job, then leave the process group that it may have joined."""
    try:
        return job(**arguments)
    finally:
        _leave()


def _leave() -> None:
    import torch

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def spawn(job: Any, arguments: dict[str, Any], keys: dict[str, Any]) -> dict[str, Any] | None:
    """Run a job in ``keys['nproc']`` new processes and wait for them.

    Args:
        job: A function of the package that takes ``arguments`` and returns a result.
        arguments: Its keyword arguments; ``config_dict`` gets the keys of each process.
        keys: ``world_size``, ``ip``, ``port``, ``nproc`` and ``offset``.

    Returns:
        The result of the first process; None on the other machines.

    Raises:
        UserError: The first that a process raised, as an error of the same class.
    """
    import torch.multiprocessing as mp

    queue = mp.get_context("spawn").SimpleQueue()
    arguments = {**arguments, "config_dict": {**(arguments["config_dict"] or {}), **keys}}
    context = mp.spawn(_child, (job, arguments, queue), nprocs=keys["nproc"], join=False)
    messages: list[tuple[str, Any]] = []
    try:
        while not context.join(_POLL_SECONDS):
            _drain(queue, messages)  # a full pipe would block the child
    except (mp.ProcessExitedException, mp.ProcessRaisedException):
        # When one process stops on an error, others fail because it is gone, and may end first. By
        # then its error is in the queue.
        _drain(queue, messages)
        for kind, message in messages:
            if kind != "result":
                raise error_of(kind, message) from None
        raise
    finally:
        for process in context.processes:  # after SIGTERM or Ctrl-C they would run on
            process.terminate()
    _drain(queue, messages)
    return next((message for kind, message in messages if kind == "result"), None)


def message_of(error: UserError) -> tuple[str, str]:
    """The class name and the text of an error, to be sent to another process."""
    # A PictureError or OutputError is made of a path and a reason; its text suffices.
    whole = type(error) not in (errors.PictureError, errors.OutputError)
    return type(error).__name__ if whole else "DataError", str(error)


def error_of(kind: str, text: str) -> UserError:
    """The error that :func:`message_of` was called with."""
    return getattr(errors, kind, UserError)(text)


def _drain(queue: Any, messages: list[tuple[str, Any]]) -> None:
    while not queue.empty():
        messages.append(queue.get())


def _child(rank: int, job: Any, arguments: dict[str, Any], queue: Any) -> None:
    arguments["config_dict"]["local_rank"] = rank
    try:
        result = job(**arguments)
    except UserError as error:
        queue.put(message_of(error))  # before leaving the group, which makes the others fail
        sys.exit(2)
    finally:
        _leave()
    if rank == 0 and arguments["config_dict"]["offset"] == 0:
        queue.put(("result", result))
