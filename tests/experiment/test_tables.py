"""The tables against numpy and SciPy, for rows and users that are made up here."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from recbole.evaluator.register import metrics_dict
from scipy import stats

from recbole_cierec.evaluation.names import LABELS, join_name
from recbole_cierec.experiment import plots, tables
from recbole_cierec.experiment.spec import DatasetSpec, Experiment, ModelSpec, Report
from recbole_cierec.experiment.summary import Block, mean_ranks, smaller_is_better, summarize

SEEDS, USERS = (1, 2, 3, 4), 60
MODELS = ("A_1 & co", "B", "C 10 %")


def experiment(models=MODELS, **report) -> Experiment:
    report = {"baseline": "B", "metrics": ("recall@10",), "groups": ("all", "cold"), **report}
    specs = tuple(
        ModelSpec("MF", label, family=label.split(",")[0], value=_number(label)) for label in models
    )
    return Experiment(
        Path("e.yaml"), "Trial", specs, (DatasetSpec("d_1"),), {"full": {}}, SEEDS, None, {}, {},
        Report(**report), False,
    )  # fmt: skip


def _number(label: str) -> float | None:
    return float(label.split(",")[1]) if "," in label else None


@pytest.fixture
def values() -> np.ndarray:
    """By model, seed and user; the third model is clearly better."""
    rng = np.random.default_rng(5)
    users = rng.random((1, 1, USERS)) * 0.5
    noise = rng.normal(0, 0.05, (3, 4, USERS))
    return users + noise + np.array([0.0, 0.01, 0.2])[:, None, None]


def rows(folder: Path, values: np.ndarray, models=MODELS) -> list[dict]:
    """Rows and files by user; users 0 to 19 are cold."""
    cold = np.arange(USERS) < 20
    (folder / "users").mkdir(exist_ok=True)
    found = []
    for m, model in enumerate(models):
        for s, seed in enumerate(SEEDS):
            own = values[m, s]
            name = f"users/{m}-{seed}.users.npz"
            about = json.dumps({"seed": seed, "data_digest": "x", "protocol": {}})
            arrays = {"recall@10": own, "group/cold": cold}
            users = np.array([f"u{k}" for k in range(USERS)])
            np.savez(folder / name, users=users, about=np.array(about), **arrays)
            found.append(
                {
                    "key": f"{m}-{seed}", "model": model, "dataset": "d_1", "protocol": "full",
                    "seed": seed, "users": name, "epochs": 10 + s, "epoch_cap": s == 0,
                    "peak_mib": 500 + s, "resumed": s == 3, "error": None,
                    "seconds": {"wall": 3.0, "fit_cpu": 99.0 if s == 3 else 10.0 + s,
                                "evaluate_cpu": 1.0},
                    "test": {"recall@10": own.mean(), "recall@10_cold": own[cold].mean()},
                }
            )  # fmt: skip
    return found


@pytest.fixture
def block(tmp_path, values) -> Block:
    (made,) = summarize(experiment(), rows(tmp_path, values), tmp_path)
    return made


def test_means_and_intervals_over_seeds_are_those_of_t(block, values):
    for m, model in enumerate(MODELS):
        means = values[m].mean(1)
        low, high = stats.t.interval(0.95, 3, means.mean(), means.std(ddof=1) / 2)
        cell = block.cells[model, "recall@10"]
        assert cell.mean == pytest.approx(means.mean())
        assert (cell.mean - cell.half, cell.mean + cell.half) == pytest.approx((low, high))


def test_intervals_over_users_are_of_their_means_over_seeds(block, values):
    for users, column in ((slice(None), "recall@10"), (slice(20), "recall@10_cold")):
        each = values[2].mean(0)[users]
        error = each.std(ddof=1) / np.sqrt(len(each))
        cell = block.cells["C 10 %", column]
        ends = each.mean() - 1.96 * error, each.mean() + 1.96 * error
        assert (cell.low, cell.high) == pytest.approx(ends, abs=0.25 * error)


def test_tests_are_scipys_corrected_by_holm(block, values):
    tests = {(test.model, test.column): test for test in block.tests}
    assert len(tests) == 4
    pairs = {}
    for m in (0, 2):
        for users, column in ((slice(None), "recall@10"), (slice(20), "recall@10_cold")):
            a, b = (values[k].mean(0)[users] for k in (m, 1))
            seeds = [values[k][:, users].mean(1) for k in (m, 1)]
            pairs[MODELS[m], column] = (
                stats.ttest_rel(a, b).pvalue,
                stats.wilcoxon(a, b).pvalue,
                stats.ttest_rel(*seeds).pvalue,
            )
    for kind, name in enumerate(("t_p", "wilcoxon_p", "seeds_p")):
        left, before = 4, 0.0
        for key, p in sorted(pairs.items(), key=lambda pair: pair[1][kind]):
            before = max(before, min(1.0, left * p[kind]))  # Holm, step by step
            assert getattr(tests[key], name) == pytest.approx(before)
            left -= 1
    assert tests["C 10 %", "recall@10_cold"].users == 20
    assert tests["C 10 %", "recall@10"].low > 0.15


def test_the_best_is_bold_and_the_second_underlined(block):
    text = tables.markdown_page(experiment(), [block])
    best, second = (block.cells[model, "recall@10"] for model in ("C 10 %", "B"))
    third = block.cells["A_1 & co", "recall@10"]
    assert second.mean > third.mean
    assert f"**{tables.spread(best, 2)}**" in text
    assert f"<u>{tables.spread(second, 2)}</u>" in text
    assert f"| {tables.spread(third, 2)} |" in text
    assert "means over 4 seeds, ± half the 95 % t-interval over seeds" in text
    assert "95 % bootstrap intervals over 60 users" in text


def test_costs_leave_out_resumed_runs_and_mark_the_limit(block):
    assert tables.costs(block.rows["B"]) == ["12*", "1.00", "1.0", "503"]  # 10/10, 11/11, 12/12
    assert tables.costs(block.rows["B"][1:])[0] == "12"
    resumed = [row for row in block.rows["B"] if row["resumed"]]
    assert tables.costs(resumed)[1] == "-"


def test_latex_is_whole_and_escaped(block):
    text = tables.latex_page(experiment(), [block])
    assert r"A\_1 \& co" in text
    assert r"C 10 \%" in text
    assert r"recall@10\_cold" in text
    assert r"$\pm$" in text
    assert "±" not in text
    for begin in ("table", "tabular"):
        assert text.count(rf"\begin{{{begin}}}") == text.count(rf"\end{{{begin}}}") == 4
    for line in text.splitlines():
        if line.endswith(r"\\"):
            assert line.replace(r"\&", "").count("&") in (2 + 4, 2, 8, 1)
        if not line.startswith(("%", r"\begin", r"\caption")):
            bare = line.replace(r"\_", "").replace(r"\%", "").replace(r"\&", "")
            assert "_" not in bare
            assert "%" not in bare


def test_the_terminal_has_the_first_metric_in_lines_of_100_characters(block, values):
    title, head, *lines = tables.terminal_text(experiment(), [block]).splitlines()
    assert title == "d_1, full: recall@10 in percent"
    assert head.split() == ["model", "all", "users", "cold", "users"]
    assert [line.split()[0] for line in lines] == [model.split()[0] for model in MODELS]
    assert f"{100 * values[1].mean():.2f} ±" in lines[1]
    groups = tuple(LABELS)
    block.columns[:] = [join_name("recall@10", group) for group in groups]
    block.models[:] = ["word " * 30]
    block.rows = {"word " * 30: block.rows["B"]}
    _, *long = tables.terminal_text(experiment(groups=groups), [block]).splitlines()
    assert max(map(len, long)) <= 100


def test_csv_has_the_numbers_themselves(block, values):
    cells = list(csv.DictReader(tables.cells_csv([block]).splitlines()))
    assert len(cells) == 6
    assert float(cells[0]["mean"]) == pytest.approx(values[0].mean())
    assert cells[0]["seeds"] == "4"
    tests = list(csv.DictReader(tables.tests_csv([block]).splitlines()))
    assert {row["baseline"] for row in tests} == {"B"}
    assert float(tests[0]["difference"]) == pytest.approx(values[0].mean() - values[1].mean())


def test_ranks_by_hand(tmp_path, values):
    made = rows(tmp_path, values)
    scores = {
        "A_1 & co": [0.3, 0.1, 0.2, 0.2],
        "B": [0.2, 0.2, 0.2, 0.1],
        "C 10 %": [0.1, 0.3, 0.1, 0],
    }
    for row in made:
        row["test"] = {"recall@10": scores[row["model"]][row["seed"] - 1]}
    ranks, count = mean_ranks(summarize(experiment(), made, tmp_path), "recall@10")
    assert count == 4
    assert ranks == {"A_1 & co": (1 + 3 + 1.5 + 1) / 4, "B": (2 + 2 + 1.5 + 2) / 4, "C 10 %": 2.5}


def test_ranks_are_over_the_seeds_that_all_models_have(tmp_path, values):
    made = rows(tmp_path, values)
    for row in made:
        row |= {"valid_metric": "Recall@10", "valid_score": 0.1 if row["model"] == "B" else 0.5}
    ahead = [row for row in made if row["seed"] < 3 or row["model"] == "C 10 %"]
    ranks, count = mean_ranks(summarize(experiment(), ahead, tmp_path), "recall@10")
    assert (count, len(ranks)) == (2, 3), "seeds 3 and 4 are of one model alone"
    kept = [row for row in made if row["seed"] == 1 or row["model"] != "B"]
    dropping = replace(experiment(baseline="A_1 & co"), drop_below=0.5)
    blocks = summarize(dropping, kept, tmp_path)
    assert blocks[0].dropped == {"B"}
    ranks, count = mean_ranks(blocks, "recall@10")
    assert (count, ranks.keys()) == (4, {"A_1 & co", "C 10 %"})


def test_of_a_loss_the_smallest_is_best(monkeypatch):
    assert smaller_is_better("rmse")
    assert not smaller_is_better("ndcg_hit@10_cold")
    monkeypatch.setitem(metrics_dict, "mean_rank", type("Mean_Rank", (), {"smaller": True}))
    assert smaller_is_better("mean_rank@10_cold")


def test_tables_show_chance_where_rows_have_it(tmp_path, values):
    made = rows(tmp_path, values)
    for row in made:
        chance = {1: 0.1, 2: 0.3}.get(row["seed"], 0.2)
        row["chance"] = {"recall@10": chance, "recall@10_cold": None}
    (block,) = summarize(experiment(), made, tmp_path)
    last = tables.Style("{}", "{}", 2).main_table(block, cost_names=())[-1]
    assert last == ["chance", "20.00", *["-"] * (len(block.columns) - 1)]
    assert "chance" in tables.terminal_text(experiment(), [block])


def test_of_two_models_the_best_alone_is_marked(tmp_path, values):
    made = [row for row in rows(tmp_path, values) if row["model"] != "B"]
    (block,) = summarize(experiment(), made, tmp_path)
    assert len(block.models) == 2
    assert len(block.order("recall@10", 4)) == 1


def test_one_seed_has_no_interval_over_seeds_and_no_baseline_no_tests(tmp_path, values):
    made = [row for row in rows(tmp_path, values) if row["seed"] == 1 and row["model"] != "B"]
    (block,) = summarize(experiment(), made, tmp_path)
    text = tables.markdown_page(experiment(), [block])
    assert "±" not in text
    assert "one seed, without intervals" in text
    assert "Against" not in text


def test_metrics_without_values_by_user_have_means_alone(tmp_path, values):
    made = rows(tmp_path, values)
    for row in made:
        row["test"] = {"auc": 0.5}
    (block,) = summarize(experiment(metrics=("auc",), groups=("all",)), made, tmp_path)
    assert block.cells["B", "auc"].mean == 0.5
    assert np.isnan(block.cells["B", "auc"].low)
    assert tables.user_table(block, 2) == []


def test_users_are_paired_over_the_damage_that_is_compared_and_over_no_other_key(tmp_path, values):
    made = rows(tmp_path, values)
    for row in made:
        with np.load(tmp_path / row["users"]) as file:
            arrays = dict(file)
        about = json.loads(str(arrays["about"]))
        about["protocol"] = {"annotations_wrong": MODELS.index(row["model"]) / 2}
        np.savez(tmp_path / row["users"], **{**arrays, "about": np.array(json.dumps(about))})
    (block,) = summarize(experiment(), made, tmp_path)
    assert block.tests == []
    why = {"annotations_wrong is 0.0 and 0.5", "annotations_wrong is 1.0 and 0.5"}
    assert {text.removeprefix("different protocols, ") for text in block.untested.values()} == why
    spec = experiment()
    varied = replace(spec.models[0], keys={"annotations_wrong": 0.0})
    (block,) = summarize(replace(spec, models=(varied, *spec.models[1:])), made, tmp_path)
    assert len(block.tests) == 4


def test_numbers_of_different_keys_are_bars_alone(tmp_path, values):
    pytest.importorskip("matplotlib")
    spec = experiment(("VBPR, 8", "VBPR, 16", "VBPR, 32"), baseline="VBPR, 8")
    other = replace(spec.models[1], varied="other_key")
    mixed = replace(spec, models=(spec.models[0], other, spec.models[2]))
    labels = [model.label for model in spec.models]
    (block,) = summarize(spec, rows(tmp_path, values, labels), tmp_path)
    assert set(plots.figures(spec, block)) == {"bars", "lines"}
    assert set(plots.figures(mixed, block)) == {"bars"}
    assert plots.figures(spec, block, columns=[]) == {}


def test_plots_are_bars_and_lines_over_numbers(tmp_path, values):
    pytest.importorskip("matplotlib")
    models = ("VBPR, 8", "VBPR, 16", "VBPR, 32")
    spec = experiment(models, baseline="VBPR, 8")
    blocks = summarize(spec, rows(tmp_path, values, models), tmp_path)
    paths = plots.write_plots(spec, blocks, tmp_path)
    assert sorted(paths) == ["bars-d_1-full.svg", "lines-d_1-full.svg"]
    assert all(path.read_text().startswith("<?xml") for path in paths.values())
