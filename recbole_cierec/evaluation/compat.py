"""Compatibility subclass of RecBole's Collector."""

from __future__ import annotations

import torch
from recbole.evaluator.collector import Collector, DataStruct


class CollectorCompat(Collector):
    """Supports metrics that need counts of the training data.

    Reason: evaluator/collector.py:226-227 (new in 1.2.1) calls ``.cpu()`` on everything collected,
    also on ints and Counters, so ItemCoverage, AveragePopularity, GiniIndex and TailPercentage
    raise AttributeError with any packages.

    Goes when: RecBole moves tensors only.
    """

    def get_data_struct(self) -> DataStruct:
        """Return the collected data, and reset those of one evaluation."""
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
