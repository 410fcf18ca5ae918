"""Makes RecBole's three loaders of a data set, with the same negatives for every model.

Uniform negatives over all items also lower the scores of items without training interactions. That
raises the paper's metric (its candidates include such items) but ruins cold-start rankings. The key
``train_negatives`` decides for every compared model, including RecBole's.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from recbole.data.dataloader import (
    FullSortEvalDataLoader,
    KnowledgeBasedDataLoader,
    TrainDataLoader,
)
from recbole.data.transform import MaskItemSequence
from recbole.data.utils import create_samplers, get_dataloader
from recbole.sampler import KGSampler, Sampler

from recbole_cierec.data.candidate_loader import CandidateLoader, FullLoader
from recbole_cierec.data.masking import MaskSequence
from recbole_cierec.data.negatives import quick_sampler, refuse_endless, seen_items
from recbole_cierec.data.recbole_errors import as_data_errors
from recbole_cierec.data.sampler import CompactSampler, UsedItems
from recbole_cierec.data.short_histories import refuse_sequences, shortened, whole_part
from recbole_cierec.data.train_loader import TrainLoader
from recbole_cierec.errors import DataError
from recbole_cierec.evaluation.candidate_files import provide_candidates
from recbole_cierec.evaluation.candidates import Ragged, blocks
from recbole_cierec.evaluation.cold_split import WARM, ColdSplit
from recbole_cierec.evaluation.eval_mode import EvalMode
from recbole_cierec.evaluation.groups import ItemGroups, UserGroups
from recbole_cierec.evaluation.names import ALL, split_name
from recbole_cierec.evaluation.plan import EvaluationPlan, make_views, restrict

PHASES = ("train", "valid", "test")


def make_loaders(config: Any, dataset: Any) -> tuple[Any, Any, Any]:
    """Split ``dataset`` and make the loaders of training, validation and test.

    Evaluation loaders have a :class:`recbole_cierec.evaluation.plan.EvaluationPlan` as ``plan``.

    Raises:
        DataError: A part or the group of ``valid_metric`` is empty, a user has no possible
            negative, or more items are requested than the data set has.
    """
    _refuse_counts(config, dataset.item_num - 1)
    train, *loaders = _loaders(config, dataset)
    datasets = [
        whole_part(getattr(loader, "whole", getattr(loader, "_dataset", None)))
        for loader in (train, *loaders)
    ]
    for phase, loader in zip(PHASES[1:], loaders, strict=True):
        known = getattr(getattr(loaders[-1], "_sampler", None), "used_ids", None)
        loader.plan = evaluation_plan(config, phase, datasets, loader, known)
    valid, test = loaders
    _refuse_empty_group(config, valid.plan, datasets[1])
    return train, valid, test


def _refuse_counts(config: Any, n_items: int) -> None:
    """Refuse more ranked items, or more negatives of a positive, than the data set has items."""
    how = config["train_neg_sample_args"]
    counts = {f"topk {max(config['topk'])}": max(config["topk"])}
    # `in`: to look for a key that this model lacks reads the YAML files of all models, 0.4 s.
    if "metrics_k" in config and (listed := config["metrics_k"]):
        counts[f"metrics_k {listed}"] = listed  # of RaCT, for the ranking of its critic
    if how["distribution"] != "none":
        each = how["candidate_num"] if how["dynamic"] else 1
        counts[f"train_neg_sample_args, {how}"] = how["sample_num"] * each
    for phase in PHASES[1:]:
        mode, drawn = config["eval_args"]["mode"][phase], config[f"{phase}_neg_sample_args"]
        if drawn["sample_num"] != "none":
            counts[f"eval_args mode {mode}"] = drawn["sample_num"]
    for what, count in counts.items():
        if count > n_items:
            raise DataError(
                f"{config['dataset']}: {what} is more than its {n_items} items; lower it"
            )


def _loaders(config: Any, dataset: Any) -> list[Any]:
    # RecBole's data_preparation would unpickle loaders that it finds next to the checkpoints. They
    # may be stale, and reading them runs the code they contain.
    refuse_sequences(config)
    parts = dataset.build()
    _refuse_empty(config, parts)
    with as_data_errors(config):  # "Some users have interacted with all items ..."
        samplers = _samplers(config, dataset, parts)
        if most := config["max_user_interactions"]:
            # Evaluation does not rank what was removed; training does not know of it.
            parts = [shortened(parts[0], most), *parts[1:]]
            samplers[0] = _samplers(config, dataset, parts)[0]
    if samplers[0] is not None:
        samplers[0] = training_sampler(config, samplers[0], parts[0])
    with as_data_errors(config):
        return [
            _loader(config, dataset, *each) for each in zip(PHASES, parts, samplers, strict=True)
        ]


def _loader(config: Any, dataset: Any, phase: str, part: Any, sampler: Any) -> Any:
    kind = _loader_class(config, phase)
    if kind is KnowledgeBasedDataLoader:
        return kind(config, part, sampler, _entities(config, dataset), shuffle=True)
    loader = kind(config, part, sampler, shuffle=config["shuffle"] and phase == "train")
    if type(loader.transform) is MaskItemSequence:
        loader.transform = MaskSequence(config)
    return loader


def _loader_class(config: Any, phase: str) -> type:
    """RecBole's loader class, or this package's replacement for it."""
    kind = get_dataloader(config, phase)
    if kind is TrainDataLoader:
        return TrainLoader
    if candidates_wanted(config, phase):
        return CandidateLoader
    return FullLoader if kind is FullSortEvalDataLoader else kind


def _entities(config: Any, dataset: Any) -> KGSampler:
    """RecBole's sampler of entities for the triples of a knowledge graph."""
    how = config["train_neg_sample_args"]
    if how["distribution"] == "none":
        raise DataError(
            f"train_neg_sample_args: {config['model']} needs negatives, but none are drawn; "
            "remove this key"
        )
    sampler = KGSampler(dataset, how["distribution"], how["alpha"])
    refuse_endless(sampler, config["dataset"])
    return sampler


