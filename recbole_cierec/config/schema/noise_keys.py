"""Keys that damage the data on purpose, to measure what a model makes of it; off by default.

They belong to the protocol: runs with different values do not see the same data. Items are chosen
by ``seed`` and a hash of their ids, so that all models with the same seed see the same damage.
"""

from __future__ import annotations

from functools import partial

from recbole_cierec.config.schema.key import Key, Role

key = partial(Key, role=Role.PROTOCOL, compared=True)
share = partial(key, types=float, low=0, high=1)

KEYS = (
    share(
        "annotations_missing_training",
        about="Share of items whose annotation is missing in training.",
    ),
    share(
        "annotations_missing_inference",
        about="Share of items whose annotation is missing when ranking, for models that read "
        "it then; with the same share, the same items as in training.",
    ),
    share(
        "annotations_wrong",
        about="Share of items that have the annotation of another one, in training and when "
        "ranking.",
    ),
    share("pictures_missing", about="Share of items without their picture."),
    share("pictures_wrong", about="Share of items with the picture of another one."),
    key(
        "picture_degrade",
        str,
        "What the encoder sees of all pictures: none (they are as they are), blur, or 8x8 pixels.",
        choices=("none", "blur", "8x8"),
    ),
    key(
        "max_user_interactions",
        (int, None),
        "Training interactions kept of each user, the first in the order of eval_args; the others "
        "are neither trained nor ranked; null: all.",
        low=1,
    ),
)
