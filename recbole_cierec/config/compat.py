"""Compatibility of RecBole's Config with current packages and the CPU.

Mixed in before RecBole's class: ``class Config(ConfigCompat, recbole.config.Config)``. Line numbers
in this and the other ``compat`` modules are those of RecBole 1.2.1;
:mod:`recbole_cierec.compat.patches` lists all replaced places.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from recbole_cierec.compat.numpy_names import numpy_aliases
from recbole_cierec.errors import ConfigError


class ConfigCompat:
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
            # As RecBole does. Not on the CPU: a process that has seen no GPU never finds one.
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
        """A hook of subclasses, called before a device is chosen or other processes are joined."""

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
        if not torch.distributed.is_initialized():  # a stage joins the group of its run
            torch.distributed.init_process_group(
                backend="nccl" if on_gpu else "gloo",
                init_method=f"tcp://{settings['ip']}:{settings['port']}",
                rank=rank + settings["offset"],
                world_size=settings["world_size"],
            )
        if on_gpu:
            torch.cuda.set_device(rank)
        settings["device"] = torch.device("cuda", rank) if on_gpu else torch.device("cpu")
        if rank != 0:  # only the first process writes to the log
            settings.update(state="error", show_progress=False, verbose=False)


@contextmanager
def recbole_errors() -> Iterator[None]:
    """Turn what RecBole raises for a user's values into one line.

    Raises:
        ConfigError: In place of RecBole's exceptions.
    """
    try:
        yield
    except ConfigError:
        raise
    except (ValueError, TypeError, RuntimeError, NotImplementedError) as error:
        raise ConfigError(" ".join(str(error).split())) from error
