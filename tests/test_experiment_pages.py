"""Tables and figures of the experiments' pages: they agree with the rows, and by hand."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path

import pytest

from recbole_cierec.errors import ConfigError
from recbole_cierec.evaluation.over_seeds import SeedTest
from recbole_cierec.experiment.summary import Test

pytest.importorskip("matplotlib")
PAGE = Path("page.md")
EXPERIMENT = """
title: Trial
models:
  - {name: MF, variants: {"0": {annotations_wrong: 0.0}, "1": {annotations_wrong: 1.0}}}
  - VBPR
datasets: [demo, mine]
seeds: [1, 2]
overrides: {epochs: 9}
report: {baseline: VBPR, metrics: [recall@10], groups: [all, cold]}
"""


@pytest.fixture
def pages(benchmark_module):
    return benchmark_module("experiment_pages")


def row(model, seed, value, dataset="demo", **parts) -> dict:
    wrong = {"MF, 0": {"annotations_wrong": 0.0}, "MF, 1": {"annotations_wrong": 1.0}}
    return {
        "key": f"{model}-{seed}", "model": model, "dataset": dataset, "protocol": "default",
        "seed": seed, "keys": {"epochs": 9, "seed": seed, **wrong.get(model, {})}, "error": None,
        "test": {"recall@10": value, "recall@10_cold": value / 2}, "users": "users/x.npz",
        "epochs": 9, "epoch_cap": False, "resumed": False, "peak_mib": 7,
        "seconds": {"wall": 90.0, "cpu": 30.0, "fit_cpu": 9.0, "evaluate_cpu": 1.0},
        "versions": {"python": "3.11", "recbole": "1.2", "recbole-cierec": "0.1", "torch": "2.1"},
        "machine": {"cores": 2, "threads": 1, "gpu": None}, **parts,
    }  # fmt: skip


def results_of(pages, experiment: str, rows):
    Path("trial.yaml").write_text(experiment)
    Path("runs").mkdir(exist_ok=True)
    Path("runs/rows.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in rows))
    return pages.load("trial.yaml", Path("runs"))


@pytest.fixture
def write(in_tmp, pages):
    """Writes an experiment's file and rows; returns what a mark becomes."""

    return lambda *rows: results_of(pages, EXPERIMENT, rows)


ROWS = (row("MF, 0", 1, 0.30), row("MF, 0", 2, 0.34), row("MF, 1", 1, 0.20), row("VBPR", 1, 0.25))


def test_the_pages_hold_the_tables_and_figures_of_the_rows(pages):
    drawn = 0
    for path in pages.pages():
        text = path.read_text(encoding="utf-8")
        assert pages.page(text, path) == text, f"{path}: run benchmarks/experiment_pages.py"
        for drawing in pages.drawings(text):
            drawn += 1
            assert drawing.is_current, f"{path}: run benchmarks/experiment_pages.py"
    assert drawn >= 2


def test_the_main_table_has_means_intervals_and_what_is_missing(pages, write):
    selection = pages.select(write(*ROWS), ["demo"])
    note, table, missing = pages.parts.main_part(selection)
    assert "means over 1 to 2 seeds" in note
    assert table.splitlines()[2:] == [
        "| MF, 0 | **32.00 ± 25.41** | **16.00 ± 12.71** | 9 |",  # t(.975, 1) = 12.706
        "| MF, 1 | 20.00 | 10.00 | 9 |",
        "| VBPR | <u>25.00</u> | <u>12.50</u> | 9 |",
    ]
    assert missing == "Not run yet: seed 2 of MF, 1; VBPR."
    assert pages.parts.main_part(pages.select(write(), ["demo"])) == [
        "Not run yet: all seeds of all models."
    ]


def test_rows_are_found_by_their_names_and_the_last_one_counts(pages, write):
    results = write(
        row("MF, 0", 1, 0.1, digest="old"),
        row("MF, 0", 1, 0.2, digest="new"),
        row("MF, 0", 1, 0.0, error="no memory"),
        row("MF, 1", 1, 0.3, keys={"annotations_wrong": 0.5}),  # of an earlier file
        row("MF, 0.5", 1, 0.3),
        row("VBPR", 3, 0.3),
        row("VBPR", 2, 0.0, error="no memory"),
    )
    assert [(run, one["test"]["recall@10"]) for run, one in results.rows.items()] == [
        (("MF, 0", "demo", "default", 1), 0.2)
    ]
    assert results.failed == {("VBPR", "demo", "default", 2)}


def test_a_sweep_has_a_row_each_family_and_a_column_each_value(pages, write):
    note, table = pages.parts.sweep_part(pages.select(write(*ROWS[1:]), ["demo", "recall@10"]))
    assert table.splitlines() == [
        "| `annotations_wrong` | 0 | 1 | without variants |",
        "| --- | ---: | ---: | ---: |",
        "| MF | 34.00 | 20.00 |  |",
        "| VBPR |  |  | 25.00 |",
    ]
    assert note == "recall@10, %, one seed. A blank cell has no run yet."


