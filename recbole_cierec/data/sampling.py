"""From a data set to RecBole's three loaders, with negatives that treat every model alike.

Uniform negatives over all items also push down items that have no training interaction, which
lifts the paper's metric (its candidates hold such items too) and ruins them for cold start. One
key, ``train_negatives``, decides for every model compared, RecBole's own included.
"""

from __future__ import annotations

import copy

import numpy as np
from recbole.data.utils import create_samplers, data_preparation, get_dataloader
from recbole.utils import ModelType

from recbole_cierec.errors import DataError
from recbole_cierec.evaluation.groups import UserGroups


def prepare(config, dataset):
    """Split ``dataset`` and build (train, valid, test) loaders.

    Raises:
        DataError: A part is empty, a user has no negative to draw, or topk exceeds the items.
    """
    if max(config["topk"]) >= dataset.item_num:
        raise DataError(
            f"{config['dataset']}: topk {max(config['topk'])} is more than its "
            f"{dataset.item_num - 1} items; lower topk"
        )
    if config["save_dataloaders"] or config["MODEL_TYPE"] == ModelType.KNOWLEDGE:
        loaders = data_preparation(config, dataset)
    else:
        # RecBole's own data_preparation first unpickles loaders that it finds beside the
        # checkpoints; these may be stale, and reading them runs what they hold.
        parts = dataset.build()
        _refuse_empty(config, parts)
        try:
            samplers = create_samplers(config, dataset, parts)
        except ValueError as error:  # RecBole: "Some users have interacted with all items ..."
            raise DataError(f"{config['dataset']}: {error}") from error
        loaders = [
            get_dataloader(config, phase)(
                config, part, sampler, shuffle=config["shuffle"] and phase == "train"
            )
            for phase, part, sampler in zip(
                ("train", "valid", "test"), parts, samplers, strict=True
            )
        ]
    train, valid, test = loaders
    if config["train_negatives"] == "seen" and getattr(train, "_sampler", None) is not None:
        train._sampler = seen_sampler(train._sampler, train._dataset)
    if config["MODEL_TYPE"] != ModelType.SEQUENTIAL:
        groups = UserGroups.from_split(config, train._dataset, valid._dataset, test._dataset)
        valid.user_groups = test.user_groups = groups
    return train, valid, test


def _refuse_empty(config, parts) -> None:
    for phase, part in zip(("training", "validation", "test"), parts, strict=True):
        if len(part) == 0:
            raise DataError(
                f"{config['dataset']}: the {phase} part of the split {config['eval_args']['split']}"
                " is empty; the data are too few for it"
            )


def seen_sampler(sampler, train_dataset):
    """A copy of a RecBole sampler that draws uniformly from items with a training interaction.

    Raises:
        DataError: A user has interacted with all of them, so that no negative is left.
    """
    seen = np.unique(np.asarray(train_dataset.inter_feat[train_dataset.iid_field]))
    own = [len(used) for used in sampler.used_ids]
    full = sum(count >= len(seen) for count in own)
    if full:
        raise DataError(
            f"{train_dataset.dataset_name}: {full} user(s) have interacted with all {len(seen)} "
            "items that have a training interaction, so that no negative is left for them; set "
            "train_negatives: all, or drop them by user_inter_num_interval"
        )
    narrowed = copy.copy(sampler)
    narrowed._uni_sampling = lambda n: seen[np.random.randint(0, len(seen), n)]
    return narrowed
