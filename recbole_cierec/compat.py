"""Work-arounds for RecBole 1.2.0 and 1.2.1 on current packages and on the CPU.

All of them are sub-classes, to be mixed in *before* RecBole's class::

    class Config(ConfigMends, recbole.config.Config): ...
    class VisualDataset(DatasetMends, recbole.data.dataset.Dataset): ...
    class GatedTrainer(TrainerMends, recbole.trainer.Trainer): ...

Nothing of RecBole is patched in place; the only global effect is :func:`numpy_aliases`. Each mend
states its reason (where in RecBole, which package broke it) and when it can go. Line numbers are
those of RecBole 1.2.1; :mod:`recbole_cierec.patches` lists all of them. :func:`mend_model` (scipy)
has its own module, ``compat_models``.

Not mended: ``recbole.quick_start`` (imports ray, which needs old packages; never import it) and
models that call ``torch.load`` on a pre-trained file of an older RecBole.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from recbole.evaluator.collector import Collector, DataStruct
from recbole.utils import FeatureSource, FeatureType
from torch.nn.parallel import DistributedDataParallel

from recbole_cierec.compat_models import mend_model
from recbole_cierec.data.atomic import (
    read_atomic,
    read_header,
    split_cells,
    validate_interactions,
)
from recbole_cierec.data.columns import check_header, refuse_padding
from recbole_cierec.errors import ConfigError, DataError
from recbole_cierec.numpy_names import numpy_aliases

__all__ = [
    "ConfigMends",
    "DatasetMends",
    "FeatureFrame",
    "MendedCollector",
    "TrainerMends",
    "mend_model",
    "numpy_aliases",
    "quiet_recbole",
]

# Harmless, and nothing that a user could act on: (message, category, module).
KNOWN_WARNINGS = (
    # trainer/trainer.py:235, torch 2.4 renamed GradScaler; goes when RecBole takes the new name.
    (r"`torch.cuda.amp.GradScaler", FutureWarning, r"recbole\."),
    # data/dataset/dataset.py:2202 wraps read-only arrays of pandas 3.0, which nobody writes to;
    # goes when RecBole copies the array.
    (r"The given NumPy array is not writable", UserWarning, r"recbole\."),
)


@contextmanager
def quiet_recbole() -> Iterator[None]:
    """Silence warnings that RecBole's code raises on current packages at every run."""
    with warnings.catch_warnings():
        for message, category, module in KNOWN_WARNINGS:
            warnings.filterwarnings("ignore", message, category, module)
        yield


class ConfigMends:
    """For ``recbole.config.Config``."""

    final_config_dict: dict[str, Any]

    def compatibility_settings(self) -> None:
        """Set the old numpy names in a way that numpy 2 allows.

        Reason: config/configurator.py:630, 632 and 635 read ``np.float_``, ``np.complex_`` and
        ``np.unicode_``, which numpy 2.0 dropped: every ``Config()`` raises AttributeError.

        Goes when: RecBole's own method runs on numpy 2.
        """
        numpy_aliases()

    def _init_device(self) -> None:
        """Choose the device, and join the other processes if there are any.

        Reason: config/configurator.py:476-516 demands as many GPUs as processes, the NCCL backend
        and CUDA devices, so ``nproc=2`` cannot run on CPUs (AssertionError or "Distributed package
        doesn't have NCCL built in"); and ``use_gpu: False`` does not keep it from a GPU.

        Goes when: RecBole picks the backend by the device and honours ``use_gpu``.
        """
        settings = self.final_config_dict
        gpus = settings["gpu_id"]
        gpus = ",".join(map(str, gpus)) if isinstance(gpus, (list, tuple)) else str(gpus)
        settings["gpu_id"] = gpus
        use_gpu = settings.get("use_gpu") is not False
        if use_gpu:
            # As RecBole does. Not otherwise: a process that has once seen no GPU keeps seeing none.
            os.environ["CUDA_VISIBLE_DEVICES"] = gpus
        on_gpu = use_gpu and bool(gpus) and torch.cuda.is_available()
        self._check_device(on_gpu)
        settings["single_spec"] = "local_rank" not in settings
        if settings["single_spec"]:
            settings["local_rank"] = 0
            settings["device"] = torch.device("cuda" if on_gpu else "cpu")
        else:
            self._join_processes(on_gpu)

    def _check_device(self, on_gpu: bool) -> None:
        """For sub-classes: called before a device is chosen or other processes are joined."""

    def _join_processes(self, on_gpu: bool) -> None:
        """Join the process group: NCCL with one GPU each, or gloo on the CPU."""
        settings = self.final_config_dict
        needed = ("ip", "port", "offset", "nproc", "world_size")
        if absent := [key for key in needed if key not in settings]:
            raise ConfigError(f"config_dict: local_rank also needs {', '.join(absent)}; remove it")
        rank, n_gpus = settings["local_rank"], len(settings["gpu_id"].split(","))
        if on_gpu and n_gpus < settings["nproc"]:
            raise ConfigError(
                f"nproc is {settings['nproc']}, but gpu_id names {n_gpus} GPU(s): name one for "
                "each process, or set use_gpu to False to run them on the CPU"
            )
        if not torch.distributed.is_initialized():  # a stage shares the group of its run
            torch.distributed.init_process_group(
                backend="nccl" if on_gpu else "gloo",
                init_method=f"tcp://{settings['ip']}:{settings['port']}",
                rank=rank + settings["offset"],
                world_size=settings["world_size"],
            )
        if on_gpu:
            torch.cuda.set_device(rank)
        settings["device"] = torch.device("cuda", rank) if on_gpu else torch.device("cpu")
        if rank != 0:  # one process speaks for all
            settings.update(state="error", show_progress=False, verbose=False)


