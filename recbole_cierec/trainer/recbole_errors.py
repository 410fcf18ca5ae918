"""What RecBole's loops raise for settings that do not go together, as one line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from recbole_cierec.errors import ConfigError


@contextmanager
def plain_words(config: Mapping[str, Any]) -> Iterator[None]:
    """Within, columns that no loader made and optimizers that do not suit are told as such.

    Args:
        config: RecBole's configuration.

    Raises:
        ConfigError: In their place; every other error passes.
    """
    model, label = config["model"], config["LABEL_FIELD"]
    absent = {
        config["NEG_PREFIX"] + config["ITEM_ID_FIELD"]: (
            f"train_neg_sample_args: {model} learns from negatives, and none are drawn; "
            "remove this key"
        ),
        label: (
            f"{model} reads the column {label}, which is not there; load it, set threshold "
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
    """What torch says, and what it means here."""
    return {
        "SparseAdam": (
            f"learner: sparse_adam takes sparse gradients only, and {model} has others; take adam"
        ),
        "selected index k out of range": (
            f"{model} ranks more items within itself than there are; lower the key that says how "
            "many (reranker_CAN_NUM of GRU4RecCPR and SASRecCPR), or take more data"
        ),
    }
