"""Config, trainer and collector: RecBole alone fails on current packages (or on the CPU).

The half that shows the break is skipped where the installed package is too old for it.
"""

from __future__ import annotations

import gc
import os
import socket
import subprocess
import sys

import numpy as np
import programs
import pytest
import recbole.config
import recbole.data.dataset
import recbole.trainer
import torch
from packaging.version import Version
from recbole.data import data_preparation
from recbole.data.interaction import Interaction
from recbole.evaluator.collector import Collector
from recbole.model.general_recommender import BPR, LightGCN
from recbole.utils import init_seed
from sampled_data import Config, Dataset, Trainer, needs

from recbole_cierec.compat.recbole_models import patch_model
from recbole_cierec.config.compat import ConfigCompat
from recbole_cierec.errors import ConfigError
from recbole_cierec.evaluation.compat import CollectorCompat

# numpy names


@pytest.mark.parametrize("kind", [float, int, bool, object, str, complex])
def test_importing_the_package_restores_numpy_names_that_recbole_uses(kind):
    name = kind.__name__
    code = f"import numpy as np; print(hasattr(np, {name!r}))\n"
    code += f"import recbole_cierec; print(np.dtype(np.{name}))"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=True
    )
    had, dtype = done.stdout.split()
    assert np.dtype(dtype) == np.dtype(kind)
    assert had == str(kind is bool and Version(np.__version__) >= Version("2"))


def test_importing_the_package_imports_neither_torch_nor_recbole():
    code = "import recbole_cierec, sys; print({'torch', 'recbole', 'pandas'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


# Config


@needs("numpy", "2.0")
def test_plain_config_breaks_on_numpy_2(config):
    with pytest.raises(AttributeError, match="float_"):
        config(config_class=recbole.config.Config)


