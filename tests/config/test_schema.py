"""The table of keys: which keys code may read, and what is derived from the table."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import recbole
from config_helpers import config

from recbole_cierec.config.keys import OPTIONAL, keys_read
from recbole_cierec.config.keys_page import page
from recbole_cierec.config.properties import model_keys
from recbole_cierec.config.schema import GROUPS, KEYS, recbole_keys
from recbole_cierec.config.yaml import read_yaml
from recbole_cierec.errors import ConfigError
from recbole_cierec.files.checkpoint import to_plain
from recbole_cierec.trainer.resuming import differences

RECBOLE = Path(recbole.__file__).parent
ROOT = Path(__file__).parents[2]


def test_no_key_is_declared_twice():
    counts = Counter(key.name for group in GROUPS for key in group.KEYS)
    assert [name for name, count in counts.items() if count > 1] == []


@pytest.mark.skipif(not (ROOT / "docs").is_dir(), reason="an sdist without docs")
def test_the_page_of_keys_is_current():
    assert (ROOT / "docs" / "keys.md").read_text(encoding="utf-8") == page()


def test_the_page_has_every_key_that_a_user_of_ours_can_set():
    of_recbole = {key.name for group in GROUPS for key in group.KEYS if group is recbole_keys}
    ours = {name for name, key in KEYS.items() if not key.refused} - of_recbole
    text = page()
    missing = [name for name in ours if f"| `{name}` |" not in text]
    assert sorted(missing) == ["dataset", "model"]


# -- reading -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "near"), [("embeding_size", "embedding_size"), ("Eval_args", "eval_args")]
)
def test_reading_a_misspelt_key_raises_and_names_the_nearest(key, near):
    made = config()
    with pytest.raises(ConfigError, match=f"config\\['{key}'\\].*did you mean '{near}'"):
        made[key]
    assert key not in made


def test_reading_a_key_like_no_other_raises_without_a_guess():
    with pytest.raises(ConfigError, match="there is no such key; a model declares its own in keys"):
        config()["qqqqqqqq"]


@pytest.mark.parametrize("key", ["encoding", "backbone", "n_layers", "token_num_threshold"])
def test_a_key_that_exists_and_has_no_value_here_is_null(key):
    made = config("BPR")
    assert made[key] is None
    assert key not in made


def test_the_optional_keys_are_those_that_recbole_reads_without_a_default():
    sources = [path for path in RECBOLE.rglob("*.py") if path.name != "hyper_tuning.py"]
    read = set().union(*(keys_read(path.read_text(encoding="utf-8")) for path in sources))
    files = [RECBOLE / "properties/overall.yaml", RECBOLE / "properties/dataset/sample.yaml"]
    assert read - set(model_keys()).union(KEYS, *map(read_yaml, files)) == OPTIONAL


def test_a_value_that_a_program_sets_can_be_read():
    made = config()
    made["MASK_ITEM_SEQ"] = "Mask_item"
    assert made["MASK_ITEM_SEQ"] == "Mask_item"


# -- what follows from the table ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "other", "counts"),
    [
        ("learning_rate", "0.5", True),
        ("image_size", "32", True),
        ("train_negatives", "all", True),
        ("MAX_ITEM_LIST_LENGTH", "7", True),  # declared for its range alone
        ("require_pow", "True", True),  # RecBole's, not declared
        ("epochs", "7", False),
        ("topk", "[5]", False),
        ("cache_dir", "elsewhere", False),
    ],
)
def test_a_resumed_run_must_have_what_decides_training(key, other, counts):
    known = config(epochs="3", valid_metric="Recall@5", topk="[5, 6]")
    state = {"config": to_plain(dict(known.final_config_dict))}
    flags = {"epochs": "3", "valid_metric": "Recall@5", "topk": "[5, 6]", key: other}
    assert [text.split()[0] for text in differences(state, config(**flags))] == [key] * counts


@pytest.mark.parametrize(
    ("key", "other", "counts"),
    [("seed", "7", True), ("candidate_seed", "7", True), ("cache_dir", "x", False)],
)
def test_the_digest_leaves_out_what_differs_between_machines(key, other, counts):
    assert (config(**{key: other}).digest() != config().digest()) is counts
