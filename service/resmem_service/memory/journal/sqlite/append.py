"""How requests are written: in few statements, whatever the number of their rows.

Python gives up its lock for every statement and then waits until whoever answers requests gives it
back, so a commit of 64 rows must not take 64 statements.
"""

from collections.abc import Container, Iterator, Sequence
from itertools import chain
from typing import Final

import apsw

from resmem_service.memory.journal.journal import Memories, Written
from resmem_service.memory.journal.sqlite.eviction import mark_fitted_forgotten, mark_forgotten
from resmem_service.memory.journal.sqlite.rows import (
    KNOWN,
    Columns,
    columns,
    insertion,
    text,
    to_segment_rows,
)
from resmem_service.memory.rows import MemoryShape, SegmentRows

__all__ = ["append"]

_ROWS_AT_ONCE: Final = 64
_Content = tuple[bytes, bytes, float, str | None]
"""What memories of one id are compared by: input, target, weight, source."""


def append(
    connection: apsw.Connection,
    requests: Sequence[Memories],
    shape: MemoryShape,
    *,
    fitted_rows: int,
    damaged: Container[int] = (),
) -> tuple[list[Written], SegmentRows | None]:
    """Writes all requests, in their order, inside a transaction.

    A row whose sequence is in `damaged` is replaced by the same content too: it cannot be read.

    Returns what each of them changed, and the rows that are new, if there are any. A row that a
    later one of the same transaction replaces is not written at all.
    """
    writing = _Writing(connection, requests, fitted_rows, damaged)
    rows = iter(columns(requests, shape))
    written = [writing.take(request, rows) for request in requests]
    mark_forgotten(connection, writing.forgotten)
    fresh = [row for row in writing.fresh if row is not None]
    if not fresh:
        return written, None
    last = _insert(connection, fresh)
    # Sequences rise by one while nobody else can write.
    return written, to_segment_rows(fresh, range(last - len(fresh) + 1, last + 1), shape)


class _Writing:
    """One transaction's rows, sorted into what is new and what goes."""

    def __init__(
        self,
        connection: apsw.Connection,
        requests: Sequence[Memories],
        fitted_rows: int,
        damaged: Container[int],
    ) -> None:
        self._connection = connection
        self._fitted_rows = fitted_rows
        self._stored = _stored(connection, requests)
        self._damaged = damaged
        self._places: dict[str, int] = {}
        self.fresh: list[Columns | None] = []
        self.forgotten: list[int] = []

    def take(self, request: Memories, rows: Iterator[Columns]) -> Written:
        """Takes the request's rows, and says what came of them."""
        ids: list[str] = []
        created = replaced = 0
        for named, row in zip(request.ids, rows, strict=False):
            ids.append(row[0])
            if named is None:
                created += 1
            else:
                content = (row[9], row[1], row[4], row[5])
                replaces = self._replaces(named, content)
                if replaces is None:
                    continue
                created, replaced = created + (not replaces), replaced + replaces
                self._places[named] = len(self.fresh)
            self.fresh.append(row)
        return Written(ids, created, replaced, len(ids) - created - replaced)

    def _replaces(self, id: str, content: _Content) -> bool | None:
        """Whether a memory goes for this one; None where it is there already."""
        place, old = self._places.get(id), self._stored.get(id)
        if place is not None:
            row = self.fresh[place]
            assert row is not None, "an id has one place"
            if (row[9], row[1], row[4], row[5]) == content:
                return None
            self.fresh[place] = None
            return True
        if old is not None:
            if old[0] == content and old[1] not in self._damaged:
                return None
            self.forgotten.append(old[1])
            return True
        return mark_fitted_forgotten(self._connection, id, self._fitted_rows) > 0


def _stored(
    connection: apsw.Connection, requests: Sequence[Memories]
) -> dict[str, tuple[_Content, int]]:
    """Content and sequence of the memories that have an id of the requests already."""
    ids = [id for request in requests for id in request.ids if id is not None]
    found: dict[str, tuple[_Content, int]] = {}
    for start, count in _portions(len(ids)):
        marks = ",".join("?" * count)
        for id, encoded, target, weight, source, sequence in connection.execute(
            f"{KNOWN} WHERE id IN ({marks})", ids[start : start + count]
        ):
            named = None if source is None else text(source)
            found[id] = (encoded, target, weight, named), sequence
    return found


def _insert(connection: apsw.Connection, rows: Sequence[Columns]) -> int:
    """Inserts rows; the sequence of the last."""
    for start, count in _portions(len(rows)):
        values = tuple(chain.from_iterable(rows[start : start + count]))
        connection.execute(insertion(count), values)
    return connection.last_insert_rowid()


def _portions(total: int) -> Iterator[tuple[int, int]]:
    """Start and size of portions, in few sizes (powers of two): statements are cached."""
    start = 0
    while start < total:
        count = min(_ROWS_AT_ONCE, 1 << ((total - start).bit_length() - 1))
        yield start, count
        start += count
