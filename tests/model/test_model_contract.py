"""Properties of every model of this package; a new model adds one line to MODELS.

``pytest --device=cuda tests/model/test_model_contract.py`` checks them on a GPU.
"""

from __future__ import annotations

import copy
import logging

import numpy as np
import pytest
import torch
from model_helpers import shaken
from oracle import Oracle
from oracle_alignrec import AlignRecOracle
from oracle_content_prior import ContentPriorOracle
from oracle_graphs import FreedomOracle, MgcnOracle
from oracle_hafr import HafrOracle
from oracle_pinet import PiNetOracle
from oracle_stages import (
    AdversarialOracle,
    CLCRecOracle,
    DropoutNetOracle,
    random_stage,
    tame,
)
from oracle_vecf import VecfOracle
from recbole.data.interaction import Interaction
from recbole.utils import init_seed

from recbole_cierec.config.config import Config
from recbole_cierec.model.base import scoring
from recbole_cierec.registry import MODELS as REGISTERED
from recbole_cierec.registry import get_model_class
from recbole_cierec.vision.item_pictures import pictures_of

# Small, and without random draws in training.
TOWERS = {"mlp_hidden_size": [7], "user_dropout": 0, "item_dropout": 0, "target_pairs": "batch"}
CONTRASTS = {"contrastive_negatives": 4, "content_hidden_size": 5, "temperature": 0.2}
VARIANTS = [
    ("MF", {}),
    ("VBPR", {}),
    ("VBPR", {"encoder_training": "adapter"}),
    ("MF_Image", {}),
    ("MF_Semantics", {}),
    ("MF_Content", {}),
    ("MF_Content", {"use_ids": False}),
    ("MF_Content", {"use_image": False}),
    ("MF_Content", {"use_annotations": False, "encoder_training": "adapter"}),
    ("DeepStyle", {}),
    ("HAFR", {}),
    ("HAFR", {"encoder_training": "adapter"}),
    ("HAFR_non_i", {}),
    ("HAFR_non_i", {"non_i_reading": "attention"}),
    ("VECF", {}),
    ("VECF", {"merge": "mul"}),
    ("VECF", {"merge": "concat", "caption_weight": 0.3}),
    ("VECF", {"scorer": "mlp"}),
    ("PiNet", {}),
    ("PiNet", {"gate_activation": "sigmoid", "positive_weight": 3.0, "semantic_weight": 0.3}),
    ("PiNet", {"prior_frequency": False, "encoder_training": "frozen"}),
    ("AlignRec", {}),
    ("AlignRec", {"attention_blocks": 2, "image_tokens": 2, "content_layers": 2}),
    ("AlignRec", {"align_weight": 0.5, "cosine_weight": 0.7, "similarity_weight": 2.0}),
    ("FREEDOM", {}),
    ("FREEDOM", {"content_layers": 2, "edge_dropout": 0.3, "picture_share": 0.6}),
    ("FREEDOM", {"use_annotations": False, "encoder_training": "adapter"}),
    ("MGCN", {}),
    ("MGCN", {"content_layers": 2, "align_weight": 0.5, "encoder_training": "adapter"}),
    ("MGCN", {"use_annotations": False}),
    ("ContentPrior", {}),
    ("ContentPrior", {"use_history": False, "encoder_training": "adapter"}),
    ("ContentPrior", {"use_annotations": False, "neighbours_count": 3}),
    ("ContentPrior", {"use_image": False, "unseen_bias": 0.4}),
    ("ContentPrior", {"use_ids": False, "neighbour_weight": 0.0}),
    ("AMF", {"adv_eps": 0.2}),
    ("AMF", {"perturb": "item"}),
    ("AMR", {"embedding_size": 6}),
    ("AMR", {"embedding_size": 6, "encoder_training": "adapter"}),
    ("DropoutNet", TOWERS),
    ("DropoutNet", TOWERS | {"use_annotations": True, "encoder_training": "adapter"}),
    ("CLCRec", CONTRASTS),
    ("CLCRec", CONTRASTS | {"use_annotations": True, "encoder_training": "adapter"}),
    ("CIERec_Base", {}),
    ("CIERec_Base", {"backbone": "VBPR"}),
    ("CIERec_CI", {}),
    ("CIERec_CI", {"backbone": "VBPR"}),
    ("CIERec_CI_TA", {}),
    ("CIERec_CI_TA", {"backbone": "VBPR"}),
    ("CIERec_CI_TA_GR", {}),
    ("CIERec_CI_TA_GR", {"backbone": "VBPR"}),
    ("CIERec", {}),
    ("CIERec", {"backbone": "VBPR"}),
    ("CIERec", {"backbone": "VBPR", "content_projection": "none"}),
    ("CIERec", {"gate_activation": "sigmoid"}),
    ("CIERec", {"lstm_input": "concat"}),
    ("CIERec", {"annotation_encoder": "sequence"}),
    ("CIERec", {"fusion": "sum"}),
    ("CIERec", {"fusion": "gated", "backbone": "VBPR"}),
    ("CIERec", {"encoder_training": "frozen"}),
    ("CIERec", {"embedding_size": 2, "backbone": "VBPR"}),  # ranked by the maps M and N
]
OVER_REGIONS = {"VECF"}
OWN_LOSS = {"DropoutNet", "CLCRec"}  # models whose method fixes the loss
OVER_GRAPHS = {
    "AlignRec",
    "ContentPrior",
    "FREEDOM",
    "MGCN",
}  # they reach users and items outside the batch