def _samplers(config: Any, dataset: Any, parts: list[Any]) -> list[Any]:
    """RecBole's three samplers, with arrays in place of sets; None for a phase without draws."""
    samplers: list[Any] = []
    if config["repeatable"]:
        samplers = list(create_samplers(config, dataset, parts))
    else:
        base = None
        for phase in PHASES:
            how = config[f"{phase}_neg_sample_args"]
            if how["distribution"] == "none":
                samplers.append(None)
                continue
            if base is None:
                alpha = how.get("alpha", 1.0)
                base = CompactSampler(list(PHASES), parts, how["distribution"], alpha)
            elif how["distribution"] != base.distribution:
                base.set_distribution(how["distribution"])
            samplers.append(base.set_phase(phase))
    for phase, sampler in zip(PHASES[1:], samplers[1:], strict=True):
        if sampler is not None and config[f"{phase}_neg_sample_args"]["sample_num"] != "none":
            refuse_endless(sampler, config["dataset"])
    return samplers


def candidates_wanted(config: Any, phase: str) -> int:
    """N of the mode ``userN``; 0 in training and in RecBole's modes."""
    mode = None if phase == "train" else EvalMode.of(config, phase)
    return mode.n if mode is not None and mode.by_user else 0


def evaluation_plan(
    config: Any, phase: str, datasets: list[Any], loader: Any, known: Any
) -> EvaluationPlan:
    """The evaluation plan of a phase; candidates are drawn or read from ``candidates_file``.

    Args:
        config: RecBole config.
        phase: ``valid`` or ``test``.
        datasets: The training, validation and test parts.
        loader: The loader of the phase.
        known: ``used_ids`` of the test's sampler, the items of each user in all parts; may be None.
    """
    train = datasets[0]
    item_groups = ItemGroups.from_split(config, train)
    cold, universe = ColdSplit.of(config), None
    if cold is not None and cold.kind == "item":
        held = train.cold_phase
        universe = (held == WARM) | (held == PHASES.index(phase))
    plan = EvaluationPlan(
        UserGroups.from_split(config, *datasets),
        item_groups,
        make_views(config, item_groups, universe),
        repeats=config["eval_repeats"] if phase == "test" else 1,
        # Validation must not choose a model by the lists that the test ranks.
        seed=2 * config["candidate_seed"] + (phase == "valid"),
        size=len(datasets[PHASES.index(phase)]),
    )
    wanted = candidates_wanted(config, phase)
    if not wanted:
        plan.repeats = 1
        return plan
    plan.users = np.asarray(loader.uid_list)
    row = np.full(train.user_num, -1)
    row[plan.users] = np.arange(len(plan.users))
    positives = _by_row(datasets[PHASES.index(phase)], row, len(plan.users))
    for view in plan.views:
        view.positives = restrict(positives, view.items)
    used = _used(datasets, known, plan.users, row)
    provide_candidates(config, phase, plan, wanted, train, used)
    return plan


