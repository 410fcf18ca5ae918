"""Decode pictures and compute their features ahead of training, into the caches.

``python -m recbole_cierec extract --dataset=NAME [--model=CIERec] [--key=value ...]`` takes the
flags of ``python -m recbole_cierec``; a run with the same keys then starts from the caches. Given
features (``features_file``, ``features``) are checked against the data set instead. For a model
over regions (VECF) it computes or checks region maps.

``--nproc=4``, or torchrun, computes a part of the features in each of four processes.
``--shard=3/16`` computes the third of sixteen parts. The machines need only share ``cache_dir``:
each runs its shard with the same keys, a killed one is run again, and the last to end joins all
parts into the file that one process would have written.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from recbole_cierec.cli.exit_codes import run_command
from recbole_cierec.cli.run import split_arguments
from recbole_cierec.distributed.launch import LAUNCH, launch
from recbole_cierec.errors import ConfigError
from recbole_cierec.terminal import CONSOLE
from recbole_cierec.vision.feature_shards import Shard, read_shard


def extract(argv: Sequence[str]) -> None:
    """Build or check the features that a command line describes; the log says where they are."""
    arguments = split_arguments(argv)
    shard = read_shard(arguments["cmd_line"].pop("shard", "1/1"))
    names = ("model", "dataset", "config_file_list", "cmd_line")
    job = {**{name: arguments[name] for name in names}, "config_dict": {}, "shard": shard}
    launch(extract_one, job, **{name: arguments[name] for name in LAUNCH})


def extract_one(shard: Shard, **arguments: Any) -> None:
    """The part of one process."""
    # Imported after the command line has been checked: these imports take seconds.
    from recbole_cierec.config.config import Config
    from recbole_cierec.logs import run_log

    config = Config(**arguments)
    with run_log(config):
        _extract(config, shard)


def _extract(config: Any, shard: Shard) -> None:
    from recbole_cierec.data.dataset import create_dataset
    from recbole_cierec.model.base.visual_recommender import VisualRecommender
    from recbole_cierec.registry import get_model_class
    from recbole_cierec.trainer.start_checks import check_pictures
    from recbole_cierec.vision.item_pictures import pictures_of

    model_class = get_model_class(config["model"])
    if not issubclass(model_class, VisualRecommender):
        raise ConfigError(f"{config['model']} reads no pictures; leave --model out")
    check_pictures(config)
    content = create_dataset(config).content
    pictures = pictures_of(content)
    over_regions = model_class.uses_regions
    if shard.count > 1:
        if pictures.given is not None:
            raise ConfigError(
                f"--shard: {pictures.given.key} holds all features already; drop one of them"
            )
        if pictures.extract(over_regions, shard) is None:
            CONSOLE.info(f"Shard {shard} is done; the last shard to end joins them all")
            return
    if over_regions:
        size = f"{pictures.regions.size} for each of {pictures.regions.count} regions"
    else:
        size = str(pictures.features.shape[1])
    given = pictures.given
    origin = given.path if given else f"{config['visual_encoder']} in {pictures.cache_dir}"
    for modality in pictures.modalities.values():
        modality.features  # noqa: B018  # reads and checks the file
    known, items = int(pictures.has_picture.sum()), content.n_items - 1  # less RecBole's padding
    CONSOLE.info(f"Features from {origin}: {size} for each of {known} of {items} items")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns its exit code (:mod:`recbole_cierec.cli.exit_codes`)."""
    return run_command(extract, argv, lambda: __doc__)