def test_config_runs_on_any_numpy_and_use_gpu_false_means_cpu(config, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    made = config(gpu_id="0")
    assert made["device"] == torch.device("cpu")
    assert made["single_spec"] is True
    assert made["local_rank"] == 0
    assert os.environ["CUDA_VISIBLE_DEVICES"] == ""  # untouched


@pytest.mark.parametrize(
    ("gpu_id", "visible", "device"), [("1", "1", "cuda"), ((0, 1), "0,1", "cuda"), ("", "", "cpu")]
)
def test_config_uses_the_named_gpus_if_there_are_any(config, monkeypatch, gpu_id, visible, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "manual_seed", lambda seed: None)
    made = config(gpu_id=gpu_id, use_gpu=True)
    assert made["gpu_id"] == visible
    assert os.environ["CUDA_VISIBLE_DEVICES"] == visible
    assert made["device"].type == device


def several(rank: int = 0, nproc: int = 1) -> dict:
    """Return the settings of one process of several, as RecBole's launcher gives them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return {
        "local_rank": rank,
        "nproc": nproc,
        "world_size": nproc,
        "offset": 0,
        "ip": "127.0.0.1",
        "port": port,
    }


@pytest.fixture
def process_group():
    """Leave the process group after a test."""
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@pytest.mark.skipif(torch.cuda.is_available(), reason="shows a break without a GPU")
def test_plain_config_cannot_join_processes_on_cpus(config, process_group):
    class NumpyMendOnly(recbole.config.Config):
        compatibility_settings = ConfigCompat.compatibility_settings

    with pytest.raises((AssertionError, RuntimeError, ValueError)):
        config(config_class=NumpyMendOnly, **several(nproc=2))


def test_too_few_gpus_are_refused_in_one_line(config, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(ConfigError, match=r"nproc is 2, but gpu_id names 1 GPU"):
        config(gpu_id="0", use_gpu=True, **several(nproc=2))


# Trainer


def test_plain_trainer_cannot_wrap_a_model_on_the_cpu(config, process_group):
    made = config(**several())
    dataset = Dataset(made)
    with pytest.raises((ValueError, AssertionError, RuntimeError)):
        recbole.trainer.Trainer(made, BPR(made, dataset))


def test_trainer_wraps_a_model_on_the_cpu(config, process_group):
    made = config(**several())
    assert made["single_spec"] is False
    assert torch.distributed.get_backend() == "gloo"
    trainer = Trainer(made, BPR(made, Dataset(made)))
    assert made["single_spec"] is False
    assert isinstance(trainer.distributed_model, torch.nn.parallel.DistributedDataParallel)
    assert trainer.distributed_model.device_ids is None


def test_trainer_for_one_process_wraps_nothing(config):
    made = config()
    trainer = Trainer(made, BPR(made, Dataset(made)))
    assert not hasattr(trainer, "distributed_model")
    assert type(trainer.eval_collector) is CollectorCompat


def train_as_one_of_two(rank: int, port: int, folder: str) -> None:
    """Print the sum of the parameters, and the result, of a training by two processes."""
    sys.argv = sys.argv[:1]
    made = Config(
        model=BPR,
        dataset="toy",
        config_dict={
            "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
            "data_path": folder,
            "use_gpu": False,
            "show_progress": False,
            "epochs": 2,
            **{"local_rank": rank, "nproc": 2, "world_size": 2, "offset": 0},
            **{"ip": "127.0.0.1", "port": str(port)},
            **{"metrics": ["Recall"], "topk": 2, "valid_metric": "Recall@2"},
            "eval_args": {"split": {"RS": [0.6, 0.2, 0.2]}, "order": "TO"},
        },
    )
    init_seed(made["seed"], True)
    train, valid, test = data_preparation(made, Dataset(made))
    init_seed(made["seed"] + rank, True)
    model = BPR(made, train._dataset).to(made["device"])
    trainer = Trainer(made, model)
    trainer.fit(train, valid, saved=False, show_progress=False)
    result = trainer.evaluate(test, load_best_model=False)
    total = sum(float(p.detach().double().sum()) for p in model.parameters())
    print("RESULT", repr(total), dict(result), flush=True)
    del trainer  # it holds the group, which can abort the process if it outlives the next line
    gc.collect()
    torch.distributed.destroy_process_group()


def test_two_processes_on_cpus_end_with_the_same_parameters(config, tmp_path):
    port = several()["port"]
    config()
    workers = [
        programs.start(
            rank,
            port,
            str(tmp_path),
            cwd=tmp_path,
            job=train_as_one_of_two,
            GLOO_SOCKET_IFNAME="lo",
        )
        for rank in (0, 1)
    ]
    codes = [worker.wait() for worker in workers]
    assert codes == [0, 0], workers[0].stderr + workers[1].stderr
    results = [worker.stdout.split("RESULT")[1] for worker in workers]
    assert results[0] == results[1]


# Collector


BEYOND = ["ItemCoverage", "AveragePopularity", "GiniIndex", "TailPercentage", "ShannonEntropy"]


def collect(collector: Collector, dataset, items: list[list[int]]):
    """Feed a collector with scores whose best items are the given ones; return its result."""

    class Loader:
        pass

    Loader.dataset = dataset
    collector.data_collect(Loader)
    scores = torch.zeros(len(items), dataset.item_num)
    for row, best in enumerate(items):
        for place, item in enumerate(best):
            scores[row, item] = 10.0 - place
    first = torch.tensor([0])
    collector.eval_batch_collect(scores, Interaction({}), first, torch.tensor([1]))
    return collector.get_data_struct()


def dataset_for_metrics(config, **settings):
    made = config(metrics=BEYOND, valid_metric="ItemCoverage@2", **settings)
    dataset = Dataset(made)
    dataset._change_feat_format()
    return made, dataset


@needs("recbole", "1.2.1")
def test_plain_collector_breaks_on_counts(config):
    made, dataset = dataset_for_metrics(config)
    with pytest.raises(AttributeError, match="cpu"):
        collect(Collector(made), dataset, [[1, 2]])


def test_beyond_accuracy_metrics_are_right(config):
    made, dataset = dataset_for_metrics(config)
    a, b, c, d = (dataset.token2id("item_id", i) for i in "abcd")
    struct = collect(CollectorCompat(made), dataset, [[a, b], [a, c]])
    result = recbole.trainer.trainer.Evaluator(made).evaluate(struct)
    # a was recommended twice, b and c once, d never; in training a has 3, b 2, c 1, d 1.
    assert result["itemcoverage@2"] == pytest.approx(3 / 5, abs=1e-4)  # RecBole counts [PAD]
    assert result["averagepopularity@2"] == pytest.approx(((3 + 2) / 2 + (3 + 1) / 2) / 2)
    shares = np.array([2, 1, 1]) / 4
    assert result["shannonentropy@2"] == pytest.approx(
        -(shares * np.log(shares)).sum() / 3, abs=1e-4
    )
    assert 0 < result["giniindex@2"] < 1
    assert d not in struct.get("rec.items")


def test_collector_keeps_counts_and_drops_batches_between_evaluations(config):
    made, dataset = dataset_for_metrics(config)
    collector = CollectorCompat(made)
    collect(collector, dataset, [[1, 2]])
    assert "rec.items" not in collector.data_struct
    assert collector.data_struct.get("data.num_items") == 5
    struct = collect(collector, dataset, [[3, 4]])
    assert struct.get("rec.items").tolist() == [[3, 4]]


# All together


@pytest.mark.parametrize("model_class", [BPR, LightGCN])
def test_one_epoch_runs_and_evaluates(config, model_class):
    made = config(patch_model(model_class), item=["kind", "price", "tags"])
    assert made["model"] == model_class.__name__
    init_seed(1, True)
    train, valid, test = data_preparation(made, Dataset(made))
    trainer = Trainer(made, made.model_class(made, train._dataset))
    trainer.fit(train, valid, saved=False)
    result = trainer.evaluate(test, load_best_model=False)
    assert set(result) == {"recall@2", "ndcg@2"}
    assert all(0 <= value <= 1 for value in result.values())
