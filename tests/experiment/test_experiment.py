"""Experiments against single runs; what is kept, shared, resumed and reported as failed."""

from __future__ import annotations

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from experiment_helpers import content, experiment, lasting, wait_for, write
from filelock import FileLock, Timeout
from recbole.trainer import Trainer
from tune_helpers import FIXED, write_two_tastes

from recbole_cierec import run
from recbole_cierec.cli import experiment as command
from recbole_cierec.config.config import Config
from recbole_cierec.errors import ConfigError, OutputError
from recbole_cierec.evaluation.per_user import read_per_user
from recbole_cierec.experiment import rows as row_files
from recbole_cierec.experiment import run_experiment
from recbole_cierec.experiment.data_files import data_files
from recbole_cierec.experiment.folder import Folder
from recbole_cierec.experiment.plan import Done, make_plan
from recbole_cierec.experiment.rows import append_row, read_rows
from recbole_cierec.experiment.spec import read_experiment
from recbole_cierec.files.leftovers import TEMPORARY
from recbole_cierec.trainer.trainer import TrainerMixin

TWO = ["MF", {"name": "BPR", "keys": {"learning_rate": 0.05}}]


def single(data: Path, model: str, seed: int, **keys) -> dict:
    own = content(data)["overrides"]
    keys = {"data_path": str(data), "seed": seed, "show_progress": False, **own, **keys}
    return run(model, "tastes", config_dict={**keys, "state": "error"})


def test_each_row_is_what_a_single_run_gives(data, in_tmp):
    result = experiment(data, models=TWO)
    assert [(row["model"], row["seed"]) for row in result["rows"]] == [
        ("MF", 1), ("BPR", 1), ("MF", 2), ("BPR", 2),
    ]  # fmt: skip
    assert result["failed"] == []
    row = result["rows"][3]
    alone = single(data, "BPR", 2, learning_rate=0.05)
    assert row["test"] == {k: v if v == v else None for k, v in alone["test_result"].items()}
    assert row["valid_score"] == alone["best_valid_score"]
    assert row["config_digest"] == alone["config_digest"]
    assert (row["epochs"], row["epoch_cap"]) == (4, True)
    users = read_per_user(Path("out", row["users"]))
    assert users.values["recall@3"].mean() == pytest.approx(row["test"]["recall@3"], abs=1e-6)
    assert not list(Path("out").rglob("*.pth"))
    assert row["versions"]["torch"]
    assert row["peak_mib"] > 100


def test_a_first_phase_does_not_count_towards_the_limit_of_epochs(tiny, monkeypatch):
    """Validation gets worse, so that the second phase stops after 2 of its 4 epochs."""
    scores = iter([0.5, 0.4])
    monkeypatch.setattr(Trainer, "_valid_epoch", lambda *_, **__: (next(scores), {}))
    own = {"pretrain_epochs": 3, "epochs": 4, "stopping_step": 0}
    keys = {**tiny(content_size=8, **own), "valid_metric": "Recall@3", "topk": [3]}
    place = {name: keys.pop(name) for name in ("data_path", "show_progress", "state")}
    row = experiment(
        place["data_path"], models=["AlignRec"], seeds=[1], overrides=keys,
        datasets=[{"name": "tiny", "data_path": place["data_path"]}],
    )["rows"][0]  # fmt: skip
    assert (row["epochs"], row["epoch_cap"]) == (3 + 2, False)


def test_rows_are_kept_and_a_longer_list_only_adds(data, in_tmp, fits):
    experiment(data)
    before = Path("out/rows.jsonl").read_bytes()
    experiment(data)
    assert Path("out/rows.jsonl").read_bytes() == before
    assert fits == ["MF", "MF"]
    result = experiment(data, models=["MF", "BPR"], seeds=[1, 2, 3])
    assert Path("out/rows.jsonl").read_bytes().startswith(before)
    assert Counter(fits) == {"MF": 3, "BPR": 3}
    assert len(result["rows"]) == 6