def variants_of(chosen):
    ids = ["-".join([name, *map(str, keys.values())]) for name, keys in chosen]
    return pytest.mark.parametrize(("name", "keys"), chosen, ids=ids)


every_variant = variants_of(VARIANTS)
every_ranking_variant = variants_of([v for v in VARIANTS if v[0] not in OWN_LOSS])
ANNOTATED = {"CIERec", "MF_Semantics", "MF_Content"}  # models that read annotations in training
LOSSES = pytest.mark.parametrize("loss", ["bpr", "softmax"])
NO_DROPOUT = {"privileged_dropout": 0.0, "id_dropout": 0.0, "dropout_prob": 0.0}
# alpha and beta_u cancel in both losses and in rankings: their gradient is zero by construction.
CANCEL = {"global_bias", "user_bias.weight"}


def test_every_registered_model_is_under_the_contract():
    assert {name for name, _ in VARIANTS} == set(REGISTERED)


@pytest.fixture(scope="module")
def data_sets():
    """The data set of each model and its training part, which no model changes."""
    return {}


@pytest.fixture
def make(make, tiny, data_sets):
    """As conftest's, with the data sets shared and the vectors that DropoutNet needs."""

    def build(name, **keys):
        if name not in data_sets:
            data_sets[name] = make(name)[1:3]
        if name in OVER_REGIONS:
            keys["features_file"] = tiny()["features_file"].replace("features", "regions")
        config = Config(name, "tiny", None, tiny(**keys), {})
        dataset, train = data_sets[name]
        init_seed(config["seed"], True)
        model = get_model_class(name)(config, train)
        if name == "DropoutNet":
            model.start_from(random_stage(model))
        model.to(config["device"])
        return config, dataset, train, model

    return build


def shake(model, seed=3):
    """Random weights everywhere except in the padding's token vector."""
    for name, parameter in shaken(model, seed=seed).named_parameters():
        if name.endswith(("semantic.tokens.weight", "token_embedding.weight")):
            parameter.data[0] = 0.0
    return model.eval()


