"""Candidate lists as a file, so that other programs can rank the same candidates.

The file is an .npz without pickled objects: ``items`` and ``users`` are external ids (text),
``about`` describes the lists (JSON), and each phase, view and repeat has an array such as
``test/0`` or ``test_among_cold/3``: integers [users, N], row k for ``test/users[k]``, values are
indices of ``items``, padded with -1. The arrays are not compressed and have the smallest integers
that hold all indices; compressed ones and other integers are read as well. The lists hold
negatives only; positives are the interactions of the phase.
"""

from __future__ import annotations

import json
import os
import re
from logging import getLogger
from pathlib import Path
from typing import Any

import numpy as np

from recbole_cierec.errors import DataError, OutputError
from recbole_cierec.evaluation.candidates import Ragged, blocks, look_up
from recbole_cierec.evaluation.eval_mode import EvalMode
from recbole_cierec.evaluation.plan import EvaluationPlan, draw_all
from recbole_cierec.files.atomic_write import check_output, replacing
from recbole_cierec.files.npy import npz_names, read_npz
from recbole_cierec.terminal import CONSOLE


def check_candidates_file(config: Any) -> None:
    """Refuse, before any work, a ``candidates_file`` of another format or that cannot be written.

    Raises:
        DataError: It is not a file of candidates, or lacks lists and cannot be written.
    """
    phases = [phase for phase in config["eval_args"]["mode"] if EvalMode.of(config, phase).by_user]
    if not config["candidates_file"] or not phases:
        return
    path = Path(config["candidates_file"])
    known = _names(path) if os.path.isfile(path) else set()  # Path.is_file may raise
    if config["local_rank"] == 0 and not all(f"{phase}/users" in known for phase in phases):
        try:
            check_output(path)
        except OutputError as error:
            raise DataError(f"candidates_file {error}") from error


def provide_candidates(
    config: Any, phase: str, plan: EvaluationPlan, n: int, train: Any, used: Ragged
) -> None:
    """Set ``plan.negatives`` from ``candidates_file``, or let them be drawn and write that file.

    Args:
        config: RecBole config.
        phase: ``valid`` or ``test``.
        plan: With its users and views.
        n: Negatives per user.
        train: The training part, for external ids.
        used: All items that the user of each row interacted with, in any phase.

    Raises:
        DataError: The file has another format, or its lists are for other data, users or lengths.
    """
    path = Path(config["candidates_file"]) if config["candidates_file"] else None
    about = {"dataset": config["dataset"], "n": n, "seed": plan.seed, "repeats": plan.repeats}
    ids = train.field2id_token
    users, items = ids[train.uid_field], ids[train.iid_field]
    if path is not None and path.is_file():
        arrays = _read(path, phase)
        if f"{phase}/users" in arrays:
            _read_lists(path, arrays, phase, plan, users, items, used)
            _refuse_other_n(path, phase, plan, n, train.item_num, used)
            CONSOLE.info(f"{phase}: candidates from {path}")
            return
    draw_all(plan, n, train.item_num, used)
    _warn_of_short_lists(phase, plan, n)
    if path is not None and config["local_rank"] == 0:
        _write(path, phase, plan, users, items, about)


def _warn_of_short_lists(phase: str, plan: EvaluationPlan, n: int) -> None:
    for (view, repeat), rows in plan.negatives.items():
        short = int((rows.lengths < n).sum())
        if short and repeat == 0:
            getLogger().warning(
                f"{phase}{view and ' ' + view}: {short} of {len(rows.lengths)} users have fewer "
                f"than {n} items to rank against (at least {int(rows.lengths.min())})"
            )


def _name(phase: str, view: str, repeat: int) -> str:
    return f"{phase}{view and '_' + view}/{repeat}"


def _names(path: Path) -> set[str]:
    """Names of the arrays in a file of candidates; DataError for any other file."""
    try:
        names = npz_names(path)
        if "items" not in names or not names & {"valid/users", "test/users"}:
            raise ValueError("it lacks 'items', or 'test/users' and 'valid/users'")
    except (OSError, ValueError) as error:
        raise _no_candidates(path, error) from error
    return names


def _read(path: Path, phase: str | None = None) -> dict[str, np.ndarray]:
    """The arrays of a phase, or of all phases."""
    names = _names(path)
    own = re.compile(f"items|{phase}[/_].*" if phase else ".*")
    wanted = {name for name in names if own.fullmatch(name)}
    try:
        found = read_npz(path, wanted)
        arrays: dict[str, Any] = {name: found[name] for name in wanted}
        for name in {"items", *(name for name in wanted if name.endswith("/users"))}:
            arrays[name] = np.atleast_1d(arrays[name])
            if arrays[name].ndim > 1:
                raise ValueError(f"'{name}' is not a list of ids")
    except (OSError, ValueError) as error:
        raise _no_candidates(path, error) from error
    return arrays


def _no_candidates(path: Path, error: Exception) -> DataError:
    reason = getattr(error, "strerror", None) or error
    return DataError(
        f"{path}: not a file of candidates ({reason}); remove it, or set candidates_file to another"
    )


