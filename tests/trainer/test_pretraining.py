"""RecBole's models that are pretrained by a separate run: the next run starts from its file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from recbole_cierec import run
from recbole_cierec.config.config import Config
from recbole_cierec.errors import CheckpointError, ConfigError, UserError
from recbole_cierec.files.checkpoint import read_checkpoint
from recbole_cierec.quick_start import prepare

STAGES = {
    "S3Rec": ["pretrain", "finetune"],
    "RaCT": ["actor_pretrain", "critic_pretrain", "finetune"],
}
OWN = {
    "S3Rec": {
        "hidden_size": 8,
        "inner_size": 8,
        "item_attribute": "annotations",
        "load_col": {
            "inter": ["user_id", "item_id", "timestamp"],
            "item": ["item_id", "annotations"],
        },
    },
    "RaCT": {
        "mlp_hidden_size": [8],
        "latent_dimension": 4,
        "metrics_k": 5,
        "train_neg_sample_args": None,
    },
}


@pytest.fixture
def keys_of(tiny, monkeypatch):
    monkeypatch.setattr("psutil.cpu_percent", lambda interval=None: 0.0)  # RecBole measures 1 s

    def keys(model: str, **extra) -> dict:
        own = {"pretrain_epochs": 1, "save_step": 2, "epochs": 1, "train_batch_size": 512}
        made = tiny(**{**own, **OWN[model], **extra})
        for key in ("features_file", "embedding_size", "init_std"):
            made.pop(key)
        return made

    return keys


@pytest.mark.parametrize("model", STAGES)
def test_each_stage_ends_well_and_the_next_starts_from_its_weights(keys_of, model, capsys):
    first, *later = STAGES[model]
    done = run(model, "tiny", config_dict=keys_of(model, train_stage=first))
    for stage in later:
        file = Path(done["checkpoint"])
        assert file.name == f"{model}-tiny-1.pth"
        weights = read_checkpoint(file)["state_dict"]
        keys = keys_of(model, train_stage=stage, pre_model_path=str(file))
        job = prepare(Config(model, "tiny", None, keys, {}))
        for name, value in job.model.state_dict().items():
            assert torch.equal(value, weights[name]), name
        done = job.train_and_evaluate()
    assert done["best_valid_score"] > 0
    assert done["epochs"] == 1
    assert "Logging error" not in capsys.readouterr().err


def test_pretraining_that_has_ended_is_not_done_again(keys_of):
    keys = keys_of("S3Rec", train_stage="pretrain", pretrain_epochs=3)
    done = run("S3Rec", "tiny", config_dict=keys)
    assert sorted(path.name for path in Path("saved").glob("*.pth")) == [
        "S3Rec-tiny-2.pth",  # of save_step
        "S3Rec-tiny-3.last.pth",
        "S3Rec-tiny-3.pth",
    ]
    again = run("S3Rec", "tiny", config_dict={**keys, "resume": "auto"})
    assert again["test_result"] == done["test_result"]
    assert again["epochs"] == 3


@pytest.mark.parametrize("model", STAGES)
def test_a_later_stage_without_a_file_names_the_key(keys_of, model):
    keys = keys_of(model, train_stage="finetune")
    with pytest.raises(ConfigError, match="pre_model_path"):
        run(model, "tiny", config_dict=keys)
    with pytest.raises(ConfigError, match=f"must be one of {', '.join(STAGES[model])}, not 'x'"):
        run(model, "tiny", config_dict={**keys, "train_stage": "x"})


def test_a_file_of_another_model_or_of_other_data_is_refused(keys_of):
    done = run("S3Rec", "tiny", config_dict=keys_of("S3Rec", train_stage="pretrain"))
    start = {"train_stage": "finetune", "pre_model_path": done["checkpoint"]}
    with pytest.raises(CheckpointError, match="holds model S3Rec"):
        run("RaCT", "tiny", config_dict=keys_of("RaCT", **start))
    split = {"eval_args": {"split": {"RS": [0.4, 0.3, 0.3]}}}
    with pytest.raises(CheckpointError, match="other data or another split"):
        run("S3Rec", "tiny", config_dict=keys_of("S3Rec", **start, **split))
    with pytest.raises(CheckpointError, match="cannot be used"):
        run("S3Rec", "tiny", config_dict={**keys_of("S3Rec", **start), "hidden_size": 4})


@pytest.mark.parametrize(
    ("model", "keys", "words"),
    [
        ("NeuMF", {"use_pretrain": True, "mf_pretrain_path": "no.pth"}, ["NeuMF", "no.pth"]),
        ("ConvNCF", {"train_method": "x"}, ["ConvNCF", "after_pretrain"]),
        (
            "SASRec",
            {"hidden_act": "x"},
            ["SASRec cannot be created with hidden_act: 'x'", "KeyError"],
        ),
    ],
)
def test_what_a_model_of_recbole_refuses_is_one_line(tiny, model, keys, words):
    with pytest.raises(UserError) as error:
        run(model, "tiny", config_dict=tiny(**keys))
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words), str(error.value)
