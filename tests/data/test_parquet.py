"""Atomic files in Parquet give the same bits as text files, and are checked by the same rules."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet
import pytest
import torch
from recbole.data.interaction import Interaction

from recbole_cierec import load, recommend, run
from recbole_cierec.data.atomic import read_atomic, read_header
from recbole_cierec.errors import DataError

TEXT = (
    "user_id:token\titem_id:token\ttimestamp:float\ttags:token_seq\n"
    "007\ti1\t5\ta b\nNA\ti2\t0.1\t\n\ti1\tNaN\tb\n007\té\t-3e8\tc\n"
)


@pytest.fixture
def both(tmp_path):
    """``both(text)`` -> a text file, and the same cells as Parquet."""

    def write(text: str = TEXT) -> tuple[Path, Path]:
        path = tmp_path / "toy.inter"
        path.write_text(text)
        frame = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
        for name in frame:
            if name.endswith(":float"):
                frame[name] = frame[name].astype(float)
        other = tmp_path / "other.inter.parquet"
        frame.to_parquet(other, row_group_size=2)
        return path, other

    return write


def same(one: pd.DataFrame, other: pd.DataFrame) -> None:
    pd.testing.assert_frame_equal(one, other, check_exact=True)
    for name in one:
        if isinstance(one[name].dtype, pd.CategoricalDtype):
            assert one[name].cat.categories.tolist() == other[name].cat.categories.tolist()


@pytest.mark.parametrize("coded", [True, False])
@pytest.mark.parametrize("columns", [None, {"item_id", "timestamp"}])
def test_the_table_has_the_same_bits(both, coded, columns):
    text, parquet = both()
    one, other = (read_atomic(path, coded=coded, columns=columns) for path in (text, parquet))
    assert one[1] == other[1]
    same(one[0], other[0])
    assert read_header(text) == read_header(parquet)


def write(path: Path, **columns) -> Path:
    """A Parquet file; ``__`` in a name is the colon."""
    table = pyarrow.table({name.replace("__", ":"): cells for name, cells in columns.items()})
    pyarrow.parquet.write_table(table, path)
    return path


def test_ids_may_be_whole_numbers_or_categories_and_floats_text(tmp_path):
    users = pyarrow.array(["b", "a", None, "b"]).dictionary_encode()
    path = write(
        tmp_path / "t.inter.parquet",
        user_id__token=users,
        item_id__token=[3, 10, 3, 7],
        rating__float=["4", "NA", "1e-3", ""],
        timestamp__float=pyarrow.array([1, 2, 3, 4], pyarrow.int32()),
    )
    table, _ = read_atomic(path, coded=True)
    assert table["user_id"].cat.codes.tolist() == [0, 1, -1, 0]
    assert table["item_id"].tolist() == ["3", "10", "3", "7"]
    np.testing.assert_array_equal(table["rating"], [4, np.nan, 1e-3, np.nan])
    assert table["timestamp"].tolist() == [1, 2, 3, 4]


GOOD = {"user_id__token": ["a", "b"], "item_id__token": ["x", "y"]}


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"user_id": ["a"]}, ["'user_id' is not field:type"]),
        ({"user_id__id": ["a"]}, ["'user_id' has the unknown type 'id'"]),
        ({"user_id__token": [1.5, 2.0]}, ["column user_id:token holds double", "whole numbers"]),
        ({"a__float": [True, False]}, ["column a:float holds bool"]),
        ({"a__float": pyarrow.array([1, 2], pyarrow.timestamp("s"))}, ["holds timestamp["]),
        ({"a__float": ["1", "x1"]}, ["row 2: a is 'x1', which is not a number"]),
        ({"a__float": [1.0, np.inf]}, ["row 2: a is infinite"]),
        ({"a__token_seq": [["x"], ["y"]]}, ["column a:token_seq holds list", "separated"]),
        ({"a__token": ["x", "y\tz"]}, ["row 2: a holds '\\t', a line break or NUL"]),
        ({"a__token_seq": ["x\n", "y"]}, ["row 1: a holds '\\t', a line break or NUL"]),
        ({"user_id__token": pyarrow.array([], pyarrow.string())}, ["no rows"]),
    ],
)
def test_what_no_text_file_could_hold_is_refused_in_one_line(tmp_path, columns, words):
    path = write(tmp_path / "t.inter.parquet", **columns)
    with pytest.raises(DataError) as error:
        read_atomic(path)
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in [str(path), *words]), str(error.value)


def test_a_file_of_another_format_is_one_line(tmp_path):
    path = tmp_path / "t.inter.parquet"
    path.write_text(TEXT)
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read_atomic(path)


# ----------------------------------------------------------------------------- data sets


def to_parquet(path: Path) -> None:
    frame = pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    for name in frame:
        if name.endswith(":float"):
            frame[name] = frame[name].astype(float)
    frame.to_parquet(path.with_name(path.name + ".parquet"))
    path.unlink()


@pytest.fixture
def home(tiny_folder, in_tmp) -> Path:
    return Path(shutil.copytree(tiny_folder / "tiny", in_tmp / "own" / "tiny"))


def test_a_data_set_in_parquet_trains_to_the_same_bits(home, tiny):
    keys = tiny(data_path=str(home.parent), epochs=1, item_vocabulary="all")
    keys["load_col"] = {"inter": ["user_id", "item_id", "timestamp"], "item": ["item_id"]}
    text = run("MF_Content", "tiny", config_dict=keys)
    for name in ("tiny.inter", "tiny.item"):
        to_parquet(home / name)
    done = run("MF_Content", "tiny", config_dict=keys)
    assert done["test_result"] == text["test_result"]
    first, second = (load(result["checkpoint"]) for result in (text, done))
    for one, other in zip(first.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(one, other)
    batch = Interaction({"user_id": torch.arange(1, 31)})
    scores = [job.model.full_sort_predict(batch) for job in (first, second)]
    assert torch.equal(*scores)
    table = recommend(done["checkpoint"], topk=3, where="annotations=t1")
    assert len(table) > 0


def test_split_files_may_be_in_parquet(home, tiny):
    rows = (home / "tiny.inter").read_text().splitlines()
    for k, part in enumerate(("train", "valid", "test")):
        lines = [rows[0], *(row for n, row in enumerate(rows[1:]) if min(n % 4, 2) == k)]
        (home / f"tiny.{part}.inter").write_text("\n".join(lines) + "\n")
    keys = tiny(data_path=str(home.parent), epochs=1)
    keys["benchmark_filename"] = ["train", "valid", "test"]
    text = run("MF", "tiny", config_dict=keys)
    to_parquet(home / "tiny.train.inter")
    done = run("MF", "tiny", config_dict=keys)
    np.testing.assert_equal(dict(done["test_result"]), dict(text["test_result"]))  # with NaN


@pytest.mark.parametrize("name", ["tiny.inter", "tiny.item"])
def test_a_file_in_both_formats_is_refused(home, tiny, name):
    shutil.copy(home / name, home / "copy")
    to_parquet(home / name)
    (home / "copy").rename(home / name)
    with pytest.raises(DataError, match=rf"{name}: exists as {name}\.parquet too.*; keep one"):
        run("MF_Semantics", "tiny", config_dict=tiny(data_path=str(home.parent)))


def test_messages_name_the_file_in_parquet(home, tiny):
    frame = pd.DataFrame({"user_id:token": ["u", ""], "item_id:token": ["i", "j"]})
    frame.to_parquet(home / "tiny.inter.parquet")
    (home / "tiny.inter").unlink()
    with pytest.raises(DataError, match=r"tiny\.inter\.parquet, row 2: user_id is empty"):
        run("MF", "tiny", config_dict=tiny(data_path=str(home.parent)))
    frame.rename(columns={"user_id:token": "user_id:float"}).to_parquet(home / "tiny.inter.parquet")
    with pytest.raises(DataError, match=r"tiny\.inter\.parquet: column user_id is float, it must"):
        run("MF", "tiny", config_dict=tiny(data_path=str(home.parent)))
    (home / "tiny.inter.parquet").unlink()
    to_parquet(home / "tiny.item")
    with pytest.raises(DataError, match=r"own/tiny/tiny\.inter: no such file"):
        run("MF", "tiny", config_dict=tiny(data_path=str(home.parent)))
