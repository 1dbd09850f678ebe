"""Confidence intervals at 95 %: of an accuracy, of an error, and of the difference of two."""

from collections.abc import Callable
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


def rmse(errors: NDArray[np.float64]) -> Interval:
    """Root mean square of `errors` [n], with a percentile bootstrap over the rows."""
    squares = np.square(errors)
    return _bootstrap(len(errors), lambda rows: float(np.sqrt(squares[rows].mean())))


def paired_rmse(base: NDArray[np.float64], other: NDArray[np.float64]) -> Interval:
    """RMSE of `other` minus that of `base`, errors [n] over the same rows, resampled in pairs."""
    one, two = np.square(base), np.square(other)
    return _bootstrap(
        len(base), lambda rows: float(np.sqrt(two[rows].mean()) - np.sqrt(one[rows].mean()))
    )


def _bootstrap(n: int, statistic: Callable[[NDArray[np.int64]], float]) -> Interval:
    random = np.random.default_rng(0)
    values = [statistic(random.integers(n, size=n)) for _ in range(_RESAMPLES)]
    low, high = np.quantile(values, [0.025, 0.975])
    return Interval(statistic(np.arange(n)), float(low), float(high))
