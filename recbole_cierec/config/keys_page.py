"""Writes docs/keys.md from the table of keys: ``python -m recbole_cierec.config.keys_page``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from types import NoneType

from recbole_cierec.config.properties import overall_defaults
from recbole_cierec.config.schema import (
    Key,
    Role,
    content_keys,
    model_keys,
    noise_keys,
    protocol_keys,
    recbole_keys,
    single_model_keys,
    training_keys,
)

_HEAD = """\
# Keys

Every key that this package adds to RecBole's, generated from `recbole_cierec/config/schema/` by
`python -m recbole_cierec.config.keys_page > docs/keys.md`. RecBole's own keys are in
[its documentation](https://recbole.io/docs/user_guide/config_settings.html). A key is given in a
YAML file, in `config_dict` or as `--key=value`. An unknown key, or a value outside the column
*values*, is an error that names the nearest key or the allowed values.

The last column: *place*, the key may differ between two runs of the same experiment and does not
affect the digest of a run; *resume*, a run may be resumed with another value; *compare*, two runs
are compared only if it is equal; *use*, `recommend`, `export`, `report` and `serve` take another
value than that of the run; *fixed*, `tune` does not search it.
"""
_SECTIONS = {
    "Protocol": ("Equal for all models that are compared.", protocol_keys.KEYS),
    "Damaged data": (
        "To measure what a model makes of it; `compare` refuses runs with other values.",
        noise_keys.KEYS,
    ),
    "Content of items": ("Pictures, annotations and the visual encoder.", content_keys.KEYS),
    "Training": ("", training_keys.KEYS),
    "Models: common": (
        "Read by every model that derives from `VisualRecommender`. A model's own file in "
        "`properties/model/` may have another default.",
        model_keys.COMMON,
    ),
    "Models: shared": (
        "Read by several models; their files may have other defaults, too.",
        model_keys.SHARED,
    ),
}
_WORDS = {int: "whole number", float: "number", bool: "True or False", str: "text"}
_WORDS |= {list: "list", dict: "mapping", NoneType: "null"}


def page() -> str:
    """The page as Markdown."""
    parts = [_HEAD]
    for title, (about, keys) in _SECTIONS.items():
        parts += [f"## {title}\n", *([f"{about}\n"] if about else []), _table(keys)]
    parts.append("## Models: of one model\n")
    for name, keys in single_model_keys.OF_ONE_MODEL.items():
        parts += [f"### {name}\n", _table(keys)]
    parts += [_RECBOLE, _recbole_table()]
    return "\n".join(parts)


_RECBOLE = """\
## Keys of RecBole

These keys of RecBole are checked more strictly than by RecBole.
"""


def _table(keys: Iterable[Key]) -> str:
    defaults = overall_defaults()
    rows = ["| key | default | values | meaning | notes |", "|---|---|---|---|---|"]
    for key in keys:
        default = defaults.get(key.name, key.default)
        text = default if isinstance(default, str) else json.dumps(default)
        cells = (f"`{key.name}`", f"`{text}`", allowed_values(key), key.about, _notes(key))
        rows.append(f"| {' | '.join(cells)} |")
    return "\n".join(rows) + "\n"


def _recbole_table() -> str:
    rows = ["| key | values | notes |", "|---|---|---|"]
    for key in recbole_keys.KEYS:
        if values := allowed_values(key):
            rows.append(f"| `{key.name}` | {values} | {_notes(key)} |")
    return "\n".join(rows) + "\n"


def allowed_values(key: Key) -> str:
    """What a key may be, in words."""
    null = ["null"] if NoneType in key.types else []
    if key.choices:
        return ", ".join([*(f"`{choice}`" for choice in key.choices), *null])
    kinds = " or ".join(_WORDS[kind] for kind in key.types if kind is not NoneType)
    limits = [
        "" if key.low is None else f"from {key.low}",
        "" if key.high is None else f"to {key.high}",
        "" if key.columns is None else f"of columns of type {' or '.join(key.columns.types)}",
        "not empty" if key.not_empty else "",
    ]
    return ", ".join([part for part in [" ".join(filter(None, [kinds, *limits]))] if part] + null)


def _notes(key: Key) -> str:
    notes = {
        "place": key.of_place,
        "resume": key.changes and not key.of_place,
        "compare": key.compared,
        "use": key.in_use,
        "fixed": not key.searched and key.role is Role.TRAINING,
    }
    return ", ".join(note for note, holds in notes.items() if holds)


if __name__ == "__main__":
    sys.stdout.write(page())
