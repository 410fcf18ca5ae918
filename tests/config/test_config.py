"""Layers of the configuration, and how its values are read."""

from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import pytest
import recbole
import yaml
from config_helpers import config, message, write
from recbole.config import Config as RecBoleConfig
from recbole.model.general_recommender.bpr import BPR

from recbole_cierec.config.config import Config, property_files
from recbole_cierec.config.properties import properties_dir
from recbole_cierec.config.yaml import read_yaml

RECBOLE = Path(recbole.__file__).parent


# -- values ------------------------------------------------------------------------------------


def test_python_on_the_command_line_is_text_and_is_not_run(tmp_path):
    target = tmp_path / "made"
    text = f"__import__('pathlib').Path('{target}').touch()"
    assert config(wandb_project=text)["wandb_project"] == text
    assert not target.exists()


def test_python_tag_in_a_file_is_refused_and_not_run(tmp_path):
    target = tmp_path / "made"
    file = write(tmp_path, f"epochs: !!python/object/apply:os.mkdir ['{target}']\n")
    assert f"{file}:1" in message(files=[file])
    assert not target.exists()


def test_global_yaml_loaders_are_left_alone():
    before = {name: dict(getattr(yaml, name).yaml_implicit_resolvers) for name in ("FullLoader",)}
    before["SafeLoader"] = dict(yaml.SafeLoader.yaml_implicit_resolvers)
    config()
    for name, rules in before.items():
        assert getattr(yaml, name).yaml_implicit_resolvers == rules
    assert yaml.safe_load("yes") is True


# -- files -------------------------------------------------------------------------------------


def test_missing_file_is_one_line():
    assert message(files=["no.yaml"]) == "no.yaml: there is no such configuration file"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("epochs: 3\nseed: [1,\n", ":3: not valid YAML"),
        ("- a\n- b\n", "must hold lines 'key: value', not a list"),
        ("epochs: 3\nepochs: 4\n", ":2: not valid YAML: the key 'epochs' is given twice"),
        ("1: 2\n", "the key 1 is not a name"),
        ("a: *b\n", ":1: not valid YAML"),
        ("[" * 5000, "cannot be read"),
    ],
)
def test_malformed_files_are_refused_with_their_place(tmp_path, text, part):
    file = write(tmp_path, text)
    said = message(files=[file])
    assert said.startswith(file)
    assert part in said


def test_binary_file_and_folder_are_refused(tmp_path):
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00")
    assert "cannot be read" in message(files=[str(tmp_path / "b.yaml")])
    assert "cannot be read" in message(files=[str(tmp_path)])


def test_empty_file_changes_nothing(tmp_path):
    file = write(tmp_path, "# only a comment\n")
    assert config(files=[file]).digest() == config().digest()


def test_one_file_may_be_given_as_a_string(tmp_path):
    assert config(files=write(tmp_path, "epochs: 7\n"))["epochs"] == 7


# -- layers ------------------------------------------------------------------------------------


def test_each_layer_wins_over_those_before(tmp_path):
    first = write(tmp_path, "epochs: 1\nseed: 1\neval_step: 1\nstopping_step: 1\n", "a.yaml")
    second = write(tmp_path, "seed: 2\neval_step: 2\nstopping_step: 2\n", "b.yaml")
    made = config(
        files=[first, second], values={"eval_step": 3, "stopping_step": 3}, stopping_step="4"
    )
    assert [made[key] for key in ("epochs", "seed", "eval_step", "stopping_step")] == [1, 2, 3, 4]
    assert made.origins == {
        "epochs": first,
        "seed": second,
        "eval_step": "config_dict",
        "stopping_step": "command line",
    }


def test_ours_over_recboles_overall_and_recboles_model_file_over_ours():
    assert read_yaml(RECBOLE / "properties/overall.yaml")["valid_metric"] == "MRR@10"
    assert config()["valid_metric"] == "Recall@10"
    made = config("LightGCN")
    assert made["n_layers"] == read_yaml(RECBOLE / "properties/model/LightGCN.yaml")["n_layers"]


