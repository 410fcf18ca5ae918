"""Runs commands in a Python that lacks packages: ``python without_packages.py NAMES COMMANDS``.

Both arguments are JSON: the modules to hide, and for each command its module and its
arguments. Prints a JSON line with code and last line of stderr for each.
"""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stderr, redirect_stdout
from importlib import import_module
from io import StringIO


def main(absent: list[str], commands: list[tuple[str, list[str]]]) -> None:
    for name in absent:
        sys.modules[name] = None  # an import of it raises ModuleNotFoundError
    for module, argv in commands:
        out, error = StringIO(), StringIO()
        with redirect_stderr(error), redirect_stdout(out):
            code = import_module(module).main(argv)
        last = error.getvalue().splitlines()[-1:]
        print(json.dumps({"code": code, "last": "".join(last)}), flush=True)


if __name__ == "__main__":
    main(*map(json.loads, sys.argv[1:]))
