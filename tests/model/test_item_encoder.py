"""e_i in its three modes, on generated pictures and a small network with random weights."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from recbole_cierec import run
from recbole_cierec.vision.item_pictures import pictures_of


def model_of(keys, name="MF_Image"):
    from recbole_cierec.config.config import Config
    from recbole_cierec.data.dataset import create_dataset
    from recbole_cierec.registry import get_model_class

    config = Config(name, "tiny", None, keys, {})
    dataset = create_dataset(config)
    return dataset, get_model_class(name)(config, dataset.build()[0])


def test_all_ways_start_from_the_same_embedding(pictured):
    items = torch.arange(41)
    found = {}
    for how in ("frozen", "adapter", "finetune"):
        dataset, model = model_of(pictured(encoder_training=how))
        with torch.no_grad():
            found[how] = model.eval().encoder(items)
    assert found["frozen"].abs().sum() > 0
    torch.testing.assert_close(found["adapter"], found["frozen"])
    torch.testing.assert_close(found["finetune"], found["frozen"], atol=1e-5, rtol=1e-4)
    ids = dataset.field2token_id["item_id"]
    for token in ("i37", "i39"):  # no path; no row
        assert not found["finetune"][ids[token]].any()
        assert not found["adapter"][ids[token]].any()


def test_features_are_those_of_the_network_by_hand(pictured):
    dataset, model = model_of(pictured(encoder_training="frozen", feature_norm="none"))
    content = dataset.content
    ids = dataset.field2token_id["item_id"]
    item = torch.tensor([ids["i5"]])
    picture = np.asarray(Image.open(content.folder / "images" / "5.png"), dtype=np.float32) / 255
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    x = torch.tensor((picture - mean) / std).permute(2, 0, 1)[None].float()
    network = pictures_of(content).encoder().eval()
    trunk = next(m for m in network.modules() if hasattr(m, "features"))
    with torch.no_grad():
        truth = trunk.features(x).mean((2, 3))
    torch.testing.assert_close(model.encoder(item), truth, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("block", [3, 100])
def test_blocks_change_memory_and_not_gradients(pictured, block):
    _, model = model_of(pictured(encoder_training="finetune", encoder_batch_size=block))
    _, whole = model_of(pictured(encoder_training="finetune", encoder_batch_size=1000))
    whole.load_state_dict(model.state_dict())
    items = torch.arange(1, 20)
    for one in (model, whole):
        one.train()
        one.encoder.network.eval()  # no dropout, so that the two can be compared
        one.encoder(items).square().sum().backward()
    pairs = zip(model.encoder.parameters(), whole.encoder.parameters(), strict=True)
    for mine, theirs in pairs:
        assert theirs.grad.norm() > 0  # sums in another order: equal except for rounding
        assert (mine.grad - theirs.grad).norm() < 1e-4 * theirs.grad.norm()


@pytest.mark.parametrize(
    ("keys", "drawn_for_all"),
    [
        ({"encoder_training": "adapter"}, True),
        ({"encoder_training": "finetune"}, True),
        ({"encoder_training": "finetune", "augmentation": "flip"}, False),
        ({"encoder_training": "finetune", "visual_encoder": "efficientnet_b0"}, False),
    ],
)
def test_a_network_that_draws_for_its_pictures_leaves_no_draw_for_all(
    pictured, keys, drawn_for_all
):
    _, model = model_of(pictured(**keys))
    assert model.draws_per_row != drawn_for_all


def test_the_adapter_has_the_rate_of_the_encoder(pictured):
    _, model = model_of(pictured(encoder_training="adapter", encoder_learning_rate=0.007))
    (group,) = (g for g in model.parameter_groups() if g.get("lr") == 0.007)
    assert {id(p) for p in group["params"]} == {id(p) for p in model.encoder.adapter.parameters()}


def test_finetuning_trains_the_network_at_its_own_rate(pictured):
    _, model = model_of(pictured(encoder_training="finetune", encoder_learning_rate=0.007))
    groups = model.parameter_groups()
    network = [g for g in groups if g.get("lr") == 0.007]
    assert len(network) == 1
    counted = sum(len(g["params"]) for g in groups)
    assert counted == len(list(model.parameters()))
    before = {n: p.clone() for n, p in model.encoder.named_parameters()}
    keys = pictured(encoder_training="finetune", encoder_learning_rate=0.007, epochs=1)
    result = run("CIERec", "tiny", config_dict=keys)
    state = torch.load(result["checkpoint"], weights_only=True)["state_dict"]
    changed = [n for n, p in before.items() if not torch.equal(p, state[f"encoder.{n}"])]
    assert changed
