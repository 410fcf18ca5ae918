"""The Python blocks of pages run in their order, as a reader would run them."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

PAGES = Path(__file__).resolve().parents[1] / "docs"
_BLOCK = re.compile(r"^```python\n(?:# (?P<file>\w+\.py)\n)?(?P<code>.*?)^```", re.M | re.S)


@pytest.mark.parametrize("page", ["extending.md", "coming-from-recbole.md", "coming-from-mmrec.md"])
def test_the_code_of_a_page_runs(page, in_tmp, monkeypatch):
    monkeypatch.syspath_prepend(str(Path.cwd()))
    known = set(sys.modules)
    blocks = list(_BLOCK.finditer((PAGES / page).read_text(encoding="utf-8")))
    assert blocks
    try:
        for block in blocks:
            code = block["code"]
            if block["file"]:
                Path(block["file"]).write_text(code, encoding="utf-8")
            else:
                exec(compile(code, page, "exec"), {"__name__": "page"})  # noqa: S102
    finally:
        for name in set(sys.modules) - known:
            if name.startswith("my_"):
                del sys.modules[name]
