"""The table of models and RecBole's look-ups over it."""

from __future__ import annotations

import subprocess
import sys
from importlib import import_module

import pytest
from recbole.config import Config as RecBoleConfig
from recbole.data import create_dataset
from recbole.trainer import NCLTrainer, TraditionalTrainer, Trainer
from recbole.utils import get_model, get_trainer
from recbole.utils.enum_type import ModelType
from scipy.sparse import dok_matrix

from recbole_cierec.config.config import Config, property_files
from recbole_cierec.errors import ConfigError
from recbole_cierec.registration import register_with_recbole
from recbole_cierec.registry import MODELS, get_model_class, load_object, recbole_model_names
from recbole_cierec.trainer.trainer import TrainerMixin
from recbole_cierec.trainer.trainer_class import get_trainer_class


@pytest.mark.parametrize("name", MODELS)
def test_each_name_leads_to_a_class_of_that_name_and_to_its_trainer(name):
    made = get_model_class(name)
    assert made.__name__ == name
    assert made.__module__.startswith("recbole_cierec.model.")
    trainer = MODELS[name].trainer
    assert trainer is None or issubclass(load_object(trainer), Trainer)


@pytest.mark.parametrize("name", ["BPR", "LightGCN", "NeuMF", "ItemKNN", "Pop", "SASRec", "FM"])
def test_recboles_models_are_found_by_their_names(name):
    assert issubclass(get_model_class(name), get_model(name))
    assert get_model_class(name).__name__ == name


@pytest.mark.skipif(hasattr(dok_matrix, "_update"), reason="this scipy breaks nothing yet")
def test_model_that_scipy_broke_comes_mended():
    assert get_model_class("LightGCN") is not get_model("LightGCN")
    assert get_model_class("BPR") is get_model("BPR")


def test_recboles_names_are_listed_without_importing_its_models():
    code = (
        "import sys; from recbole_cierec.registry import MODELS, recbole_model_names\n"
        "assert len(recbole_model_names()) > 80 and len(MODELS) > 8\n"
        "print([m for m in sys.modules if m == 'torch' or m.startswith('recbole.model')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_listed_name_of_recbole_is_a_class_of_recboles_packages():
    exported = set()
    for family in ("general", "context_aware", "sequential", "knowledge_aware"):
        exported |= set(dir(import_module(f"recbole.model.{family}_recommender")))
    assert set(recbole_model_names()) <= exported
    assert {"BPR", "SASRec", "FM", "KGAT", "Pop", "Random"} <= set(recbole_model_names())


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("LightGCNN", "LightGCN"),
        ("lightgcn", "LightGCN"),
        ("CIErec", "CIERec"),
        ("MF_Imag", "MF_Image"),
        ("VPBR", "VBPR"),
        ("bpr", "BPR"),
    ],
)
def test_misspelt_model_names_the_nearest(name, near):
    with pytest.raises(ConfigError, match=f"'{name}' is not known; did you mean '{near}'"):
        get_model_class(name)


@pytest.mark.parametrize("name", ["", "qqqqqqqqqq", "../bpr", "general_recommender.bpr", "os"])
def test_odd_model_names_are_refused_in_one_line(name):
    with pytest.raises(ConfigError, match="is not known") as caught:
        get_model_class(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["LightGBM", "XGBoost"])
def test_recboles_trees_are_refused_in_one_line(name):
    assert name not in recbole_model_names()
    with pytest.raises(ConfigError, match=f"'{name}' has no epochs .* run it with RecBole"):
        get_model_class(name)


@pytest.mark.parametrize(
    ("model", "base"),
    [("BPR", Trainer), ("Pop", TraditionalTrainer), ("NCL", NCLTrainer), ("MF", Trainer)],
)
def test_trainer_is_ours_over_recboles_own(model, base):
    chosen = get_trainer_class({"model": model, "MODEL_TYPE": _type(model)})
    assert issubclass(chosen, TrainerMixin)
    assert issubclass(chosen, base)
    assert chosen is get_trainer_class({"model": model, "MODEL_TYPE": _type(model)})


def _type(model: str) -> ModelType:
    return ModelType.TRADITIONAL if model == "Pop" else ModelType.GENERAL


@pytest.mark.parametrize("model", [name for name, entry in MODELS.items() if entry.trainer])
def test_gated_models_get_the_gated_trainer(model):
    chosen = get_trainer_class({"model": model, "MODEL_TYPE": ModelType.GENERAL})
    assert issubclass(chosen, load_object(MODELS[model].trainer))
    assert issubclass(chosen, TrainerMixin)


# -- RecBole's own look-ups --------------------------------------------------------------------


@pytest.fixture
def registered(monkeypatch):
    """RecBole with our models registered; restored after the test."""
    meta_path = sys.meta_path[:]
    register_with_recbole()
    yield
    sys.meta_path[:] = meta_path
    for module in ("recbole.trainer", "recbole.data.dataset"):
        vars(import_module(module)).pop("__getattr__", None)
    for name in MODELS:
        sys.modules.pop(f"recbole.model.general_recommender.{name.lower()}", None)


@pytest.mark.parametrize("name", MODELS)
def test_recboles_get_model_and_get_trainer_find_ours(name, registered):
    assert get_model(name) is get_model_class(name)
    expected = get_trainer_class({"model": name, "MODEL_TYPE": ModelType.GENERAL})
    assert get_trainer(ModelType.GENERAL, name) is expected


def test_registration_changes_nothing_for_recboles_models(registered):
    assert get_trainer(ModelType.GENERAL, "BPR") is Trainer
    assert get_trainer(ModelType.GENERAL, "NCL") is NCLTrainer
    assert get_trainer(ModelType.TRADITIONAL, "Pop") is TraditionalTrainer
    assert get_model("BPR").__module__ == "recbole.model.general_recommender.bpr"
    with pytest.raises(AttributeError, match="has no attribute 'NoTrainer'"):
        import_module("recbole.trainer").NoTrainer  # noqa: B018
    assert not hasattr(import_module("recbole.data.dataset"), "BPRDataset")


def test_registration_twice_is_registration_once(registered):
    before = len(sys.meta_path), vars(import_module("recbole.trainer"))["__getattr__"]
    register_with_recbole()
    assert (len(sys.meta_path), vars(import_module("recbole.trainer"))["__getattr__"]) == before


def test_registration_imports_no_model():
    code = (
        "import sys; from recbole_cierec.registration import register_with_recbole as r; r(); r()\n"
        "import importlib.util as u\n"
        "assert u.find_spec('recbole.model.general_recommender.cierec') is not None\n"
        "print([m for m in sys.modules if m.startswith('recbole_cierec.model')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_recboles_own_config_and_create_dataset_make_our_data_set(registered, tiny, monkeypatch):
    monkeypatch.setattr(RecBoleConfig, "compatibility_settings", lambda self: None)
    keys = tiny()
    config = RecBoleConfig("CIERec", "tiny", property_files("CIERec", "tiny"), keys)
    ours = Config("CIERec", "tiny", None, keys)
    assert config.model_class is get_model_class("CIERec")
    assert type(create_dataset(config)).__name__ == "VisualDataset"
    assert create_dataset(config).digest() == create_dataset(ours).digest()
