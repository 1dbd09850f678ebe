"""Rows with equal embeddings: they are one element of a segment's graph.

hnswlib links elements at distance 0 to each other and to nothing else, so that a tenth of copies of
one input cuts off a seventh of all other rows. The element carries the number of the first of its
rows; which others it stands for lies beside the graph.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from resmem_service.array_file import map_array

__all__ = ["COPY_ARRAYS", "first_of_equals", "read_firsts", "write_copies"]

COPY_ARRAYS = ("groups", "copies")
"""Names of the `.npy` files, uint32 `[g, 2]` and `[c]`; a segment without equal rows has neither.

Line i of `groups` is the first row of those that are equal, rising, and where they end in `copies`,
which holds them all, group by group, the newest of a group first.
"""

_CHUNK_ROWS = 65_536


def first_of_equals(
    embeddings: NDArray[np.float32], *, among: NDArray[np.float32] | None = None
) -> NDArray[np.int64]:
    """For each of n rows the first row with the same embedding, which may be the row itself.

    Args:
        embeddings: `[n, d]`, finite; 0 and -0 are the same number.
        among: `[m, d]`: embeddings that come before them. Row numbers begin with these.

    Returns row numbers `[m + n]`.
    """
    parts = [embeddings] if among is None else [among, embeddings]
    # A random linear function of a row's bits, so that nobody can make rows clash on purpose.
    factors = np.random.default_rng().integers(0, 2**63, embeddings.shape[1], np.uint64) * 2 + 1
    hashes = np.concatenate([chunk @ factors for part in parts for chunk in _bits(part)])
    _, at, group = np.unique(hashes, return_index=True, return_inverse=True)
    first: NDArray[np.int64] = at[group].astype(np.int64)
    others = np.flatnonzero(first != np.arange(len(first)))
    for start in range(0, len(others), _CHUNK_ROWS):
        some = others[start : start + _CHUNK_ROWS]
        if not np.array_equal(_rows(parts, some), _rows(parts, first[some])):
            return _compared(parts)
    return first


def write_copies(folder: Path, first: NDArray[np.int64], sequences: NDArray[np.int64]) -> None:
    """Writes the files beside a graph; none where all rows differ.

    Args:
        folder: receives `groups.npy` and `copies.npy`.
        first: of each of the n rows the first that is equal to it, `[n]`.
        sequences: of the rows, `[n]`: the higher, the newer.

    Raises:
        OSError: the disk refused.
    """
    sizes = np.bincount(first, minlength=len(first))
    labels = np.flatnonzero(sizes > 1)
    if not len(labels):
        return
    rows = np.flatnonzero(sizes[first] > 1)
    order = np.lexsort((-sequences[rows], first[rows]))
    groups = np.stack([labels, np.cumsum(sizes[labels])], axis=1)
    for name, array in zip(COPY_ARRAYS, (groups, rows[order]), strict=True):
        np.save(folder / f"{name}.npy", array.astype(np.uint32))


def read_firsts(folder: Path, rows: int) -> NDArray[np.int64]:
    """Of each row of a segment the first that is equal to it, `[rows]`.

    Raises:
        ValueError: the files contradict each other.
        CorruptFile: one is not an array file.
        OSError: one cannot be read.
    """
    first = np.arange(rows)
    paths = [folder / f"{name}.npy" for name in COPY_ARRAYS]
    if any(path.exists() for path in paths):
        groups, copies = (map_array(path).astype(np.int64) for path in paths)
        sizes = np.diff(groups[:, 1], prepend=0)
        if sizes.sum() != len(copies) or (sizes < 0).any() or (copies >= rows).any():
            raise ValueError("its table of equal rows contradicts itself")
        first[copies] = np.repeat(groups[:, 0], sizes)
    return first


def _bits(embeddings: NDArray[np.float32]) -> Iterator[NDArray[np.uint64]]:
    for start in range(0, len(embeddings), _CHUNK_ROWS):
        # Adding 0 makes 0 of -0, and a copy, without the gaps that a graph file has.
        chunk = np.ascontiguousarray(embeddings[start : start + _CHUNK_ROWS] + np.float32(0))
        yield chunk.view(np.uint32).astype(np.uint64)


def _rows(parts: list[NDArray[np.float32]], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    before = 0 if len(parts) == 1 else len(parts[0])
    found = np.empty((len(rows), parts[-1].shape[1]), np.float32)
    last = rows >= before
    found[last] = parts[-1][rows[last] - before]
    if not last.all():
        found[~last] = parts[0][rows[~last]]
    return found


def _compared(parts: list[NDArray[np.float32]]) -> NDArray[np.int64]:
    """As `first_of_equals`, by comparing whole rows."""
    whole = np.concatenate([*parts]) + np.float32(0)
    _, at, group = np.unique(whole, axis=0, return_index=True, return_inverse=True)
    first: NDArray[np.int64] = at[group.reshape(-1)].astype(np.int64)
    return first