def test_a_changed_key_trains_again_and_the_old_row_does_not_count(data, in_tmp, fits):
    experiment(data, seeds=[1])
    other = experiment(data, seeds=[1], overrides={**content(data)["overrides"], "epochs": 2})
    assert [row["epochs"] for row in other["rows"]] == [2]
    assert fits == ["MF", "MF"]


def test_killed_at_a_random_moment_it_ends_with_the_same_rows(data, in_tmp):
    parts = {"overrides": {**content(data)["overrides"], "epochs": 30, "stopping_step": 99}}
    whole = experiment(data, out="whole", **parts)["rows"]
    words = ["experiment", str(write(data, **parts)), "--out=cut", "--workers=0"]
    process = subprocess.Popen([sys.executable, "-m", "recbole_cierec", *words])
    wait_for(lambda: any(Path("cut").rglob("*.last.pth")))
    time.sleep(random.uniform(0, 1))  # noqa: S311
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = read_rows(Path("cut/rows.jsonl"))
    rows = experiment(data, out="cut", **parts)["rows"]
    assert lasting(rows) == lasting(whole)
    assert rows[: len(kept)] == kept
    assert len(read_rows(Path("cut/rows.jsonl"))) == 2
    assert not list(Path("cut").rglob("*.pth"))


def test_an_interrupted_run_resumes_from_its_last_epoch(data, in_tmp, monkeypatch, fits):
    plain = TrainerMixin._train_epoch

    def cut(self, train_data, epoch_idx, *args, **kwargs):
        if epoch_idx == 3 and not list(Path("out").rglob("rows.jsonl")):
            raise KeyboardInterrupt
        return plain(self, train_data, epoch_idx, *args, **kwargs)

    monkeypatch.setattr(TrainerMixin, "_train_epoch", cut)
    with pytest.raises(KeyboardInterrupt):
        experiment(data, seeds=[1])
    monkeypatch.setattr(TrainerMixin, "_train_epoch", plain)
    rows = experiment(data, seeds=[1])["rows"]
    assert rows[0]["resumed"] is True
    assert fits == ["MF"], "its first epochs were not trained again"
    assert lasting(rows) == lasting(experiment(data, out="whole", seeds=[1])["rows"])


def test_processes_give_the_same_rows(data, in_tmp):
    here = experiment(data)["rows"]
    assert lasting(experiment(data, out="two", workers=2)["rows"]) == lasting(here)


# ---------------------------------------------------------------------------------- sharing


def test_runs_that_only_test_otherwise_are_trained_once(data, in_tmp, fits):
    modes = {
        "user5": {"eval_args": {"mode": "user5"}, "eval_repeats": 2},
        "full": {"eval_args": {"mode": {"valid": "user5", "test": "full"}}},
        "other": {"eval_args": {"mode": "full"}},
    }
    rows = experiment(data, seeds=[1], protocols=modes)["rows"]
    assert fits == ["MF", "MF"]
    assert [row["protocol"] for row in rows] == ["user5", "full", "other"]
    assert [row["trained_by"] for row in rows] == [None, rows[0]["key"], None]
    alone = single(data, "MF", 1, **modes["full"])
    assert rows[1]["test"] == {k: v if v == v else None for k, v in alone["test_result"].items()}
    assert rows[1]["seconds"]["fit_cpu"] == rows[0]["seconds"]["fit_cpu"]
    assert not list(Path("out").rglob("*.pth"))


def test_a_stage_is_trained_once_for_all_variants(data, in_tmp, fits):
    variants = {"eps 0.1": {"adv_eps": 0.1}, "eps 1": {"adv_eps": 1.0}}
    rows = experiment(data, models=["AMF"], variants=variants, seeds=[1])["rows"]
    assert Counter(fits) == {"MF": 1, "AMF": 2}
    assert [row["model"] for row in rows] == ["AMF, eps 0.1", "AMF, eps 1"]
    assert len(list(Path("out/stages").iterdir())) == 1


def test_what_another_process_works_on_is_left_to_it(in_tmp):
    folder = Folder("out")
    with folder.claimed("a") as first, folder.claimed("a") as second, folder.claimed("b") as third:
        assert (first, second, third) == (True, False, True)
    with folder.claimed("a") as again:
        assert again


