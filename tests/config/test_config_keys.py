"""Keys of the configuration: unknown ones are refused, values get their type."""

from __future__ import annotations

from pathlib import Path

import pytest
import recbole
from config_helpers import config, message, write

from recbole_cierec.config.keys import keys_read
from recbole_cierec.errors import ConfigError

RECBOLE = Path(recbole.__file__).parent


# -- keys --------------------------------------------------------------------------------------


def test_misspelt_key_is_refused_from_each_source_with_the_nearest(tmp_path):
    hint = "unknown key 'embeding_size'; did you mean 'embedding_size'?"
    file = write(tmp_path, "embeding_size: 8\n")
    assert message(files=[file]) == f"{file}: {hint}"
    assert message(values={"embeding_size": 8}) == f"config_dict: {hint}"
    assert message(embeding_size="8") == f"command line: {hint}"


@pytest.mark.parametrize(
    ("model", "key", "near"),
    [
        ("BPR", "learning_rat", "learning_rate"),
        ("BPR", "Eval_batchsize", "eval_batch_size"),
        ("CIERec", "gr_mod", "gr_mode"),
        ("CIERec", "image_sze", "image_size"),
        ("SASRec", "n_head", "n_heads"),
    ],
)
def test_nearest_key_is_named(model, key, near):
    assert f"unknown key '{key}'; did you mean '{near}'?" in message(model, **{key: "1"})


def test_keys_are_recognised_in_source():
    source = (
        "a = config['one'] + self.config['two']\n"
        "b = 'three' in config and 'x' in other\n"
        "c = self.final_config_dict.get('four', 1) or other['y'] or config[name]\n"
    )
    assert keys_read(source) == {"one", "two", "three", "four"}


def test_key_like_no_other_is_refused_without_a_guess():
    assert message(qqqqqqqq="1") == "command line: unknown key 'qqqqqqqq'"


def test_keys_that_only_recboles_sources_read_are_known():
    sources = (RECBOLE / "data/dataset/dataset.py").read_text(encoding="utf-8")
    assert 'config["encoding"]' in sources
    assert config(encoding="utf-8")["encoding"] == "utf-8"
    made = config("S3Rec", train_stage="pretrain", eval_args="{mode: user5}")
    assert made.notes == []


def test_key_of_another_model_is_noted_not_refused(tmp_path):
    file = write(tmp_path, "n_layers: 2\n")
    made = config("MF", files=[file], gr_mode="off")
    assert [note.split(" (")[0] for note in made.notes] == [
        f"{file}: model MF does not read 'n_layers'",
        "command line: model MF does not read 'gr_mode'",
    ]
    assert config("CIERec", gr_mode="off").notes == []
    assert config("LightGCN", n_layers="2").notes == []


@pytest.mark.parametrize(
    ("mode", "told"),
    [
        ("full", 1),
        ("uni50", 1),
        ("user50", 0),
        ("{valid: full, test: user9}", 1),
        ("{valid: user9, test: user5}", 0),
    ],
)
def test_a_sequential_model_says_where_its_numbers_do_not_compare(mode, told):
    notes = config("SASRec", eval_args=f"{{mode: {mode}}}").notes
    words = ("sequential", "userN", "do not compare")
    assert [all(word in note for word in words) for note in notes] == [True] * told


def test_retired_key_names_its_successor():
    assert "use 'train_neg_sample_args' instead" in message(neg_sampling="{}")


def test_keys_of_a_users_own_model_class_are_known(tmp_path, monkeypatch):
    source = (
        "from recbole.model.general_recommender.bpr import BPR\n"
        "class Mine(BPR):\n"
        "    def __init__(self, config, dataset):\n"
        "        self.own = config['own_key']\n"
    )
    write(tmp_path, source, "users_own_model.py")
    monkeypatch.syspath_prepend(str(tmp_path))
    from users_own_model import Mine

    assert config(Mine, own_key="3")["own_key"] == 3
    with pytest.raises(ConfigError, match="unknown key 'own_kex'"):
        config(Mine, own_kex="3")


# -- types and ranges --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("epochs", "300.0", 300),
        ("epochs", "3e2", 300),
        ("learning_rate", "1", 1.0),
        ("use_gpu", "off", False),
        ("gpu_id", "", ""),
        ("checkpoint_dir", "1e3", "1e3"),
        ("checkpoint_dir", "2020", "2020"),
        ("topk", "10", [10]),
        ("metrics", "Recall", ["Recall"]),
        ("user_inter_num_interval", "[5,inf)", "[5,inf)"),
        ("image_resize", "CROP", "crop"),
        ("bad_image", "skip", "skip"),
        ("state", "DEBUG", "debug"),
        ("clip_grad_norm", "{max_norm: 5}", {"max_norm": 5}),
        ("resume", "auto", "auto"),
        ("feature_norm", "none", "none"),
    ],
)
def test_values_get_the_type_of_their_key(key, text, value):
    made = config(**{key: text})[key]
    assert made == value
    assert type(made) is type(value)


