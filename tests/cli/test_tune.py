"""The search: what it finds, what it never reads, and what an interruption leaves."""

from __future__ import annotations

import json
import logging
import os
import shlex
import signal
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import optuna
import programs
import pytest
from optuna.trial import TrialState
from tune_helpers import FIXED, SEARCHED, arguments, fake, flags_of, search, write_two_tastes

from recbole_cierec import run, tuning
from recbole_cierec.cli import tune
from recbole_cierec.cli.run import split_arguments
from recbole_cierec.config.config import Config
from recbole_cierec.config.yaml import read_yaml
from recbole_cierec.errors import ConfigError, DataError, UserError
from recbole_cierec.files.checkpoint import read_checkpoint
from recbole_cierec.trainer.trainer import TrainerMixin
from recbole_cierec.tuning import runner, trial
from recbole_cierec.tuning import study as studies
from recbole_cierec.tuning.search import Search

SAME = ("trial", "state", "settings", "valid", "metrics", "epochs", "best_epoch")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tastes")
    write_two_tastes(folder)
    (folder / "space.yaml").write_text(SEARCHED)
    return folder


def seen(rows: list[dict]) -> list[dict]:
    return [{key: row.get(key) for key in SAME} for row in rows]


def stored(path="out/tastes-MF.journal", name="tastes-MF"):
    return optuna.load_study(study_name=name, storage=studies.open_journal(Path(path))).trials


@pytest.fixture(scope="module")
def whole(data, tmp_path_factory) -> list[dict]:
    """The trials of a study that was run in one go by one process."""
    before = os.getcwd()
    os.chdir(tmp_path_factory.mktemp("whole"))
    try:
        return search(data)["rows"]
    finally:
        os.chdir(before)


# ----------------------------------------------------------------- what is found, and measured


def test_the_setting_that_learns_is_found_and_its_yaml_gives_the_same_score(data, in_tmp):
    Path("base.yaml").write_text("learning_rate: 0.0\n")
    (in_tmp / "space.yaml").write_text("learning_rate: [0.0, 0.2]\n")
    result = search(data, trials=9, search="space.yaml", files=["base.yaml"])
    assert [row["settings"]["learning_rate"] for row in result["rows"]] == [0.0, 0.2]
    none, learnt = result["rows"]
    # Ten of the 19 items that a user does not have in training, or all of the user's taste.
    assert none["valid"] < 0.75 < learnt["valid"]
    assert result["best"] == learnt
    found = read_yaml(result["files"]["yaml"])
    assert found == {**FIXED, "learning_rate": 0.2}
    words = shlex.split(result["command"])
    assert words[:3] == ["python", "-m", "recbole_cierec"]
    again = run(**split_arguments(words[3:]))
    assert again["best_valid_score"] == learnt["valid"]
    best = read_checkpoint(Path(again["checkpoint"]))["epoch"] + 1
    assert (again["epochs"], best) == (learnt["epochs"], learnt["best_epoch"])


def test_the_best_epoch_counts_epochs_of_training_not_validations(data, in_tmp, monkeypatch):
    said = iter([0.1, 0.4, 0.2, 0.3])  # after epochs 2, 4, 6 and 8; stops after two without gain
    monkeypatch.setattr(
        TrainerMixin, "_valid_epoch", lambda *_, **__: (next(said), {"recall@10": 0.0})
    )
    flags = {"eval_step": 2, "stopping_step": 1, "epochs": 20}
    (row,) = search(data, trials=1, flags=flags)["rows"]
    assert (row["valid"], row["best_epoch"], row["epochs"]) == (0.4, 4, 8)


def test_trial_0_is_the_defaults_and_no_two_trials_are_alike(whole, data):
    assert [row["trial"] for row in whole] == list(range(5))
    first = Config("MF", "tastes", None, {"data_path": str(data)})
    assert whole[0]["settings"] == {k: first[k] for k in ("learning_rate", "reg_weight")}
    assert len({json.dumps(row["settings"]) for row in whole}) == 5
    assert all(row["cpu_seconds"] > 0 and row["seconds"] > 0 for row in whole)


