"""Models ask one object about their batch, whether one process trains or several."""

from __future__ import annotations

import inspect

import torch
from recbole.data.interaction import Interaction

from recbole_cierec.distributed.batch_share import Share, SharedBatch
from recbole_cierec.model.base.batch_context import BatchContext

USERS, ITEMS, NEGATIVES = [3, 1, 3, 2], [5, 6, 6, 7], [8, 5, 9, 6]


def signatures(kind: type) -> dict[str, list[str]]:
    methods = inspect.getmembers(kind, inspect.isfunction)
    return {n: list(inspect.signature(m).parameters) for n, m in methods if not n.startswith("_")}


def contexts() -> list[tuple[SharedBatch, torch.Tensor]]:
    """Two processes' contexts and the distinct items that each has."""
    columns = {"user_id": USERS, "item_id": ITEMS, "neg_item_id": NEGATIVES}
    whole = Interaction({name: torch.tensor(ids) for name, ids in columns.items()})
    shares = [Share(whole, rank, 2) for rank in range(2)]
    names = ["item_id", "neg_item_id"]
    return [
        (
            SharedBatch(share, "user_id", names, torch.Generator().manual_seed(4)),
            torch.cat([share.own[name] for name in names]).unique(),
        )
        for share in shares
    ]


def test_both_contexts_answer_the_same_questions():
    assert signatures(BatchContext) == signatures(SharedBatch)


def test_an_item_has_one_random_number_in_all_processes():
    (first, own), (second, others) = contexts()
    draws = dict(zip(own.tolist(), first.uniform(own).tolist(), strict=True))
    theirs = dict(zip(others.tolist(), second.uniform(others).tolist(), strict=True))
    both = draws.keys() & theirs.keys()
    assert both == {6}
    assert all(draws[item] == theirs[item] for item in both)
    assert len(set(draws.values()) | set(theirs.values())) == len({*ITEMS, *NEGATIVES})


def test_the_mean_over_the_items_of_all_processes_is_that_of_the_whole():
    value = torch.arange(10.0)
    among = torch.ones(10, dtype=torch.bool)
    parts = []
    for context, own in contexts():
        parts.append(context.share.weight * context.item_mean(value[own].view(-1, 1), own, among))
    expected = value[sorted({*ITEMS, *NEGATIVES})].mean()
    torch.testing.assert_close(sum(parts) / 2, expected)


def test_rows_drawn_for_the_whole_batch_are_cut():
    cut = []
    for context, _ in contexts():
        users = context.column("user_id", context.share.own["user_id"])
        cut += context.own_rows(10 * users).tolist()
    assert cut == [10 * user for user in USERS]
