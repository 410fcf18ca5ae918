"""Packages and their folders; everything else about the distribution is in pyproject.toml.

``properties`` and ``dataset_converters`` are folders at the top of the repository, as in RecBole's
other plug-ins, but they are installed *inside* ``recbole_cierec``: top-level packages with such
common names would collide with those of other projects. The map below does that for wheels and for
editable installations (``pip install -e .``) alike.
"""

from setuptools import find_packages, setup

OUTSIDE = {
    "recbole_cierec.properties": "properties",
    "recbole_cierec.dataset_converters": "dataset_converters",
}
INSIDE = find_packages("dataset_converters")
BELOW = [f"recbole_cierec.dataset_converters.{name}" for name in INSIDE]

setup(
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
