"""The table that doctor prints agrees with the subclasses, and names lines of RecBole."""

from __future__ import annotations

import ast
import re
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest
import recbole
from packaging.version import Version

from recbole_cierec.compat.patches import PATCHES

ROOT = Path(recbole.__file__).parent
HOME = Path(import_module("recbole_cierec").__file__).parent
MODULES = (
    "compat.numpy_names",
    "compat.recbole_models",
    "config.compat",
    "data.compat",
    "evaluation.compat",
    "trainer.compat",
)


def source(module: str) -> str:
    return HOME.joinpath(*module.split(".")).with_suffix(".py").read_text()


def flat(text: str) -> str:
    """Text without line breaks and the marks of comments."""
    return " ".join(text.replace("#", " ").split())


def with_reasons(module: str) -> set[str]:
    """Classes and methods of a module whose docstrings give a reason, as ``module:name``."""
    found = set()

    def visit(node: ast.AST, path: tuple[str, ...]) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef | ast.FunctionDef):
                here = (*path, child.name)
                if "Reason:" in (ast.get_docstring(child) or ""):
                    found.add(f"{module}:{'.'.join(here)}")
                visit(child, here)

    visit(ast.parse(source(module)), ())
    return found


def test_every_reason_in_the_code_has_a_row_and_every_row_a_place_in_the_code():
    reasons = set().union(*map(with_reasons, MODULES))
    from recbole_cierec.compat.recbole_models import MODEL_PATCHES

    reasons |= {f"compat.recbole_models:{mend.__name__}" for mend in MODEL_PATCHES.values()}
    assert {patch.target for patch in PATCHES} == reasons | {"compat.warnings:KNOWN_WARNINGS"}


@pytest.mark.parametrize("patch", PATCHES, ids=lambda p: f"{p.target}-{p.places[0]}")
def test_a_row_says_what_the_code_says(patch):
    module, name = patch.target.split(":")
    found = import_module(f"recbole_cierec.{module}")
    for part in name.split("."):
        found = getattr(found, part)
    # recbole_models has its reasons in the module's docstring, and a constant in comments.
    own = module != "compat.recbole_models" and not isinstance(found, tuple)
    text = flat(found.__doc__ if own else source(module))
    assert patch.until in text
    assert f"{patch.package} {patch.since}".strip() in text.replace(
        "(new in 1.2.1)", "recbole 1.2.1"
    )
    for place in patch.places:
        assert place in text


@pytest.mark.skipif(
    Version(version("recbole")) != Version("1.2.1"),
    reason="line numbers are those of RecBole 1.2.1",
)
@pytest.mark.parametrize("patch", PATCHES, ids=lambda p: f"{p.target}-{p.places[0]}")
def test_recbole_has_these_lines(patch):
    for place in patch.places:
        file, lines = place.split(":")
        (path,) = [ROOT / file] if "/" in file else ROOT.rglob(file)
        last = max(map(int, re.findall(r"\d+", lines)))
        assert len(path.read_text().splitlines()) >= last
