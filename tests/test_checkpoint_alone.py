"""A checkpoint is enough to use a model: settings, vocabularies and interactions are in it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_cierec import load, run
from recbole_cierec.errors import CheckpointError, DataError
from recbole_cierec.files.checkpoint import read_checkpoint, to_plain, write_checkpoint

SMALL = {"mlp_hidden_size": [8], "hidden_size": 8, "inner_size": 8, "latent_dimension": 4}
MODELS = {
    "MF": {},
    "MF_Semantics": {},
    "VBPR": {"backbone": "VBPR"},
    "CIERec": {"backbone": "VBPR", "loss": "softmax", "annotation_at_inference": True},
    "AMR": {"embedding_size": 6},
    "DeepStyle": {},
    "BPR": {},
    "LightGCN": {"n_layers": 1},
    "ItemKNN": {},
    "MultiVAE": SMALL,
    "FM": {},
    "SASRec": SMALL,
}


@pytest.fixture
def keys(tiny, tiny_folder, in_tmp):
    """Keys of a run on a data set that can be moved away."""
    home = shutil.copytree(tiny_folder / "tiny", in_tmp / "data" / "tiny")

    def make(**extra):
        split = {"split": {"RS": [0.6, 0.2, 0.2]}, "mode": "user5"}
        paths = {"data_path": "data", "features_file": str(in_tmp / "features.npy")}
        return tiny(**{**paths, "eval_args": split, "seed": 3, "epochs": 1, **extra})

    shutil.copy(home / "features.npy", "features.npy")
    return make


@pytest.mark.parametrize("name", MODELS)
def test_a_model_loads_and_scores_without_the_data_and_without_a_key(keys, name):
    done = run(name, "tiny", config_dict=keys(**MODELS[name]))
    shutil.rmtree("data")
    job = load(done["checkpoint"])
    scored = job.trainer.evaluate(job.loaders[2], load_best_model=False)
    np.testing.assert_equal(dict(scored), dict(done["test_result"]))  # NaN equals NaN
    assert job.loaders[2].dataset.token2id("user_id", "u7") > 0


def test_settings_come_from_the_checkpoint_and_a_key_overrides_them(keys, caplog):
    flags = {"learning_rate": "0.07", "topk": "[3]", "valid_metric": "recall@3"}
    done = run("MF", "tiny", config_dict=keys(embedding_size=7), cmd_line=flags)
    shutil.rmtree("data")
    config = load(done["checkpoint"]).config
    assert (config["embedding_size"], config["learning_rate"], config["topk"]) == (7, 0.07, [3])
    assert config["eval_args"]["mode"] == {"valid": "user5", "test": "user5"}
    with caplog.at_level("WARNING"):
        other = load(done["checkpoint"], config_dict={"learning_rate": 0.3, "state": "warning"})
    assert other.config["learning_rate"] == 0.3
    said = "was trained with learning_rate 0.07 (here 0.3); what is given here counts"
    assert said in caplog.text
    assert "resume" not in caplog.text


def test_a_default_that_has_changed_since_does_not_reach_an_old_model(keys):
    done = run("CIERec", "tiny", config_dict=keys())
    path = Path(done["checkpoint"])
    state = read_checkpoint(path)
    assert state["config"]["content_init_gain"] != 0.125
    state["config"] |= {"content_init_gain": 0.125, "epochs": 77, "seed": 5}
    write_checkpoint(path, state)
    config = load(path).config
    assert (config["content_init_gain"], config["epochs"]) == (0.125, 1)  # epochs was given


def test_features_that_are_missing_or_others_are_one_line(keys, in_tmp):
    done = run("VBPR", "tiny", config_dict=keys())
    features = np.load("features.npy")
    np.save("features.npy", features[::-1])
    with pytest.raises(CheckpointError, match=r"other data \(features\) .*; load it with its own"):
        load(done["checkpoint"])
    Path("features.npy").unlink()
    with pytest.raises(DataError, match=r"features\.npy: cannot be read"):
        load(done["checkpoint"])
    np.save("moved.npy", features)
    load(done["checkpoint"], config_dict={"features_file": str(in_tmp / "moved.npy")})


def test_a_missing_folder_of_pictures_is_one_line(pictured):
    keys = pictured(epochs=1)
    done = run("VBPR", "tiny", config_dict=keys)
    shutil.rmtree(Path(keys["data_path"]) / "tiny")
    with pytest.raises(DataError) as error:
        load(done["checkpoint"])
    assert "picture folder" in str(error.value)
    assert "does not exist; set data_path or image_dir" in str(error.value)


def test_a_model_of_the_users_own_class_loads(keys, in_tmp, monkeypatch):
    Path("my_alone.py").write_text(
        "from recbole_cierec.config.schema import Key\n"
        "from recbole_cierec.model.mf import MF\n"
        "class Mine(MF):\n"
        "    keys = (Key('factor', float, 'A factor.', default=1.0),)\n"
        "    def __init__(self, config, dataset):\n"
        "        super().__init__(config, dataset)\n"
        "        self.factor = config['factor']\n"
    )
    monkeypatch.syspath_prepend(str(in_tmp))
    done = run("my_alone:Mine", "tiny", config_dict=keys(factor=2.5))
    shutil.rmtree("data")
    job = load(done["checkpoint"])
    assert (type(job.model).__name__, job.model.factor) == ("Mine", 2.5)
    sys.modules.pop("my_alone")


def test_a_checkpoint_names_its_versions_command_and_digests(keys):
    done = run("VBPR", "tiny", config_dict=keys())
    state = torch.load(done["checkpoint"], weights_only=True)
    made = state["provenance"]
    assert made["versions"]["torch"] == torch.__version__.split("+")[0]
    assert made["command"] == sys.argv
    assert made["config_digest"] == done["config_digest"]
    assert set(state["data"]) == {"interactions", "features"}


@pytest.mark.parametrize("kind", [str, object])
def test_texts_are_kept_as_bytes_and_come_back(kind):
    from recbole_cierec.files.checkpoint import from_plain

    texts = np.array(["", "b0042", "né日本", "a\0b", "\ud800"], dtype=kind)
    packed = to_plain(texts)
    assert isinstance(packed["__texts__"][0], torch.Tensor)
    again = from_plain(packed)
    assert again.tolist() == texts.tolist()
    assert again.dtype.kind == texts.dtype.kind