def test_a_search_leaves_its_files_a_log_for_each_trial_and_no_checkpoint(data, in_tmp):
    result = search(data, trials=2)
    assert sorted(path.name for path in Path("out").iterdir()) == [
        f"tastes-MF.{kind}" for kind in ("journal", "jsonl", "md", "yaml")
    ]
    assert not list(in_tmp.rglob("*.pth"))
    lines = Path("out/tastes-MF.jsonl").read_text().splitlines()
    assert seen(map(json.loads, lines)) == seen(result["rows"])
    assert all(Path(row["log"]).is_file() for row in result["rows"])
    text = Path("out/tastes-MF.md").read_text()
    assert "| 0 (defaults) |" in text
    for line in Path("out/tastes-MF.yaml").read_text().splitlines():
        assert line.startswith("#") or ("# (" in line and line.endswith("."))


class Untouchable:
    """Takes the place of the test part."""

    def __getattribute__(self, name):
        raise AssertionError(f"the test part was asked for {name}")

    __iter__ = __len__ = None


def test_the_test_part_is_never_evaluated(data, in_tmp, monkeypatch, whole):
    plain = trial.prepare

    def prepare(config, saved=True):
        job = plain(config, saved)
        job.loaders = (*job.loaders[:2], Untouchable())
        return job

    monkeypatch.setattr(trial, "prepare", prepare)
    assert seen(search(data, trials=2)["rows"]) == seen(whole[:2])


def test_what_is_in_the_test_part_changes_nothing(in_tmp, data, whole):
    write_two_tastes(in_tmp / "other", turn=1)
    texts = [(folder / "tastes/tastes.inter").read_text() for folder in (data, in_tmp / "other")]
    assert texts[0] != texts[1]
    rows = search(data, trials=3, flags={"data_path": in_tmp / "other"})["rows"]
    for ours, theirs in zip(rows, whole, strict=False):
        for name in ("recall@10", "ndcg@10"):  # the test part decides which users are cold
            assert ours["metrics"][name] == theirs["metrics"][name]


def test_a_trial_that_fails_is_kept_with_its_reason_and_the_search_goes_on(data, in_tmp, capsys):
    (in_tmp / "space.yaml").write_text("learning_rate: [0.1, 1e30]\n")
    result = search(data, trials=3, search="space.yaml")
    states = {row["settings"]["learning_rate"]: row for row in result["rows"]}
    assert states[1e30]["state"] == "failed"
    assert "the training loss is" in states[1e30]["reason"]
    assert states[1e30]["valid"] is None
    assert [states[rate]["state"] for rate in (0.1, 0.2)] == ["complete"] * 2
    assert result["best"]["state"] == "complete"
    assert "failed: MF: the training loss" in Path("out/tastes-MF.md").read_text()
    assert capsys.readouterr().err.count("failed: ") == 1


def test_sizes_that_do_not_go_together_are_such_a_failure(tiny_folder, in_tmp):
    (in_tmp / "space.yaml").write_text("content_size: [8, 10]\n")
    flags = {"data_path": tiny_folder, "epochs": 1, "pretrain_epochs": 0, "attention_heads": 4}
    flags |= {"features_file": tiny_folder / "tiny" / "features.npy", "content_size": None}
    del flags["content_size"]
    result = search(tiny_folder, "AlignRec", "tiny", 3, flags=flags, search="space.yaml")
    failed = [row for row in result["rows"] if row["state"] == "failed"]
    assert [row["settings"] for row in failed] == [{"content_size": 10}]
    assert "not a multiple of attention_heads" in failed[0]["reason"]


def test_when_every_trial_fails_it_is_one_line(data, in_tmp, monkeypatch, capsys):
    fake(monkeypatch, lambda settings: None)
    assert tune.main(arguments(data, trials=2)) == 2
    assert (
        capsys.readouterr().err.splitlines()[-1] == "error: all 2 trials failed, the first by: none"
    )


@pytest.mark.parametrize(
    ("model", "space", "extra"),
    [
        ("AMF", "adv_eps: [0.1, 0.5]", {}),
        ("PiNet", "pretrain_epochs: [0, 1]", {}),
        (
            "VBPR",
            "reg_weight: [0.01, 0.03]",
            {"eval_args": "{split: {COLD_ITEM: [0.6, 0.2, 0.2]}}"},
        ),
        ("SASRec", "n_layers: [1, 2]", {"hidden_size": 8, "inner_size": 8}),
    ],
)
def test_a_trial_says_what_a_run_with_its_settings_says(
    tiny_folder, in_tmp, monkeypatch, model, space, extra
):
    Path("space.yaml").write_text(space + "\n")
    flags = {**flags_of(tiny_folder), "epochs": "2", "embedding_size": "6"} | extra
    flags["features_file"] = str(tiny_folder / "tiny" / "features.npy")
    plain, epochs = TrainerMixin._train_epoch, Counter()

    def train_epoch(self, *args, **kwargs):
        epochs[self.config["model"]] += 1
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(TrainerMixin, "_train_epoch", train_epoch)
    result = tuning.tune(model, "tiny", 3, flags=flags, search="space.yaml", out=Path("out"))
    assert len(result["rows"]) >= 2
    if model == "AMF":
        assert epochs["MF"] == 2  # one stage for all trials
    assert not list(in_tmp.rglob("*.pth"))
    monkeypatch.setattr("psutil.cpu_percent", lambda interval=None: 0.0)
    row = result["rows"][-1]
    done = run(
        model, "tiny", config_dict={**row["settings"], "show_progress": False}, cmd_line=flags
    )
    assert done["best_valid_score"] == row["valid"]
    assert done["epochs"] == row["epochs"]
    assert read_checkpoint(Path(done["checkpoint"]))["epoch"] + 1 == row["best_epoch"]


