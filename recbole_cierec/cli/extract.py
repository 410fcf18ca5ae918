"""Pictures and features ahead of training: ``python -m recbole_cierec extract --help``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from recbole_cierec.cli.exit_codes import flags_of_command, run_command
from recbole_cierec.cli.flags import require
from recbole_cierec.cli.run import split_arguments
from recbole_cierec.distributed.launch import LAUNCH, launch
from recbole_cierec.errors import ConfigError
from recbole_cierec.terminal import CONSOLE
from recbole_cierec.vision.feature_files import ids_file
from recbole_cierec.vision.feature_output import check_places, features_path, write_features
from recbole_cierec.vision.feature_shards import Shard, read_shard

USAGE = """\
usage: python -m recbole_cierec extract --dataset=NAME [--model=NAME] [--out=F.npy] [--key=value]

Decodes pictures and computes their features ahead of training, into the caches. A run with the same
keys then starts from the caches. Given features (features_file, features) are checked against the
data set instead.

  -d, --dataset       a folder under data_path; demo for the demo data
  -m, --model         a model over pictures (default: CIERec); for one over regions (VECF) region
                      maps are computed or checked
  --out=F.npy         write the features too, for other programs and for features: {image: F.npy}:
                      float32 [items, D] before feature_norm and feature_dim, a row for each item
                      with a usable picture; F.ids.txt has the item of each row (of a model over
                      regions: its maps, float16 [items, R, C])
  --shard=K/N         compute part K of N, as 3/16. The machines need only share cache_dir: each
                      runs its shard with the same keys, a killed one is run again, and the last to
                      end joins all parts into the file that one process would have written
  --nproc=N           processes, each of which computes a part; torchrun works too
  --config_files      yaml files, separated by blanks; later ones win; they may give dataset
  --key=value         any other key, as of a run: visual_encoder, encoder_weights, image_size ...
  -h, --help          print this

examples:
  python -m recbole_cierec extract --dataset=mine
  python -m recbole_cierec extract --dataset=mine --visual_encoder=resnet50 --out=image.npy
  python -m recbole_cierec extract --dataset=mine --shard=3/16
"""
_OWN = ("shard", "out")


def extract(argv: Sequence[str]) -> None:
    """Build or check the features that a command line describes; the log says where they are."""
    arguments = split_arguments(argv)
    flags = arguments["cmd_line"]
    shard = read_shard(flags.pop("shard", "1/1"))
    out = features_path(flags.pop("out")) if "out" in flags else None
    require(("dataset",), arguments, flags, _OWN)
    names = ("model", "dataset", "config_file_list", "cmd_line")
    job = {**{name: arguments[name] for name in names}, "config_dict": {}}
    with flags_of_command(_OWN):
        launch(
            extract_one,
            {**job, "shard": shard, "out": out},
            **{name: arguments[name] for name in LAUNCH},
        )


def extract_one(shard: Shard, out: Path | None = None, **arguments: Any) -> None:
    """The part of one process."""
    # Imported after the command line has been checked: these imports take seconds.
    from recbole_cierec.config.config import Config
    from recbole_cierec.logs import run_log

    config = Config(**arguments)
    with run_log(config):
        _extract(config, shard, out)


def _extract(config: Any, shard: Shard, out: Path | None) -> None:
    from recbole_cierec.data.dataset import create_dataset
    from recbole_cierec.distributed.world import world
    from recbole_cierec.model.base.visual_recommender import VisualRecommender
    from recbole_cierec.registry import get_model_class
    from recbole_cierec.trainer.start_checks import check_pictures
    from recbole_cierec.vision.item_pictures import pictures_of

    model_class = get_model_class(config["model"])
    if not issubclass(model_class, VisualRecommender):
        raise ConfigError(f"{config['model']} reads no pictures; leave --model out")
    check_pictures(config)
    if out is not None:
        _refuse_damage(config)
    content = create_dataset(config).content
    pictures = pictures_of(content)
    if out is not None and world()[0] == 0:
        check_places(out, pictures.given_paths())
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
    if out is not None and world()[0] == 0:
        _write(out, *pictures.raw(over_regions), content.item_ids)


def _refuse_damage(config: Any) -> None:
    """A run that reads the file would damage the pictures a second time."""
    for key in ("pictures_wrong", "pictures_missing"):
        if config[key]:
            raise ConfigError(f"--out: writes features of intact pictures; leave {key} out")


def _write(out: Path, raw: Any, rows: Any, ids: Sequence[str]) -> None:
    count = write_features(out, raw, rows, ids)
    CONSOLE.info(
        f"Written: {out} ({count} rows) and {ids_file(out).name} (the item of each row); "
        f"a run reads them by features: {{image: {out}}}"
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns its exit code (:mod:`recbole_cierec.cli.exit_codes`)."""
    return run_command(extract, argv, lambda: USAGE)
