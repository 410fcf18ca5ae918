"""One trial of a search: train a model with some settings and validate it.

A trial does what ``run`` does (pretrained models, phases, log, TensorBoard), but never evaluates
the test part and leaves no checkpoint. The model that another one starts from (AMR: VBPR) does not
depend on the keys of the latter: it is trained once and kept while the search lasts.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Mapping
from logging import getLogger
from time import perf_counter, process_time
from typing import Any

import torch

from recbole_cierec.compat.warnings import quiet_recbole
from recbole_cierec.config.config import Config
from recbole_cierec.errors import CheckpointError, DataError, PictureError
from recbole_cierec.logs import start_log, stop_log
from recbole_cierec.quick_start import prepare
from recbole_cierec.terminal import reason
from recbole_cierec.trainer.resuming import data_of
from recbole_cierec.tuning.ranges import same
from recbole_cierec.tuning.search import Search
from recbole_cierec.tuning.study import Row

Watch = Callable[[int, float], bool]


class _HopelessError(Exception):
    """The trial was stopped after an epoch, with its validation score."""


def run_trial(
    search: Search,
    settings: dict[str, Any],
    check_data: Callable[[Mapping[str, str]], None],
    watch: Watch | None = None,
) -> Row:
    """Train with some settings.

    Args:
        search: The search.
        settings: Key to value.
        check_data: Called with the digests of the training data before the training.
        watch: Called with epoch and score after each validation; whether to stop the trial.

    Returns:
        ``settings``, ``valid`` (None and a ``reason`` if the trial failed), ``pruned`` (only of a
        stopped trial, whose ``valid`` is its last score), ``metrics``, ``epochs``, ``best_epoch``,
        ``seconds``, ``cpu_seconds`` and ``log``.

    Raises:
        UserError: What would stop all other trials too: the data, pictures, a checkpoint.
    """
    start, cpu = perf_counter(), process_time()
    outcome: Row = {"settings": settings, "valid": None}
    try:
        outcome |= _train(search.config(settings), check_data, watch)
    except _HopelessError as stop:
        epoch, score = stop.args
        outcome |= {"valid": score, "pruned": True, "epochs": epoch + 1, "best_epoch": epoch + 1}
    except (DataError, PictureError, CheckpointError):
        raise
    except (ArithmeticError, MemoryError, RuntimeError, ValueError) as error:
        # A loss that is not finite, no memory, sizes that do not match: due to these settings.
        getLogger().info(f"the trial failed with {settings}", exc_info=True)
        outcome["reason"] = reason(error)
    finally:
        stop_log()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    outcome["seconds"] = round(perf_counter() - start, 2)
    outcome["cpu_seconds"] = round(process_time() - cpu, 2)
    return outcome


def _train(
    config: Config, check_data: Callable[[Mapping[str, str]], None], watch: Watch | None
) -> Row:
    def validated(epoch: int, score: float) -> None:
        if watch is not None and math.isfinite(score) and watch(epoch, float(score)):
            raise _HopelessError(epoch, float(score))

    log = start_log(config)
    getLogger().info(config)
    for note in config.notes:
        getLogger().warning(note)
    with quiet_recbole():
        # Saving is on for the model that this one starts from, so that its best epoch counts.
        job = prepare(config)
        train, valid, _ = job.loaders
        check_data(data_of(train._dataset))
        try:
            score, result = job.trainer.fit(
                train,
                valid,
                saved=False,
                show_progress=config["show_progress"],
                callback_fn=validated,
            )
        finally:
            job.trainer.end_report(None)
    outcome: Row = {"log": log and str(log)}
    if score is None or not math.isfinite(score):
        return {**outcome, "reason": f"{config['valid_metric']} of validation is {score}"}
    numbers = {name: float(value) for name, value in result.items()}
    epochs = max(job.trainer.train_loss_dict, default=-1) + 1
    step = job.trainer.eval_step
    return {
        **outcome,
        "valid": float(score),
        "metrics": {name: value for name, value in numbers.items() if math.isfinite(value)},
        "epochs": epochs,
        "best_epoch": (epochs // step - job.trainer.cur_step) * step,
    }


def repeated(rows: list[Row], settings: dict[str, Any]) -> Row | None:
    """The outcome of an earlier trial with the same settings, which would be the same."""
    for row in rows:
        if row["state"] == "complete" and same(row["settings"], settings):
            kept = {k: v for k, v in row.items() if k not in ("trial", "state")}
            return {**kept, "repeats": row["trial"], "seconds": 0.0, "cpu_seconds": 0.0}
    return None
