"""What a trainer shows while it works: one line an epoch, progress bars, TensorBoard.

RecBole's own records go to the log file. TensorBoard has RecBole's tags, and

- ``METRIC/valid/GROUP`` and ``METRIC/test/GROUP``: every metric by group (``recall@10/test/cold``);
- ``learning_rate/OPTIMIZER/K``: the rate of each parameter group;
- ``gradient_gate/BRANCH/actions``: a histogram of the scales that a gate chose in the epoch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from recbole.utils import get_gpu_usage
from tqdm import tqdm

from recbole_cierec.console.progress import progress_bar
from recbole_cierec.evaluation.names import split_name
from recbole_cierec.terminal import CONSOLE
from recbole_cierec.trainer.deferred_loss import LossFunction, Totals
from recbole_cierec.trainer.guarded_loop import GuardedLoopMixin
from recbole_cierec.trainer.history import Row

Result = dict[str, float]


class ReportingMixin(GuardedLoopMixin):
    """Over a RecBole trainer, by the hooks that RecBole calls for each batch and epoch."""

    def __init__(self, config: Any, model: Any) -> None:
        super().__init__(config, model)
        self._bar: tqdm | None = None
        self._validates = False  # whether fit has validation data
        self._verbose = True
        self.tested_epoch: int | None = None  # from 1: of the checkpoint that evaluate has loaded

    @property
    def phase(self) -> str:
        """The phase of a trainer of two, for the line of an epoch."""
        return ""

    def fit(
        self,
        train_data: Any,
        valid_data: Any = None,
        verbose: bool = True,
        saved: bool = True,
        **kwargs: Any,
    ) -> tuple[float, Result | None]:
        self._validates, self._verbose = bool(valid_data), verbose
        return super().fit(train_data, valid_data, verbose=verbose, saved=saved, **kwargs)

    # -------------------------------------------------------------------- progress bars

    def _train_epoch(
        self,
        train_data: Any,
        epoch_idx: int,
        loss_func: LossFunction | None = None,
        show_progress: bool = False,
    ) -> Totals:
        title = f"epoch {epoch_idx + 1}/{self.epochs}"
        with progress_bar(len(train_data), title, "batch", show_progress) as self._bar:
            return super()._train_epoch(train_data, epoch_idx, loss_func, False)

    def evaluate(
        self,
        eval_data: Any,
        load_best_model: bool = True,
        model_file: str | Path | None = None,
        show_progress: bool = False,
    ) -> Result | None:
        with progress_bar(len(eval_data or ()), "evaluate", "batch", show_progress) as self._bar:
            return super().evaluate(eval_data, load_best_model, model_file, show_progress=False)

    def _check_nan(self, loss: Any) -> None:
        super()._check_nan(loss)
        self._advance()

    def _full_sort_batch_eval(self, batched_data: tuple) -> tuple:
        self._advance()
        return super()._full_sort_batch_eval(batched_data)

    def _neg_sample_batch_eval(self, batched_data: tuple) -> tuple:
        self._advance()
        return super()._neg_sample_batch_eval(batched_data)

    def _advance(self) -> None:
        if self._bar is None or self._bar.disable:
            return
        if self.gpu_available:
            self._bar.set_postfix_str(f"GPU RAM: {get_gpu_usage(self.device)}", refresh=False)
        self._bar.update()

    # --------------------------------------------------------------------------- epochs

    def _add_train_loss_to_tensorboard(
        self, epoch_idx: int, losses: Totals, tag: str = "Loss/Train"
    ) -> None:
        """RecBole calls it after the batches of each epoch."""
        super()._add_train_loss_to_tensorboard(epoch_idx, losses, tag)
        row = self.history.rows[-1]
        for name, rates in row["learning_rates"].items():
            for k, rate in enumerate(rates):
                self.tensorboard.add_scalar(f"learning_rate/{name}/{k}", rate, epoch_idx)
        for branch, cells in row.get("gates", {}).items():
            if "actions" not in cells:
                continue
            scales = [float(scale) for scale in cells["actions"]]
            chosen = np.repeat(scales, list(cells["actions"].values()))
            self.tensorboard.add_histogram(f"gradient_gate/{branch}/actions", chosen, epoch_idx)
        if not self._validates or (epoch_idx + 1) % self.eval_step:
            self._say_epoch(row)

    def _report_validation(self, score: float, result: Result) -> None:
        """Called before RecBole compares the score with the best one."""
        row, best = self.history.rows[-1], self.best_valid_score
        self._add_result_to_tensorboard("valid", result, row["epoch"])
        better = score >= best if self.valid_metric_bigger else score <= best
        self._say_epoch(row, f"{self.valid_metric} {score:.5f}{' *' if better else ''}")

    def _say_epoch(self, row: Row, validation: str = "") -> None:
        if self._verbose:
            number = f"{row['epoch'] + 1:>{len(str(self.epochs))}}/{self.epochs}"
            seconds = sum(row["seconds"].values())
            loss = f"loss {row['loss']:.4f}" if row["loss"] is not None else "loss -"
            width = len(f"{self.valid_metric} 0.00000 *")
            CONSOLE.info(
                f"{self.phase}epoch {number}  {loss}  {validation:<{width}}  {seconds:.1f} s"
            )

    def _add_result_to_tensorboard(self, part: str, result: Mapping[str, float], at: int) -> None:
        for name, value in result.items():
            if not math.isnan(value):
                metric, group = split_name(name.removesuffix("_std"))
                end = "_std" if name.endswith("_std") else ""
                self.tensorboard.add_scalar(f"{metric}/{part}/{group}{end}", value, at)

    def end_report(self, test_result: Mapping[str, float] | None) -> None:
        """Add the test result to TensorBoard and close its file, which RecBole leaves open."""
        if test_result:
            last = max(self.train_loss_dict, default=0)
            self._add_result_to_tensorboard("test", test_result, last)
        self.tensorboard.close()
