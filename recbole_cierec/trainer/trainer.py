"""What every trainer gains here, RecBole's own included: safe checkpoints, exact resume, decay,
a stop before a bad update, and results by user group.

:func:`compose` puts :class:`TrainerMixin` over any RecBole trainer class. Each method does its part
and calls RecBole's; no loop is copied.
"""

from __future__ import annotations

import math
from functools import cache
from logging import getLogger
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from recbole.trainer import PretrainTrainer
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LinearLR, StepLR

from recbole_cierec.distributed.random_state import loader_generators
from recbole_cierec.errors import ConfigError
from recbole_cierec.evaluation.collector import PlanCollector
from recbole_cierec.evaluation.evaluator import PlanEvaluator
from recbole_cierec.evaluation.scoring import candidate_batch
from recbole_cierec.files.checkpoint import fitting, read_checkpoint
from recbole_cierec.files.leftovers import TEMPORARY, clear_leftovers
from recbole_cierec.terminal import CONSOLE
from recbole_cierec.trainer.checkpoint_folder import writes_in
from recbole_cierec.trainer.deferred_loss import LossFunction, Totals
from recbole_cierec.trainer.optimizers import RowAdagrad, quick
from recbole_cierec.trainer.pretraining import PretrainingMixin
from recbole_cierec.trainer.recbole_errors import clear_errors
from recbole_cierec.trainer.reporting import ReportingMixin
from recbole_cierec.trainer.resuming import (
    data_of,
    differences_of_validation,
    refuse_other_data,
)

Result = dict[str, float]
WARM_UP = "warm-up"


