"""Which checkpoint a run goes on with, and whether it is of the same run."""

from __future__ import annotations

from logging import getLogger
from pathlib import Path
from typing import Any

from recbole_cierec.config import PLACE_KEYS, Config
from recbole_cierec.errors import CheckpointError
from recbole_cierec.trainer.checkpoint import read_checkpoint, to_plain

# What may change when a run goes on: its length, and what is measured or shown of it.
_FREE = PLACE_KEYS | frozenset(
    "model dataset epochs stopping_step pretrained metrics topk metric_decimal_place"
    " eval_batch_size eval_repeats candidate_seed cold_item_views user_group_boundary"
    " user_group_count item_group_boundary".split()
)
_EVALUATION = "mode"  # of eval_args; the rest of it splits the data


def differences(state: dict, config: Config) -> list[str]:
    """What the run of a checkpoint had otherwise than ``config``, of all that decides training.

    Returns:
        One text a key, ``seed 1 (here 2)``; keys that only one of them has do not count.
    """
    then, now = state["config"], to_plain(dict(config.final_config_dict))
    return [
        f"{key} {then[key]} (here {now[key]})"
        for key in sorted(then.keys() & now.keys() - _FREE)
        if _decisive(then[key]) != _decisive(now[key])
    ]


def _decisive(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _decisive(v) for k, v in value.items() if k != _EVALUATION}
    return value


def newest_checkpoint(config: Config) -> Path:
    """The newest readable ``*.last.pth`` of the same model, data set and settings
    (``--resume=auto``).

    Raises:
        CheckpointError: There is none; the line says what the newest of this model has otherwise.
    """
    folder, model, dataset = Path(config["checkpoint_dir"]), config["model"], config["dataset"]
    files = sorted(folder.glob(f"{model}-*.last.pth"), key=lambda p: p.stat().st_mtime_ns)
    other = ""
    for path in reversed(files):
        try:
            state = read_checkpoint(path)
        except CheckpointError:
            continue  # a damaged file is no reason to lose the one before it
        if (state["model"], state["dataset"]) != (model, dataset):
            continue
        apart = differences(state, config)
        if not apart:
            return path
        other = other or f"; {path} has {', '.join(apart[:3])}, and is taken with --resume={path}"
    raise CheckpointError(
        f"{folder}: no checkpoint of {model} on {dataset} with these settings to resume{other}; "
        "start without --resume"
    )


def warn_of_differences(path: Path, state: dict, config: Config) -> None:
    """One line in the log where a named checkpoint is of a run with other settings."""
    if apart := differences(state, config):
        getLogger().warning(f"{path}: goes on although it was begun with {', '.join(apart)}")
