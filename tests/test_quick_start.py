"""Whole runs of RecBole's models and ours, and the files of a run."""

from __future__ import annotations

import hashlib
import logging
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_cierec import load, run, run_experiment, tune
from recbole_cierec.config.config import Config
from recbole_cierec.errors import CheckpointError, ConfigError, DataError, UserError
from recbole_cierec.quick_start import prepare
from recbole_cierec.report.write import report
from recbole_cierec.serving.export import export
from recbole_cierec.serving.recommend import recommend
from recbole_cierec.trainer.start_checks import check_start

MODELS = ["BPR", "LightGCN", "NeuMF", "ItemKNN", "Pop", "MultiVAE", "SASRec", "FM", "MF", "CIERec"]
SMALL = {"mlp_hidden_size": [8], "hidden_size": 8, "inner_size": 8, "latent_dimension": 4}


@pytest.fixture
def keys(tiny, monkeypatch):
    """Keys of a short run, without the second for which RecBole measures the CPU."""
    monkeypatch.setattr("psutil.cpu_percent", lambda interval=None: 0.0)

    def make(**extra):
        return tiny(**{**SMALL, "epochs": 1, "state": "info", **extra})

    return make


@pytest.mark.parametrize("model", MODELS)
def test_model_runs_end_to_end_on_the_same_protocol(model, keys, in_tmp):
    result = run(model, "tiny", config_dict=keys())
    assert (result["model"], result["dataset"]) == (model, "tiny")
    assert result["epochs"] == 1
    assert result["valid_score_bigger"] is True
    assert set(result["seconds"]) == {"fit", "evaluate", "fit_cpu", "evaluate_cpu"}
    for part in ("best_valid_result", "test_result"):
        for metric in ("recall@10", "recall@20", "ndcg@10", "ndcg@20"):
            assert 0 <= result[part][metric] <= 1
    assert result["best_valid_score"] == result["best_valid_result"]["recall@10"]
    assert result["test_result"]["recall@20"] >= result["test_result"]["recall@10"] > 0
    assert Path(result["checkpoint"]).is_file()
    assert "Test result of" in Path(result["log_file"]).read_text(encoding="utf-8")


def test_every_general_model_is_tested_on_the_same_users_and_items(keys, in_tmp):
    seen = set()
    for model in ("BPR", "Pop", "FM", "MF", "CIERec"):
        job = prepare(Config(model, "tiny", None, keys()))
        test = job.loaders[2]._dataset
        pairs = sorted(
            zip(*(test.inter_feat[f].tolist() for f in ("user_id", "item_id")), strict=True)
        )
        digest = hashlib.sha256(repr((pairs, test.item_num)).encode()).hexdigest()
        seen.add((digest, test.digest()))
    assert len(seen) == 1


def test_popularity_ranks_as_a_plain_count_does(keys, in_tmp):
    """Recall@10 of Pop by hand: the ten most frequent training items that the user lacks."""
    result = run("Pop", "tiny", config_dict=keys(topk=[10]))
    train, valid, test = (
        loader._dataset.inter_feat
        for loader in prepare(Config("Pop", "tiny", None, keys(topk=[10]))).loaders
    )
    n_items = 41
    counts = torch.bincount(train["item_id"], minlength=n_items).double()
    counts[0] = -math.inf
    low, high, users = 0.0, 0.0, set(test["user_id"].tolist())
    for user in users:
        wanted = set(test["item_id"][test["user_id"] == user].tolist())
        scores = counts.clone()
        for part in (train, valid):
            scores[part["item_id"][part["user_id"] == user]] = -math.inf
        cut = scores.sort(descending=True).values[9]
        sure = sum(1 for item in wanted if scores[item] > cut)
        tied = sum(1 for item in wanted if scores[item] == cut)  # their order is arbitrary
        low += sure / len(wanted)
        high += (sure + tied) / len(wanted)
    assert low / len(users) - 1e-6 <= result["test_result"]["recall@10"] <= high / len(users) + 1e-6


