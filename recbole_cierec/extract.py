"""Decode pictures and compute their features ahead of training, into the caches.

``python -m recbole_cierec.extract --dataset=NAME [--model=CIERec] [--key=value ...]`` takes the
flags of ``python -m recbole_cierec``; a run with the same keys then starts from the caches. With
``features_file`` it checks that file against the data set instead. For a model over regions (VECF)
it is the region maps that are computed or checked.
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
    from recbole_cierec.registry import get_model_class

    config = Config(**{name: arguments[name] for name in names})
    start_log(config)
    content = create_dataset(config).content
    if getattr(get_model_class(config["model"]), "uses_regions", False):
        size = f"{content.regions.size} for each of {content.regions.count} regions"
    else:
        size = content.features.shape[1]
    origin = config["features_file"] or f"{config['visual_encoder']} in {content.cache_dir}"
    known, items = int(content.has_picture.sum()), content.n_items - 1  # less RecBole's padding
    getLogger().info(f"Features from {origin}: {size} for each of {known} of {items} items")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; see :func:`recbole_cierec.command.run_command` for the exit codes."""
    return run_command(extract, argv, lambda: __doc__)


if __name__ == "__main__":
    sys.exit(main())