@pytest.fixture
def properties(tmp_path, monkeypatch) -> Path:
    """A folder of properties with our overall.yaml only."""
    overall = (properties_dir() / "overall.yaml").read_text(encoding="utf-8")
    home = tmp_path / "properties"
    for folder in ("model", "dataset"):
        (home / folder).mkdir(parents=True)
    write(home, overall, "overall.yaml")
    monkeypatch.setattr("recbole_cierec.config.properties.properties_dir", lambda: home)
    return home


def test_our_model_and_data_set_files_win_over_overall(properties):
    write(properties / "model", "epochs: 11\nlr_decay: 0.5\nseed: 5\n", "BPR.yaml")
    write(properties / "dataset", "lr_decay: 0.25\nseed: 6\n", "tiny.yaml")
    made = config(values={"seed": 7})
    assert (made["epochs"], made["lr_decay"], made["seed"]) == (11, 0.25, 7)


@pytest.mark.parametrize("model", ["BPR", "SASRec", "DIN", "FM", "KGAT", "MultiVAE", "MF"])
@pytest.mark.parametrize("dataset", ["tiny", "ml-100k"])
def test_every_model_type_keeps_the_protocol(model, dataset):
    made = config(model, dataset)
    defaults = read_yaml(properties_dir() / "overall.yaml")
    for key in ("metrics", "topk", "valid_metric", "train_negatives"):
        assert made[key] == defaults[key], key
    by_pairs = model in ("DIN", "FM")  # each pair passes their network
    assert made["eval_batch_size"] == (4096 if by_pairs else defaults["eval_batch_size"])
    assert made["eval_args"] == {
        **defaults["eval_args"],
        "mode": {"valid": "full", "test": "full"},
    }
    assert made["load_col"]["inter"] == ["user_id", "item_id", "timestamp"]
    assert made["filter_inter_by_user_or_item"] is False
    assert made["threshold"] is None


def test_what_a_model_type_cannot_do_without_stays():
    assert config("SASRec")["repeatable"] is True
    assert config("BPR")["repeatable"] is False
    assert config("KGAT")["load_col"]["kg"] == ["head_id", "relation_id", "tail_id"]


def test_sequential_ce_models_have_no_negatives_unless_the_user_insists():
    assert config("SASRec")["train_neg_sample_args"]["distribution"] == "none"
    bpr = config("SASRec", loss_type="BPR")
    assert bpr["train_neg_sample_args"]["distribution"] == "uniform"
    said = message("SASRec", train_neg_sample_args="{distribution: uniform}")
    assert "should be None when the loss_type is CE" in said


def test_softmax_has_a_rate_and_an_l2_of_its_own_unless_one_is_given(tmp_path):
    assert (config("VBPR")["learning_rate"], config("VBPR")["reg_weight"]) == (0.2, 0.02)
    softmax = config("VBPR", loss="softmax")
    assert (softmax["learning_rate"], softmax["reg_weight"]) == (0.1, 0.1)
    assert config("VBPR", loss="softmax", softmax_reg_weight="0.3")["reg_weight"] == 0.3
    assert config("VBPR", loss="softmax", learning_rate="0.2")["learning_rate"] == 0.2
    file = write(tmp_path, "loss: softmax\nlearning_rate: 0.1\n")
    assert config("VBPR", files=[file])["learning_rate"] == 0.1
    adam = config("AlignRec")["learning_rate"]
    assert config("AlignRec", loss="softmax")["learning_rate"] == adam


@pytest.mark.parametrize("name", ["CLCRec", "DropoutNet"])
def test_softmax_leaves_a_model_with_a_loss_of_its_own_as_it_is(name):
    made, plain = config(name, loss="softmax"), config(name)
    assert ["does not read loss: softmax" in note for note in made.notes] == [True]
    for key in ("train_neg_sample_args", "learning_rate"):
        assert made[key] == plain[key]


