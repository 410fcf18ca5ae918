"""Write the generated pages and tables: ``python docs/generate.py``.

keys.md is written from the declarations of keys, commands.md from the ``--help`` of each command,
and the table of keys in models/NAME.md from the model's YAML files. tests/test_site.py checks that
they are current.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from recbole_cierec.__main__ import COMMANDS, main  # noqa: E402
from recbole_cierec.config import keys_page  # noqa: E402
from recbole_cierec.config.properties import properties_dir  # noqa: E402
from recbole_cierec.config.schema import KEYS  # noqa: E402
from recbole_cierec.config.yaml import read_yaml  # noqa: E402

CONVERTERS = ("amazon", "allrecipes", "movielens", "table", "images")
_COMMANDS_HEAD = """\
# Command line

`python -m recbole_cierec COMMAND ...`, or `recbole-cierec COMMAND ...` after an installation.
Without a command it is `run`. Below is what `--help` prints, written by `python docs/generate.py`.
Values are YAML; [keys](keys.md) lists all keys. Exit codes:

| code | meaning |
|---|---|
| 0 | done |
| 2 | an error in the input, in one line on stderr ([errors](errors.md)) |
| 130, 143 | stopped by Ctrl-C or SIGTERM; the message says what continues the work |
| 1 | an error in the code, with a traceback: please [report it](contributing.md) |
"""
_LINE = re.compile(r"^(?P<key>\w+):\s.*?#\s*(?:\((?P<kind>\w+)\) )?(?P<about>.*)$", re.M)
_TABLE = re.compile(r"(<!-- keys: (\w+) -->\n).*?(<!-- end of keys -->)", re.S)


def commands_page() -> str:
    """The help of every command, as Markdown."""
    parts = [_COMMANDS_HEAD]
    for name in COMMANDS:
        parts.append(f"## {name}\n\n```text\n{_help(name)}\n```\n")
        if name == "convert":
            parts += [f"### convert {of}\n\n```text\n{_help(name, of)}\n```\n" for of in CONVERTERS]
    return "\n".join(parts)


def _help(*words: str) -> str:
    """What ``--help`` prints, in 88 columns."""
    out = io.StringIO()
    with (
        patch.dict(os.environ, {"COLUMNS": "88", "NO_COLOR": "1"}),
        contextlib.redirect_stdout(out),
        contextlib.suppress(SystemExit),
    ):
        main([*words, "--help"])
    lines = [line.rstrip() for line in out.getvalue().strip().splitlines()]
    return "\n".join(lines)


def model_page(text: str) -> str:
    """A page of a model with its table of keys written anew."""
    return _TABLE.sub(lambda found: f"{found[1]}{_model_table(found[2])}{found[3]}", text)


def _model_table(model: str) -> str:
    rows = ["| key | default | values | searched by `tune` | meaning |", "|---|---|---|---|---|"]
    path = properties_dir() / "model" / f"{model}.yaml"
    defaults, search = read_yaml(path), _search(model)
    comments = {f["key"]: f["about"] for f in _LINE.finditer(path.read_text(encoding="utf-8"))}
    for key, default in defaults.items():
        values = keys_page.allowed_values(KEYS[key]) if key in KEYS else ""
        about = comments.get(key, KEYS[key].about if key in KEYS else "").replace("|", r"\|")
        cells = (f"`{key}`", f"`{_shown(default)}`", values, _shown_range(search.get(key)), about)
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def _search(model: str) -> dict[str, Any]:
    path = properties_dir() / "search" / f"{model}.yaml"
    return read_yaml(path) if path.is_file() else {}


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _shown_range(values: Any) -> str:
    if isinstance(values, dict):
        return f"{values['low']} to {values['high']}"
    return ", ".join(f"`{_shown(value)}`" for value in values or ())


def pages() -> Iterator[tuple[Path, str]]:
    """Each generated page, and its text."""
    yield HERE / "keys.md", keys_page.page()
    yield HERE / "commands.md", commands_page()
    for path in sorted((HERE / "models").glob("*.md")):
        text = path.read_text(encoding="utf-8")
        if _TABLE.search(text):
            yield path, model_page(text)


if __name__ == "__main__":
    for page, text in pages():
        page.write_text(text, encoding="utf-8")
