"""Packages, their folders and the long description; all else is in pyproject.toml.

``properties`` and ``dataset_converters`` are folders at the top of the repository, as in RecBole's
other plug-ins, but they are installed *inside* ``recbole_cierec``: top-level packages with such
common names would collide with those of other projects. The map below does that for wheels and for
editable installations (``pip install -e .``) alike.
"""

import re
from pathlib import Path

from setuptools import find_packages, setup

OUTSIDE = {
    "recbole_cierec.properties": "properties",
    "recbole_cierec.dataset_converters": "dataset_converters",
}
INSIDE = find_packages("dataset_converters")
BELOW = [f"recbole_cierec.dataset_converters.{name}" for name in INSIDE]

HERE = Path(__file__).resolve().parent
_RELATIVE = r"\((?!\w+:|#)([^)]+)\)"  # the target of a link into the repository


def long_description() -> str:
    """README.md for a package index, where a link into the repository leads nowhere.

    With a line ``Repository = "https://..."`` in pyproject.toml such links become absolute. Without
    one their text stays, and pictures go, each with the caption below it.
    """
    text = (HERE / "README.md").read_text(encoding="utf-8")
    project = (HERE / "pyproject.toml").read_text(encoding="utf-8")
    if found := re.search(r'^Repository = "(https://[^"]+?)/?"', project, re.M):
        text = re.sub(rf"(!\[[^\]]*\]){_RELATIVE}", rf"\1({found[1]}/raw/HEAD/\2)", text)
        return re.sub(rf"(\[[^\]]*\]){_RELATIVE}", rf"\1({found[1]}/blob/HEAD/\2)", text)
    text = re.sub(rf"!\[[^\]]*\]{_RELATIVE}\n\n(\*[^*]+\*\n\n)?", "", text)
    return re.sub(rf"\[([^\]]*)\]{_RELATIVE}", r"\1", text)


setup(
    long_description=long_description(),
    long_description_content_type="text/markdown",
    packages=[*find_packages(include=["recbole_cierec", "recbole_cierec.*"]), *OUTSIDE, *BELOW],
    package_dir=OUTSIDE,
    include_package_data=False,  # setuptools would take folders of data for forgotten packages
    package_data={
        "recbole_cierec": ["py.typed"],  # type checkers read the hints
        "recbole_cierec.report": ["templates/*"],
        "recbole_cierec.properties": ["**/*.yaml"],
        "recbole_cierec.serving.web": ["static/*"],
    },
)
