"""RecBole's classes with their patches, and the mark for a break that a version introduced."""

from __future__ import annotations

from importlib.metadata import version

import pytest
import recbole.config
import recbole.data.dataset
import recbole.trainer
from packaging.version import Version

from recbole_cierec.config.compat import ConfigCompat
from recbole_cierec.data.compat import DatasetCompat
from recbole_cierec.trainer.compat import TrainerCompat


class Config(ConfigCompat, recbole.config.Config):
    pass


class Dataset(DatasetCompat, recbole.data.dataset.Dataset):
    pass


class SequentialDataset(DatasetCompat, recbole.data.dataset.SequentialDataset):
    pass


class Trainer(TrainerCompat, recbole.trainer.Trainer):
    pass


def needs(package: str, at_least: str):
    """Skip a test of a break that a later version of a package introduced."""
    installed = version(package)
    return pytest.mark.skipif(
        Version(installed) < Version(at_least),
        reason=f"{package} {installed} does not break this yet ({at_least} does)",
    )
