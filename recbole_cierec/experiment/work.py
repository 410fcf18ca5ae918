"""One run or search of an experiment, from its claim to its row."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from functools import partial
from logging import getLogger
from pathlib import Path
from typing import Any

import torch

from recbole_cierec.config.config import Config
from recbole_cierec.errors import CheckpointError, UserError
from recbole_cierec.evaluation.per_user import by_user_file
from recbole_cierec.experiment.folder import Folder
from recbole_cierec.experiment.plan import Run, Search, space_of
from recbole_cierec.experiment.rows import Row, append_row
from recbole_cierec.files.atomic_write import replace
from recbole_cierec.quick_start import run as train_and_test
from recbole_cierec.terminal import reason
from recbole_cierec.trainer.provenance import provenance
from recbole_cierec.tuning import tune

Task = Run | Search


def perform(folder: Folder, task: Task, keep_checkpoints: bool, place: dict[str, Any]) -> bool:
    """Do a run or search and append its row, unless another process does it or it is done.

    Any error becomes a row with ``error``; the caller goes on with other tasks.

    Args:
        folder: Folder of the experiment.
        task: The run or search.
        keep_checkpoints: Whether the checkpoints of a run stay.
        place: Keys of this process (``gpu_id``), which do not affect results.

    Returns:
        Whether a row was appended.
    """
    with folder.claimed(task.key) as mine:
        if not mine:
            return False
        done = folder.done()  # another machine may have finished it a moment ago
        if isinstance(task, Search):
            if done.search(task):
                return False
            append_row(folder.searches, _row(task, lambda: _search(folder, task, place)))
            return True
        settings = done.settings(task)
        if settings is None or done.run(task):
            return False
        work = partial(_run, folder, task, settings, place, keep_checkpoints)
        append_row(folder.rows, _row(task, work))
        return True


def _row(task: Task, work: Callable[[], Row]) -> Row:
    """The row of a task, with its error if it fails."""
    row: Row = {
        "key": task.key,
        "model": task.model.label,
        "class": task.model.name,
        "dataset": task.dataset,
        "protocol": task.protocol,
        "seed": task.keys["seed"],
        "variant": task.model.variant,
        "digest": task.digest,
        "data": task.data,
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "error": None,
    }
    start, cpu = time.perf_counter(), time.process_time()
    try:
        row |= work()
    except UserError as error:
        row["error"] = str(error)
    except Exception as error:  # a fault in one model must not end the others
        getLogger().error(f"{task.key} failed", exc_info=True)
        row["error"] = f"{type(error).__name__}: {reason(error)}"
    wall = round(time.perf_counter() - start, 2)
    seconds = {"wall": wall, "cpu": round(time.process_time() - cpu, 2)}
    row["seconds"] = {**seconds, **row.get("seconds", {})}
    return row


# -------------------------------------------------------------------------------------- run


def _run(
    folder: Folder, run: Run, settings: dict[str, Any], place: dict[str, Any], keep: bool
) -> Row:
    keys = {
        "state": "warning",
        **run.keys,
        **settings,
        **place,
        "checkpoint_dir": str(folder.run(run.key)),
        "show_progress": False,
    }
    result, resumed, leader = _result(folder, run, keys)
    seconds = {name: round(value, 2) for name, value in result["seconds"].items()}
    if leader is not None:
        resumed = leader["resumed"]
        seconds |= {name: leader["seconds"][name] for name in ("fit", "fit_cpu")}
    config = Config(run.model.name, run.dataset, None, keys)
    folder.keep_stages(run.key)
    checkpoint = Path(result["checkpoint"])
    users = _keep_users(folder, run, checkpoint)
    return {
        "settings": settings,
        "keys": run.keys,
        "config_digest": config.digest(),
        "versions": provenance(config)["versions"],
        "machine": machine(),
        "valid_metric": config["valid_metric"],
        "valid_score": result["best_valid_score"],
        "valid": dict(result["best_valid_result"] or {}),
        "test": dict(result["test_result"] or {}),
        "chance": dict(result["chance"]),
        "epochs": result["epochs"],
        # the first phase of a model of two counts in the result, and not in the key
        "epoch_cap": result["epochs"] >= config["epochs"] and not result["stopped_early"],
        "resumed": resumed,
        "parameters": result["parameters"],
        "trained_by": leader and leader["key"],
        "seconds": seconds,
        **peak_memory(),
        "stages": result["stages"],
        "users": users and str(users.relative_to(folder.path)),
        "checkpoint": str(checkpoint) if keep else None,
        "log": result["log_file"],
    }


def _result(
    folder: Folder, run: Run, keys: dict[str, Any]
) -> tuple[dict[str, Any], bool, Row | None]:
    """The result of a run, whether it was resumed, and the row of the leader whose model it tests.

    A checkpoint that does not fit is removed, and the run trains from its beginning.
    """
    resumed, leader = _unfinished(folder, run.key), None
    if not resumed and run.leader is not None:
        done = folder.done()  # a leader that failed may have left a checkpoint of an early epoch
        if done.run(run.leader) and folder.lend_checkpoint(run.leader.key, run.key):
            leader = done.runs[run.leader.key]
    try:
        return _train(run, keys, auto=resumed or leader is not None), resumed, leader
    except CheckpointError:
        if not resumed and leader is None:
            raise
        getLogger().warning(f"{run.key}: its checkpoint does not fit; it is trained again")
        folder.remove_run(run.key)
        resumed = _unfinished(folder, run.key)
        return _train(run, keys, auto=False), resumed, None


def _keep_users(folder: Folder, run: Run, checkpoint: Path) -> Path | None:
    """Move the results by user to where they stay; None: the run has none."""
    users = by_user_file(checkpoint)
    if not users.is_file():
        return None
    kept = folder.users_file(run.key)
    kept.parent.mkdir(parents=True, exist_ok=True)
    replace(users, kept)
    return kept


def _train(run: Run, keys: dict[str, Any], auto: bool) -> dict[str, Any]:
    keys = {**keys, "resume": "auto"} if auto else keys
    result = train_and_test(run.model.name, run.dataset, config_dict=keys)
    assert result is not None  # noqa: S101 (one machine runs it)
    return result


def _unfinished(folder: Folder, key: str) -> bool:
    """Link the shared stages; whether an interrupted process left a checkpoint of this run."""
    lent = folder.lend_stages(key)
    return any(path.name not in lent for path in folder.run(key).glob("*.pth"))


# ----------------------------------------------------------------------------------- search


def _search(folder: Folder, search: Search, place: dict[str, Any]) -> Row:
    budget = search.budget
    found = tune(
        search.model.name,
        search.dataset,
        trials=budget.trials,
        flags={"state": "warning", **search.keys, **place},
        search=space_of(search.model),
        out=folder.tuning,
        name=search.study,
        sampler=budget.sampler,
        pruner=budget.pruner,
        seconds=budget.seconds,
        capped=True,
    )
    rows = found["rows"]
    return {
        "settings": found["best"]["settings"],
        "budget": [budget.seconds, budget.trials],
        "trials": len(rows),
        "pruned": sum(row["state"] == "pruned" for row in rows),
        "failed": sum(row["state"] == "failed" for row in rows),
        "valid_score": found["best"]["valid"],
        "machine": machine(),
        "seconds": {"trials_cpu": round(sum(row.get("cpu_seconds", 0.0) for row in rows), 2)},
        "files": {name: str(path) for name, path in found["files"].items()},
    }


# ---------------------------------------------------------------------------------- machine


def machine() -> dict[str, Any]:
    """What the seconds of a row depend on."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "host": platform.node(),
        "system": platform.platform(terse=True),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
    }


def peak_memory() -> dict[str, int | None]:
    """Peak of this process in MiB: ``peak_mib``, None on Windows, and ``gpu_mib``."""
    try:
        import resource
    except ImportError:
        peak = None
    else:
        unit = 2**20 if sys.platform == "darwin" else 2**10
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // unit
    gpu = torch.cuda.max_memory_allocated() // 2**20 if torch.cuda.is_initialized() else None
    return {"peak_mib": peak, "gpu_mib": gpu}
