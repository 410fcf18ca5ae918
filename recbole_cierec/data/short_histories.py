"""Training with the first interactions of each user only (``max_user_interactions``)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from recbole.utils import ModelType

from recbole_cierec.data.cold_dataset import Rowless, rank_in_group
from recbole_cierec.errors import ConfigError


def refuse_sequences(config: Any) -> None:
    """Raise ConfigError for a model whose rows hold histories, which would stay long."""
    if config["max_user_interactions"] and config["MODEL_TYPE"] == ModelType.SEQUENTIAL:
        raise ConfigError(
            f"max_user_interactions: {config['model']} reads histories, which this key does not "
            "shorten; use MAX_ITEM_LIST_LENGTH"
        )


def shortened(train: Any, most: int) -> Any:
    """A copy of the training part with the first ``most`` rows of each user.

    The other rows become ``rowless``: nobody trains on them, and they are no candidates of a
    ranking, so that rankings of different ``most`` have the same candidates. Groups of users and
    items are those of the whole part, which :func:`whole_part` gives.
    """
    users, items = (train.inter_feat[f].numpy() for f in (train.uid_field, train.iid_field))
    kept = rank_in_group(users) < most
    short = train.copy(train.inter_feat[torch.from_numpy(np.flatnonzero(kept))])
    old = train.rowless
    short.rowless = Rowless(
        np.concatenate([old.users, users[~kept]]),
        np.concatenate([old.items, items[~kept]]),
        np.concatenate([old.trained, np.zeros((~kept).sum(), dtype=bool)]),
    )
    short.whole_part = train
    return short


def whole_part(train: Any) -> Any:
    """The training part before it was :func:`shortened`, if it was."""
    return getattr(train, "whole_part", train)
