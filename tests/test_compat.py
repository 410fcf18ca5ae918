"""Each mend: RecBole alone breaks on current packages (or on the CPU), the mended class works.

The half that shows the break is skipped where the installed package is too old for it.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import recbole.config
import recbole.data.dataset
import recbole.trainer
import scipy.sparse as sp
import torch
from packaging.version import Version
from recbole.data import data_preparation
from recbole.data.interaction import Interaction
from recbole.evaluator.collector import Collector
from recbole.model.general_recommender import BPR, GCMC, NCL, NGCF, LightGCN, SpectralCF
from recbole.model.knowledge_aware_recommender import KGIN, MCCLK
from recbole.utils import init_seed

from recbole_cierec.compat import (
    ConfigMends,
    DatasetMends,
    FeatureFrame,
    MendedCollector,
    TrainerMends,
    mend_model,
)
from recbole_cierec.compat_models import MENDS
from recbole_cierec.errors import ConfigError, DataError


class Config(ConfigMends, recbole.config.Config):
    pass


class Dataset(DatasetMends, recbole.data.dataset.Dataset):
    pass


class SequentialDataset(DatasetMends, recbole.data.dataset.SequentialDataset):
    pass


class Trainer(TrainerMends, recbole.trainer.Trainer):
    pass


def needs(package: str, at_least: str):
    """Skip a test of a break that came with a later version of a package."""
    installed = version(package)
    return pytest.mark.skipif(
        Version(installed) < Version(at_least),
        reason=f"{package} {installed} does not break this yet ({at_least} does)",
    )


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    """RecBole reads sys.argv and writes beside the working directory."""
    monkeypatch.setattr(sys, "argv", ["test"])
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.chdir(tmp_path)


INTER = [("u1", "a"), ("u1", "b"), ("u2", "a"), ("u2", "c"), ("u3", "b"), ("u3", "d"), ("u3", "a")]


@pytest.fixture
def config(tmp_path):
    """Return a function that writes a small data set and makes a configuration for it.

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
    """Leave the process group behind a test."""
    yield
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@pytest.mark.skipif(torch.cuda.is_available(), reason="shows a break without a GPU")
def test_plain_config_cannot_join_processes_on_cpus(config, process_group):
    class NumpyMendOnly(recbole.config.Config):
        compatibility_settings = ConfigMends.compatibility_settings

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
    assert type(trainer.eval_collector) is MendedCollector


WORKER = """
import sys, torch
import recbole.config, recbole.data.dataset, recbole.trainer
from recbole.data import data_preparation
from recbole.model.general_recommender import BPR
from recbole.utils import init_seed
from recbole_cierec.compat import ConfigMends, DatasetMends, TrainerMends

rank, port, folder = int(sys.argv[1]), sys.argv[2], sys.argv[3]
sys.argv = sys.argv[:1]
Config = type("Config", (ConfigMends, recbole.config.Config), {})
Dataset = type("Dataset", (DatasetMends, recbole.data.dataset.Dataset), {})
Trainer = type("Trainer", (TrainerMends, recbole.trainer.Trainer), {})
config = Config(model=BPR, dataset="toy", config_dict=dict(
    load_col={"inter": ["user_id", "item_id", "timestamp"]},
    data_path=folder, use_gpu=False, show_progress=False, epochs=2, local_rank=rank, nproc=2,
    world_size=2, offset=0, ip="127.0.0.1", port=port, metrics=["Recall"], topk=2,
    valid_metric="Recall@2", eval_args={"split": {"RS": [0.6, 0.2, 0.2]}, "order": "TO"}))
init_seed(config["seed"], True)
dataset = Dataset(config)
train, valid, test = data_preparation(config, dataset)
init_seed(config["seed"] + rank, True)
model = BPR(config, train._dataset).to(config["device"])
trainer = Trainer(config, model)
trainer.fit(train, valid, saved=False, show_progress=False)
result = trainer.evaluate(test, load_best_model=False)
total = sum(float(p.detach().double().sum()) for p in model.parameters())
print("RESULT", repr(total), dict(result), flush=True)
torch.distributed.destroy_process_group()
"""


def test_two_processes_on_cpus_end_with_the_same_parameters(config, tmp_path):
    port = str(several()["port"])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    config()
    workers = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", WORKER, str(rank), port, str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for rank in (0, 1)
    ]
    ended = [worker.communicate(timeout=120) for worker in workers]
    assert [w.returncode for w in workers] == [0, 0], ended[0][1] + ended[1][1]
    results = [out.split("RESULT")[1] for out, _ in ended]
    assert results[0] == results[1]


# Dataset


class MendsReadingOnly(recbole.data.dataset.Dataset):
    """RecBole's data set with its own filling and its own remapping."""

    _required_columns = DatasetMends._required_columns
    _checked_fields = DatasetMends._checked_fields
    _note_columns = DatasetMends._note_columns
    _limit_length = DatasetMends._limit_length

    def _load_feat(self, filepath, source):
        feat = DatasetMends._load_feat(self, filepath, source)
        return None if feat is None else pd.DataFrame(feat)


