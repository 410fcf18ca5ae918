"""CIERec on real pictures, from files to metrics."""

from __future__ import annotations

import os

import numpy as np
import pytest

from recbole_cierec import run


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A folder in which the pictures are decoded once."""
    return tmp_path_factory.mktemp("cache")


@pytest.mark.shared
@pytest.mark.parametrize("how", ["adapter", "finetune"])
def test_posters_with_missing_ones_train_and_evaluate(shared_dir, in_tmp, cache, how):
    keys = {
        "data_path": os.fspath(shared_dir / "data"),
        "visual_encoder": "squeezenet1_1",
        "encoder_weights": os.fspath(
            shared_dir / "data/weights/squeezenet1_1_torchvision_imagenet.safetensors"
        ),
        "image_size": 64,
        "cache_dir": os.fspath(cache),
        "train_batch_size": 8192,
        "epochs": 1,
        "eval_args": {"mode": "user100"},  # quicker than the whole catalogue
        "encoder_training": how,
        "encoder_learning_rate": 1e-4,
        "show_progress": False,
        "use_gpu": False,
    }
    if how == "finetune":  # a few users: every batch runs the network on its pictures
        keys |= {"user_inter_num_interval": "[450,inf)", "train_batch_size": 512}
    result = run("CIERec", "ml-100k-posters", config_dict=keys)
    for name in ("recall@10", "recall@10_warm", "ndcg@10"):
        assert 0 < result["test_result"][name] < 1
    assert np.isfinite(result["best_valid_score"])
    log = open(result["log_file"], encoding="utf-8").read()
    if how == "adapter":
        assert "57 without picture" in log
