"""The command line: ``python -m recbole_cierec convert NAME ...``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

from recbole_cierec.cli.exit_codes import run_command
from recbole_cierec.errors import ConfigError, nearest

from .options import PROGRAM, Parser, add_shared_arguments

CONVERTERS = {
    "amazon": "Amazon reviews of 2014, 2018 and 2023",
    "allrecipes": "Allrecipes (FoodRecSys-V1) and the release of HAFR",
    "movielens": "MovieLens 100K, 1M, latest, 25M and later",
    "hm": "H&M's tables and pictures of the Kaggle competition",
    "pixelrec": "PixelRec: covers and descriptions of videos",
    "microlens": "MicroLens: covers, titles and features of short videos",
    "mmrec": "a data folder of MMRec, with its split and features",
    "table": "any CSV, TSV, Parquet or JSON lines with named columns",
}
OTHERS = {"images": "downloads the pictures of a converted data set"}
_CHOICE = f"give a converter: {', '.join([*CONVERTERS, *OTHERS])}, or a module of yours"


def usage() -> str:
    """The text of ``--help``."""
    lines = [f"usage: {PROGRAM} NAME [options]", ""]
    lines += ["Turns raw data into a folder for --dataset=. NAME is one of", ""]
    lines += [f"  {name:<12}{what}" for name, what in {**CONVERTERS, **OTHERS}.items()]
    return "\n".join([*lines, "", f"Options of a converter: {PROGRAM} NAME --help"])


def converter_of(name: str) -> ModuleType:
    """A converter of the package, or a module of the user's that is one, by its name.

    Raises:
        ConfigError: There is no such converter.
    """
    if name in CONVERTERS:
        return import_module(f".{name}", __package__)
    if all(part.isidentifier() for part in name.split(".")) and _is_importable(name):
        module = import_module(name)
        if all(hasattr(module, part) for part in ("NAME", "add_arguments", "load")):
            return module
    known = [*CONVERTERS, *OTHERS]
    raise ConfigError(f"no converter is named '{name[:100]}'{nearest(name, known)}; {_CHOICE}")


def _is_importable(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def parser_of(name: str) -> Parser:
    """The parser of one converter."""
    module = converter_of(name)
    parser = Parser(f"{PROGRAM} {name}", (module.__doc__ or "").split("\n\n")[0])
    add_shared_arguments(parser, module.NAME)
    module.add_arguments(parser)
    return parser


def run(argv: Sequence[str]) -> list[str]:
    """Run one command line: the name of a converter and its options.

    Returns:
        The report, as lines.

    Raises:
        UserError: Options, files or disks are at fault.
    """
    if not argv:
        raise ConfigError(_CHOICE)
    name, *words = argv
    module = converter_of(name)
    parser = parser_of(name)
    preset = getattr(parser.parse_known_args(words)[0], "preset", None)
    if preset:
        parser.set_defaults(**module.PRESETS[preset])
    from .pipeline import convert

    return convert(name, module, parser.parse_args(words))


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; for exit codes see :mod:`recbole_cierec.cli.exit_codes`."""
    argv = sys.argv[1:] if argv is None else argv
    if argv and argv[0] in OTHERS:
        return import_module(f".{argv[0]}", __package__).main(argv[1:])
    named = bool(argv) and not argv[0].startswith("-")
    return run_command(
        lambda words: print("\n".join(run(words))),
        argv,
        (lambda: parser_of(argv[0]).format_help()) if named else usage,
    )


if __name__ == "__main__":
    sys.exit(main())
