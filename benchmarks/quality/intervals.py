"""Confidence intervals at 95 %: of an accuracy, of an error, and of the difference of two."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

__all__ = ["Interval", "paired_accuracy", "paired_rmse", "rmse", "wilson"]

_Z = 1.959963984540054
"""97.5 % quantile of the normal distribution."""
_RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class Interval:
    """A measured value and the ends of its interval."""

    value: float
    low: float
    high: float


def wilson(right: NDArray[np.bool_]) -> Interval:
    """Share of true values in `right` [n]. Source: Wilson, JASA 22 (1927)."""
    n, p = len(right), float(right.mean())
    centre = (p + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * sqrt(p * (1 - p) / n + _Z**2 / (4 * n**2))
    return Interval(p, centre - half, centre + half)


def paired_accuracy(base: NDArray[np.bool_], other: NDArray[np.bool_]) -> Interval:
    """Accuracy of `other` minus that of `base`, both [n] over the same rows.

    Only the rows on which the two disagree carry the variance, as in McNemar's test. Source:
    Agresti, "Categorical Data Analysis" (2013), equation 11.2.
    """
    n = len(base)
    gained, lost = int((other & ~base).sum()), int((base & ~other).sum())
    difference = (gained - lost) / n
    error = sqrt(gained + lost - (gained - lost) ** 2 / n) / n
    return Interval(difference, difference - _Z * error, difference + _Z * error)


def rmse(errors: NDArray[np.float64], groups: NDArray[np.int64] | None = None) -> Interval:
    """Root mean square of `errors` [n], with a percentile bootstrap over the rows.

    `groups` [n] numbers what is drawn together, say the day of each row: rows of one day share its
    weather, and drawn one by one they would promise too much.
    """
    return _bootstrap(lambda total, count: _root(total[0], count), [errors], groups)


def paired_rmse(
    base: NDArray[np.float64],
    other: NDArray[np.float64],
    groups: NDArray[np.int64] | None = None,
) -> Interval:
    """RMSE of `other` minus that of `base`, errors [n] over the same rows, resampled in pairs."""
    return _bootstrap(
        lambda total, count: _root(total[1], count) - _root(total[0], count), [base, other], groups
    )


def _root(total: float, count: float) -> float:
    return sqrt(total / count)


def _bootstrap(
    statistic: Callable[[NDArray[np.float64], float], float],
    errors: Sequence[NDArray[np.float64]],
    groups: NDArray[np.int64] | None,
) -> Interval:
    """`statistic` of the summed squares and the number of rows, over resampled groups."""
    rows = len(errors[0])
    numbers = np.arange(rows) if groups is None else np.unique(groups, return_inverse=True)[1]
    counts = np.bincount(numbers).astype(np.float64)
    sums = np.stack([np.bincount(numbers, np.square(one)) for one in errors])
    random = np.random.default_rng(0)
    values = []
    for _ in range(_RESAMPLES):
        drawn = random.integers(len(counts), size=len(counts))
        values.append(statistic(sums[:, drawn].sum(axis=1), float(counts[drawn].sum())))
    low, high = np.quantile(values, [0.025, 0.975])
    return Interval(statistic(sums.sum(axis=1), rows), float(low), float(high))