# ---------------------------------------------------------------------- stopped, shared, exact


def search_of(data: Path, trials=2, **options) -> Search:
    space = str(data / "space.yaml")
    flags = flags_of(data, **options.pop("flags", {}))
    return Search("MF", "tastes", [], flags, trials, search=space, out="out", **options)


def begun(data: Path, trials=2) -> tuple[Search, studies.SharedStudy]:
    search = search_of(data, trials)
    study = search.study()
    study.fill()
    return search, study


@pytest.mark.slow
def test_a_search_killed_in_a_trial_goes_on_and_ends_as_the_whole_one(data, in_tmp, whole):
    child = programs.start("tune", *arguments(data, trials=5), cwd=in_tmp)
    journal = Path("out/tastes-MF.journal")
    try:
        for _ in range(30000):
            starts = journal.read_text().count('"starts"') if journal.is_file() else 0
            if starts == 3 or child.returncode is not None:
                break
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
    finally:
        child.kill()
        assert child.wait() == -signal.SIGKILL
    done = [one.state == TrialState.COMPLETE for one in stored()]
    assert done == [True] * 2 + [False] * 3
    with journal.open("a") as file:  # as if it had died in the middle of a line
        file.write('{"op_code": 8, "worker_')
    rows = search(data)["rows"]
    assert seen(rows) == seen(whole)
    assert [one.user_attrs["starts"] for one in stored()] == [1, 1, 2, 1, 1]


@pytest.mark.slow
def test_workers_share_exactly_n_trials_with_the_results_of_one_process(
    data, in_tmp, whole, monkeypatch, capsys, quick_processes
):
    """The first trial kills its worker; another worker runs it again."""
    used: list[tuple[int, int]] = []
    plain = runner._hand_out

    def hand_out(search, study, worker):
        plain(search, study, worker)
        if worker.trial is not None:
            used.append((worker.trial.number, worker.process.pid))
            if len(used) == 1:
                os.kill(worker.process.pid, signal.SIGKILL)

    monkeypatch.setattr(runner, "_hand_out", hand_out)
    result = search(data, processes=2)
    assert seen(result["rows"]) == seen(whole)
    assert [one.user_attrs["starts"] for one in stored()] == [2, 1, 1, 1, 1]
    assert len({pid for _, pid in used}) == 3
    assert sorted(number for number, _ in used) == [0, 0, 1, 2, 3, 4]
    assert "the process of trial 0 was killed (code -9" in capsys.readouterr().err


def test_workers_take_the_gpus_in_turn_before_they_ask_for_any(data, in_tmp, monkeypatch):
    seen: list[str] = []  # a process keeps the state that it saw first
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(
        "torch.cuda.is_available", lambda: not seen.append(os.environ["CUDA_VISIBLE_DEVICES"])
    )
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    plan = search_of(data, flags={"gpu_id": "0, 1", "use_gpu": True})
    firsts = []
    for given in runner._with_gpus(plan, 3):
        seen.clear()
        assert Search(**given).base.digest() == plan.base.digest()
        firsts.append(seen[0])
    assert firsts == ["0", "1", "0"]


def test_two_that_begin_a_study_at_once_still_run_n_trials(data, in_tmp, monkeypatch):
    asked = fake(monkeypatch, lambda settings: settings["learning_rate"])
    searches = [search_of(data, 4) for _ in range(2)]
    both = [search.study() for search in searches]
    for _ in range(4):  # each sees too few trials and makes the missing one
        for study in both:
            study.study.enqueue_trial({})
    for one, study in zip(searches, both, strict=True):
        runner._run_here(one, study)
    assert len(asked) == 4
    assert len(both[1].rows()) == 4
    assert both[1].left() == 0


