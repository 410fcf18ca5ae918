"""Keys of the protocol: the same data, split and evaluation for every model, RecBole's included."""

from __future__ import annotations

from functools import partial

from recbole_cierec.config.schema.key import Key, Role
from recbole_cierec.config.schema.parts import columns, mapping, negatives

key = partial(Key, role=Role.PROTOCOL)

KEYS = (
    key(
        "load_col",
        (dict, None),
        "Atomic file: (list) the columns to load; they follow USER_ID_FIELD, "
        "ITEM_ID_FIELD and TIME_FIELD.",
        check=mapping(columns),
    ),
    key(
        "filter_inter_by_user_or_item",
        bool,
        "Whether to drop interactions of items without a line in NAME.item (your own "
        "load_col must load item).",
    ),
    key(
        "item_vocabulary",
        str,
        "Which items exist: interacted (those in NAME.inter) or all (those in NAME.item too).",
        choices=("interacted", "all"),
    ),
    key("eval_args", (dict, None), "How interactions are split and ranked.", compared=True),
    key(
        "train_neg_sample_args", (dict, None), "How training negatives are drawn.", check=negatives
    ),
    key(
        "train_negatives",
        str,
        "Whether training negatives are drawn from items seen in training (seen) or from "
        "all items (all).",
        choices=("seen", "all"),
    ),
    key(
        "candidate_seed",
        int,
        "userN only: seed of the N items that a user's positives are ranked against.",
        compared=True,
        low=0,
        high=2**62,
        changes=True,
    ),
    key(
        "candidates_file",
        (str, None),
        "userN only: .npz file of candidate lists; read if it exists, else written.",
        path="file",
        changes=True,
    ),
    key(
        "eval_repeats",
        int,
        "userN only: number of candidate sets for the test; mean and standard deviation "
        "are reported.",
        compared=True,
        low=1,
        high=1000,
        changes=True,
    ),
    key(
        "cold_item_views",
        bool,
        "Whether items without training interactions, and all others, are also ranked "
        "among themselves.",
        changes=True,
    ),
    key(
        "metrics",
        (str, list),
        "Metrics of RecBole, and NDCG_Hit: NDCG with the ideal over the hits within k.",
        changes=True,
    ),
    key("topk", (int, list), "The cut-offs k of the ranking.", changes=True),
    key("valid_metric", str, "The metric that stops training and chooses the model."),
    key("metric_decimal_place", int, "Decimals of metrics.", low=0, high=20, changes=True),
    key(
        "eval_batch_size",
        int,
        "Scores in one evaluation batch: users times items; 4096 for models that score "
        "pairs only (DIN, FM).",
        low=1,
        changes=True,
        in_use=True,
    ),
    key(
        "user_group_boundary",
        int,
        "Users with at most this many interactions are cold, the others warm.",
        low=0,
        changes=True,
    ),
    key(
        "item_group_boundary",
        int,
        "Items with at most this many training interactions are rare, those with none unseen.",
        low=1,
        changes=True,
    ),
    key(
        "user_group_count",
        str,
        "The interactions counted for user_group_boundary, in validation too: test, train"
        " or total.",
        choices=("test", "train", "total"),
        changes=True,
    ),
)
