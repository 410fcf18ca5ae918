"""Names that RecBole expects in numpy and current numpy no longer has."""

from __future__ import annotations

import numpy as np

# name that RecBole uses -> name in every numpy since 1.20
ALIASES = {
    "bool": "bool_",
    "int": "int_",
    "float": "float64",
    "complex": "complex128",
    "object": "object_",
    "str": "str_",
    "long": "int_",
    "unicode": "str_",
}


def numpy_aliases() -> None:
    """Give numpy back the old type names that RecBole uses.

    Reason: RecBole 1.2.x writes ``np.float`` and the like (evaluator/metrics.py:90, 128, 131, 190,
    196, 287; data/interaction.py:31; data/dataset/dataset.py:652). numpy 1.24 dropped those names,
    and numpy 2.0 also those through which config/configurator.py:625-635 restores them
    (``np.float_``, ``np.complex_``, ``np.unicode_``). The values are those that RecBole itself
    sets on numpy 1, so its results do not change.

    Goes when: RecBole no longer uses such names.
    """
    for alias, name in ALIASES.items():
        setattr(np, alias, getattr(np, name))