def test_result_counts_parameters(keys, in_tmp):
    result = run("BPR", "tiny", config_dict=keys())
    assert result["parameters"] == (30 + 1) * 5 + (40 + 1) * 5


def test_same_seed_gives_the_same_result_and_another_seed_another(keys, in_tmp):
    first, second, third = (
        run("BPR", "tiny", config_dict=keys(seed=seed, metric_decimal_place=12))
        for seed in (1, 1, 2)
    )
    assert first["test_result"] == second["test_result"]
    assert first["config_digest"] == second["config_digest"]
    assert first["test_result"] != third["test_result"]
    assert first["config_digest"] != third["config_digest"]


def test_runs_in_one_process_have_their_own_files_and_no_double_lines(keys, in_tmp):
    results = [run("BPR", "tiny", config_dict=keys(seed=seed)) for seed in (11, 12)]
    logs = [Path(result["log_file"]).read_text(encoding="utf-8") for result in results]
    for log, seed in zip(logs, (11, 12), strict=True):
        assert f"seed = {seed}" in log
        assert log.count("Test result of BPR on tiny") == 1
        assert log.count("\nseed = ") == 1
        assert "\x1b" not in log
    assert len({result["checkpoint"] for result in results}) == 2


def test_unsaved_run_leaves_no_checkpoint(keys, in_tmp):
    result = run("BPR", "tiny", config_dict=keys(), saved=False)
    assert result["checkpoint"] is None
    assert not list(in_tmp.rglob("*.pth"))


def test_resumed_run_ends_as_the_uninterrupted_one(keys, in_tmp):
    exact = {"metric_decimal_place": 12}
    whole = run("BPR", "tiny", config_dict=keys(epochs=3, checkpoint_dir="a", **exact))
    half = run("BPR", "tiny", config_dict=keys(epochs=2, checkpoint_dir="b", **exact))
    last = Path(half["checkpoint"]).with_suffix(".last.pth")
    # A run that has ended would only be evaluated; this one was interrupted.
    state = torch.load(last, weights_only=True)
    torch.save({**state, "finished": False}, last)
    rest = run("BPR", "tiny", config_dict=keys(epochs=3, resume=str(last), **exact))
    assert rest["epochs"] == whole["epochs"] == 3
    for part in ("test_result", "best_valid_result"):  # a group without users is NaN
        np.testing.assert_equal(dict(rest[part]), dict(whole[part]))


def test_resume_from_nowhere_is_one_line(keys, in_tmp):
    with pytest.raises(CheckpointError, match=r"nowhere\.pth"):
        run("BPR", "tiny", config_dict=keys(resume="nowhere.pth"))


def test_files_flags_and_dictionary_reach_the_run(keys, in_tmp):
    (in_tmp / "a.yaml").write_text("seed: 5\nstopping_step: 5\n")
    result = run(
        "BPR",
        "tiny",
        "a.yaml",
        keys(stopping_step=6),
        cmd_line={"topk": "[3]", "valid_metric": "ndcg@3"},
    )
    log = Path(result["log_file"]).read_text(encoding="utf-8")
    assert "seed = 5" in log
    assert "stopping_step = 6" in log
    assert set(result["test_result"]) >= {"recall@3", "ndcg@3"}
    assert not any("@10" in name for name in result["test_result"])
    assert "--topk=[3]" in log


def test_key_of_another_model_is_warned_about_in_the_log(keys, in_tmp):
    result = run("BPR", "tiny", config_dict=keys(gr_mode="off"))
    log = Path(result["log_file"]).read_text(encoding="utf-8")
    assert "WARNING  config_dict: model BPR does not read 'gr_mode'" in log


def test_missing_data_set_and_unknown_model_are_user_errors(keys, in_tmp):
    with pytest.raises(DataError, match="no such data set folder"):
        run("BPR", "absent", config_dict=keys())
    with pytest.raises(ConfigError, match="did you mean 'BPR'"):
        run("BRP", "tiny", config_dict=keys())


