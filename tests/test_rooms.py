"""Which package may import which, read from the sources; imports in functions count."""

from __future__ import annotations

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import recbole_cierec

PACKAGE = Path(recbole_cierec.__file__).parent
FORBIDDEN = [  # (whose imports, what they may not name)
    ("data", "recbole_cierec.model"),
    ("data", "recbole_cierec.trainer"),
    ("data", "recbole_cierec.vision.encoder"),
    ("vision", "recbole"),
    ("vision", "recbole_cierec.data"),
    ("vision", "recbole_cierec.model"),
    ("model", "recbole_cierec.trainer"),
    ("model", "recbole_cierec.distributed"),
    ("files", "recbole_cierec.config"),
    ("evaluation", "recbole_cierec.trainer"),
    ("distributed", "recbole_cierec.trainer"),
    ("serving", "recbole_cierec.tuning"),
    ("trainer", "recbole_cierec.serving"),
    ("model", "recbole_cierec.serving"),
    ("data", "recbole_cierec.serving"),
    ("vision", "recbole_cierec.serving"),
    ("", "recbole_cierec.cli"),
]
MAY_IMPORT_CLI = {"__main__", "cli"}


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = path
    return found


def imports(path: Path, known: dict[str, Path]) -> set[str]:
    """The modules that a file imports, names of modules resolved."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {name if name in known else node.module for name in whole}
    return found


KNOWN = modules()
GRAPH = {name: imports(path, KNOWN) for name, path in KNOWN.items()}


def room(module: str) -> str:
    """``model`` of recbole_cierec.model.base.layers; empty for files at the top."""
    return module.split(".")[1] if module.count(".") > 1 else ""


def is_part(module: str, package: str) -> bool:
    return module == package or module.startswith(f"{package}.")


@pytest.mark.parametrize(("importer", "imported"), FORBIDDEN)
def test_rooms_keep_their_direction(importer, imported):
    wrong = {
        f"{name} -> {target}"
        for name, targets in GRAPH.items()
        for target in targets
        if is_part(target, imported)
        and (is_part(name, f"recbole_cierec.{importer}") if importer else True)
        and (importer or name.split(".")[1:2] not in [[part] for part in MAY_IMPORT_CLI])
    }
    assert not wrong


def test_there_is_no_import_circle():
    graph = {name: {t for t in targets if t in KNOWN} - {name} for name, targets in GRAPH.items()}
    rooms: dict[str, set[str]] = {}
    for name, targets in graph.items():
        if room(name):
            rooms.setdefault(room(name), set()).update({room(t) for t in targets} - {room(name)})
    for found in (graph, {name: targets - {""} for name, targets in rooms.items()}):
        try:
            TopologicalSorter(found).prepare()
        except CycleError as error:
            pytest.fail(" -> ".join(reversed(error.args[1])))


def test_few_files_at_the_top_and_none_too_long():
    assert len(list(PACKAGE.glob("*.py"))) <= 8
    long = {n: len(p.read_text().splitlines()) for n, p in KNOWN.items()}
    assert {n: length for n, length in long.items() if length > 500} == {}


def test_every_rule_names_a_room_that_exists():
    rooms = {room(name) for name in KNOWN}
    assert {importer for importer, _ in FORBIDDEN} <= rooms
