"""Bootstrap intervals of means over users: percentiles over samples of users, with replacement.

SciPy's ``bootstrap`` draws for one sample at a time; here all columns of a table share the samples.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

LEVEL = 0.95
RESAMPLES = 2000


def bootstrap_means(
    values: np.ndarray,
    sizes: np.ndarray | None = None,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> np.ndarray:
    """Means of bootstrap samples of users.

    All columns share the samples, so differences of columns are those of paired samples.

    Args:
        values: [users, columns], the sum of each user's values; nan: no value.
        sizes: Number of values in each sum [users]; None: one.
        seed: Seed of the samples.
        resamples: Their number.

    Returns:
        [resamples, columns]
    """
    rng, n = np.random.default_rng(seed), len(values)
    has = ~np.isnan(values)
    filled = np.where(has, values, 0.0)
    weights = has if sizes is None else has * sizes[:, None]
    means = np.empty((resamples, values.shape[1]))
    for row in means:
        counts = np.bincount(rng.integers(n, size=n), minlength=n).astype(float)
        with np.errstate(invalid="ignore"):  # a sample may have no user of a small group
            row[:] = (counts @ filled) / (counts @ weights)
    return means


def interval(means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the 95 % percentile interval of each column of :func:`bootstrap_means`."""
    tail = (1 - LEVEL) / 2
    low, high = np.nanquantile(means, [tail, 1 - tail], axis=0)
    return low, high


def mean_interval(values: np.ndarray, users: np.ndarray | None = None) -> tuple[float, float]:
    """The 95 % interval of the mean of values [n], n >= 1.

    Args:
        values: The values.
        users: The user of each value; samples are of users, with all their values. None: every
            value is of another user.
    """
    groups = pd.Series(values).groupby(np.arange(len(values)) if users is None else users)
    sums, sizes = groups.sum().to_numpy(), groups.size().to_numpy()
    low, high = interval(bootstrap_means(sums[:, None], sizes))
    return float(low[0]), float(high[0])
