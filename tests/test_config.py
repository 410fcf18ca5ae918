"""Layers, values and checks of the configuration."""

from __future__ import annotations

from pathlib import Path

import pytest
import recbole
import yaml
from recbole.config import Config as RecBoleConfig
from recbole.model.general_recommender.bpr import BPR

from recbole_cierec.config import Config, property_files
from recbole_cierec.config_keys import keys_read, properties_dir
from recbole_cierec.errors import ConfigError
from recbole_cierec.yaml_values import read_yaml

RECBOLE = Path(recbole.__file__).parent


def config(model="BPR", dataset="tiny", files=None, values=None, **flags):
    """A Config whose command line is ``flags``."""
    return Config(model, dataset, files, values, flags)


def message(*args, **kwargs) -> str:
    """The one line that a refused configuration gives."""
    with pytest.raises(ConfigError) as caught:
        config(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def write(folder: Path, text: str, name: str = "mine.yaml") -> str:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return str(path)


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
    first = write(tmp_path, "epochs: 1\nseed: 1\nworker: 1\nstopping_step: 1\n", "a.yaml")
    second = write(tmp_path, "seed: 2\nworker: 2\nstopping_step: 2\n", "b.yaml")
    made = config(
        files=[first, second], values={"worker": 3, "stopping_step": 3}, stopping_step="4"
    )
    assert [made[key] for key in ("epochs", "seed", "worker", "stopping_step")] == [1, 2, 3, 4]
    assert made.origins == {
        "epochs": first,
        "seed": second,
        "worker": "config_dict",
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
    monkeypatch.setattr("recbole_cierec.config.properties_dir", lambda: home)
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
    for key in ("metrics", "topk", "valid_metric", "eval_batch_size", "train_negatives"):
        assert made[key] == defaults[key], key
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
    "two": ("{group_by: none, split: {LS: valid_only}}", {"split": {"LS": "valid_only"}}),
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
    kept = {"epochs": "3", "eval_args": {"mode": "uni10"}, "metrics": "Recall"}
    config(values=values)
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
    monkeypatch.setattr("recbole_cierec.config.properties_dir", lambda: tmp_path)
    assert "MF.yaml: the defaults of MF are missing" in message("MF")


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
    made = config("S3Rec", train_stage="pretrain")
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
        ("gpu_id", "1", "1"),
        ("gpu_id", "0,1", "0,1"),
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
        ("embedding_size", "abc", "'embedding_size' must be a number, not 'abc'"),
        ("load_col", "[a]", "'load_col' must be a mapping or null, not ['a']"),
        ("clip_grad_norm", "5", "'clip_grad_norm' must be a mapping or null, not 5"),
        ("bad_image", "skp", "'bad_image' must be one of skip, blank, error, not 'skp'"),
        ("encoder_training", "frzen", "'encoder_training' must be one of frozen, "),
        ("learner", "adamw", "'learner' must be one of adam, "),
        ("metrics", "[Recal]", "there is no metric 'Recal'; did you mean 'recall'?"),
        ("metrics", "[]", "'metrics' names no metric"),
        ("metrics", "[Recall, AUC]", "can not be used at the same time"),
        ("topk", "[0]", "'topk' must be whole numbers above 0, not [0]"),
        ("topk", "ten", "'topk' must be a whole number or a list, not 'ten'"),
        ("valid_metric", "Recall@5", "valid_metric 'Recall@5' needs 5 in topk"),
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
        ("eval_args", "{split: {LS: last}}", "split LS must be one of valid_and_test"),
        ("train_neg_sample_args", "{distribution: normal}", "The distribution [normal]"),
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
