"""Checks of ``metrics``, ``topk`` and ``valid_metric``, also against each other.

RecBole finds a validation metric that is not computed only after the first epoch.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from recbole.evaluator import metric_information, metric_types
from recbole.utils import EvaluatorType

from recbole_cierec.errors import ConfigError, nearest
from recbole_cierec.evaluation.cold_split import ColdSplit
from recbole_cierec.evaluation.eval_mode import EvalMode
from recbole_cierec.evaluation.names import ITEM_GROUPS, VIEWS
from recbole_cierec.evaluation.plan import has_views

_WITH_CUT = {"rec.topk", "rec.items"}  # what RecBole's metrics at k need
_VIEWS, _BY_USERS = "cold_item_views: True or a split COLD_ITEM", "a split COLD_USER"
_GROUPS = {  # group of results to what it needs
    **dict.fromkeys(("cold", "warm", *ITEM_GROUPS), ""),
    **dict.fromkeys(VIEWS, _VIEWS),
    **dict.fromkeys(("new", "known"), _BY_USERS),
}


def check_metrics(values: Mapping[str, Any], origins: Mapping[str, str]) -> None:
    """Refuse metrics that do not exist and a validation metric that will not be computed.

    Args:
        values: All keys, ``strict_cold`` among them.
        origins: Key to the place of its value.

    Raises:
        ConfigError: In one line.
    """

    def origin(key: str) -> str:
        return origins.get(key, "defaults")

    names = list(map(str, _listed(values["metrics"])))
    if not names:
        raise ConfigError(f"{origin('metrics')}: 'metrics' names no metric")
    for name in names:
        if name.lower() not in metric_types:
            hint = nearest(name, metric_types)
            raise ConfigError(f"{origin('metrics')}: there is no metric '{name}'{hint}")
    _check_kinds(names, EvalMode.all_of(values["eval_args"]), origin("metrics"))
    topk = _listed(values["topk"])
    if not topk or not all(type(k) is int and k > 0 for k in topk):
        raise ConfigError(f"{origin('topk')}: 'topk' must be whole numbers above 0, not {topk!r}")
    if len(set(topk)) < len(topk):
        raise ConfigError(f"{origin('topk')}: 'topk' names a number twice: {topk}")
    chosen = str(values["valid_metric"])
    if problem := why_not_computed(chosen, values):
        # The user may know only the key that excludes the default.
        blamed = [key for key in ("valid_metric", "topk", "metrics") if key in origins]
        default = "" if "valid_metric" in origins else "the default "
        place = origin((blamed or ["valid_metric"])[0])
        raise ConfigError(f"{place}: {default}valid_metric '{chosen}' {problem}")


def _check_kinds(names: list[str], modes: Collection[EvalMode], origin: str) -> None:
    """Refuse metrics that need another mode of ``eval_args``, and metrics of both kinds."""
    ranked = [n for n in names if metric_types[n.lower()] == EvaluatorType.RANKING]
    valued = [n for n in names if n not in ranked]
    labeled, full = (EvalMode(kind) in modes for kind in ("labeled", "full"))
    if ranked and labeled:
        raise ConfigError(
            f"{origin}: mode labeled of eval_args compares scores with labels, and "
            f"{', '.join(ranked)} rank items; take AUC, LogLoss, MAE or RMSE"
        )
    if ranked and valued:
        raise ConfigError(
            f"{origin}: 'metrics' names {', '.join(ranked)}, which rank items, and "
            f"{', '.join(valued)}, which compare scores with labels; keep one kind"
        )
    if valued and full:
        raise ConfigError(
            f"{origin}: 'metrics' {', '.join(valued)} compare scores with labels, and mode full of "
            "eval_args ranks all items; set eval_args: {mode: labeled} for interactions with "
            "labels, or take metrics that rank, as Recall"
        )


def _listed(value: Any) -> list[Any]:
    return [value] if isinstance(value, str | int) else list(value or [])


def why_not_computed(chosen: str, values: Mapping[str, Any]) -> str:
    """Why a run's result will not have a metric, as the end of a sentence; empty: it has it.

    Args:
        chosen: ``recall@10``, or of a group ``recall@10_cold``.
        values: All keys.
    """
    names, topk = _listed(values["metrics"]), _listed(values["topk"])
    name, at, rest = chosen.lower().partition("@")
    known = {metric.lower() for metric in names}
    group = ""
    if not at and name not in known:  # of a metric without a cut: gauc_cold
        parts = ((m, name[len(m) + 1 :]) for m in known if name.startswith(f"{m}_"))
        name, group = next(parts, (name, ""))
    if name not in known:
        cut = f"@{topk[0]}" if _has_cut(names[0]) else ""
        hint = nearest(name, names) or f"; add it to metrics, or take {names[0]}{cut}"
        return f"is not among the metrics {', '.join(names)}{hint}"
    if at:
        cut, _, group = rest.partition("_")
        if not cut.isdecimal() or int(cut) not in topk:
            own = next(metric for metric in names if metric.lower() == name)
            advice = f"add {cut} to topk, or take" if cut.isdecimal() else "take"
            return f"needs {cut or 'its number'} in topk, which is {topk}; {advice} {own}@{topk[0]}"
    with_cut = _has_cut(name)
    if with_cut != bool(at):
        return f"needs a cut, as in {name}@{topk[0]}" if with_cut else "takes no cut"
    return why_no_group(group, values) if group else ""


def _has_cut(metric: str) -> bool:
    return bool(_WITH_CUT & set(metric_information[metric.lower()]))


def why_no_group(group: str, values: Mapping[str, Any]) -> str:
    """Why a run's result will not have a group, as the end of a sentence; empty: it has it."""
    if group not in _GROUPS:
        hint = nearest(group, _GROUPS) or f"; known are {', '.join(_GROUPS)}"
        return f"names no group '{group}'{hint}"
    cold = ColdSplit.of(values)
    by_users = cold is not None and cold.kind == "user"
    available = {"": True, _VIEWS: has_views(values), _BY_USERS: by_users}
    return "" if available[_GROUPS[group]] else f"needs {_GROUPS[group]}"
