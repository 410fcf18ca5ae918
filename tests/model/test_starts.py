"""Initial values of the parts of a network (docs/models/training.md, "Scale")."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from recbole_cierec.model.base.gates import Fusion, InferenceGate
from recbole_cierec.model.base.layers import unit_linear


@pytest.mark.parametrize("parts", [2, 3])
def test_the_fusion_starts_as_the_sum_of_its_parts(parts):
    q, v, s = torch.randn(3, 5, 4)
    v = v if parts == 3 else None
    total = q + s if v is None else q + v + s
    torch.testing.assert_close(Fusion(4, parts)(q, v, s), F.leaky_relu(total, 0.01))


def test_from_a_positive_bias_the_fusion_is_linear_and_l2_holds_the_sum_of_the_parts():
    q, v, s = torch.rand(3, 5, 4) * 0.6 - 0.3  # sums above -1
    fusion = Fusion(4, 3, bias=1.0)
    torch.testing.assert_close(fusion.deviation(fusion(q, v, s)), q + v + s)
    fusion = Fusion(4, 3, "sum", bias=1.0)
    torch.testing.assert_close(fusion.deviation(fusion(q, v, s)), q + v + s)


def test_a_gate_starts_open():
    torch.manual_seed(0)
    e = F.normalize(torch.randn(50, 32))
    c = InferenceGate(32, 8)(e)
    assert float((c * e).sum(1).min()) > 0.99


def test_a_map_of_unit_rows_starts_with_outputs_of_the_gain_and_no_bias():
    torch.manual_seed(0)
    layer = unit_linear(400, 300, 0.03)
    outputs = layer(F.normalize(torch.randn(50, 400)))
    assert float(outputs.std()) == pytest.approx(0.03, rel=0.05)
    assert not layer.bias.any()


GAINED = {
    "MF_Image": ["projection.weight"],
    "VBPR": ["projection.weight"],
    "CIERec": ["visual_gate.mlp.weight", "semantic.cell.weight_ih", "content_map.weight"],
    "PiNet": ["visual_map.weight", "head.map.weight"],
}


@pytest.mark.parametrize("name", GAINED)
def test_content_init_gain_scales_the_maps_behind_unit_rows_and_nothing_else(make, name):
    starts = []
    for gain in (0.1, 0.3):
        *_, model = make(name, content_init_gain=gain, backbone="VBPR")
        starts.append(dict(model.named_parameters()))
    for key, small in starts[0].items():
        factor = 3.0 if key in GAINED[name] else 1.0
        torch.testing.assert_close(starts[1][key], factor * small)
