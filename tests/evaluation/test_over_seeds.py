"""Several seeds: values by user and group, both kinds of tests, and what cannot be compared."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from recbole_cierec.cli.compare import main
from recbole_cierec.errors import DataError
from recbole_cierec.evaluation.bootstrap import bootstrap_means, interval
from recbole_cierec.evaluation.over_seeds import (
    compare_seeds,
    seeds_table,
    seeds_test,
)
from recbole_cierec.evaluation.per_user import UserResults
from recbole_cierec.evaluation.significance import by_user, compare, holm_of_known

USERS = np.array([f"u{k}" for k in range(80)])
OTHERS = np.array([f"u{k}" for k in range(40)] + [f"v{k}" for k in range(40)])
COLD = np.arange(80) < 30


def results(name: str, seed: int, values: np.ndarray, users=USERS, **about) -> UserResults:
    arrays = {"ndcg_hit@10": values, "ndcg_hit@10_among_cold": values / 2, "group/cold": COLD}
    about = {"data_digest": "d", "protocol": {"topk": [10]}, "seed": seed, **about}
    return UserResults(name, users, arrays, about, Path(f"{name}-{seed}.users.npz"))


@pytest.fixture
def runs() -> tuple[list[UserResults], list[UserResults], np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    base = rng.random((4, 80))
    better = base + rng.normal(0.02, 0.1, (4, 80))
    made = [[results(n, s, v[s]) for s in range(4)] for n, v in (("a", better), ("b", base))]
    return made[0], made[1], better, base


def test_groups_of_users_and_views_have_values_and_others_none(runs):
    metrics = ["ndcg_hit@10", "ndcg_hit@10_cold", "ndcg_hit@10_among_cold", "ndcg_hit@10_item_rare"]
    frame = by_user(runs[0][0], metrics)
    assert list(frame) == metrics[:3]
    own = runs[2][0]
    assert frame["ndcg_hit@10_cold"].mean() == pytest.approx(own[:30].mean())
    assert frame["ndcg_hit@10_cold"].isna().sum() == 50
    assert frame["ndcg_hit@10_among_cold"].mean() == pytest.approx(own.mean() / 2)


def test_several_rows_of_a_user_are_averaged():
    twice = results("a", 0, np.arange(80.0), users=np.repeat(USERS[:40], 2))
    frame = by_user(twice, ["ndcg_hit@10"])
    assert frame.loc["u3", "ndcg_hit@10"] == 6.5
    assert len(frame) == 40


def test_users_are_averaged_over_seeds_and_then_paired(runs):
    ours, theirs, better, base = runs
    order = np.random.default_rng(0).permutation(80)
    shuffled = results("a", 0, better[0][order], users=USERS[order])
    test = compare_seeds([*ours[1:], shuffled], theirs, "ndcg_hit@10")
    a, b = better.mean(0), base.mean(0)
    assert test.difference == pytest.approx((a - b).mean())
    assert test.t_p == pytest.approx(stats.ttest_rel(a, b).pvalue)
    assert test.wilcoxon_p == pytest.approx(stats.wilcoxon(a - b).pvalue)
    assert (test.users, test.seeds) == (80, 4)
    by_seed = stats.ttest_rel(better.mean(1), base.mean(1)).pvalue
    assert test.seeds_p == pytest.approx(by_seed)


def test_the_interval_is_scipys_but_for_chance(runs):
    _, _, better, base = runs
    difference = (better - base).mean(0)
    low, high = interval(bootstrap_means(difference[:, None], resamples=4000))
    known = stats.bootstrap((difference,), np.mean, method="percentile", n_resamples=4000)
    width = known.confidence_interval.high - known.confidence_interval.low
    assert low[0] == pytest.approx(known.confidence_interval.low, abs=0.1 * width)
    assert high[0] == pytest.approx(known.confidence_interval.high, abs=0.1 * width)


def test_bootstrap_means_leave_out_what_is_missing():
    values = np.array([[1.0, np.nan], [1.0, 4.0], [1.0, 4.0]] * 5)
    means = bootstrap_means(values, resamples=50)
    assert (means[:, 0] == 1).all()
    assert means[:, 1] == pytest.approx(4.0)


def test_one_seed_has_no_test_over_seeds(runs):
    ours, theirs, *_ = runs
    assert np.isnan(compare_seeds(ours[:1], theirs, "ndcg_hit@10").seeds_p)
    assert seeds_test([0.1, 0.2], [0.1, 0.2]) == 1.0
    assert np.isnan(seeds_test([0.1, 0.2], [0.0, float("nan")]))
    # Equal differences but for rounding: no variance to test with.
    assert np.isnan(seeds_test([0.1234, 0.2234], [0.1230, 0.2230]))
    assert np.isnan(seeds_test([0.312345] * 3, [0.254321] * 3))


def test_equal_runs_do_not_differ(runs):
    ours, _, values, _ = runs
    test = compare_seeds(ours, ours, "ndcg_hit@10")
    assert (test.difference, test.low, test.high, test.t_p, test.wilcoxon_p) == (0, 0, 0, 1, 1)
    more = [results("c", seed, values[seed] + 0.1) for seed in range(4)]
    assert np.isnan(compare_seeds(more, ours, "ndcg_hit@10").t_p), "equal but for rounding"


def test_one_seed_is_compared_as_two_runs_are_and_rows_of_a_user_count_once():
    rng = np.random.default_rng(3)
    who = np.repeat(USERS[:40], 2)
    pair = [results(name, 0, rng.random(80), users=who) for name in "ab"]
    one, seeds = compare(*pair, "ndcg_hit@10"), compare_seeds([pair[0]], [pair[1]], "ndcg_hit@10")
    means = [side.values["ndcg_hit@10"].reshape(40, 2).mean(1) for side in pair]
    assert one.n == seeds.users == 40
    assert one.mean - one.base == pytest.approx(seeds.difference)
    assert one.t_p == pytest.approx(seeds.t_p) == pytest.approx(stats.ttest_rel(*means).pvalue)


def test_the_table_names_the_models_of_the_difference(runs):
    ours, theirs, *_ = runs
    for run, model in [(ours[0], "CIERec"), (theirs[0], "VBPR")]:
        run.about["model"] = model
    assert "| metric | CIERec - VBPR |" in seeds_table(ours, theirs, ["ndcg_hit@10"])
    assert "| metric | a - b |" in seeds_table(ours, ours, ["ndcg_hit@10"])


def test_difference_and_interval_are_of_the_same_users():
    """Each seed has its own users; those of both differ by nothing, the others by 1."""
    ours = [results("a", 0, np.arange(80.0)), results("a", 1, np.arange(80.0) + 1, users=OTHERS)]
    theirs = [results("b", 0, np.arange(80.0)), results("b", 1, np.arange(80.0) + 1, users=OTHERS)]
    for side in (ours, theirs):
        side[1].values["ndcg_hit@10"][40:] = 5.0 if side is ours else 4.0
    test = compare_seeds(ours, theirs, "ndcg_hit@10")
    assert (test.difference, test.low, test.high, test.users) == (0, 0, 0, 40)


def test_holm_by_hand_without_the_unknown():
    assert holm_of_known([0.01, float("nan"), 0.04, 0.03])[0] == pytest.approx(0.03)
    assert holm_of_known([0.01, float("nan"), 0.04, 0.03])[2:] == pytest.approx([0.06, 0.06])


def test_what_does_not_compare_is_refused(runs):
    ours, theirs, better, _ = runs
    with pytest.raises(DataError, match="no seed in common"):
        compare_seeds(ours[:1], theirs[1:], "ndcg_hit@10")
    with pytest.raises(DataError, match="the same seed 0; name one file for each seed"):
        compare_seeds([ours[0], ours[0]], theirs, "ndcg_hit@10")
    with pytest.raises(DataError, match="has no mrr@10 by user"):
        compare_seeds(ours, theirs, "mrr@10")
    assert "ndcg_hit@10_cold" in ours[0].names
    other = results("a", 0, better[0], protocol={"topk": [20]})
    with pytest.raises(DataError, match=r"different protocols, topk is \[20\] and \[10\]"):
        compare_seeds([other], theirs, "ndcg_hit@10")


def write(folder: Path, run: UserResults) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / run.path.name
    np.savez(path, users=run.users, about=np.array(json.dumps(run.about)), **run.values)
    return path


def test_the_command_takes_files_or_folders(runs, tmp_path, capsys):
    ours, theirs, *_ = runs
    files = [str(write(tmp_path / "a", run)) for run in ours]
    for run in theirs:
        write(tmp_path / "b", run)
    words = ["--metrics=ndcg_hit@10,ndcg_hit@10_cold", "--a", *files, "--b", str(tmp_path / "b")]
    assert main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| metric | a - b |")
    cells = [cell.strip() for cell in lines[2].split("|")]
    test = compare_seeds(ours, theirs, "ndcg_hit@10")
    assert cells[1:3] == ["ndcg_hit@10", f"{test.difference:+.5f}"]
    assert cells[6] == "80"
    assert lines[3].split("|")[6].strip() == "30"
    assert "corrected by Holm over the table; intervals are not" in lines[-1]
    assert main(["--a", *files, "--b", files[0]]) == 2
    assert f"{files[0]}: named twice" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--a", "x"], "--a RUN [RUN ...] --b RUN [RUN ...] go together"),
        (["--a", "--b", "x"], "need at least one run each"),
        (["--c", "x"], "unknown flag --c"),
    ],
)
def test_a_wrong_command_is_one_line(words, message, capsys):
    assert main(words) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1
