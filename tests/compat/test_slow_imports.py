"""Imports that only some runs need stay out of the others, and work where they are needed."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

HEAVY = (
    "torch._dynamo", "torch._inductor", "sympy", "triton", "sklearn", "scipy.stats", "torchvision",
    "optuna", "matplotlib", "duckdb", "ray", "PIL", "fastapi",
)  # fmt: skip
CHILD = """
import json, sys
import recbole_cierec
from recbole_cierec.quick_start import run, load
from recbole.trainer import Trainer

keys, heavy = json.loads(sys.argv[1]), json.loads(sys.argv[2])
found, train = {}, Trainer._train_epoch

def note(self, *args, **kwargs):
    found.setdefault("epoch", [name for name in heavy if name in sys.modules])
    return train(self, *args, **kwargs)

Trainer._train_epoch = note
run("MF", config_dict=keys, saved=False) if sys.argv[3] == "MF" else load(sys.argv[3])
found.setdefault("load", [name for name in heavy if name in sys.modules])
print(json.dumps(found))
"""


def imported(argument: str, keys: dict, cwd) -> dict[str, list[str]]:
    """Heavy modules in a new Python, at the first epoch of MF or after loading a checkpoint."""
    words = [sys.executable, "-c", CHILD, json.dumps(keys, default=str), json.dumps(HEAVY)]
    done = subprocess.run([*words, argument], cwd=cwd, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_mf_reaches_its_first_epoch_without_heavy_modules(tiny, in_tmp):
    assert imported("MF", tiny(dataset="tiny", epochs=1), in_tmp)["epoch"] == []


def test_vbpr_with_given_features_is_loaded_without_heavy_modules(tiny, in_tmp):
    from recbole_cierec import run

    result = run("VBPR", config_dict=tiny(dataset="tiny", epochs=1))
    assert imported(str(result["checkpoint"]), {}, in_tmp)["load"] == []


def test_deferred_metrics_give_the_values_of_scikit_learn():
    from recbole.evaluator import metrics

    assert metrics.sk_auc(np.array([0.0, 0.5, 1.0]), np.array([0.0, 1.0, 1.0])) == pytest.approx(
        0.75
    )
    assert metrics.mean_absolute_error([1.0, 2.0], [2.0, 4.0]) == 1.5
    import sklearn.metrics

    assert hasattr(sklearn.metrics, "roc_curve")  # the module itself is no substitute


def test_optimizers_hide_from_the_compiler_once_it_is_imported():
    import torch._dynamo

    from recbole_cierec.compat.slow_imports import HIDDEN, defer_compiler

    for name in HIDDEN:
        vars(getattr(torch.optim.Optimizer, name).__wrapped__).pop("__dynamo_disable", None)
    defer_compiler()
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    ours = vars(torch.optim.Optimizer.zero_grad.__wrapped__)["__dynamo_disable"]
    optimizer.zero_grad()
    optimizer.zero_grad()
    torchs = vars(torch.optim.Optimizer.zero_grad.__wrapped__)["__dynamo_disable"]
    assert torchs is not ours
    assert getattr(torchs, "_torchdynamo_disable", False)
