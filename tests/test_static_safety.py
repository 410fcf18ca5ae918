"""No source of this package runs code that it reads (F28), or replaces files by another rule."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("recbole_cierec", "dataset_converters", "benchmarks")
SOURCES = [p for folder in FOLDERS for p in sorted((ROOT / folder).rglob("*.py"))]
FORBIDDEN = {
    "eval",
    "exec",
    "pickle.load",
    "pickle.loads",
    "pd.read_pickle",
    "marshal.loads",
    "os.system",
}


def name_of(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{name_of(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def offences(source: str) -> list[str]:
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = name_of(node.func)
        given = {k.arg: k.value for k in node.keywords}
        if name in FORBIDDEN:
            found.append(name)
        if name == "torch.load":
            safe = given.get("weights_only")
            if not (isinstance(safe, ast.Constant) and safe.value is True):
                found.append("torch.load without weights_only=True")
        if name == "yaml.load" and "Safe" not in name_of(given.get("Loader", ast.Name("", None))):
            found.append("yaml.load without a safe loader")
        if name == "np.load":
            unsafe = given.get("allow_pickle")
            if isinstance(unsafe, ast.Constant) and unsafe.value is not False:
                found.append("np.load that unpickles")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_source_executes_nothing_that_it_reads(path):
    assert offences(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "bad",
    [
        "eval('1')",
        "import torch; torch.load('x')",
        "import torch; torch.load('x', weights_only=False)",
        "import yaml; yaml.load('x', Loader=yaml.FullLoader)",
        "import pickle; pickle.load(f)",
        "import numpy as np; np.load('x', allow_pickle=True)",
    ],
)
def test_the_check_sees_each_offence(bad):
    assert offences(bad)


REPLACING = {"os.replace", "os.rename", "os.remove", "os.unlink", "os.truncate", "shutil.rmtree"}
# The rule itself, and code that removes folders it has created under its own names.
MAY_REPLACE = {
    "files/atomic_write.py": {"os.replace"},
    "files/leftovers.py": {"os.unlink", "shutil.rmtree"},
    "files/cache_folder.py": {"shutil.rmtree"},
    "experiment/folder.py": {"shutil.rmtree"},
    "vision/feature_shards.py": {"shutil.rmtree"},
    "data/demo.py": {"os.rename"},
}


@pytest.mark.parametrize(
    "path", sorted((ROOT / "recbole_cierec").rglob("*.py")), ids=lambda p: p.name
)
def test_files_are_replaced_and_removed_by_one_rule(path):
    calls = {
        name_of(node.func)
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
    }
    allowed = MAY_REPLACE.get(path.relative_to(ROOT / "recbole_cierec").as_posix(), set())
    assert calls & REPLACING == allowed