def test_a_batch_of_the_users_stays():
    assert config("DIN", eval_batch_size="99")["eval_batch_size"] == 99


def test_columns_follow_the_names_of_fields_unless_they_are_given():
    names = {"USER_ID_FIELD": "uid", "TIME_FIELD": "when"}
    assert config("KGAT", **names)["load_col"]["inter"] == ["uid", "item_id", "when"]
    given = {"inter": ["uid", "item_id"]}
    assert config(**names, values={"load_col": given})["load_col"] == given
    strict = {"filter_inter_by_user_or_item": "True", "ITEM_ID_FIELD": "iid"}
    assert config(**strict)["load_col"]["item"] == ["iid"]


def test_a_cold_split_has_the_defaults_that_the_docs_tell():
    told = {"share": [0.8, 0.1, 0.1], "by": "random", "seed": 2020}
    told |= {"rest": [0.8, 0.1, 0.1], "history": 1}
    for kind in ("item", "user"):
        rule = f"{{split: {{COLD_{kind.upper()}: {{}}}}}}"
        assert config(eval_args=rule)["strict_cold"] == {**told, "kind": kind}
    short = config(eval_args="{split: {COLD_ITEM: [3, 1, 1]}}")["strict_cold"]
    assert short == {**told, "share": [3, 1, 1], "kind": "item"}


def test_a_sequential_model_in_random_order_is_refused():
    assert "SASRec is a sequential model and needs TO" in message("SASRec", eval_args="{order: RO}")


def test_ranking_metrics_of_labels_are_refused():
    said = message("FM", eval_args="{mode: {valid: full, test: labeled}}")
    assert "Recall, NDCG, NDCG_Hit rank items" in said
    values = {"metrics": "[AUC]", "valid_metric": "AUC", "eval_args": "{mode: labeled}"}
    assert config("FM", **values)["valid_metric"] == "AUC"


def test_keys_of_user_mode_are_said_to_be_idle_elsewhere():
    assert "eval_repeats is read in mode userN" in " ".join(config(eval_repeats="5").notes)
    assert not config(eval_repeats="5", eval_args="{mode: user9}").notes
    assert not config(eval_repeats="5", eval_args="{mode: {test: user9}}").notes


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"valid_metric": "Recall@10_colld"}, ["no group 'colld'", "'cold'"]),
        ({"valid_metric": "Recall@10_among_cold"}, ["cold_item_views"]),
        ({"valid_metric": "Recall@10_new"}, ["COLD_USER"]),
        ({"valid_metric": "Recall"}, ["needs a cut", "recall@10"]),
        ({"valid_metric": "Recall@30"}, ["30 in topk"]),
        ({"valid_metric": "Recall@_cold"}, ["its number"]),
        ({"valid_metric": "GAUC@10", "metrics": "[GAUC]"}, ["takes no cut"]),
        ({"valid_metric": "Hit@10"}, ["not among the metrics"]),
        ({"valid_metric": "Rcall"}, ["not among the metrics"]),
    ],
)
def test_a_validation_metric_that_will_not_be_computed_is_refused_at_once(keys, words):
    said = message(**keys)
    assert all(word in said for word in words)


@pytest.mark.parametrize(
    "keys",
    [
        {"valid_metric": "ndcg_hit@20_cold"},
        {"valid_metric": "Recall@10_item_rare"},
        {"valid_metric": "Recall@10_among_cold", "cold_item_views": "True"},
        {"valid_metric": "Recall@10_among_warm", "eval_args": "{split: {COLD_ITEM: [8, 1, 1]}}"},
        {"valid_metric": "Recall@10_new", "eval_args": "{split: {COLD_USER: [8, 1, 1]}}"},
        {"valid_metric": "gauc_cold", "metrics": "[GAUC]"},
    ],
)
def test_a_validation_metric_may_be_that_of_a_group(keys):
    assert config(**keys)["valid_metric"] == keys["valid_metric"]


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("privileged_dropout", "1.5", "from 0 to 1"),
        ("privileged_dropout", "-0.1", "from 0 to 1"),
        ("seed", "4294967296", "4294967295 or less"),
        ("gr_scales", "[]", "a list of numbers"),
        ("gr_scales", "[1, x]", "a list of numbers"),
        ("gr_fixed_scales", "[1]", "a list of 2 numbers"),
        ("gr_fixed_scales", "[1, -1]", "0 or more each"),
    ],
)
def test_shares_and_lists_of_numbers_have_their_limits(key, value, says):
    assert says in message("CIERec", **{key: value})
    assert config("CIERec", **{key: "[1, 0]" if "gr" in key else "1"})[key] in ([1, 0], 1)


