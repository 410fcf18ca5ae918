"""The userN protocol from end to end: brute force per user, equal lists, repeats, all models."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from recbole.data.interaction import Interaction

from recbole_cierec.config.config import Config
from recbole_cierec.evaluation.per_user import evaluated_digest
from recbole_cierec.quick_start import prepare

MODE = {"eval_args": {"mode": "user12"}, "topk": [4], "valid_metric": "Recall@4"}


def trained(tiny, name, **keys):
    job = prepare(Config(name, "tiny", None, tiny(**{**MODE, **keys}), {}))
    job.trainer.fit(*job.loaders[:2], saved=False)
    return job


def test_part(job, phase):
    part = getattr(job.loaders[phase], "whole", job.loaders[phase]._dataset)
    users, items = (part.inter_feat[k].numpy() for k in ("user_id", "item_id"))
    return {int(u): set(items[users == u].tolist()) for u in np.unique(users)}


test_part.__test__ = False


def rows_of(plan, repeat=0):
    """user -> (candidates, positives among them)."""
    lists = {(view, r): x for view, r, x in plan.lists()}["", repeat]
    table = {}
    for r, user in enumerate(plan.users):
        items = lists.items.values[lists.items.starts[r] : lists.items.starts[r + 1]]
        columns = lists.columns.values[lists.columns.starts[r] : lists.columns.starts[r + 1]]
        table[int(user)] = (items, set(items[columns].tolist()))
    return table


@pytest.mark.parametrize("phase", [1, 2])
def test_candidates_are_all_positives_and_n_items_never_met(tiny, phase):
    job = prepare(Config("MF", "tiny", None, tiny(**MODE), {}))
    parts = [test_part(job, k) for k in range(3)]
    table = rows_of(job.loaders[phase].plan)
    assert set(table) == set(parts[phase])
    for user, (items, positives) in table.items():
        assert positives == parts[phase][user]
        others = set(items.tolist()) - positives
        assert len(others) == len(items) - len(positives) == 12
        assert not others & set().union(*(part.get(user, set()) for part in parts))
        assert 0 not in items


@pytest.mark.parametrize("name", ["VBPR", "CIERec", "BPR", "NeuMF", "ItemKNN", "MultiVAE"])
def test_results_equal_brute_force(tiny, name):
    job = trained(tiny, name, eval_repeats=3, metric_decimal_place=12)
    result = job.trainer.evaluate(job.loaders[2], load_best_model=False)
    plan = job.loaders[2].plan
    job.model.eval()
    recalls = []
    for repeat in range(3):
        values = []
        for user, (items, positives) in rows_of(plan, repeat).items():
            data = {"user_id": torch.full((len(items),), user), "item_id": torch.from_numpy(items)}
            data["item_id"] = data["item_id"].long()
            with torch.no_grad():
                scores = job.model.predict(Interaction(data)).view(-1).numpy()
            top = np.lexsort((np.arange(len(items)), -scores))[:4]
            values.append(len(positives & set(items[top].tolist())) / len(positives))
        recalls.append(np.mean(values))
    # in float32, another batch may order two nearly equal scores differently
    assert result["recall@4"] == pytest.approx(np.mean(recalls), abs=2e-3)
    assert result["recall@4_std"] == pytest.approx(np.std(recalls, ddof=1), abs=5e-3)


def test_candidates_are_the_same_for_every_model_and_batch_size(tiny):
    tables = []
    for name, keys in (("MF", {}), ("BPR", {"eval_batch_size": 50}), ("SASRec", {}), ("EASE", {})):
        job = prepare(Config(name, "tiny", None, tiny(**MODE, **keys), {}))
        tables.append(rows_of(job.loaders[2].plan))
    for other in tables[1:]:
        assert set(other) == set(tables[0])
        for user, (items, positives) in tables[0].items():
            assert items.tolist() == other[user][0].tolist()
            assert positives == other[user][1]


@pytest.mark.parametrize(
    ("keys", "lists"),
    [
        ({}, 1),
        ({"eval_repeats": 4}, 4),
        ({"cold_item_views": True, "eval_repeats": 2}, 6),
        ({"eval_args": {"mode": "user12", "split": {"COLD_ITEM": [0.7, 0.1, 0.2]}}}, 3),
        ({"eval_args": {"mode": "user12", "split": {"COLD_USER": [0.7, 0.1, 0.2]}}}, 1),
    ],
)
def test_a_batch_holds_as_many_users_as_its_size_has_lists(tiny, keys, lists):
    job = prepare(Config("MF", "tiny", None, tiny(**{**MODE, **keys}, eval_batch_size=144), {}))
    assert job.loaders[2].step == 144 // (12 * lists)


def test_another_seed_draws_other_candidates(tiny):
    one, two = (
        rows_of(prepare(Config("MF", "tiny", None, tiny(**MODE, **k), {})).loaders[2].plan)
        for k in ({}, {"candidate_seed": 1})
    )
    assert any(set(one[u][0].tolist()) != set(two[u][0].tolist()) for u in one)


def test_validation_ranks_other_lists_than_the_test(tiny):
    job = prepare(Config("MF", "tiny", None, tiny(**MODE), {}))
    drawn = [
        {u: set(items.tolist()) - found for u, (items, found) in rows_of(loader.plan).items()}
        for loader in job.loaders[1:]
    ]
    users = drawn[0].keys() & drawn[1].keys()
    assert len(users) > 10
    assert any(drawn[0][u] != drawn[1][u] for u in users)


def test_drawing_leaves_training_alone(tiny):
    """The loss of a run does not depend on how it is evaluated."""
    losses = []
    for mode in ("user12", "user5", "full"):
        job = trained(tiny, "VBPR", eval_args={"mode": mode})
        losses.append(job.trainer.train_loss_dict)
    assert losses[0] == losses[1] == losses[2]


def test_validation_takes_the_first_set_only(tiny):
    job = prepare(Config("MF", "tiny", None, tiny(**MODE, eval_repeats=4), {}))
    assert len(job.loaders[1].plan.lists()) == 1
    assert len(job.loaders[2].plan.lists()) == 4


def test_sequences_are_ranked_from_the_history_before_the_phase(tiny):
    job = prepare(Config("SASRec", "tiny", None, tiny(**MODE), {}))
    train, test = (getattr(x, "whole", x._dataset) for x in (job.loaders[0], job.loaders[2]))
    interaction, rows = next(iter(job.loaders[2]))
    parts = [test_part(job, k) for k in range(3)]
    for row, user in zip(rows.tolist(), interaction["user_id"].tolist(), strict=True):
        assert job.loaders[2].plan.users[row] == user
        seen = {i for i in interaction["item_id_list"][row].tolist() if i}
        assert not seen & parts[2][user]
        assert parts[1].get(user, set()) <= seen
    assert len(train) + len(test) < 30 * 17


def test_fewer_items_than_asked_are_said(tiny, caplog):
    with caplog.at_level("WARNING"):
        prepare(Config("MF", "tiny", None, tiny(**{**MODE, "eval_args": {"mode": "user35"}}), {}))
    lines = [r.message for r in caplog.records if "fewer than 35" in r.message]
    assert len(lines) == 2


@pytest.mark.parametrize("name", ["VBPR", "SASRec"])
def test_lists_that_are_not_kept_are_the_same_in_every_evaluation(tiny, name, monkeypatch):
    kept, drawn = (trained(tiny, name, eval_repeats=2, cold_item_views=True) for _ in range(2))
    results = [kept.trainer.evaluate(kept.loaders[2], load_best_model=False)]
    part = kept.loaders[2]._dataset
    digest = evaluated_digest(part, kept.loaders[2].plan)
    monkeypatch.setattr("recbole_cierec.evaluation.plan.KEPT_BYTES", 0)
    for _ in range(2):
        results.append(drawn.trainer.evaluate(drawn.loaders[2], load_best_model=False))
    assert results[0] == results[1] == results[2]
    assert evaluated_digest(part, drawn.loaders[2].plan) == digest
    assert not kept.loaders[2].plan.negatives
    assert len(drawn.loaders[2].plan.negatives) == 6, "nothing is kept"
