"""Decode pictures and compute their features ahead of training, into the caches.

``python -m recbole_cierec.extract --dataset=NAME [--model=CIERec] [--key=value ...]`` takes the
flags of ``python -m recbole_cierec``; a run with the same keys then starts from the caches. With
``features_file`` it checks that file against the data set instead.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from logging import getLogger

from recbole_cierec.__main__ import split_arguments
from recbole_cierec.command import run_command
from recbole_cierec.errors import ConfigError


def extract(argv: Sequence[str]) -> None:
    """Build or check the features that a command line describes; the log says where they are."""
    arguments = split_arguments(argv)
    if arguments["nproc"] > 1 or arguments["world_size"] > 1:
        raise ConfigError("command line: features are extracted by one process; drop --nproc")
    names = ("model", "dataset", "config_file_list", "cmd_line")
    # After the command line was found good: these imports take seconds.
    from recbole_cierec.config import Config
    from recbole_cierec.data.dataset import create_dataset
    from recbole_cierec.logs import start_log

    config = Config(**{name: arguments[name] for name in names})
    start_log(config)
    content = create_dataset(config).content
    rows, size = content.features.shape  # row 0 is RecBole's padding
    origin = config["features_file"] or f"{config['visual_encoder']} in {content.cache_dir}"
    known = int(content.has_picture.sum())
    getLogger().info(f"Features from {origin}: {size} for each of {known} of {rows - 1} items")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; see :func:`recbole_cierec.command.run_command` for the exit codes."""
    return run_command(extract, argv, lambda: __doc__)


if __name__ == "__main__":
    sys.exit(main())
