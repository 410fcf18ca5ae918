"""Our yaml files: each key explained, allowed, and read by something."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import recbole

import recbole_cierec
from recbole_cierec.config.config import Config
from recbole_cierec.config.keys import model_keys, properties_dir
from recbole_cierec.config.values import CHOICES, MINIMUM
from recbole_cierec.config.yaml import read_yaml
from recbole_cierec.registry import MODELS
from recbole_cierec.tuning.ranges import read_space

PACKAGE = Path(recbole_cierec.__file__).parent
RECBOLE = Path(recbole.__file__).parent
YAML_FILES = sorted(properties_dir().rglob("*.yaml"))
SEARCH_FILES = [path for path in YAML_FILES if path.parent.name == "search"]
# Set while RecBole's Config is made, so in no yaml file; encoding has its default in RecBole's code
MADE_KEYS = {"model", "dataset", "device", "single_spec", "local_rank", "MODEL_TYPE", "encoding"}
MADE_KEYS |= {"eval_type", "strict_cold", "nproc"}


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: path.stem)
def test_yaml_of_ours_parses_and_explains_each_key(path):
    keys = read_yaml(path)
    explained = re.compile(r"\s*([\w-]+):.*?\s#\s\([a-z ]+\) \S+")
    lines = path.read_text(encoding="utf-8").splitlines()
    found = {match[1] for line in lines if (match := explained.match(line))}
    nested = {name for value in keys.values() if isinstance(value, dict) for name in value}
    assert set(keys) <= found
    assert found <= set(keys) | nested
    assert all(len(line) < 200 for line in lines)


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: path.stem)
def test_defaults_of_ours_pass_their_own_checks(path):
    values = read_yaml(path)
    ranges = path.parent.name == "search"  # there each key has the list of values to draw from
    tried = {key: value if ranges else [value] for key, value in values.items()}
    for key in values.keys() & CHOICES.keys():
        assert set(tried[key]) <= set(CHOICES[key]), key
    for key in values.keys() & MINIMUM.keys():
        assert all(value is None or value >= MINIMUM[key] for value in tried[key]), key


def test_there_is_a_yaml_file_for_each_model_of_the_table_and_no_other():
    ours = {entry.properties for entry in MODELS.values()}
    files = {path.stem for path in (properties_dir() / "model").glob("*.yaml")}
    assert ours <= files
    assert all(Config(name, "tiny")["model"] == name for name in files)


def _literal_reads(source: str) -> set[str]:
    """Literal keys of subscripts whose left side is written ``...config``."""
    return {
        node.slice.value
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Subscript)
        and isinstance(node.slice, ast.Constant)
        and ast.unparse(node.value).endswith("config")
    }


def test_every_key_that_our_package_reads_has_a_default():
    known = set(MADE_KEYS)
    recboles = [RECBOLE / "properties" / name for name in ("overall.yaml", "dataset/sample.yaml")]
    for path in [*recboles, *YAML_FILES]:
        known |= set(read_yaml(path))
    of_models = {"loss_type", "metrics_k", "pre_model_path", "train_stage"}  # of RecBole's
    assert of_models <= set(model_keys())
    known |= of_models
    read = {}
    for path in PACKAGE.rglob("*.py"):
        for key in _literal_reads(path.read_text(encoding="utf-8")):
            read.setdefault(key, path.name)
    assert len(read) > 20
    assert {key: file for key, file in read.items() if key not in known} == {}


def test_every_default_of_ours_is_read_somewhere():
    """A key that nothing reads would be a promise without a deed."""
    sources = [path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")]
    constants = {
        node.value
        for source in sources
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    recboles = set(read_yaml(RECBOLE / "properties/overall.yaml"))
    recboles |= set(read_yaml(RECBOLE / "properties/dataset/sample.yaml"))
    for path in YAML_FILES:
        found = {"search", "tuned"} & set(path.relative_to(properties_dir()).parts)
        if found and not path.stem.startswith(tuple(MODELS)):
            continue  # of a model of RecBole, which reads the keys itself
        assert set(read_yaml(path)) - recboles <= constants, path.name


def test_each_model_of_ours_and_the_usual_ones_of_recbole_have_a_search_range():
    files = {path.stem for path in SEARCH_FILES}
    assert MODELS.keys() | {"BPR", "ItemKNN", "LightGCN", "MultiVAE", "NeuMF", "SASRec"} <= files


def test_each_model_that_reads_the_loss_has_a_range_of_its_own_for_softmax():
    files = {path.stem.removesuffix("-softmax") for path in SEARCH_FILES if "-" in path.stem}
    assert files == MODELS.keys() - {"DropoutNet", "CLCRec"}  # they have losses of their own


@pytest.mark.parametrize("path", SEARCH_FILES, ids=lambda path: path.stem)
def test_a_search_range_has_keys_that_its_model_reads_and_values_that_they_take(path):
    model, _, loss = path.stem.partition("-")
    keys = {"eval_args": {"mode": "user5"}} | ({"loss": loss} if loss else {})
    config = Config(model, "tiny", None, keys)
    space = read_space(config, [path])
    assert list(space) == list(read_yaml(path))
    assert all(len(values) > 1 for values in read_yaml(path).values())
    for which in (0, -1):
        drawn = {key: values[which] for key, values in read_yaml(path).items()}
        made = Config(model, "tiny", None, {**keys, **drawn})
        assert {key: made[key] for key in drawn} == drawn
        assert not made.notes
    if loss:
        assert space.keys() <= read_space(config, [path.with_stem(model)]).keys()
        assert space.keys() & {"reg_weight"}
