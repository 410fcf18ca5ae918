"""The faster top-k against ``torch.topk``, whose choice among equal scores it must repeat."""

from __future__ import annotations

import pytest
import torch

from recbole_cierec.evaluation.top_k import _grouped, _groups, top_k


def scores_of(kind: str, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(width)
    scores = torch.randn(6, width, generator=generator)
    if kind == "masked":  # fewer finite scores than are ranked
        scores[1, 3:] = -torch.inf
        scores[:, 0] = -torch.inf
    elif kind == "tied":
        scores[2] = torch.randint(0, 50, (width,), generator=generator).float()
        scores[3] = 0.0
        best = scores[4].argmax()  # a single tie, between two columns of different groups
        scores[4, (best + width // 3 + 1) % width] = scores[4, best]
    elif kind == "nan":
        scores[0, width // 2] = torch.nan
    elif kind == "last":  # the best are in the columns that belong to no group
        scores[:, -3:] += 100
    return scores


@pytest.mark.parametrize("kind", ["random", "masked", "tied", "nan", "last"])
@pytest.mark.parametrize("k", [1, 3, 20])
@pytest.mark.parametrize("width", [1_000, 9_001, 60_007])
def test_the_columns_are_those_of_torch(kind: str, k: int, width: int) -> None:
    scores = scores_of(kind, width)
    assert torch.equal(top_k(scores, k), scores.topk(k).indices)


def test_short_rows_and_large_k_are_not_grouped() -> None:
    assert _groups(1_000, 10) == 0
    assert _groups(10_000, 100) == 0
    assert _groups(10_000, 10) > 0


def test_the_last_rank_is_unique_only_if_the_next_score_is_smaller() -> None:
    scores = torch.arange(64.0).repeat(2, 1)
    scores[1, 61] = scores[1, 62]  # ranks 2 and 3 are equal
    _, unique = _grouped(scores, k=2, n_groups=16)
    assert unique.tolist() == [True, False]
