"""docs/results.md and docs/results/ agree with the rows in benchmarks/runs/."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def tables(benchmark_module):
    return benchmark_module("tables")


def row(model, value, **more) -> dict:
    test = {"recall@10": value, "recall@10_std": 0.001, "recall@10_item_unseen": value / 2}
    costs = {"epochs": 4, "fit_seconds": 6.0, "evaluate_seconds": 1.0, "parameters": 12345}
    return {"model": model, "seed": 1, "test": test, **costs, "peak_mib": 700, **more}


def test_the_pages_hold_the_tables_of_the_rows(tables):
    texts = [path.read_text(encoding="utf-8") for path in tables.PAGES]
    assert sum(text.count("<!-- results: ") for text in texts) == 4
    assert sum(text.count("<!-- summary: ") for text in texts) == 2
    for text in texts:
        assert tables.page(text) == text


def test_the_summary_has_a_row_each_model_the_best_first(tables, tmp_path):
    own = {"CIERec:backbone=VBPR": (0.3, 0.1), "Pop": (0.2, 0.0), "MF:loss=softmax:n=8": (0.4, 0.2)}
    own["MF"] = (0.1, 0.05)
    for name, place in (("x-results", 0), ("x-cold", 1)):
        metric = "recall@10_among_cold" if place else "recall@10"
        rows = [
            row(model, 0, test={metric: values[place]})
            for model, values in own.items()
            if not (place and model == "Pop")
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(f"{json.dumps(r)}\n" for r in rows))
    assert tables.summary("x", tmp_path).splitlines()[2:] == [
        "| MF | 10.0 | **40.0** | 5.0 | **20.0** |",
        "| CIERec (VBPR) | **30.0** |  | **10.0** |  |",
        "| Pop | 20.0 |  |  |  |",
    ]


def test_a_table_shows_the_rows_with_both_losses_of_a_model_together(tables, tmp_path):
    rows = [row("MF:loss=softmax:n=8", 0.3, settings={"reg_weight": 0.0}), row("VBPR", 0.2)]
    rows.append(row("MF", 0.25, settings={"learning_rate": 0.1, "reg_weight": 0.01}))
    for name in ("x-results", "x-cold"):
        (tmp_path / f"{name}.jsonl").write_text("".join(f"{json.dumps(r)}\n" for r in rows))
    text = "before\n<!-- results: x-results -->\n| old |\n\n<!-- losses: x -->\nafter\n\n"
    text += "<!-- models: x-results -->\n"
    first, second, third = tables.page(text, tmp_path).split("\n\n")
    assert third.splitlines()[-1] == "| `MF,MF:loss=softmax:n=8,VBPR` |"
    assert [line.split(" | ")[:5] for line in first.splitlines()[4:]] == [
        ["| MF", "", "1", "25.00 ± 0.10", "12.50"],
        ["| MF:loss=softmax:n=8", "reg_weight: 0.0", "1", "30.00 ± 0.10", "15.00"],
        ["| VBPR", "", "1", "20.00 ± 0.10", "10.00"],
    ]
    assert first.splitlines()[4].endswith("| 4 | 1.50 | 1.0 | 12,345 | 700 |")
    assert (
        "| MF |  | reg_weight: 0.0 | 25.00 ± 0.10 | 30.00 ± 0.10 | 12.50 | 15.00 | - | - |\nafter"
        in second
    )


@pytest.mark.parametrize(
    ("model", "settings", "said"),
    [
        ("CIERec", {"fusion": "sum", "learning_rate": 0.1}, "fusion: sum"),
        ("CIERec:backbone=VBPR", {"fusion": "mlp", "privileged_dropout": 0.2}, ""),
        ("CIERec_Base", {"fusion": "sum"}, ""),  # it has no fusion
        ("AlignRec", {"cosine_weight": 0.0, "align_weight": 0.1}, "cosine_weight: 0.0"),
        ("DropoutNet", {"content_reg_weight": 0.0, "user_dropout": 0.0}, "user_dropout: 0.0"),
        ("ItemKNN", {"shrink": 0.0, "k": 20}, ""),
    ],
)
def test_a_row_says_which_settings_change_the_equations_of_its_model(tables, model, settings, said):
    assert tables.variant(row(model, 0.1, settings=settings)) == said
