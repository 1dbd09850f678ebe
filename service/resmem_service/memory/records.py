"""Single memories as their owners see them: those of the journal and those of the bundle as one."""

from collections.abc import Sequence

from resmem_service.errors import MemoryNotFound
from resmem_service.memory import fitted
from resmem_service.memory.journal.journal import Journal, MemoryRecord
from resmem_service.memory.segments.sealed_segment import SealedSegment

__all__ = ["Records"]


class Records:
    """Look-ups by id, by source and by sequence.

    Args:
        journal: of the memories added online; None where there can be none.
        fitted: the bundle's segment; None for a bundle without memories.
    """

    def __init__(self, journal: Journal | None, fitted: SealedSegment | None) -> None:
        self._journal = journal
        self._fitted = fitted

    def find(self, id: str) -> MemoryRecord:
        """The memory of this id.

        Raises:
            MemoryNotFound: there is none.
        """
        record = None if self._journal is None else self._journal.find(id)
        if record is None:
            record = self._find_fitted(id)
        if record is None:
            raise MemoryNotFound(f"no memory has the id {id!r}", "id")
        return record

    def page(self, *, source: str | None, limit: int, after: int = 0) -> list[MemoryRecord]:
        """Up to `limit` memories, oldest first, behind the sequence `after`; 0 is the beginning.

        Those of the bundle, whose sequences fall from -1, are listed before the others where asked
        for by their source, `fit`. The sequence need not be of a memory that is there: whatever
        happened to it, the page begins at the same place.
        """
        found: list[MemoryRecord] = []
        if source == fitted.SOURCE and after <= 0:
            found = self._page_fitted(fitted.row_of_sequence(after) + 1, limit)
        if self._journal is not None and len(found) < limit:
            found += self._journal.page(source, max(after, 0), limit - len(found))
        return found

    def describe(self, sequences: Sequence[int]) -> list[MemoryRecord | None]:
        """The memories behind sequences that a correction named; None for one forgotten since."""
        online = [sequence for sequence in sequences if sequence > 0]
        found = {} if self._journal is None or not online else self._journal.records(online)
        return [
            self._fitted_record(fitted.row_of_sequence(sequence))
            if sequence < 0
            else found.get(sequence)
            for sequence in sequences
        ]

    def _find_fitted(self, id: str) -> MemoryRecord | None:
        rows = 0 if self._fitted is None else self._fitted.rows
        row = fitted.row_of_id(id, rows)
        return None if row is None or not self._lives(row) else self._fitted_record(row)

    def _page_fitted(self, start: int, limit: int) -> list[MemoryRecord]:
        found: list[MemoryRecord] = []
        for row in range(start, 0 if self._fitted is None else self._fitted.rows):
            if len(found) == limit:
                break
            if self._lives(row):
                found.append(self._fitted_record(row))
        return found

    def _lives(self, row: int) -> bool:
        return self._fitted is not None and self._fitted.native.lives(row)

    def _fitted_record(self, row: int) -> MemoryRecord:
        assert self._fitted is not None
        record = MemoryRecord(
            id=fitted.id_of(row),
            sequence=fitted.sequence_of(row),
            source=fitted.SOURCE,
            target=self._fitted.targets[row].tolist(),
            weight=float(self._fitted.weights[row]),
            created_ms=None,
        )
        self._fitted.check()
        return record
