"""How every command ends: an exit code, and one line for an error of the user."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

from recbole_cierec.compat.optional_packages import lacking
from recbole_cierec.errors import ConfigError, UnknownKeyError, UserError, nearest
from recbole_cierec.terminal import one_line

USER_ERROR, INTERRUPTED, TERMINATED = 2, 128 + signal.SIGINT, 128 + signal.SIGTERM
BROKEN_PIPE = 128 + 13  # SIGPIPE, which not every system has


def _terminate(number: int, frame: FrameType | None) -> None:
    raise SystemExit(TERMINATED)


def run_command(
    job: Callable[[Sequence[str]], object],
    argv: Sequence[str] | None,
    usage: Callable[[], str],
) -> int:
    """Run ``job`` on a command line.

    Args:
        job: Takes the arguments without the program's name.
        argv: The arguments; None: those of the process.
        usage: The text for ``--help``.

    Returns:
        The exit code: 0; 2 for an error that the user can correct (one line on stderr); 130 after
        Ctrl-C; 141 if the reader of the output has ended (``| head``). SIGTERM raises
        ``SystemExit(143)``, so that files are closed.
    """
    argv = sys.argv[1:] if argv is None else argv
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        code = _run(job, argv, usage)
        sys.stdout.flush()  # here, and not at exit, where Python would print a traceback
        return code
    except BrokenPipeError:
        _discard_output()
        return BROKEN_PIPE
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def flags_of_command(names: Sequence[str]) -> Iterator[None]:
    """Within the block the error for an unknown key may name a flag of the command itself."""
    try:
        yield
    except UnknownKeyError as error:
        hint = nearest(error.key, names, cutoff=0.75)
        if not hint:
            raise
        raise ConfigError(f"command line: unknown flag --{error.key}{hint}") from error


@contextmanager
def continued_by(how: str) -> Iterator[None]:
    """Within the block Ctrl-C says how the work goes on."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"continue by {how}") from None


def _run(
    job: Callable[[Sequence[str]], object], argv: Sequence[str], usage: Callable[[], str]
) -> int:
    try:
        if any(word in ("-h", "--help") for word in argv):
            print(usage())
        else:
            job(argv)
    except UserError as error:
        return _refused(str(error))
    except ImportError as error:
        if (line := lacking(error)) is None:
            raise
        return _refused(f"this {line}")
    except (MemoryError, RuntimeError) as error:
        if not _lacks_memory(error):
            raise
        return _refused(
            "not enough memory; lower train_batch_size, eval_batch_size or the model's sizes"
        )
    except KeyboardInterrupt as error:
        hints = [hint for hint in error.args if isinstance(hint, str)]
        print("; ".join(["interrupted", *hints]), file=sys.stderr)
        return INTERRUPTED
    except SystemExit as end:
        if end.code == TERMINATED:
            print("terminated", file=sys.stderr)
        raise
    return 0


def _refused(line: str) -> int:
    print(f"error: {one_line(line)}", file=sys.stderr)
    return USER_ERROR


def _lacks_memory(error: Exception) -> bool:
    """By name, since importing torch takes seconds; it has an error class for GPUs only."""
    gpu = type(error).__name__ == "OutOfMemoryError"
    return gpu or isinstance(error, MemoryError) or "can't allocate memory" in str(error)


def _discard_output() -> None:
    """Discard what is still buffered: Python flushes again when it exits."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # a stream without a file, as in a notebook
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
