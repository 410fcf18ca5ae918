"""Each model reaches, in twelve epochs, a plausible Recall@10 on the demo data, and those with
content rank unseen items above chance after four.

The lower bound, four times chance (0.0103) or more, shows that a model learns, the upper one that
it has no access to held-out data: ranking by the planted tastes reaches about 0.55. Bounds are some
20 percent around measured values.
"""

from __future__ import annotations

import pytest

from recbole_cierec import run
from recbole_cierec.registry import MODELS

# Ranking takes as long as several epochs of most models: validation is after the last one only.
BASE = {"show_progress": False, "use_gpu": False, "state": "error", "epochs": 12, "eval_step": 12}
COLD = {"eval_args": {"split": {"COLD_ITEM": [0.8, 0.1, 0.1]}}, "epochs": 4}
SOFTMAX = {"loss": "softmax"}
# model: lower and upper bound of Recall@10 over all users
WINDOWS = {
    "MF": (0.115, 0.175),
    "VBPR": (0.12, 0.19),
    "MF_Image": (0.085, 0.13),
    "MF_Semantics": (0.13, 0.2),
    "MF_Content": (0.12, 0.19),
    "DeepStyle": (0.11, 0.18),
    "HAFR": (0.053, 0.08),
    "HAFR_non_i": (0.052, 0.08),
    "VECF": (0.13, 0.2),
    "PiNet": (0.12, 0.19),
    "AlignRec": (0.15, 0.23),
    "AMF": (0.12, 0.19),
    "AMR": (0.12, 0.18),
    "DropoutNet": (0.095, 0.145),
    "CLCRec": (0.044, 0.07),
    "FREEDOM": (0.068, 0.105),
    "MGCN": (0.16, 0.245),
    "ContentPrior": (0.175, 0.27),
    "CIERec_Base": (0.12, 0.19),
    "CIERec_CI": (0.12, 0.18),
    "CIERec_CI_TA": (0.1, 0.15),
    "CIERec_CI_TA_GR": (0.1, 0.15),
    "CIERec": (0.084, 0.127),
}
WITHOUT_CONTENT = {"MF", "AMF"}
EARLY = {"AlignRec": {"eval_step": 4}}  # its best epoch comes early
SLOW = {"HAFR": 8, "DropoutNet": 12}  # epochs of models that are near chance after four
ALL = "recall@10"
AMONG_UNSEEN = "recall@10_among_cold"  # held-out items, ranked among held-out items


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A folder whose demo data and features all runs share."""
    return tmp_path_factory.mktemp("shop")


@pytest.fixture(scope="module")
def results():
    """Measured results, by model and keys."""
    return {}


@pytest.fixture
def recall(shop, results, monkeypatch):
    """``recall(metric, name, keys)`` of the test users."""
    monkeypatch.chdir(shop)
    monkeypatch.setattr("sys.argv", ["test"])

    def measured(metric, name, keys):
        key = name, str(keys)
        if key not in results:
            results[key] = run(name, "demo", config_dict={**BASE, **keys})["test_result"]
        return float(results[key][metric])

    return measured


def test_every_model_has_a_window():
    assert WINDOWS.keys() == MODELS.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", WINDOWS)
def test_a_model_reaches_its_window(recall, name):
    lower, upper = WINDOWS[name]
    assert lower < recall(ALL, name, EARLY.get(name, {})) < upper


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "lower", "upper"), [("VBPR", 0.165, 0.25), ("MF_Content", 0.175, 0.26)]
)
def test_softmax_reaches_more_than_bpr(recall, name, lower, upper):
    reached = recall(ALL, name, SOFTMAX)
    assert lower < reached < upper
    assert reached > recall(ALL, name, {})


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in WINDOWS if name not in WITHOUT_CONTENT])
def test_content_beats_ids_among_items_never_seen(recall, name):
    keys = {**COLD, "epochs": SLOW.get(name, COLD["epochs"])}
    assert recall(AMONG_UNSEEN, name, keys) > 1.3 * recall(AMONG_UNSEEN, "BPR", COLD)


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(WITHOUT_CONTENT))
def test_without_content_items_never_seen_are_all_alike(recall, name):
    assert recall(AMONG_UNSEEN, name, COLD) == recall(AMONG_UNSEEN, "Pop", COLD)
