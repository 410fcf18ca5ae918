"""Data sets: RecBole alone fails on pandas 3, the patched class reads the file correctly.

The half that shows the break is skipped where the installed package is too old for it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import recbole.config
import recbole.data.dataset
import recbole.trainer
import torch
from sampled_data import Dataset, SequentialDataset, needs

from recbole_cierec.data.compat import DatasetCompat, FeatureFrame
from recbole_cierec.errors import DataError


class MendsReadingOnly(recbole.data.dataset.Dataset):
    """RecBole's data set with RecBole's filling and remapping."""

    _checked_fields = DatasetCompat._checked_fields
    _note_columns = DatasetCompat._note_columns
    _limit_length = DatasetCompat._limit_length

    def _load_feat(self, filepath, source):
        feat = DatasetCompat._load_feat(self, filepath, source)
        return None if feat is None else pd.DataFrame(feat)


@needs("pandas", "3.0")
def test_plain_dataset_cannot_read_an_empty_sequence_on_pandas_3(config):
    with pytest.raises((AttributeError, TypeError)):
        recbole.data.dataset.Dataset(config(item=["tags"]))


@needs("pandas", "3.0")
def test_plain_dataset_cannot_remap_sequences_on_pandas_3(config):
    with pytest.raises(ValueError, match="does not match length of index"):
        MendsReadingOnly(config(item=["tags"]))


@needs("pandas", "3.0")
def test_plain_dataset_corrupts_missing_cells_on_pandas_3(config):
    dataset = MendsReadingOnly(config(item=["kind", "price"]))
    with np.errstate(invalid="ignore"):
        feat = dataset.item_feat
    assert feat["price"].isna().any()
    assert feat["kind"].isna().any()


def rows_of(dataset, field: str) -> dict:
    """Return the values of an item field by the item's own id."""
    tokens = dataset.field2id_token["item_id"]
    return {str(tokens[i]): row.tolist() for i, row in enumerate(dataset.item_feat[field])}


def test_missing_cells_are_filled(config):
    dataset = Dataset(config(item=["kind", "price", "tags", "size"]))
    dataset._change_feat_format()
    kinds = dataset.field2token_id["kind"]
    assert kinds == {"[PAD]": 0, "x": 1, "y": 2}
    assert rows_of(dataset, "kind") == {"[PAD]": 0, "a": 1, "b": 0, "c": 2, "d": 0}
    assert rows_of(dataset, "price") == {"[PAD]": 2.5, "a": 1, "b": 2.5, "c": 4, "d": 2.5}
    tags = dataset.field2token_id["tags"]
    assert tags == {"[PAD]": 0, "red": 1, "big": 2}
    assert rows_of(dataset, "tags") == {
        "[PAD]": [0, 0],
        "a": [1, 2],
        "b": [0, 0],
        "c": [1, 0],
        "d": [0, 0],
    }
    assert rows_of(dataset, "size")["c"] == [3.0, 0.0]
    assert dataset.item_feat["kind"].dtype == torch.int64


def test_a_column_without_any_number_becomes_zero(config, tmp_path):
    made = config(item=["price"])
    (tmp_path / "toy" / "toy.item").write_text("item_id:token\tprice:float\na\t\nb\tNA\n")
    dataset = Dataset(made)
    dataset._change_feat_format()
    assert set(rows_of(dataset, "price").values()) == {0.0}


def test_sequences_are_cut_to_seq_len(config):
    dataset = Dataset(config(item=["tags", "size"], seq_len={"tags": 1, "size": 9}))
    dataset._change_feat_format()
    assert dataset.field2seqlen["tags"] == 1
    assert dataset.field2seqlen["size"] == 2
    assert dataset.item_feat["tags"].shape == (5, 1)
    assert rows_of(dataset, "size")["a"] == [1.0, 2.0]


def test_sequences_of_numbers_can_be_normalised(config):
    dataset = Dataset(config(item=["size"], normalize_field=["size"]))
    dataset._change_feat_format()
    assert rows_of(dataset, "size")["a"] == [0.0, 0.5]
    assert rows_of(dataset, "size")["c"] == [1.0, 0.0]


