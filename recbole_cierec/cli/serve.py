"""A page and a JSON API over checkpoints: ``python -m recbole_cierec serve --help``."""

from __future__ import annotations

from collections.abc import Sequence

from recbole_cierec.cli.exit_codes import run_command
from recbole_cierec.cli.recommend import split_flags
from recbole_cierec.logs import warnings_on_terminal

USAGE = """\
usage: python -m recbole_cierec serve CHECKPOINT [CHECKPOINT2 ...] [--port=8000] [--key=value ...]

Serves trained models to a browser and to programs, on this machine: a page with the lists of users
and a place to drop a new picture, and a JSON API (/openapi.json). Two models are compared side by
side. Needs the extra serve: pip install 'recbole-cierec[serve]'.

  --port=N            port (default: 8000; 0: a free one)
  --host=ADDRESS      where to listen (default: 127.0.0.1, which only this machine reaches)
  --allowed_hosts=A,B further names by which browsers reach the server, such as that of a proxy
  --key=value         what differs from the runs, as --data_path: keys with "use" in docs/keys.md
  -h, --help          print this

Ctrl-C ends it.
"""


def _serve(argv: Sequence[str]) -> None:
    flags = next((k for k, word in enumerate(argv) if word.startswith("-")), len(argv))
    more = list(argv[1:flags])
    first, own, keys = split_flags(
        [*argv[:1], *argv[flags:]] if flags else argv, ("host", "allowed_hosts"), {"port": 0}
    )
    warnings_on_terminal()
    from recbole_cierec.serving.web.server import serve  # takes seconds

    hosts = [name for name in own.pop("allowed_hosts", "").split(",") if name]
    serve([first, *more], allowed_hosts=hosts, cmd_line=keys, **own)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code (see :func:`run_command`)."""
    return run_command(_serve, argv, lambda: USAGE)
