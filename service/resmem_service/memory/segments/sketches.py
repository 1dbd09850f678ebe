"""The second set of files that a search walks through: links, and sketches of the vectors.

A walk through a graph is bound by memory. In hnswlib's file the links of a row and its d float32
lie together; here they lie apart and close, and a number of a vector is one byte. The search finds
its candidates by the sketches and ranks them by the vectors, which stay where they are.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resmem_service.memory.segments.graph_file import graph_records

__all__ = ["SKETCH_ARRAYS", "sketch_bytes", "write_sketches"]

SKETCH_ARRAYS = ("links", "sketches", "grid")
"""Names of the `.npy` files: uint32 `[n, 2 M]`, int8 `[n, stride]` and float32 `[2, d]`.

Row i is element i of the graph file, not row i of the segment. A list of links shorter than 2 M is
filled up with the element itself. Code c of dimension j stands for `grid[0, j] + c * grid[1, j]`.
"""

_CHUNK_ROWS = 65_536
_LINE_BYTES = 64
_LANES = 16
_LARGEST_CODE = 127
_COARSEST = 0.01
"""Distortion up to which recall stays what it is, see docs/search.md; embeddings of networks are at
0.002 to 0.004."""
_SAMPLE_ROWS = 1000


def write_sketches(folder: Path, graph: NDArray[np.uint8], dim: int) -> None:
    """Writes the files beside a graph; none where one byte a number is too coarse for it.

    Args:
        folder: receives `links.npy`, `sketches.npy` and `grid.npy`.
        graph: the bytes of the graph file.
        dim: d.

    Raises:
        OSError: the disk refused.
    """
    records = graph_records(graph, dim)
    vectors = records["vector"]
    grid = _grid(vectors)
    sketches = np.zeros((len(records), _stride(dim)), np.int8)
    links = np.empty(records["links"].shape, np.uint32)
    for start in range(0, len(records), _CHUNK_ROWS):
        chunk = slice(start, start + _CHUNK_ROWS)
        sketches[chunk, :dim] = _sketched(vectors[chunk], grid)
        links[chunk] = _filled(records[chunk], start)
    if _distortion(vectors, links, sketches, grid) > _COARSEST:
        return
    arrays: tuple[NDArray[Any], ...] = (links, sketches, grid)
    for name, array in zip(SKETCH_ARRAYS, arrays, strict=True):
        np.save(folder / f"{name}.npy", array)


def sketch_bytes(dim: int, m: int) -> int:
    """What these files take for one memory of `dim` numbers in a graph of `m` links a row."""
    return 4 * 2 * m + _stride(dim)


def _stride(dim: int) -> int:
    """A row of sketches touches as few lines of the cache as it can."""
    padded = -(-dim // _LANES) * _LANES
    return padded if padded <= _LINE_BYTES // 2 else -(-dim // _LINE_BYTES) * _LINE_BYTES


def _grid(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    low, high = vectors.min(axis=0).astype(float), vectors.max(axis=0).astype(float)
    return np.array([(low + high) / 2, (high - low) / (2 * _LARGEST_CODE)], np.float32)


def _sketched(vectors: NDArray[np.float32], grid: NDArray[np.float32]) -> NDArray[np.int8]:
    offset, scale = grid.astype(float)
    steps = (vectors - offset) / np.where(scale > 0, scale, 1)
    codes: NDArray[np.int8] = np.rint(steps).clip(-_LARGEST_CODE, _LARGEST_CODE).astype(np.int8)
    return codes


def _filled(records: NDArray[np.void], start: int) -> NDArray[np.uint32]:
    links = records["links"]
    missing = np.arange(links.shape[1]) >= records["count"][:, None]
    own = np.arange(start, start + len(records), dtype=np.uint32)[:, None]
    return np.where(missing, own, links)


def _distortion(
    vectors: NDArray[np.float32],
    links: NDArray[np.uint32],
    sketches: NDArray[np.int8],
    grid: NDArray[np.float32],
) -> float:
    """By what share the distances to linked rows change where those are sketches: the mean over
    rows, and at most 1 for a row, so that neither one far outside nor its neighbours decide it.
    """
    some = np.linspace(0, len(vectors) - 1, min(len(vectors), _SAMPLE_ROWS)).astype(np.int64)
    shares = []
    for row in some:
        to = links[row][links[row] != row]  # an element that fills up its own list is no neighbour
        known = vectors[to].astype(float)
        seen = grid[0] + sketches[to, : known.shape[1]] * grid[1].astype(float)
        true = np.sqrt(((known - vectors[row]) ** 2).sum(axis=1))
        false = np.sqrt(((seen - vectors[row]) ** 2).sum(axis=1))
        # Rows at one place have one sketch: nothing is lost among them.
        shares.append(min(1.0, np.abs(false - true).sum() / true.sum()) if true.any() else 0.0)
    return float(np.mean(shares))
