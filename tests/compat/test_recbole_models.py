"""Models: RecBole's own code needs an old scipy, the patched one gives the same matrix.

The half that shows the break is skipped where the installed package is too old for it.
"""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
import torch
from recbole.data.interaction import Interaction
from recbole.model.general_recommender import BPR, GCMC, NCL, NGCF, LightGCN, SpectralCF
from recbole.model.knowledge_aware_recommender import KGIN, MCCLK
from sampled_data import needs

from recbole_cierec.compat.recbole_models import MODEL_PATCHES, patch_model
from recbole_cierec.config.config import Config
from recbole_cierec.quick_start import prepare


@pytest.fixture
def old_scipy(monkeypatch):
    """Return a function that restores the scipy method that RecBole's own code needs."""

    def restore():
        def update(self, entries):
            self._dict.update(entries)

        monkeypatch.setattr(sp.dok_matrix, "_update", update, raising=False)

    return restore


GENERAL = ("interaction_matrix", "n_items")
KNOWLEDGE = ("inter_matrix", "n_entities")
CASES = [
    (LightGCN, "get_norm_adj_mat", GENERAL, {}),
    (NGCF, "get_norm_adj_mat", GENERAL, {}),
    (NCL, "get_norm_adj_mat", GENERAL, {}),
    (GCMC, "get_norm_adj_mat", GENERAL, {}),
    (SpectralCF, "get_laplacian_matrix", GENERAL, {}),
    (KGIN, "get_norm_inter_matrix", KNOWLEDGE, {"mode": "bi"}),
    (KGIN, "get_norm_inter_matrix", KNOWLEDGE, {"mode": "si"}),
    (MCCLK, "get_norm_inter_matrix", KNOWLEDGE, {"mode": "bi"}),
    (MCCLK, "get_norm_inter_matrix", KNOWLEDGE, {"mode": "si"}),
]
NAMES = [f"{case[0].__name__}{'-'.join(case[3].values())}" for case in CASES]


def stub(model_class: type, names: tuple[str, str]):
    """Return a model with only what its matrix is computed from.

    There are duplicate interactions, users and items without any, and, where the columns are
    entities, more of those than items.
    """
    model = object.__new__(model_class)
    torch.nn.Module.__init__(model)
    rng = np.random.default_rng(3)
    places = rng.integers(1, 9, 40), rng.integers(1, 7, 40)
    matrix, n_others = names
    setattr(model, matrix, sp.coo_matrix((np.ones(40), places), shape=(10, 8)))
    setattr(model, n_others, 8 if n_others == "n_items" else 12)
    model.n_users, model.device = 10, torch.device("cpu")
    return model


def matrices(model, hook: str, options: dict) -> list[torch.Tensor]:
    made = getattr(model, hook)(**options)
    return list(made) if isinstance(made, tuple) else [made]


@needs("scipy", "1.13")
@pytest.mark.parametrize(("model_class", "hook", "names", "options"), CASES, ids=NAMES)
def test_plain_model_breaks_and_the_mended_one_has_the_same_matrix(
    old_scipy, model_class, hook, names, options
):
    with pytest.raises(AttributeError, match="_update"):
        matrices(stub(model_class, names), hook, options)
    mended_class = patch_model(model_class)
    mended = matrices(stub(mended_class, names), hook, options)
    old_scipy()
    expected = matrices(stub(model_class, names), hook, options)
    for ours, theirs in zip(mended, expected, strict=True):
        assert ours.shape == theirs.shape
        assert ours.dtype == theirs.dtype == torch.float32
        # The entries are in the same order too: sums over them are the same to the last bit.
        assert torch.equal(ours._indices(), theirs._indices())
        assert torch.equal(ours._values(), theirs._values())


@needs("scipy", "1.13")
def test_mended_model_keeps_its_name_and_is_one_class():
    mended = patch_model(LightGCN)
    assert mended is not LightGCN
    assert issubclass(mended, LightGCN)
    assert mended is patch_model(LightGCN)
    assert (mended.__name__, mended.__module__) == (LightGCN.__name__, LightGCN.__module__)
    assert patch_model(mended) is mended


def test_models_that_need_no_mend_stay_as_they_are():
    class Own(LightGCN):
        def get_norm_adj_mat(self):
            return None

    assert patch_model(BPR) is BPR
    assert patch_model(Own) is Own


def test_sub_classes_of_a_broken_model_are_mended_too():
    class Child(LightGCN):
        pass

    assert issubclass(patch_model(Child), Child)
    assert patch_model(Child).__name__ == "Child"


def test_the_table_of_mends_names_classes_and_methods_of_recbole():
    found = {(c.__module__, c.__name__): c for c, *_ in CASES}
    assert set(found) == set(MODEL_PATCHES)
    assert all(mend.hook in vars(found[key]) for key, mend in MODEL_PATCHES.items())


def test_pop_counts_each_interaction_once(tiny):
    """RecBole counts an item once a batch, and negatives too."""
    job = prepare(Config("Pop", "tiny", None, tiny(train_batch_size=64)))
    train, _, test = job.loaders
    job.trainer.fit(train)
    items = np.asarray(train.dataset.inter_feat["item_id"])
    counts = np.bincount(items, minlength=train.dataset.item_num)
    assert counts.max() > 3
    scores = job.model.full_sort_predict(test.dataset.inter_feat[:2]).view(2, -1)
    np.testing.assert_allclose(scores, np.tile(counts / counts.max(), (2, 1)))


def test_pop_leaves_out_interactions_labelled_negative(tiny):
    job = prepare(Config("Pop", "tiny", None, tiny()))
    data = job.loaders[0].dataset
    items = data.inter_feat["item_id"]
    data.inter_feat.update(Interaction({"label": (torch.arange(len(items)) % 3 > 0).float()}))
    counts = torch.bincount(items[torch.arange(len(items)) % 3 > 0], minlength=data.item_num)
    assert type(job.model)(job.config, data).item_cnt[:, 0].equal(counts)
