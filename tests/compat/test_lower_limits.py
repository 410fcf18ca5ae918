"""The constraints of ``nox -s oldest`` are the lower limits of pyproject.toml."""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version

import pytest
from lower_limits import PYPROJECT, lower_limits
from packaging.version import Version

pytestmark = pytest.mark.skipif(not PYPROJECT.is_file(), reason="needs a checkout")


def test_every_lower_limit_is_a_constraint(tmp_path):
    path = tmp_path / "pyproject.toml"
    path.write_text(
        '[project]\ndependencies = ["b>=1.5", "A[x]>=2,<3; python_version<\'4\'", "c==1", "d"]\n'
        '[project.optional-dependencies]\nsome = ["e>=0.1", "b>=1.5"]\n'
    )
    assert lower_limits(path) == ["a==2", "b==1.5", "e==0.1"]
    path.write_text('[project]\ndependencies = ["b>=1.5", "b>=1.6"]\n')
    with pytest.raises(ValueError, match=r"b: >=1.5 and >=1.6"):
        lower_limits(path)


@pytest.mark.skipif(
    "RECBOLE_CIEREC_OLDEST" not in os.environ, reason="only in the environment of nox -s oldest"
)
@pytest.mark.parametrize("line", lower_limits() if PYPROJECT.is_file() else [])
def test_the_oldest_environment_has_these_versions(line):
    name, limit = line.split("==")
    try:
        installed = Version(version(name))
    except PackageNotFoundError:
        pytest.skip(f"{name} is not installed")
    assert Version(installed.public) == Version(limit)
