"""DeepStyle's categories: where they come from, and that items of one category share one vector."""

from __future__ import annotations

import shutil

import pytest
import torch

from recbole_cierec.errors import DataError

COLUMN = {"i0": "shoes", "i1": "shoes", "i2": "hats", "i3": ""}


@pytest.fixture
def with_column(tiny_folder, in_tmp):
    """``with_column(header)`` -> keys of a copy of tiny that has one more column."""

    def keys(header):
        home = in_tmp / "more" / "tiny"
        shutil.copytree(tiny_folder / "tiny", home)
        head, *lines = (home / "tiny.item").read_text().splitlines()
        rows = [f"{line}\t{COLUMN.get(line.split()[0], 'hats')}" for line in lines]
        (home / "tiny.item").write_text("\n".join([f"{head}\t{header}", *rows]) + "\n")
        return {"data_path": str(home.parent), "features_file": str(home / "features.npy")}

    return keys


def test_the_category_is_the_first_annotation_token(make):
    _, dataset, _, model = make("DeepStyle")
    names, categories = dataset.content.categories
    lines = (dataset.content.folder / "tiny.item").read_text().splitlines()[1:]
    first = {row[0]: row[2].split(" ")[0] for row in (line.split("\t") for line in lines)}
    for token, item in dataset.field2token_id["item_id"].items():
        expected = first.get(token, "") or "[PAD]"
        assert names[categories[item]] == expected
    assert len(model.category_embedding.weight) == 8  # seven tokens and none


def test_the_category_may_be_a_column_of_its_own(make, with_column):
    _, dataset, _, model = make("DeepStyle", category_field="kind", **with_column("kind:token"))
    names, categories = dataset.content.categories
    ids = dataset.field2token_id["item_id"]
    assert names == ["", "hats", "shoes"]
    for token, kind in COLUMN.items():
        assert names[categories[ids[token]]] == kind
    assert int(categories[ids["i39"]]) == 0  # no line in tiny.item
    assert len(model.category_embedding.weight) == 3


@pytest.mark.parametrize(
    ("header", "words"),
    [("other:token", "no column kind"), ("kind:token_seq", "kind is token_seq")],
)
def test_a_column_that_is_missing_or_of_another_type_is_refused(make, with_column, header, words):
    with pytest.raises(DataError, match=words) as caught:
        make("DeepStyle", category_field="kind", **with_column(header))
    assert "\n" not in str(caught.value)


def test_a_step_on_one_item_moves_the_vector_of_all_items_of_its_category(make):
    _, dataset, _, model = make("DeepStyle")
    categories = dataset.content.categories[1]
    item = int((categories > 0).nonzero()[0])
    mates = (categories == categories[item]).nonzero().squeeze(1)
    strangers = ((categories != categories[item]) & (categories > 0)).nonzero().squeeze(1)
    assert len(mates) > 1
    assert len(strangers) > 1

    def vectors(items):
        return model.item_side(items).vector.detach()

    before = vectors(mates), vectors(strangers)
    with torch.no_grad():
        model.category_embedding.weight[categories[item]] += 1.0
    torch.testing.assert_close(vectors(mates), before[0] - 1.0)  # style: picture minus category
    assert torch.equal(vectors(strangers), before[1])
