"""How long a batch takes, learned from the batches that ran."""

from typing import Final

__all__ = ["BatchTime"]

_TOWARDS_FASTER: Final = 0.5
_TOWARDS_SLOWER: Final = 0.1
"""A slow batch is mostly bad luck (another thread, a page fault), a fast one is proof."""


class BatchTime:
    """Expected seconds of a batch, for each size class: 1, 2-3, 4-7, 8-15 rows and so on.

    Any thread may note and ask; a lost update does no harm.
    """

    def __init__(self) -> None:
        self._seconds: dict[int, float] = {}

    def note(self, rows: int, seconds: float) -> None:
        """Learn that a batch of this size took this long."""
        size = rows.bit_length()
        before = self._seconds.get(size, seconds)
        share = _TOWARDS_FASTER if seconds < before else _TOWARDS_SLOWER
        self._seconds[size] = before + share * (seconds - before)

    def expected(self, rows: int) -> float:
        """Seconds that a batch of this size should take; infinity for a size class never seen."""
        return self._seconds.get(rows.bit_length(), float("inf"))
