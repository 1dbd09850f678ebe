"""The vectors in a graph file of hnswlib, by row; the search itself reads them in C++."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.errors import CorruptFile

__all__ = ["GraphVectors"]

_HEADER_BYTES = 96


class GraphVectors:
    """The embeddings of a sealed segment, mapped.

    The file is a header of 96 bytes, then one record an element: links, d float32, u64 label. The
    label is the row; elements lie in the order in which hnswlib's threads added them. Source:
    hnswlib 0.8, `hnswalg.h`, `saveIndex`.

    Args:
        path: the file.
        dim: d.

    Raises:
        CorruptFile: its header or its labels are not those of such a file.
    """

    def __init__(self, path: Path, dim: int) -> None:
        content = np.memmap(path, np.uint8, mode="r")
        header = content[:_HEADER_BYTES].view(np.uint64)
        count, record, label, vector = (int(number) for number in header[2:6])
        if (record, label) != (vector + 4 * dim + 8, vector + 4 * dim) or not (
            0 < count <= (len(content) - _HEADER_BYTES) // record
        ):
            raise CorruptFile(f"{path}: its header is not that of a graph of {dim} numbers a row")
        records = content[_HEADER_BYTES : _HEADER_BYTES + count * record].reshape(count, record)
        self._vectors = records[:, vector:label]
        labels = np.ascontiguousarray(records[:, label:]).view(np.uint64)[:, 0]
        self._elements = np.argsort(labels)
        if not np.array_equal(labels[self._elements], np.arange(count)):
            raise CorruptFile(f"{path}: its labels are not the rows 0 to {count - 1}")

    def __len__(self) -> int:
        return len(self._elements)

    def take(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The embeddings `[m, d]` of m rows, copied."""
        return self._vectors[self._elements[rows]].view(np.float32)
