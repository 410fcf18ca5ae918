"""Two processes report the same as one, whatever rows the loader repeats as padding."""

from __future__ import annotations

from typing import Any

import programs
import pytest

from recbole_cierec import run
from recbole_cierec.distributed.launch import launch
from recbole_cierec.quick_start import run_one

CASES = {
    "cold items": (
        "VBPR",
        {"eval_args": {"mode": "user12", "split": {"COLD_ITEM": [0.6, 0.2, 0.2]}}},
    ),
    "full": ("BPR", {"eval_args": {"mode": "full"}}),
    "sequences": ("SASRec", {"eval_args": {"mode": "full"}}),
    "repeats": ("SASRec", {"eval_args": {"mode": "user12"}, "eval_repeats": 2}),
    "labels": (
        "MF",
        {
            "eval_args": {"mode": "labeled", "order": "RO", "split": {"RS": [0.5, 0.1, 0.4]}},
            "threshold": {"timestamp": 5},
            "metrics": ["AUC", "LogLoss", "RMSE"],
            "valid_metric": "AUC",
            "eval_batch_size": 16,
        },
    ),
}


def test_results(cases: list[tuple[str, dict]], config_dict: dict[str, Any]) -> list[dict]:
    """The test results of several runs in one process group, whose start takes seconds."""
    return [
        dict(run_one(name, "tiny", None, {**keys, **config_dict}, True, {})["test_result"])
        for name, keys in cases
    ]


test_results.__test__ = False


@pytest.fixture(scope="module")
def results(tiny_folder, tmp_path_factory):
    """Case to the results of one process and of two."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("two"))
        patch.setattr("sys.argv", ["test"])
        patch.setattr("multiprocessing.get_context", programs.get_context)
        common = {"data_path": str(tiny_folder), "show_progress": False, "use_gpu": False}
        common |= {"topk": [4], "valid_metric": "Recall@4", "epochs": 2, "state": "error"}
        common |= {"metric_decimal_place": 9, "embedding_size": 5, "train_batch_size": 32}
        common["keep_last_checkpoint"] = True
        common |= {"features_file": str(tiny_folder / "tiny" / "features.npy"), "init_std": 0.5}
        alone, finished = [], []
        for name, keys in CASES.values():
            done = run(name, "tiny", config_dict={**common, **keys})
            alone.append(done["test_result"])
            # A finished run resumed only evaluates, here by two processes.
            last = done["checkpoint"].replace(".pth", ".last.pth")
            finished.append((name, {**common, **keys, "resume": last}))
        arguments = {"cases": finished, "config_dict": {}}
        together = launch(test_results, arguments, 2, -1, "localhost", "15871", 0)
    return dict(zip(CASES, zip(alone, together, strict=True), strict=True))


@pytest.mark.parametrize("case", CASES)
def test_evaluation_is_that_of_one_process(results, case):
    alone, together = results[case]
    assert next(iter(alone.values())) > 0
    assert together.keys() == alone.keys()
    for metric, value in alone.items():
        assert together[metric] == pytest.approx(value, abs=1e-6, nan_ok=True), metric
