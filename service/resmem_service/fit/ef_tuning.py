"""Tunes ef, the breadth of the graph search: the smallest that finds nearly all true neighbours."""

from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from resmem_service.fit.neighbours import nearest
from resmem_service.memory.memory import ResidualMemory
from resmem_service.memory.rows import MemoryShape
from resmem_service.memory.search.soft_knn import SoftKnn

__all__ = ["ENOUGH", "LOST", "choose_ef"]

ENOUGH: Final = 0.985
"""Recall that is asked for: 0.98, and a margin for the noise of a sample."""
LOST: Final = 0.0025
"""Share of queries that may miss more than half of their neighbours: the mean hides them, since a
narrow search either finds nearly all or ends in another region and finds none."""
_LEAST_K_FOR_LOST: Final = 5
"""Below this k the share of lost queries says nothing that recall does not, and is not measured."""
_EF_VALUES: Final = (32, 48, 64, 100, 128, 200, 400)
_TIE: Final = 1e-5


def choose_ef(
    segment: Path,
    shape: MemoryShape,
    memories: NDArray[np.float32],
    queries: NDArray[np.float32],
    rule: SoftKnn,
    *,
    own: int = 0,
) -> tuple[int, float]:
    """Choose ef by recall@k against brute force on the user's own embeddings.

    `memories` `[n, d]` are the rows of the built segment, `queries` `[q, d]` what to ask it; `own`
    of them are memories themselves, which is too easy: one neighbour more is sought, and the
    query's own memory not counted. Returns the smallest ef that reaches `ENOUGH` and loses no
    more queries than `LOST`, never below k, and its recall; where none does, the largest.
    """
    k = min(rule.k + (own > 0), len(memories))
    farthest = nearest(queries, memories, k).distances[:, -1]
    memory = ResidualMemory.open(None, fitted=segment, shape=shape)
    try:
        for ef in sorted({max(value, rule.k) for value in _EF_VALUES}):
            found = memory.correct(queries, SoftKnn(k, rule.sigma, rule.alpha, ef)).distances
            missed = _missed(found, farthest)
            recall = 1.0 - missed.sum() / max(1, len(queries) * k - own)
            lost = (missed > k / 2).mean() if k >= _LEAST_K_FOR_LOST else 0.0
            if recall >= ENOUGH and lost <= LOST:
                break
    finally:
        memory.close()
    return ef, float(recall)


def _missed(found: NDArray[np.float64], farthest: NDArray[np.float64]) -> NDArray[np.intp]:
    """How many `[q]` true neighbours, within `farthest` `[q]`, are not among those `found`.

    Counted by distance, so that of several memories at one place any will do.
    """
    # The kernel sums in float32: a neighbour exactly at the edge may seem a little beyond it.
    limit = farthest[:, None] * (1 + _TIE) + _TIE
    missed: NDArray[np.intp] = (found > limit).sum(axis=1)
    return missed
