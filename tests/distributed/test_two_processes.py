"""Two processes report the same as one, whatever rows the loader repeats as padding."""

from __future__ import annotations

import pytest

from recbole_cierec import run


@pytest.mark.parametrize(
    ("name", "keys", "port"),
    [
        ("VBPR", {"eval_args": {"mode": "user12", "split": {"COLD_ITEM": [0.6, 0.2, 0.2]}}}, 15871),
        ("BPR", {"eval_args": {"mode": "full"}}, 15872),
        ("SASRec", {"eval_args": {"mode": "full"}}, 15873),
        ("SASRec", {"eval_args": {"mode": "user12"}, "eval_repeats": 2}, 15874),
    ],
)
def test_evaluation_is_that_of_one_process(tiny, name, keys, port):
    keys = tiny(**keys, topk=[4], valid_metric="Recall@4", epochs=2, metric_decimal_place=9)
    alone = run(name, "tiny", config_dict=keys)
    assert alone["test_result"]["recall@4"] > 0
    # A finished run resumed only evaluates, here by two processes.
    keys["resume"] = alone["checkpoint"].replace(".pth", ".last.pth")
    together = run(name, "tiny", config_dict=keys, nproc=2, port=port)
    assert together["test_result"].keys() == alone["test_result"].keys()
    for metric, value in alone["test_result"].items():
        other = together["test_result"][metric]
        assert other == pytest.approx(value, abs=1e-6, nan_ok=True), metric
