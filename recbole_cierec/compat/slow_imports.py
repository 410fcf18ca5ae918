"""Keeps two slow imports out of runs that do not use them: scikit-learn and torch's compiler.

Together they take 2.7 s of processor time, three quarters of the time between ``import torch`` and
the first epoch. RecBole takes three functions of AUC, MAE and RMSE from scikit-learn, which imports
scipy.stats; torch imports its compiler when the first optimizer is created.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from types import ModuleType
from typing import Any

METRICS = "recbole.evaluator.metrics"
SLOW = "sklearn.metrics"
NAMES = ("auc", "mean_absolute_error", "mean_squared_error")  # that RecBole takes from it
HIDDEN = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")  # from the compiler
_ATTRIBUTE = "__dynamo_disable"


def _on_first_call(name: str) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        return getattr(import_module(SLOW), name)(*args, **kwargs)

    return call


class _MetricsLoader(Loader):
    """Executes RecBole's module with functions that import scikit-learn when called."""

    def __init__(self, real: Loader) -> None:
        self.real = real

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.real.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        if SLOW in sys.modules or find_spec("sklearn") is None:  # missing: RecBole's own error
            self.real.exec_module(module)
            return
        substitute = ModuleType(SLOW)
        vars(substitute).update({name: _on_first_call(name) for name in NAMES})
        sys.modules[SLOW] = substitute
        try:
            self.real.exec_module(module)
        finally:
            del sys.modules[SLOW]


class _MetricsFinder(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: Any = None
    ) -> ModuleSpec | None:
        if fullname != METRICS:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _MetricsLoader(spec.loader)
        return spec


def defer_sklearn() -> None:
    """Let RecBole's metrics import scikit-learn on their first use; call it before RecBole."""
    if not any(isinstance(finder, _MetricsFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _MetricsFinder())


def defer_compiler() -> None:
    """Let torch create optimizers without importing its compiler, ``torch._dynamo``.

    torch hides some methods of optimizers from the compiler, for which it imports the compiler on
    their first call. As long as nothing else has imported it, nothing is being compiled, so they
    can run as they are. torch keeps what it calls in an attribute of each method, which is set
    here; in a version of torch that does otherwise, setting it has no effect.
    """
    from torch.optim import Optimizer

    for name in HIDDEN:
        method = getattr(getattr(Optimizer, name), "__wrapped__", None)
        if method is not None and _ATTRIBUTE not in vars(method):
            vars(method)[_ATTRIBUTE] = _until_compiling(method)


def _until_compiling(method: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        compiler = sys.modules.get("torch._dynamo")
        if compiler is None:
            return method(*args, **kwargs)
        vars(method).pop(_ATTRIBUTE, None)  # from the next call on torch's own
        return compiler.disable(method)(*args, **kwargs)

    return call
