"""docs/reliability.md names a test for each of its 36 faults, and each of these tests exists."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

from recbole_cierec.registry import MODELS, recbole_model_names

TESTS = Path(__file__).parent
PAGE = TESTS.parent / "docs" / "reliability.md"
_ROW = re.compile(r"^\| F(\d+) \|.*\|([^|]*)\|$", re.MULTILINE)
_NAME = re.compile(r"`([\w/]+\.py)::(\w+)`")


def test_every_fault_has_a_test_that_exists():
    rows = {int(number): _NAME.findall(tests) for number, tests in _ROW.findall(PAGE.read_text())}
    assert sorted(rows) == list(range(1, 37))
    assert all(rows.values())
    for file, name in (pair for pairs in rows.values() for pair in pairs):
        tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, name


def test_the_walk_through_all_models_is_of_all_models():
    path = TESTS.parent / "benchmarks" / "runs" / "resume-walk.jsonl"
    results = {row["model"]: row["result"] for row in map(json.loads, path.open())}
    assert list(results) == [*MODELS, *recbole_model_names()]
    equal = sum(result == "equal" for result in results.values())
    text = PAGE.read_text()
    assert f"all {len(results)} models" in text
    assert f"{equal} are equal to the last bit" in text
    assert f"{len(results) - equal} do not train there" in text