def test_eval_args_are_merged_key_by_key(tmp_path):
    file = write(tmp_path, "eval_args: {order: RO, mode: uni50}\n")
    made = config(files=[file], eval_args="{mode: uni100}")
    assert made["eval_args"] == {
        "split": {"RS": [0.6, 0.1, 0.3]},
        "order": "RO",
        "group_by": "user",
        "mode": {"valid": "uni100", "test": "uni100"},
    }
    assert made["test_neg_sample_args"]["sample_num"] == 100


PARTS_OF_EVAL_ARGS = {
    "order": ("{order: RO}", {"order": "RO"}),
    "mode": ("{mode: uni100}", {"mode": {"valid": "uni100", "test": "uni100"}}),
    "split": ("{split: {RS: [0.8, 0.1, 0.1]}}", {"split": {"RS": [0.8, 0.1, 0.1]}}),
    "two": ("{group_by: none, split: {LS: valid_and_test}}", {"split": {"LS": "valid_and_test"}}),
}


@pytest.mark.parametrize("place", ["model", "dataset", "file", "dictionary", "command line"])
@pytest.mark.parametrize("part", list(PARTS_OF_EVAL_ARGS))
def test_a_part_of_eval_args_keeps_the_rest_wherever_it_is_given(properties, place, part):
    text, expected = PARTS_OF_EVAL_ARGS[part]
    default = {**config()["eval_args"]}
    if place in ("model", "dataset"):
        name = {"model": "BPR.yaml", "dataset": "tiny.yaml"}[place]
        write(properties / place, f"eval_args: {text}\n", name)
        made = config()
    elif place == "file":
        made = config(files=[write(properties, f"eval_args: {text}\n")])
    elif place == "dictionary":
        made = config(values={"eval_args": yaml.safe_load(text)})
    else:
        made = config(eval_args=text)
    group = {"group_by": "none"} if part == "two" else {}
    assert made["eval_args"] == {**default, **expected, **group}


def test_parts_of_eval_args_from_every_place_come_together_and_later_places_win(properties):
    write(properties / "model", "eval_args: {order: RO, group_by: none}\n", "BPR.yaml")
    write(
        properties / "dataset",
        "eval_args: {group_by: user, split: {RS: [0.5, 0.2, 0.3]}, mode: uni5}\n",
        "tiny.yaml",
    )
    file = write(properties, "eval_args: {split: {RS: [0.4, 0.3, 0.3]}, mode: uni6}\n")
    made = config(files=[file], eval_args="{mode: uni7}")
    assert made["eval_args"] == {
        "order": "RO",
        "group_by": "user",
        "split": {"RS": [0.4, 0.3, 0.3]},
        "mode": {"valid": "uni7", "test": "uni7"},
    }


@pytest.mark.parametrize("place", ["model", "dataset"])
def test_eval_args_in_our_files_are_checked_as_those_of_the_user(properties, place):
    name = {"model": "BPR", "dataset": "tiny"}[place]
    path = write(properties / place, "eval_args: {mod: full}\n", f"{name}.yaml")
    assert message() == f"{path}: unknown key 'mod' in eval_args; did you mean 'mode'?"