@needs("pandas", "3.0")
def test_plain_dataset_cannot_read_an_empty_sequence_on_pandas_3(config):
    with pytest.raises((AttributeError, TypeError)):
        recbole.data.dataset.Dataset(config(item=["tags"]))


@needs("pandas", "3.0")
def test_plain_dataset_cannot_remap_sequences_on_pandas_3(config):
    with pytest.raises(ValueError, match="does not match length of index"):
        MendsReadingOnly(config(item=["tags"]))


@needs("pandas", "3.0")
def test_plain_dataset_corrupts_missing_cells_on_pandas_3(config):
    dataset = MendsReadingOnly(config(item=["kind", "price"]))
    with np.errstate(invalid="ignore"):
        feat = dataset.item_feat
    assert feat["price"].isna().any()
    assert feat["kind"].isna().any()


def rows_of(dataset, field: str) -> dict:
    """Return the values of an item field by the item's own id."""
    tokens = dataset.field2id_token["item_id"]
    return {str(tokens[i]): row.tolist() for i, row in enumerate(dataset.item_feat[field])}


def test_missing_cells_are_filled(config):
    dataset = Dataset(config(item=["kind", "price", "tags", "size"]))
    dataset._change_feat_format()
    kinds = dataset.field2token_id["kind"]
    assert kinds == {"[PAD]": 0, "x": 1, "y": 2}
    assert rows_of(dataset, "kind") == {"[PAD]": 0, "a": 1, "b": 0, "c": 2, "d": 0}
    assert rows_of(dataset, "price") == {"[PAD]": 2.5, "a": 1, "b": 2.5, "c": 4, "d": 2.5}
    tags = dataset.field2token_id["tags"]
    assert tags == {"[PAD]": 0, "red": 1, "big": 2}
    assert rows_of(dataset, "tags") == {
        "[PAD]": [0, 0],
        "a": [1, 2],
        "b": [0, 0],
        "c": [1, 0],
        "d": [0, 0],
    }
    assert rows_of(dataset, "size")["c"] == [3.0, 0.0]
    assert dataset.item_feat["kind"].dtype == torch.int64


def test_a_column_without_any_number_becomes_zero(config, tmp_path):
    made = config(item=["price"])
    (tmp_path / "toy" / "toy.item").write_text("item_id:token\tprice:float\na\t\nb\tNA\n")
    dataset = Dataset(made)
    dataset._change_feat_format()
    assert set(rows_of(dataset, "price").values()) == {0.0}


def test_sequences_are_cut_to_seq_len(config):
    dataset = Dataset(config(item=["tags", "size"], seq_len={"tags": 1, "size": 9}))
    dataset._change_feat_format()
    assert dataset.field2seqlen["tags"] == 1
    assert dataset.field2seqlen["size"] == 2
    assert dataset.item_feat["tags"].shape == (5, 1)
    assert rows_of(dataset, "size")["a"] == [1.0, 2.0]


def test_sequences_of_numbers_can_be_normalised(config):
    dataset = Dataset(config(item=["size"], normalize_field=["size"]))
    dataset._change_feat_format()
    assert rows_of(dataset, "size")["a"] == [0.0, 0.5]
    assert rows_of(dataset, "size")["c"] == [1.0, 0.0]


def test_agg_len_counts_cells_and_survives_operations():
    frame = FeatureFrame({"x": [[1, 2], [3], []], "k": [2, 0, 1]})
    assert frame["x"].agg(len).tolist() == [2, 1, 0]
    assert frame.sort_values("k")["x"].agg(len).tolist() == [1, 0, 2]
    assert frame["k"].agg("sum") == 3
    assert frame["x"].agg(np.concatenate).tolist() == [1, 2, 3]


def test_ids_that_pandas_takes_for_missing_are_kept(config, tmp_path):
    made = config()
    (tmp_path / "toy" / "toy.inter").write_text(
        'user_id:token\titem_id:token\ttimestamp:float\nNA\tnull\t1\nNA\tnan\t2\nu\t"x\t3\n'
    )
    dataset = Dataset(made)
    assert set(dataset.field2id_token["item_id"]) == {"[PAD]", "null", "nan", '"x'}
    assert dataset.user_num == 3
    assert dataset.inter_num == 3


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("toy.inter", "user_id:token\titem_id:token\nu\t\n", "line 2: item_id is empty"),
        ("toy.inter", "user_id:token\titem_id:token\ttimestamp:float\nu\ti\t\n", "timestamp is no"),
        ("toy.inter", "user:token\titem_id:token\nu\ti\n", "no column user_id:token"),
        ("toy.inter", "user_id:token\titem_id:float\nu\t1\n", "must be item_id:token"),
        ("toy.item", "item_id:token\tkind:token\n\tx\n", "line 2: item_id is empty"),
        ("toy.item", "item_id:token\tkind:token\n", "no rows"),
        ("toy.item", "item_id:token\tsize:float_seq\na\t1 x\n", "line 2: size holds an element"),
    ],
)
def test_faults_of_a_file_are_refused_in_one_line(config, tmp_path, name, content, words):
    made = config(item=["kind", "size"])
    (tmp_path / "toy" / name).write_text(content)
    with pytest.raises(DataError) as caught:
        Dataset(made)
    assert words in str(caught.value)
    assert name in str(caught.value)


