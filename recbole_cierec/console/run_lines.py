"""What a run says of its data, in about five lines, of its model and of its processes."""

from __future__ import annotations

from typing import Any

import numpy as np
from recbole.utils import ModelType

from recbole_cierec.evaluation.candidates import look_up
from recbole_cierec.evaluation.cold_split import ColdSplit
from recbole_cierec.evaluation.eval_mode import EvalMode
from recbole_cierec.evaluation.names import ITEM_GROUPS

PHASES = ("training", "validation", "test")


def data_lines(config: Any, interactions: int, loaders: tuple[Any, Any, Any]) -> list[str]:
    """Describe the data of a run.

    Args:
        config: The configuration.
        interactions: Their number before the split.
        loaders: Of training, validation and test; the last one has the plan of the evaluation.
    """
    parts = [getattr(loader, "whole", loader._dataset) for loader in loaders]
    sizes = ", ".join(f"{len(p):,} {name}" for name, p in zip(PHASES, parts, strict=True))
    users, items = parts[0].user_num - 1, parts[0].item_num - 1  # less RecBole's padding
    density = interactions / max(users * items, 1)
    return [
        f"Data: {config['dataset']}, {users:,} users, {items:,} items, "
        f"{interactions:,} interactions (density {density:.2%})",
        f"Split: {_split(config)}; {sizes}",
        f"Ranked: {_ranked(config)}",
        *_groups(config, parts[2], loaders[2].plan),
        *_repeats(config, interactions, parts[0], parts[2], loaders[2]),
    ]


def parameter_count(model: Any) -> int:
    """The number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def model_line(model: Any, config: Any) -> str:
    """Name, size and device of a model."""
    return f"Model: {config['model']}, {parameter_count(model):,} parameters, on {config['device']}"


def processes_line(model: Any, config: Any) -> str | None:
    """What to know of several processes: for some models they are slower than one."""
    if config["single_spec"] or not getattr(model, "short_step", False):
        return None
    if config["device"].type != "cpu":
        return None
    return (
        f"Processes: {config['world_size']} are slower than one for {config['model']}: a step is "
        "so short that exchanging its gradients takes longer than sharing it saves"
    )


def _share(parts: Any) -> str:
    percent = 100 * np.asarray(parts, dtype=float) / np.sum(parts)
    return "/".join(f"{part:.3g}" for part in percent) + " %"


def _split(config: Any) -> str:
    if config["benchmark_filename"]:
        return "as in the files of the data set"
    cold, how = ColdSplit.of(config), config["eval_args"]
    if cold is not None:
        chosen = "newest" if cold.by == "newest" else "at random"
        return f"strict cold start, {_share(cold.share)} of the {cold.kind}s, {chosen}"
    (kind, value), *_ = how["split"].items()
    order = "in order of time" if how["order"] == "TO" else "at random"
    each = "each user's" if how["group_by"] == "user" else "all"
    if kind == "LS":
        return f"leave one out of {each} interactions ({value}), {order}"
    return f"{_share(value)} of {each} interactions, {order}"


def _ranked(config: Any) -> str:
    modes = {phase: EvalMode.of(config, phase) for phase in ("valid", "test")}
    sequential = config["MODEL_TYPE"] == ModelType.SEQUENTIAL
    texts = {phase: _candidates(mode, sequential) for phase, mode in modes.items()}
    if texts["valid"] == texts["test"]:
        return texts["test"]
    return f"{texts['test']}; in validation {texts['valid']}"


def _candidates(mode: EvalMode, sequential: bool) -> str:
    if mode.kind == "full" and sequential:
        return "all items, for each interaction separately (mode full)"
    if mode.kind == "full":
        return "all items except those of the user's history (mode full)"
    if mode.kind == "labeled":
        return "nothing: scores are compared with labels (mode labeled)"
    if mode.by_user:
        return f"a user's positives among {mode.n} other items (mode user{mode.n})"
    drawn = "uniformly" if mode.kind == "uni" else "by popularity"
    return f"each positive with {mode.n} items drawn {drawn} (mode {mode.kind}{mode.n})"


def _repeats(config: Any, interactions: int, train: Any, test: Any, loader: Any) -> list[str]:
    """A line if test pairs occur in training: a model is then tested on what it has learned."""
    if config["MODEL_TYPE"] == ModelType.SEQUENTIAL:  # a row holds the history
        return []
    known = getattr(getattr(getattr(loader, "_sampler", None), "used_ids", None), "pairs", ())
    if len(known) == interactions:  # all pairs are distinct, and have been sorted already
        return []
    trained, tested = (
        np.asarray(p.inter_feat[p.uid_field]) * p.item_num + np.asarray(p.inter_feat[p.iid_field])
        for p in (train, test)
    )
    count = int(look_up(np.sort(trained), np.sort(tested))[1].sum())
    if not count:
        return []
    return [
        f"Repeats: {count:,} of {len(tested):,} test interactions repeat one of training (the same "
        "user and item); 'rm_dup_inter: first' keeps the first of each"
    ]


def _groups(config: Any, test: Any, plan: Any) -> list[str]:
    users = np.unique(np.asarray(test.inter_feat[test.uid_field]))
    lines = []
    if plan.user_groups is not None:
        counts = {n: int(m.sum()) for n, m in plan.user_groups.masks(users).items()}
        most, where = config["user_group_boundary"], config["user_group_count"]
        where = {"test": "in the test", "train": "in training", "total": "in all parts"}[where]
        text = f"{counts['cold']:,} cold (at most {most} interactions {where}), "
        text += f"{counts['warm']:,} warm"
        if "new" in counts:
            text += f"; {counts['new']:,} new, held out of training"
        lines.append(f"Users: {text}")
    of = plan.item_groups.of[np.asarray(test.inter_feat[test.iid_field])]
    shares = (np.bincount(of, minlength=len(ITEM_GROUPS)) / max(len(of), 1)).tolist()
    lines.append(
        f"Items: of the test interactions, {shares[0]:.1%} have an item unseen in training, "
        f"{shares[1]:.1%} a rare one (at most {config['item_group_boundary']}), "
        f"{shares[2]:.1%} a common one"
    )
    return lines