def test_host_programs_arguments_do_not_leak_in(monkeypatch):
    monkeypatch.setattr("sys.argv", ["pytest", "--epochs=77", "-q", "--nonsense=1"])
    assert config()["epochs"] == 300


def test_model_and_data_set_may_come_from_a_file_and_have_defaults(tmp_path):
    made = Config(config_file_list=[write(tmp_path, "model: BPR\ndataset: mine\n")])
    assert (made["model"], made["dataset"], made["data_path"]) == ("BPR", "mine", "dataset/mine")
    made = Config()
    assert (made["model"], made["dataset"]) == ("CIERec", "demo")
    assert Config(cmd_line={"model": "BPR", "dataset": "010"})["dataset"] == "010"
    assert Config(BPR, "tiny")["model"] == "BPR"


def test_given_data_path_holds_for_ml_100k_too():
    assert config(dataset="ml-100k", data_path="/x")["data_path"] == "/x/ml-100k"
    assert Path(config(dataset="ml-100k")["data_path"]).is_dir()


def test_two_configs_share_nothing():
    first, second = config(), config()
    first["eval_args"]["order"] = "RO"
    first["metrics"].append("MRR")
    first.parameters["Dataset"].append("x")
    assert second["eval_args"]["order"] == "TO"
    assert second["metrics"] == ["Recall", "NDCG", "NDCG_Hit"]
    assert "x" not in config().parameters["Dataset"]


def test_config_dict_is_not_changed():
    values = {"epochs": "3", "eval_args": {"mode": "uni10"}, "metrics": "Recall"}
    values["train_neg_sample_args"] = {"distribution": "popularity"}
    kept = deepcopy(values)
    assert config(values=values)["train_neg_sample_args"]["sample_num"] == 1
    assert values == kept


def test_digest_tells_experiments_apart_but_not_places():
    same = config().digest()
    assert (
        config(data_path="/elsewhere", show_progress="False", checkpoint_dir="x").digest() == same
    )
    assert config(seed="1").digest() != same
    assert config("LightGCN").digest() != same
    assert config(dataset="other").digest() != same


def test_property_files_of_ours_and_of_recboles_models():
    names = [Path(file).name for file in property_files("CIERec", "tiny")]
    assert names == ["overall.yaml", "CIERec.yaml"]
    assert [Path(file).name for file in property_files("BPR", "tiny")] == ["overall.yaml"]


def test_recboles_own_config_takes_our_property_files(monkeypatch):
    monkeypatch.setattr("sys.argv", ["x"])
    monkeypatch.setattr(RecBoleConfig, "compatibility_settings", lambda self: None)
    made = RecBoleConfig(BPR, "tiny", property_files("CIERec", "tiny"))
    assert made["valid_metric"] == "Recall@10"
    assert made["backbone"] == "MF"


def test_missing_file_of_our_model_is_refused(tmp_path, monkeypatch):
    write(tmp_path, (properties_dir() / "overall.yaml").read_text(), "overall.yaml")
    monkeypatch.setattr("recbole_cierec.config.properties.properties_dir", lambda: tmp_path)
    assert "MF.yaml: the defaults of MF are missing" in message("MF")


@pytest.mark.parametrize("dataset", ["amazon-cds", "allrecipes"])
def test_the_papers_data_sets_are_split_and_ranked_as_in_the_paper(dataset):
    made = config("CIERec", dataset)
    shipped = ["train", "valid", "test"] if dataset == "allrecipes" else None
    assert made["benchmark_filename"] == shipped
    assert made["eval_args"] == {
        "split": {"RS": [0.6, 0.1, 0.3]},
        "order": "TO",
        "group_by": "user",
        "mode": {"valid": "user500", "test": "user500"},
    }
    assert made["eval_repeats"] == 5
    full = config("CIERec", dataset, eval_args="{mode: full}")
    assert full["eval_args"]["mode"] == {"valid": "full", "test": "full"}
    assert full["eval_args"]["split"] == {"RS": [0.6, 0.1, 0.3]}
    assert full["eval_repeats"] == 5
