"""Which classes score best; of equal ones the first, as argmax has it."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["best_class", "best_classes"]

_SMALL: Final = 1024
"""Scores that Python itself compares in the time that numpy needs to begin."""


def best_class(scores: NDArray[np.float32]) -> list[int]:
    """For each row of `[n, L]` the index of its best class."""
    if scores.size > _SMALL:
        best: list[int] = scores.argmax(axis=1).tolist()
        return best
    # argmax gives up the GIL and then waits for the batch thread to give it back, 70 us under load.
    return [row.index(max(row)) for row in scores.tolist()]


def best_classes(row: NDArray[np.float32], count: int) -> NDArray[np.intp]:
    """The indexes of the `count` best of `[L]`, or of all if there are fewer, the best first."""
    candidates = np.arange(len(row))
    if count < len(row):
        least = np.partition(row, len(row) - count)[len(row) - count]
        candidates = np.flatnonzero(row >= least)
    return candidates[np.argsort(-row[candidates], kind="stable")[:count]]
