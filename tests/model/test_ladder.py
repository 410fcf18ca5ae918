"""The rungs of Table III: each adds one component to the one before."""

from __future__ import annotations

import pytest

from recbole_cierec.config import Config
from recbole_cierec.model.mf_image import MF_Image
from recbole_cierec.model.vbpr import VBPR
from recbole_cierec.quick_start import prepare

RUNGS = ("CIERec_Base", "CIERec_CI", "CIERec_CI_TA", "CIERec_CI_TA_GR", "CIERec")


def job_of(tiny, rung: str, backbone: str):
    return prepare(Config(rung, "tiny", None, tiny(backbone=backbone), {}))


@pytest.mark.parametrize(("backbone", "base"), [("MF", MF_Image), ("VBPR", VBPR)])
def test_the_base_is_the_backbone_on_pictures(make, backbone, base):
    assert type(make("CIERec_Base", backbone=backbone)[-1]) is base


@pytest.mark.parametrize("backbone", ["MF", "VBPR"])
def test_each_rung_has_one_component_more(tiny, backbone):
    found = []
    for rung in RUNGS[1:]:
        job = job_of(tiny, rung, backbone)
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
