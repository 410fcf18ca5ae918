"""What is checked before any data are read: by a run, and for each run of an experiment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recbole_cierec.compat.optional_packages import require
from recbole_cierec.data.column_keys import reads_pictures
from recbole_cierec.evaluation.candidate_files import check_candidates_file
from recbole_cierec.files.cache_folder import refuse_unmakable
from recbole_cierec.logs import check_tensorboard
from recbole_cierec.trainer.warm_start_stages import check_stage


def check_start(config: Any) -> None:
    """Refuse what is cheap to find now and would end the run after minutes of work.

    Files and folders that a key names must exist for :class:`recbole_cierec.config.config.Config`.

    Raises:
        UserError: A package is missing, a place cannot be written, the encoder is unknown, or the
            model cannot start from its stage.
    """
    check_tensorboard()
    if config["log_wandb"]:
        require("wandb", "init", "log_wandb")
    check_candidates_file(config)
    check_pictures(config)
    check_stage(config)


def check_pictures(config: Any) -> None:
    """Refuse an unknown encoder, and a cache that cannot be made, if the model needs them.

    Raises:
        UserError: In one line.
    """
    if not reads_pictures(config):
        return
    from recbole_cierec.vision.visual_encoder import check_name  # imports torchvision

    check_name(config["visual_encoder"])
    refuse_unmakable(Path(config["cache_dir"]))
