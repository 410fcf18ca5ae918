"""Impossible values are refused before anything runs, in one line that names the key."""

from __future__ import annotations

import math

import pytest
import torch
from config_helpers import config, message, write

from recbole_cierec.distributed.launch import MOST_PROCESSES, launch
from recbole_cierec.errors import ConfigError
from recbole_cierec.registry import get_model_class

# -- parts of values ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "text", "said"),
    [
        ("topk", "[5, 5]", "names a number twice"),
        ("gpu_id", "x", "must be numbers of GPUs"),
        ("gpu_id", "0,0", "must be numbers of GPUs"),
        ("clip_grad_norm", "{foo: 1}", "unknown key 'foo' in 'clip_grad_norm'"),
        ("clip_grad_norm", "{max_nrm: 1}", "did you mean 'max_norm'?"),
        ("clip_grad_norm", "{norm_type: 2}", "needs max_norm"),
        ("clip_grad_norm", "{max_norm: -1}", "max_norm in 'clip_grad_norm' must be a number above"),
        ("clip_grad_norm", "{max_norm: 0}", "must be a number above 0"),
        ("clip_grad_norm", "{max_norm: 1, norm_type: x}", "norm_type in 'clip_grad_norm'"),
        ("train_neg_sample_args", "{sample_num: 0}", "sample_num in 'train_neg_sample_args'"),
        ("train_neg_sample_args", "{sample_nm: 1}", "did you mean 'sample_num'?"),
        ("train_neg_sample_args", "{alpha: 99}", "alpha in 'train_neg_sample_args' must be"),
        ("train_neg_sample_args", "{dynamic: 1}", "must be True or False"),
        ("train_neg_sample_args", "{dynamic: True}", "candidate_num"),
        ("load_col", "{inter: user_id}", "must be a list of names"),
        ("load_col", "{inter: [user_id]}", "'load_col' must name item_id in inter"),
        ("load_col", "{inter: [user_id, item_id], item: [price]}", "must name item_id in item"),
        ("load_col", "{intr: [user_id, item_id]}", "names the file 'intr'"),
        ("load_col", "{inter: [user_id, [item_id]]}", "must be a name"),
        ("unload_col", "{inter: [user_id]}", "'unload_col' cannot name user_id"),
        ("unused_col", "{inter: [item_id]}", "'unused_col' cannot name item_id"),
        ("seq_len", "{tags: 0}", "tags in 'seq_len' must be a whole number"),
        ("threshold", "{rating: high}", "rating in 'threshold' must be a number"),
        ("threshold", "{rating: 3, stars: 4}", "'threshold' must name one column"),
        ("val_interval", "{rating: 3}", "rating in 'val_interval' must be an interval"),
        ("normalize_field", "[[a]]", "must be a name"),
        ("numerical_features", "price", "'numerical_features' must be a list"),
        ("discretization", "{price: {method: XD}}", "must be one of ED, LD"),
        ("discretization", "{price: {method: ED}}", "needs bucket"),
        ("discretization", "{price: {method: LD}}", "numerical_features must name too"),
        ("benchmark_filename", "[train, test]", "must name three files"),
        ("benchmark_filename", "[a, b, c, d]", "must name three files"),
        ("benchmark_filename", "[a, b, b]", "must name three files"),
        ("rm_dup_inter", "newest", "must be one of"),
        ("transform", "mask", "must be one of mask_itemseq"),
        ("NEG_PREFIX", "''", "'NEG_PREFIX' must not be empty"),
        ("TIME_FIELD", "item_id", "name one column"),
    ],
)
def test_a_wrong_part_is_refused(key, text, said):
    assert said in message(**{key: text})


@pytest.mark.parametrize(
    "text", ["7", "[7]", "5,inf", "[5,inf", "[inf,5]", "(a,b)", "[5;6]", "[1,2];3", "[nan,3]", "''"]
)
@pytest.mark.parametrize("key", ["user_inter_num_interval", "relation_kg_num_interval"])
def test_what_is_no_interval_is_refused_and_a_right_one_shown(key, text):
    said = message(**{key: text})
    assert key in said
    assert '"[5,inf)"' in said


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("user_inter_num_interval", "[5,inf)", "[5,inf)"),
        ("user_inter_num_interval", "[5, 10]", "[5, 10]"),  # yaml makes a list of it
        ("item_inter_num_interval", "(1, 3];[5,5]", "(1, 3];[5,5]"),
        ("item_inter_num_interval", "null", None),
        ("clip_grad_norm", "{max_norm: 5, norm_type: .inf}", dict(max_norm=5, norm_type=math.inf)),
        ("val_interval", "{price: '[3,inf)', tag: [a]}", {"price": "[3,inf)", "tag": ["a"]}),
        ("load_col", "{inter: '*'}", {"inter": "*"}),
        ("unload_col", "{inter: [rating]}", {"inter": ["rating"]}),
        ("rm_dup_inter", "first", "first"),
        ("benchmark_filename", "[1, 2, 3]", ["1", "2", "3"]),
        ("seq_len", "{tags: 3}", {"tags": 3}),
    ],
)  # fmt: skip
def test_right_parts_are_kept(key, text, value):
    assert config(**{key: text})[key] == value