def test_more_trials_go_on_after_those_that_are_there(data, in_tmp, whole):
    first = search(data, trials=2)["rows"]
    assert seen(first) == seen(whole[:2])
    more = search(data, trials=4)["rows"]
    assert more[:2] == first
    assert seen(more) == seen(whole[:4])


def test_fewer_trials_than_have_ended_drop_none_except_in_an_equal_budget(
    data, in_tmp, monkeypatch
):
    asked = fake(monkeypatch, lambda settings: -settings["learning_rate"])
    before = search(data, trials=5)
    files = {key: path.read_text() for key, path in before["files"].items()}
    after = search(data, trials=1)
    assert after["best"] == before["best"]
    assert after["best"]["trial"] > 0
    assert after["rows"] == before["rows"]
    assert len(asked) == 5
    assert {key: path.read_text() for key, path in after["files"].items()} == files
    capped = search(data, trials=2, capped=True)
    assert [row["trial"] for row in capped["rows"]] == [0, 1]


@pytest.mark.parametrize("error", [SystemExit(143), KeyboardInterrupt(), DataError("gone")])
def test_a_search_that_is_stopped_gives_its_trial_back(data, in_tmp, monkeypatch, error):
    fake(monkeypatch, error=error)
    with pytest.raises(type(error)):
        search(data, trials=2)
    assert [one.state for one in stored()] == [TrialState.WAITING] * 2
    assert stored()[0].user_attrs["starts"] == 0


def test_a_trial_is_claimed_once_until_its_process_has_ended(data, in_tmp):
    (_, one), (_, other) = begun(data), begun(data)
    first = one.claim()
    assert (first.number, other.claim().number) == (0, 1)
    assert other.claim() is None  # both are run
    assert one.claim() is None
    one.interrupted(first)  # as the kernel does when a process ends
    assert other.claim().number == 0
    assert stored()[0].user_attrs["starts"] == 2


def test_a_trial_that_ends_between_the_look_and_the_lock_is_not_run_again(
    data, in_tmp, monkeypatch
):
    (_, one), (_, other) = begun(data, 1), begun(data, 1)
    trial, plain = one.claim(), other._lock

    def lock(number):
        one.finish(trial, {"settings": {}, "valid": 0.5})
        return plain(number)

    monkeypatch.setattr(other, "_lock", lock)
    assert other.claim() is None
    assert other.left() == 0
    assert not list(Path("out").glob("*.lock"))


def test_where_a_disk_has_no_locks_a_trial_may_run_twice_and_counts_once(
    data, in_tmp, monkeypatch, caplog
):
    monkeypatch.setattr(studies, "can_lock", lambda folder: False)
    (_, one), (_, other) = begun(data), begun(data)
    assert "has no locks; run one tune command at a time" in caplog.text
    trials = one.claim(), other.claim()
    assert [trial.number for trial in trials] == [0, 0]
    one.finish(trials[0], {"settings": {}, "valid": 0.5})
    other.finish(trials[1], {"settings": {}, "valid": 0.9})
    assert [row["valid"] for row in other.rows()] == [0.5]
    assert "trial 0 has a result" in caplog.text


def test_a_trial_whose_process_always_dies_is_given_up(data, in_tmp, monkeypatch):
    asked = fake(monkeypatch, lambda settings: 0.5)
    search, study = begun(data)
    for _ in range(studies.STARTS):
        taken = study.claim()
        assert taken.number == 0
        study.note(taken, "settings", {"learning_rate": 0.05})
        study.interrupted(taken)
    runner._run_here(search, study)
    first, second = study.rows()
    assert len(asked) == 1
    assert (first["state"], second["state"]) == ("failed", "complete")
    assert "died 5 times" in first["reason"]
    assert first["settings"] == {"learning_rate": 0.05}


def test_an_error_of_the_program_in_a_worker_stops_the_search(data, in_tmp, monkeypatch):
    search, study = begun(data)
    worker = SimpleNamespace(process=SimpleNamespace(join=int, exitcode=1))
    worker.pipe = SimpleNamespace(recv=lambda: open("absent"))
    with pytest.raises(UserError, match="a worker ended with code 1; repeat the command"):
        runner._receive(search, study, worker, study.claim())