class _CellSeries(pd.Series):
    """A column whose ``agg(len)`` gives the length of every cell, as in pandas 1 and 2."""

    @property
    def _constructor(self) -> type[pd.Series]:
        return _CellSeries

    def agg(self, func: Any = None, axis: Any = 0, *args: Any, **kwargs: Any) -> Any:
        if func is len:
            return self.map(len)
        return super().agg(func, axis, *args, **kwargs)


class FeatureFrame(pd.DataFrame):
    """A table whose columns answer ``agg(len)`` cell by cell.

    Reason: RecBole takes the lengths of sequences with ``feat[field].agg(len)``
    (data/dataset/dataset.py:712, 792, 809, 1217; kg_dataset.py:316; sequential_dataset.py:165).
    pandas 3.0 passes the whole column to ``len``, so any token_seq column raises ValueError
    "Length of values (1) does not match length of index". One table type mends all six places;
    ``_constructor`` and ``_constructor_sliced`` are what pandas documents for sub-classes.

    Goes when: RecBole uses ``map(len)``.
    """

    @property
    def _constructor(self) -> type[pd.DataFrame]:
        return FeatureFrame

    @property
    def _constructor_sliced(self) -> type[pd.Series]:
        return _CellSeries


class DatasetMends:
    """For ``recbole.data.dataset.Dataset`` and its sub-classes."""

    def _load_inter_feat(self, token: str, dataset_path: str) -> None:
        """Refuse a missing .inter file as any other fault of the data."""
        parts = self.benchmark_filename_list
        names = [f"{token}.{part}.inter" for part in parts] if parts else [f"{token}.inter"]
        for path in (Path(dataset_path, name) for name in names):
            if not path.is_file():
                raise DataError(f"{path}: no such file; check dataset and data_path")
        super()._load_inter_feat(token, dataset_path)

    def _load_feat(self, filepath: str, source: FeatureSource | str) -> pd.DataFrame | None:
        """Read one atomic file and note its columns' types, sources and lengths.

        Reason: data/dataset/dataset.py:501 fills empty cells of a sequence column through a
        chained assignment, which pandas 3.0 (copy on write) does not carry out: AttributeError
        "'float' object has no attribute 'split'". And dataset.py:486 reads with pandas' default
        rules, see :mod:`recbole_cierec.data.atomic`.

        Goes when: both are mended in RecBole; the checks of atomic.py stay ours.

        Args:
            filepath: The file.
            source: What it describes; the suffix for additional files.

        Returns:
            One column per field to be loaded: text, float64, or an array in each cell; None if no
            field is to be loaded.

        Raises:
            DataError: The file is malformed.
        """
        load, unload = self._get_load_and_unload_col(source)
        if load == set():
            return None
        options = {
            "separator": self.config["field_separator"],
            "encoding": self.config["encoding"] or "utf-8",
        }
        header = read_header(filepath, **options)
        wanted = {
            field: kind
            for field, kind in header.items()
            if (load is None or field in load) and field not in (unload or ())
        }
        name = getattr(source, "value", source)
        if not wanted and source != FeatureSource.INTERACTION:
            self.logger.warning(f"{filepath}: none of its columns is to be loaded")
            return None
        check_header(self.config, name, wanted, Path(filepath), header)
        table, types = read_atomic(filepath, columns=wanted, **options)
        validate_interactions(table, *self._checked_fields(source), path=filepath)
        refuse_padding(table, types, self.config["seq_separator"], Path(filepath))
        if source != "link":  # a link only maps items to entities: both are known elsewhere
            self._note_columns(types, source)
        for field, kind in types.items():
            if kind.endswith("seq"):
                cells = split_cells(table[field], kind, self.config["seq_separator"], path=filepath)
                table[field] = self._limit_length(field, cells)
        return FeatureFrame(table)

    def _checked_fields(self, source: FeatureSource | str) -> tuple[str | None, ...]:
        """Columns of users, items and times that may not be empty in a file of this kind."""
        if source == FeatureSource.INTERACTION:
            return self.uid_field, self.iid_field, self.time_field
        return (
            self.uid_field if source == FeatureSource.USER else None,
            self.iid_field if source == FeatureSource.ITEM else None,
            None,
        )

    def _note_columns(self, types: dict[str, str], source: FeatureSource | str) -> None:
        for field, kind in types.items():
            self.field2source[field] = source
            self.field2type[field] = FeatureType(kind)
            if not kind.endswith("seq"):
                self.field2seqlen[field] = 1
            if kind.startswith("float"):
                self.field2bucketnum[field] = 2

    def _limit_length(self, field: str, cells: list[np.ndarray]) -> list[np.ndarray]:
        """Cut sequences to ``seq_len`` where it is set, and note how long they are at most."""
        limit = (self.config["seq_len"] or {}).get(field)
        cells = [cell[:limit] for cell in cells]
        self.field2seqlen[field] = max(map(len, cells))
        return cells

    def _user_item_feat_preparation(self) -> None:
        """Keep the users' and items' tables :class:`FeatureFrame`, which merging undoes."""
        super()._user_item_feat_preparation()
        for name in ("user_feat", "item_feat"):
            feat = getattr(self, name)
            if feat is not None:
                setattr(self, name, FeatureFrame(feat))

    def _fill_nan(self) -> None:
        """Fill missing tokens with 0 ([PAD]), numbers with the mean, sequences with nothing.

        Reason: data/dataset/dataset.py:648 and 650 fill through chained assignments, which are
        without effect in pandas 3.0 (copy on write): the [PAD] row of every token column then
        becomes -2**63 and missing numbers stay NaN, silently.

        Goes when: RecBole assigns the filled column. Differs from RecBole in one case: a column
        without any number becomes 0, not NaN.
        """
        for name in self.feat_name_list:
            feat = getattr(self, name)
            for field in feat:
                kind = self.field2type[field]
                if kind == FeatureType.TOKEN:
                    feat[field] = feat[field].fillna(0).astype(np.int64)
                elif kind == FeatureType.FLOAT:
                    mean = feat[field].mean()
                    feat[field] = feat[field].fillna(0.0 if np.isnan(mean) else mean)
                else:
                    dtype = np.int64 if kind == FeatureType.TOKEN_SEQ else np.float64
                    none = np.array([], dtype=dtype)
                    feat[field] = [none if isinstance(x, float) else x for x in feat[field]]


