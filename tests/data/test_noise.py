"""Damage on purpose: which items and rows it hits, and that nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from recbole_cierec.config.config import Config
from recbole_cierec.errors import ConfigError
from recbole_cierec.files.hashed_choice import chosen, exchanged
from recbole_cierec.quick_start import prepare
from recbole_cierec.vision.item_pictures import pictures_of
from recbole_cierec.vision.pictures import PictureSpec, decode_picture

IDS = ["[PAD]", *(f"i{k}" for k in range(2000))]


def job(tiny, model="CIERec", **keys):
    return prepare(Config(model, "tiny", None, tiny(**keys), {}))


def data(made):
    return made.loaders[0]._dataset


def content(tiny, **keys):
    return data(job(tiny, **keys)).content


def test_choices_are_nested_independent_and_do_not_depend_on_other_items():
    few, many = (chosen(IDS, share, 7, "a") for share in (0.2, 0.6))
    assert few.sum() == pytest.approx(400, abs=70)
    assert many.sum() == pytest.approx(1200, abs=80)
    assert not (few & ~many).any()
    assert not few[0]
    other = chosen(IDS, 0.6, 7, "b") & many
    assert other.sum() == pytest.approx(0.36 * 2000, abs=90)
    assert (chosen(IDS, 0.6, 8, "a") & many).sum() == pytest.approx(0.36 * 2000, abs=90)
    assert (chosen(IDS[:50], 0.6, 7, "a") == many[:50]).all()
    assert chosen(IDS, 1.0, 7, "a")[1:].all()
    assert not chosen(IDS, 0.0, 7, "a").any()


def test_exchanged_content_is_that_of_another_item_each_once():
    having = np.arange(len(IDS)) % 3 > 0
    source = exchanged(IDS, having, 0.5, 7, "a")
    moved = source != np.arange(len(IDS))
    assert sorted(source) == list(range(len(IDS)))
    assert (moved == (chosen(IDS, 0.5, 7, "a") & having)).all()
    assert having[source[moved]].all()


def test_annotations_are_missing_by_phase(tiny):
    clean = content(tiny)
    for keys, training, inference in (
        ({"annotations_missing_training": 0.5}, 0.5, 0.0),
        ({"annotations_missing_inference": 0.5}, 0.0, 0.5),
        ({"annotations_missing_training": 0.5, "annotations_missing_inference": 0.5}, 0.5, 0.5),
    ):
        damaged = content(tiny, **keys)
        assert damaged.token_names == clean.token_names
        for share, tokens in ((training, damaged.tokens), (inference, damaged.inference_tokens)):
            gone = chosen(clean.item_ids, share, damaged.config["seed"], "annotations_missing")
            assert not tokens[torch.from_numpy(gone)].any()
            assert torch.equal(
                tokens[torch.from_numpy(~gone)], clean.tokens[torch.from_numpy(~gone)]
            )
    assert torch.equal(clean.tokens, clean.inference_tokens)


def test_wrong_annotations_are_those_of_other_items(tiny):
    clean, wrong = content(tiny), content(tiny, annotations_wrong=1.0)
    assert sorted(map(tuple, wrong.tokens.tolist())) == sorted(map(tuple, clean.tokens.tolist()))
    assert torch.equal(wrong.has_annotation, clean.has_annotation)
    assert (wrong.tokens != clean.tokens).any(1).sum() > 20
    assert torch.equal(wrong.tokens, wrong.inference_tokens)


@pytest.mark.parametrize("model", ["MF_Semantics", "CIERec", "MF_Content", "DeepStyle"])
def test_a_model_reads_the_annotations_of_its_phase(tiny, model):
    made = job(tiny, model, annotations_missing_inference=1.0, annotation_at_inference=True)
    items = torch.arange(data(made).item_num)
    assert made.model.tokens.any()
    with torch.no_grad():
        made.model.eval()
        ranking = made.model.item_side(items)
        other = job(tiny, model, annotation_at_inference=True, state="error").model.eval()
        other.tokens = torch.zeros_like(other.tokens)
        blind = other.item_side(items)
    for name, value in (("vector", ranking.vector), *ranking.more.items()):
        theirs = blind.vector if name == "vector" else blind.more[name]
        assert torch.equal(value, theirs), name
    assert torch.equal(made.model.train().tokens, data(made).content.tokens)


def test_a_model_that_reads_annotations_once_refuses_a_difference(tiny):
    with pytest.raises(ConfigError, match="AlignRec reads annotations once"):
        job(tiny, "AlignRec", annotations_missing_inference=0.5)
    job(tiny, "AlignRec", annotations_missing_inference=0.5, annotations_missing_training=0.5)


def test_pictures_are_missing_or_wrong(tiny):
    clean = pictures_of(content(tiny, feature_norm="none"))
    both = pictures_of(content(tiny, feature_norm="none", pictures_missing=0.4, pictures_wrong=0.5))
    ids, seed = content(tiny).item_ids, content(tiny).config["seed"]
    has = clean.has_picture.numpy()
    source = exchanged(ids, has, 0.5, seed, "pictures_wrong")
    gone = chosen(ids, 0.4, seed, "pictures_missing")
    assert gone.any()
    assert (source != np.arange(len(ids))).any()
    assert torch.equal(both.has_picture, clean.has_picture & torch.from_numpy(~gone))
    wanted = clean.features[torch.from_numpy(source)] * torch.from_numpy(~gone).unsqueeze(1)
    assert torch.equal(both.features, wanted)
    assert both.digests() != clean.digests()


def test_features_of_a_file_cannot_be_degraded(tiny):
    with pytest.raises(ConfigError, match="features_file has no pictures to degrade"):
        job(tiny, picture_degrade="blur")


def test_degraded_pictures(tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    small = decode_picture(tmp_path / "a.png", PictureSpec(32, degrade="8x8"))
    means = pixels.reshape(8, 4, 8, 4, 3).mean((1, 3))
    assert np.abs(small[::4, ::4] - means).max() < 1  # rounded along each side
    assert (small == small[::4, ::4].repeat(4, 0).repeat(4, 1)).all()
    blurred = decode_picture(tmp_path / "a.png", PictureSpec(32, degrade="blur"))
    assert 0.2 * pixels.std() < blurred.std() < 0.6 * pixels.std()
    plain = PictureSpec(32)
    assert (decode_picture(tmp_path / "a.png", plain) == pixels).all()
    assert "degrade" not in plain.recipe()  # keeps the stores of earlier runs
    assert PictureSpec(32, degrade="blur").recipe() != plain.recipe()


def test_users_keep_their_first_training_interactions_and_their_candidates(tiny):
    keys = {"eval_args": {"mode": "user10"}}
    whole, short = job(tiny, "BPR", **keys), job(tiny, "BPR", max_user_interactions=2, **keys)
    users, items, times = (data(whole).inter_feat[f] for f in ("user_id", "item_id", "timestamp"))
    kept = data(short).inter_feat
    for user in users.unique():
        own = users == user
        first = items[own][times[own].argsort()][:2]
        assert sorted(kept["item_id"][kept["user_id"] == user].tolist()) == sorted(first.tolist())
    for k in (1, 2):
        lists = [part.loaders[k].plan.lists() for part in (whole, short)]
        for (*name, a), (*other, b) in zip(*lists, strict=True):
            assert name == other
            assert (a.items.values == b.items.values).all()
            assert (a.columns.values == b.columns.values).all()


@pytest.mark.parametrize("mode", ["full", "user10"])
def test_groups_and_views_count_removed_interactions(tiny, mode):
    keys = {"eval_args": {"mode": mode, "split": {"COLD_ITEM": [0.6, 0.2, 0.2]}}}
    whole, short = job(tiny, "BPR", **keys), job(tiny, "BPR", max_user_interactions=1, **keys)
    fewer = data(short).training_counts("item_id") == 0
    for k in (1, 2):
        a, b = (part.loaders[k].plan for part in (whole, short))
        assert (a.item_groups.of == b.item_groups.of).all()
        assert (fewer & ~b.item_groups.unseen).any()
        assert [view.name for view in a.views] == [view.name for view in b.views]
        for ours, theirs in zip(a.views[1:], b.views[1:], strict=True):
            assert (ours.items == theirs.items).all()
        for name, members in a.user_groups.members.items():
            assert (members == b.user_groups.members[name]).all()


def test_removed_interactions_are_masked_in_a_full_ranking(tiny):
    whole, short = job(tiny, "BPR"), job(tiny, "BPR", max_user_interactions=1)
    users = whole.loaders[2].uid_list.tolist()
    for a, b in zip(
        *(part.loaders[2].uid2history_item[users] for part in (whole, short)), strict=True
    ):
        assert sorted(a) == sorted(b)
    assert len(data(short)) < len(data(whole))
    counts = data(short).training_counts("user_id")
    assert counts.max() == 1


def test_a_sequential_model_refuses_short_histories(tiny):
    with pytest.raises(ConfigError, match="reads histories"):
        job(tiny, "GRU4Rec", max_user_interactions=2)
