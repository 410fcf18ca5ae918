"""Terms that keys add to a loss, and the learning rate of each part of a model."""

from __future__ import annotations

import pytest
import torch
from model_helpers import rows_of, shaken
from test_model_contract import (  # noqa: F401
    VARIANTS,
    data_sets,
    every_variant,
    make,
    variants_of,
)

# Tables of ids, which reg_weight penalises, and image encoders, which have a separate key.
IDS = {"user_embedding", "item_embedding", "user_bias", "item_bias", "user_content", "user_visual"}
ENCODERS = {"encoder", "content_encoder"}
INPUTS = {"DropoutNet", "CLCRec"}  # there token vectors are inputs next to the features, unchanged
TABLES = IDS | {"global_bias", "token_embedding", "category_embedding"}
OWN_RATES = {"DropoutNet", "AlignRec"}


def loss_of(model) -> float:
    torch.manual_seed(5)  # the same draws whatever the weights of the terms
    return float(model.train().calculate_loss(rows_of([1, 2, 3], [4, 5, 4], [6, 7, 8])).detach())


@every_variant
def test_content_reg_weight_adds_the_squares_of_the_content_matrices(make, name, keys):  # noqa: F811
    *_, model = make(name, **keys)
    shaken(model)
    without = IDS | ENCODERS | ({"token_embedding"} if name in INPUTS else set())
    squares = sum(
        float(p.detach().double().square().sum())
        for n, p in model.named_parameters()
        if p.dim() > 1 and n.split(".")[0] not in without
    )
    losses = []
    for weight in (0.0, 0.003):
        model.content_reg_weight = weight
        losses.append(loss_of(model))
    assert losses[1] - losses[0] == pytest.approx(0.003 * squares, rel=1e-3, abs=1e-5)


@variants_of([v for v in VARIANTS if v[0] not in OWN_RATES])
def test_ids_content_gates_and_encoder_have_separate_rates(make, name, keys):  # noqa: F811
    rates = {"content_learning_rate": 0.25, "encoder_learning_rate": 0.125}
    if name in ("CIERec_CI_TA", "CIERec_CI_TA_GR", "CIERec"):
        rates["gate_learning_rate"] = 0.0625
    *_, model = make(name, learning_rate=0.5, **rates, **keys)
    of_gates = rates.get("gate_learning_rate", 0.25)  # PiNet's gates learn as content
    rates = {id(p): g.get("lr", 0.5) for g in model.parameter_groups() for p in g["params"]}
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    assert len(rates) == len(trained)
    for n, p in trained.items():
        of_ids = n.split(".")[0] in TABLES or n == "semantic.tokens.weight"
        of_encoder = n.startswith("encoder.adapter.")
        of_gate = n.startswith(("visual_gate.", "inference_gate.")) and ".mlp." not in n
        others = of_gates if of_gate else 0.25
        assert rates[id(p)] == (0.5 if of_ids else 0.125 if of_encoder else others), n
