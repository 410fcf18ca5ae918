"""Small data sets of atomic files, and the messages for wrong ones."""

from __future__ import annotations

import pytest

from recbole_cierec.config.config import Config
from recbole_cierec.data.dataset import create_dataset
from recbole_cierec.errors import UserError

INTER = "user_id:token item_id:token timestamp:float"


def table(header: str, rows: list[str]) -> str:
    """A file from lines whose cells are separated by single blanks."""
    return "".join("\t".join(line.split(" ")) + "\n" for line in [header, *rows])


def made(keys: dict, model: str = "BPR"):
    """The data set ``t`` as a model loads it."""
    return create_dataset(Config(model, "t", None, keys, {}))


def refusal(keys: dict, model: str = "BPR", make=made) -> str:
    """The one line of the error for the data set."""
    with pytest.raises(UserError) as error:
        make(keys, model)
    assert "\n" not in str(error.value)
    return str(error.value)
