"""The steps of Table III: each adds one component to the previous one."""

from __future__ import annotations

from itertools import pairwise

import pytest

from recbole_cierec.config.config import Config
from recbole_cierec.model.mf_image import MF_Image
from recbole_cierec.model.vbpr import VBPR
from recbole_cierec.quick_start import prepare
from recbole_cierec.tuning import ranges

ADDED = {  # keys of the component that each step adds
    "CIERec_CI": {"fusion", "fusion_bias", "content_projection"},
    "CIERec_CI_TA": {"gate_activation", "gate_learning_rate"},
    "CIERec_CI_TA_GR": {
        "gr_mode",
        "gr_scales",
        "gr_reward",
        "gr_learning_rate",
        "gr_fixed_scales",
        "gr_alpha",
    },
    "CIERec": {
        "lstm_input",
        "annotation_encoder",
        "token_learning_rate",
        "guidance_weight",
        "privileged_dropout",
        "annotation_at_inference",
        "alignment_weight",
    },
}
STEPS = ("CIERec_Base", "CIERec_CI", "CIERec_CI_TA", "CIERec_CI_TA_GR", "CIERec")


@pytest.mark.parametrize(("backbone", "base"), [("MF", MF_Image), ("VBPR", VBPR)])
def test_the_base_is_the_backbone_on_pictures(make, backbone, base):
    assert isinstance(make("CIERec_Base", backbone=backbone)[-1], base)


@pytest.mark.parametrize("keys", [{}, {"loss": "softmax"}], ids=str)
@pytest.mark.parametrize("dataset", ["tiny", "demo"])
@pytest.mark.parametrize("backbone", ["MF", "VBPR"])
def test_neighbouring_steps_differ_in_the_keys_of_one_component(in_tmp, backbone, dataset, keys):
    resolved = [
        dict(Config(step, dataset, None, {"backbone": backbone, **keys}, {}).final_config_dict)
        for step in STEPS
    ]
    of_data = {"gate_learning_rate"} if dataset == "demo" else set()  # its file sets it for all
    for step, (lower, upper) in zip(STEPS[1:], pairwise(resolved), strict=True):
        different = {k for k in lower.keys() | upper.keys() if lower.get(k, k) != upper.get(k, k)}
        assert different - {"model"} == ADDED[step] - of_data


def test_neighbouring_steps_are_searched_in_the_same_ranges(in_tmp):
    for keys in ({}, {"loss": "softmax"}):
        spaces = []
        for step in STEPS:
            config = Config(step, "tiny", None, keys, {})
            spaces.append(ranges.read_space(config, ranges.range_files(config)))
        for step, (lower, upper) in zip(STEPS[1:], pairwise(spaces), strict=True):
            assert {k: upper.get(k) for k in lower} == lower
            assert upper.keys() - lower.keys() <= ADDED[step]


@pytest.mark.parametrize("backbone", ["MF", "VBPR"])
def test_each_step_has_one_component_more(tiny, backbone):
    found = []
    for step in STEPS[1:]:
        job = prepare(Config(step, "tiny", None, tiny(backbone=backbone), {}))
        parts = {name.split(".")[0] for name, _ in job.model.named_parameters()}
        named = {"gates": "visual_gate", "inference": "inference_gate"}
        has = {key for key, part in named.items() if part in parts}
        has |= {"gradient gates"} if job.trainer.gates else set()
        has |= {"annotations"} if job.model.semantic.tokens is not None else set()
        found.append(has)
    gates = {"gates", "inference"}
    assert found == [
        set(),
        gates,
        gates | {"gradient gates"},
        gates | {"gradient gates", "annotations"},
    ]
