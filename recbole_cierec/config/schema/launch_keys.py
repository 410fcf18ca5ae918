"""Keys that a user does not set: those of the launch, and those that follow from others."""

from __future__ import annotations

from typing import Any

from recbole_cierec.config.schema.key import Key, Role

LAUNCH, DERIVED, RUN = Role.LAUNCH, Role.DERIVED, Role.RUN
_SET = "is set by the launch and has no effect here; remove it"
_FLAG = "is a flag of the command line and has no effect here; remove it"


def _derived(name: str, source: str, about: str, **more: Any) -> Key:
    return Key(name, about=about, role=DERIVED, refused=f"follows from {source}; remove it", **more)


KEYS = (
    Key(
        "model",
        str,
        "The model: a name of the registry or of RecBole, or module:Class.",
        role=RUN,
        changes=True,
    ),
    Key("dataset", str, "The data set: a folder in data_path.", role=RUN, changes=True),
    # A file or the command line cannot set these; config_dict can, from a launcher's own program.
    Key("config_file", about="RecBole's name for config_files.", role=LAUNCH, refused=_SET),
    Key("config_files", about="YAML files, separated by blanks.", role=LAUNCH, refused=_FLAG),
    Key("nproc", int, "Processes on this machine.", role=LAUNCH, refused=_FLAG),
    Key("world_size", int, "Processes on all machines.", role=LAUNCH, refused=_FLAG),
    Key("ip", str, "Address of the first machine.", role=LAUNCH, refused=_FLAG),
    Key("port", (int, str), "Port of the first machine.", role=LAUNCH, refused=_FLAG),
    Key("offset", int, "Rank of this machine's first process.", role=LAUNCH, refused=_SET),
    Key("group_offset", int, "The flag that sets offset.", role=LAUNCH, refused=_FLAG),
    Key("local_rank", int, "Number of the process on its machine.", role=LAUNCH, refused=_SET),
    _derived("device", "use_gpu and gpu_id", "The torch device.", place=True),
    _derived("single_spec", "nproc", "Whether there is only one process.", place=True),
    _derived("strict_cold", "eval_args.split", "The rule of a cold split, or null.", compared=True),
    _derived("valid_neg_sample_args", "eval_args.mode", "Negatives of the validation."),
    _derived("test_neg_sample_args", "eval_args.mode", "Negatives of the test."),
    _derived("eval_type", "metrics", "Whether the metrics rank items or compare values."),
    _derived("MODEL_TYPE", "the model", "RecBole's family of the model."),
    _derived("MODEL_INPUT_TYPE", "the model and loss_type", "What a training batch holds."),
    Key(
        "neg_sampling",
        role=DERIVED,
        refused="is no longer read; use 'train_neg_sample_args' instead",
    ),
    Key(
        "training_neg_sample_num",
        role=DERIVED,
        refused="is no longer read; use 'train_neg_sample_args' instead",
    ),
)
