"""Results by user on disk, for significance tests.

``saved/RUN.users.npz``, next to ``saved/RUN.pth``, holds ``users`` (external ids), one float64
array per metric (``recall@10``; with repeats the mean of each user), and ``about`` (JSON). It has
no pickled objects.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from recbole_cierec.errors import DataError
from recbole_cierec.evaluation.names import ALL, join_name, split_name
from recbole_cierec.files.atomic_write import replacing
from recbole_cierec.files.by_age import by_age
from recbole_cierec.files.npy import read_npz
from recbole_cierec.files.run_files import next_to

if TYPE_CHECKING:
    from recbole_cierec.evaluation.evaluator import PlanEvaluator
    from recbole_cierec.evaluation.plan import EvaluationPlan

SUFFIX = ".users.npz"
GROUP = "group/"  # begins the names of groups


@dataclass
class UserResults:
    """A file that :func:`save_per_user` wrote.

    Attributes:
        name: Name of the run, for tables.
        users: External ids [n].
        values: Values [n] by metric, and bool [n] by ``group/NAME``.
        about: model, dataset, seed, digests, protocol and, by metric, the result of chance.
        path: Path of the file, for messages.
    """

    name: str
    users: np.ndarray
    values: dict[str, np.ndarray]
    about: dict
    path: Path

    @property
    def names(self) -> list[str]:
        """Every name that :meth:`of` has values for."""
        groups = [name.removeprefix(GROUP) for name in self.values if name.startswith(GROUP)]
        metrics = [name for name in self.values if not name.startswith(GROUP)]
        whole = [name for name in metrics if split_name(name)[1] == ALL]
        return [*metrics, *(join_name(name, group) for group in groups for name in whole)]

    def of(self, name: str) -> np.ndarray | None:
        """Values [n] of a result, nan for users outside of its group; None: it has none.

        Args:
            name: As in a result: ``recall@10``, ``recall@10_cold``, ``recall@10_among_cold``.
        """
        if name in self.values:
            return self.values[name]
        metric, group = split_name(name)
        members, whole = self.values.get(f"{GROUP}{group}"), self.values.get(metric)
        return None if members is None or whole is None else np.where(members, whole, np.nan)


def save_per_user(
    checkpoint: Path,
    evaluator: PlanEvaluator,
    dataset: Any,
    config: Any,
    chance: Mapping[str, float],
) -> Path | None:
    """Write the values by user of the last evaluation.

    Args:
        checkpoint: The run's checkpoint; the file is written next to it.
        evaluator: After the test.
        dataset: Any part, for external ids.
        config: RecBole config.
        chance: The result of a random ranking, by metric.

    Returns:
        The path of the file; None if the evaluation had no rankings.
    """
    if not evaluator.per_user or evaluator.plan is None:
        return None
    about = {
        "model": config["model"],
        "dataset": config["dataset"],
        "seed": config["seed"],
        "config_digest": config.digest(),
        "data_digest": evaluated_digest(dataset, evaluator.plan),
        "protocol": config.compared()
        | {"eval_args": {k: str(v) for k, v in config["eval_args"].items()}},
        "chance": {k: v for k, v in chance.items() if math.isfinite(v)},
    }
    names = dataset.field2id_token[dataset.uid_field]
    arrays: dict[str, Any] = {
        "users": np.asarray(names, dtype=np.str_)[evaluator.users],
        "about": np.array(json.dumps(about)),
        **evaluator.per_user,
    }
    if evaluator.plan.user_groups is not None:
        for name, mask in evaluator.plan.user_groups.masks(evaluator.users).items():
            arrays[f"{GROUP}{name}"] = mask
    path = by_user_file(checkpoint)
    with replacing(path) as file:
        np.savez_compressed(file, **arrays)
    return path


def by_user_file(checkpoint: Path) -> Path:
    """The path of the results by user, for the best or the last checkpoint of a run."""
    return next_to(checkpoint, SUFFIX)


def evaluated_digest(dataset: Any, plan: EvaluationPlan) -> str:
    """sha256 of what was ranked: ids, positives and, in ``userN`` mode, the candidate lists.

    It is equal for all kinds of models, whose parts store the same interactions differently, and
    differs for lists from another ``candidates_file``.
    """
    state = hashlib.sha256()
    arrays: Iterable[np.ndarray]
    for field in (dataset.uid_field, dataset.iid_field):
        state.update("\0".join(map(str, dataset.field2id_token[field])).encode())
    if plan.sampled:
        arrays = plan.ranked()
    else:
        pairs = [np.asarray(dataset.inter_feat[f]) for f in (dataset.iid_field, dataset.uid_field)]
        order = np.lexsort(pairs)
        arrays = [side[order] for side in pairs]
    for array in arrays:
        state.update(np.ascontiguousarray(array, dtype=np.int64).tobytes())
    return state.hexdigest()


def read_per_user(path: Path) -> UserResults:
    """Read a file, or the newest file of a folder.

    Raises:
        DataError: There is no such file, or :func:`save_per_user` did not write it.
    """
    path = Path(path)
    if os.path.isdir(path):  # Path.is_dir may raise
        files = by_age(path.glob(f"*{SUFFIX}"))
        if not files:
            raise DataError(f"{path}: no *{SUFFIX} in this folder; runs write them to saved/")
        path = files[-1]
    if path.suffix == ".pth":
        raise DataError(
            f"{path}: a checkpoint; give the run's results by user, {by_user_file(path)}"
        )
    try:
        arrays = read_npz(path)
        about = json.loads(str(arrays.pop("about")))
        users = arrays.pop("users")
        _check(users, arrays, about)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; runs write *{SUFFIX} to saved/") from None
    except (OSError, ValueError, KeyError, RecursionError) as error:
        raise DataError(f"{path}: not a file of results by user ({error})") from error
    return UserResults(path.name.removesuffix(SUFFIX), users, arrays, about, path)


def _check(users: np.ndarray, values: dict[str, np.ndarray], about: object) -> None:
    """Raise ValueError for arrays and a description that :func:`save_per_user` cannot have written.

    Infinite values would cause warnings and nan in the table.
    """
    if not isinstance(about, dict):
        raise ValueError("'about' is not a mapping")
    if users.ndim != 1 or users.dtype.kind != "U":
        raise ValueError("'users' is not a list of ids")
    for name, array in values.items():
        if array.shape != users.shape or array.dtype.kind not in "fb" or np.isinf(array).any():
            raise ValueError(f"'{name}' is not one finite number per user")
