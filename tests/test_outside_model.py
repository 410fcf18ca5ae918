"""Models outside the package: a class in a user's module, by class or as ``module:Class``."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
from run_helpers import last_of, same

from recbole_cierec import load, recommend, run
from recbole_cierec.config import Config
from recbole_cierec.config.properties import overall_defaults, properties_dir
from recbole_cierec.config.yaml import read_yaml
from recbole_cierec.errors import CheckpointError, ConfigError
from recbole_cierec.files.checkpoint import read_checkpoint
from recbole_cierec.trainer.gated_trainer import GatedTrainer
from recbole_cierec.trainer.trainer_class import get_trainer_class

SOURCE = '''
from dataclasses import replace
from recbole.model.general_recommender.bpr import BPR
from recbole_cierec.config.schema import KEYS, Key
from recbole_cierec.model.alignrec import AlignRec
from recbole_cierec.model.amf import AMF
from recbole_cierec.model.cierec import CIERec
from recbole_cierec.model.base.side import Side
from recbole_cierec.model.base.visual_recommender import VisualRecommender
from recbole_cierec.model.vbpr import VBPR


class Shifted(VisualRecommender):
    """MF over vectors that are shifted by a constant."""

    has_biases = True

    keys = (
        Key("shift", float, "Added to each item's vector.", default=0.25, low=0, high=10),
        Key("kind", str, "What else.", default="plain", choices=("plain", "fancy")),
        replace(KEYS["learning_rate"], default=0.05),
    )

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.shift = config["shift"]
        self.user_embedding = self.table(self.n_users, self.size)
        self.items = self.table(self.n_items, self.size)

    def item_side(self, items):
        vector = self.seen_rows(self.items, items) + self.shift
        return Side(vector, self.item_biases(items))


class Bare(VisualRecommender):
    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.user_embedding = self.table(self.n_users, self.size)


class Slow(BPR):
    keys = (Key("slowness", int, "How slow.", default=3, low=0),)

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.slowness = config["slowness"]


class Reads(BPR):
    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.undeclared = config["undeclared"]


class MyVBPR(VBPR):
    pass


class MyCIERec(CIERec):
    pass


class MyAMF(AMF):
    pass


class MyAlignRec(AlignRec):
    pass


class Bad(BPR):
    keys = (Key("metrics", list, "Not a key of a model.", default=[]),)


class NoModel:
    pass
'''


@pytest.fixture
def mine(tmp_path, monkeypatch) -> SimpleNamespace:
    """The module ``my_models``, importable from a temporary folder."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "my_models.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.syspath_prepend(str(folder))
    yield import_module("my_models")
    sys.modules.pop("my_models", None)


# -- defaults ----------------------------------------------------------------------------------


def test_a_class_has_the_defaults_of_all_models_and_its_own(mine):
    made = Config(mine.Shifted, "tiny")
    common = {"embedding_size": 64, "reg_weight": 0.02, "learner": "adagrad", "init_std": 0.01}
    assert {key: made[key] for key in common} == common
    assert (made["shift"], made["kind"], made["learning_rate"]) == (0.25, "plain", 0.05)
    for key, value in overall_defaults().items():
        assert key in ("load_col", "eval_args") or made[key] == value, key
    assert made["eval_args"]["split"] == {"RS": [0.6, 0.1, 0.3]}
    assert made.notes == []


def test_a_subclass_has_the_defaults_of_its_parents_files(mine):
    vbpr = read_yaml(properties_dir() / "model" / "VBPR.yaml")
    made = Config(mine.MyVBPR, "tiny")
    assert {key: made[key] for key in vbpr} == vbpr
    slow, bpr = Config(mine.Slow, "tiny"), Config("BPR", "tiny")
    assert (slow["embedding_size"], slow["slowness"]) == (bpr["embedding_size"], 3)
    assert slow["learning_rate"] == bpr["learning_rate"]