def test_a_torn_line_is_removed_and_nothing_else(in_tmp):
    path = Path("rows.jsonl")
    append_row(path, {"key": "a", "test": {"recall@10": float("nan")}})
    with path.open("ab") as file:
        file.write(b'{"key": "b", "te')
    assert [row["key"] for row in read_rows(path)] == ["a"]
    append_row(path, {"key": "c"})
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"key": "a", "test": {"recall@10": None}},
        {"key": "c"},
    ]


def test_a_row_waits_for_the_process_that_writes_one(in_tmp, monkeypatch):
    path = Path("rows.jsonl")
    path.write_bytes(b'{"key": "a"}\n{"key": "b", "te')  # the other has not finished its line
    monkeypatch.setattr(row_files, "PATIENCE", 0.2)
    with FileLock(f"{TEMPORARY}rows.jsonl.lock"):
        with pytest.raises(OutputError, match=r"^rows\.jsonl: .*has held its lock for 0\.2 s"):
            append_row(path, {"key": "c"})
        assert path.read_bytes().endswith(b'"te')
    append_row(path, {"key": "c"})
    assert [row["key"] for row in read_rows(path)] == ["a", "c"]


@pytest.mark.parametrize("error", [OSError(37, "No locks"), NotImplementedError(), Timeout("x")])
def test_a_disk_without_locks_has_rows_and_runs_too(in_tmp, monkeypatch, error):
    def acquire(self, timeout):
        raise error

    monkeypatch.setattr(FileLock, "acquire", acquire)
    append_row(Path("rows.jsonl"), {"key": "a"})
    assert read_rows(Path("rows.jsonl")) == [{"key": "a"}]
    with Folder(".").claimed("a") as mine:
        assert mine


def test_the_lock_of_another_user_is_one_line(in_tmp, monkeypatch):
    def acquire(self, timeout):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(FileLock, "acquire", acquire)
    with pytest.raises(OutputError, match=r"rows\.jsonl: cannot be written \(Permission denied\)"):
        append_row(Path("rows.jsonl"), {"key": "a"})


# ---------------------------------------------------------------------------------- searches


def test_runs_have_the_settings_that_validation_chose(data, in_tmp):
    ranges = {"learning_rate": [0.0, 0.1], "reg_weight": [0.0, 0.01]}
    models = [{"name": "MF", "search": ranges}, {"name": "BPR", "search": "none"}]
    search = {"trials": 5, "pruner": "none"}
    result = experiment(data, models=models, search=search)
    (found,) = read_rows(Path("out/searches.jsonl"))
    trials = Path(found["files"]["rows"]).read_text().splitlines()
    best = max(map(json.loads, trials), key=lambda trial: trial["valid"])
    assert found["trials"] == len(trials) == 5
    assert found["settings"] == best["settings"]
    for row in result["rows"]:
        assert row["settings"] == ({} if row["model"] == "BPR" else best["settings"])
    assert result["rows"][0]["valid_score"] == best["valid"], "the search has the first seed"


def test_rows_of_a_model_come_before_the_next_search(data, in_tmp, capsys):
    models = [{"name": name, "search": {"learning_rate": [0.1, 0.2]}} for name in ("MF", "BPR")]
    experiment(data, models=models, search={"trials": 1}, seeds=[1, 2])
    said = [line for line in capsys.readouterr().err.splitlines() if line.startswith("[")]
    first = [*("search, MF", "MF on", "search, BPR", "BPR on"), "MF on", "BPR on"]
    assert [
        line.partition("] ")[2][: len(begin)] for line, begin in zip(said, first, strict=True)
    ] == first


def test_a_fixed_key_is_not_searched_and_seconds_end_a_search(data, in_tmp):
    ranges = {"learning_rate": [0.1, 0.2], "reg_weight": [0.0, 0.01]}
    models = [{"name": "MF", "search": ranges, "keys": {"learning_rate": 0.05}}]
    rows = experiment(data, models=models, search={"trials": 9, "seconds": 1e-9})["rows"]
    (found,) = read_rows(Path("out/searches.jsonl"))
    assert found["trials"] == 1
    assert set(found["settings"]) == {"reg_weight"}
    assert {row["keys"]["learning_rate"] for row in rows} == {0.05}
    experiment(data, models=models, search={"trials": 2})
    assert read_rows(Path("out/searches.jsonl"))[-1]["trials"] == 2, "a new budget continues it"
    experiment(data, models=models, search={"trials": 1})
    assert read_rows(Path("out/searches.jsonl"))[-1]["trials"] == 1, "a lower one is no advantage"


