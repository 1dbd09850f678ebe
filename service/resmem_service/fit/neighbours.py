"""Exact nearest neighbours of a sample of rows: for tuning, and to measure recall against."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from resmem_service.resources import usable_cpus

__all__ = ["Neighbours", "nearest"]

_QUERIES: Final = 128
_BLOCK_BYTES: Final = 64_000_000
_THREADS: Final = 8
_SPARE: Final = 8
"""Candidates beyond k, so that rounding in the fast distances loses none of the true k."""


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The k nearest memories of q queries, the nearest first."""

    rows: NDArray[np.int64]
    """`[q, k]`: row numbers among the memories."""
    distances: NDArray[np.float64]
    """`[q, k]`: Euclidean."""

    def part(self, start: int, stop: int) -> "Neighbours":
        """Those of the queries from `start` up to, not including, `stop`."""
        return Neighbours(self.rows[start:stop], self.distances[start:stop])


def nearest(
    queries: NDArray[np.float32],
    memories: NDArray[np.float32],
    k: int,
    *,
    own: NDArray[np.int64] | None = None,
) -> Neighbours:
    """Find the k nearest memories `[n, d]` of each query `[q, d]`; fewer memories means all.

    `own` `[q]` names the memory that a query must not see, -1 for none; with it at most n - 1 are
    returned, the memory of a row never votes for itself.
    """
    count = len(memories)
    k = min(k, count if own is None else count - 1)
    rows = np.empty((len(queries), k), np.int64)
    distances = np.empty((len(queries), k))
    # |a - b|^2 = |a|^2 - 2ab + |b|^2 loses least when the rows lie around 0.
    centre = memories.mean(axis=0, dtype=np.float64).astype(np.float32)
    centred = memories - centre
    norms = np.einsum("nd,nd->n", centred, centred)
    hidden = np.full(len(queries), -1) if own is None else own

    def search(start: int) -> None:
        some = slice(start, min(start + step, len(queries)))
        chunk = queries[some] - centre
        near = norms - 2.0 * (chunk @ centred.T)
        seen = hidden[some]
        at = np.flatnonzero(seen >= 0)
        near[at, seen[at]] = np.inf
        wide = min(k + _SPARE, count)
        found = np.argpartition(near, wide - 1, axis=1)[:, :wide]
        exact = _exact(chunk, centred, found)
        exact[found == seen[:, None]] = np.inf
        order = np.argsort(exact, axis=1, kind="stable")[:, :k]
        rows[some] = np.take_along_axis(found, order, axis=1)
        distances[some] = np.take_along_axis(exact, order, axis=1)

    step = max(1, min(_QUERIES, _BLOCK_BYTES // (4 * count)))
    # Threads help: numpy partitions, the slowest part, without the GIL and on one CPU.
    with ThreadPoolExecutor(min(usable_cpus(), _THREADS)) as pool:
        for _ in pool.map(search, range(0, len(queries), step)):
            pass
    return Neighbours(rows, distances)


def _exact(
    queries: NDArray[np.float32], memories: NDArray[np.float32], rows: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Distances `[q, m]` from differences, without the rounding of the fast formula."""
    result = np.empty(rows.shape)
    for query in range(len(rows)):
        difference = (memories[rows[query]] - queries[query]).astype(np.float64)
        result[query] = np.sqrt(np.einsum("md,md->m", difference, difference))
    return result