def test_missing_files_are_refused_in_one_line(config, tmp_path):
    made = config()
    (tmp_path / "toy" / "toy.inter").unlink()
    with pytest.raises(DataError, match=r"toy\.inter: no such file"):
        Dataset(made)
    with pytest.raises(DataError, match=r"train\.inter: no such file"):
        Dataset(config(benchmark_filename=["train", "test"]))


def test_equal_times_keep_the_order_of_the_file(config, tmp_path):
    items = [f"i{k}" for k in np.random.default_rng(0).permutation(200)]
    made = config()
    (tmp_path / "toy" / "toy.inter").write_text(
        "user_id:token\titem_id:token\ttimestamp:float\n" + "".join(f"u\t{i}\t7\n" for i in items)
    )
    train, valid, test = Dataset(made).build()
    ids = torch.cat([part.inter_feat["item_id"] for part in (train, valid, test)])
    assert train.id2token("item_id", ids).tolist() == items


@needs("pandas", "3.0")
def test_plain_sequential_dataset_cannot_count_ready_made_histories_on_pandas_3(config, tmp_path):
    with pytest.raises((ValueError, AttributeError)):
        build_histories(config, tmp_path, recbole.data.dataset.SequentialDataset)


def test_ready_made_histories_are_counted(config, tmp_path):
    train, _ = build_histories(config, tmp_path, SequentialDataset)
    assert train.inter_feat["item_length"].tolist() == [1, 3]


def build_histories(config, folder: Path, dataset_class: type) -> list:
    """Build a data set whose files hold the histories, as RecBole's benchmark files do."""
    for part in ("train", "test"):
        (folder / "toy" / f"toy.{part}.inter").write_text(
            "user_id:token\titem_id_list:token_seq\titem_id:token\nu\ta\tb\nv\ta b c\td\n"
        )
    made = config(
        "GRU4Rec",
        benchmark_filename=["train", "test"],
        alias_of_item_id=["item_id_list"],
        load_col={"inter": ["user_id", "item_id", "item_id_list"]},
        train_neg_sample_args=None,
        eval_args={"order": "TO", "split": {"LS": "valid_and_test"}, "mode": "full"},
    )
    return dataset_class(made).build()


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
    struct = collect(MendedCollector(made), dataset, [[a, b], [a, c]])
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
    collector = MendedCollector(made)
    collect(collector, dataset, [[1, 2]])
    assert "rec.items" not in collector.data_struct
    assert collector.data_struct.get("data.num_items") == 5
    struct = collect(collector, dataset, [[3, 4]])
    assert struct.get("rec.items").tolist() == [[3, 4]]


# Models


@pytest.fixture
def old_scipy(monkeypatch):
    """Return a function that gives scipy back the method that RecBole's own code needs."""

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
    """Return a model that has only what its matrix is made of.

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
    mended_class = mend_model(model_class)
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
    mended = mend_model(LightGCN)
    assert mended is not LightGCN
    assert issubclass(mended, LightGCN)
    assert mended is mend_model(LightGCN)
    assert (mended.__name__, mended.__module__) == (LightGCN.__name__, LightGCN.__module__)
    assert mend_model(mended) is mended


def test_models_that_need_no_mend_stay_as_they_are():
    class Own(LightGCN):
        def get_norm_adj_mat(self):
            return None

    assert mend_model(BPR) is BPR
    assert mend_model(Own) is Own


def test_sub_classes_of_a_broken_model_are_mended_too():
    class Child(LightGCN):
        pass

    assert issubclass(mend_model(Child), Child)
    assert mend_model(Child).__name__ == "Child"


def test_the_table_of_mends_names_classes_and_methods_of_recbole():
    found = {(c.__module__, c.__name__): c for c, *_ in CASES}
    assert set(found) == set(MENDS)
    assert all(mend.hook in vars(found[key]) for key, mend in MENDS.items())


# All together


@pytest.mark.parametrize("model_class", [BPR, LightGCN])
def test_one_epoch_runs_and_evaluates(config, model_class):
    made = config(mend_model(model_class), item=["kind", "price", "tags"])
    assert made["model"] == model_class.__name__
    init_seed(1, True)
    train, valid, test = data_preparation(made, Dataset(made))
    trainer = Trainer(made, made.model_class(made, train._dataset))
    trainer.fit(train, valid, saved=False)
    result = trainer.evaluate(test, load_best_model=False)
    assert set(result) == {"recall@2", "ndcg@2"}
    assert all(0 <= value <= 1 for value in result.values())


def test_runs_are_free_of_warnings_that_users_cannot_act_on(tmp_path, tiny_folder):
    command = [sys.executable, "-m", "recbole_cierec", "--model=MF", "--dataset=tiny"]
    command += [f"--data_path={tiny_folder}", "--epochs=1", "--use_gpu=False"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert "Warning" not in done.stdout + done.stderr
