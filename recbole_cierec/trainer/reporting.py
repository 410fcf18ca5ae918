"""What a trainer shows while it works: one line an epoch, progress bars, TensorBoard.

RecBole's own records go to the log file. TensorBoard has RecBole's tags, and

- ``METRIC/valid/GROUP`` and ``METRIC/test/GROUP``: every metric by group (``recall@10/test/cold``);
- ``learning_rate/OPTIMIZER/GROUP``: the rate of each parameter group.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from time import perf_counter
from typing import Any

from recbole.utils import get_gpu_usage
from tqdm import tqdm

from recbole_cierec.console.progress import progress_bar
from recbole_cierec.console.result_table import split_name
from recbole_cierec.terminal import CONSOLE
from recbole_cierec.trainer.deferred_loss import LossFunction, Totals
from recbole_cierec.trainer.guarded_loop import GuardedLoopMixin


class ReportingMixin(GuardedLoopMixin):
    """Over a RecBole trainer: it hears of each batch and epoch by the hooks that RecBole calls."""

    phase = ""  # of a trainer of two phases, for the line of an epoch

    def __init__(self, config: Any, model: Any) -> None:
        super().__init__(config, model)
        self._bar: tqdm | None = None
        self._epoch_began = 0.0
        self._epoch_loss = 0.0
        self._validates = False  # whether fit has validation data
        self._verbose = True

    # -------------------------------------------------------------------- progress bars

    def _advance(self) -> None:
        if self._bar is not None:
            if self.gpu_available and not self._bar.disable:
                self._bar.set_postfix_str(f"GPU RAM: {get_gpu_usage(self.device)}")
            self._bar.update()

    def _train_epoch(
        self,
        train_data: Any,
        epoch_idx: int,
        loss_func: LossFunction | None = None,
        show_progress: bool = False,
    ) -> Totals:
        self._epoch_began = perf_counter()
        title = f"epoch {epoch_idx + 1}/{self.epochs}"
        with progress_bar(len(train_data), title, "batch", show_progress) as self._bar:
            return super()._train_epoch(train_data, epoch_idx, loss_func, False)

    def _check_nan(self, loss: Any) -> None:
        super()._check_nan(loss)
        self._advance()

    def _evaluate(self, eval_data: Any, show_progress: bool) -> Any:
        """RecBole's ``evaluate`` of the present weights."""
        with progress_bar(len(eval_data or ()), "evaluate", "batch", show_progress) as self._bar:
            return super().evaluate(eval_data, load_best_model=False, show_progress=False)

    def _full_sort_batch_eval(self, batched_data: tuple) -> tuple:
        self._advance()
        return super()._full_sort_batch_eval(batched_data)

    def _neg_sample_batch_eval(self, batched_data: tuple) -> tuple:
        self._advance()
        return super()._neg_sample_batch_eval(batched_data)

    # ------------------------------------------------------------------- line of an epoch

    def _add_train_loss_to_tensorboard(
        self, epoch_idx: int, losses: Totals, tag: str = "Loss/Train"
    ) -> None:
        """Called after the batches of each epoch."""
        super()._add_train_loss_to_tensorboard(epoch_idx, losses, tag)
        for name, optimizer in self._optimizers().items():
            for k, group in enumerate(optimizer.param_groups):
                self.tensorboard.add_scalar(f"learning_rate/{name}/{k}", group["lr"], epoch_idx)
        self._epoch_loss = sum(losses) if isinstance(losses, tuple) else losses
        if not self._validates or (epoch_idx + 1) % self.eval_step:
            self._say_epoch(epoch_idx)

    def _valid_epoch(
        self, valid_data: Any, show_progress: bool = False
    ) -> tuple[float, dict[str, float]]:
        score, result = super()._valid_epoch(valid_data, show_progress)
        epoch = self._at[0]
        self._add_result_to_tensorboard("valid", result, epoch)
        best = self.best_valid_score
        better = score >= best if self.valid_metric_bigger else score <= best
        self._say_epoch(epoch, f"  {self.valid_metric} {score:.5f}{' *' if better else '  '}")
        return score, result

    def _say_epoch(self, epoch: int, validation: str = "") -> None:
        if not self._verbose:
            return
        width = len(str(self.epochs))
        validation = validation or " " * len(f"  {self.valid_metric} 0.00000  ")
        seconds = perf_counter() - self._epoch_began
        CONSOLE.info(
            f"{self.phase}epoch {epoch + 1:>{width}}/{self.epochs}  loss {self._epoch_loss:.4f}"
            f"{validation}  {seconds:.1f} s"
        )

    # ----------------------------------------------------------------------- TensorBoard

    def _add_result_to_tensorboard(
        self, part: str, result: Mapping[str, float], epoch: int
    ) -> None:
        for name, value in result.items():
            if not math.isnan(value):
                metric, group = split_name(name.removesuffix("_std"))
                group = (group or "all") + ("_std" if name.endswith("_std") else "")
                self.tensorboard.add_scalar(f"{metric}/{part}/{group}", value, epoch)

    def end_report(self, test_result: Mapping[str, float] | None) -> None:
        """Add the test result to TensorBoard, and close its file."""
        if test_result:
            last = max(self.train_loss_dict, default=0)
            self._add_result_to_tensorboard("test", test_result, last)
        self.tensorboard.close()
