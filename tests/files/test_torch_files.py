"""Files for torch that would unpack to far more than their size."""

from __future__ import annotations

import zipfile

import pytest
import torch

from recbole_cierec.errors import CheckpointError, ConfigError
from recbole_cierec.files import checkpoint
from recbole_cierec.vision.encoder_weights import read_weights


def packed(source, target):
    """The same members, compressed."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for info in old.infolist():
            new.writestr(info.filename, old.read(info), zipfile.ZIP_DEFLATED)


@pytest.mark.parametrize(
    ("read", "error"), [(read_weights, ConfigError), (checkpoint.read_checkpoint, CheckpointError)]
)
def test_packed_file_is_refused_before_torch_unpacks_it(tmp_path, monkeypatch, read, error):
    plain, bomb = tmp_path / "plain.pth", tmp_path / "bomb.pth"
    state = dict.fromkeys(checkpoint._MAY_BE_NONE)
    state |= {name: kind() for name, kind in checkpoint._PARTS.items() if isinstance(kind, type)}
    state = {"format": checkpoint.FORMAT, "weight": torch.zeros(10**6)} | (
        state if read is checkpoint.read_checkpoint else {}
    )
    torch.save(state, plain)
    assert torch.equal(read(plain)["weight"], state["weight"])
    packed(plain, bomb)
    assert bomb.stat().st_size < 20_000

    def unpack(*_, **__):
        raise AssertionError("torch has read it")

    monkeypatch.setattr(torch, "load", unpack)
    with pytest.raises(error, match=r"bomb\.pth: damaged") as caught:
        read(bomb)
    assert "\n" not in str(caught.value)


def test_weights_in_the_format_of_before_2020_are_read(tmp_path):
    torch.save(
        {"weight": torch.ones(3)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False
    )
    assert torch.equal(read_weights(tmp_path / "old.pth")["weight"], torch.ones(3))
