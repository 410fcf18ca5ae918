"""Columns: their types, the keys that name them, and histories in the files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from atomic_files import INTER, made, refusal

from recbole_cierec.data.recbole_errors import as_data_errors
from recbole_cierec.errors import DataError

ALL = {"inter": "*", "item": "*", "user": "*"}

# -- types -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "header", "row", "says"),
    [
        ("inter", "user_id:token item_id:token timestamp:token", "u1 i1 5", "timestamp:float"),
        ("inter", "user_id:token item_id:token timestamp:float_seq", "u1 i1 5", "timestamp:float"),
        ("inter", "user_id:float item_id:token", "1 i1", "user_id:token"),
        ("inter", "user_id:token item_id:token_seq", "u1 i1", "item_id:token"),
        ("inter", "user_id:token item_id:token rating:token", "u1 i1 5", "rating:float"),
        ("inter", "user_id:token item_id:token label:token", "u1 i1 1", "label:float"),
        ("inter", "user_id:token item_id:token item_id_list:token", "u i i", "item_id_list:tok"),
        ("inter", "user_id:token item_id:token a:float a_list:token_seq", "u i 1 1", "a_list:flo"),
        ("inter", "user_id:token when:float", "u1 5", "no column item_id:token"),
        ("inter", "user:token item:token", "u1 i1", "no column user_id:token among user, item"),
        ("item", "item_id:float price:float", "1 1", "item_id:token"),
        ("item", "item_id:token image_path:token_seq", "i1 a.png", "image_path:token"),
        ("item", "item_id:token annotations:float_seq", "i1 1", "annotations:token_seq"),
        ("item", "item_id:token annotations:token", "i1 1", "annotations:token_seq"),
        ("user", "user_id:token_seq age:float", "u1 1", "user_id:token"),
    ],
)  # fmt: skip
def test_a_column_of_a_wrong_type_is_refused_with_the_right_one(wrote, file, header, row, says):
    said = refusal(wrote(**{file: (header, [row])}) | {"load_col": ALL})
    assert said.startswith(f"data/t/t.{file}")
    assert says in said


@pytest.mark.parametrize(
    ("file", "header", "row", "says"),
    [
        ("kg", "head_id:token relation_id:token tail_id:float", "e1 r1 1", "tail_id:token"),
        ("kg", "head_id:token relation_id:token", "e1 r1", "no column tail_id:token"),
        ("link", "item_id:token entity_id:token_seq", "i1 e1", "entity_id:token"),
    ],
)
def test_files_of_a_knowledge_graph_have_their_types_too(wrote, file, header, row, says):
    files = {
        "kg": ("head_id:token relation_id:token tail_id:token", ["e1 r1 e2"]),
        "link": ("item_id:token entity_id:token", ["i1 e1"]),
        file: (header, [row]),
    }
    assert says in refusal(wrote(**files), "CKE")


def test_a_column_that_is_not_loaded_may_have_any_type(wrote):
    keys = wrote(inter=("user_id:token item_id:token timestamp:token", ["u1 i1 5", "u2 i2 6"]))
    assert made({**keys, "load_col": {"inter": ["user_id", "item_id"]}}).inter_num == 2


@pytest.mark.parametrize(
    ("file", "header", "rows", "line"),
    [
        ("inter", "user_id:token item_id:token", ["u1 i1", "u1 [PAD]"], "t.inter, line 3: item_id"),
        ("inter", "user_id:token item_id:token", ["[PAD] i1"], "t.inter, line 2: user_id"),
        ("item", "item_id:token tags:token_seq", ["i1 a", "i2 b,[PAD]"], "t.item, line 3: tags"),
        ("user", "user_id:token sex:token", ["u1 [PAD]"], "t.user, line 2: sex"),
    ],
)
def test_the_name_of_the_padding_is_no_token(wrote, file, header, rows, line):
    said = refusal(wrote(**{file: (header, rows)}) | {"load_col": ALL, "seq_separator": ","})
    assert line in said
    assert "[PAD]" in said


def test_tokens_that_only_contain_the_padding_stay(wrote):
    keys = wrote(inter=("user_id:token item_id:token", ["u1 [PAD]x", "u2 i2"]))
    assert "[PAD]x" in made(keys).field2token_id["item_id"]


# -- keys that name columns --------------------------------------------------------------------

WITH_ITEMS = {"item": ("item_id:token price:float kind:token tags:token_seq", ["i1 1 a b"])}
LOADED = {"inter": "*", "item": ["item_id", "price", "kind", "tags"]}


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"load_col": {**LOADED, "item": ["item_id", "prise"]}}, ["no column prise", "price"]),
        ({"load_col": {**LOADED, "user": ["user_id", "age"]}}, ["t.user: no such file"]),
        ({"threshold": {"rating": 3}}, ["threshold names rating", "not a column of t.inter"]),
        ({"threshold": {"price": 3}}, ["threshold names price", "not a column of t.inter"]),
        ({"val_interval": {"prise": "[1,2]"}}, ["val_interval names prise", "'price'"]),
        ({"val_interval": {"price": ["1"]}}, ["val_interval: price is float", "an interval"]),
        ({"val_interval": {"kind": "[1,2]"}}, ["val_interval: kind is token", "a list"]),
        ({"val_interval": {"tags": ["b"]}}, ["val_interval: tags is token_seq"]),
        ({"normalize_field": ["kind"]}, ["normalize_field: kind is token", "float"]),
        ({"numerical_features": ["pric"]}, ["numerical_features names pric", "'price'"]),
        ({"numerical_features": ["kind"]}, ["numerical_features: kind is token"]),
        ({"seq_len": {"price": 3}}, ["seq_len: price is float"]),
        ({"unused_col": {"item": ["knd"]}}, ["unused_col names knd", "'kind'"]),
        ({"preload_weight": {"kind": "prce"}}, ["preload_weight names prce", "'price'"]),
        ({"alias_of_item_id": ["items"]}, ["alias_of_item_id names items"]),
        ({"alias_of_item_id": ["price"]}, ["alias_of_item_id: price is float"]),
    ],
)  # fmt: skip
def test_a_key_that_names_no_loaded_column_is_refused(wrote, keys, words):
    said = refusal({**wrote(**WITH_ITEMS), "load_col": LOADED, **keys})
    assert all(word in said for word in words), said


def test_a_column_that_is_there_and_not_loaded_is_shown_in_load_col(wrote):
    said = refusal({**wrote(**WITH_ITEMS), "normalize_field": ["price"]})
    assert "price of t.item, which is not loaded" in said
    assert "set load_col: {item: [item_id, price]}" in said


def test_the_default_of_load_col_may_name_more_than_there_is(wrote):
    keys = wrote(inter=("user_id:token item_id:token", ["u1 i1", "u2 i2"]))
    assert made({**keys, "eval_args": {"order": "RO"}}).inter_num == 2


def test_unload_col_loads_the_other_columns(wrote):
    header = f"{INTER} rating:float note:token"
    keys = wrote(inter=(header, ["u1 i1 1 3 x", "u2 i2 2 4 y"]))
    said = refusal({**keys, "unload_col": {"inter": ["nte"]}})
    assert "no column nte, which unload_col names; did you mean 'note'?" in said
    columns = made({**keys, "unload_col": {"inter": ["note"]}}).inter_feat.columns
    assert list(columns) == ["user_id", "item_id", "timestamp", "rating"]


def test_a_column_that_two_files_bring_is_refused(wrote):
    keys = wrote(
        inter=(f"{INTER} price:float", ["u1 i1 1 2"]), item=("item_id:token price:float", ["i1 3"])
    )
    assert "the column price is also loaded from t.inter" in refusal({**keys, "load_col": ALL})


def test_one_item_alone_is_refused(wrote):
    assert "only one item" in refusal(wrote(inter=(INTER, ["u1 i1 1", "u2 i1 2"])))


def test_what_recbole_refuses_is_one_line_and_its_faults_keep_their_trace():
    config = {"dataset": "t", "model": "BPR"}
    names: dict = {"__name__": "recbole.data"}
    exec("def refuse(): raise ValueError('a\\nb')\ndef fail(): int('x')", names)  # noqa: S102
    with pytest.raises(DataError, match="t, for BPR: a b"), as_data_errors(config):
        names["refuse"]()
    with pytest.raises(ValueError, match="invalid literal"), as_data_errors(config):
        names["fail"]()
    with pytest.raises(ValueError, match="ours"), as_data_errors(config):
        raise ValueError("ours")


def test_a_refusal_of_recboles_own_is_one_line(wrote):
    keys = {"alias_of_user_id": ["kind"], "alias_of_item_id": ["kind"], "load_col": LOADED}
    said = refusal({**wrote(**WITH_ITEMS), **keys})
    assert "t, for BPR: `alias_of_user_id` and `alias_of_item_id` should not" in said


# -- histories ---------------------------------------------------------------------------------

HISTORY = "user_id:token item_id_list:token_seq item_id:token"
PARTS = {"benchmark_filename": ["train", "valid", "test"], "seq_separator": ","}
PARTS["load_col"] = {"inter": ["user_id", "item_id_list", "item_id"]}


def histories(wrote, test: list[str], train: list[str] = ("a i0 i1", "a i0,i1 i2", "b i5 i6")):
    files = {"train_inter": (HISTORY, list(train)), "valid_inter": (HISTORY, ["a i0,i1,i2 i3"])}
    return {**wrote(**files, test_inter=(HISTORY, test)), **PARTS}


def read_back(dataset, row: int, iid: str = "item_id") -> list[str]:
    length = int(dataset.inter_feat["item_length"][row])
    ids = dataset.inter_feat[f"{iid}_list"][row][:length]
    return dataset.field2id_token[iid][ids.numpy()].tolist()


@pytest.mark.parametrize("names", [{}, {"ITEM_ID_FIELD": "iid"}])
def test_histories_are_read_as_the_items_that_they_name(wrote, names):
    keys = histories(wrote, ["c i7,i3,i4 i5", "a i2,i3 i8"])
    iid = names.get("ITEM_ID_FIELD", "item_id")
    for path in Path("data/t").glob("*"):
        path.write_text(path.read_text().replace("item_id", iid))
    keys["load_col"] = {"inter": ["user_id", f"{iid}_list", iid]}
    parts = made({**keys, **names}, "SASRec").build()
    test, vocabulary = parts[2], parts[2].field2id_token[iid]
    assert [read_back(test, row, iid) for row in (0, 1)] == [["i7", "i3", "i4"], ["i2", "i3"]]
    assert vocabulary[test.inter_feat[iid].numpy()].tolist() == ["i5", "i8"]


def test_items_of_histories_exist_and_count_where_training_knows_them(wrote):
    train, _, test = made(histories(wrote, ["c i7,i5 i1"]), "SASRec").build()
    names = train.field2id_token["item_id"].tolist()
    assert sorted(names[1:]) == ["i0", "i1", "i2", "i3", "i5", "i6", "i7"]
    counts = dict(zip(names, train.training_counts("item_id").tolist(), strict=True))
    assert [counts[i] for i in ("i0", "i1", "i5", "i3", "i7")] == [1, 1, 1, 0, 0]
    users = train.field2id_token["user_id"]
    pairs = zip(users[test.rowless.users], test.rowless.items, strict=True)
    known = {(str(user), names[item]) for user, item in pairs}
    assert known == {("a", "i0"), ("b", "i5"), ("c", "i5"), ("c", "i7")}


def test_other_lists_share_the_vocabulary_of_their_column(wrote):
    header = f"{HISTORY} kind_list:token_seq kind:token"
    rows = ["a i0 i1 y x", "a i0,i1 i2 x,y y"]
    parts = {f"{part}_inter": (header, rows) for part in ("train", "valid", "test")}
    keys = {**wrote(**parts), **PARTS, "load_col": {"inter": "*"}}
    dataset = made(keys, "SASRec")
    assert sorted(dataset.field2id_token["kind"]) == ["[PAD]", "x", "y"]
    assert dataset.field2token_id["kind_list"] == dataset.field2token_id["kind"]


def test_of_a_long_history_the_last_items_are_kept(wrote):
    keys = histories(wrote, ["c i7,i3,i4 i5"])
    test = made({**keys, "MAX_ITEM_LIST_LENGTH": 2}, "SASRec").build()[2]
    assert read_back(test, 0) == ["i3", "i4"]


@pytest.mark.parametrize(
    ("rows", "says"), [(["c  i5"], "t.test.inter, line 2: item_id_list is empty")]
)
def test_an_empty_history_is_refused_with_its_line(wrote, rows, says):
    assert says in refusal(histories(wrote, rows), "SASRec")


def test_lists_of_other_lengths_are_refused(wrote):
    header = f"{HISTORY} kind_list:token_seq"
    parts = {f"{part}_inter": (header, ["a i0,i1 i1 y"]) for part in ("train", "valid", "test")}
    keys = {**wrote(**parts), **PARTS, "load_col": {"inter": "*"}}
    assert "kind_list and item_id_list have different lengths" in refusal(keys, "SASRec")


def test_histories_in_one_file_are_refused_for_models_of_sequences(wrote):
    keys = wrote(inter=(f"{INTER} item_id_list:token_seq", ["u1 i1 1 i2", "u2 i2 2 i1"]))
    keys["load_col"] = {"inter": "*"}
    assert "benchmark_filename" in refusal(keys, "SASRec")
    shared = made(keys, "BPR").field2id_token
    assert np.array_equal(shared["item_id"], shared["item_id_list"])


def test_parts_with_other_columns_are_refused(wrote):
    parts = {part: (INTER, ["u1 i1 1", "u2 i2 1"]) for part in ("train_inter", "valid_inter")}
    keys = wrote(**parts, test_inter=("user_id:token item_id:token", ["u1 i2"]))
    said = refusal({**keys, "benchmark_filename": ["train", "valid", "test"]})
    assert said.startswith("data/t/t.test.inter: has the columns user_id:token, item_id:token, and")


def test_sequences_longer_than_any_user_has_interactions_are_refused(wrote):
    keys = {**wrote(), "MAX_ITEM_LIST_LENGTH": 10**8}
    with pytest.raises(DataError, match="MAX_ITEM_LIST_LENGTH is 100000000"):
        made(keys, "SASRec").build()
