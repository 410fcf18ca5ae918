"""The shipped experiments: each is valid for the models and keys of this version."""

from __future__ import annotations

import pytest

from recbole_cierec.config.properties import properties_dir
from recbole_cierec.experiment.plan import make_plan
from recbole_cierec.experiment.spec import read_experiment

QUESTIONS = {
    "gates": 27,
    "annotations-missing": 63,
    "annotations-wrong": 45,
    "annotation-length": 36,
    "pictures-missing": 63,
    "picture-quality": 27,
    "encoders": 30,
    "ids-missing": 96,
    "fusion": 18,
    "paper-figure-3": 3,
    "cierec-training": 30,
}
PLANS = {"demo": (6, 0), "paper-table-2": (36, 0), "paper-table-3": (39, 0)}
PLANS |= {name: (count, 0) for name, count in QUESTIONS.items()}
PLANS |= {"content-prior": (150, 0), "hm-week": (620, 24), "ml-100k-posters": (372, 30)}


HEADER = "user_id:token\titem_id:token\ttimestamp:float\n"


def test_all_are_known():
    assert {path.stem for path in (properties_dir() / "experiments").glob("*.yaml")} == set(PLANS)


@pytest.mark.parametrize("name", PLANS)
def test_every_model_and_key_is_accepted(name, in_tmp):
    for folder in ("hm-week", "ml-100k-posters"):
        (in_tmp / folder).mkdir()
        (in_tmp / folder / f"{folder}.inter").write_text(HEADER)
    experiment = read_experiment(name)
    if any(dataset.name != "demo" for dataset in experiment.datasets):
        experiment = read_experiment(name, {"data_path": str(in_tmp)})
    plan = make_plan(experiment)
    assert (len(plan.runs), len(plan.searches)) == PLANS[name]


def test_the_x_axis_is_the_key_that_varies():
    assert {model.varied for model in read_experiment("annotations-wrong").models} == {
        "annotations_wrong"
    }
    assert {model.varied for model in read_experiment("gates").models} == {""}


def test_the_steps_of_the_ablation_share_all_settings_but_the_backbone():
    ablation = read_experiment("paper-table-3")
    assert ablation.budget is None
    steps = [model for model in ablation.models if model.name.startswith("CIERec")]
    assert {str(model.keys) for model in steps} == {"{'backbone': 'MF'}", "{'backbone': 'VBPR'}"}
    assert len(steps) == 10


def test_both_main_results_have_the_same_models_and_full_trains_nothing(in_tmp):
    one, two = (read_experiment(name) for name in ("hm-week", "ml-100k-posters"))
    assert [(m.label, m.keys) for m in one.models] == [(m.label, m.keys) for m in two.models]
    assert one.protocols == two.protocols
    (in_tmp / "hm-week").mkdir()
    (in_tmp / "hm-week" / "hm-week.inter").write_text(HEADER)
    few = [model for model in one.models if model.label in ("Pop", "VBPR, softmax")]
    plan = make_plan(type(one)(**{**vars(one), "models": tuple(few), "given": {"data_path": "."}}))
    assert [run.protocol for run in plan.runs if run.leader is not None] == ["full"] * 10
    assert len(plan.searches) == 1
