"""How many rows are worked on at once, so that wide outputs do not fill the memory."""

from collections.abc import Iterator
from typing import Final

__all__ = ["CELLS", "batches"]

CELLS: Final = 8_000_000
"""Numbers held at once per array."""


def batches(rows: int, width: int) -> Iterator[slice]:
    """Cut `rows` rows of `width` numbers each into slices of at most `CELLS` numbers."""
    step = max(1, CELLS // max(1, width))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))
