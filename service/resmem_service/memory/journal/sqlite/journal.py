"""The embedded journal: SQLite in WAL mode, every commit synced before it is acknowledged."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import apsw
import numpy as np
from numpy.typing import NDArray

from resmem_service.errors import CorruptFile
from resmem_service.memory import fitted
from resmem_service.memory.journal.journal import (
    Changes,
    Memories,
    MemoryRecord,
    Position,
    SegmentEntry,
    StoredMemory,
    Written,
)
from resmem_service.memory.journal.sqlite import eviction
from resmem_service.memory.journal.sqlite.append import append
from resmem_service.memory.journal.sqlite.connections import Database, committed
from resmem_service.memory.journal.sqlite.rows import (
    FORMAT,
    LAST_SEQUENCE,
    RECORD,
    SCHEMA,
    STORED,
    read_catalogue,
    read_position,
    read_record,
    read_segment_rows,
    read_stored,
)
from resmem_service.memory.journal.sqlite.versions import library_version
from resmem_service.memory.rows import MemoryShape, SegmentRows

__all__ = ["SqliteJournal"]

_FORGOTTEN_SINCE: Final = "SELECT sequence FROM tombstones WHERE number > ?"
_BURIED_BETWEEN: Final = "SELECT sequence FROM tombstones WHERE sequence BETWEEN ? AND ?"
_LIVING_BETWEEN: Final = (
    "SELECT sequence FROM memories WHERE sequence BETWEEN ? AND ? ORDER BY sequence"
)
_MOST_PARAMETERS: Final = 500  # bound parameters of one statement

_CERTAIN_S: Final = 0.1
"""How long the count of commits is taken at its word."""


class SqliteJournal:
    """A journal file, created where it is missing. Every method may be called from any thread.

    Args:
        path: the database file; `-wal` and `-shm` files appear beside it.
        shape: sizes of the memories; must be those that the file was made with.
        fitted_rows: memories of the bundle, so that they can be forgotten and replaced by id.
        busy_ms: how long a write waits for another process that holds the lock.
        patient: go on where it cannot be written now, with what there is of it; every write tries
            again, and `moved` does once a second.

    Raises:
        JournalUnavailable: the file cannot be opened or made, and the caller is not patient.
        CorruptFile: it is not a journal, or one of another shape or format.
    """

    def __init__(
        self,
        path: Path,
        shape: MemoryShape,
        *,
        fitted_rows: int = 0,
        busy_ms: int = 2000,
        patient: bool = False,
    ) -> None:
        self._shape = shape
        self._fitted_rows = fitted_rows
        self._damaged: set[int] = set()
        self._version: tuple[int, int] | None = None
        self._commits: int | None = None
        self._certain_until = 0.0
        self._path = path
        self._latest: SegmentRows | None = None
        self._catalogue: tuple[tuple[int, tuple[int, int]], list[SegmentEntry]] | None = None
        self._database = Database(path, busy_ms=busy_ms, prepare=self._prepare, patient=patient)

    @property
    def engine(self) -> str:
        """Name and version of the SQLite library."""
        return f"SQLite {library_version()}"

    def append(self, requests: Sequence[Memories], *, wait_ms: int | None = None) -> list[Written]:
        """Commits all requests in one transaction, in their order; durable when it returns."""
        with self._database.writing(wait_ms) as connection:
            with committed(connection):
                written, fresh = append(
                    connection,
                    requests,
                    self._shape,
                    fitted_rows=self._fitted_rows,
                    damaged=self._damaged,
                )
            # Before the commit is counted: who sees the count finds these.
            self._latest = None if any(one.replaced for one in written) else fresh
        return written

    def forget(self, *ids: str, wait_ms: int | None = None) -> list[int]:
        """Commits tombstones for the memories of these ids; returns 0 or 1 for each id."""
        with self._database.transaction(wait_ms) as connection:
            return [self._forget(connection, id) for id in ids]

    def forget_source(self, *sources: str, wait_ms: int | None = None) -> list[int]:
        """Commits tombstones for all memories of these sources; returns how many of each."""
        with self._database.transaction(wait_ms) as connection:
            return [self._forget_source(connection, source) for source in sources]

    def find(self, id: str) -> MemoryRecord | None:
        """The memory added online under this id."""
        rows = self._read(f"{RECORD} WHERE id = ?", (id,))
        return rows[0] if rows else None

    def records(self, sequences: Sequence[int]) -> dict[int, MemoryRecord]:
        """The memories added online with these sequences, those of them that live."""
        found = {}
        for start in range(0, len(sequences), _MOST_PARAMETERS):
            some = sequences[start : start + _MOST_PARAMETERS]
            marks = ",".join("?" * len(some))
            for row in self._read(f"{RECORD} WHERE sequence IN ({marks})", some):
                found[row.sequence] = row
        return found

    def page(self, source: str | None, after: int, limit: int) -> list[MemoryRecord]:
        """Memories added online after a sequence, oldest first, of one source or of all."""
        if source is None:
            where, values = "sequence > ?", (after, limit)
            return self._read(f"{RECORD} WHERE {where} ORDER BY sequence LIMIT ?", values)
        return self._read(
            f"{RECORD} WHERE source = ? AND sequence > ? ORDER BY sequence LIMIT ?",
            (source, after, limit),
        )

    def stored(self, after: int, limit: int) -> list[StoredMemory]:
        """Whole memories after a sequence, oldest first."""
        with self._database.reading() as connection:
            rows = connection.execute(STORED, (after, limit)).fetchall()
        return [read_stored(row, self._shape, self._database.path) for row in rows]

    def moved(self) -> bool:
        """True where a commit of any process may have come since the last `changes`; cheap."""
        if self._database.reopen():
            return True
        commits = self._database.commits
        if commits is not None:
            if commits != self._commits:
                return True
            if time.monotonic() < self._certain_until:
                return False
        with self._database.following() as connection:
            moved = self._data_version(connection) != self._version
        if not moved:
            self._certain_until = time.monotonic() + _CERTAIN_S
        return moved

    def latest(self, since: Position) -> SegmentRows | None:
        """What this process appended, where that and nothing else came since the last reading."""
        rows, commits, before = self._latest, self._database.commits, self._commits
        if rows is None or commits is None or before is None or commits != before + 1:
            return None
        # A process that died may have committed rows, and not have counted its commit.
        if rows.sequences[0] != since.sequence + 1:
            return None
        self._commits = commits
        return rows

    @contextmanager
    def changes(self, since: Position | None) -> Iterator[Changes]:
        """A consistent reading of what came since a position, or of all that is not sealed.

        Without a position `tombstones` is empty: `tombstones(first, last)` has those of a segment.
        """
        # First: what is committed from here on counts once more.
        commits = self._database.commits
        with self._database.following() as connection:
            version = self._data_version(connection)
            connection.execute("BEGIN")
            try:
                position, catalogue = self._progress(connection)
                start = max((entry.last for entry in catalogue), default=0)
                forgotten: list[int] = []
                if since is not None:
                    start = max(start, since.sequence)
                    if since.tombstone != position.tombstone:
                        forgotten = _sequences(connection, _FORGOTTEN_SINCE, since.tombstone)
                skipped: dict[int, str] = {}
                between = partial(read_segment_rows, connection, shape=self._shape, skipped=skipped)
                yield Changes(
                    catalogue,
                    forgotten,
                    rows=between(start + 1, LAST_SEQUENCE),
                    position=position,
                    living=partial(eviction.read_living, connection, self._database.path),
                    forgotten=partial(_sequences, connection, _BURIED_BETWEEN),
                    between=between,
                    sequences=partial(_living_between, connection),
                    skipped=skipped,
                )
                self._damaged.update(skipped)
                # Only now: a reading that failed half-way must be repeated.
                self._version, self._commits = version, commits
                self._certain_until = time.monotonic() + _CERTAIN_S
            finally:
                connection.execute("ROLLBACK")

    def tombstones(self, first: int, last: int) -> list[int]:
        """The forgotten ones of the sequences first to last."""
        with self._database.reading() as connection:
            return _sequences(connection, _BURIED_BETWEEN, first, last)

    def publish(
        self,
        first: int,
        last: int,
        rows: int,
        replaces: Sequence[SegmentEntry],
        place: Callable[[SegmentEntry], None],
    ) -> SegmentEntry:
        """Enters a sealed segment in the place of others; `place` moves its folder first."""
        with self._database.transaction() as connection:
            connection.execute(
                "INSERT INTO segments (first, last, rows) VALUES (?, ?, ?)", (first, last, rows)
            )
            number = connection.last_insert_rowid()
            connection.executemany(
                "DELETE FROM segments WHERE number = ?", [(entry.number,) for entry in replaces]
            )
            connection.execute(
                "DELETE FROM segments WHERE rows = 0 AND last < (SELECT max(last) FROM segments)"
            )
            entry = SegmentEntry(number, first, last, rows)
            place(entry)
            return entry

    def trouble(self) -> str | None:
        """Why nothing can be written now, as far as that shows without writing."""
        return self._database.trouble()

    def row_bytes(self) -> int:
        """What a memory takes in the journal, as the newest ones show; 0 without any."""
        return eviction.row_bytes(self._database)

    def evict(self, *, keep_rows: int | None, before_ms: int | None) -> int:
        """Forgets the oldest memories added online, in small commits; returns how many."""
        return eviction.evict(self._database, keep_rows=keep_rows, before_ms=before_ms)

    def erase(self, position: Position) -> None:
        """Frees what forgotten memories still hold on the disk, their tombstones included."""
        eviction.erase(self._database, position)

    def drop(self, sequences: Sequence[int]) -> None:
        """Commits tombstones for memories whose rows are damaged, whatever their ids say."""
        eviction.drop(self._database, sequences)

    def close(self) -> None:
        """Ends all use."""
        self._database.close()

    def _forget(self, connection: apsw.Connection, id: str) -> int:
        found = connection.execute("SELECT sequence FROM memories WHERE id = ?", (id,)).get
        if found is not None:
            return eviction.mark_forgotten(connection, [found])
        return eviction.mark_fitted_forgotten(connection, id, self._fitted_rows)

    def _forget_source(self, connection: apsw.Connection, source: str) -> int:
        connection.execute(
            "INSERT INTO tombstones (sequence) SELECT sequence FROM memories WHERE source = ?",
            (source,),
        )
        before = connection.total_changes()
        connection.execute("DELETE FROM memories WHERE source = ?", (source,))
        if source == fitted.SOURCE:
            connection.executemany(
                "INSERT OR IGNORE INTO tombstones (sequence) VALUES (?)",
                ((fitted.sequence_of(row),) for row in range(self._fitted_rows)),
            )
        return connection.total_changes() - before

    def _prepare(self, connection: apsw.Connection) -> None:
        shape, path = self._shape, self._path
        ours = {
            "format": str(FORMAT),
            "dim": str(shape.dim),
            "width": str(shape.width),
            "task": shape.task,
            "residuals": shape.codec.name,
        }
        if not _tables(connection):
            with committed(connection):
                if not _tables(connection):
                    connection.execute(SCHEMA)
                    connection.executemany("INSERT INTO meta VALUES (?, ?)", ours.items())
        if "meta" not in _tables(connection):
            raise CorruptFile(f"{path} is a database, but no journal")
        theirs = dict(connection.execute("SELECT key, value FROM meta"))
        if theirs != ours:
            raise CorruptFile(f"{path} was made for {theirs}, the model needs {ours}")

    def _data_version(self, connection: apsw.Connection) -> tuple[int, int]:
        # A connection opened later counts from another number.
        return self._database.openings, connection.execute("PRAGMA data_version").get

    def _progress(self, connection: apsw.Connection) -> tuple[Position, list[SegmentEntry]]:
        position, stamp = read_position(connection)
        if self._catalogue is None or self._catalogue[0] != (self._database.openings, stamp):
            entries = read_catalogue(connection)
            self._catalogue = (self._database.openings, stamp), entries
        return position, self._catalogue[1]

    def _read(self, statement: str, values: Sequence[object]) -> list[MemoryRecord]:
        with self._database.reading() as connection:
            rows = connection.execute(statement, values).fetchall()
        return [read_record(row, self._shape) for row in rows]


def _sequences(connection: apsw.Connection, statement: str, *values: int) -> list[int]:
    return [row[0] for row in connection.execute(statement, values)]


def _living_between(connection: apsw.Connection, first: int, last: int) -> NDArray[np.int64]:
    return np.array(_sequences(connection, _LIVING_BETWEEN, first, last), np.int64)


def _tables(connection: apsw.Connection) -> set[str]:
    return {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
