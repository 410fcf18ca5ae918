"""Two-stage runs: trained, found again, interrupted and resumed, refused."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from run_helpers import Killed, kill_before

from recbole_cierec import run
from recbole_cierec.config.config import Config
from recbole_cierec.errors import CheckpointError, ConfigError
from recbole_cierec.files.checkpoint import read_checkpoint
from recbole_cierec.quick_start import prepare
from recbole_cierec.registry import MODELS, get_model_class
from recbole_cierec.trainer.trainer import TrainerMixin
from recbole_cierec.trainer.warm_start_stages import stage_config, stage_model
from recbole_cierec.tuning.ranges import range_files, read_space

STAGED = [name for name, entry in MODELS.items() if entry.stages]
staged = pytest.mark.parametrize("name", STAGED)
SMALL = {"embedding_size": 6, "mlp_hidden_size": [7], "metric_decimal_place": 12}


def trained(monkeypatch) -> list[tuple[str, int]]:
    """The epochs that are trained from now on, as (model, epoch)."""
    plain, seen = TrainerMixin._train_epoch, []

    def train_epoch(self, train_data, epoch_idx, *args, **kwargs):
        seen.append((self.config["model"], epoch_idx))
        return plain(self, train_data, epoch_idx, *args, **kwargs)

    monkeypatch.setattr(TrainerMixin, "_train_epoch", train_epoch)
    return seen


def weights_of(result) -> dict:
    return read_checkpoint(Path(result["checkpoint"]).with_suffix(".last.pth"))["state_dict"]


def same(a, b) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


def test_the_stages_of_the_table_are_models_without_a_stage():
    assert STAGED
    for name in STAGED:
        for stage in MODELS[name].stages:
            get_model_class(stage)
            assert stage not in MODELS or not MODELS[stage].stages


@staged
def test_one_command_trains_both_and_says_so(tiny, monkeypatch, name):
    seen = trained(monkeypatch)
    result = run(name, "tiny", config_dict=tiny(epochs=2, state="info", **SMALL))
    stage = MODELS[name].stages[0]
    assert seen == [(stage, 0), (stage, 1), (name, 0), (name, 1)]
    log = Path(result["log_file"]).read_text(encoding="utf-8")
    assert log.index(f"Stage 1 of 2: {stage}") < log.index(f"{name} starts from saved")
    (kept,) = Path("saved").glob("stage-*.pth")
    assert read_checkpoint(kept)["model"] == stage


@staged
def test_a_second_run_takes_the_trained_stage_and_gives_the_same_bits(tiny, monkeypatch, name):
    first = run(name, "tiny", config_dict=tiny(**SMALL))
    seen = trained(monkeypatch)
    second = run(name, "tiny", config_dict=tiny(**SMALL))
    assert seen == [(name, 0), (name, 1)]
    same(weights_of(first), weights_of(second))
    np.testing.assert_equal(dict(first["test_result"]), dict(second["test_result"]))


@staged
def test_the_result_names_its_stage_trained_read_again_and_named(tiny, name):
    stage = MODELS[name].stages[0]
    first = run(name, "tiny", config_dict=tiny(**SMALL))
    (told,) = first["stages"]
    kept = read_checkpoint(Path(told["checkpoint"]))
    assert (told["model"], kept["model"]) == (stage, stage)
    assert told["best_valid_score"] == kept["best_valid_score"] > 0
    assert run(name, "tiny", config_dict=tiny(**SMALL))["stages"] == [told]
    Path("other.pth").write_bytes(Path(told["checkpoint"]).read_bytes())
    named = run(name, "tiny", config_dict=tiny(pretrained="other.pth", **SMALL))
    assert named["stages"] == [{**told, "checkpoint": "other.pth"}]


def test_a_stage_that_is_not_kept_has_no_checkpoint_and_a_plain_model_no_stages(tiny):
    kept = run("AMF", "tiny", config_dict=tiny(epochs=1, **SMALL))["stages"][0]
    keys = tiny(epochs=1, checkpoint_dir="b", **SMALL)
    (told,) = run("AMF", "tiny", config_dict=keys, saved=False)["stages"]
    assert told == {**kept, "checkpoint": None}
    plain = run("MF", "tiny", config_dict=tiny(epochs=1, **SMALL))
    assert plain["stages"] == []
    longer = tiny(epochs=2, resume="auto", **SMALL)
    assert run("AMF", "tiny", config_dict=longer)["stages"] == []  # its checkpoint is complete


@staged
def test_a_named_checkpoint_takes_the_place_of_the_stage(tiny, monkeypatch, name):
    first = run(name, "tiny", config_dict=tiny(**SMALL))
    (kept,) = Path("saved").glob("stage-*.pth")
    Path("other.pth").write_bytes(kept.read_bytes())
    seen = trained(monkeypatch)
    keys = tiny(pretrained="other.pth", checkpoint_dir="elsewhere", **SMALL)
    second = run(name, "tiny", config_dict=keys)
    assert {model for model, _ in seen} == {name}
    same(weights_of(first), weights_of(second))


@staged
@pytest.mark.parametrize("where", ["stage", "main"])
def test_a_run_stopped_in_either_stage_and_resumed_equals_the_whole(tiny, monkeypatch, name, where):
    whole = run(name, "tiny", config_dict=tiny(epochs=3, checkpoint_dir="a", **SMALL))
    stage = MODELS[name].stages[0]
    keys = tiny(epochs=3, checkpoint_dir="b", **SMALL)
    with monkeypatch.context() as patch:
        kill_before(patch, stage if where == "stage" else name, 2)
        with pytest.raises(Killed):
            run(name, "tiny", config_dict=keys)
    seen = trained(monkeypatch)
    rest = run(name, "tiny", config_dict={**keys, "resume": "auto"})
    left = [(name, k) for k in range(3)]
    assert seen == ([(stage, 2), *left] if where == "stage" else left[2:])
    a, b = (read_checkpoint(Path(r["checkpoint"]).with_suffix(".last.pth")) for r in (whole, rest))
    same(a["state_dict"], b["state_dict"])
    assert str(a["optimizers"]) == str(b["optimizers"])
    assert a["train_loss"] == b["train_loss"]
    for part in ("test_result", "best_valid_result"):
        np.testing.assert_equal(dict(whole[part]), dict(rest[part]))  # nan equals nan


def test_a_stage_that_had_ended_is_not_trained_again_on_resume(tiny, monkeypatch):
    keys = tiny(epochs=2, **SMALL)
    with monkeypatch.context() as patch:
        kill_before(patch, "AMF", 0)
        with pytest.raises(Killed):
            run("AMF", "tiny", config_dict=keys)
    for file in Path("saved").glob("AMF-*"):
        file.unlink()  # nothing of the main model was saved yet
    seen = trained(monkeypatch)
    rest = run("AMF", "tiny", config_dict={**keys, "resume": "auto"})
    assert seen == [("AMF", 0), ("AMF", 1)]
    whole = run("AMF", "tiny", config_dict={**keys, "checkpoint_dir": "a"})
    same(weights_of(whole), weights_of(rest))


def test_auto_resumes_the_model_if_it_has_a_checkpoint_else_its_stage(tiny, monkeypatch):
    keys = tiny(epochs=3, **SMALL)
    with monkeypatch.context() as patch:
        kill_before(patch, "MF", 2)
        with pytest.raises(Killed):
            run("AMF", "tiny", config_dict=keys)
    shorter = run("AMF", "tiny", config_dict=tiny(epochs=1, **SMALL))
    seen = trained(monkeypatch)
    rest = run("AMF", "tiny", config_dict={**keys, "resume": "auto"})
    assert seen == [("AMF", 1), ("AMF", 2)]
    assert rest["checkpoint"] == shorter["checkpoint"]
    for file in Path("saved").glob("AMF-*"):
        file.unlink()
    seen.clear()
    run("AMF", "tiny", config_dict={**keys, "resume": "auto"})
    assert seen == [("MF", 2), ("AMF", 0), ("AMF", 1), ("AMF", 2)]


def test_a_newer_stage_of_other_settings_does_not_hide_the_models_own_run(tiny, monkeypatch):
    half = run("AMF", "tiny", config_dict=tiny(epochs=2, **SMALL))
    run("AMF", "tiny", config_dict=tiny(epochs=1, seed=5, **SMALL))
    for file in Path("saved").glob("AMF-*"):
        if half["checkpoint"].removesuffix(".pth") not in str(file):
            file.unlink()
    seen = trained(monkeypatch)
    rest = run("AMF", "tiny", config_dict=tiny(epochs=3, resume="auto", **SMALL))
    assert seen == [("AMF", 2)]
    assert rest["checkpoint"] == half["checkpoint"]


def test_a_longer_run_resumes_the_model_without_its_stage(tiny, monkeypatch):
    half = run("AMF", "tiny", config_dict=tiny(epochs=2, **SMALL))
    file = str(Path(half["checkpoint"]).with_suffix(".last.pth"))
    seen = trained(monkeypatch)
    for resume in (file, "auto"):
        run("AMF", "tiny", config_dict=tiny(epochs=3, resume=resume, **SMALL))
    assert seen == [("AMF", 2)]  # the second one found a finished run


def test_a_stopped_stage_can_be_named(tiny, monkeypatch):
    keys = tiny(epochs=2, **SMALL)
    with monkeypatch.context() as patch:
        kill_before(patch, "MF", 1)
        with pytest.raises(Killed):
            run("AMF", "tiny", config_dict=keys)
    (stopped,) = Path("saved").glob("stage-MF-*.last.pth")
    seen = trained(monkeypatch)
    run("AMF", "tiny", config_dict={**keys, "resume": str(stopped)})
    assert seen == [("MF", 1), ("AMF", 0), ("AMF", 1)]


def test_a_foreign_stage_is_not_resumed_as_this_runs_own(tiny):
    other = run("MF", "tiny", config_dict=tiny(epochs=1, weight_decay=0.01, **SMALL))
    with pytest.raises(CheckpointError, match="pretrained: ") as error:
        run("AMF", "tiny", config_dict=tiny(resume=other["checkpoint"], **SMALL))
    assert other["checkpoint"] in str(error.value)
    assert not list(Path("saved").glob("stage-*.pth"))


def test_resume_auto_without_any_checkpoint_is_one_line(tiny):
    with pytest.raises(CheckpointError, match="no checkpoint of AMF on tiny"):
        run("AMF", "tiny", config_dict=tiny(resume="auto", **SMALL))


def test_a_damaged_stage_is_trained_again(tiny, monkeypatch):
    run("AMF", "tiny", config_dict=tiny(epochs=1, **SMALL))
    (kept,) = Path("saved").glob("stage-*.pth")
    kept.write_bytes(b"PK\x03\x04 cut off")
    seen = trained(monkeypatch)
    run("AMF", "tiny", config_dict=tiny(epochs=1, **SMALL))
    assert seen == [("MF", 0), ("AMF", 0)]


@staged
@pytest.mark.parametrize("loss", ["bpr", "softmax"])
def test_no_key_that_is_searched_changes_the_stage(tiny, name, loss):
    keys = {"loss": loss, "embedding_size": 6}
    config, stage = made(tiny, name, **keys)
    space = read_space(config, range_files(config))
    assert "learning_rate" in space
    for key, choice in space.items():
        values = [value for value in choice.values if value != config[key]]
        assert values
        for value in values:
            _, other = made(tiny, name, **keys, **{key: value})
            assert other.digest() == stage.digest(), (key, value)


@pytest.mark.parametrize(
    "change", [{"seed": 3}, {"epochs": 1}, {"pretrain": {"learning_rate": 0.1}}]
)
def test_what_decides_the_stage_makes_another_stage(tiny, change):
    run("AMR", "tiny", config_dict=tiny(**SMALL))
    run("AMR", "tiny", config_dict=tiny(**SMALL, **change))
    assert len(list(Path("saved").glob("stage-*.pth"))) == 2


def test_other_features_under_the_same_name_make_another_stage(tiny, tmp_path):
    keys = tiny(**SMALL)
    features = np.load(keys["features_file"])
    keys["features_file"] = str(tmp_path / "features.npy")
    for numbers in (features, features**2):
        np.save(keys["features_file"], numbers)
        run("AMR", "tiny", config_dict=keys)
    assert len(list(Path("saved").glob("stage-*.pth"))) == 2


def test_keys_of_the_main_model_and_of_third_models_keep_the_stage(tiny):
    run("AMR", "tiny", config_dict=tiny(**SMALL))
    keys = {"adv_eps": 0.3, "learning_rate": 0.1, "gr_mode": "off"}
    run("AMR", "tiny", config_dict=tiny(**keys, **SMALL))
    assert len(list(Path("saved").glob("stage-*.pth"))) == 1


def test_an_unsaved_run_leaves_no_stage_and_starts_from_its_last_epoch(tiny, in_tmp, caplog):
    with caplog.at_level(logging.INFO):
        run("AMF", "tiny", config_dict=tiny(state="info", **SMALL), saved=False)
    assert not list(in_tmp.rglob("*.pth"))
    assert "AMF starts from MF as trained in this run" in caplog.text


# ------------------------------------------------------------------------ configuration


def made(tiny, name, flags=None, **keys):
    config = Config(name, "tiny", None, tiny(**keys), flags or {})
    return config, stage_config(config, stage_model(config))


def test_the_stage_has_its_own_yaml_the_users_keys_and_those_of_pretrain(tiny):
    keys = {"learning_rate": 0.07, "adv_eps": 0.2, "pretrain": {"epochs": 7, "reg_weight": 0.5}}
    flags = {"stopping_step": "3", "epochs": "4"}
    config, stage = made(tiny, "AMF", flags, **keys)
    assert (config["epochs"], stage["epochs"]) == (4, 7)
    assert (config["reg_weight"], stage["reg_weight"]) == (0.02, 0.5)
    assert stage["stopping_step"] == config["stopping_step"] == 3
    assert (config["learning_rate"], stage["learning_rate"]) == (0.07, 0.2)
    assert stage["model"] == "MF"


def test_the_stage_is_split_and_evaluated_as_the_model_is(tiny):
    flags = {"eval_args": "{split: {RS: [0.5, 0.2, 0.3]}}", "topk": "[5]", "valid_metric": "ndcg@5"}
    config, stage = made(tiny, "AMF", flags, eval_args={"order": "RO"})
    for key in ("eval_args", "topk", "valid_metric", "seed", "metrics", "data_path"):
        assert stage[key] == config[key], key
    assert stage["eval_args"]["order"] == "RO"


def test_amr_and_its_stage_share_size_and_adapter(tiny):
    _, stage = made(tiny, "AMR", embedding_size=10, encoder_training="adapter")
    assert (stage["embedding_size"], stage["encoder_training"]) == (5, "adapter")


@pytest.mark.parametrize(
    ("name", "keys", "words"),
    [
        ("AMF", {"pretrain": {"epoch": 3}}, ["from MF: pretrain: ", "'epoch'", "epochs"]),
        ("AMF", {"pretrain": {"gr_mode": "off"}}, ["pretrain", "gr_mode", "does not read"]),
        ("AMF", {"pretrain": {"embedding_size": 9}}, ["embedding_size", "must be 6"]),
        ("AMF", {"pretrain": {"resume": "auto"}}, ["pretrain", "resume"]),
        ("AMF", {"pretrain": {"learning_rate": "fast"}}, ["from MF: pretrain: ", "learning_rate"]),
        ("AMF", {"stage_model": "VBPR"}, ["stage_model", "MF", "VBPR"]),
        ("AMF", {"pretrain": 3}, ["pretrain", "mapping"]),
        ("AMR", {"embedding_size": 7}, ["embedding_size", "even", "7"]),
    ],
)
def test_a_wrong_key_of_a_stage_is_one_line_before_anything_is_trained(
    tiny, monkeypatch, name, keys, words
):
    seen = trained(monkeypatch)
    with pytest.raises(ConfigError) as error:
        run(name, "tiny", config_dict=tiny(**{**SMALL, **keys}))
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in words), str(error.value)
    assert not seen


def test_a_checkpoint_that_does_not_fit_is_one_line_with_its_name(tiny):
    ours = run("MF", "tiny", config_dict=tiny(epochs=1, **SMALL))["checkpoint"]
    wide = run("MF", "tiny", config_dict=tiny(epochs=1, embedding_size=9))["checkpoint"]
    vbpr = run("VBPR", "tiny", config_dict=tiny(epochs=1, **SMALL))["checkpoint"]
    split = {"eval_args": {"split": {"RS": [0.5, 0.2, 0.3]}}}
    for path, keys, words in [
        ("nowhere.pth", {}, ["no such checkpoint"]),
        (vbpr, {}, ["VBPR", "MF"]),
        (wide, {}, ["embedding", "9]", "6]"]),
        (ours, split, ["other data"]),
    ]:
        with pytest.raises(CheckpointError) as error:
            run("AMF", "tiny", config_dict=tiny(pretrained=path, **{**SMALL, **keys}))
        message = str(error.value)
        assert "\n" not in message
        assert path in message
        assert all(word in message for word in words), message


def test_the_start_of_the_model_is_free_of_how_the_stage_was_had(tiny):
    """State of all generators after creating the model; its stage is trained, read or named."""
    states = []
    for extra in ({}, {}, {"pretrained": "one.pth"}):
        job = prepare(Config("AMR", "tiny", None, tiny(**SMALL, **extra)))
        states.append((torch.get_rng_state(), job.model.state_dict()))
        if not Path("one.pth").is_file():
            (kept,) = Path("saved").glob("stage-*.pth")
            Path("one.pth").write_bytes(kept.read_bytes())
    for generator, weights in states[1:]:
        assert torch.equal(generator, states[0][0])
        same(weights, states[0][1])


def test_two_processes_train_a_stage_and_the_model_after_it(tiny, quick_processes):
    result = run("AMF", "tiny", config_dict=tiny(**SMALL), nproc=2)
    assert 0 <= result["test_result"]["recall@10"] <= 1
    (kept,) = Path("saved").glob("stage-*.pth")
    assert read_checkpoint(kept)["model"] == "MF"
    again = run("AMF", "tiny", config_dict=tiny(**SMALL), nproc=2)
    same(weights_of(result), weights_of(again))
