"""Each model reaches, in few epochs, a Recall@10 on the demo data that is above Pop and plausible.

The lower bound says that it learns, the upper that it does not see what it should not: ranking by
the planted tastes themselves reaches about 0.55. Bounds are some 20 percent around what seeds gave.
"""

from __future__ import annotations

import pytest

from recbole_cierec import run

BASE = {"show_progress": False, "use_gpu": False, "state": "error"}
FEW = {"epochs": 12, "eval_step": 4}
# model, keys, lower and upper bound of Recall@10 over all users
WINDOWS = [
    ("MF_Content", FEW, 0.12, 0.19),
    ("MF_Content", {**FEW, "loss": "softmax"}, 0.145, 0.23),
    ("DeepStyle", FEW, 0.11, 0.18),
    ("PiNet", FEW, 0.12, 0.19),
    ("AlignRec", FEW, 0.15, 0.23),
]


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A folder whose demo data and features all runs share."""
    return tmp_path_factory.mktemp("shop")


@pytest.fixture(scope="module")
def results():
    """Recall@10 by model and keys, so that Pop runs once."""
    return {}


@pytest.fixture
def recall(shop, results, monkeypatch):
    """``recall(name, keys)`` -> Recall@10 of the test users."""
    monkeypatch.chdir(shop)
    monkeypatch.setattr("sys.argv", ["test"])

    def measured(name, keys):
        key = name, str(keys)
        if key not in results:
            result = run(name, "demo", config_dict={**BASE, **keys})
            results[key] = float(result["test_result"]["recall@10"])
        return results[key]

    return measured


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "keys", "lower", "upper"),
    WINDOWS,
    ids=[f"{name}-{keys.get('loss', 'bpr')}" for name, keys, *_ in WINDOWS],
)
def test_a_model_reaches_its_window_above_pop(recall, name, keys, lower, upper):
    reached = recall(name, keys)
    assert lower < reached < upper
    assert reached > 3 * recall("Pop", {})
