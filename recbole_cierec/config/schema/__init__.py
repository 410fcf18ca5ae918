"""The one table of configuration keys.

Each key is declared once, in the file of its group: :data:`KEYS` has them all by name. Values are
checked by it, and it says what a search, a resumed run and a comparison may change. The defaults
are those of ``properties/``, which a test compares with the table.
"""

from __future__ import annotations

from recbole_cierec.config.schema import (
    content_keys,
    launch_keys,
    model_keys,
    noise_keys,
    protocol_keys,
    recbole_keys,
    single_model_keys,
    training_keys,
)
from recbole_cierec.config.schema.key import IN_YAML, Columns, Key, Role

__all__ = ["IN_YAML", "KEYS", "PLACE_KEYS", "PROTOCOL_KEYS", "Columns", "Key", "Role"]

GROUPS = (
    protocol_keys,
    noise_keys,
    content_keys,
    training_keys,
    model_keys,
    single_model_keys,
    recbole_keys,
    launch_keys,
)
KEYS: dict[str, Key] = {key.name: key for group in GROUPS for key in group.KEYS}
PLACE_KEYS = frozenset(name for name, key in KEYS.items() if key.of_place)
PROTOCOL_KEYS = frozenset(name for name, key in KEYS.items() if key.role is Role.PROTOCOL)
