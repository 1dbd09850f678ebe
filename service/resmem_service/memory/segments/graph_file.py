"""The vectors in a graph file of hnswlib, by row; the search itself reads them in C++."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from resmem_service.errors import CorruptFile
from resmem_service.memory.segments.copies import read_firsts

__all__ = ["GraphVectors", "graph_records"]

_HEADER_BYTES = 96


class GraphVectors:
    """The embeddings of a sealed segment, mapped.

    The file is a header of 96 bytes, then one record an element: links, d float32, u64 label. The
    label is the row, or the first of several rows with equal embeddings, which `copies.npy` beside
    it names; elements lie in another order. Source: hnswlib 0.8, `hnswalg.h`, `saveIndex`.

    Args:
        path: the file.
        dim: d.
        rows: of the segment.

    Raises:
        CorruptFile: its header or its labels are not those of such a file.
    """

    def __init__(self, path: Path, dim: int, rows: int) -> None:
        try:
            records = graph_records(np.memmap(path, np.uint8, mode="r"), dim)
            first = read_firsts(path.parent, rows)
        except ValueError as error:
            raise CorruptFile(f"{path}: {error}") from error
        labels = records["label"]
        order = np.argsort(labels)
        of_labels = np.flatnonzero(first == np.arange(rows))
        if not np.array_equal(labels[order], of_labels):
            raise CorruptFile(f"{path}: its labels are not the rows 0 to {rows - 1}")
        self._vectors = records["vector"]
        self._elements = order[np.searchsorted(of_labels, first)]

    def __len__(self) -> int:
        return len(self._elements)

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The embeddings `[m, d]` of m rows, copied."""
        return self._vectors[self._elements[rows]]


def graph_records(content: NDArray[np.uint8], dim: int) -> NDArray[np.void]:
    """The elements in the bytes of a graph file, as a view with fields.

    `count` is the number of links on the lowest level, `links` uint32 `[2 M]`, of which the first
    `count` count, `vector` float32 `[d]` and `label` the row.

    Raises:
        ValueError: the header is not that of such a file.
    """
    header = content[:_HEADER_BYTES]
    numbers = header.view(np.uint64) if len(header) == _HEADER_BYTES else np.zeros(12, np.uint64)
    count, size, label, vector = (int(number) for number in numbers[2:6])
    if (size, label) != (vector + 4 * dim + 8, vector + 4 * dim) or not (
        vector >= 8 and vector % 4 == 0 and 0 < count <= (len(content) - _HEADER_BYTES) // size
    ):
        raise ValueError(f"its header is not that of a graph of {dim} numbers a row")
    record = np.dtype(
        [
            ("count", "<u2"),
            ("marks", "<u2"),
            ("links", "<u4", (vector // 4 - 1,)),
            ("vector", "<f4", (dim,)),
            ("label", "<u8"),
        ]
    )
    records: NDArray[np.void] = content[_HEADER_BYTES : _HEADER_BYTES + count * size].view(record)
    return records
