"""A small data set with gaps, and a configuration for it."""

from __future__ import annotations

import sys

import pytest
import torch
from recbole.model.general_recommender import BPR
from sampled_data import Config


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """RecBole reads sys.argv, writes into the working directory, and makes torch trace every
    operation once a sequential model is imported."""
    monkeypatch.setattr(sys, "argv", ["test"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.chdir(tmp_path)
    watching = torch.is_anomaly_enabled()
    yield
    torch.autograd.set_detect_anomaly(watching)


INTER = [("u1", "a"), ("u1", "b"), ("u2", "a"), ("u2", "c"), ("u3", "b"), ("u3", "d"), ("u3", "a")]


@pytest.fixture
def config(tmp_path):
    """Return a function that writes a small data set and creates a configuration for it.

    Item d has no row in toy.item; b has an empty cell in every column.
    """
    folder = tmp_path / "toy"
    folder.mkdir()
    rows = "".join(f"{u}\t{i}\t{t}\n" for t, (u, i) in enumerate(INTER))
    (folder / "toy.inter").write_text("user_id:token\titem_id:token\ttimestamp:float\n" + rows)
    (folder / "toy.item").write_text(
        "item_id:token\tkind:token\tprice:float\ttags:token_seq\tsize:float_seq\n"
        "a\tx\t1\tred big\t1 2\nb\t\t\t\t\nc\ty\t4\tred\t3\n"
    )

    def make(model: type | str = BPR, *, item: list[str] = (), config_class=Config, **settings):
        columns = {"inter": ["user_id", "item_id", "timestamp"]}
        if item:
            columns["item"] = ["item_id", *item]
        defaults = {
            "data_path": str(tmp_path),
            "load_col": columns,
            "use_gpu": False,
            "show_progress": False,
            "epochs": 1,
            "filter_inter_by_user_or_item": False,
            "eval_args": {"order": "TO", "split": {"RS": [0.6, 0.2, 0.2]}, "group_by": "user"},
            "metrics": ["Recall", "NDCG"],
            "valid_metric": "Recall@2",
            "topk": 2,
        }
        return config_class(model=model, dataset="toy", config_dict=defaults | settings)

    return make