def _write(
    path: Path, phase: str, plan: EvaluationPlan, users: Any, items: Any, about: dict[str, Any]
) -> None:
    arrays: dict[str, Any] = _read(path) if path.is_file() else {}
    arrays["items"] = np.asarray(items, dtype=np.str_)
    arrays[f"{phase}/users"] = np.asarray(users, dtype=np.str_)[plan.users]
    arrays[f"{phase}/about"] = np.array(json.dumps(about))
    every, kind = np.arange(len(plan.users)), np.min_scalar_type(-len(items))
    for (view, repeat), lists in plan.negatives.items():
        width = int(lists.lengths.max(initial=0))
        arrays[_name(phase, view, repeat)] = table = np.full((len(every), width), -1, dtype=kind)
        for rows in blocks(every):
            drawn = lists.select(rows)
            part = drawn.padded(np.arange(len(rows)), -1)
            table[rows[0] : rows[-1] + 1, : part.shape[1]] = part
    with replacing(path, check=_names) as file:
        np.savez(file, **arrays)  # compression takes a minute; the smaller integers save as much


def _read_lists(
    path: Path,
    arrays: dict[str, np.ndarray],
    phase: str,
    plan: EvaluationPlan,
    users: Any,
    items: Any,
    used: Ragged,
) -> None:
    """Copy the lists into the plan, in the order of its rows, as internal ids."""
    number = {token: k for k, token in enumerate(items)}
    tokens = arrays["items"]
    internal = np.array([number.get(str(token), -1) for token in tokens.tolist()] + [-1], np.int32)
    row = {str(token): k for k, token in enumerate(arrays[f"{phase}/users"].tolist())}
    order = [row.get(token, -1) for token in np.asarray(users)[plan.users].tolist()]
    if -1 in order:
        raise DataError(
            f"{path}: has no candidates for {order.count(-1)} of {len(order)} users of the {phase} "
            "part; it belongs to another data set, split or mode of evaluation"
        )
    for view in plan.views:
        for repeat in range(plan.repeats):
            name = _name(phase, view.name, repeat)
            table = _table(path, arrays, name, len(row), len(tokens))[order]
            real = table >= 0
            ids = np.where(real, internal[table], -1)
            values = ids[real]
            if len(values) and values.min() <= 0:
                raise DataError(f"{path}: {name} names items that the data set lacks")
            _refuse_bad(path, name, ids, used)
            if view.items is not None and not view.items[values].all():
                raise DataError(f"{path}: {name} holds items that this view does not rank")
            starts = np.concatenate([[0], np.cumsum(real.sum(1))])
            plan.negatives[view.name, repeat] = Ragged(values, starts)


def _table(
    path: Path, arrays: dict[str, np.ndarray], name: str, n_rows: int, n_items: int
) -> np.ndarray:
    if name not in arrays:
        raise DataError(f"{path}: has no {name}; lower eval_repeats or draw a new file")
    table = arrays[name]
    if table.ndim != 2 or len(table) != n_rows or table.dtype.kind not in "iu":
        raise DataError(f"{path}: {name} must be whole numbers with a row for each of its users")
    if table.size and int(table.max()) >= n_items:
        raise DataError(f"{path}: {name} has an index beyond its {n_items} 'items'")
    return table


def _refuse_bad(path: Path, name: str, ids: np.ndarray, used: Ragged) -> None:
    """Refuse lists [rows, N] of internal ids, padded with -1, that repeat an item or hold one of
    ``used``. Rows are sorted by themselves, which takes a tenth of a sort of all pairs."""
    ids = np.sort(ids, axis=1)
    span = int(max(ids.max(initial=0), used.values.max(initial=0))) + 2
    cells = (ids + np.arange(len(ids), dtype=np.int64)[:, None] * span).reshape(-1)
    owners = np.repeat(np.arange(len(used.lengths)), used.lengths)
    if look_up(cells, owners * span + used.values)[1].any():
        raise DataError(f"{path}: {name} holds items that their user has interacted with")
    if ((ids[:, 1:] == ids[:, :-1]) & (ids[:, 1:] >= 0)).any():
        raise DataError(f"{path}: {name} holds an item twice for the same user")


def _refuse_other_n(
    path: Path, phase: str, plan: EvaluationPlan, n: int, n_items: int, used: Ragged
) -> None:
    """Lists may be shorter than ``n`` for lack of items, but the longest must have ``n``."""
    rows = np.repeat(np.arange(len(used.lengths)), used.lengths)
    for view in plan.views:
        pool = np.ones(n_items, dtype=bool) if view.items is None else view.items.copy()
        pool[0] = False
        left = pool.sum() - np.bincount(rows[pool[used.values]], minlength=len(used.lengths))
        for repeat in range(plan.repeats):
            longest = int(plan.negatives[view.name, repeat].lengths.max(initial=0))
            if longest != min(n, int(left.max(initial=0))):
                raise DataError(
                    f"{path}: {_name(phase, view.name, repeat)} has up to {longest} items a user, "
                    f"not the {n} of the mode user{n}; set the mode to that, or draw a new file"
                )
