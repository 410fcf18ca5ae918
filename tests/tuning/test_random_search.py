"""The random search of docs/results/searches.md: the draws of its trials."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def search(benchmark_module):
    return benchmark_module("search")


def test_no_trial_repeats_another_while_the_ranges_hold_more(search):
    ranges = search.read_yaml(ROOT / "properties" / "search" / "ItemKNN.yaml")
    many = 1
    for values in ranges.values():
        many *= len(values)
    drawn = search.draw("ItemKNN", many)
    assert drawn[0] == {}
    assert all(value in ranges[key] for settings in drawn for key, value in settings.items())
    assert len({json.dumps(settings, sort_keys=True) for settings in drawn}) == many
    assert len(search.draw("ItemKNN", many + 3)) == many + 3, "and it ends where they do not"


@pytest.mark.parametrize("dataset", ["hm-week", "ml-100k-posters"])
def test_the_rows_of_the_page_are_those_draws(dataset, search):
    rows = (ROOT / "benchmarks" / "runs" / f"{dataset}-search.jsonl").read_text().splitlines()
    found: dict[str, dict[int, dict]] = {}
    for row in map(json.loads, rows):
        found.setdefault(row["model"], {})[row["trial"]] = row["settings"]
    assert found
    # CIERec's ranges are others since its searches.
    kept = {name: trials for name, trials in found.items() if not name.startswith("CIERec")}
    assert len(kept) > 20
    for name, trials in kept.items():
        assert sorted(trials) == list(range(len(trials))), name
        assert [trials[k] for k in sorted(trials)] == search.draw(name, len(trials)), name