def test_progress_bars_are_off_where_no_terminal_is_unless_asked_for(keys, in_tmp, capsys):
    plain = keys()
    del plain["show_progress"]
    run("BPR", "tiny", config_dict=plain)
    assert "\r" not in capsys.readouterr().err
    run("BPR", "tiny", config_dict={**plain, "show_progress": True})
    assert "\r" in capsys.readouterr().err


def test_host_program_keeps_its_own_handlers(keys, in_tmp):
    mine = logging.NullHandler()
    logging.getLogger().addHandler(mine)
    try:
        run("BPR", "tiny", config_dict=keys())
        run("BPR", "tiny", config_dict=keys())
        assert mine in logging.getLogger().handlers
        files = [h for h in logging.getLogger().handlers if isinstance(h, logging.FileHandler)]
        assert not [h for h in files if Path(h.baseFilename).is_relative_to(in_tmp)]
        assert len(list((in_tmp / "log" / "BPR").glob("*.log"))) == 2
    finally:
        logging.getLogger().removeHandler(mine)


@pytest.mark.slow
def test_two_processes_train_and_report_once(keys, in_tmp):
    result = run("BPR", "tiny", config_dict=keys(epochs=2), nproc=2)
    assert result["epochs"] == 2
    assert 0 < result["test_result"]["recall@10"] <= 1
    assert len(list((in_tmp / "log" / "BPR").glob("*.log"))) == 1


@pytest.mark.parametrize(
    ("model", "own", "words"),
    [
        ("VBPR", {"visual_encoder": "resnet19"}, "did you mean 'resnet18'?"),
        ("VBPR", {"visual_encoder": "absent:Net"}, "visual_encoder absent:Net: cannot be imported"),
        ("VBPR", {"cache_dir": "file/cache"}, "cache_dir file/cache: Not a directory"),
        ("MF", {"image_dir": "nowhere"}, "'image_dir': nowhere is no such folder"),
        ("AMF", {"pretrained": "x.pth"}, "x.pth: no such checkpoint"),
        ("AMF", {"pretrain": {"loss_": "bpr"}}, "AMF starts from MF: .*'loss_'"),
        ("KGAT", {}, "tiny.kg: no such file; KGAT needs"),
        ("MF", {"eval_args": {"split": {"RS": [0.7, 0, 0.3]}}}, "leaves a part empty"),
    ],
)
def test_what_is_cheap_to_check_is_checked_before_data_are_read(
    tiny, monkeypatch, model, own, words
):
    def read(*args, **kwargs):
        raise AssertionError("read")

    Path("file").write_text("")
    monkeypatch.setattr("recbole_cierec.data.compat.read_atomic", read)
    with pytest.raises(UserError, match=words):
        run(model, "tiny", config_dict=tiny(**{"features_file": None, **own}))


def test_the_check_of_a_cache_makes_no_folder(tiny):
    check_start(Config("VBPR", "tiny", None, tiny(features_file=None, cache_dir="new/cache"), {}))
    assert not Path("new").exists()


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: run("MF", "tiny", config_dict=[1]), "config_dict must be keys with values, not"),
        (lambda: run("MF", "tiny", cmd_line="epochs"), "cmd_line must be keys with values"),
        (lambda: run("MF", "tiny", config_file_list=5), "config_file_list must be paths, not 5"),
        (lambda: run("MF", "tiny", config_file_list=[5]), "config_file_list must be a path, not 5"),
        (lambda: Config("MF", "tiny", {"epochs": 1}), "config_file_list must be paths"),
        (lambda: load(None), "checkpoint must be a path, not None"),
        (lambda: recommend(None), "checkpoint must be a path, not None"),
        (lambda: export(None, "a"), "checkpoint must be a path, not None"),
        (lambda: report(None), "checkpoint must be a path, not None"),
        (lambda: tune("MF", "tiny", flags=[1]), "flags must be keys with values"),
        (lambda: run_experiment(None), "file must be a path, not None"),
        (lambda: run_experiment("demo", keys=[1]), "keys must be keys with values"),
    ],
)
def test_an_argument_of_another_kind_is_one_line(in_tmp, call, words):
    with pytest.raises(ConfigError, match=words):
        call()