def test_the_terminal_shows_once_what_every_trial_logs(data, in_tmp, capfd):
    (in_tmp / "base.yaml").write_text("gr_mode: off\n")  # of another model
    root = logging.getLogger()
    kept, root.handlers = root.handlers, []  # as in a program without logging
    try:
        words = [*arguments(data, trials=2), "--config_files=base.yaml"]
        assert tune.main(words) == 0
    finally:
        root.handlers = kept
    said = capfd.readouterr().err
    assert said.count("model MF does not read 'gr_mode'") == 1
    assert "\x1b" not in said
    logs = [path.read_text() for path in Path("log/MF").glob("*.log")]
    assert [log.count("model MF does not read 'gr_mode'") for log in logs] == [1, 1]
    assert all("epoch 3 training" in log for log in logs)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"flags": {"epochs": 3}}, ["epochs 4", "now is 3"]),
        ({"flags": {"init_std": 0.1}}, ["init_std"]),
        ({"sampler": "tpe"}, ["sampler random", "tpe"]),
        ({"search": "other.yaml"}, ["learning_rate [0.0, 0.05, 0.1, 0.2]", "[0.1, 0.3]"]),
        ({"model": "MF_Image", "name": "tastes-MF"}, ["model MF", "MF_Image"]),
        ({"flags": {"seed": 5}}, ["seed", "5"]),
    ],
)
def test_a_study_of_other_settings_is_refused_in_one_line(data, in_tmp, monkeypatch, change, words):
    asked = fake(monkeypatch, lambda settings: 0.5)
    search(data, trials=2)
    Path("other.yaml").write_text("learning_rate: [0.1, 0.3]\nreg_weight: [0.0, 0.01]\n")
    with pytest.raises(ConfigError) as error:
        search(data, trials=2, **change)
    assert "\n" not in str(error.value)
    assert all(word in str(error.value) for word in [*words, "tastes-MF", "--name"])
    assert len(asked) == 2


def test_a_study_without_any_trial_takes_the_corrected_settings(data, in_tmp, monkeypatch):
    """An error before the first trial, such as a broken picture, is corrected by another key."""
    fake(monkeypatch, error=DataError("3 of 9 pictures cannot be used"))
    with pytest.raises(DataError):
        search(data, trials=2)
    asked = fake(monkeypatch, lambda settings: 0.5)
    search(data, trials=2, flags={"epochs": 3})
    assert len(asked) == 2
    with pytest.raises(ConfigError, match="begun with epochs 3"):
        search(data, trials=2)


def test_other_data_under_the_same_name_are_refused(in_tmp, data):
    write_two_tastes(in_tmp / "data")
    flags = {"data_path": in_tmp / "data"}
    search(data, trials=1, flags=flags)
    path = in_tmp / "data/tastes/tastes.inter"
    path.write_text("\n".join(line for line in path.read_text().split("\n") if "u3\t" not in line))
    with pytest.raises(DataError, match="the data of the study tastes-MF have changed"):
        search(data, trials=2, flags=flags)
    assert [one.state for one in stored()] == [TrialState.COMPLETE, TrialState.WAITING]


def test_other_features_under_the_same_name_are_refused(in_tmp, data):
    write_two_tastes(in_tmp / "data")
    home = in_tmp / "data/tastes"
    rows = [f"i{item}\timages/{item}.png" for item in range(24)]
    head = "item_id:token\timage_path:token"
    (home / "tastes.item").write_text("\n".join([head, *rows]) + "\n")
    features = np.random.default_rng(0).standard_normal((24, 4)).astype("float32")
    np.save("features.npy", features)
    flags = {"data_path": in_tmp / "data", "features_file": "features.npy"}
    search(data, model="VBPR", trials=1, flags=flags)
    search(data, model="VBPR", trials=2, flags=flags)
    np.save("features.npy", features + 1)
    with pytest.raises(DataError, match=r"have changed since it began \(.*features.*\); use"):
        search(data, model="VBPR", trials=3, flags=flags)


def test_user_errors_of_a_worker_are_those_of_the_search(data, in_tmp, quick_processes):
    with pytest.raises(UserError, match="no such data set folder"):
        search(data, dataset="absent", trials=1, processes=2)


def test_smaller_is_better_where_the_metric_says_so(data, in_tmp):
    rows = [{"trial": k, "state": "complete", "valid": v} for k, v in enumerate([3.0, 1.0, 1.0])]
    one = begun(data)[1]
    assert one.best(rows)["trial"] == 0
    one.maximize = False
    assert one.best(rows)["trial"] == 1
    assert one.best([]) is None
