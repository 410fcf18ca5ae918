from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from tune_helpers import write_two_tastes

from recbole_cierec.trainer.trainer import TrainerMixin


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tastes")
    write_two_tastes(folder)
    return folder


@pytest.fixture
def fits(monkeypatch) -> list[str]:
    """The models that were trained."""
    trained: list[str] = []
    plain = TrainerMixin._train_epoch

    def counted(self, train_data, epoch_idx, *args, **kwargs):
        if epoch_idx == 0:
            trained.append(self.config["model"])
        return plain(self, train_data, epoch_idx, *args, **kwargs)

    monkeypatch.setattr(TrainerMixin, "_train_epoch", counted)
    return trained
