"""A page on a trained model: ``python -m recbole_cierec report --help``."""

from __future__ import annotations

from collections.abc import Sequence

from recbole_cierec.cli.exit_codes import run_command
from recbole_cierec.cli.recommend import names_first, split_flags
from recbole_cierec.errors import ConfigError
from recbole_cierec.logs import warnings_on_terminal
from recbole_cierec.terminal import say

USAGE = """\
usage: python -m recbole_cierec report CHECKPOINT [CHECKPOINT2] [--out=report.html]

Writes one HTML file that shows what a trained model does: results by group with intervals, users
with what they had and what they are recommended, failures, nearest items, a map of item vectors,
curves of training, and gradient gates. It loads nothing and runs no script. With two checkpoints of
the same data and protocol it compares them.

  CHECKPOINT          a *.pth file, or a folder: its newest run, by the best epoch
  --out=FILE          the page, ends in .html (default: report.html)
  --figures=DIR       the same figures as SVG and PNG (default: report-figures, named as the page)
  --key=value         what differs from the run: --data_path, --image_dir, --use_gpu and other
                      keys with "use" in docs/keys.md; what decided training stays
  -h, --help          print this

Needs the extra packages of report: pip install 'recbole-cierec[report]'

examples:
  python -m recbole_cierec report saved
  python -m recbole_cierec report saved/VBPR-X.pth saved/CIERec-Y.pth --out=compared.html
"""


def _report(argv: Sequence[str]) -> None:
    names = names_first(argv)
    if len(names) > 2:
        raise ConfigError(f"command line: this takes one or two checkpoints, not {len(names)}")
    second = names[1] if len(names) == 2 else None
    rest = [*names[:1], *argv[len(names) :]]
    checkpoint, own, flags = split_flags(rest, ("out", "figures"), {})
    warnings_on_terminal()
    from recbole_cierec.report.write import report  # takes seconds

    say(f"written: {report(checkpoint, second, cmd_line=flags, **own)}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code (see :func:`run_command`)."""
    return run_command(_report, argv, lambda: USAGE)
