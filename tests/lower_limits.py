"""The oldest versions that pyproject.toml allows, as constraints for pip.

``python tests/lower_limits.py`` prints them; ``nox -s oldest`` installs them.
"""

from __future__ import annotations

import sys
from pathlib import Path

from packaging.requirements import Requirement

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PYPROJECT = Path(__file__).resolve().parents[1] / "pyproject.toml"


def lower_limits(path: Path = PYPROJECT) -> list[str]:
    """A line ``name==version`` for each lower limit of the dependencies and of all extras.

    Args:
        path: The pyproject.toml.

    Returns:
        The lines, sorted, each once. Packages without a limit, or with an exact version, have none.

    Raises:
        ValueError: Two limits of one package differ.
    """
    project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    extras = project.get("optional-dependencies", {}).values()
    limits: dict[str, str] = {}
    for text in [*project["dependencies"], *(text for extra in extras for text in extra)]:
        requirement = Requirement(text)
        for specifier in requirement.specifier:
            if specifier.operator == ">=":
                version = limits.setdefault(requirement.name.lower(), specifier.version)
                if version != specifier.version:
                    raise ValueError(f"{requirement.name}: >={version} and {specifier}")
    return sorted(f"{name}=={version}" for name, version in limits.items())


if __name__ == "__main__":
    print("\n".join(lower_limits()))
