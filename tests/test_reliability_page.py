"""docs/reliability.md names a test for each of its 36 faults, and each of these tests exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

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
