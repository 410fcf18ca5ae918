"""Every key of ``properties/model/`` has an effect on the trained weights or the scores."""

from __future__ import annotations

import pytest
import torch

from recbole_cierec.config.config import Config
from recbole_cierec.config.properties import properties_dir
from recbole_cierec.config.schema import KEYS
from recbole_cierec.config.yaml import read_yaml
from recbole_cierec.quick_start import prepare
from recbole_cierec.registry import MODELS

# Keys of files and of pictures, which have other tests (trainer/test_warm_start_stages.py,
# trainer/test_two_phase_trainer.py, test_pinet.py, vision/test_regions.py).
ELSEWHERE = {"pretrained", "word_vectors", "region_grid"}
# GradNorm's steps have the sign of a difference, which alpha seldom turns over in a few batches.
ELSEWHERE |= {"gr_alpha"}  # trainer/test_gradient_balance.py
# Keys with one allowed value, which differs from the default of all models; others warn.
ONLY = {("VECF", "encoder_training"), ("AlignRec", "encoder_training")}
# For models with a warm start: what they start from without one.
UNSTAGED = {("AMF", "init_std"), ("AMR", "init_std"), ("AMR", "content_init_gain")}
OTHER = {  # a second value if the type does not imply one
    "gr_scales": [0.3, 0.9],
    "gr_fixed_scales": [0.2, 0.9],
    "mlp_hidden_size": [4],
    "pretrain": {"learning_rate": 0.01},
    "category_field": "image_path",
    "embedding_size": 4,
    "content_size": 12,
    "attention_heads": 2,
}
NEEDS = {  # other keys that must be set for a key to have an effect
    "gr_fixed_scales": {"gr_mode": "fixed"},
    "content_projection": {"backbone": "VBPR"},
    "lr_decay": {"epochs": 2},
}
FEW = {"epochs": 1, "pretrain_epochs": 1, "pretrain_batch_size": 16, "lr_decay_epochs": 1}


def other_value(key: str, value):
    if key in OTHER:
        return OTHER[key]
    if KEYS[key].choices:
        return next(choice for choice in KEYS[key].choices if choice != value)
    if isinstance(value, bool):
        return not value
    return value + 1 if isinstance(value, int) else value / 2 if value else 0.25


@pytest.fixture
def outcome(tiny, monkeypatch):
    """``outcome(name, **keys)`` -> tensors after a short run of the model."""
    monkeypatch.setattr("gc.collect", lambda: 0)  # 0.3 s after each stage

    def run(name: str, **keys) -> list[torch.Tensor]:
        keys = {"embedding_size": 6, **FEW, **keys}
        if name == "VECF":
            keys |= {"features_file": tiny()["features_file"].replace("features", "regions")}
        job = prepare(Config(name, "tiny", None, tiny(**keys), {}))
        train = job.loaders[0]
        losses = job.trainer.fit(train, saved=False) and job.trainer.train_loss_dict
        model = job.model.eval()
        users = {"user_id": torch.arange(1, model.n_users)}
        found = [torch.tensor(list(losses.values())), model.full_sort_predict(users)]
        gates = getattr(job.trainer, "gates", {}).values()
        found += [p for gate in gates for p in gate.network.parameters()]
        return [*found, *model.state_dict().values()]

    return run


def same(one: list, other: list) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))


@pytest.mark.parametrize("name", MODELS)
def test_every_key_of_a_model_matters(outcome, name, in_tmp):
    dead, plain = [], {}
    for key, value in read_yaml(properties_dir() / "model" / f"{name}.yaml").items():
        if key in ELSEWHERE or (name, key) in ONLY | UNSTAGED:
            continue
        needs = NEEDS.get(key, {})
        if str(needs) not in plain:
            plain[str(needs)] = outcome(name, **needs)
        if same(outcome(name, **needs, **{key: other_value(key, value)}), plain[str(needs)]):
            dead.append(key)
    assert dead == []


@pytest.mark.parametrize(("name", "key"), sorted(UNSTAGED))
def test_the_start_of_a_model_with_a_stage_counts_where_there_is_none(make, name, key):
    starts = [make(name, embedding_size=6, **{key: value})[-1] for value in (0.1, 0.2)]
    assert not same(*(list(model.parameters()) for model in starts))


@pytest.mark.parametrize("name", ["MF", "AMF"])
def test_models_without_content_do_not_take_its_weights(name):
    notes = Config(name, "tiny", None, {"content_reg_weight": 0.003}, {}).notes
    assert [f"{name} does not read 'content_reg_weight'" in note for note in notes] == [True]
