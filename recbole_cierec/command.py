"""How every command of this package ends: one line and a code, whatever the user gave it."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType

from recbole_cierec.errors import UserError

_OWN_PACKAGES = {"recbole", "recbole_cierec"}
USER_ERROR, INTERRUPTED, TERMINATED = 2, 128 + signal.SIGINT, 128 + signal.SIGTERM


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
        The exit code: 0, 2 for an error that the user can mend (its line goes to stderr), 130
        after Ctrl-C. SIGTERM raises ``SystemExit(143)``, so that files are closed on the way out.
    """
    argv = sys.argv[1:] if argv is None else argv
    if any(word in ("-h", "--help") for word in argv):
        print(usage())
        return 0
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        job(argv)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    except ModuleNotFoundError as error:  # some of RecBole's models import what they need late
        if not error.name or error.name.split(".")[0] in _OWN_PACKAGES:
            raise
        print(f"error: this needs the package {error.name}; install it", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return INTERRUPTED
    except SystemExit as end:
        if end.code == TERMINATED:
            print("terminated", file=sys.stderr)
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0