class TrainerMends:
    """For any trainer of RecBole."""

    def __init__(self, config: Any, model: torch.nn.Module) -> None:
        """Build the trainer; wrap the model for several processes where RecBole cannot.

        Reason: trainer/trainer.py:60-64 names a GPU for every process and turns BatchNorm into
        SyncBatchNorm, both of which torch refuses for a model on the CPU. And utils/utils.py:51
        looks whether the checkpoints' folder exists and then makes it, which fails where another
        process makes it in between.

        Goes when: RecBole leaves out ``device_ids`` on the CPU, and passes ``exist_ok``.

        Args:
            config: RecBole's configuration.
            model: The model, on its device.
        """
        os.makedirs(config["checkpoint_dir"], exist_ok=True)
        on_cpus = not config["single_spec"] and config["device"].type == "cpu"
        if on_cpus:
            config["single_spec"] = True  # so that the base class does not wrap the model
        try:
            super().__init__(config, model)
        finally:
            if on_cpus:
                config["single_spec"] = False
        if on_cpus:
            self.distributed_model = DistributedDataParallel(self.model)
        if type(getattr(self, "eval_collector", None)) is Collector:
            self.eval_collector = MendedCollector(config)


class MendedCollector(Collector):
    """Collector for metrics that need counts of the training data.

    Reason: evaluator/collector.py:226-227 (new in 1.2.1) calls ``.cpu()`` on everything collected,
    also on ints and Counters, so ItemCoverage, AveragePopularity, GiniIndex and TailPercentage
    raise AttributeError with any packages.

    Goes when: RecBole moves tensors only.
    """

    def get_data_struct(self) -> DataStruct:
        """Return all that was collected and reset what belongs to one evaluation only."""
        collected = self.data_struct._data_dict
        plain = {k: value for k, value in collected.items() if not torch.is_tensor(value)}
        for name in plain:
            del self.data_struct[name]
        try:
            struct = super().get_data_struct()
        finally:
            collected.update(plain)
        for name, value in plain.items():
            struct.set(name, value)
        return struct