def _pairs(dataset: Any, row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(rows, items) of a part's interactions, without histories of sequences."""
    feat = dataset.inter_feat
    rows = row[np.asarray(feat[dataset.uid_field])]
    return rows[rows >= 0], np.asarray(feat[dataset.iid_field])[rows >= 0]


def _by_row(dataset: Any, row: np.ndarray, n: int) -> Ragged:
    return Ragged.group(*_pairs(dataset, row), n)


def _used(datasets: list[Any], known: Any, users: np.ndarray, row: np.ndarray) -> Ragged:
    """All items that the user of each row interacted with, in any part; kept as int32 until the
    lists are drawn.

    Args:
        datasets: The training, validation and test parts.
        known: As for :func:`evaluation_plan`; without it the parts are sorted again.
        users: Users of each row.
        row: Row of each user; -1: none.
    """
    if isinstance(known, UsedItems):
        of_users = Ragged(known.pairs, known.starts)
        cells = [of_users.select(users[rows]) for rows in blocks(np.arange(len(users)))]
        values = np.concatenate([(c.values % known.n_items).astype(np.int32) for c in cells])
        return Ragged(values, np.concatenate([[0], np.cumsum(known.lengths[users])]))
    pairs = [_pairs(dataset, row) for dataset in datasets]
    rowless = datasets[0].rowless
    rows = row[rowless.users]
    pairs.append((rows[rows >= 0], rowless.items[rows >= 0]))
    rows, items = (np.concatenate(side) for side in zip(*pairs, strict=True))
    return Ragged.group(rows, items.astype(np.int32), len(users))


def _refuse_empty(config: Any, parts: Iterable[Any]) -> None:
    for phase, part in zip(("training", "validation", "test"), parts, strict=True):
        if len(part) == 0:
            raise DataError(
                f"{config['dataset']}: the {phase} part of the split {config['eval_args']['split']}"
                " is empty; validation chooses the epoch and the test is reported, so give each "
                "part a share, or use more data"
            )


def _refuse_empty_group(config: Any, plan: EvaluationPlan, part: Any) -> None:
    """Refuse a ``valid_metric`` that would be nan in every epoch, so that none is the best."""
    _, group = split_name(config["valid_metric"].lower())
    users, items = (np.asarray(part.inter_feat[f]) for f in (part.uid_field, part.iid_field))
    if group != ALL and not plan.has(group, users, items):
        raise DataError(
            f"{config['dataset']}: the validation part has no positive in the group '{group}' of "
            f"valid_metric '{config['valid_metric']}'; choose another group, or change "
            "user_group_boundary, item_group_boundary or the split"
        )


def training_sampler(config: Any, sampler: Any, train_dataset: Any) -> Any:
    """A fast sampler of the negatives that ``train_negatives`` allows.

    Args:
        config: RecBole config.
        sampler: RecBole's sampler of the phase ``train``.
        train_dataset: The training part.

    Raises:
        DataError: A user has interacted with all of those items.
    """
    popular = sampler.distribution == "popularity"
    if popular:  # RecBole counts the interactions of all parts, those of the test as well
        sampler.datasets, sampler.dataset = [train_dataset], train_dataset
        sampler._build_alias_table()
    only_seen = config["train_negatives"] == "seen" and not popular
    seen = seen_items(train_dataset) if only_seen else None
    refuse_endless(sampler, config["dataset"], seen)
    if isinstance(sampler, Sampler):
        return quick_sampler(sampler, seen)
    if seen is not None:
        sampler._uni_sampling = lambda n: seen[np.random.randint(0, len(seen), n)]
    return sampler
