"""Results of all rows and of each group, computed in one pass over the scores.

RecBole collects one row per user for its metrics. The result of a group of users is RecBole's
metric on their rows; that of a group of items is the metric on its hits and positives.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from logging import getLogger
from typing import Any

import numpy as np
import torch
from recbole.evaluator import Evaluator
from recbole.evaluator.collector import DataStruct
from recbole.utils import EvaluatorType

from recbole_cierec.evaluation.chance import Ranked
from recbole_cierec.evaluation.collector import ROWS, Collected
from recbole_cierec.evaluation.names import ITEM_GROUPS
from recbole_cierec.evaluation.plan import EvaluationPlan


class PlanEvaluator(Evaluator):
    """RecBole's evaluator for all users, and for each group and view.

    Keys are ``recall@10`` for all, ``recall@10_cold`` for a group of users,
    ``recall@10_item_unseen`` for a group of items and ``recall@10_among_cold`` for a view. With
    repeats these are means, and ``recall@10_std`` and so on are standard deviations.
    Empty groups are reported as nan.

    Attributes:
        plan: None: no groups.
        shares: The share of users or positives of each group in the last evaluation.
        ranked: Users, positives and candidates of each group and view in the last evaluation; that
            of all users has an empty name.
        users: Internal ids [R] of the rows of the last evaluation.
        per_user: Values [R] by metric, means over the repeats; those of a group of items or of a
            view, such as ``recall@10_among_cold``, are NaN for users without a positive in it.
    """

    plan: EvaluationPlan | None = None

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.shares: dict[str, float] = {}
        self.ranked: dict[str, Ranked] = {}
        self.users = np.empty(0, dtype=np.int64)
        self.per_user: dict[str, np.ndarray] = {}
        self._plain: list[str] = []  # metrics without a group's or view's name
        self._ranked = [m for m in self.metrics if self.metric_class[m].metric_need == ["rec.topk"]]

    def evaluate(self, dataobject: Collected | DataStruct) -> OrderedDict:
        ranking = self.config["eval_type"] == EvaluatorType.RANKING
        if not ranking and self.plan is not None:
            return super().evaluate(gathered_scores(dataobject, self.plan.size))
        collected = gathered_rows(dataobject) if ranking else None
        if not collected:
            return super().evaluate(dataobject)
        self.per_user, self.ranked = {}, {}
        repeats: dict[int, OrderedDict] = {}
        for (view, repeat), rows in collected.items():
            part = self._part(rows, view) if view else self._whole(rows)
            named = {f"{metric}_{view}" if view else metric: v for metric, v in part.items()}
            repeats.setdefault(repeat, OrderedDict()).update(named)
        for result in repeats.values():
            for other in self.plan.views[1:] if self.plan is not None else []:
                for metric in self._plain:  # no user has a positive in the view
                    result.setdefault(f"{metric}_{other.name}", float("nan"))
        self.per_user = {name: v / len(repeats) for name, v in self.per_user.items()}
        return _mean(list(repeats.values()), self.config["metric_decimal_place"])

    def _whole(self, struct: DataStruct) -> OrderedDict:
        values: dict[str, np.ndarray] = {}
        with self._captured(values=values):
            result = super().evaluate(struct)
        self._plain = list(result)
        self._note("", struct)
        if self.plan is None:
            return result
        self.users = struct.get("rec.users").numpy()
        if self.plan.user_groups is None:
            return result
        metrics = list(result)
        for name, mask in self.plan.user_groups.masks(self.users).items():
            self.shares[name] = float(mask.mean())
            self._note(name, struct, mask)
            part = self._of_group(struct, mask, values) if mask.any() else {}
            result.update({f"{m}_{name}": part.get(m, float("nan")) for m in metrics})
        result.update(self._item_groups(struct))
        return result

    def _of_group(
        self, struct: DataStruct, mask: np.ndarray, values: dict[str, np.ndarray]
    ) -> dict[str, float]:
        """The metrics of the users of ``mask``; ``values`` are those of all users by metric."""
        result: dict[str, float] = {}
        rows = None
        for name in self.metrics:
            metric, value = self.metric_class[name], values.get(name)
            if value is not None and len(value) == len(mask):
                result.update(metric.topk_result(name, value[mask]))
            else:
                rows = _rows(struct, mask) if rows is None else rows
                result.update(metric.calculate_metric(rows))
        return result

    def _part(self, struct: DataStruct, view: str) -> OrderedDict:
        """Evaluate a view; its users are among those of the whole, which is evaluated before."""
        self._note(view, struct)
        order = np.argsort(self.users)
        if len(np.unique(self.users)) < len(order):  # several rows per user: their order is unknown
            return super().evaluate(struct)
        places = np.searchsorted(self.users, struct.get("rec.users").numpy(), sorter=order)
        with self._captured(f"_{view}", order[places]):
            return super().evaluate(struct)

    def _item_groups(self, struct: DataStruct) -> dict[str, float]:
        result = {}
        lengths = struct.get("rec.group_len")
        for k, name in enumerate(ITEM_GROUPS):
            self.shares[name] = float(lengths[:, k].sum() / lengths.sum())
            has = lengths[:, k] > 0
            hits = (struct.get("rec.hit_group")[has] == k + 1).to(torch.int32)
            self._note(name, struct, has.numpy(), k)
            part = DataStruct()
            part.set("rec.topk", torch.cat([hits, lengths[has, k : k + 1].to(torch.int32)], 1))
            with self._captured(f"_{name}", np.flatnonzero(has.numpy())):
                for metric in self._ranked:
                    values = self.metric_class[metric].calculate_metric(part) if has.any() else {}
                    for k_name in (f"{metric}@{cut}" for cut in self.config["topk"]):
                        result[f"{k_name}_{name}"] = values.get(k_name, float("nan"))
        return result

    def _note(
        self,
        name: str,
        struct: DataStruct,
        mask: np.ndarray | None = None,
        group: int | None = None,
    ) -> None:
        """Note how many items were ranked for the rows of a group: those of ``mask``, with the
        positives of one item group if ``group`` is given; the first repeat counts."""
        chosen = torch.from_numpy(mask) if mask is not None else slice(None)
        lengths, candidates, users = (
            struct.get(f"rec.{part}")[chosen].numpy()
            for part in ("group_len", "candidates", "users")
        )
        positives = lengths.sum(1) if group is None else lengths[:, group]
        self.ranked.setdefault(name, Ranked(len(np.unique(users)), positives, candidates))

    def chance(self) -> dict[str, float]:
        """The expected result of a random ranking of the same candidates, with the names of the
        result (:mod:`recbole_cierec.evaluation.chance`)."""
        metrics, levels = list(self.metrics), {}
        for group, ranked in self.ranked.items():
            kinds = metrics if group not in ITEM_GROUPS else self._ranked
            for name, value in ranked.chance(kinds, self.config["topk"]).items():
                key = f"{name}_{group}" if group else name
                levels[key] = round(value, self.config["metric_decimal_place"])
        return levels

    @contextmanager
    def _captured(
        self,
        end: str = "",
        rows: np.ndarray | None = None,
        values: dict[str, np.ndarray] | None = None,
    ) -> Iterator[None]:
        """Within the context every ranking metric also stores its values by user in ``per_user``.

        Args:
            end: Suffix of the metric's name.
            rows: Indices of the evaluated ``users``; None: all.
            values: Gets the values [R, k] by user of each metric that passes them on by its name.
        """
        for name in self._ranked:
            metric = self.metric_class[name]
            metric.topk_result = self._keeping(metric.topk_result, end, rows, values)
        try:
            yield
        finally:
            for name in self._ranked:
                del self.metric_class[name].topk_result

    def _keeping(
        self,
        topk_result: Callable[..., dict],
        end: str,
        rows: np.ndarray | None,
        values: dict[str, np.ndarray] | None,
    ) -> Callable[..., dict]:
        def keep(metric: str, value: np.ndarray) -> dict[str, Any]:
            everyone = value
            if values is not None:
                values[metric] = value
            if rows is not None:
                everyone = np.full((len(self.users), value.shape[1]), np.nan)
                everyone[rows] = value
            for k in self.config["topk"]:
                name = f"{metric}@{k}{end}"
                self.per_user[name] = self.per_user.get(name, 0.0) + everyone[:, k - 1]
            return topk_result(metric, value)

        return keep

    def log_shares(self) -> None:
        """Log the share of users, and of positives, of each group in one line."""
        if self.shares:
            text = ", ".join(f"{name} {share:.1%}" for name, share in self.shares.items())
            getLogger().info(f"Shares of users and, for items, of test positives: {text}")


def _mean(results: list[OrderedDict], places: int) -> OrderedDict:
    """Means over repeats, then sample standard deviations as ``NAME_std``."""
    if len(results) == 1:
        return results[0]
    means, spreads = OrderedDict(), OrderedDict()
    for name in results[0]:
        values = np.array([result[name] for result in results], dtype=float)
        means[name] = round(float(values.mean()), places)
        spreads[f"{name}_std"] = round(float(values.std(ddof=1)), places)
    return OrderedDict(**means, **spreads)


def _rows(struct: DataStruct, mask: np.ndarray) -> DataStruct:
    """The struct with only the rows of ``mask``."""
    part = DataStruct()
    chosen = torch.from_numpy(mask)
    for key, value in struct._data_dict.items():
        part.set(key, value[chosen] if key in ROWS else value)
    return part


def _of_all(own: dict[Any, Any]) -> list[dict[Any, Any]]:
    """What each process has, by rank, in all of them."""
    everyone: list[dict[Any, Any]] = [{} for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather_object(everyone, own)
    return everyone


def gathered_scores(mine: DataStruct, size: int) -> DataStruct:
    """The scores and labels of all processes, for metrics that are no means over processes.

    Args:
        mine: Those of this process: every K-th row of the part, of K processes, and at the end rows
            from its beginning, so that all have equally many.
        size: Rows of the part.
    """
    if not torch.distributed.is_initialized():
        return mine
    own = {key: mine.get(key).cpu() for key in ("rec.score", "data.label")}
    everyone = _of_all(own)
    whole = DataStruct()
    whole._data_dict.update(mine._data_dict)
    for key in own:
        whole.set(key, torch.stack([part[key] for part in everyone], 1).flatten()[:size])
    return whole


def gathered_rows(mine: Collected | DataStruct) -> Collected:
    """The rows of all processes, each once and in order: RecBole's loader pads by repeating rows.

    Args:
        mine: The rows of this process; a plain struct if there are none, for example because no
            user of its share has a positive. It must take part nevertheless: the others wait.
    """
    structs = mine if isinstance(mine, Collected) else Collected()
    if not torch.distributed.is_initialized():
        return structs
    rows = {key: {k: v for k, v in s._data_dict.items() if k in ROWS} for key, s in structs.items()}
    everyone = _of_all(rows)
    source: DataStruct = next(iter(structs.values()), mine)
    common = source._data_dict  # equal in all processes
    whole = Collected()
    for key in dict.fromkeys(key for part in everyone for key in part):
        parts = [part[key] for part in everyone if key in part]
        joined = {k: torch.cat([part[k] for part in parts]) for k in parts[0]}
        _, first = np.unique(joined["rec.row"].numpy(), return_index=True)
        whole[key] = DataStruct()
        whole[key]._data_dict.update({k: v for k, v in common.items() if k not in ROWS})
        whole[key]._data_dict.update({k: v[torch.from_numpy(first)] for k, v in joined.items()})
    return whole