@pytest.mark.parametrize(
    ("key", "text", "said"),
    [
        ("epochs", "1.5", "'epochs' must be a whole number, not 1.5"),
        ("epochs", "True", "'epochs' must be a whole number, not True"),
        ("epochs", "null", "'epochs' must be a whole number, not null"),
        ("epochs", "ten", "'epochs' must be a whole number, not 'ten'"),
        ("epochs", "[1]", "'epochs' must be a whole number, not [1]"),
        ("epochs", "-1", "'epochs' must be 0 or more, not -1"),
        ("train_batch_size", "0", "'train_batch_size' must be 1 or more, not 0"),
        ("learning_rate", "fast", "'learning_rate' must be a number, not 'fast'"),
        ("learning_rate", ".nan", "'learning_rate' must be finite, not nan"),
        ("use_gpu", "1", "'use_gpu' must be True or False, not 1"),
        ("embedding_size", "abc", "'embedding_size' must be a whole number, not 'abc'"),
        ("load_col", "[a]", "'load_col' must be a mapping or null, not ['a']"),
        ("clip_grad_norm", "5", "'clip_grad_norm' must be a mapping or null, not 5"),
        ("bad_image", "skp", "'bad_image' must be one of skip, blank, error, not 'skp'"),
        ("encoder_training", "frzen", "'encoder_training' must be one of frozen, "),
        ("learner", "adamw", "'learner' must be one of adam, "),
        ("metrics", "[Recal]", "there is no metric 'Recal'; did you mean 'recall'?"),
        ("metrics", "[]", "'metrics' names no metric"),
        (
            "metrics",
            "[Recall, AUC]",
            "command line: 'metrics' names Recall, which rank items, and AUC, which",
        ),
        ("metrics", "AUC", "command line: 'metrics' AUC compare scores with labels, and mode full"),
        (
            "metrics",
            "NDCG",
            "command line: the default valid_metric 'Recall@10' is not among the metrics NDCG; "
            "add it to metrics, or take NDCG@10",
        ),
        (
            "topk",
            "5",
            "command line: the default valid_metric 'Recall@10' needs 10 in topk, which is [5]; "
            "add 10 to topk, or take Recall@5",
        ),
        ("topk", "[0]", "'topk' must be whole numbers above 0, not [0]"),
        ("topk", "ten", "'topk' must be a whole number or a list, not 'ten'"),
        (
            "valid_metric",
            "ndcg@5",
            "command line: valid_metric 'ndcg@5' needs 5 in topk, which is [10, 20]; add 5 to topk,"
            " or take NDCG@10",
        ),
        ("valid_metric", "MRR@10", "valid_metric 'MRR@10' is not among the metrics"),
        ("eval_args", "full", "'eval_args' must be a mapping, not 'full'"),
        ("eval_args", "{mod: full}", "unknown key 'mod' in eval_args; did you mean 'mode'?"),
        ("eval_args", "{mode: ful}", "eval_args.mode must be full, "),
        ("eval_args", "{mode: uni}", "eval_args.mode must be full, "),
        ("eval_args", "{mode: {vald: full}}", "takes valid and test, not 'vald'"),
        ("eval_args", "{order: time}", "eval_args.order must be one of TO, RO, not 'time'"),
        ("eval_args", "{group_by: item}", "eval_args.group_by must be one of user, none"),
        ("eval_args", "{split: {RS: [0.8, 0.2]}}", "split RS must be three shares"),
        ("eval_args", "{split: {RS: [0, 0, 0]}}", "split RS must be three shares"),
        ("eval_args", "{split: {XX: [1, 1, 1]}}", "COLD_ITEM or COLD_USER, not 'XX'"),
        ("eval_args", "{split: {LS: last}}", "split LS must be valid_and_test, not 'last'"),
        ("eval_args", "{split: {LS: valid_only}}", "split LS must be valid_and_test"),
        ("train_neg_sample_args", "{distribution: normal}", "must be one of uniform, popularity"),
    ],
)
def test_wrong_values_are_refused_in_one_line(key, text, said):
    assert said in message(**{key: text})


def test_wrong_value_names_the_file_it_came_from(tmp_path):
    file = write(tmp_path, "epochs: many\n")
    assert message(files=[file]).startswith(f"{file}: 'epochs' must be")


def test_strings_in_config_dict_fit_their_key_as_hyper_tuning_gives_them():
    made = config("NeuMF", values={"mlp_hidden_size": "[8, 4]", "epochs": "3", "dropout_prob": 0})
    assert (made["mlp_hidden_size"], made["epochs"], made["dropout_prob"]) == ([8, 4], 3, 0)
    assert config(values={"wandb_project": "[8, 4]"})["wandb_project"] == "[8, 4]"


def test_tuples_and_paths_in_config_dict_are_taken(tmp_path):
    made = config(values={"topk": (5, 10), "data_path": tmp_path})
    assert made["topk"] == [5, 10]
    assert made["data_path"] == str(tmp_path / "tiny")


@pytest.mark.parametrize("name", ["../x", "a/b", ".", ""])
def test_data_set_names_that_are_paths_are_refused(name):
    assert "is not the name of a folder" in message(dataset=name)
