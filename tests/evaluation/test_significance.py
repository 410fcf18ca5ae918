"""Tests over users against closed forms, enumerations and SciPy; runs that cannot be compared."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from recbole_cierec import run
from recbole_cierec.cli.compare import main
from recbole_cierec.errors import DataError
from recbole_cierec.evaluation.bootstrap import mean_interval
from recbole_cierec.evaluation.per_user import UserResults, read_per_user
from recbole_cierec.evaluation.significance import (
    compare,
    compare_to_level,
    holm,
    paired,
    significance_table,
)

PROTOCOL = {"candidate_seed": 1}


def results(name, values, users=None, metric="recall@10", **about):
    values = np.asarray(values, dtype=float)
    users = np.array([f"u{k}" for k in range(len(values))] if users is None else users)
    about = {"data_digest": "d", "protocol": PROTOCOL, **about}
    return UserResults(name, users, {metric: values}, about, Path(f"{name}.users.npz"))


def write(path, values, users=None, **about):
    users = [f"u{k}" for k in range(len(values))] if users is None else users
    about = json.dumps({"data_digest": "d", "protocol": PROTOCOL, **about})
    values = {"recall@10": np.asarray(values, dtype=float)}
    np.savez(path, users=np.array(users), about=np.array(about), **values)
    return path


@pytest.fixture
def planted():
    rng = np.random.default_rng(4)
    base = rng.random(200)
    return base, base + rng.normal(0.05, 0.1, 200)


def test_t_equals_its_formula(planted):
    base, better = planted
    difference = better - base
    t = difference.mean() / (difference.std(ddof=1) / np.sqrt(200))
    row = compare(results("a", better), results("b", base), "recall@10")
    assert row.t_p == pytest.approx(2 * stats.t.sf(abs(t), 199), rel=1e-9)
    assert row.mean - row.base == pytest.approx(difference.mean(), abs=1e-12)
    assert row.n == 200


def test_users_without_a_value_are_left_out(planted):
    base, better = (np.append(x, np.nan) for x in planted)
    row, plain = compare(results("a", better), results("b", base), "recall@10"), planted
    assert row == compare(results("a", plain[1]), results("b", plain[0]), "recall@10")
    with pytest.raises(DataError, match="different users"):
        compare(results("a", np.append(plain[1], 0.5)), results("b", base), "recall@10")


def test_wilcoxon_equals_the_enumeration_of_all_signs():
    difference = np.array([0.3, -0.1, 0.25, 0.4, -0.2, 0.35, 0.15])
    ranks = stats.rankdata(np.abs(difference))
    sums = np.array([ranks[list(s)].sum() for s in itertools.product([True, False], repeat=7)])
    seen = min(ranks[difference > 0].sum(), ranks[difference < 0].sum())
    exact = 2 * (sums <= seen).mean()
    row = compare(results("a", difference + 1), results("b", np.ones(7)), "recall@10")
    assert row.wilcoxon_p == pytest.approx(exact, abs=1e-12)


def test_users_without_difference_do_not_enter_wilcoxon(planted):
    base, better = planted
    equal = np.full(300, 0.5)
    whole = results("a", np.append(better, equal)), results("b", np.append(base, equal))
    row = compare(*whole, "recall@10")
    assert row.wilcoxon_p == pytest.approx(stats.wilcoxon(better, base).pvalue, rel=1e-9)


def test_the_interval_is_that_of_the_normal_law_for_many_users():
    difference = np.random.default_rng(1).normal(0.02, 0.3, 5000)
    row = compare(results("a", difference), results("b", np.zeros(5000)), "recall@10")
    half = 1.96 * difference.std(ddof=1) / np.sqrt(5000)
    assert row.low == pytest.approx(difference.mean() - half, abs=0.1 * half)
    assert row.high == pytest.approx(difference.mean() + half, abs=0.1 * half)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(60):
        other = results("a", rng.normal(0.1, 1, 80))
        row = compare(other, results("b", np.zeros(80)), "recall@10")
        held += row.low <= 0.1 <= row.high
    assert 50 <= held <= 60  # 57 expected; fewer than 50 once in a thousand


def test_no_difference_gives_large_p_values_and_a_clear_one_small(planted):
    base, better = planted
    rng = np.random.default_rng(5)
    noise = results("n", base + rng.normal(0, 0.1, 200))
    runs = noise, results("c", better)
    same, clear = (compare(r, results("b", base), "recall@10") for r in runs)
    assert min(same.t_p, same.wilcoxon_p) > 0.01
    assert same.low < 0 < same.high
    assert max(clear.t_p, clear.wilcoxon_p) < 1e-6
    assert clear.low > 0


def test_equal_runs_do_not_differ():
    row = compare(results("a", [0.1, 0.9]), results("b", [0.1, 0.9]), "recall@10")
    assert (row.t_p, row.wilcoxon_p, row.low, row.high) == (1.0, 1.0, 0.0, 0.0)


def test_holm_by_hand_and_never_above_one():
    # Sorted .001 .02 .03 .9 times 4 3 2 1 is .004 .06 .06 .9; each at least the one before.
    assert holm(np.array([0.03, 0.001, 0.9, 0.02])) == pytest.approx([0.06, 0.004, 0.9, 0.06])
    assert holm(np.array([0.5, 0.6])).tolist() == [1.0, 1.0]


def test_the_table_corrects_over_all_its_rows(planted):
    base, better = planted
    rng = np.random.default_rng(6)
    runs = [results(f"r{k}", base + rng.normal(0.012, 0.1, 200)) for k in range(3)]
    rows = significance_table([results("good", better), *runs], results("b", base), ["recall@10"])
    plain = [compare(r, results("b", base), "recall@10") for r in (results("good", better), *runs)]
    cells = [line.split(" | ") for line in rows.splitlines()[2:]]
    assert len(cells) == 4
    for k, expected in ((-3, "t_p"), (-2, "wilcoxon_p")):
        corrected = holm(np.array([getattr(row, expected) for row in plain]))
        texts = ["<0.0001" if p < 1e-4 else f"{p:.2g}" for p in corrected]
        assert [cell[k] for cell in cells] == texts


def test_users_are_matched_by_id_not_by_place():
    both = paired(
        results("a", [1, 2, 3], ["x", "y", "z"]),
        results("b", [30, 10, 20], ["z", "x", "y"]),
        "recall@10",
    )
    assert (10 * both["run"]).tolist() == both["base"].tolist()
    assert both.index.tolist() == ["x", "y", "z"]


def test_users_with_several_rows_are_resampled_with_all_of_them():
    """The interval of repeated values is that of the users, not narrower."""
    rng = np.random.default_rng(5)
    values, users = rng.random(50), np.arange(50)
    repeated = mean_interval(np.repeat(values, 8), np.repeat(users, 8))
    assert repeated == pytest.approx(mean_interval(values))
    assert mean_interval(values, users) == mean_interval(values)
    # One of eleven users has thirty rows of 0, and a third of the samples lack them.
    uneven = np.append(np.zeros(30), np.ones(10))
    low, high = mean_interval(uneven, np.append(np.zeros(30), np.arange(1, 11)))
    assert low < 0.1
    assert high == 1.0


REFUSED = [
    ({"data_digest": "other"}, "different data"),
    ({"protocol": {"candidate_seed": 2}}, r"different protocols, candidate_seed is 2 and 1$"),
    (
        {"protocol": {**PROTOCOL, "eval_args": {"mode": "full", "order": "TO"}}},
        r"protocols, eval_args\.mode is full and None; eval_args\.order is TO and None$",
    ),
    ({"data_digest": "other", "dataset": "mine"}, r"different data, mine, None$"),
    ({"metric": "ndcg@5"}, "has no recall@10 by user; it has ndcg@5$"),
    ({"users": ["u0", "u1", "v2"]}, "different users"),
    (
        {"users": ["u0", "u0", "u1"], "data_digest": "other", "model": "SASRec"},
        "SASRec ranks once per interaction, the other once per user",
    ),
]


@pytest.mark.parametrize(("other", "message"), REFUSED)
def test_what_does_not_compare_is_refused(other, message):
    with pytest.raises(DataError, match=message) as caught:
        compare(results("a", [1, 2, 3], **other), results("b", [1, 2, 4]), "recall@10")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04 cut off"])
def test_a_broken_file_is_named(tmp_path, content):
    path = tmp_path / "a.users.npz"
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"a\.users\.npz: not a file of results by user"):
        read_per_user(path)


def test_a_file_of_something_else_is_named(tmp_path):
    np.savez(tmp_path / "a.users.npz", users=np.array(["u"]))
    np.savez(tmp_path / "b.users.npz", users=np.array([{}], dtype=object))
    for name in "ab":
        with pytest.raises(DataError, match="not a file of results by user"):
            read_per_user(tmp_path / f"{name}.users.npz")


def test_a_folder_stands_for_its_newest_file(tmp_path):
    for k, name in enumerate(("b", "a")):
        os.utime(write(tmp_path / f"{name}.users.npz", [k, k]), (1000 + k, 1000 + k))
    assert read_per_user(tmp_path).name == "a"
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no \*\.users\.npz in this folder"):
        read_per_user(tmp_path / "empty")


def test_the_command_prints_the_table(tmp_path, capsys, planted):
    base, better = planted
    files = [
        write(tmp_path / "base.users.npz", base), write(tmp_path / "better.users.npz", better)
    ]  # fmt: skip
    assert main(["--metrics=recall@10", *map(str, files)]) == 0
    said = capsys.readouterr().out
    assert main([*map(str, files), "--metrics", "recall@10"]) == 0
    assert capsys.readouterr().out == said, "the value may be the next word"
    head, _, row, _, legend = said.splitlines()
    assert "intervals are not corrected" in legend
    assert head.startswith("| metric | run | mean | base |")
    cells = row.strip("| ").split(" | ")
    assert cells[:2] == ["recall@10", "better"]
    assert float(cells[2]) == pytest.approx(better.mean(), abs=1e-5)
    assert cells[-1] == "200"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "name a baseline and at least one run"),
        (["A"], "name a baseline and at least one run"),
        (["--metric=recall@10", "A", "B"], "unknown flag --metric=recall@10"),
        (["A", "B", "--metrics"], "--metrics has no value; write --metrics=NAME,NAME"),
        (["A", "B", "--metrics="], "--metrics has no value; write --metrics=NAME,NAME"),
        (["A", "missing"], "missing: no such file; runs write *.users.npz"),
        (["A", "saved/b.pth"], "give the run's results by user, saved/b.users.npz"),
        (["A", "saved/b.last.pth"], "give the run's results by user, saved/b.users.npz"),
        (["A", "A"], "A.npz: named twice"),
        (["A", "B"], "has no ndcg@10"),
        (["--metrics=recal@10", "A", "B"], "has no recal@10 by user; did you mean 'recall@10'?"),
    ],
)
def test_the_command_refuses_in_one_line(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    for name in "AB":
        write(tmp_path / f"{name}.npz", [0.1, 0.2])
    words = [f"{w}.npz" if w in ("A", "B") else w for w in words]
    assert main(words) == 2
    line = capsys.readouterr().err
    assert message in line
    assert line.count("\n") == 1


def test_help_tells_what_it_does(capsys):
    assert main(["--help"]) == 0
    assert "BASELINE RUN" in capsys.readouterr().out


def saved_run(tiny, model, **extra):
    keys = tiny(eval_args={"mode": "user10"}, eval_repeats=2, epochs=1, **extra)
    if model in ("BPR", "SASRec"):
        keys = {k: v for k, v in keys.items() if k not in ("features_file", "init_std")}
    if model == "SASRec":
        del keys["embedding_size"]
        keys |= {"hidden_size": 4, "inner_size": 4, "n_layers": 1, "n_heads": 1}
    result = run(model, "tiny", config_dict=keys)
    return result, Path(result["checkpoint"]).with_suffix(".users.npz")


def test_runs_of_all_kinds_of_models_compare(tiny, capsys):
    made = [saved_run(tiny, model) for model in ("VBPR", "BPR", "SASRec")]
    for result, path in made:
        by_user = read_per_user(path)
        assert len(by_user.users) == len(set(by_user.users.tolist())) == 30
        for metric in ("recall@10", "ndcg@20", "ndcg_hit@10"):
            mean = by_user.values[metric].mean()
            assert mean == pytest.approx(result["test_result"][metric], abs=1e-5)
            cold = by_user.values[metric][by_user.values["group/cold"]]
            assert cold.mean() == pytest.approx(result["test_result"][f"{metric}_cold"], abs=1e-5)
    assert main([str(path) for _, path in made]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 2 + 2 * 2 + 2, "with the legend"


@pytest.mark.parametrize(
    ("other", "what"),
    [({"candidate_seed": 9}, "seed is 9"), ({"user_inter_num_interval": "[8,inf)"}, "data")],
)
def test_runs_of_other_lists_or_data_do_not_compare(tiny, capsys, other, what):
    paths = [str(saved_run(tiny, "VBPR", **keys)[1]) for keys in ({}, other)]
    assert main(paths) == 2
    said = capsys.readouterr().err
    assert "are not comparable" in said
    assert what in said


@pytest.mark.filterwarnings("error")
def test_equal_values_against_a_level_have_no_t_test_and_no_warning():
    level = 0.1  # the deviation of many such numbers is not exactly zero
    assert np.full(97, -level).std() > 0
    found = compare_to_level(results("a", np.zeros(97)), "recall@10", level)
    assert np.isnan(found.t_p)
    assert (found.low, found.high) == pytest.approx((-level, -level))
    assert found.wilcoxon_p < 1e-6
