"""One clear line for what RecBole's loops raise where settings do not match."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from recbole_cierec.errors import ConfigError


@contextmanager
def clear_errors(config: Mapping[str, Any]) -> Iterator[None]:
    """Name the key behind a missing column or an unsuitable optimizer.

    Args:
        config: RecBole's configuration.

    Raises:
        ConfigError: Instead of RecBole's error; every other error passes.
    """
    model, label = config["model"], config["LABEL_FIELD"]
    absent = {
        config["NEG_PREFIX"] + config["ITEM_ID_FIELD"]: (
            f"train_neg_sample_args: {model} learns from negatives, and none are drawn; "
            "remove this key"
        ),
        label: (
            f"{model} reads the column {label}, which is missing; load it, set threshold "
            "(threshold: {rating: 3}), or let negatives be drawn (train_neg_sample_args, and a "
            "mode other than labeled)"
        ),
    }
    try:
        yield
    except KeyError as error:
        line = absent.get(error.args[0]) if error.args else None
        if line is None:
            raise
        raise ConfigError(line) from error
    except RuntimeError as error:
        for words, line in _lines(model).items():
            if words in str(error):
                raise ConfigError(line) from error
        raise


def _lines(model: str) -> dict[str, str]:
    """Part of torch's message -> what it means here."""
    return {
        "SparseAdam": (
            f"learner: sparse_adam takes only sparse gradients, and {model} has others; use adam"
        ),
        "selected index k out of range": (
            f"{model} re-ranks more items than the data set has; lower their number "
            "(reranker_CAN_NUM of GRU4RecCPR and SASRecCPR), or use more data"
        ),
    }
