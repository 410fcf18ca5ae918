"""RecBole's trainers on the CPU, and what our mixins for them know of their attributes."""

from __future__ import annotations

import os
from logging import Logger
from typing import TYPE_CHECKING, Any

import torch
from recbole.evaluator.collector import Collector
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from recbole_cierec.evaluation.compat import CollectorCompat

if TYPE_CHECKING:  # RecBole has no types: an attribute that is not declared below is Any
    from recbole.trainer import Trainer
else:
    Trainer = object


class TrainerCompat(Trainer):
    """Mixed in before any trainer class of RecBole."""

    config: Any
    model: Any
    distributed_model: Any
    tensorboard: Any
    checkpoint_dir: str
    device: torch.device
    logger: Logger
    optimizer: Optimizer
    epochs: int
    start_epoch: int
    eval_step: int
    cur_step: int
    clip_grad_norm: Any
    best_valid_score: float
    best_valid_result: dict[str, float] | None
    train_loss_dict: dict[int, Any]
    saved_model_file: str

    def __init__(self, config: Any, model: torch.nn.Module) -> None:
        """Build the trainer; wrap the model for several processes where RecBole cannot.

        Reason: trainer/trainer.py:60-64 names a GPU for every process and turns BatchNorm into
        SyncBatchNorm. torch refuses both for a model on the CPU, and the latter also for a batch of
        one row in a single process. And utils/utils.py:51 checks whether the checkpoint folder
        exists and then makes it, which fails if another process makes it in between.

        Goes when: RecBole leaves out ``device_ids`` on the CPU, and passes ``exist_ok``.

        Args:
            config: RecBole's configuration.
            model: The model, on its device.
        """
        os.makedirs(config["checkpoint_dir"], exist_ok=True)
        unwrapped = not config["single_spec"] and (
            config["device"].type == "cpu" or config["world_size"] == 1
        )
        if unwrapped:
            config["single_spec"] = True  # so that the base class does not wrap the model
        try:
            super().__init__(config, model)
        finally:
            if unwrapped:
                config["single_spec"] = False
        if unwrapped:
            self.distributed_model = DistributedDataParallel(self.model)
        if type(getattr(self, "eval_collector", None)) is Collector:
            self.eval_collector = CollectorCompat(config)
