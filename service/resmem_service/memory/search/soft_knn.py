"""The soft k-nearest-neighbour rule: its parameters, and what one evaluation of it returns.

Source: Yang et al., "ResMem: Learn What You Can and Memorize the Rest", NeurIPS 2023
(arXiv 2302.01576), section 3, with two extensions of ours, importance and shrinkage, that leave
the paper's formula untouched at their defaults.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Correction", "SoftKnn"]


@dataclass(frozen=True, slots=True)
class SoftKnn:
    """How neighbours are found and weighed.

    With `d_i` the Euclidean distance to neighbour i, `m_i` its importance and
    `e_i = exp(-d_i / sigma)`, its weight is `m_i e_i / (alpha + sum_j m_j e_j)`.

    Raises:
        ValueError: a parameter is out of its range.
    """

    k: int
    """Neighbours per query, at least 1; fewer memories than k means all of them."""
    sigma: float
    """Bandwidth, in units of distance, above 0."""
    alpha: float = 0.0
    """Shrinkage, at least 0: pulls the correction to 0 far from every memory."""
    ef: int = 100
    """Breadth of the graph search, at least 1; the search never uses less than k."""

    def __post_init__(self) -> None:
        if self.k < 1 or self.ef < 1:
            raise ValueError("k and ef must be at least 1")
        if not (self.sigma > 0 and np.isfinite(self.sigma)):
            raise ValueError("sigma must be finite and above 0")
        if not (self.alpha >= 0 and np.isfinite(self.alpha)):
            raise ValueError("alpha must be finite and at least 0")


@dataclass(frozen=True, slots=True)
class Correction:
    """What the memory says to a batch of n queries; neighbours are sorted, the nearest first.

    Where a query has fewer than k neighbours the rest of its row is: sequence 0, distance
    infinity, weight 0.
    """

    residuals: NDArray[np.float32]
    """`[n, L]`: the weighted sum of the neighbours' residuals, zeros without any memory."""
    sequences: NDArray[np.int64]
    """`[n, k]`: which memories; above 0 journal sequence numbers, below 0 fitted rows, -1 - row."""
    distances: NDArray[np.float64]
    """`[n, k]`: Euclidean distances."""
    weights: NDArray[np.float64]
    """`[n, k]`: weights `w_i`; with alpha = 0 a row of them sums to 1."""
