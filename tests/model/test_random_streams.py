"""An option has a separate random stream: all other parts start and train the same without it."""

from __future__ import annotations

import random
from itertools import pairwise

import numpy as np
import pytest
import torch
from model_helpers import rows_of

OPTIONS = [  # of each model: one setting and another that adds, drops or replaces a part
    ("CIERec", {"encoder_training": "frozen"}, {"encoder_training": "adapter"}),
    ("CIERec", {"backbone": "MF"}, {"backbone": "VBPR"}),
    ("CIERec", {"fusion": "mlp"}, {"fusion": "sum", "backbone": "VBPR"}),
    ("CIERec", {"fusion": "mlp"}, {"fusion": "gated"}),
    ("MF_Content", {}, {"use_ids": False}),
    ("MF_Content", {}, {"use_image": False}),
    ("MF_Content", {}, {"use_annotations": False}),
    ("HAFR_non_i", {}, {"non_i_reading": "attention"}),
    ("VECF", {}, {"merge": "concat"}),
    ("VECF", {}, {"scorer": "mlp"}),
    ("VECF", {}, {"caption_weight": 0}),
    ("PiNet", {}, {"encoder_training": "frozen"}),
    ("DropoutNet", {}, {"use_annotations": True}),
    ("CLCRec", {}, {"use_annotations": True}),
    ("AlignRec", {}, {"attention_blocks": 2}),
    ("FREEDOM", {}, {"use_annotations": False}),
    ("MGCN", {}, {"use_annotations": False}),
    ("ContentPrior", {}, {"use_annotations": False}),
    ("ContentPrior", {}, {"neighbour_weight": 0.0}),
    ("VBPR", {}, {"encoder_training": "adapter"}),
]
OWN = ("item_tower.", "content_in.", "content_encoder.")  # parts that an option makes larger
STEPS = ("CIERec_CI", "CIERec_CI_TA", "CIERec_CI_TA_GR", "CIERec")
PAIRS = [((name, one), (name, other)) for name, one, other in OPTIONS]
PAIRS += [((a, {}), (b, {})) for a, b in pairwise(STEPS)]
PAIRS += [(("HAFR", {}), ("HAFR_non_i", {}))]


def next_draws() -> tuple:
    return torch.rand(2).tolist(), np.random.rand(2).tolist(), random.getstate()


@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_what_two_settings_share_starts_equal_and_training_draws_the_same(make, pair):
    starts, draws = [], []
    for name, keys in pair:
        *_, model = make(name, **keys)
        starts.append(dict(model.named_parameters()))
        draws.append(next_draws())
    assert draws[0] == draws[1]
    one, other = starts
    same = {n for n in one.keys() & other.keys() if one[n].shape == other[n].shape}
    drawn = [n for n in same if len(one[n].unique()) > 1 and not n.startswith(OWN)]
    assert len(drawn) > 1
    for name in drawn:
        assert torch.equal(one[name], other[name]), name


@pytest.mark.parametrize(
    ("name", "keys"),
    [("CIERec", {"privileged_dropout": 0.0}), ("CIERec_CI", {}), ("MF_Content", {})],
)
def test_dropout_leaves_the_negatives_of_softmax_alone(make, name, keys):
    drawn = []
    for model_name, more in ((name, keys), ("MF", {})):
        *_, model = make(model_name, loss="softmax", shared_negatives=5, **more)
        data = rows_of([1, 2], [3, 4], [5, 6])
        model.train()
        kept = []
        for _ in range(3):
            _, _, rows = model.sides(data)
            kept.append(rows.items[rows.negative].tolist())
        drawn.append(kept)
    assert drawn[0] == drawn[1]
    assert len(set(map(tuple, drawn[0]))) > 1


def test_a_part_that_is_off_leaves_the_other_dropout_alone(make):
    draws = []
    for annotated in (True, False):
        *_, model = make("MF_Content", use_annotations=annotated)
        model.train().item_side(torch.arange(1, model.n_items))
        draws.append(next_draws())
    assert draws[0] == draws[1]