def test_negatives_switched_off_in_any_spelling():
    for text in ("{distribution: none}", "{distribution: null}", "null"):
        drawn = config(train_neg_sample_args=text)["train_neg_sample_args"]
        assert drawn["distribution"] == "none"


def test_unload_col_takes_columns_from_all_of_a_file():
    made = config(unload_col="{inter: [rating]}")
    assert made["load_col"]["inter"] == "*"
    given = {"inter": ["user_id", "item_id", "rating"]}
    said = message(values={"load_col": given}, unload_col="{inter: [rating]}")
    assert "unload_col" in said
    assert "load_col both choose columns of inter" in said


# -- values that would be ignored --------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("user_inter_num_interval", "[5,inf)"),
        ("val_interval", "{rating: '[3,inf)'}"),
        ("rm_dup_inter", "first"),
        ("filter_inter_by_user_or_item", "True"),
    ],
)
def test_filters_of_files_that_are_split_already_are_refused(key, text):
    assert config(**{key: text})[key]
    said = message(**{key: text}, benchmark_filename="[train, valid, test]")
    assert f"'{key}' filters nothing" in said
    assert "benchmark_filename" in said


def test_a_split_of_files_that_are_split_already_is_noted():
    given = {"benchmark_filename": "[train, valid, test]", "eval_args": "{order: RO, mode: full}"}
    assert config(**given).notes == [
        "eval_args.order is not read: the files are split already (benchmark_filename)"
    ]


@pytest.mark.parametrize(
    ("key", "text", "says"),
    [
        ("device", "cuda:1", "use_gpu and gpu_id"),
        ("strict_cold", "{kind: item}", "eval_args.split"),
        ("MODEL_TYPE", "1", "the model"),
        ("valid_metric_bigger", "False", "valid_metric_bigger is True for Recall@10"),
        ("save_dataset", "True", "pickled data"),
        ("dataset_save_path", "x.pth", "pickled data"),
        ("save_dataloaders", "True", "pickled data"),
        ("dataloaders_save_path", "x.pth", "pickled data"),
    ],
)
def test_keys_that_would_be_passed_over_are_refused(key, text, says):
    said = message(**{key: text})
    assert key in said
    assert says in said


def test_a_loss_type_that_no_batch_is_made_for_is_refused():
    assert "'loss_type' must be one of CE, BPR, not 'XE'" in message("SASRec", loss_type="XE")


def test_both_ways_to_normalise_are_refused():
    said = message(normalize_field="[price]", normalize_all="True")
    assert "'normalize_field' and normalize_all" in said


# -- counts ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "key", "text"),
    [
        ("BPR", "worker", "1000"),
        ("BPR", "worker", "-1"),
        ("BPR", "epochs", "1" + 30 * "0"),
        ("BPR", "train_batch_size", "1e30"),
        ("BPR", "eval_step", "0"),
        ("BPR", "eval_repeats", "1e9"),
        ("BPR", "embedding_size", "1e9"),
        ("VBPR", "image_size", "1e6"),
        ("SASRec", "n_layers", "1e9"),
        ("SASRec", "MAX_ITEM_LIST_LENGTH", "0"),
        ("S3Rec", "save_step", "0"),
        # Above the range of float32: torch raises in the first step.
        ("CIERec", "learning_rate", "1e308"),
        ("BPR", "weight_decay", "1e39"),
        ("CIERec", "gr_scales", "[1e39]"),
        ("CIERec", "lr_decay", "2"),
    ],
)
def test_counts_that_cannot_be_meant_are_refused(model, key, text):
    said = message(model, **{key: text})
    assert f"'{key}' must be" in said
    wanted = (" or less, not", " or more", "a whole number, not", " from 0 to 1, not")
    assert any(words in said for words in wanted)


def test_more_processes_than_any_machine_has_are_refused_before_they_start():
    with pytest.raises(ConfigError, match=f"nproc must be {MOST_PROCESSES} or less"):
        launch(None, {"config_dict": {}}, 100_000, -1, "localhost", "5678", 0)