class TrainerMixin(ReportingMixin):
    """Over a RecBole trainer; use :func:`compose`."""

    def __init__(self, config: Any, model: torch.nn.Module) -> None:
        super().__init__(config, model)
        # RecBole's trainer of models without epochs (Pop, ItemKNN) lowers epochs to 1 too late for
        # its own rule, and would never validate or save with a larger eval_step.
        self.eval_step = min(self.eval_step, self.epochs)
        self.eval_collector = PlanCollector(config)
        self.evaluator = PlanEvaluator(config)
        self._decay(self._optimizers())
        self._warm_up(self.optimizer)

    def _decay(self, optimizers: dict[str, Optimizer]) -> None:
        """Sec. IV-A3: every ``lr_decay_epochs`` epochs the rate is multiplied by ``lr_decay``."""
        step, factor = self.config["lr_decay_epochs"], self.config["lr_decay"]
        if factor != 1.0:
            self.schedulers |= {n: StepLR(o, step, factor) for n, o in optimizers.items()}

    def _warm_up(self, optimizer: Optimizer) -> None:
        """Let the rates grow over the first ``warmup_steps`` batches.

        Adagrad's first step moves every weight by its whole rate, whatever the gradient.
        """
        steps = self.config["warmup_steps"]
        if steps:
            growth = LinearLR(optimizer, start_factor=1 / (steps + 1), total_iters=steps)
            self.schedulers[WARM_UP] = growth
            optimizer.register_step_post_hook(lambda *_: growth.step())

    def _build_optimizer(self, **kwargs: Any) -> Optimizer:
        if "params" not in kwargs and hasattr(self.model, "parameter_groups"):
            kwargs["params"] = self.model.parameter_groups()
        optimizer = quick(super()._build_optimizer(**kwargs), self.config["optimizer_kernel"])
        optimizer.register_step_pre_hook(lambda optimizer, *_: self._before_step(optimizer))
        # Sparse gradients do not pay on a GPU, where finding their rows costs more than dense
        # ones, and cannot be clipped.
        by_row = isinstance(optimizer, RowAdagrad) and self.device.type == "cpu"
        for table in self.model.id_tables() if hasattr(self.model, "id_tables") else ():
            table.sparse = by_row and not self.clip_grad_norm
        return optimizer

    # ------------------------------------------------------------------------ training

    def fit(
        self,
        train_data: Any,
        valid_data: Any = None,
        verbose: bool = True,
        saved: bool = True,
        **kwargs: Any,
    ) -> tuple[float, Result | None]:
        self._saving = saved
        if saved:
            folder = Path(self.saved_model_file).parent
            self.writes = writes_in(folder, first_here=self.config["local_rank"] == 0)
            if self.writes:
                clear_leftovers(folder, TEMPORARY)  # of runs killed while they wrote
        self._generators = loader_generators(train_data)
        self._data = data_of(train_data._dataset)
        if self.tables:
            self.tables["items"] = train_data._dataset.content.table()
        if self._resumed is not None:
            path, state = self._resumed
            refuse_other_data(path, state["data"], self._data, "start without --resume")
            if self._had_ended(state):
                CONSOLE.info("The resumed run had finished; its best model is evaluated")
                # ADMMSLIM draws noise when it scores.
                self._restore_rng(path, state["ended"] or state)
                self.eval_collector.data_collect(train_data)  # some metrics count training items
                return self.best_valid_score, self.best_valid_result
            CONSOLE.info(f"Resuming {path} after epoch {state['epoch'] + 1}")
            self._forget_other_validation(path, state)
            self.history.drop_after(self.start_epoch - 1)
        self._warn_of_untested_epochs(valid_data)
        try:
            with clear_errors(self.config):
                result = super().fit(train_data, valid_data, verbose=verbose, saved=saved, **kwargs)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(*self.resumable()) from None
        last = max(self.train_loss_dict, default=self.start_epoch - 1)
        self.stopped_early = last + 1 < self.epochs
        self._save_end(last)
        return result

    def _forget_other_validation(self, path: Path, state: dict[str, Any]) -> None:
        """Scores of another validation cannot be compared with those that follow."""
        other = differences_of_validation(state, self.config)
        if other:
            getLogger().warning(
                f"{path}: its best epoch was chosen with {', '.join(other)}; the best is chosen "
                f"anew from epoch {self.start_epoch + 1}"
            )
            self.cur_step, self.best_valid_result = 0, None
            self.best_valid_score = -math.inf if self.valid_metric_bigger else math.inf

    def _warn_of_untested_epochs(self, valid_data: Any) -> None:
        late = self.epochs % max(self.eval_step, 1)  # 0 where there are no epochs
        if valid_data and late:
            getLogger().warning(
                f"{self.epochs} epochs are no multiple of eval_step {self.eval_step}: the last "
                f"{late} have no validation, so that the best epoch is an earlier one"
            )

    def _train_epoch(
        self,
        train_data: Any,
        epoch_idx: int,
        loss_func: LossFunction | None = None,
        show_progress: bool = False,
    ) -> Totals:
        if self._resumed is not None:
            self._restore_rng(*self._resumed)
        elif epoch_idx > self.start_epoch:
            self._save_last(epoch_idx - 1)
        began = perf_counter()
        if hasattr(self.model, "begin_epoch"):
            self.model.begin_epoch(epoch_idx)
        losses = super()._train_epoch(train_data, epoch_idx, loss_func, show_progress)
        self._settle()
        self._note_training(epoch_idx, losses, perf_counter() - began)
        for name, scheduler in self.schedulers.items():
            if name != WARM_UP:  # that one takes a step with every batch
                scheduler.step()
        return losses

    def _note_training(self, epoch: int, losses: Totals, seconds: float) -> None:
        parts = losses if isinstance(losses, tuple) else (losses,)
        rates = {
            name: [float(group["lr"]) for group in optimizer.param_groups]
            for name, optimizer in self._optimizers().items()
        }
        phase = "pretraining" if self.in_first_phase else "training"
        self.history.note(
            epoch, phase=phase, loss=sum(parts), losses=parts, learning_rates=rates,
            seconds={"train": round(seconds, 3)},
        )  # fmt: skip

    def _settle(self) -> None:
        """For subclasses: what the last batch has left to do, before rates decay."""

    # ---------------------------------------------------------------------- evaluation

    def _valid_epoch(self, valid_data: Any, show_progress: bool = False) -> tuple[float, Result]:
        began = perf_counter()
        score, result = super()._valid_epoch(valid_data, show_progress)
        self._valid_result = result
        if self.history.rows:
            epoch, seconds = self.history.rows[-1]["epoch"], round(perf_counter() - began, 3)
            self.history.note(epoch, valid=dict(result), seconds={"valid": seconds})
            self._report_validation(score, result)
        if math.isnan(score):  # no epoch would be better than another, and none would be saved
            raise ConfigError(
                f"{self.config['model']}: valid_metric '{self.config['valid_metric']}' is nan on "
                f"{self.config['dataset']}; choose another"
            )
        return score, result

    def evaluate(
        self,
        eval_data: Any,
        load_best_model: bool = True,
        model_file: str | Path | None = None,
        show_progress: bool = False,
    ) -> Result | None:
        if load_best_model and eval_data:
            if torch.distributed.is_initialized():
                torch.distributed.barrier()  # another process may still be writing
            path = Path(model_file or self.saved_model_file)
            with fitting(path):
                state = read_checkpoint(path)
                self._load_weights(path, state)
            self.tested_epoch = state["epoch"] + 1
            self.logger.info(f"Loading model structure and parameters from {path}")
        plan = getattr(eval_data, "plan", None)
        self.eval_collector.plan = self.evaluator.plan = plan
        with clear_errors(self.config):
            return super().evaluate(eval_data, load_best_model=False, show_progress=show_progress)

    def _full_sort_batch_eval(self, batched_data: tuple) -> tuple:
        plan = self.eval_collector.plan
        if plan is None or not plan.sampled:
            return super()._full_sort_batch_eval(batched_data)
        interaction, rows = batched_data
        return interaction, *candidate_batch(self, plan, interaction, rows)


@cache
def compose(base: type) -> type:
    """``base`` with :class:`TrainerMixin` over it, under its own name."""
    if issubclass(base, TrainerMixin):
        return base
    pretraining = (PretrainingMixin,) if issubclass(base, PretrainTrainer) else ()
    return type(base.__name__, (*pretraining, TrainerMixin, base), {"__doc__": base.__doc__})
