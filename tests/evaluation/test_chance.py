"""Chance levels equal the mean result of random rankings by the package's own evaluator."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from recbole_cierec.config.config import Config
from recbole_cierec.evaluation.chance import Ranked, chance_by_user
from recbole_cierec.quick_start import prepare

METRICS = ["Recall", "Precision", "Hit", "MRR", "MAP", "NDCG", "NDCG_Hit"]
MODES = {
    "full": {"mode": "full"},
    "user5": {"mode": "user5"},
    "uni4": {"mode": "uni4"},
    "cold items": {"mode": "full", "split": {"COLD_ITEM": [0.6, 0.1, 0.3]}},
}


@pytest.fixture
def job(tiny, request):
    keys = tiny(eval_args=request.param, metrics=METRICS, topk=[3, 10], metric_decimal_place=12)
    made = prepare(Config("BPR", "tiny", None, {**keys, "valid_metric": "Recall@3"}), saved=False)
    draws = torch.Generator().manual_seed(3)

    def scores(shape):
        return torch.rand(shape, generator=draws)

    items = made.loaders[2]._dataset.item_num
    made.model.full_sort_predict = lambda rows: scores(len(rows) * items)
    made.model.predict = lambda rows: scores(len(rows))
    return made


@pytest.mark.parametrize("job", MODES.values(), ids=MODES, indirect=True)
def test_chance_is_the_mean_of_random_rankings_in_every_group(job):
    rounds = 60
    test = job.loaders[2]
    results = [job.trainer.evaluate(test, load_best_model=False) for _ in range(rounds)]
    levels = job.trainer.evaluator.chance()
    known = {name for name, value in results[0].items() if not math.isnan(value)}
    assert {name for name in levels if not math.isnan(levels[name])} == known
    for name in known:
        values = np.array([result[name] for result in results])
        error = values.std(ddof=1) / math.sqrt(rounds)
        assert abs(values.mean() - levels[name]) <= 4 * error + 1e-9, name


@pytest.mark.parametrize("job", [MODES["full"]], indirect=True)
def test_users_of_each_group_are_counted(job):
    job.trainer.evaluate(job.loaders[2], load_best_model=False)
    ranked = job.trainer.evaluator.ranked
    test = job.loaders[2]._dataset.inter_feat
    users, items = test["user_id"].numpy(), test["item_id"].numpy()
    assert ranked[""].users == len(np.unique(users)) == ranked["cold"].users + ranked["warm"].users
    trained = job.loaders[0]._dataset.inter_feat["item_id"].numpy()
    unseen = ~np.isin(items, trained)
    assert ranked["item_unseen"].users == len(np.unique(users[unseen]))
    assert ranked["item_unseen"].positives.sum() == unseen.sum()


def test_few_candidates_are_all_found():
    p, c = np.array([2, 3]), np.array([2, 5])
    for metric in ("recall", "hit", "map", "ndcg", "ndcg_hit", "mrr"):
        assert chance_by_user(metric, np.array([2]), np.array([2]), 5) == pytest.approx(1), metric
    assert chance_by_user("recall", p, c, 5).tolist() == [1, 1]
    assert chance_by_user("precision", p, c, 5).tolist() == [2 / 5, 3 / 5]


def test_a_metric_without_a_rule_has_no_level_and_neither_has_an_empty_group():
    one = np.array([1])
    assert set(Ranked(1, one, one + 9).chance(["recall", "firsthit"], [3])) == {"recall@3"}
    assert Ranked(0, one[:0], one[:0]).chance(["recall"], [3]) == {}
