"""MF(Content) is the sum of three models, and each of its two dropouts hides its part."""

from __future__ import annotations

import shutil

import pytest
import torch
from model_helpers import shaken
from recbole.data.interaction import Interaction

from recbole_cierec.errors import ConfigError

OFF = {"use_ids": False, "use_image": False, "use_annotations": False}


def scores(model):
    model.eval()
    users = torch.arange(1, model.n_users)
    return model.full_sort_predict(Interaction({"user_id": users})).view(len(users), -1)


@pytest.mark.parametrize(
    ("name", "switch"),
    [("MF", "use_ids"), ("MF_Image", "use_image"), ("MF_Semantics", "use_annotations")],
)
def test_with_one_part_alone_it_is_the_model_of_that_part(make, name, switch):
    *_, one = make(name)
    *_, sum_of_one = make("MF_Content", **OFF | {switch: True})
    sum_of_one.load_state_dict(shaken(one).state_dict())
    torch.testing.assert_close(scores(sum_of_one), scores(one), atol=1e-6, rtol=0)


def test_without_any_part_it_is_refused_in_one_line(make):
    with pytest.raises(ConfigError, match="switch one on"):
        make("MF_Content", **OFF)


def item_vectors(model):
    side = model.item_side(torch.arange(1, model.n_items))
    return side.vector.detach(), side.bias.detach()


def hidden_share(make, **keys):
    """Share of seen, annotated items whose vector in training is not that of evaluation."""
    _, dataset, _, model = make("MF_Content", **keys)
    shaken(model).eval()
    full, _ = item_vectors(model)
    model.train()
    torch.manual_seed(0)
    usable = (model.seen[1:] > 0) & dataset.content.has_annotation[1:]
    draws = [(item_vectors(model)[0] != full).any(1)[usable].float().mean() for _ in range(200)]
    return float(torch.stack(draws).mean())


@pytest.mark.parametrize("key", ["id_dropout", "privileged_dropout"])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_dropout_hides_its_share_of_items_in_training_only(make, key, share):
    keys = {"id_dropout": 0.0, "privileged_dropout": 0.0} | {key: share}
    assert hidden_share(make, **keys) == pytest.approx(share, abs=0.02)


def test_hidden_ids_take_the_bias_along_and_leave_the_content(make):
    *_, model = make("MF_Content", id_dropout=1.0, privileged_dropout=0.0)
    *_, content = make("MF_Content", use_ids=False, id_dropout=1.0, privileged_dropout=0.0)
    weights = shaken(model.train()).state_dict()
    content.load_state_dict({k: v for k, v in weights.items() if k != "item_embedding.weight"})
    vectors, biases = item_vectors(model)
    assert torch.equal(vectors, item_vectors(content.train())[0])
    assert not biases.any()


def test_annotations_at_inference_follow_the_key(make):
    *_, reads = make("MF_Content")
    *_, blind = make("MF_Content", annotation_at_inference=False)
    *_, without = make("MF_Content", use_annotations=False)
    weights = shaken(reads).state_dict()
    blind.load_state_dict(weights)
    without.load_state_dict({k: v for k, v in weights.items() if k != "token_embedding.weight"})
    assert torch.equal(scores(blind), scores(without))
    assert not torch.allclose(scores(reads), scores(blind))


def test_an_item_without_annotation_is_scored_by_its_other_parts(make):
    _, dataset, _, reads = make("MF_Content")
    *_, without = make("MF_Content", use_annotations=False)
    weights = shaken(reads).state_dict()
    without.load_state_dict({k: v for k, v in weights.items() if k != "token_embedding.weight"})
    bare = ~dataset.content.has_annotation
    bare[0] = False
    assert int(bare.sum()) == 3
    assert torch.equal(scores(reads)[:, bare], scores(without)[:, bare])


@pytest.mark.parametrize("name", ["MF_Semantics", "MF_Content", "ContentPrior", "HAFR"])
def test_as_many_tokens_as_items_make_no_id_table(make, tiny_folder, in_tmp, name):
    home = shutil.copytree(tiny_folder / "tiny", in_tmp / "tiny")
    head, *lines = (home / "tiny.item").read_text().splitlines()
    cells = [line.split("\t") for line in lines]
    rows = ["\t".join([*cell[:2], f"w{place}"]) for place, cell in enumerate(cells)]
    text = "\n".join([head, *rows]) + " another\n"  # the data have one item without a line
    (home / "tiny.item").write_text(text)
    own = {} if name in ("MF_Semantics", "HAFR") else {"use_annotations": True}
    *_, model = make(name, data_path=str(in_tmp), **own)
    table = model.token_embedding
    assert table.num_embeddings == model.n_items
    assert all(table is not ids for ids in model.id_tables())
    assert any(table.weight is weight for weight in model.content_weights())