ORACLES = {"HAFR": HafrOracle, "HAFR_non_i": HafrOracle, "VECF": VecfOracle}
ORACLES |= {"AMF": AdversarialOracle, "AMR": AdversarialOracle}
ORACLES |= {"DropoutNet": DropoutNetOracle, "CLCRec": CLCRecOracle}
OPTIONS = {  # keys that the oracle of one model reads
    "AMF": ("adv_eps", "adv_weight", "perturb"),
    "AMR": ("adv_eps", "adv_weight"),
    "CIERec": ("guidance_weight",),
    "CLCRec": ("temperature", "contrastive_negatives", "contrastive_weight"),
}
ORACLES |= {"PiNet": PiNetOracle, "AlignRec": AlignRecOracle}
ORACLES |= {"ContentPrior": ContentPriorOracle, "FREEDOM": FreedomOracle, "MGCN": MgcnOracle}


def oracle_of(config, dataset, train, model):
    content = dataset.content
    tokens = [[int(t) for t in row if t > 0] for row in content.tokens]
    counts = np.bincount(train.inter_feat["item_id"].numpy(), minlength=model.n_items)
    keys = ("gate_activation", "lstm_input", "annotation_encoder", "fusion", "backbone")
    keys += ("annotation_at_inference",)
    name = type(model).__name__.removeprefix("Picture")  # CIERec_Base's backbone
    options = {k: config[k] for k in (*keys, *OPTIONS.get(name, ()))} | {"name": name}
    users, items = (train.inter_feat[f].tolist() for f in ("user_id", "item_id"))
    options["interactions"] = list(zip(users, items, strict=True))
    if name == "VECF":
        options |= {k: config[k] for k in ("merge", "vecf_loss", "caption_weight")}
        features = pictures_of(content).regions(torch.arange(model.n_items)).double().numpy()
    else:
        features = pictures_of(content).features.double().numpy()
    oracle = ORACLES.get(name, Oracle)
    options |= {k: config[k] for k in getattr(oracle, "KEYS", ())}
    if name == "AlignRec":
        columns = (train.inter_feat[field].tolist() for field in ("user_id", "item_id"))
        options["pairs"] = list(zip(*columns, strict=True))
    pictured = pictures_of(content).has_picture.numpy()
    return oracle(model, features, pictured, tokens, counts > 0, **options)


def pairs(model):
    numbers = (torch.arange(1, n, device=model.device) for n in (model.n_users, model.n_items))
    users, items = torch.meshgrid(*numbers, indexing="ij")
    return users.reshape(-1), items.reshape(-1)


def batch(model, size=48, seed=1):
    generator = torch.Generator().manual_seed(seed)
    draw = lambda n: torch.randint(1, n, (size,), generator=generator)  # noqa: E731
    return Interaction(
        {
            "user_id": draw(model.n_users),
            "item_id": draw(model.n_items),
            "neg_item_id": draw(model.n_items),
        }
    ).to(model.device)


def full_scores(model):
    users = torch.arange(1, model.n_users, device=model.device)
    scores = model.full_sort_predict(Interaction({"user_id": users}))
    return scores.view(len(users), model.n_items)[:, 1:]


