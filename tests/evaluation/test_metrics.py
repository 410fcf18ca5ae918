"""Metrics against ten lines of numpy, with ties, short lists and cuts beyond the list (F26)."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from recbole_cierec.config.config import Config
from recbole_cierec.errors import NonFiniteLossError
from recbole_cierec.evaluation.candidates import Ragged
from recbole_cierec.evaluation.collector import PlanCollector, batch_candidates
from recbole_cierec.evaluation.evaluator import PlanEvaluator
from recbole_cierec.evaluation.groups import ItemGroups, UserGroups
from recbole_cierec.evaluation.plan import EvaluationPlan, View
from recbole_cierec.quick_start import prepare

N_ITEMS, TOPK = 60, [1, 5, 20]


def reference(scores, positive, k):
    """recall, ndcg, ndcg_hit, hit, precision, mrr of one row; of equal scores the left is first."""
    order = np.lexsort((np.arange(len(scores)), -scores))[:k]
    hits = positive[order].astype(float)
    gains = 1 / np.log2(np.arange(2, len(hits) + 2))
    ideal = lambda n: (1 / np.log2(np.arange(2, n + 2))).sum()  # noqa: E731
    found, dcg = hits.sum(), (hits * gains).sum()
    ndcg_hit = dcg / ideal(int(found)) if found else 0.0
    mrr = 1 / (np.argmax(hits) + 1) if found else 0.0
    total = positive.sum()
    return found / total, dcg / ideal(min(total, k)), ndcg_hit, float(found > 0), found / k, mrr


NAMES = ("recall", "ndcg", "ndcg_hit", "hit", "precision", "mrr")


@pytest.fixture
def tools(tiny):
    keys = tiny(topk=TOPK, valid_metric="Recall@5", metric_decimal_place=15)
    keys["metrics"] = ["Recall", "NDCG", "NDCG_Hit", "Hit", "Precision", "MRR"]
    config = Config("MF", "tiny", None, keys, {})
    return config, PlanCollector(config), PlanEvaluator(config)


def make_plan(positives, negatives, n_users):
    counts = np.arange(N_ITEMS) % 9
    plan = EvaluationPlan(
        UserGroups(np.arange(n_users) % 7, 3), ItemGroups(counts, 4), [View("", None, positives)]
    )
    plan.users = np.arange(n_users)
    plan.negatives["", 0] = negatives
    return plan


def evaluate(tools, plan, score_of, step=13):
    """``score_of(row, items)`` -> scores of a row's candidates."""
    _, collector, evaluator = tools
    collector.plan = evaluator.plan = plan
    for start in range(0, len(plan.users), step):
        rows = np.arange(start, min(start + step, len(plan.users)))
        items, segments = batch_candidates(plan, rows)
        scores = np.stack([score_of(r, i) for r, i in zip(rows, items, strict=True)])
        scores = torch.from_numpy(np.where(items == 0, -np.inf, scores))
        batch = {"user_id": torch.from_numpy(plan.users[rows])}
        collector.eval_batch_collect(scores, batch, torch.from_numpy(rows), segments)
    return evaluator.evaluate(collector.get_data_struct())


def random_case(rng, n_users):
    positives, negatives = [], []
    for _ in range(n_users):
        items = rng.permutation(np.arange(1, N_ITEMS))
        n_pos, n_neg = rng.integers(0, 8), rng.integers(1, 40)
        positives.append(np.sort(items[:n_pos]))
        negatives.append(items[n_pos : n_pos + n_neg])
    starts = lambda lists: np.concatenate([[0], np.cumsum([len(x) for x in lists])])  # noqa: E731
    return (
        Ragged(np.concatenate(positives), starts(positives)),
        Ragged(np.concatenate(negatives), starts(negatives)),
    )