def test_agg_len_counts_cells_and_survives_operations():
    frame = FeatureFrame({"x": [[1, 2], [3], []], "k": [2, 0, 1]})
    assert frame["x"].agg(len).tolist() == [2, 1, 0]
    assert frame.sort_values("k")["x"].agg(len).tolist() == [1, 0, 2]
    assert frame["k"].agg("sum") == 3
    assert frame["x"].agg(np.concatenate).tolist() == [1, 2, 3]


def test_ids_that_pandas_takes_for_missing_are_kept(config, tmp_path):
    made = config()
    (tmp_path / "toy" / "toy.inter").write_text(
        'user_id:token\titem_id:token\ttimestamp:float\nNA\tnull\t1\nNA\tnan\t2\nu\t"x\t3\n'
    )
    dataset = Dataset(made)
    assert set(dataset.field2id_token["item_id"]) == {"[PAD]", "null", "nan", '"x'}
    assert dataset.user_num == 3
    assert dataset.inter_num == 3


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("toy.inter", "user_id:token\titem_id:token\nu\t\n", "line 2: item_id is empty"),
        ("toy.inter", "user_id:token\titem_id:token\ttimestamp:float\nu\ti\t\n", "timestamp is no"),
        ("toy.inter", "user:token\titem_id:token\nu\ti\n", "no column user_id:token"),
        ("toy.inter", "user_id:token\titem_id:float\nu\t1\n", "must be item_id:token"),
        ("toy.item", "item_id:token\tkind:token\n\tx\n", "line 2: item_id is empty"),
        ("toy.item", "item_id:token\tkind:token\n", "no rows"),
        ("toy.item", "item_id:token\tsize:float_seq\na\t1 x\n", "line 2: size holds an element"),
    ],
)
def test_faults_of_a_file_are_refused_in_one_line(config, tmp_path, name, content, words):
    made = config(item=["kind", "size"])
    (tmp_path / "toy" / name).write_text(content)
    with pytest.raises(DataError) as caught:
        Dataset(made)
    assert words in str(caught.value)
    assert name in str(caught.value)


def test_missing_files_are_refused_in_one_line(config, tmp_path):
    made = config()
    (tmp_path / "toy" / "toy.inter").unlink()
    with pytest.raises(DataError, match=r"toy\.inter: no such file"):
        Dataset(made)
    with pytest.raises(DataError, match=r"train\.inter: no such file"):
        Dataset(config(benchmark_filename=["train", "test"]))


def test_equal_times_keep_the_order_of_the_file(config, tmp_path):
    items = [f"i{k}" for k in np.random.default_rng(0).permutation(200)]
    made = config()
    (tmp_path / "toy" / "toy.inter").write_text(
        "user_id:token\titem_id:token\ttimestamp:float\n" + "".join(f"u\t{i}\t7\n" for i in items)
    )
    train, valid, test = Dataset(made).build()
    ids = torch.cat([part.inter_feat["item_id"] for part in (train, valid, test)])
    assert train.id2token("item_id", ids).tolist() == items


@needs("pandas", "3.0")
def test_plain_sequential_dataset_cannot_count_ready_made_histories_on_pandas_3(config, tmp_path):
    with pytest.raises((ValueError, AttributeError)):
        build_histories(config, tmp_path, recbole.data.dataset.SequentialDataset)


def test_ready_made_histories_are_counted(config, tmp_path):
    train, _ = build_histories(config, tmp_path, SequentialDataset)
    assert train.inter_feat["item_length"].tolist() == [1, 3]


def build_histories(config, folder: Path, dataset_class: type) -> list:
    """Build a data set whose files contain the histories, as RecBole's benchmark files do."""
    for part in ("train", "test"):
        (folder / "toy" / f"toy.{part}.inter").write_text(
            "user_id:token\titem_id_list:token_seq\titem_id:token\nu\ta\tb\nv\ta b c\td\n"
        )
    made = config(
        "GRU4Rec",
        benchmark_filename=["train", "test"],
        alias_of_item_id=["item_id_list"],
        load_col={"inter": ["user_id", "item_id", "item_id_list"]},
        train_neg_sample_args=None,
        eval_args={"order": "TO", "split": {"LS": "valid_and_test"}, "mode": "full"},
    )
    return dataset_class(made).build()
