"""Cold, warm and all users against a plain numpy count of hits."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from recbole.trainer import Trainer
from recbole.utils import init_seed

from recbole_cierec.config.config import Config
from recbole_cierec.errors import ConfigError, DataError
from recbole_cierec.evaluation.groups import ItemGroups, UserGroups
from recbole_cierec.quick_start import prepare


def reference(scores, positives, history, k):
    """Recall@k and NDCG@k of one user by sorting all items."""
    scores = scores.copy()
    scores[0] = -np.inf
    scores[list(history)] = -np.inf
    top = np.argsort(-scores, kind="stable")[:k]
    hits = np.array([i in positives for i in top])
    ideal = (1 / np.log2(np.arange(2, min(len(positives), k) + 2))).sum()
    return hits.sum() / len(positives), (hits / np.log2(np.arange(2, k + 2))).sum() / ideal


def by_user(part):
    users = part.inter_feat["user_id"].numpy()
    items = part.inter_feat["item_id"].numpy()
    return {int(u): set(items[users == u].tolist()) for u in np.unique(users)}


@pytest.mark.parametrize("count", ["test", "train", "total"])
@pytest.mark.parametrize("name", ["VBPR", "BPR"])
def test_groups_equal_a_numpy_reference(tiny, name, count):
    boundary = {"test": 3, "train": 6, "total": 11}[count]
    keys = tiny(user_group_count=count, user_group_boundary=boundary)
    keys |= {"topk": [5], "valid_metric": "Recall@5"}
    config = Config(name, "tiny", None, keys, {})
    job = prepare(config)
    test = job.loaders[2]
    job.trainer.fit(*job.loaders[:2], saved=False)
    result = job.trainer.evaluate(test, load_best_model=False)
    parts = [by_user(loader._dataset) for loader in job.loaders]
    sizes = {"test": [2], "train": [0], "total": [0, 1, 2]}[count]
    job.model.eval()
    groups = {"all": [], "cold": [], "warm": []}
    for user, positives in parts[2].items():
        history = set().union(*(p.get(user, set()) for p in parts[:2]))
        with torch.no_grad():
            row = job.model.full_sort_predict({"user_id": torch.tensor([user])})
        values = reference(row.numpy().reshape(-1), positives, history, 5)
        total = sum(len(parts[k].get(user, ())) for k in sizes)
        for group in ("all", "cold" if total <= boundary else "warm"):
            groups[group].append(values)
    assert groups["cold"]
    assert groups["warm"]
    for group, values in groups.items():
        suffix = "" if group == "all" else f"_{group}"
        recall, ndcg = np.mean(values, axis=0)
        assert result[f"recall@5{suffix}"] == pytest.approx(recall, abs=1e-6)
        assert result[f"ndcg@5{suffix}"] == pytest.approx(ndcg, abs=1e-6)


def test_an_item_at_the_boundary_is_rare():
    groups = ItemGroups(np.array([0, 1, 5, 6, 90]), 5)
    assert groups.of.tolist() == [0, 1, 1, 2, 2]  # unseen, rare, common
    assert groups.unseen.tolist() == [True, False, False, False, False]


def test_sampled_candidates_have_groups_too(tiny):
    keys = tiny(eval_args={"mode": "uni10"}, user_group_boundary=3)
    job = prepare(Config("VBPR", "tiny", None, keys, {}))
    job.trainer.fit(*job.loaders[:2], saved=False)
    result = job.trainer.evaluate(job.loaders[2], load_best_model=False)
    cold = job.trainer.evaluator.shares["cold"]
    mixed = cold * result["recall@10_cold"] + (1 - cold) * result["recall@10_warm"]
    assert mixed == pytest.approx(result["recall@10"], abs=1e-5)


@pytest.mark.parametrize("mode", ["full", "uni10", "pop10"])
@pytest.mark.parametrize("name", ["BPR", "VBPR", "SASRec", "GRU4Rec"])
def test_recboles_modes_say_what_recboles_own_trainer_says(tiny, name, mode):
    keys = tiny(eval_args={"mode": mode}, topk=[5], metrics=["Recall", "NDCG", "MRR", "Hit"])
    keys |= {"valid_metric": "Recall@5", "hidden_size": 8, "embedding_size": 8}
    job = prepare(Config(name, "tiny", None, keys, {}))
    job.trainer.fit(*job.loaders[:2], saved=False)

    def said(trainer):
        init_seed(7, True)  # candidates are drawn again in each evaluation
        return trainer.evaluate(job.loaders[2], load_best_model=False)

    ours, theirs = said(job.trainer), said(Trainer(job.config, job.model))
    assert theirs["hit@5"] > 0
    assert {key: ours[key] for key in theirs} == theirs


@pytest.mark.parametrize(
    ("keys", "group"),
    [
        ({"user_group_boundary": 1000}, "warm"),
        ({"user_group_boundary": 0, "eval_args": {"mode": "user10"}}, "cold"),
        ({"item_group_boundary": 1000}, "item_common"),
    ],
)
def test_a_validation_metric_of_an_empty_group_is_refused_before_training(tiny, keys, group):
    config = Config("MF", "tiny", None, tiny(**keys, valid_metric=f"Recall@10_{group}"), {})
    with pytest.raises(DataError, match=f"no positive in the group '{group}'.*_group_boundary"):
        prepare(config)


@pytest.mark.parametrize("name", ["cold", "warm", "item_unseen", "item_rare", "among_cold"])
def test_only_groups_that_validation_reports_as_nan_are_refused(tiny, name):
    made = {"user_group_boundary": 3, "cold_item_views": True, "epochs": 1}
    job = prepare(Config("MF", "tiny", None, tiny(**made), {}))
    result = job.trainer.evaluate(job.loaders[1], load_best_model=False)
    keys = tiny(**made, valid_metric=f"Recall@10_{name}")
    if np.isnan(result[f"recall@10_{name}"]):
        with pytest.raises(DataError, match=f"'{name}'"):
            prepare(Config("MF", "tiny", None, keys, {}))
    else:
        prepare(Config("MF", "tiny", None, keys, {}))


def test_a_validation_metric_that_is_nan_ends_the_run(tiny, monkeypatch):
    job = prepare(Config("MF", "tiny", None, tiny(), {}))
    nan = {"recall@10": float("nan")}
    monkeypatch.setattr(job.trainer, "evaluate", lambda *_, **__: nan)
    with pytest.raises(ConfigError, match=r"valid_metric 'Recall@10' is nan on tiny"):
        job.trainer.fit(*job.loaders[:2])


def test_masks_part_the_users():
    groups = UserGroups(np.array([0, 3, 4, 9]), 3)
    masks = groups.masks(np.array([1, 2, 3]))
    assert masks["cold"].tolist() == [True, False, False]
    assert masks["warm"].tolist() == [False, True, True]


@pytest.mark.parametrize("metric", ["ItemCoverage", "AveragePopularity", "GiniIndex",
                                    "ShannonEntropy", "TailPercentage"])  # fmt: skip
def test_beyond_accuracy_metrics_work(tiny, metric):
    keys = tiny(metrics=["Recall", metric], topk=[10])
    job = prepare(Config("MF", "tiny", None, keys, {}))
    job.trainer.fit(*job.loaders[:2], saved=False)
    result = job.trainer.evaluate(job.loaders[2], load_best_model=False)
    assert np.isfinite(result[f"{metric.lower()}@10"])
    assert np.isfinite(result[f"{metric.lower()}@10_cold"])
