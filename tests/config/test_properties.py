"""Our yaml files: each key explained, allowed, and read by something."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
import recbole

import recbole_cierec
from recbole_cierec.config.config import Config
from recbole_cierec.config.keys import declared_by
from recbole_cierec.config.properties import model_keys, properties_dir
from recbole_cierec.config.schema import IN_YAML, KEYS, Key, Role
from recbole_cierec.config.schema.model_keys import COMMON
from recbole_cierec.config.schema.single_model_keys import OF_ONE_MODEL
from recbole_cierec.config.values import check_value
from recbole_cierec.config.yaml import read_yaml
from recbole_cierec.registry import MODELS, get_model_class
from recbole_cierec.tuning.ranges import read_space

PACKAGE = Path(recbole_cierec.__file__).parent
RECBOLE = Path(recbole.__file__).parent
EXPERIMENTS = properties_dir() / "experiments"  # no defaults; tests/experiment/test_shipped.py
YAML_FILES = sorted(set(properties_dir().rglob("*.yaml")) - set(EXPERIMENTS.glob("*")))
SEARCH_FILES = [path for path in YAML_FILES if path.parent.name == "search"]
EXPLAINED = re.compile(r"\s*([\w-]+):.*?\s#\s\(([a-z ]+)\) (\S.*)")  # key, types, sentence


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: path.stem)
def test_yaml_of_ours_parses_and_explains_each_key(path):
    keys = read_yaml(path)
    lines = path.read_text(encoding="utf-8").splitlines()
    found = {match[1] for line in lines if (match := EXPLAINED.match(line))}
    nested = {name for value in keys.values() if isinstance(value, dict) for name in value}
    assert set(keys) <= found
    assert found <= set(keys) | nested
    assert all(len(line) < 200 for line in lines)


@pytest.mark.parametrize("path", YAML_FILES, ids=lambda path: path.stem)
def test_defaults_of_ours_pass_their_own_checks(path):
    values = read_yaml(path)
    ranges = path.parent.name == "search"  # there each key has a list of values to draw from
    tried = {key: value if ranges else [value] for key, value in values.items()}
    for key, tries in tried.items():
        for value in tries:
            declared = KEYS.get(key, Key(key))
            assert check_value(declared, value, value, str(path), loose=True) == value


# -- the files and the declarations ------------------------------------------------------------


def comments(path: Path) -> dict[str, tuple[str, str]]:
    """Top-level key to the types and the sentence in its comment."""
    lines = path.read_text(encoding="utf-8").splitlines()
    found = [match for line in lines if line[:1].strip() and (match := EXPLAINED.match(line))]
    return {match[1]: (match[2], match[3]) for match in found}


def words(key: Key) -> set[str]:
    return {kind.__name__ for kind in key.types} - {"NoneType"}


OVERALL = properties_dir() / "overall.yaml"
MODEL_FILES = [properties_dir() / "model" / f"{name}.yaml" for name in MODELS]


@pytest.mark.parametrize("key", read_yaml(OVERALL))
def test_each_default_for_all_models_is_declared_with_its_types_and_its_sentence(key):
    types, sentence = comments(OVERALL)[key]
    assert set(types.split(" or ")) == words(KEYS[key])
    assert sentence == KEYS[key].about
    assert KEYS[key].default is IN_YAML
    assert KEYS[key].role is not Role.MODEL


def test_each_declared_key_of_ours_has_a_default_in_a_file():
    """And RecBole's keys in one of RecBole's files, unless optional or set by the program."""
    files = [RECBOLE / "properties/overall.yaml", RECBOLE / "properties/dataset/sample.yaml"]
    known = set(model_keys()).union(*(read_yaml(path) for path in [OVERALL, *files]))
    left = {name for name, key in KEYS.items() if not key.refused} - known
    assert left == {"model", "dataset", "encoding"}


@pytest.mark.parametrize("path", MODEL_FILES, ids=lambda path: path.stem)
def test_each_default_of_a_model_is_declared_with_its_types(path):
    """In the schema, or on the model's class."""
    own = declared_by(get_model_class(path.stem))
    for name, value in read_yaml(path).items():
        key = own.get(name) or KEYS[name]
        assert isinstance(value, key.types), name
        assert set(comments(path)[name][0].split(" or ")) == words(key), name
        shared = len([m for m in model_keys()[name] if m in MODELS]) > 1
        shared = shared or read_yaml(OVERALL).get(name, value) != value  # another default for all
        assert shared or key in (*OF_ONE_MODEL.get(path.stem, ()), *own.values()), name
    for name in own.keys() - {key.name for key in COMMON}:
        assert own[name].default == read_yaml(path)[name], name


