"""What a run prints, and where: captured from real runs."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from recbole_cierec import run
from recbole_cierec.__main__ import main
from recbole_cierec.cli.run import split_arguments
from recbole_cierec.config.config import Config
from recbole_cierec.console.result_table import WIDTH, result_table
from recbole_cierec.console.run_lines import processes_line
from recbole_cierec.quick_start import prepare

LOG_ONLY = ("General Hyper Parameters", "valid result:", "Remain Fields", "Environment", "VBPR(")


@pytest.fixture
def shown(bare, tiny, capsys):
    """``shown(model, **keys)`` -> (result, stdout, stderr) of a run."""

    def one(model: str, **keys):
        with bare():
            result = run(model, "tiny", config_dict=tiny(state="info", **keys))
        return result, *capsys.readouterr()

    return one


def test_a_person_reads_data_model_epochs_and_result(shown):
    result, out, err = shown("VBPR", epochs=12)
    log = Path(result["log_file"]).read_text(encoding="utf-8")
    assert not any(text in out + err for text in LOG_ONLY)
    assert all(text in log for text in LOG_ONLY)
    heads = [line.split(":")[0] for line in err.splitlines()]
    assert heads[:5] == ["Data", "Split", "Ranked", "Users", "Items"]
    assert "30 users, 40 items" in err.splitlines()[0]
    assert f"Model: VBPR, {result['parameters']:,} parameters, on cpu" in err
    assert all(line in log for line in err.splitlines())
    epochs = re.findall(r"^epoch +(\d+)/12  loss (\S+)  recall@10 (\S+)( \*)?", err, re.M)
    assert [int(number) for number, *_ in epochs] == list(range(1, 13))
    losses = re.findall(r"training \[time: \S+, train loss: (\S+)\]", log)
    assert [loss for _, loss, *_ in epochs] == losses
    scores = [float(s) for s in re.findall(r"valid_score: (\S+)\]", log)]
    assert [float(score) for *_, score, _ in epochs] == pytest.approx(scores, abs=1e-5)
    best = [k for k, score in enumerate(scores) if score >= max(scores[: k + 1])]
    assert [k for k, (*_, mark) in enumerate(epochs) if mark] == best
    assert result["best_epoch"] == best[-1] + 1
    assert f"epoch {result['best_epoch']} of 12" in out
    assert "stopped early" not in out
    short, out, _ = shown("VBPR", epochs=90, stopping_step=0, learning_rate=0.0)
    assert f"of {short['epochs']} (recall@10" in out
    assert "in validation); stopped early" in out


@pytest.mark.parametrize(
    ("name", "keys", "says"),
    [("MF", {}, True), ("VBPR", {}, True), ("CIERec", {}, False),
     ("VBPR", {"encoder_training": "adapter"}, False)],
)  # fmt: skip
def test_several_processes_are_said_to_be_slower_where_a_step_is_short(tiny, name, keys, says):
    job = prepare(Config(name, "tiny", None, tiny(**keys), {}))
    assert processes_line(job.model, job.config) is None  # one process
    several = dict(job.config.final_config_dict) | {"single_spec": False, "world_size": 2}
    line = processes_line(job.model, several)
    assert (line is not None) is says
    assert line is None or line.startswith(f"Processes: 2 are slower than one for {name}")


def test_stdout_has_the_table_with_users_chance_and_files_and_nothing_else(shown):
    result, out, _ = shown("BPR", eval_args={"mode": "user5"}, eval_repeats=2)
    title, head, first, std, chance, *_ = out.strip("\n").splitlines()
    assert title.startswith("Test result of BPR on tiny, epoch ")
    assert head.split()[:3] == ["users", "recall@10", "recall@20"]
    assert first.split()[:4] == ["all", "users", "30", f"{result['test_result']['recall@10']:.5f}"]
    assert f"{result['test_result']['recall@10_std']:.5f}" in std
    assert chance.split()[:2] == ["chance", f"{result['chance']['recall@10']:.5f}"]
    assert out.rstrip().endswith(f"log: {result['log_file']}")
    assert f"checkpoint: {result['checkpoint']}\n" in out
    assert result["users"]["all"] == result["users"]["cold"] + result["users"]["warm"]


def test_verbose_shows_what_the_log_has(shown):
    _, out, err = shown("VBPR", verbose=True)
    assert all(text in err for text in LOG_ONLY)
    assert "Test result of VBPR" in out
    assert "Test result of VBPR" not in err
    assert re.search(r"^\d\d \w{3} \d\d:\d\d +INFO  epoch 1/2 ", err, re.M)


def test_the_split_of_a_sequential_model_does_not_change_the_size_of_the_data(shown):
    said = shown("SASRec", epochs=1, hidden_size=8, inner_size=8)[2]
    assert "Data: tiny, 30 users, 40 items, 342 interactions" in said


def test_warnings_reach_stderr_with_their_level(shown):
    _, out, err = shown("BPR", gr_mode="off")
    assert "WARNING  config_dict: model BPR does not read 'gr_mode'" in err
    assert "WARNING" not in out


def test_two_runs_in_one_program_print_each_line_once(bare, tiny, capsys):
    with bare():
        for _ in range(2):
            run("BPR", "tiny", config_dict=tiny(state="info"))
    out, err = capsys.readouterr()
    assert out.count("Test result of") == err.count("Model: ") == err.count("epoch 1/2") == 2


def test_phases_and_stages_are_announced(shown):
    _, _, err = shown("AMF", pretrain={"epochs": 3})
    order = ["Stage 1 of 2: MF", "Model: MF,", "epoch 3/3", "MF is trained", "Model: AMF,", "1/2"]
    places = [err.index(text) for text in order]
    assert places == sorted(places)
    assert err.count("Data: ") == 1
    _, _, err = shown("AlignRec", pretrain_epochs=1)
    assert re.search(r"^phase 1 of 2: epoch 1/1  loss", err, re.M)
    assert re.search(r"^phase 2 of 2: epoch 2/3  loss .* recall@10", err, re.M)


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ({"split": {"LS": "valid_and_test"}}, "Split: leave one out of each user's interactions"),
        ({"split": {"COLD_ITEM": [8, 1, 1]}}, "Split: strict cold start, 80/10/10 % of the items"),
        ({"mode": "user5"}, "Ranked: a user's positives among 5 other items (mode user5)"),
        ({"mode": {"valid": "full", "test": "uni9"}}, "Ranked: each positive with 9 items drawn"),
        ({"order": "RO", "group_by": "none"}, "Split: 60/10/30 % of all interactions, at random"),
    ],
)
def test_the_protocol_is_said_in_words(shown, keys, line):
    assert f"\n{line}" in shown("Pop", eval_args=keys)[2]


def test_verbose_is_a_flag_without_a_value():
    for words in (["--verbose"], ["--verbose", "--epochs=2"], ["-m=MF", "--verbose"]):
        assert split_arguments(words)["cmd_line"]["verbose"] == "True"
    assert split_arguments(["--verbose", "False"])["cmd_line"]["verbose"] == "False"


def test_an_error_is_one_line_after_the_data(bare, tiny, capsys):
    keys = {**tiny(state="info"), "model": "MF", "dataset": "tiny", "learning_rate": 1e30}
    with bare():
        assert main([f"--{key}={value}" for key, value in keys.items()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Data: tiny")
    assert err.splitlines()[-1].startswith("error: MF: ")


def test_many_metrics_are_continued_in_blocks_that_fit():
    result = {f"ndcg_hit@{k}{group}": k / 100 for k in range(10, 30) for group in ("", "_cold")}
    lines = result_table(result, {"all": 7, "cold": 3}).splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert sum(line.startswith("all users") for line in lines) > 1
    assert all(f"ndcg_hit@{k}" in "\n".join(lines) for k in range(10, 30))


def test_an_empty_group_has_dashes():
    text = result_table({"recall@10": 0.5, "recall@10_cold": float("nan")}, {"all": 7, "cold": 0})
    assert [line.split() for line in text.splitlines()[1:]] == [
        ["all", "users", "7", "0.50000"],
        ["cold", "users", "0", "-"],
    ]


def test_test_pairs_that_training_has_are_counted(shown, tiny_folder, in_tmp):
    home = shutil.copytree(tiny_folder / "tiny", in_tmp / "twice" / "tiny")
    with (home / "tiny.inter").open("a") as file:
        for user in range(5):
            file.write(f"u{user}\trepeated\t1\nu{user}\trepeated\t9999\n")
    once, _, quiet = shown("Pop", data_path=str(home.parent), rm_dup_inter="first")
    _, _, said = shown("Pop", data_path=str(home.parent))
    assert "Repeats" not in quiet
    (line,) = [line for line in said.splitlines() if line.startswith("Repeats")]
    assert line.startswith("Repeats: 5 of ")
    assert once["test_result"]


def test_a_model_without_epochs_is_not_stopped_early(shown):
    _, out, _ = shown("Pop", epochs=9)
    assert "epoch 1 of 1 (recall@10" in out
    assert "stopped early" not in out


def test_a_sequential_model_says_what_its_means_are_over(shown):
    result, out, err = shown("SASRec", epochs=1, hidden_size=8, inner_size=8)
    assert "Ranked: all items, for each interaction separately (mode full)" in err
    assert result["rankings"]["all"] > result["users"]["all"]
    assert f"means over {result['rankings']['all']} interactions, each ranked separately" in out
    result, out, _ = shown("MF", eval_args={"mode": "user5"}, eval_repeats=2)
    assert result["rankings"] == result["users"]
    assert "means over" not in out


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({}, "threshold is read in mode labeled"),
        ({"eval_args": {"mode": "labeled"}, "metrics": ["AUC"], "valid_metric": "AUC"},
         "threshold: training draws negatives"),
        ({"train_neg_sample_args": None}, ""),
    ],
)  # fmt: skip
def test_a_threshold_that_nothing_reads_is_noted(tiny, keys, says):
    notes = Config("FM", "tiny", None, tiny(threshold={"rating": 3}, **keys), {}).notes
    told = [note for note in notes if note.startswith("threshold")]
    assert len(told) == bool(says)
    assert all(note.startswith(says) for note in told)