def test_a_subclass_has_its_parents_trainer(mine):
    assert issubclass(get_trainer_class(Config(mine.MyCIERec, "tiny")), GatedTrainer)
    assert not issubclass(get_trainer_class(Config(mine.MyVBPR, "tiny")), GatedTrainer)


def test_a_class_with_a_name_of_ours_is_another_model(mine):
    made = Config(type("CIERec", (mine.Shifted,), {"__module__": "my_models"}), "tiny")
    assert (made["learning_rate"], made["backbone"]) == (0.05, None)
    assert made.model_spelling == "my_models:CIERec"


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"shift": "11"}, "'shift' must be 10 or less, not 11"),
        ({"shift": "much"}, "'shift' must be a number, not 'much'"),
        ({"kind": "fncy"}, "'kind' must be one of fancy, plain, not 'fncy'"),
        ({"shfit": "1"}, "unknown key 'shfit'; did you mean 'shift'?"),
    ],
)
def test_values_of_a_class_own_keys_are_checked(mine, keys, said):
    with pytest.raises(ConfigError) as caught:
        Config("my_models:Shifted", "tiny", cmd_line=keys)
    assert said in str(caught.value)


def test_values_of_a_class_own_keys_are_converted(mine):
    made = Config("my_models:Shifted", "tiny", cmd_line={"shift": "1", "kind": "FANCY"})
    assert (made["shift"], type(made["shift"]), made["kind"]) == (1.0, float, "fancy")


def test_a_class_cannot_redefine_a_key_of_every_run(mine):
    with pytest.raises(ConfigError, match=r"Bad\.keys: 'metrics' is a key of every model"):
        Config(mine.Bad, "tiny")


def test_a_class_that_reads_an_undeclared_key_is_told_so(mine, tiny):
    with pytest.raises(ConfigError, match="config\\['undeclared'\\]: there is no such key"):
        run(mine.Reads, "tiny", config_dict=tiny())
    keys = tiny(undeclared=1, epochs=1)  # given, it exists: the class reads it
    assert run(mine.Reads, "tiny", config_dict=keys, saved=False)["epochs"] == 1


# -- runs --------------------------------------------------------------------------------------


def test_a_class_trains_and_its_checkpoint_loads_and_resumes(mine, tiny):
    whole = run(mine.Shifted, "tiny", config_dict=tiny(epochs=3, shift=0.5))
    assert whole["model"] == "Shifted"
    assert Path(whole["checkpoint"]).name.startswith("Shifted-")
    assert read_checkpoint(Path(whole["checkpoint"]))["model"] == "my_models:Shifted"

    job = load(whole["checkpoint"], config_dict=tiny(shift=0.5))
    assert type(job.model) is mine.Shifted
    assert job.model.shift == 0.5

    run("my_models:Shifted", "tiny", config_dict=tiny(epochs=2, shift=0.5, checkpoint_dir="two"))
    rest = tiny(epochs=3, shift=0.5, checkpoint_dir="two", resume="auto")
    resumed = run(mine.Shifted, "tiny", config_dict=rest)
    same(last_of(resumed)["state_dict"], last_of(whole)["state_dict"])


def test_a_subclass_of_recboles_model_trains_and_loads(mine, tiny):
    result = run("my_models:Slow", "tiny", config_dict=tiny(slowness=5))
    job = load(result["checkpoint"], config_dict=tiny(slowness=5))
    assert job.model.slowness == 5
    plain = run("BPR", "tiny", config_dict=tiny(checkpoint_dir="plain"))
    same(last_of(result)["state_dict"], last_of(plain)["state_dict"])


