"""Vectors of a checkpoint for an index: ``python -m recbole_cierec export --help``."""

from __future__ import annotations

from collections.abc import Sequence

from recbole_cierec.cli.exit_codes import run_command
from recbole_cierec.cli.recommend import split_flags
from recbole_cierec.errors import ConfigError
from recbole_cierec.logs import warnings_on_terminal
from recbole_cierec.terminal import say

USAGE = """\
usage: python -m recbole_cierec export CHECKPOINT --out=FOLDER [--key=value ...]

Writes the vectors and biases of a model for an index such as FAISS, and its weights:

  vectors.npz         user_ids, users, user_bias, item_ids, items, item_bias
  users.parquet, items.parquet
                      id, bias, vector
  model.safetensors   all weights
  export.json         what the model is and where it comes from

scores = users @ items.T + user_bias[:, None] + item_bias. A model that is no inner product (HAFR,
VECF, CIERec with gates) says so, and leaves weights alone.

  --key=value         what differs from the run, as --data_path: keys with "use" in docs/keys.md
  -h, --help          print this
"""


def _export(argv: Sequence[str]) -> None:
    checkpoint, own, flags = split_flags(argv, ("out",), {})
    if "out" not in own:
        raise ConfigError("command line: --out=FOLDER is missing; --help says more")
    warnings_on_terminal()
    from recbole_cierec.serving.export import export  # takes seconds

    say(f"written: {export(checkpoint, own['out'], cmd_line=flags)}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code (see :func:`run_command`)."""
    return run_command(_export, argv, lambda: USAGE)
