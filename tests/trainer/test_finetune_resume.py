"""Training on pictures, stopped and resumed, equals uninterrupted training, bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from recbole_cierec import run
from recbole_cierec.files.checkpoint import read_checkpoint

WAYS = [
    # The memory is measured again after resuming; results must not depend on the time of it.
    {"augmentation": "crop_flip", "encoder_batch_size": 7},
    {"augmentation": "flip", "encoder_memory": 0, "encoder_precision": "bfloat16"},
    {"encoder_freeze_until": "features.6"},
]


@pytest.mark.parametrize("keys", WAYS, ids=lambda keys: "-".join(map(str, keys.values())))
def test_one_epoch_resumed_for_another_equals_two(pictured, keys):
    keys = {"encoder_training": "finetune", **keys}
    whole = run("CIERec", "tiny", config_dict=pictured(epochs=2, **keys))
    half = run("CIERec", "tiny", config_dict=pictured(epochs=1, **keys))
    file = str(Path(half["checkpoint"]).with_suffix(".last.pth"))
    rest = run("CIERec", "tiny", config_dict=pictured(epochs=2, resume=file, **keys))
    first, second = (
        read_checkpoint(Path(result["checkpoint"]).with_suffix(".last.pth"))
        for result in (whole, rest)
    )
    assert first["epoch"] == second["epoch"] == 1
    assert first["state_dict"].keys() == second["state_dict"].keys()
    for name, value in first["state_dict"].items():
        assert torch.equal(value, second["state_dict"][name]), name
    assert torch.equal(first["rng"]["torch"], second["rng"]["torch"])
    assert rest["test_result"] == whole["test_result"]