@pytest.mark.parametrize("model", OF_ONE_MODEL)
def test_each_key_of_one_model_has_the_default_and_the_sentence_of_its_file(model):
    path = properties_dir() / "model" / f"{model}.yaml"
    values, texts = read_yaml(path), comments(path)
    for key in OF_ONE_MODEL[model]:
        assert values[key.name] == key.default, key.name
        assert texts[key.name][1] == key.about, key.name
        assert [m for m in model_keys()[key.name] if m in MODELS] == [model], key.name


def test_defaults_for_models_outside_the_package_are_those_of_most_models():
    for key in COMMON:
        files = [read_yaml(path) for path in MODEL_FILES]
        values = [values[key.name] for values in files if key.name in values]
        assert values.count(key.default) > len(values) / 2, key.name


def test_there_is_a_yaml_file_for_each_model_of_the_table_and_no_other():
    files = {path.stem for path in (properties_dir() / "model").glob("*.yaml")}
    assert MODELS.keys() <= files
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


def test_every_key_that_our_package_reads_is_declared():
    recboles = [RECBOLE / "properties" / name for name in ("overall.yaml", "dataset/sample.yaml")]
    known = set(KEYS).union(*map(read_yaml, recboles))
    of_models = {"loss_type", "metrics_k", "pre_model_path", "train_stage"}  # of RecBole's
    assert of_models <= set(model_keys())
    known |= of_models
    read: dict[str, str] = {}
    for path in PACKAGE.rglob("*.py"):
        for key in _literal_reads(path.read_text(encoding="utf-8")):
            read.setdefault(key, path.name)
    assert len(read) > 20
    assert {key: file for key, file in read.items() if key not in known} == {}


def test_every_default_of_ours_is_read_somewhere():
    """A key that nothing reads has no effect."""
    paths = [path for path in PACKAGE.rglob("*.py") if path.parent.name != "schema"]
    sources = [path.read_text(encoding="utf-8") for path in paths]
    constants = {
        node.value
        for source in sources
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    recboles = set(read_yaml(RECBOLE / "properties/overall.yaml"))
    recboles |= set(read_yaml(RECBOLE / "properties/dataset/sample.yaml"))
    for path in YAML_FILES:
        in_search = "search" in path.relative_to(properties_dir()).parts
        if in_search and not path.stem.startswith(tuple(MODELS)):
            continue  # of a model of RecBole, which reads the keys itself
        assert set(read_yaml(path)) - recboles <= constants, path.name


def test_each_model_of_ours_and_the_usual_ones_of_recbole_have_a_search_range():
    files = {path.stem for path in SEARCH_FILES}
    assert MODELS.keys() | {"BPR", "ItemKNN", "LightGCN", "MultiVAE", "NeuMF", "SASRec"} <= files


def test_each_model_that_reads_the_loss_has_a_range_of_its_own_for_softmax():
    files = {path.stem.removesuffix("-softmax") for path in SEARCH_FILES if "-" in path.stem}
    # DropoutNet and CLCRec fix their losses; ContentPrior is searched with its default, softmax.
    assert files == MODELS.keys() - {"DropoutNet", "CLCRec", "ContentPrior"}


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
