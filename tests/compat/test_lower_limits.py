"""The constraints of ``nox -s oldest`` are the lower limits of pyproject.toml."""

from __future__ import annotations

import os
import re
from importlib.metadata import PackageNotFoundError, version

import pytest
from lower_limits import PYPROJECT, lower_limits, tomllib
from packaging.requirements import Requirement
from packaging.version import Version

ARCHITECTURE = PYPROJECT.parent / "docs" / "architecture.md"

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


@pytest.mark.skipif(not ARCHITECTURE.is_file(), reason="an sdist without docs")
def test_the_page_of_architecture_has_each_dependency_with_its_limit():
    text = ARCHITECTURE.read_text(encoding="utf-8")
    table = dict(re.findall(r"^\| ([\w-]+) \| (\d[\d.]*|any) \|", text, re.M))
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    features = [text for name in ("images", "timm", "report", "serve") for text in extras[name]]
    for requirement in map(Requirement, [*project["dependencies"], *features]):
        if requirement.name != "recbole":  # two exact versions
            limit = str(requirement.specifier).removeprefix(">=") or "any"
            assert table.get(requirement.name) == limit, requirement.name


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