@pytest.mark.parametrize("name", ["CIERec", "AMF", "AlignRec"])  # AMF has a stage before it
def test_an_empty_subclass_is_its_parent_to_the_last_bit(mine, tiny, name):
    keys = {"content_size": 8, "pretrain_epochs": 1} if name == "AlignRec" else {}
    child = run(f"my_models:My{name}", "tiny", config_dict=tiny(checkpoint_dir="child", **keys))
    parent = run(name, "tiny", config_dict=tiny(checkpoint_dir="parent", **keys))
    same(last_of(child)["state_dict"], last_of(parent)["state_dict"])
    assert child["test_result"] == parent["test_result"]
    assert [s["model"] for s in child["stages"]] == [s["model"] for s in parent["stages"]]


def test_a_class_of_two_phases_takes_its_first_from_a_checkpoint(mine, tiny):
    keys = {"content_size": 8, "pretrain_epochs": 1}
    whole = run("my_models:MyAlignRec", "tiny", config_dict=tiny(**keys))
    keys |= {"pretrained": whole["checkpoint"], "checkpoint_dir": "second"}
    again = run("my_models:MyAlignRec", "tiny", config_dict=tiny(**keys))
    assert again["epochs"] == whole["epochs"] - 1


def test_a_class_without_item_side_is_one_line(mine, tiny):
    with pytest.raises(ConfigError, match=r"^Bare: define item_side\(items\)"):
        run(mine.Bare, "tiny", config_dict=tiny(epochs=1))


def test_a_class_that_ranks_no_unseen_items_learns_of_the_attribute(mine, tiny):
    done = run(mine.Shifted, "tiny", config_dict=tiny(epochs=1))
    Path("new.csv").write_text("item_id\nx1\n")
    with pytest.raises(ConfigError, match='set its attribute unseen_items, as in unseen_items = "'):
        recommend(done["checkpoint"], new_items="new.csv", out="new.parquet")


def test_the_command_line_takes_a_class(mine, tiny, capsys):
    from recbole_cierec.cli.run import main

    flags = [f"--{key}={value}" for key, value in tiny(epochs=1, shift=2).items()]
    assert main(["--model=my_models:Shifted", "--dataset=tiny", *flags]) == 0
    assert list(Path("saved").glob("Shifted-*.pth"))
    assert main(["--model=my_models:Shiftd", "--dataset=tiny", *flags]) == 2
    assert "the module my_models has no class Shiftd" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("no_such_module:Mine", "there is no module no_such_module"),
        ("my_models:Nothing", "the module my_models has no class Nothing"),
        ("my_models:SOURCE", "has no class SOURCE"),
        ("my_models:NoModel", "my_models:NoModel is not a RecBole model"),
        ("my_models:Slow.x", "is not of the form my_package.my_module:MyModel"),
        ("../evil:Mine", "is not of the form my_package.my_module:MyModel"),
        ("my_models:f.<locals>.Mine", "was defined inside a function"),
    ],
)
def test_what_is_no_model_is_refused_in_one_line(mine, model, said):
    with pytest.raises(ConfigError) as caught:
        Config(model, "tiny")
    assert said in str(caught.value)


def test_a_checkpoint_whose_module_is_gone_says_so(mine, tiny, monkeypatch):
    result = run(mine.Slow, "tiny", config_dict=tiny(epochs=1))
    monkeypatch.setattr(sys, "path", [p for p in sys.path if not p.endswith("modules")])
    sys.modules.pop("my_models")
    with pytest.raises(CheckpointError, match="there is no module my_models; run where it can"):
        load(result["checkpoint"], config_dict=tiny())


def test_a_checkpoint_of_another_class_is_refused(mine, tiny):
    result = run(mine.Slow, "tiny", config_dict=tiny(epochs=1))
    keys = tiny(resume=result["checkpoint"])
    with pytest.raises(CheckpointError, match="holds model my_models:Slow, this run has BPR"):
        run("BPR", "tiny", config_dict=keys)


@pytest.mark.slow
def test_two_processes_train_a_class(mine, tiny, quick_processes):
    keys = tiny(epochs=1, state="critical")
    assert run("my_models:Shifted", "tiny", config_dict=keys, nproc=2)["epochs"] == 1
