"""Growing segments in a row: the rows in RAM, oldest first, filled and emptied."""

from collections.abc import Iterable, Sequence

import numpy as np

from resmem_service.memory.rows import MemoryShape, SegmentRows
from resmem_service.memory.search import _kernel

__all__ = ["Growing", "GrowingRows", "newest", "without"]

Growing = tuple[_kernel.GrowingSegment, ...]

_FEWEST_ROWS = 64


class GrowingRows:
    """Makes growing segments of one size.

    Args:
        shape: of the memories.
        nbytes: size of a segment, at least 64 rows.
    """

    def __init__(self, shape: MemoryShape, nbytes: int) -> None:
        self._shape = shape
        # The kernel keeps a vector twice: by row, and in the order in which it scans.
        self.row_bytes = 8 * shape.dim + shape.codec.native(shape.width).stride + 12
        self._capacity = max(_FEWEST_ROWS, nbytes // self.row_bytes)

    def append(self, growing: Growing, rows: SegmentRows) -> Growing:
        """The segments with rows added that follow on their newest; the last is filled in place.

        A reading that failed half-way is repeated: what it added is not added again.
        """
        segments = list(growing)
        codec = self._shape.codec.native(self._shape.width)
        codes = self._shape.codec.bytes_of(rows.residuals)
        start = int(np.searchsorted(rows.sequences, newest(growing), side="right"))
        while start < len(rows):
            if not segments or segments[-1].rows == segments[-1].capacity:
                segments.append(_kernel.GrowingSegment(self._capacity, self._shape.dim, codec))
            last = segments[-1]
            start += last.append(rows.embeddings, codes, rows.weights, rows.sequences, start)
        return tuple(segments)

    def holding(self, chunks: Iterable[SegmentRows]) -> Growing:
        """New segments that hold these rows."""
        growing: Growing = ()
        for rows in chunks:
            growing = self.append(growing, rows)
        return growing


def newest(growing: Growing) -> int:
    """The last sequence of the last segment; 0 without any row."""
    return growing[-1].sequence(growing[-1].rows - 1) if growing and growing[-1].rows else 0


def without(growing: Growing, covered: Sequence[tuple[int, int]]) -> Growing:
    """The segments without the rows of these ranges of sequences, which do not overlap.

    Segments that hold none of them are the same objects as before; of the others only the living
    rows are kept, in copies, since predictions may be reading them.
    """
    kept = []
    for segment in growing:
        if segment.rows == 0:
            continue
        first, last = segment.sequence(0), segment.sequence(segment.rows - 1)
        ranges = sorted(pair for pair in covered if pair[0] <= last and pair[1] >= first)
        if ranges:
            copy = _copy_without(segment, ranges)
            if copy is not None:
                kept.append(copy)
        else:
            kept.append(segment)
    return tuple(kept)


def _copy_without(
    segment: _kernel.GrowingSegment, ranges: Sequence[tuple[int, int]]
) -> _kernel.GrowingSegment | None:
    """A copy of the rows outside of the ranges; None where none of them lives."""
    before = segment.sequence(0) - 1
    for first, last in ranges:
        if first <= before + 1:
            before = max(before, last)
    if before >= segment.sequence(segment.rows - 1):
        return None
    copy = segment.copy_after(before)
    inner = [pair for pair in ranges if pair[1] > before]
    for row in range(copy.rows if inner else 0):
        sequence = copy.sequence(row)
        if any(first <= sequence <= last for first, last in inner):
            copy.forget(row)
    return copy if copy.dead_rows < copy.rows else None