# -- text and paths ----------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["checkpoint_dir", "data_path", "wandb_project", "visual_encoder"])
def test_nul_bytes_are_refused(key):
    assert f"'{key}' holds a NUL byte" in message("VBPR", values={key: "a\0b"})


def test_nul_bytes_in_parts_and_names_are_refused():
    assert "'load_col' holds a NUL byte" in message(values={"load_col": {"inter": ["a\0"]}})
    assert "'dataset' holds a NUL byte" in message(dataset="tiny\0")
    assert "'model' holds a NUL byte" in message("BPR\0")


@pytest.mark.parametrize("key", ["image_dir", "data_path", "checkpoint_dir", "resume"])
@pytest.mark.parametrize("text", [5000 * "x", 300 * "x", 3000 * "é"])
def test_names_longer_than_a_file_can_have_are_refused(key, text):
    said = message("VBPR", values={key: text})
    assert f"'{key}'" in said
    assert len(said) < 200


def test_long_names_of_models_and_data_sets_are_refused():
    for said in (message(10_000 * "x"), message(dataset=200 * "x")):
        assert len(said) < 200
    with pytest.raises(ConfigError, match="is not known"):
        get_model_class(10_000 * "x")


def test_folders_for_files_and_files_for_folders_are_refused(tmp_path):
    file = write(tmp_path, "")
    for key in ("candidates_file", "features_file", "resume"):
        assert f"'{key}' must be a file, and {tmp_path} is a folder" in message(
            "VBPR", values={key: str(tmp_path)}
        )
    for key in ("checkpoint_dir", "cache_dir", "image_dir", "data_path"):
        assert f"'{key}' must be a folder, and {file} is a file" in message(
            "VBPR", values={key: file}
        )


def test_long_values_are_cut_in_messages():
    assert len(message(epochs=3000 * "x")) < 200
    assert len(message(learner=3000 * "x")) < 200
    assert len(message(threshold=f"{{rating: {3000 * 'x'}}}")) < 200


# -- devices -----------------------------------------------------------------------------------


@pytest.fixture
def gpus(monkeypatch):
    """``gpus(n)``: torch finds n."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")

    def found(n: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: n > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: n)
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: False)

    return found


@pytest.mark.parametrize("given", [{"use_gpu": "True"}, {"gpu_id": "0"}, {"gpu_id": "GPU-8a1b"}])
def test_a_gpu_that_is_asked_for_and_absent_is_an_error(gpus, given):
    gpus(0)
    said = message(**given)
    assert "asks for a GPU, and torch finds none" in said
    assert "set use_gpu: False" in said
    gpus(1)
    assert config(**given)["device"].type == "cuda"


def test_recboles_defaults_run_where_there_is_no_gpu(gpus):
    gpus(0)
    for given in ({}, {"use_gpu": "False"}, {"gpu_id": ""}, {"gpu_id": "-1"}):
        assert config(**given)["device"].type == "cpu"
        assert config(**{"gpu_id": "1", **given, "use_gpu": "False"})["device"].type == "cpu"


def test_each_gpu_that_is_named_must_exist(gpus):
    gpus(1)
    assert "torch finds 1 of the 2 in gpu_id" in message(gpu_id="0,1")
    assert "gpu_id names none" in message(use_gpu="True", gpu_id="")
    gpus(2)
    assert config(gpu_id="0,1")["gpu_id"] == "0,1"


# -- keys of RecBole's models ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "key", "text", "said"),
    [
        ("BPR", "embedding_size", "0.5", "'embedding_size' must be a whole number"),
        ("SASRec", "n_layers", "-1", "'n_layers' must be 0 or more"),
        ("SASRec", "n_heads", "0", "'n_heads' must be 1 or more"),
        ("SASRec", "hidden_dropout_prob", "3", "'hidden_dropout_prob' must be from 0 to 1"),
        ("CKE", "kg_embedding_size", "0.5", "'kg_embedding_size' must be a whole number"),
        ("CKE", "reg_weights", "[1]", "'reg_weights' must be a list of 2 numbers"),
        ("CKE", "reg_weights", "[1, x]", "'reg_weights' must be a list of 2 numbers"),
        ("NeuMF", "mlp_hidden_size", "[8, x]", "'mlp_hidden_size' must be a list of numbers"),
    ],
)
def test_counts_shares_and_weights_of_recboles_models(model, key, text, said):
    assert said in message(model, **{key: text})


def test_other_numbers_of_recboles_models_may_be_any_number():
    assert config("LightGCN", reg_weight="1")["reg_weight"] == 1
    assert config("NeuMF", dropout_prob="0.5")["dropout_prob"] == 0.5
    assert config("NeuMF", mlp_hidden_size="[8]")["mlp_hidden_size"] == [8]