def expected(plan, score_of, members, within=None):
    """Means over the rows of ``members`` that have positives (of the item group ``within``)."""
    _, _, lists = plan.lists()[0]
    values = {k: [] for k in TOPK}
    for r in members:
        items = lists.items.values[lists.items.starts[r] : lists.items.starts[r + 1]]
        columns = lists.columns.values[lists.columns.starts[r] : lists.columns.starts[r + 1]]
        positive = np.zeros(len(items), dtype=bool)
        positive[columns] = True
        if within is not None:
            positive &= plan.item_groups.of[items] == within
        if positive.any():
            for k in TOPK:
                values[k].append(reference(score_of(r, items), positive, k))
    return {f"{m}@{k}": np.mean(values[k], axis=0)[j] for k in TOPK for j, m in enumerate(NAMES)}


@pytest.mark.parametrize("levels", [2, 6, 1000])
def test_random_cases_equal_the_reference(tools, levels):
    rng = np.random.default_rng(levels)
    n_users = 350
    positives, negatives = random_case(rng, n_users)
    plan = make_plan(positives, negatives, n_users)
    table = rng.integers(0, levels, (n_users, N_ITEMS)).astype(float)
    score_of = lambda r, items: table[r, items]  # noqa: E731
    result = evaluate(tools, plan, score_of)
    groups = {"": np.arange(n_users)}
    for name, mask in plan.user_groups.masks(plan.users).items():
        groups[f"_{name}"] = np.flatnonzero(mask)
    for suffix, members in groups.items():
        for name, value in expected(plan, score_of, members).items():
            assert result[name + suffix] == pytest.approx(value, abs=1e-12), name + suffix
    for g, group in enumerate(("item_unseen", "item_rare", "item_common")):
        for name, value in expected(plan, score_of, groups[""], g).items():
            assert result[f"{name}_{group}"] == pytest.approx(value, abs=1e-12), group


@pytest.mark.parametrize("levels", [1, 3, 1000])
def test_gauc_of_lists_is_the_share_of_pairs_in_order(tiny, levels):
    """Equally long lists, which nothing pads, and ties, which count half."""
    keys = tiny(topk=[5], metrics=["GAUC"], valid_metric="GAUC", metric_decimal_place=15)
    config = Config("MF", "tiny", None, keys, {})
    rng, n, users = np.random.default_rng(levels), 25, np.arange(40)
    lists = np.stack([rng.permutation(np.arange(1, N_ITEMS))[:n] for _ in users])
    n_pos = 1 + users % 5  # the weight of a user
    positives = [np.sort(row[:k]) for row, k in zip(lists, n_pos, strict=True)]
    negatives = [row[k:] for row, k in zip(lists, n_pos, strict=True)]
    plan = make_plan(
        *(
            Ragged(np.concatenate(x), np.append(0, np.cumsum([len(row) for row in x])))
            for x in (positives, negatives)
        ),
        len(users),
    )
    table = rng.integers(0, levels, (len(users), N_ITEMS)).astype(float)
    tools = config, PlanCollector(config), PlanEvaluator(config)
    result = evaluate(tools, plan, lambda r, items: table[r, items])
    areas = []
    for row, ours, others in zip(table, positives, negatives, strict=True):
        apart = row[ours][:, None] - row[others]
        areas.append(np.mean((apart > 0) + 0.5 * (apart == 0)))
    assert result["gauc"] == pytest.approx(np.average(areas, weights=n_pos))


def test_equal_scores_give_chance(tools):
    rng = np.random.default_rng(0)
    n_users = 4000
    items = np.stack([rng.permutation(np.arange(1, N_ITEMS))[:41] for _ in range(n_users)])
    positives = Ragged(items[:, :1].reshape(-1), np.arange(n_users + 1))
    negatives = Ragged(items[:, 1:].reshape(-1), np.arange(n_users + 1) * 40)
    result = evaluate(tools, make_plan(positives, negatives, n_users), lambda r, i: i * 0.0, 500)
    for k in TOPK:
        chance = k / 41
        assert abs(result[f"recall@{k}"] - chance) < 4.5 * np.sqrt(chance / n_users)


