"""Compatibility of RecBole's trainers with the CPU; mixed in before RecBole's class."""

from __future__ import annotations

import os
from typing import Any

import torch
from recbole.evaluator.collector import Collector
from torch.nn.parallel import DistributedDataParallel

from recbole_cierec.evaluation.compat import CollectorCompat


class TrainerCompat:
    """For any trainer of RecBole."""

    def __init__(self, config: Any, model: torch.nn.Module) -> None:
        """Build the trainer; wrap the model for several processes where RecBole cannot.

        Reason: trainer/trainer.py:60-64 names a GPU for every process and turns BatchNorm into
        SyncBatchNorm, both of which torch refuses for a model on the CPU, and the latter also for a
        batch of one row in a single process. And utils/utils.py:51
        looks whether the checkpoints' folder exists and then makes it, which fails where another
        process makes it in between.

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