def test_a_folder_where_tensorboard_cannot_write_is_one_line(tiny):
    Path("log_tensorboard").write_text("")
    with pytest.raises(ConfigError, match="log_tensorboard: the log cannot be written"):
        run("MF", "tiny", config_dict=tiny(epochs=1))


@pytest.mark.slow
def test_error_of_a_process_is_the_error_of_the_run(keys, in_tmp, quick_processes):
    with pytest.raises(DataError, match="absent: no such data set folder"):
        run("BPR", "absent", config_dict=keys(), nproc=2)


def test_a_job_is_shown_in_one_line(tiny):
    job = prepare(Config("BPR", "tiny", config_dict=tiny(embedding_size=4)), saved=False)
    assert str(job) == "Job(BPR on tiny: 30 users, 40 items, 288 parameters)"


@pytest.mark.parametrize("name", ["BPR", "VBPR", "AMR"])
def test_a_loaded_model_ranks_what_it_scores_highest_among_the_unmet(tiny, caplog, name):
    from recbole.utils.case_study import full_sort_topk

    keys = tiny(embedding_size=4, epochs=1)
    job = load(run(name, "tiny", config_dict=keys)["checkpoint"], config_dict=keys)
    assert not job.model.training
    data = job.loaders[2].dataset
    user = int(data.token2id("user_id", "u7"))
    _, items = full_sort_topk(np.array([user]), job.model, job.loaders[2], 3, "cpu")
    with torch.no_grad():
        scores = job.model.full_sort_predict({"user_id": torch.tensor([user])}).view(-1)
    scores[0] = -torch.inf
    for part in job.loaders[:2]:
        rows = part._dataset.inter_feat
        scores[rows["item_id"][rows["user_id"] == user]] = -torch.inf
    assert items[0].tolist() == scores.topk(3).indices.tolist()
    caplog.set_level("WARNING")
    other = keys | {"learning_rate": 0.4, "state": "warning"}
    load(job.trainer.saved_model_file, config_dict=other)
    assert "(here 0.4)" in caplog.text


@pytest.mark.parametrize("mode", ["full", "user5"])
@pytest.mark.parametrize("model", ["BPR", "VBPR"])
def test_users_without_a_test_are_ranked_for_too(tiny, tiny_folder, in_tmp, model, mode):
    from recbole.utils.case_study import full_sort_topk

    home = shutil.copytree(tiny_folder / "tiny", in_tmp / "more" / "tiny")
    with (home / "tiny.inter").open("a") as file:
        file.write("new\ti3\t5\n")
    keys = tiny(data_path=str(in_tmp / "more"), epochs=1, eval_args={"mode": mode})
    job = load(run(model, "tiny", config_dict=keys)["checkpoint"], config_dict=keys)
    test = job.loaders[2].dataset
    users = test.token2id("user_id", ["new", "u7"])
    assert users[0] not in test.inter_feat["user_id"]
    _, items = full_sort_topk(users, job.model, job.loaders[2], 10, "cpu")
    for user, ranked in zip(("new", "u7"), test.id2token("item_id", items), strict=True):
        lines = (home / "tiny.inter").read_text().splitlines()
        known = {line.split("\t")[1] for line in lines if line.startswith(f"{user}\t")}
        rows = test.inter_feat["user_id"] == int(test.token2id("user_id", user))
        known -= set(test.id2token("item_id", test.inter_feat["item_id"][rows]))
        assert known
        assert not known & set(ranked)
        assert "[PAD]" not in ranked
