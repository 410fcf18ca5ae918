"""What is imported when: no code for pictures in runs without pictures."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import programs
import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "recbole_cierec"
OF_PICTURES = ("torchvision", "PIL", "timm", "safetensors")


def train_both(*flags: str) -> None:
    """Train two models; print the libraries of pictures that are imported then."""
    codes = [programs.command_line(f"--model={model}", *flags) for model in ("MF", "VBPR")]
    print(codes, [name for name in OF_PICTURES if name in sys.modules], flush=True)


def test_models_without_a_network_import_no_library_of_pictures(tiny, in_tmp):
    flags = [f"--{key}={value}" for key, value in tiny(dataset="tiny", epochs=1).items()]
    ran = programs.start(*flags, cwd=in_tmp, job=train_both)
    assert ran.wait() == 0, ran.stderr[-2000:]
    assert ran.stdout.splitlines()[-1] == "[0, 0] []"


def imports_of(file: Path) -> set[str]:
    """Modules that a file imports, inside functions too, except for type checkers only."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING":
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(file.read_text("utf-8")))
    return found


@pytest.mark.parametrize(
    ("room", "forbidden"),
    [
        ("vision", ("recbole.", "recbole_cierec.data", "recbole_cierec.config")),
        ("vision", ("recbole_cierec.model", "recbole_cierec.trainer", "recbole_cierec.cli")),
        ("data", ("recbole_cierec.vision", "recbole_cierec.model")),
        ("files", ("recbole.", "recbole_cierec.vision", "recbole_cierec.data")),
    ],
)
def test_rooms_depend_one_way(room, forbidden):
    files = sorted((PACKAGE / room).rglob("*.py"))
    assert len(files) > 5
    for file in files:
        wrong = [name for name in imports_of(file) if name.startswith(forbidden)]
        assert not wrong, f"{file.name} imports {wrong}"
