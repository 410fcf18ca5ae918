"""Optimizers that skip what a batch does not touch, or pass over memory only once.

A batch touches some thousand rows of the id tables. Adagrad does not move a row without gradient,
so :class:`RowAdagrad` updates only the rows of a sparse gradient, bit for bit as torch's dense
step. Adam moves every row by its moments; there torch's fused step makes a single pass over memory.
Its last bits differ from the plain step's, so the key ``optimizer_kernel`` chooses between them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adagrad, Adam, AdamW, Optimizer

from recbole_cierec.compat.slow_imports import defer_compiler

defer_compiler()
KERNELS = ("fused", "plain")
FUSED = (Adam, AdamW, SGD)
_KERNEL = ("fused", "foreach")  # settings that choose one


class RowAdagrad(Adagrad):
    """Adagrad with torch's arithmetic, on the rows of sparse gradients only."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for parameter in group["params"]:
                gradient = parameter.grad
                if gradient is None:
                    continue
                state = self.state[parameter]
                state["step"] += 1
                step = _step_on_rows if gradient.is_sparse else _step
                step(parameter, gradient, state["sum"], group)
        return loss


def _step(parameter: Tensor, gradient: Tensor, total: Tensor, group: dict) -> None:
    total.addcmul_(gradient, gradient, value=1)
    parameter.addcdiv_(gradient, total.sqrt().add_(group["eps"]), value=-group["lr"])


def _step_on_rows(table: Tensor, gradient: Tensor, totals: Tensor, group: dict) -> None:
    rows, gradient = _distinct_rows(gradient)
    total = totals.index_select(0, rows).addcmul_(gradient, gradient, value=1)
    _put(totals, rows, total)
    scale = total.sqrt_().add_(group["eps"])
    _put(table, rows, table.index_select(0, rows).addcdiv_(gradient, scale, value=-group["lr"]))


def _put(table: Tensor, rows: Tensor, values: Tensor) -> None:
    """``table[rows] = values`` on the CPU, which numpy does in half of torch's time."""
    table.detach().numpy()[rows.numpy()] = values.numpy()


def _distinct_rows(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """Row numbers and values of a sparse gradient, each row once."""
    rows = gradient._indices()[0]
    if not bool((rows[1:] > rows[:-1]).all()):  # a table that was looked up more than once
        gradient = gradient.coalesce()
    return gradient._indices()[0], gradient._values()


def load_state(optimizer: Optimizer, state: dict) -> None:
    """Load the state of an optimizer of the same kind, on the same parameters.

    torch accepts anything of the right nesting, and fails later in the middle of a step.

    Args:
        optimizer: Any of torch whose state is numbers, and tensors shaped as their parameter.
        state: From ``state_dict``.

    Raises:
        ValueError: A part of the state is missing or of another form.
    """
    before = [_settings(group) for group in optimizer.param_groups]
    initialised = set(optimizer.state)  # Adagrad's parameters have state before the first step
    optimizer.load_state_dict(state)
    if not initialised <= set(optimizer.state):
        raise ValueError("lacks the state of some parameters")
    if [_settings(group) for group in optimizer.param_groups] != before:
        raise ValueError("settings of another kind of optimizer")
    if len({frozenset(kept) for kept in optimizer.state.values()}) > 1:
        raise ValueError("lacks a part of its state for some parameters")
    for parameter, kept in optimizer.state.items():
        for name, value in kept.items():
            shape = None if value is None else getattr(value, "shape", ())
            if name == "step":
                fits = shape == () and _is_number(value)
            else:
                fits = value is None or _matches(value, parameter)
            if not fits:
                raise ValueError(f"{name} of a parameter {list(parameter.shape)} does not match it")


def _settings(group: dict) -> dict:
    """Settings that are equal for all optimizers of a kind: schedules change numbers, and kernels
    differ."""
    apart = {"params", "initial_lr"} | {k for k in _KERNEL if group.get(k) in (None, True, False)}
    found = {k: list(v) if isinstance(v, tuple) else v for k, v in group.items()}
    return {k: _is_number(v) or v for k, v in found.items() if k not in apart}


def _is_number(value: object) -> bool:
    if isinstance(value, Tensor):
        return value.dim() == 0 and value.dtype != torch.bool
    if isinstance(value, int):  # torch converts it to a double
        return not isinstance(value, bool) and abs(value) < 2**53
    return isinstance(value, float)


def _matches(value: object, parameter: Tensor) -> bool:
    if not isinstance(value, Tensor):
        return False
    return value.shape == parameter.shape and value.is_floating_point()


def quick(optimizer: Optimizer, kernel: str) -> Optimizer:
    """The fastest form of an optimizer that has not been used yet.

    Args:
        optimizer: Any; one of another kind than those above is returned unchanged.
        kernel: One of :data:`KERNELS`.
    """
    groups = [dict(group) for group in optimizer.param_groups]
    if type(optimizer) is Adagrad and not any(g["weight_decay"] or g["lr_decay"] for g in groups):
        return RowAdagrad(groups)
    if type(optimizer) in FUSED and kernel == "fused":
        for group in groups:
            group |= {"fused": True, "foreach": None}
        kind: Any = type(optimizer)
        return kind(groups, fused=True)
    return optimizer
