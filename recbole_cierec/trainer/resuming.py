"""Which checkpoint a run resumes, and whether it is of the same run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from logging import getLogger
from pathlib import Path
from typing import Any

from recbole_cierec.config.config import Config
from recbole_cierec.config.paths import CHECKPOINT
from recbole_cierec.config.schema import KEYS, Role
from recbole_cierec.errors import CheckpointError, ConfigError
from recbole_cierec.evaluation.eval_mode import EvalMode
from recbole_cierec.evaluation.names import ALL, split_name
from recbole_cierec.files.by_age import by_age
from recbole_cierec.files.checkpoint import peek_checkpoint, read_checkpoint, to_plain
from recbole_cierec.files.run_files import is_last
from recbole_cierec.registry import stages_of
from recbole_cierec.terminal import shown

# What may change when a run is resumed: its length, and what is measured or shown of it.
_FREE = frozenset(name for name, key in KEYS.items() if key.changes or key.of_place)
_IN_USE = sorted(name for name, key in KEYS.items() if key.in_use)
_EVALUATION = "mode"  # of eval_args; the rest of it splits the data
_OF_LISTS = "candidate_seed", "candidates_file"
_OF_GROUPS = "user_group_boundary", "user_group_count", "item_group_boundary"


def differences(state: dict, config: Config) -> list[str]:
    """The settings that decide training and differ between a checkpoint and ``config``.

    Returns:
        One text a key, ``seed 1 (here 2)``; keys that only one of them has do not count.
    """
    then, now = state["config"], to_plain(dict(config.final_config_dict))
    return _apart(then, now, then.keys() & now.keys() - _FREE)


def differences_of_validation(state: dict, config: Config) -> list[str]:
    """As :func:`differences`, of what decides the score of an epoch: it may differ in a model that
    is used, and not between epochs of which the best is chosen."""
    then, now = state["config"], to_plain(dict(config.final_config_dict))
    modes = [values["eval_args"]["mode"]["valid"] for values in (then, now)]
    if modes[0] != modes[1]:
        return [f"validation by {modes[0]} (here {modes[1]})"]
    keys = set(_OF_LISTS if EvalMode.parse(modes[1]).by_user else ())
    keys |= set(_OF_GROUPS if split_name(now["valid_metric"])[1] != ALL else ())
    return _apart(then, now, keys)


def _apart(then: dict[str, Any], now: dict[str, Any], keys: Iterable[str]) -> list[str]:
    return [
        f"{key} {then[key]} (here {now[key]})"
        for key in sorted(keys)
        if _decisive(then[key]) != _decisive(now[key])
    ]


def refuse_other_settings(path: Path, state: dict, config: Config) -> None:
    """Refuse keys that a trained model cannot take, unless they have the value of its run.

    Args:
        path: The checkpoint.
        state: What it holds.
        config: Its configuration with keys over it.

    Raises:
        ConfigError: For the first such key; the line names those that may be given.
    """
    then = {**state["config"], "resume": str(path)}
    final = {**config.final_config_dict, "resume": config["resume"]}
    for key, origin in config.origins.items():
        declared = config.declaration(key)
        if origin == CHECKPOINT or declared.in_use or declared.role is Role.LAUNCH:
            continue
        # The configuration has the model and data set of the checkpoint, whatever is given.
        given = config.external_config_dict if declared.role is Role.RUN else final
        known = then.get(key)
        if to_plain(given[key]) != known:
            raise ConfigError(
                f"{origin}: '{key}' is {'null' if known is None else shown(known)} in {path} and "
                f"cannot be changed after training; what may differ: {', '.join(_IN_USE)}"
            )


def _decisive(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _decisive(v) for k, v in value.items() if k != _EVALUATION}
    return value


def data_of(dataset: Any) -> dict[str, str]:
    """Digests of what a model is trained on: ``interactions``, and the parts of the items' content
    that have been read. Empty for the data sets of RecBole."""
    if not hasattr(dataset, "digest"):
        return {}
    return {"interactions": dataset.digest(), **dataset.content.digests()}


def refuse_other_data(
    path: Path, then: Mapping[str, str], data: Mapping[str, str], advice: str
) -> None:
    """Refuse a checkpoint that was trained on other data.

    Args:
        path: The checkpoint, for the message.
        then: The digests that it holds.
        data: From :func:`data_of`; parts that only one of the two has are ignored.
        advice: What to do instead, for the message.

    Raises:
        CheckpointError: The line names the parts that differ.
    """
    if other := changed_parts(then, data):
        raise CheckpointError(
            f"{path}: was trained on other data ({', '.join(other)}) than this run has; {advice}"
        )


def changed_parts(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """The parts in two results of :func:`data_of` that differ; one that only one has does not."""
    return [part for part, digest in now.items() if then.get(part, digest) != digest]


def newest_checkpoint(config: Config) -> Path:
    """The newest readable checkpoint of the same model, data set and settings
    (``--resume=auto``): the last epoch of a run, or, of one that has ended, its best.

    Raises:
        CheckpointError: There is none; the line says how the newest of this model differs.
    """
    folder, dataset = Path(config["checkpoint_dir"]), config["dataset"]
    model = config.model_spelling
    # Of two that are equally old, the last epoch is the newer.
    files = sorted(folder.glob(f"{config['model']}-*.pth"), key=is_last)
    other = ""
    for path in reversed(by_age(files)):
        try:
            state = peek_checkpoint(path)
            if (state["model"], state["dataset"]) != (model, dataset):
                continue
            other_settings = differences(state, config) + differences_of_validation(state, config)
            if not other_settings:
                read_checkpoint(path)
                return path
        except CheckpointError:
            continue  # the file before a damaged one may be whole
        other = (
            other
            or f"; {path} has {', '.join(other_settings[:3])}, and is used with --resume={path}"
        )
    raise CheckpointError(
        f"{folder}: no checkpoint of {model} on {dataset} with these settings to resume{other}; "
        "start without --resume"
    )


def check_resume(config: Config) -> None:
    """Refuse the wrong checkpoint to resume before any data are read.

    Raises:
        CheckpointError: It is missing, damaged, or of another model or data set.
    """
    named, stages = config["resume"], stages_of(config.model_class)
    if not named or (named == "auto" and stages):
        return
    path = newest_checkpoint(config) if named == "auto" else Path(named)
    refuse_other_run(path, peek_checkpoint(path), config, stages)


def refuse_other_run(path: Path, state: dict, config: Config, stages: Iterable[str] = ()) -> None:
    """Refuse a checkpoint of another model or data set.

    Args:
        path: The checkpoint, for the message.
        state: What it holds.
        config: The run's configuration.
        stages: Other models that are accepted: those that this one can start from.

    Raises:
        CheckpointError: In one line.
    """
    names = {"model": config.model_spelling, "dataset": config["dataset"]}
    for what, accepted in (("model", {names["model"], *stages}), ("dataset", {names["dataset"]})):
        if state[what] not in accepted:
            raise CheckpointError(f"{path}: holds {what} {state[what]}, this run has {names[what]}")


def warn_of_differences(path: Path, state: dict, config: Config) -> None:
    """Log one line if a named checkpoint, resumed or loaded, is of a run with other settings."""
    if other := differences(state, config):
        getLogger().warning(
            f"{path}: was trained with {', '.join(other)}; what is given here counts"
        )