BEYOND = ["ItemCoverage", "AveragePopularity", "GiniIndex", "ShannonEntropy", "TailPercentage"]
# As RecBole counts: items without training interactions are absent.
POPULARITY = Counter(item for item in range(1, N_ITEMS) for _ in range(item * item % 23))


@pytest.fixture
def beyond(tiny):
    """Tools for metrics of the recommended items."""
    keys = tiny(topk=TOPK, valid_metric="Recall@5", metric_decimal_place=15)
    keys["metrics"], keys["tail_ratio"] = ["Recall", *BEYOND], 0.25
    config = Config("MF", "tiny", None, keys, {})
    collector = PlanCollector(config)
    collector.data_struct.set("data.num_items", N_ITEMS)
    collector.data_struct.set("data.count_items", POPULARITY)
    return config, collector, PlanEvaluator(config)


def expected_beyond(lists, k):
    """The five metrics of lists of items, none of which is empty, by their definitions."""
    lists = [items[:k] for items in lists]
    shown = [item for items in lists for item in items]
    counts = np.array(sorted(shown.count(item) for item in range(1, N_ITEMS + 1)))
    shares = counts[counts > 0] / len(shown)
    places = np.arange(1, N_ITEMS + 1)
    rare = sorted(POPULARITY, key=lambda item: (POPULARITY[item], item))[: len(POPULARITY) // 4]
    return {
        "itemcoverage": len(set(shown)) / N_ITEMS,
        "averagepopularity": np.mean([np.mean([POPULARITY[i] for i in x]) for x in lists]),
        "giniindex": ((2 * places - N_ITEMS - 1) * counts).sum() / len(shown) / N_ITEMS,
        "shannonentropy": -(shares * np.log(shares)).mean(),
        "tailpercentage": np.mean(
            [np.mean([i in rare or i not in POPULARITY for i in x]) for x in lists]
        ),
    }


def check_beyond(result, lists):
    assert min(map(len, lists)) < TOPK[1]
    for k in TOPK:
        for name, value in expected_beyond(lists, k).items():
            assert result[f"{name}@{k}"] == pytest.approx(value, abs=1e-12), (name, k)


@pytest.mark.parametrize("step", [1, 13])
def test_lists_shorter_than_k_count_as_they_are_in_metrics_of_their_items(beyond, step):
    plan = make_plan(*random_case(np.random.default_rng(4), 50), 50)
    score_of = lambda r, items: (items * (r + 7)) % 61 / 61  # noqa: E731, no ties
    result = evaluate(beyond, plan, score_of, step)
    _, _, merged = plan.lists()[0]
    lists = []
    for r in np.flatnonzero(merged.columns.lengths):
        items = merged.items.values[merged.items.starts[r] : merged.items.starts[r + 1]]
        lists.append(items[np.argsort(-score_of(r, items))].tolist())
    check_beyond(result, lists)


def test_a_full_ranking_of_few_items_shows_no_others(beyond):
    _, collector, evaluator = beyond
    scores = torch.rand(9, N_ITEMS, generator=torch.Generator().manual_seed(0))
    ranked = [list(range(1 + row, 4 + 3 * row)) for row in range(9)]
    for row, items in enumerate(ranked):
        scores[row, [i for i in range(N_ITEMS) if i not in items]] = -torch.inf
    positives = torch.arange(9), torch.arange(9) + 1
    collector.eval_batch_collect(scores, {"user_id": torch.arange(9)}, *positives)
    best = [sorted(x, key=lambda i, r=r: -scores[r, i]) for r, x in enumerate(ranked)]
    check_beyond(evaluator.evaluate(collector.get_data_struct()), best)


def test_users_without_positives_do_not_count(tools):
    positives = Ragged(np.array([3]), np.array([0, 0, 1]))
    negatives = Ragged(np.array([1, 2, 1, 2]), np.array([0, 2, 4]))
    result = evaluate(tools, make_plan(positives, negatives, 2), lambda r, i: i.astype(float))
    assert result["recall@1"] == 1.0
    assert tools[2].users.tolist() == [1]


def test_scores_that_are_no_numbers_stop(tools):
    positives, negatives = random_case(np.random.default_rng(0), 5)
    with pytest.raises(NonFiniteLossError, match="MF"):
        evaluate(tools, make_plan(positives, negatives, 5), lambda r, i: i * np.nan)


@pytest.mark.parametrize("n_items", [N_ITEMS, 40_000])  # ranked by torch, and by groups of columns
def test_one_score_of_a_full_ranking_that_is_no_number_stops(tools, n_items):
    _, collector, _ = tools
    scores = torch.rand(3, n_items)
    batch = {"user_id": torch.arange(3)}
    positives = torch.tensor([0, 2]), torch.tensor([5, 7])
    collector.eval_batch_collect(scores, batch, *positives)
    scores[1, n_items // 2] = torch.nan
    with pytest.raises(NonFiniteLossError, match="MF: scores are not numbers"):
        collector.eval_batch_collect(scores, batch, *positives)


def test_a_predicted_label_that_is_no_number_stops(tiny):
    keys = tiny(eval_args={"mode": "labeled"}, metrics=["AUC"], valid_metric="AUC")
    collector = PlanCollector(Config("MF", "tiny", None, keys, {}))
    with pytest.raises(NonFiniteLossError, match="MF: scores are not numbers"):
        collector.eval_batch_collect(torch.tensor([0.5, torch.nan]), {}, None, None)


def test_a_process_that_collected_nothing_takes_part_in_the_exchange(tools, monkeypatch):
    """Two processes, of which this one has no user with a positive."""
    positives, negatives = random_case(np.random.default_rng(0), 30)
    plan = make_plan(positives, negatives, 30)
    score_of = lambda r, items: items.astype(float)  # noqa: E731
    exchanged = []

    def record(everyone, mine):
        exchanged.append(mine)
        everyone[:] = exchanged

    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "all_gather_object", record)
    others = evaluate(tools, plan, score_of)
    _, collector, evaluator = tools
    assert evaluator.evaluate(collector.get_data_struct()) == others
    assert [len(rows) for rows in exchanged] == [1, 0]


def test_an_interaction_of_a_sequence_counts_once_in_all_processes(in_tmp, monkeypatch):
    """Both have every row. Users repeat items, and histories are longer than the model reads."""
    rows = [f"u{u} i{(u * k) % 5} {k}" for u in range(1, 5) for k in range(20)]
    Path("data/again").mkdir(parents=True)
    lines = "\n".join(["user_id:token item_id:token timestamp:float", *rows])
    Path("data/again/again.inter").write_text(lines.replace(" ", "\t"))
    keys = {"data_path": "data", "MAX_ITEM_LIST_LENGTH": 3, "topk": [2], "valid_metric": "Recall@2"}
    job = prepare(Config("SASRec", "again", None, keys, {}))
    loader, trainer = job.loaders[2], job.trainer
    trainer.eval_collector.plan = trainer.evaluator.plan = loader.plan

    def evaluated():
        generator = torch.Generator().manual_seed(0)
        for interaction, _, positive_u, positive_i in loader:
            scores = torch.rand(len(interaction), loader._dataset.item_num, generator=generator)
            scores[:, 0] = -np.inf
            trainer.eval_collector.eval_batch_collect(scores, interaction, positive_u, positive_i)
        return trainer.evaluator.evaluate(trainer.eval_collector.get_data_struct())

    alone, users = evaluated(), trainer.evaluator.users
    assert len(users) == len(loader._dataset) > 4
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    both = lambda everyone, mine: everyone.__setitem__(slice(2), [mine, mine])  # noqa: E731
    monkeypatch.setattr(torch.distributed, "all_gather_object", both)
    assert evaluated() == pytest.approx(alone, nan_ok=True)
    assert trainer.evaluator.users.tolist() == users.tolist()
