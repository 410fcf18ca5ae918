"""Strict cold start: what is held out, what training sees, and what the targets are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from recbole.data.interaction import Interaction

from recbole_cierec.config.config import Config
from recbole_cierec.data.dataset import create_dataset
from recbole_cierec.errors import ConfigError, DataError
from recbole_cierec.evaluation.cold_split import ColdSplit, first_times, hold_out
from recbole_cierec.quick_start import prepare
from recbole_cierec.registry import MODELS, get_model_class

PHASES = ("train", "valid", "test")
SHARE = [0.7, 0.15, 0.15]
SEQUENCE = {"hidden_size": 4, "inner_size": 4, "n_layers": 1, "n_heads": 1}


@pytest.fixture
def job(tiny):
    """``job(model, split, mode, **keys)`` -> a prepared run on the tiny data set."""

    def build(model, split, mode="user10", **extra):
        keys = tiny(eval_args={"split": split, "mode": mode}, **extra)
        if model == "SASRec":
            keys = {k: v for k, v in keys.items() if k != "embedding_size"} | SEQUENCE
        if model in ("SASRec", "BPR"):
            keys.pop("features_file")
            keys.pop("init_std")
        return prepare(Config(model, "tiny", None, keys, {}))

    return build


@pytest.fixture
def interactions(tiny_folder):
    """All of tiny.inter, in time order within a user."""
    return pd.read_csv(tiny_folder / "tiny" / "tiny.inter", sep="\t").set_axis(
        ["user", "item", "time"], axis=1
    )


def pairs(loader):
    """The set of (user, item) of a loader, external ids."""
    part = getattr(loader, "whole", loader._dataset)
    users, items = (
        part.field2id_token[f][part.inter_feat[f].numpy()] for f in ("user_id", "item_id")
    )
    return set(zip(users.tolist(), items.tolist(), strict=True))


def parts(job):
    """For each phase the set of (user, item), external ids."""
    return [pairs(loader) for loader in job.loaders]


def held_out(job, field):
    """Phase to external ids of the items or users held out for it."""
    dataset = job.loaders[0]._dataset
    names = dataset.field2id_token[field]
    return {p: set(names[dataset.cold_phase == p].tolist()) for p in (1, 2)}


def all_of(interactions, column, ids):
    chosen = interactions[interactions[column].isin(ids)]
    return set(zip(chosen["user"], chosen["item"], strict=True))


def recbole_parts(interactions, ratios):
    """RecBole's split of each user's interactions by time, written again from its description."""
    found = [set(), set(), set()]
    for user, own in interactions.groupby("user"):
        items, n = own.sort_values("time", kind="stable")["item"].tolist(), len(own)
        sizes = [0, int(ratios[1] * n), int(ratios[2] * n)]
        sizes[0] = n - sum(sizes)
        for k in (2, 1):  # an empty part takes one from training, which keeps at least one
            if sizes[0] > 1 and 0 < ratios[k] * n < 1:
                sizes[k], sizes[0] = sizes[k] + 1, sizes[0] - 1
        for k, cut in enumerate(np.cumsum(sizes)):
            found[k] |= {(user, item) for item in items[cut - sizes[k] : cut]}
    return found


@pytest.mark.parametrize("by", ["random", "newest"])
@pytest.mark.parametrize("model", ["VBPR", "BPR"])
def test_held_out_items_are_in_their_phase_and_nowhere_else(job, interactions, model, by):
    made = job(model, {"COLD_ITEM": {"share": SHARE, "by": by}})
    found, cold = parts(made), held_out(made, "item_id")
    assert [len(cold[p]) for p in (1, 2)] == [6, 6]  # of 40 items
    rest = interactions[~interactions["item"].isin(cold[1] | cold[2])]
    expected = recbole_parts(rest, [0.8, 0.1, 0.1])
    assert found[0] == expected[0]
    for p in (1, 2):
        assert found[p] == expected[p] | all_of(interactions, "item", cold[p])


def test_rest_says_how_the_others_are_split(job, interactions):
    made = job("VBPR", {"COLD_ITEM": {"share": SHARE, "rest": [2, 1, 1]}})
    cold = held_out(made, "item_id")
    rest = interactions[~interactions["item"].isin(cold[1] | cold[2])]
    assert parts(made)[0] == recbole_parts(rest, [0.5, 0.25, 0.25])[0]


def test_columns_that_are_dropped_after_the_split_do_not_disturb_it(job):
    unused = {"inter": ["timestamp"]}
    made = job("VBPR", {"COLD_ITEM": {"share": SHARE, "by": "newest"}}, unused_col=unused)
    assert "timestamp" not in made.loaders[2]._dataset.inter_feat
    assert parts(made) == parts(job("VBPR", {"COLD_ITEM": {"share": SHARE, "by": "newest"}}))


def test_newest_are_those_first_seen_last(job, interactions):
    first = interactions.groupby("item")["time"].min()
    cold = held_out(job("VBPR", {"COLD_ITEM": {"share": SHARE, "by": "newest"}}), "item_id")
    warm = set(first.index) - cold[1] - cold[2]
    assert first[list(warm)].max() <= first[list(cold[1])].min()
    assert first[list(cold[1])].max() <= first[list(cold[2])].min()


def test_hold_out_by_hand():
    counts = np.array([0, 2, 1, 0, 5, 1, 1])
    times = first_times(np.array([1, 2, 4, 5, 6, 1]), np.array([9.0, 1, 4, 3, 7, 2]), 7)
    assert times.tolist() == [np.inf, 2, 1, np.inf, 4, 3, 7]
    rule = ColdSplit("item", (2, 1, 2), "newest", 0)
    assert hold_out(counts, times, rule).tolist() == [0, 0, 0, 0, 2, 1, 2]


@pytest.mark.parametrize("kind", ["COLD_ITEM", "COLD_USER"])
@pytest.mark.parametrize("mode", ["user10", "full"])
def test_every_kind_of_model_gets_the_same_split(job, kind, mode):
    split = {kind: {"share": SHARE, "seed": 3}}
    ours, theirs, sequence = (job(model, split, mode) for model in ("VBPR", "BPR", "SASRec"))
    assert parts(ours) == parts(theirs)
    assert parts(ours)[1:] == parts(sequence)[1:]
    assert parts(sequence)[0] < parts(ours)[0]  # the first of a sequence is not a target


@pytest.mark.parametrize("split", [{"RS": [0.6, 0.1, 0.3]}, {"COLD_ITEM": SHARE},
                                   {"COLD_USER": {"share": SHARE, "history": 3}}])  # fmt: skip
def test_sequences_are_ranked_against_the_lists_of_other_models(job, split):
    general, sequence = (job(model, split, cold_item_views=True) for model in ("VBPR", "SASRec"))
    for one, other in zip(general.loaders[1:], sequence.loaders[1:], strict=True):
        assert one.plan.users.tolist() == other.plan.users.tolist()
        assert one.plan.item_groups.of.tolist() == other.plan.item_groups.of.tolist()
        for count in ("cold", "new", "known"):
            masks = [p.user_groups.masks(p.users).get(count) for p in (one.plan, other.plan)]
            assert np.array_equal(*masks)
        for (*key, left), (*_, right) in zip(one.plan.lists(), other.plan.lists(), strict=True):
            assert left.items.values.tolist() == right.items.values.tolist(), key
            assert left.columns.values.tolist() == right.columns.values.tolist(), key


@pytest.mark.parametrize("count", ["train", "total"])
def test_users_have_the_same_groups_for_sequences(job, count):
    keys = {"user_group_count": count, "user_group_boundary": {"train": 7, "total": 12}[count]}
    plans = [job(m, {"RS": [0.6, 0.1, 0.3]}, **keys).loaders[2].plan for m in ("VBPR", "SASRec")]
    cold = [plan.user_groups.masks(plan.users)["cold"] for plan in plans]
    assert 0 < cold[0].sum() < len(cold[0])
    assert np.array_equal(*cold)


def test_seeds_decide_what_is_held_out(job):
    made = [job("VBPR", {"COLD_ITEM": {"share": SHARE, "seed": s}}) for s in (1, 1, 2)]
    first, again, other = (held_out(one, "item_id") for one in made)
    assert first == again != other
    assert parts(made[0]) == parts(made[1])


def test_histories_hold_no_held_out_item_and_nothing_of_later_phases(job):
    made = job("SASRec", {"COLD_ITEM": SHARE})
    found, cold = parts(made), held_out(made, "item_id")
    general = parts(job("VBPR", {"COLD_ITEM": SHARE}))
    known = [general[0], general[0], general[0] | {p for p in found[1] if p[1] not in cold[1]}]
    for phase, loader in enumerate(made.loaders):
        part = loader._dataset  # one row per user in the ranked phases
        names = part.field2id_token
        for k in range(len(part)):
            row = part.inter_feat[k]
            user = names["user_id"][int(row["user_id"])]
            n = int(row["item_length"])
            items = row["item_id_list"].tolist()
            assert n > 0
            assert all(items[:n])
            assert not any(items[n:])
            history = {(user, item) for item in names["item_id"][items[:n]]}
            assert history <= known[phase]
            if phase:
                assert history == {pair for pair in known[phase] if pair[0] == user}


@pytest.mark.parametrize("most", [1, 3])
def test_short_histories_hold_the_last_items_that_are_not_held_out(job, interactions, most):
    general = job("VBPR", {"COLD_ITEM": SHARE})
    made = job("SASRec", {"COLD_ITEM": SHARE}, MAX_ITEM_LIST_LENGTH=most)
    assert parts(made)[1:] == parts(general)[1:]
    trained, part = parts(general)[0], made.loaders[1]._dataset
    names = part.field2id_token
    for k in range(len(part)):
        user, items = (part.inter_feat[k][f] for f in ("user_id", "item_id_list"))
        user = names["user_id"][int(user)]
        own = interactions[interactions.user == user]
        known = [item for item in own.item if (user, item) in trained][-most:]
        assert names["item_id"][items[items > 0].numpy()].tolist() == known


def test_one_interaction_is_left_out_for_sequences_as_for_others(in_tmp):
    lines = ["user_id:token\titem_id:token\ttimestamp:float"]
    counts = {f"u{n}": n for n in range(2, 7)}
    lines += [f"{user}\ti{when}\t{when}" for user, n in counts.items() for when in range(n)]
    lines += [f"other\ti{item}\t{when}" for when, item in enumerate((0, 9, 7, 8))]
    Path("few").mkdir()
    Path("few/few.inter").write_text("\n".join(lines) + "\n")
    split = {"eval_args": {"split": {"LS": "valid_and_test"}, "mode": "user1"}}
    keys = {"data_path": ".", "use_gpu": False, "topk": [1], "valid_metric": "Recall@1", **split}
    general, sequence = (
        parts(prepare(Config(model, "few", None, keys, {}))) for model in ("MF", "GRU4Rec")
    )
    last = {(user, f"i{n - 1}") for user, n in counts.items()}
    assert general[2] == last | {("other", "i8")}
    assert sequence[1:] == general[1:]
    assert sequence[0] == {pair for pair in general[0] if pair[1] != "i0"}


@pytest.mark.parametrize("most", [50, 2])
def test_lists_of_times_keep_step_with_lists_of_items(job, interactions, most):
    when = interactions.set_index(["user", "item"])["time"]
    part = job("SASRec", {"COLD_ITEM": SHARE}, MAX_ITEM_LIST_LENGTH=most).loaders[2].whole
    names = part.field2id_token
    for k in range(0, len(part), 5):
        row = part.inter_feat[k]
        user = names["user_id"][int(row["user_id"])]
        for item, time in zip(
            row["item_id_list"].tolist(), row["timestamp_list"].tolist(), strict=True
        ):
            assert time == (when[user, names["item_id"][item]] if item else 0)


@pytest.mark.parametrize("history", [0, 1, 3])
def test_first_interactions_of_new_users_are_known_and_not_asked_for(job, interactions, history):
    made = job("VBPR", {"COLD_USER": {"share": SHARE, "history": history}})
    found, cold = parts(made), held_out(made, "user_id")
    assert [len(cold[p]) for p in (1, 2)] == [5, 4]  # of 30 users
    ordered = interactions.sort_values(["user", "time"], kind="stable")
    rank = ordered.groupby("user").cumcount()
    for p in (1, 2):
        new = {pair for pair in found[p] if pair[0] in cold[p]}
        assert new == all_of(ordered[rank >= history], "user", cold[p])
        assert not {user for user, _ in found[0]} & cold[p]
    early = all_of(ordered[rank < history], "user", cold[1] | cold[2])
    assert not early & (found[0] | found[1] | found[2])
    for loader in made.loaders[1:]:  # nor is it ranked against
        names = loader._dataset.field2id_token
        lists = loader.plan.negatives["", 0].select()
        for row, user in enumerate(loader.plan.users):
            items = names["item_id"][lists.values[lists.starts[row] : lists.starts[row + 1]]]
            assert not {(names["user_id"][user], item) for item in items} & early


@pytest.mark.parametrize("mode", ["full", "uni10"])
@pytest.mark.parametrize("history", [0, 1, 3])
def test_recboles_modes_do_not_rank_first_interactions_of_new_users(
    job, interactions, mode, history
):
    made = job("VBPR", {"COLD_USER": {"share": SHARE, "history": history}}, mode)
    ordered = interactions.sort_values(["user", "time"], kind="stable")
    early = ordered.groupby("user").head(history)
    for phase, loader in enumerate(made.loaders[1:], 1):
        names = loader._dataset.field2id_token
        known = all_of(early, "user", held_out(made, "user_id")[phase])
        ranked, masked = set(), set()
        for batch in loader:
            users = names["user_id"][batch[0]["user_id"].numpy()]
            if mode == "full":
                rows, items = (side.numpy() for side in batch[1])
                masked |= set(zip(users[rows], names["item_id"][items], strict=True))
            else:
                items = names["item_id"][batch[0]["item_id"].numpy()]
                ranked |= set(zip(users, items, strict=True))
        assert not ranked & known
        assert mode != "full" or known <= masked


def test_new_users_have_their_own_columns(job):
    made = job("VBPR", {"COLD_USER": SHARE})
    made.trainer.fit(*made.loaders[:2], saved=False)
    result = made.trainer.evaluate(made.loaders[2], load_best_model=False)
    shares = made.trainer.evaluator.shares
    assert shares["new"] == pytest.approx(4 / len(made.loaders[2].plan.users))
    mixed = shares["new"] * result["recall@10_new"] + shares["known"] * result["recall@10_known"]
    assert mixed == pytest.approx(result["recall@10"], abs=1e-5)


@pytest.fixture
def scores_of(tiny):
    """``scores_of(name, split)`` -> an untrained model with random ids, and all its scores."""

    def build(name, split):
        file = Path(tiny()["features_file"])
        features = file.with_name("regions.npy" if name == "VECF" else file.name)
        keys = tiny(eval_args={"split": split}, features_file=str(features))
        config = Config(name, "tiny", None, keys, {})
        train = create_dataset(config).build()[0]
        model = get_model_class(name)(config, train).eval()
        if name == "DropoutNet":  # the vectors of a model that was trained before it
            rows = {"user": model.n_users, "item": model.n_items}
            shapes = {f"{k}_embedding.weight": (n, model.size) for k, n in rows.items()}
            model.start_from({key: torch.randn(shape) for key, shape in shapes.items()})

        def scores():
            model.forget_items()
            users = torch.arange(1, model.n_users)
            return model.full_sort_predict(Interaction({"user_id": users})).clone()

        return model, torch.from_numpy(np.flatnonzero(train.cold_phase)), scores

    return build


def id_tables(model, side):
    """Every tensor with one row per user (or item) that training computes from ids alone."""
    n = {"user": model.n_users, "item": model.n_items}[side]
    tensors = [*model.named_parameters(), *model.named_buffers()]
    names = ("embedding", "bias", "visual", "preference")
    return [
        tensor.data
        for name, tensor in tensors
        if len(tensor.shape) > 1 and len(tensor) == n
        if name.startswith(tuple(f"{side}_{kind}" for kind in names))
    ]


@pytest.mark.parametrize("side", ["item", "user"])
@pytest.mark.parametrize("name", MODELS)
def test_ids_of_the_held_out_do_not_touch_scores(scores_of, name, side):
    model, held, scores = scores_of(name, {f"COLD_{side.upper()}": SHARE})
    before = scores()
    tables = id_tables(model, side)
    assert tables
    assert before.std() > 0
    for table in tables:
        assert len(table) > held.max()
        table[held] = table[held.roll(1)] + 1  # permuted, and moved in case rows are equal
    assert torch.equal(scores(), before)


@pytest.mark.parametrize("name", ["VBPR", "BPR"])
def test_views_equal_a_brute_force_ranking(job, name):
    keys = {"topk": [5], "valid_metric": "Recall@5", "metrics": ["Recall", "NDCG"]}
    made = job(name, {"COLD_ITEM": {"share": SHARE, "rest": [1, 1, 1]}}, "full", **keys)
    made.trainer.fit(*made.loaders[:2], saved=False)
    made.model.eval()
    dataset = made.loaders[0]._dataset
    pairs = [
        np.stack([loader._dataset.inter_feat[f].numpy() for f in ("user_id", "item_id")], 1)
        for loader in made.loaders
    ]
    in_training = np.bincount(pairs[0][:, 1], minlength=dataset.item_num) > 0
    for phase in (1, 2):
        result = made.trainer.evaluate(made.loaders[phase], load_best_model=False)
        there = dataset.cold_phase != 3 - phase  # held out for the other phase: no candidates
        there[0] = False
        assert (~there).sum() == 7
        views = {"": there, "_among_cold": there & ~in_training, "_among_warm": there & in_training}
        known = np.concatenate(pairs[:phase])
        for view, allowed in views.items():
            values, by_user = [], {}
            for user in np.unique(pairs[phase][:, 0]):
                mine = pairs[phase][pairs[phase][:, 0] == user, 1]
                mine = set(mine[allowed[mine]].tolist())
                if mine:
                    with torch.no_grad():
                        scores = made.model.full_sort_predict({"user_id": torch.tensor([user])})
                    scores = scores.numpy().reshape(-1).copy()
                    scores[~allowed] = -np.inf
                    scores[known[known[:, 0] == user, 1]] = -np.inf
                    top = np.argsort(-scores, kind="stable")[:5]
                    hits = np.isin(top, list(mine))
                    gains = 1 / np.log2(np.arange(2, 7))
                    ideal = gains[: min(5, len(mine))].sum()
                    values.append((hits.sum() / len(mine), (hits * gains).sum() / ideal))
                    by_user[user] = values[-1][0]
            recall, ndcg = np.mean(values, axis=0)
            assert result[f"recall@5{view}"] == pytest.approx(recall, abs=1e-6)
            assert result[f"ndcg@5{view}"] == pytest.approx(ndcg, abs=1e-6)
            kept = made.trainer.evaluator
            expected = [by_user.get(user, np.nan) for user in kept.users]
            assert kept.per_user[f"recall@5{view}"] == pytest.approx(expected, nan_ok=True)


def test_a_view_in_which_nobody_has_a_positive_is_not_a_number(job):
    made = job("VBPR", {"COLD_ITEM": SHARE}, "full")  # warm test items of tiny are late ones
    result = made.trainer.evaluate(made.loaders[2], load_best_model=False)
    assert result["recall@10_among_cold"] > 0
    assert np.isnan(result["recall@10_among_warm"])


def test_items_held_out_for_the_other_phase_are_no_candidates(job):
    made = job("VBPR", {"COLD_ITEM": SHARE}, "user30")
    phase_of = made.loaders[0]._dataset.cold_phase
    for phase in (1, 2):
        plan = made.loaders[phase].plan
        drawn = np.unique(plan.negatives["", 0].select().values)
        assert set(phase_of[drawn].tolist()) == {0, phase}
        cold = np.unique(plan.negatives["among_cold", 0].select().values)
        assert set(cold.tolist()) <= set(np.flatnonzero(plan.item_groups.unseen).tolist())
        warm = plan.negatives["among_warm", 0].select().values
        assert not plan.item_groups.unseen[warm].any()


BAD = [
    ({"COLD_ITEM": {"shares": SHARE}}, {}, "unknown key 'shares'.*'share'"),
    ({"COLD_ITEM": [0.7, 0.3]}, {}, "COLD_ITEM share must be three shares"),
    ({"COLD_ITEM": [0.7, -0.1, 0.4]}, {}, "must be three shares"),
    ({"COLD_ITEM": [0.7, float("inf"), 0.4]}, {}, "must be three shares"),
    ({"COLD_ITEM": [0.7, 0.0, 0.3]}, {}, "must have no part of 0"),
    ({"COLD_USER": {"rest": "all"}}, {}, "rest must be three shares"),
    ({"COLD_USER": {"by": "oldest"}}, {}, "by must be random or newest, not 'oldest'"),
    ({"COLD_USER": {"history": -1}}, {}, "history must be a whole number"),
    ({"COLD_ITEM": {"seed": 1.5}}, {}, "seed must be a whole number"),
    ({"COLD_ITEMS": SHARE}, {}, "must be RS, LS, COLD_ITEM or COLD_USER, not 'COLD_ITEMS'"),
    ({"COLD_ITEM": SHARE, "RS": SHARE}, {}, "eval_args.split must be"),
    ({"COLD_ITEM": SHARE}, {"group_by": "none"}, "needs eval_args.group_by: user"),
    ({"COLD_ITEM": SHARE}, {"benchmark_filename": ["a", "b", "c"]}, "cannot divide files"),
]


@pytest.mark.parametrize(("split", "more", "message"), BAD)
def test_a_rule_that_makes_no_sense_is_refused_in_one_line(tiny, split, more, message):
    args = {"split": split, "group_by": more.pop("group_by", "user")}
    with pytest.raises(ConfigError, match=message) as caught:
        Config("VBPR", "tiny", None, tiny(eval_args=args, **more), {})
    assert "\n" not in str(caught.value)


def test_newest_needs_times(job):
    columns = {"inter": ["user_id", "item_id"]}
    split = {"COLD_ITEM": {"share": SHARE, "by": "newest"}}
    with pytest.raises(DataError, match=r"needs the column timestamp"):
        job("VBPR", split, load_col=columns)


def test_a_share_too_small_for_one_item_is_refused(job):
    with pytest.raises(DataError, match="leaves no item for validation"):
        job("VBPR", {"COLD_ITEM": [0.989, 0.001, 0.01]})
    with pytest.raises(DataError, match="leaves no user for the test"):
        job("VBPR", {"COLD_USER": [0.9, 0.099, 0.001]})
