"""Keeps slow imports out of runs that do not use them: scikit-learn and torch's compiler.

RecBole takes three functions of AUC, MAE and RMSE from scikit-learn, which imports scipy.stats.
torch imports its compiler when the first optimizer is created, and torchvision for an operation
that no classification network has. Together they take 2.7 s of processor time, three quarters of
the time between ``import torch`` and the first epoch, and 0.2 GB.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from types import ModuleType
from typing import Any, NamedTuple


class Import(NamedTuple):
    """Functions that a module imports, and calls only in rare cases."""

    module: str
    names: tuple[str, ...]


# The module that imports -> what it imports.
DEFERRED = {
    "recbole.evaluator.metrics": Import(
        "sklearn.metrics", ("auc", "mean_absolute_error", "mean_squared_error")
    ),
    "torchvision.ops.roi_align": Import("torch._dynamo.utils", ("is_compile_supported",)),
}
HIDDEN = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")  # from the compiler
_ATTRIBUTE = "__dynamo_disable"


def _on_first_call(module: str, name: str) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        return getattr(import_module(module), name)(*args, **kwargs)

    return call


class _DeferringLoader(Loader):
    """Executes a module with functions that do their import when they are called."""

    def __init__(self, real: Loader, slow: Import) -> None:
        self.real, self.slow = real, slow

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.real.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        slow, names = self.slow
        package = slow.partition(".")[0]
        if slow in sys.modules or find_spec(package) is None:  # missing: the module's own error
            self.real.exec_module(module)
            return
        substitute = ModuleType(slow)
        vars(substitute).update({name: _on_first_call(slow, name) for name in names})
        sys.modules[slow] = substitute
        try:
            self.real.exec_module(module)
        finally:
            del sys.modules[slow]


class _DeferringFinder(MetaPathFinder):
    """Finds the modules in :data:`DEFERRED`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: Any = None
    ) -> ModuleSpec | None:
        if fullname not in DEFERRED:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _DeferringLoader(spec.loader, DEFERRED[fullname])
        return spec


def defer_imports() -> None:
    """Defer the imports in :data:`DEFERRED`; call it before the modules there are imported."""
    if not any(isinstance(finder, _DeferringFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _DeferringFinder())


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