def test_tests_are_paired_by_seed_and_take_intervals_over_users_from_their_file(pages, write):
    rows = (*ROWS, row("VBPR", 2, 0.28))
    note, table = pages.parts.tests_part(pages.select(write(*rows), ["demo", "recall@10"]))
    assert "no intervals over users" in note
    assert table.splitlines()[2:] == ["| MF, 0 | 2 | +5.50, p 0.12 |", "| MF, 1 | 1 | -5.00 |"]
    found = SeedTest(0.055, 0.01, 0.09, 900, 0.004, 0.02, 2, 0.1)
    known = Test(**vars(found), model="MF, 0", column="recall@10")
    stale = replace(known, model="MF, 1", difference=0.01, low=0.0, high=0.02, seeds=1)
    with Path("runs/tests.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["dataset", "protocol", "baseline", *vars(known)])
        for test in (known, stale):
            writer.writerow(["demo", "default", "VBPR", *vars(test).values()])
    note, table = pages.parts.tests_part(pages.select(write(*rows), ["demo", "recall@10"]))
    assert "bootstrap intervals over 900 users" in note
    assert table.splitlines()[2:] == [
        "| MF, 0 | 2 | **+5.50 (+1.00 to +9.00), p 0.004** |",
        "| MF, 1 | 1 | -5.00 |",
    ]


def test_the_cost_names_runs_time_and_what_differs_from_the_file(pages, write):
    changed = row("VBPR", 1, 0.2, keys={"epochs": 5, "encoder_weights": "/home/me/net.pth"})
    (line,) = pages.parts.cost_part(pages.select(write(*ROWS[:3], changed), []))
    assert line.startswith("4 of 12 runs, seeds 1 and 2; 2.0 minutes of processor time on 2 cores")
    assert "wall time 3.0 times that; recbole-cierec 0.1, recbole 1.2, torch 2.1" in line
    assert line.endswith("Set for these runs: `encoder_weights: net.pth`, `epochs: 5`.")


def test_a_figure_is_redrawn_when_its_rows_change(pages, write, benchmark_module, monkeypatch):
    module = benchmark_module("experiment_figures")
    monkeypatch.setattr(module, "DOCS", Path.cwd())
    Path("experiments").mkdir()
    (drawing,) = module.drawings_of("figure", write(*ROWS), "recall@10")
    assert not drawing.is_current
    drawing.save()
    assert drawing.is_current
    link = "![Trial: recall@10](../experiments/trial-demo-default.svg)"
    assert drawing.link(Path.cwd() / "models" / "MF.md") == link
    (drawing,) = module.drawings_of("figure", write(*ROWS[1:]), "recall@10")
    assert not drawing.is_current


def test_added_rows_name_no_machine(benchmark_module, in_tmp):
    module = benchmark_module("experiment_rows")
    own = {"machine": {"cores": 2, "host": "mine"}, "log": "/home/me/x.log", "checkpoint": None}
    keys = {"epochs": 9, "data_path": "/home/me/data", "encoder_weights": "/home/me/net.pth"}
    Path("out/trial").mkdir(parents=True)
    text = json.dumps(row("VBPR", 1, 0.2, keys=keys, **own)) + "\n"
    Path("out/trial/rows.jsonl").write_text(text)
    assert module.add(Path("out/trial"), Path("runs")) == "trial"
    added = Path("runs/trial/rows.jsonl").read_text()
    assert json.loads(added)["keys"] == {"epochs": 9, "encoder_weights": "net.pth"}
    assert "/home" not in added
    assert "mine" not in added
    with pytest.raises(ConfigError, match="no rows"):
        module.add(Path("out"), Path("runs"))


def test_added_tests_keep_those_over_users_and_are_corrected_together(benchmark_module, in_tmp):
    module = benchmark_module("experiment_rows")
    head = "dataset,protocol,baseline,model,column,difference,low,high,t_p,wilcoxon_p,seeds_p,users"

    def add(*lines: str) -> dict[str, tuple[str, str]]:
        Path("out/trial").mkdir(parents=True, exist_ok=True)
        Path("out/trial/rows.jsonl").write_text(json.dumps(row("VBPR", 1, 0.2)) + "\n")
        whole = [f"demo,full,VBPR,{line}" for line in lines]
        Path("out/trial/tests.csv").write_text("\n".join([head, *whole]) + "\n")
        module.add(Path("out/trial"), Path("runs"))
        with Path("runs/trial/tests.csv").open(newline="") as file:
            return {one["model"]: (one["difference"], one["t_p"]) for one in csv.DictReader(file)}

    # p 0.01 and 0.03, by Holm 2 * 0.01 and 1 * 0.03
    add("A,recall@10,0.1,0,0.2,0.02,,,9", "B,recall@10,0.2,0,0.2,0.03,,,9")
    # B has no results by user any more; C has p 0.02.
    added = add("B,recall@10,0.2,,,,,,0", "C,recall@10,0.3,0,0.2,0.02,,,9")
    assert {model: (d, round(float(p), 9)) for model, (d, p) in added.items()} == {
        "A": ("0.1", 0.03),  # 3 * 0.01
        "B": ("0.2", 0.04),  # the maximum of 1 * 0.03 and those before
        "C": ("0.3", 0.04),  # 2 * 0.02
    }
    assert add("A,recall@10,0.4,0,0.2,0.05,,,9")["A"][0] == "0.4"


def test_committed_rows_name_no_machine(benchmark_module):
    module = benchmark_module("experiment_rows")
    for path in module.RUNS.glob("*/rows.jsonl"):
        for one in module.read_rows(path):
            assert module.without_paths(one) == one, f"{path}: run experiment_pages.py --add"


@pytest.mark.parametrize("words", [["demmo"], ["recall@5"], ["demo", "full"]])
def test_a_mark_with_an_unknown_word_is_an_error(pages, write, words):
    with pytest.raises(ConfigError, match=f"trial: {words[-1]}: no data set, protocol or metric"):
        pages.select(write(*ROWS), words)


OVERVIEW = """
title: Trial
models: [{name: MF, variants: {bpr: {}, softmax: {loss: softmax}}}, VBPR, Pop, BPR]
datasets: [demo]
protocols: {user500: {}, full: {eval_args: {mode: full}}}
seeds: [1, 2]
search: {seconds: 60}
drop_below: 0.9
overrides: {epochs: 9}
report: {baseline: VBPR, metrics: [recall@10], groups: [all, cold]}
"""
COLUMNS = '"all items"=user500/recall@10 cold=user500/recall@10_cold full=full/recall@10'


@pytest.fixture
def overview(in_tmp, pages):
    """The overview's module, and its results from rows."""

    return pages.overview, lambda *rows: results_of(pages, OVERVIEW, rows)


def ranked(model, seed, value, protocol="user500", **parts):
    keys = {"loss": "softmax"} if model == "MF, softmax" else {}
    valid = {"valid_score": value, "valid_metric": "Recall@10"}
    return row(model, seed, value, protocol=protocol, keys=keys, **valid, **parts)


RANKED = (
    ranked("VBPR", 1, 0.30), ranked("VBPR", 2, 0.34), ranked("Pop", 1, 0.10),
    ranked("MF, softmax", 1, 0.40), ranked("MF, bpr", 1, 0.20, "full"),
)  # fmt: skip


def test_an_overview_has_a_column_each_protocol_and_the_best_on_top(overview):
    module, results = overview
    note, table, missing = module.overview_part(results(*RANKED), COLUMNS)
    assert note.endswith(
        "†: no further seeds by a protocol where validation is below 0.9 of the best."
    )
    assert table.splitlines() == [
        "| model | all items | cold | full |",
        "| --- | ---: | ---: | ---: |",
        "| MF, softmax | **40.0** | **20.0** |  |",
        "| VBPR | <u>32.0 ± 25.4</u> | <u>16.0 ± 12.7</u> |  |",  # t(.975, 1) = 12.706
        "| Pop † | 10.0 | 5.0 |  |",  # below .9 of MF's .40: its second seed does not run
        "| MF, bpr |  |  | **20.0** |",
    ]
    assert missing == "5 of 19 runs are made; blank: no run yet."  # 5 models x 2 x 2, less Pop's


def test_panels_draw_each_column_and_follow_the_rows(overview, benchmark_module, monkeypatch):
    module, results = overview
    drawings = benchmark_module("experiment_figures")
    monkeypatch.setattr(drawings, "DOCS", Path.cwd())
    Path("figures").mkdir()
    (drawing,) = drawings.drawings_of("panels", results(*RANKED), COLUMNS)
    drawing.save()
    (other,) = drawings.drawings_of("panels", results(*RANKED[1:]), COLUMNS)
    assert (drawing.is_current, other.is_current) == (True, False)
    found = results(*RANKED)
    left, _, right = module.draw(found, module.columns(found, COLUMNS)).axes
    assert [text.get_text() for text in left.get_yticklabels()] == ["MF", "VBPR", "Pop"]
    assert [bar.get_width() for bar in left.patches] == pytest.approx([32.0, 10.0])
    assert left.lines[0].get_xdata() == pytest.approx([40.0]), "softmax is a diamond"
    assert [bar.get_width() for bar in right.patches] == pytest.approx([20.0])


def test_searches_show_what_they_found(overview):
    module, results = overview
    one = {"key": "s", "model": "VBPR", "dataset": "demo", "protocol": "user500", "seed": 1}
    one |= {"error": None, "trials": 7, "pruned": 3, "valid_score": 0.4567}
    one |= {"settings": {"learning_rate": 0.1}, "seconds": {"trials_cpu": 61.2}}
    Path("runs").mkdir()
    Path("runs/searches.jsonl").write_text(json.dumps(one) + "\n")
    (table,) = module.searches_part(results())
    assert table.splitlines()[2:] == ["| VBPR | 7 | 3 | 61 | 45.7 | `learning_rate: 0.1` |"]


@pytest.mark.parametrize("word", ["x=user500/recall@5", "x=cold/recall@10", "user500"])
def test_an_overview_refuses_an_unknown_column(overview, word):
    module, results = overview
    with pytest.raises(ConfigError, match="a column is HEAD=PROTOCOL/METRIC"):
        module.overview_part(results(), word)