@every_variant
def test_scores_equal_the_literal_equations(make, name, keys):
    config, dataset, train, model = make(name, **keys)
    shake(model)
    oracle = oracle_of(config, dataset, train, model)
    users, items = pairs(model)
    predicted = model.predict(Interaction({"user_id": users, "item_id": items}))
    ranked = full_scores(model).reshape(-1)
    some = np.random.default_rng(0).choice(len(users), 60, replace=False)
    special = [k for k in range(len(users)) if int(items[k]) >= model.n_items - 4][:20]
    for k in [*some, *special]:
        truth = oracle.score(int(users[k]), int(items[k]))
        assert float(predicted[k]) == pytest.approx(truth, abs=1e-5)
        assert float(ranked[k]) == pytest.approx(truth, abs=1e-5)
    torch.testing.assert_close(predicted, ranked, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("annotated", [True, False])
@pytest.mark.parametrize("keys", [{}, {"backbone": "VBPR"}, {"annotation_encoder": "sequence"}])
def test_annotations_at_inference_follow_the_key(make, keys, annotated):
    config, dataset, train, model = make("CIERec", annotation_at_inference=annotated, **keys)
    shake(model)
    oracle = oracle_of(config, dataset, train, model)
    ranked = full_scores(model)
    for u, i in [(1, 1), (2, 7), (3, 20), (4, model.n_items - 1), (5, model.n_items - 2)]:
        truth = oracle.score(u, i, annotated)
        assert float(ranked[u - 1, i - 1]) == pytest.approx(truth, abs=1e-5)


@every_variant
def test_loss_equals_the_hand_computed_one(make, name, keys):
    config, dataset, train, model = make(name, loss="bpr", reg_weight=0.03, **NO_DROPOUT, **keys)
    shake(model)
    tame(model)
    model.train()
    data = batch(model)
    loss = float(model.calculate_loss(data))
    model.eval()
    columns = [data[k].tolist() for k in ("user_id", "item_id", "neg_item_id")]
    truth = oracle_of(config, dataset, train, model).loss(*columns, 0.03, name in ANNOTATED)
    assert loss == pytest.approx(truth, abs=1e-5)


@every_ranking_variant
def test_softmax_loss_equals_the_hand_computed_one(make, name, keys):
    more = {"loss": "softmax", "reg_weight": 0.03, **NO_DROPOUT}
    config, dataset, train, model = make(name, **{**more, **keys})
    shake(model)
    oracle = oracle_of(config, dataset, train, model)
    model.train()
    data = batch(model, size=12)
    del data.interaction["neg_item_id"]  # needs no negatives of RecBole
    shared = [3, 9, int(data["item_id"][0]), 17, 30]
    model.softmax.draw = lambda width: torch.tensor(shared, device=model.device)
    columns = data["user_id"].tolist(), data["item_id"].tolist(), shared
    truth = oracle.softmax_loss(*columns, 0.03, name in ANNOTATED)
    assert float(model.calculate_loss(data).detach()) == pytest.approx(truth, abs=1e-5)


def test_privileged_dropout_of_one_trains_without_annotations(make):
    config, dataset, train, model = make("CIERec", privileged_dropout=1.0, reg_weight=0.0)
    shake(model).train()
    data = batch(model)
    loss = float(model.calculate_loss(data))
    columns = [data[k].tolist() for k in ("user_id", "item_id", "neg_item_id")]
    truth = oracle_of(config, dataset, train, model).loss(*columns, 0.0, annotated=False)
    assert loss == pytest.approx(truth, abs=1e-5)


@every_variant
@LOSSES
def test_gradient_reaches_every_parameter_and_no_other(make, name, keys, loss):
    *_, model = make(name, **{"reg_weight": 0.0, "loss": loss, **keys})
    shake(model).train()
    for k in range(4):
        model.calculate_loss(batch(model, seed=k)).backward()
    dead = {n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()}
    zero_by_construction = {n for n, p in model.named_parameters() if n in CANCEL}
    if keys.get("lstm_input") == "concat" or name in ("CIERec_CI", "CIERec_CI_TA"):
        zero_by_construction.add("semantic.cell.weight_hh")  # one time step: nothing recurs
    if name == "CIERec_CI_TA_GR":
        zero_by_construction.add("semantic.cell.weight_hh")
    # AlignRec's encoder is pretrained and frozen (test_alignrec.py has its gradients).
    zero_by_construction |= {n for n, _ in model.named_parameters() if "content_encoder" in n}
    close = {n for n, p in model.named_parameters() if n in CANCEL and p.grad is not None
             and float(p.grad.abs().max()) < 1e-6}  # fmt: skip
    assert dead | close == zero_by_construction


def rows_with_gradient(model, name: str) -> set[int]:
    """Of an embedding table; none if the model has no such table."""
    table = getattr(model, name, None)
    if table is None or table.weight.grad is None:
        return set()
    return set(table.weight.grad.any(1).nonzero().squeeze(1).tolist())


@variants_of([v for v in VARIANTS if v[0] not in OVER_GRAPHS])
@LOSSES
def test_ids_outside_the_batch_and_of_unseen_items_get_no_gradient(make, name, keys, loss):
    *_, model = make(name, **{"reg_weight": 0.0, "loss": loss, **NO_DROPOUT, **keys})
    shake(model).train()
    unseen = int((model.seen[1:] == 0).nonzero()[0]) + 1
    data = batch(model, size=3)
    data.interaction["neg_item_id"][0] = unseen
    items = set(data["item_id"].tolist() + data["neg_item_id"].tolist())
    if model.softmax is not None:
        shared = [2, 9, unseen]
        model.softmax.draw = lambda width: torch.tensor(shared, device=model.device)
        items = {*data["item_id"].tolist(), *shared}
    if name == "CLCRec":
        items = set(range(1, model.n_items))  # it draws separate negatives
    model.calculate_loss(data).backward()
    assert rows_with_gradient(model, "user_embedding") <= set(data["user_id"].tolist())
    known = {item for item in items if model.seen[item]}
    for table in ("item_embedding", "item_bias"):
        assert rows_with_gradient(model, table) <= known, table
    if name not in OWN_LOSS and hasattr(model, "item_bias"):
        assert rows_with_gradient(model, "item_bias")


frozen_only = pytest.mark.parametrize("name", ["AlignRec", "VECF"])


@frozen_only
@pytest.mark.parametrize("mode", ["frozen", "adapter", "finetune"])
def test_a_way_of_training_the_encoder_that_it_does_not_have_is_one_line_in_the_log(
    make, caplog, name, mode
):
    with caplog.at_level(logging.WARNING):
        make(name, encoder_training=mode)
    said = [record.getMessage() for record in caplog.records if "encoder_training" in record.msg]
    assert len(said) == (mode != "frozen")
    assert all(mode in line and "\n" not in line for line in said)


@frozen_only
def test_without_any_word_on_the_encoder_nothing_is_said_of_it(make, caplog, name):
    with caplog.at_level(logging.WARNING):
        make(name)
    assert "encoder_training" not in caplog.text


@every_variant
@pytest.mark.parametrize("dense_ratio", [50, 0])
def test_candidate_lists_are_scored_as_pairs(make, monkeypatch, name, keys, dense_ratio):
    """In a small catalogue (all of a user's scores at once) and in a large one (pair by pair)."""
    monkeypatch.setattr(scoring, "DENSE_RATIO", dense_ratio)
    monkeypatch.setattr(scoring, "PAIR_FLOATS", 300)  # several blocks
    *_, model = make(name, **keys)
    shake(model)
    generator = torch.Generator().manual_seed(4)
    users = torch.arange(1, model.n_users, device=model.device)
    items = torch.randint(1, model.n_items, (len(users), 9), generator=generator).to(model.device)
    lists = model.candidate_scores(Interaction({"user_id": users}), items)
    flat = {"user_id": users.repeat_interleave(9), "item_id": items.reshape(-1)}
    pairs_ = model.predict(Interaction(flat)).view_as(items)
    torch.testing.assert_close(lists, pairs_, atol=1e-5, rtol=1e-5)


@every_variant
def test_a_pair_is_scored_the_same_in_any_company(make, name, keys):
    *_, model = make(name, **keys)
    shake(model)
    users, items = pairs(model)
    alone = model.predict(Interaction({"user_id": users[7:8], "item_id": items[7:8]}))
    model.forget_items()
    among = model.predict(Interaction({"user_id": users, "item_id": items}))[7:8]
    torch.testing.assert_close(alone, among, atol=1e-6, rtol=1e-6)


@every_variant
def test_untrained_ids_of_unseen_items_do_not_touch_scores(make, name, keys):
    *_, model = make(name, **keys)
    shake(model)
    unseen = (model.seen == 0).nonzero().squeeze(1)
    unseen = unseen[unseen > 0]
    assert len(unseen) >= 2, "the data set must have unseen items for this test to say anything"
    before = full_scores(model).clone()
    with torch.no_grad():
        for table in ("item_embedding", "item_bias"):
            if hasattr(model, table):
                weight = getattr(model, table).weight
                weight[unseen] = weight[unseen.flip(0)] * 10 + 1
    model.forget_items()
    assert torch.equal(full_scores(model), before)


@every_variant
def test_some_items_score_as_among_all(make, name, keys):
    *_, model = make(name, **keys)
    shake(model)
    users, some = torch.arange(1, 6), torch.tensor([3, 1, 7])
    whole = model.full_sort_predict({"user_id": users}).view(len(users), -1)
    with torch.no_grad():
        side, user = model.all_items(), model.serving_side(users)
        for items in (some, torch.arange(len(side))):
            scores = model.block_scores(user, side.take(items))
            torch.testing.assert_close(scores, whole[:, items], atol=1e-5, rtol=1e-5)


@every_variant
def test_same_seed_gives_the_same_bits_and_another_seed_does_not(make, device, name, keys):
    def steps(seed):
        *_, model = make(name, seed=seed, **keys)
        init_seed(seed, True)
        optimizer = torch.optim.Adagrad(model.parameters(), lr=0.1)
        for k in range(3):
            optimizer.zero_grad()
            model.calculate_loss(batch(model, seed=k)).backward()
            optimizer.step()
        return full_scores(model.eval())

    first, again, other = steps(1), steps(1), steps(2)
    if device.type == "cpu":
        assert torch.equal(first, again)
    else:  # a GPU adds up gradients in any order
        torch.testing.assert_close(first, again, atol=1e-4, rtol=1e-4)
    assert float((first - other).abs().max()) > 1e-3


@every_variant
def test_saved_weights_give_the_same_scores_in_a_new_model(make, name, keys):
    *_, model = make(name, **keys)
    shake(model)
    wanted = full_scores(model)
    weights = copy.deepcopy(model.state_dict())
    *_, other = make(name, seed=99, **keys)
    other.eval()
    full_scores(other)  # fills its cache, which loading must empty
    other.load_state_dict(weights)
    assert torch.equal(full_scores(other), wanted)


@every_variant
def test_items_are_computed_anew_after_training(make, name, keys):
    *_, model = make(name, **keys)
    before = full_scores(shake(model)).clone()
    model.train()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.9)
    after = full_scores(model.eval()).clone()
    assert not torch.equal(after, before)
    model.forget_items()
    assert torch.equal(full_scores(model), after)


@every_variant
@LOSSES
def test_training_lowers_the_loss(make, name, keys, loss):
    weak = {"init_std": 0.1, "loss": loss, "dropout_prob": 0.0, "softmax_reg_weight": 0.02}
    *_, model = make(name, **{**weak, **keys})
    model.train()
    optimizer = torch.optim.Adagrad(model.parameters(), lr=0.1)
    data, losses = batch(model), []
    for _ in range(80 if name in OVER_GRAPHS else 40):  # a graph smooths what it fits
        optimizer.zero_grad()
        loss = model.calculate_loss(data)
        losses.append(float(loss))
        if losses[-1] < 0.8 * losses[0]:
            break
        loss.backward()
        optimizer.step()
    assert np.isfinite(losses).all()
    assert losses[-1] < 0.8 * losses[0]


@every_variant
@pytest.mark.parametrize("size", [1, 2])
def test_batches_of_one_and_two_train(make, name, keys, size):
    *_, model = make(name, **keys)
    model.train()
    loss = model.calculate_loss(batch(model, size=size))
    loss.backward()
    assert torch.isfinite(loss)
