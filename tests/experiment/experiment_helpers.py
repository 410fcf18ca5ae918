"""A small experiment on the planted data of the tests of tuning."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from tune_helpers import FIXED

from recbole_cierec.experiment import run_experiment

# What a repeated run may change.
OF_THE_CLOCK = {"seconds", "started", "log", "peak_mib", "gpu_mib", "resumed", "machine"}


def content(data: Path, **parts: Any) -> dict[str, Any]:
    """The content of a file: MF with two seeds, unless ``parts`` say otherwise."""
    return {
        "models": ["MF"],
        "datasets": [{"name": "tastes", "data_path": str(data)}],
        "seeds": [1, 2],
        "overrides": {**FIXED, "use_gpu": False, "topk": [3], "valid_metric": "Recall@3"},
        "report": {"metrics": ["recall@3"], "groups": ["all", "warm"]},
        **parts,
    }


def write(data: Path, path: Path = Path("e.yaml"), **parts: Any) -> Path:
    path.write_text(yaml.safe_dump(content(data, **parts), sort_keys=False))
    return path


def experiment(data: Path, out: str = "out", workers: int = 0, **parts: Any) -> dict[str, Any]:
    return run_experiment(write(data, **parts), out, workers)


def lasting(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows without what depends on the clock and the machine."""
    return [{k: v for k, v in row.items() if k not in OF_THE_CLOCK} for row in rows]


def wait_for(holds: Callable[[], object], seconds: float = 300.0) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)