def test_hopeless_trials_are_stopped(data, in_tmp):
    ranges = {"learning_rate": [0.2, 0.21, 0.19, 0.18, 0.0]}
    search = {"trials": 6, "seed": 3}
    experiment(data, models=[{"name": "MF", "search": ranges}], search=search, seeds=[1])
    (found,) = read_rows(Path("out/searches.jsonl"))
    trials = [json.loads(line) for line in Path(found["files"]["rows"]).read_text().splitlines()]
    stopped = [trial for trial in trials if trial["state"] == "pruned"]
    assert found["pruned"] == len(stopped) > 0
    assert found["settings"] != stopped[0]["settings"]
    assert all(trial["epochs"] < FIXED["epochs"] for trial in stopped)


# ----------------------------------------------------------------------------------- failures


def test_a_failing_run_is_a_row_and_the_others_go_on(data, in_tmp, capsys):
    models = [{"name": "MF", "label": "wild", "keys": {"learning_rate": 1e30}}, "BPR"]
    file = write(data, models=models, seeds=[1])
    assert command.main([str(file), "--out=out", "--workers=0"]) == 2
    rows = read_rows(Path("out/rows.jsonl"))
    assert [(row["model"], row["error"] is None) for row in rows] == [
        ("wild", False),
        ("BPR", True),
    ]
    assert "the training loss is nan" in rows[0]["error"]
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith("error: 1 of the runs and searches failed, the first: wild on")
    assert len([line for line in said if "wild" in line and "failed" in line]) == 2
    assert [line[:5] for line in said if line.startswith("[")] == ["[1/2]", "[2/2]"]
    run_experiment(file, "out", 0)
    assert len(read_rows(Path("out/rows.jsonl"))) == 3, "the command repeated tries it again, once"


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"modles": []}, ["unknown key 'modles'", "did you mean 'models'"]),
        ({"models": []}, ["e.yaml: models: is empty; list at least one"]),
        ({"models": "MF"}, ["models: must be a list, not 'MF'"]),
        ({"seeds": []}, ["seeds: is empty"]),
        ({"report": {"metrics": []}}, ["report: metrics: is empty"]),
        ({"models": [{"name": ""}]}, ["models[0]: name: is empty; give a name"]),
        ({"models": ["MV"]}, ["MV on tastes, default", "model 'MV' is not known"]),
        ({"models": [{"name": "MF", "kesy": {}}]}, ["models[0]: unknown key 'kesy'", "'keys'"]),
        (
            {"models": [{"name": "MF", "keys": {"learning_rat": 1}}]},
            ["MF on tastes, default: unknown key 'learning_rat'", "'learning_rate'"],
        ),
        ({"models": [{"name": "MF", "keys": {"gr_mode": "off"}}]}, ["does not read 'gr_mode'"]),
        (
            {"models": [{"name": "BPR", "keys": {"loss": "softmax"}}]},
            ["does not read loss: softmax"],
        ),
        ({"models": ["MF", "MF"]}, ["two have the label 'MF'"]),
        ({"models": [{"name": "MF", "search": "default"}]}, ["the file has no budget"]),
        ({"models": ["Pop"], "search": {"trials": 2}}, ["no search range for Pop", "search: none"]),
        ({"search": {"trial": 2}}, ["search: unknown key 'trial'", "did you mean 'trials'"]),
        ({"search": {"seconds": 0}}, ["seconds must be a number above 0"]),
        ({"search": {"protocol": "full"}}, ["protocol must be one of default, each"]),
        ({"drop_below": 90}, ["drop_below: must be a share from 0 to 1, not 90"]),
        ({"seeds": [1, 1]}, ["seeds: 1 is listed twice"]),
        ({"seeds": [-1]}, ["seeds: must be whole numbers from 0"]),
        ({"datasets": ["absent"]}, ["no such data set folder"]),
        ({"overrides": {"encoder_weights": "a.pth"}}, ["'encoder_weights': a.pth is neither"]),
        (
            {"protocols": {"x": {"load_col": {"inter": ["user_id", "item_id", "tmestamp"]}}}},
            ["MF on tastes, x: ", "no column tmestamp, which load_col names", "'timestamp'?"],
        ),
        ({"protocols": {"x": {"eval_args": {"mod": "full"}}}}, ["unknown key 'mod' in eval_args"]),
        ({"report": {"baseline": "mf2"}}, ["baseline 'mf2' is no label"]),
        ({"report": {"metrics": ["recal@3"]}}, ["report: metric 'recal@3' is not", "'Recall'?"]),
        ({"report": {"metrics": ["mrr@3"]}}, ["report: metric 'mrr@3' is not among the metrics"]),
        ({"report": {"metrics": ["recall@10"]}}, ["report: metric 'recall@10' needs 10 in topk"]),
        ({"report": {"metrics": ["recall@3", "Recall@3"]}}, ["metrics: recall@3 is listed twice"]),
        ({"report": {"groups": ["cool"]}}, ["report: there is no group 'cool'", "'cold'?"]),
        (
            {"report": {"metrics": ["recall@3"], "groups": ["new"]}},
            ["report: group 'new' needs a split COLD_USER"],
        ),
        (
            {"models": ["BPR", {"name": "MF", "keys": {"eval_args": {"mode": "uni5"}}}]},
            [
                "MF on tastes, default: eval_args.mode.test is uni5, and full",
                "for BPR; one table cannot hold both",
            ],
        ),
        (
            {"models": ["VBPR"], "overrides": {"visual_encoder": "resnet19"}},
            ["VBPR on tastes, default: visual_encoder", "did you mean 'resnet18'?"],
        ),
        ({"overrides": {"image_dir": "nowhere"}}, ["'image_dir': nowhere is no such folder"]),
        (
            {"models": ["VBPR"], "overrides": {"cache_dir": "e.yaml/cache"}},
            ["cache_dir e.yaml/cache: Not a directory; correct that"],
        ),
        (
            {"models": [{"name": "AMF", "keys": {"pretrained": "nofile.pth"}}]},
            ["AMF on tastes, default: nofile.pth: no such checkpoint"],
        ),
        (
            {"models": [{"name": "AMF", "keys": {"pretrain": {"loss_": 1}}}]},
            ["AMF starts from MF", "unknown key 'loss_'"],
        ),
        ({"models": ["KGAT"]}, ["tastes.kg: no such file; KGAT needs"]),
        (
            {"protocols": {"x": {"eval_args": {"split": {"RS": [1, 0, 0]}}}}},
            ["MF on tastes, x: eval_args.split {'RS': [1, 0, 0]} leaves a part empty"],
        ),
        ({"overrides": {"epochs": "many"}}, ["'epochs' must be a whole number"]),
        ({"overrides": {"checkpoint_dir": "x"}}, ["checkpoint_dir", "set by the experiment"]),
    ],
)
def test_a_wrong_file_is_one_line_before_anything_starts(data, in_tmp, capsys, parts, words):
    assert command.main([str(write(data, **parts)), "--out=out"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("error: e.yaml: ")
    assert all(word in said for word in words), said
    assert not Path("out").exists()


def test_a_working_folder_that_takes_no_log_is_one_line_before_anything_starts(
    data, in_tmp, capsys
):
    Path("log_tensorboard").write_text("")
    assert command.main([str(write(data)), "--dry-run"]) == 2
    assert "log_tensorboard: the log cannot be written (Not a directory)" in capsys.readouterr().err


def test_tables_of_a_folder_without_rows_are_one_line_and_make_no_folder(data, in_tmp, capsys):
    assert command.main([str(write(data)), "--out=none", "--tables"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "none: no rows of this experiment" in said
    assert not Path("none").exists()


def test_tables_are_written_again_where_the_data_are_not(data, in_tmp, capsys):
    experiment(data, seeds=[1])
    file = write(data, seeds=[1], datasets=[{"name": "tastes", "data_path": "gone"}])
    assert command.main([str(file), "--out=out", "--tables"]) == 0
    assert "MF" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name a file"),
        (["demi"], "demi: there is no such experiment file; did you mean 'demo'?"),
        (["demo", "--worker=2"], "unknown flag --worker=2; did you mean 'workers'?"),
        (["demo", "--workers=two"], "--workers must be a whole number, not 'two'"),
        (["demo", "--workers=-1"], "--workers must be 0 or more, not -1"),
        (["demo", "--epochs=2"], "unknown flag --epochs=2"),
        (["demo", "--set", "epochs"], "--set takes key=value"),
        (["demo", "--set", "epoch=3"], "unknown key 'epoch'"),
    ],
)
def test_a_wrong_command_is_one_line(in_tmp, capsys, words, message):
    assert command.main(words) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert message in said


def test_a_group_of_one_protocol_alone_is_reported(data, in_tmp):
    cold = {"eval_args": {"split": {"COLD_USER": [0.8, 0.1, 0.1]}}}
    report = {"metrics": ["recall@3"], "groups": ["all", "new"]}
    file = write(data, protocols={"known": {}, "new": cold}, report=report)
    make_plan(read_experiment(file))


def test_the_locks_of_another_experiment_in_the_folder_stay(data, in_tmp):
    folder = Folder(Path("out"))
    with folder.claimed("other") as held:
        assert held
        experiment(data, seeds=[1])
        assert [path.name for path in Path("out/locks").iterdir()] == ["other.lock"]
        with folder.claimed("other") as again:
            assert not again
    Path("out/locks/other.lock").unlink()
    experiment(data, seeds=[1])
    assert not Path("out/locks").exists()


def test_runs_with_long_names_are_distinct(data, in_tmp):
    models = [{"name": "MF", "label": 130 * "x" + end} for end in ("", " more")]
    plan = make_plan(read_experiment(write(data, models=models, seeds=[1, 2, 3])))
    assert len({run.key for run in plan.runs}) == 3  # one label more would change no number
    assert max(len(run.key) for run in plan.runs) < 150


def test_runs_with_other_candidates_run_again(data, in_tmp):
    keys = []
    for name in ("a.npz", "b.npz", None, None):
        own = {"eval_args": {"mode": "user9"}, "candidates_file": name}
        plan = make_plan(read_experiment(write(data, protocols={"lists": own}, seeds=[1])))
        keys.append(plan.runs[0].key)
    assert len(set(keys)) == 3
    assert keys[2] == keys[3]


def test_the_plan_counts_and_starts_nothing(data, in_tmp, capsys):
    file = write(data, models=TWO, seeds=[1, 2, 3])
    assert command.main([str(file), "--out=out", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "6 runs (2 models, 1 data set, 1 protocol, 3 seeds), 0 searches" in said
    assert "unknown for 6 runs" in said
    assert not Path("out").exists()
    run_experiment(write(data, Path("one.yaml"), seeds=[1]), "out", 0)
    assert command.main([str(file), "--out=out", "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "left: 5 runs" in said
    assert "unknown for 3 runs" in said, "MF has a row"
    softmax = {"name": "MF", "label": "MF by softmax", "keys": {"loss": "softmax"}}
    file = write(data, models=[*TWO, softmax], seeds=[1, 2, 3])
    assert command.main([str(file), "--out=out", "--dry-run"]) == 0
    assert "unknown for 3 runs" in capsys.readouterr().out, "a variant of MF has one"


def test_what_is_far_behind_with_the_first_seed_has_no_further_one(data, in_tmp, fits, capsys):
    weak = {"name": "MF", "label": "weak", "keys": {"learning_rate": 1e-6}}
    parts = {"models": ["MF", weak, "BPR"], "drop_below": 0.9}
    result = experiment(data, **parts)
    first = {row["model"]: row["valid_score"] for row in result["rows"] if row["seed"] == 1}
    best = max(first.values())
    behind = {model for model, score in first.items() if score < 0.9 * best}
    assert "weak" in behind
    assert len(behind) < 3
    second = {row["model"] for row in result["rows"] if row["seed"] == 2}
    assert second == first.keys() - behind
    assert len(fits) == 3 + len(second)
    assert f"[{3 + len(second)}/{3 + len(second)}]" in capsys.readouterr().err
    assert "weak † |" in Path("out/tables.md").read_text()
    assert run_experiment("e.yaml", "out", dry_run=True)["plan"].endswith("nothing is left")
    parts["models"][1] = weak | {"drop": False}
    kept = {row["model"] for row in experiment(data, **parts)["rows"] if row["seed"] == 2}
    assert kept == second | {"weak"}
    assert "weak † |" not in Path("out/tables.md").read_text()
    del parts["drop_below"]
    assert len(experiment(data, **parts)["rows"]) == 6


def test_the_baseline_is_never_dropped(data, in_tmp):
    weak = {"name": "MF", "label": "weak", "keys": {"learning_rate": 1e-6}}
    report = {"baseline": "weak", "metrics": ["recall@3"]}
    rows = experiment(data, models=["MF", weak], drop_below=0.9, report=report)["rows"]
    assert [row["seed"] for row in rows if row["model"] == "weak"] == [1, 2]


def test_models_that_are_not_trained_have_no_validation_and_are_not_compared(data, in_tmp, capsys):
    raw = {"name": "MF", "label": "raw", "keys": {"epochs": 0}}
    rows = experiment(data, models=["MF", raw], drop_below=0.9)["rows"]
    assert [row["valid_score"] for row in rows if row["model"] == "raw"] == [None, None]
    assert "raw on tastes, default, seed 1: validation Recall@3 -, test" in capsys.readouterr().err


def test_further_seeds_wait_for_the_first_one_of_all_models(data, in_tmp):
    parts = {"models": TWO, "drop_below": 0.5, "protocols": {"a": {}, "b": {"eval_repeats": 2}}}
    plan = make_plan(read_experiment(write(data, **parts)))
    run = plan.runs[0]
    assert (run.model.label, run.protocol, run.seed) == ("MF", "a", 1)
    row = {"key": run.key, "model": "MF", "valid_metric": "Recall@3", "valid_score": 0.4}
    other = next(r for r in plan.runs if (r.model.label, r.protocol, r.seed) == ("BPR", "a", 1))
    further = {r.key for r in plan.runs if (r.protocol, r.seed) == ("a", 2)}
    assert further < plan.undecided(Done([row], []))
    assert not further & plan.undecided(Done([row], []), {other.key}), (
        "a failed run decides nothing"
    )
    worse = {**row, "key": other.key, "model": "BPR", "valid_score": 0.19}
    done = Done([row, worse], [])
    assert not further & plan.undecided(done)
    assert plan.dropped(done) == {
        r.key for r in plan.runs if r.model.label == "BPR" and r.key in further
    }
    assert not plan.dropped(Done([row, {**worse, "valid_score": 0.2}], []))


def test_rows_do_not_outlive_the_data(in_tmp, fits, capsys):
    mine = Path("mine").absolute()
    write_two_tastes(mine)
    first = experiment(mine, seeds=[1])["rows"]
    shutil.rmtree(mine / "tastes")
    write_two_tastes(mine, turn=1)
    capsys.readouterr()
    stale = run_experiment(write(mine, seeds=[1]), "out", tables=True)["rows"]
    assert stale[0]["test"] == first[0]["test"]  # the tables are of the rows that are there
    both = experiment(mine, seeds=[1, 2])["rows"]
    assert fits == ["MF"] * 3
    assert both[0]["test"] != first[0]["test"]
    assert both[0]["test"] == experiment(mine, "fresh", seeds=[1])["rows"][0]["test"]
    assert "other contents" not in capsys.readouterr().err


def test_searches_do_not_outlive_the_data(in_tmp):
    mine = Path("mine").absolute()
    write_two_tastes(mine)
    parts = {"seeds": [1], "search": {"trials": 2}}
    experiment(mine, **parts)
    shutil.rmtree(mine / "tastes")
    write_two_tastes(mine, turn=1)
    again = experiment(mine, **parts)
    assert again["failed"] == []
    rows = read_rows(Path("out/searches.jsonl"))
    assert [row["key"] for row in rows] == [rows[0]["key"]] * 2
    assert rows[0]["data"] != rows[1]["data"]
    assert again["rows"][0]["data"] == rows[1]["data"]


def test_tables_of_rows_of_several_data_say_so(in_tmp, capsys):
    mine = Path("mine").absolute()
    write_two_tastes(mine)
    experiment(mine, seeds=[1])
    shutil.rmtree(mine / "tastes")
    write_two_tastes(mine, turn=1)
    experiment(mine, seeds=[2])
    capsys.readouterr()
    run_experiment(write(mine), "out", tables=True)
    assert "warning: rows of other contents of tastes.inter" in capsys.readouterr().err


def test_a_searched_key_is_not_also_a_protocols(data, in_tmp):
    protocols = {"a": {}, "b": {"reg_weight": 0.3}}
    parts = {"protocols": protocols, "search": {"trials": 2}}
    with pytest.raises(ConfigError, match="protocol b gives 'reg_weight', which is searched for"):
        make_plan(read_experiment(write(data, **parts)))
    parts["search"] = {"trials": 2, "protocol": "each"}
    make_plan(read_experiment(write(data, **parts)))


def test_a_model_that_ranks_something_else_has_means_and_no_test(data, in_tmp):
    """In RecBole's modes a sequential model keeps RecBole's split of its rows."""
    models = ["MF", "BPR", {"name": "GRU4Rec", "keys": {"loss_type": "CE"}}]
    modes, split = {"full": "full", "lists": "user5"}, {"RS": [0.5, 0.25, 0.25]}
    protocols = {name: {"eval_args": {"mode": m, "split": split}} for name, m in modes.items()}
    own = content(data)["overrides"] | {"valid_metric": "Recall@3", "eval_repeats": 1}
    del own["init_std"]
    done = experiment(data, models=models, protocols=protocols, seeds=[1], overrides=own)
    assert done["failed"] == []
    table = pd.read_csv("out/tests.csv")
    tested = {(row.protocol, row.model) for row in table.itertuples()}
    assert tested == {("full", "BPR"), ("lists", "BPR"), ("lists", "GRU4Rec")}
    cells = pd.read_csv("out/tables.csv")
    assert {"MF", "BPR", "GRU4Rec"} == set(cells[cells.protocol == "full"].model)
    line = "GRU4Rec is not tested against MF: different data, other interactions"
    assert line in done["text"]
    assert line in Path("out/tables.md").read_text()


def test_set_overrides_the_file(data, in_tmp):
    assert command.main([str(write(data, seeds=[1])), "--out=out", "--workers=0",
                         "--set", "epochs=2"]) == 0  # fmt: skip
    assert [row["epochs"] for row in read_rows(Path("out/rows.jsonl"))] == [2]


def test_a_wrong_key_of_set_is_blamed_on_it(data, in_tmp, capsys):
    words = [str(write(data)), "--out=out", "--workers=0", "--set", "epoch=2"]
    assert command.main(words) == 2
    assert "error: --set: unknown key 'epoch'" in capsys.readouterr().err


def test_files_of_features_with_the_same_name_are_told_apart(tiny):
    for folder in ("a", "b"):
        Path(folder).mkdir()
        np.save(f"{folder}/f.npy", np.ones((39, 2), dtype="float32"))
    keys = tiny(features={"image": "a/f.npy", "text": "b/f.npy"}, features_file=None)
    config = Config("VBPR", "tiny", None, keys, {})
    before = data_files(config)
    np.save("a/f.npy", np.zeros((39, 2), dtype="float32"))
    after = data_files(config)
    changed = {name for name in before if before[name] != after[name]}
    assert (changed, before.keys()) == ({"features.image"}, after.keys())
    assert {"tiny.inter", "tiny.item", "features.text"} < before.keys()
