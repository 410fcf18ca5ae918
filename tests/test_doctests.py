"""The examples in docstrings are true."""

from __future__ import annotations

import doctest
from importlib import import_module

import pytest

MODULES = (
    "logs",
    "model.layers",
    "evaluation.metrics",
    "evaluation.collector",
    "evaluation.significance",
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_are_true(name):
    module = import_module(f"recbole_cierec.{name}")
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0
