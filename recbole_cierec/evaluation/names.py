"""Names of results: a metric, and the group of users or items that it is of.

``recall@10`` is of all users, ``recall@10_cold`` of cold users, ``recall@10_item_rare`` of the
positives that are rare items, ``recall@10_among_cold`` of a ranking of held-out items alone.
"""

from __future__ import annotations

import re

ALL = "all"
USER_GROUPS = ("cold", "warm", "new", "known")
ITEM_GROUPS = ("item_unseen", "item_rare", "item_common")
VIEWS = ("among_cold", "among_warm")
LABELS = {  # in the order in which they are shown
    ALL: "all users",
    "cold": "cold users",
    "warm": "warm users",
    "new": "new users",
    "known": "known users",
    "item_unseen": "unseen items",
    "item_rare": "rare items",
    "item_common": "common items",
    "among_cold": "among unseen items",
    "among_warm": "among seen items",
}
_NAME = re.compile(rf"(?P<metric>.+?)(?:_(?P<group>{'|'.join(list(LABELS)[1:])}))?")


def split_name(name: str) -> tuple[str, str]:
    """The metric and the group of a result's name.

    >>> split_name("recall@10_item_unseen"), split_name("ndcg_hit@10"), split_name("gauc_cold")
    (('recall@10', 'item_unseen'), ('ndcg_hit@10', 'all'), ('gauc', 'cold'))
    """
    match = _NAME.fullmatch(name)
    return (match["metric"], match["group"] or ALL) if match else (name, ALL)


def join_name(metric: str, group: str) -> str:
    """The name of a result.

    >>> join_name("recall@10", "cold"), join_name("recall@10", "all")
    ('recall@10_cold', 'recall@10')
    """
    return metric if group == ALL else f"{metric}_{group}"
