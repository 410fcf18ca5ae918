"""RecBole's models that a separate run pretrains: S3Rec and RaCT.

RecBole's trainer writes the pretrained model with a pickled configuration, which cannot be read
safely. Here such files are checkpoints like all others, and a run that pretrains ends with one,
also where ``save_step`` does not divide ``pretrain_epochs``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recbole_cierec.files.checkpoint import write_checkpoint
from recbole_cierec.trainer.checkpoints import CheckpointMixin
from recbole_cierec.trainer.history import history_file

LAST_STAGE = "finetune"


class PretrainingMixin(CheckpointMixin):
    """Over RecBole's ``PretrainTrainer``."""

    pretrain_epochs: int

    def __init__(self, config: Any, model: Any) -> None:
        super().__init__(config, model)
        if model.train_stage != LAST_STAGE:
            self.epochs = self.pretrain_epochs  # so that a resumed run knows its end

    def save_pretrained_model(self, epoch: int, saved_model_file: str) -> None:
        """Called every ``save_step`` epochs."""
        if self._saving and self.writes:
            write_checkpoint(Path(saved_model_file), self.state(epoch))

    def pretrain(self, train_data: Any, verbose: bool = True, show_progress: bool = False) -> Any:
        """Train, and keep the model of the last epoch under RecBole's name for it."""
        result = super().pretrain(train_data, verbose, show_progress)
        stem = f"{self.config['model']}-{self.config['dataset']}-{self.pretrain_epochs}"
        path, before = Path(self.checkpoint_dir, f"{stem}.pth"), self.last_file
        self.save_pretrained_model(self.pretrain_epochs - 1, str(path))
        self.saved_model_file = str(path)
        if self._saving and self.writes:
            history_file(before).unlink(missing_ok=True)
            before.unlink(missing_ok=True)  # the caller writes the last state under the new name
            self.logger.info(
                f"{self.config['model']} is pretrained ({self.model.train_stage}); the next stage "
                f"starts from --pre_model_path={path} with another --train_stage. The pretrained "
                "model is tested next"
            )
        return result
