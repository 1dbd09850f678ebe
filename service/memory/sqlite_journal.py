"""The embedded journal: SQLite in WAL mode, every commit synced before it is acknowledged."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Final

from service.errors import CorruptFile, JournalUnavailable
from service.memory import fitted
from service.memory.journal import (
    Changes,
    Memories,
    MemoryRecord,
    Position,
    SegmentEntry,
    Written,
)
from service.memory.segment_rows import MemoryShape
from service.memory.sqlite_rows import (
    FORMAT,
    INSERT,
    RECORD,
    SCHEMA,
    columns,
    read_record,
    read_segment_rows,
)

__all__ = ["SqliteJournal", "open_reader"]

_LAST_SEQUENCE: Final = 2**63 - 1
_FEW: Final = 500  # host parameters in one statement


class SqliteJournal:
    """A journal file, created where it is missing. Every method may be called from any thread.

    Args:
        path: the database file; `-wal` and `-shm` files appear beside it.
        shape: sizes of the memories; must be those that the file was made with.
        fitted_rows: memories of the bundle, so that they can be forgotten and replaced by id.
        busy_ms: how long a write waits for another process that holds the lock.

    Raises:
        JournalUnavailable: the file cannot be opened or made.
        CorruptFile: it is no journal, or one of another shape or format.
    """

    def __init__(
        self, path: Path, shape: MemoryShape, *, fitted_rows: int = 0, busy_ms: int = 2000
    ) -> None:
        self._path = path
        self._shape = shape
        self._fitted_rows = fitted_rows
        # One connection a purpose: a reading never waits for a commit to be synced.
        self._write_lock, self._read_lock, self._follow_lock = Lock(), Lock(), Lock()
        self._version: int | None = None
        with self._translated():
            self._writer = _connect(path, busy_ms)
            self._prepare()
            self._reader = _connect(path, busy_ms)
            self._follower = _connect(path, busy_ms)

    def append(self, requests: Sequence[Memories]) -> list[Written]:
        """Commits all requests in one transaction, in their order; durable when it returns."""
        with self._transaction() as connection:
            return [self._append(connection, request) for request in requests]

    def forget(self, id: str) -> int:
        """Commits a tombstone for the memory of this id; returns how many there were, 0 or 1."""
        with self._transaction() as connection:
            found = connection.execute(
                "SELECT sequence FROM memories WHERE id = ?", (id,)
            ).fetchone()
            if found is not None:
                _bury(connection, found[0])
                return 1
            return self._bury_fitted(connection, id)

    def forget_source(self, source: str) -> int:
        """Commits tombstones for all memories of a source; returns how many."""
        with self._transaction() as connection:
            connection.execute(
                "INSERT INTO tombstones (sequence) SELECT sequence FROM memories WHERE source = ?",
                (source,),
            )
            forgotten = connection.execute(
                "DELETE FROM memories WHERE source = ?", (source,)
            ).rowcount
            if source == fitted.SOURCE:
                forgotten += connection.executemany(
                    "INSERT OR IGNORE INTO tombstones (sequence) VALUES (?)",
                    ((fitted.sequence_of(row),) for row in range(self._fitted_rows)),
                ).rowcount
            return forgotten

    def find(self, id: str) -> MemoryRecord | None:
        """The memory added online under this id."""
        rows = self._read(f"{RECORD} WHERE id = ?", (id,))
        return rows[0] if rows else None

    def records(self, sequences: Sequence[int]) -> dict[int, MemoryRecord]:
        """The memories added online with these sequences, those of them that live."""
        found = {}
        for start in range(0, len(sequences), _FEW):
            some = sequences[start : start + _FEW]
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

    def moved(self) -> bool:
        """True where a commit of any process may have come since the last `changes`; cheap."""
        with self._follow_lock, self._translated():
            return _data_version(self._follower) != self._version

    @contextmanager
    def changes(self, since: Position | None) -> Iterator[Changes]:
        """A consistent reading of what came since a position, or of all that is not sealed.

        Without a position `tombstones` is empty: `tombstones(first, last)` has those of a segment.
        """
        with self._follow_lock, self._translated():
            version = _data_version(self._follower)
            self._follower.execute("BEGIN")
            try:
                catalogue = _catalogue(self._follower)
                position = _position(self._follower)
                sealed = max((entry.last for entry in catalogue), default=0)
                if since is None:
                    start, buried = sealed, []
                else:
                    start = max(since.sequence, sealed)
                    buried = _column(
                        self._follower,
                        "SELECT sequence FROM tombstones WHERE number > ?",
                        (since.tombstone,),
                    )
                rows = read_segment_rows(self._follower, start + 1, _LAST_SEQUENCE, self._shape)
                yield Changes(catalogue, buried, rows, position)
                # Only now: a reading that failed half-way must be repeated.
                self._version = version
            finally:
                self._follower.execute("ROLLBACK")

    def tombstones(self, first: int, last: int) -> list[int]:
        """The forgotten ones of the sequences first to last."""
        with self._read_lock, self._translated():
            return _column(
                self._reader,
                "SELECT sequence FROM tombstones WHERE sequence BETWEEN ? AND ?",
                (first, last),
            )

    def publish(
        self,
        first: int,
        last: int,
        rows: int,
        replaces: Sequence[SegmentEntry],
        place: Callable[[SegmentEntry], None],
    ) -> SegmentEntry:
        """Enters a sealed segment in the place of others; `place` moves its folder first."""
        with self._transaction() as connection:
            number = connection.execute(
                "INSERT INTO segments (first, last, rows) VALUES (?, ?, ?)", (first, last, rows)
            ).lastrowid
            assert number is not None
            connection.executemany(
                "DELETE FROM segments WHERE number = ?", [(entry.number,) for entry in replaces]
            )
            entry = SegmentEntry(number, first, last, rows)
            place(entry)
            return entry

    def close(self) -> None:
        """Ends all use; the write-ahead log is folded into the file by the last one to close."""
        with self._write_lock, self._read_lock, self._follow_lock:
            for connection in (self._follower, self._reader, self._writer):
                connection.close()

    def _prepare(self) -> None:
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            tables = dict(
                self._writer.execute("SELECT name, type FROM sqlite_master WHERE type = 'table'")
            )
            ours = {
                "format": str(FORMAT),
                "dim": str(self._shape.dim),
                "width": str(self._shape.width),
                "task": self._shape.task,
            }
            if not tables:
                for statement in SCHEMA.split(";"):
                    self._writer.execute(statement)
                self._writer.executemany("INSERT INTO meta VALUES (?, ?)", ours.items())
            elif "meta" not in tables:
                raise CorruptFile(f"{self._path} is a database, but no journal")
            theirs = dict(self._writer.execute("SELECT key, value FROM meta").fetchall())
            if theirs != ours:
                raise CorruptFile(f"{self._path} was made for {theirs}, the model needs {ours}")
            self._writer.execute("COMMIT")
        except BaseException:
            self._writer.execute("ROLLBACK")
            raise

    def _append(self, connection: sqlite3.Connection, memories: Memories) -> Written:
        rows = columns(memories)
        fresh, created, replaced = [], 0, 0
        for id, row in zip(memories.ids, rows, strict=True):
            old = None
            if id is not None:
                old = connection.execute(
                    "SELECT input, target, weight, source, sequence FROM memories WHERE id = ?",
                    (id,),
                ).fetchone()
            if old is not None:
                if old[:4] == (row[1], row[2], row[5], row[6]):
                    continue
                _bury(connection, old[4])
                replaced += 1
            elif id is not None and self._bury_fitted(connection, id):
                replaced += 1
            else:
                created += 1
            fresh.append(row)
        connection.executemany(INSERT, fresh)
        return Written([row[0] for row in rows], created, replaced, len(rows) - len(fresh))

    def _bury_fitted(self, connection: sqlite3.Connection, id: str) -> int:
        row = fitted.row_of_id(id, self._fitted_rows)
        if row is None:
            return 0
        return connection.execute(
            "INSERT OR IGNORE INTO tombstones (sequence) VALUES (?)", (fitted.sequence_of(row),)
        ).rowcount

    def _read(self, statement: str, values: Sequence[object]) -> list[MemoryRecord]:
        with self._read_lock, self._translated():
            rows = self._reader.execute(statement, values).fetchall()
        return [read_record(row, self._shape) for row in rows]

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._write_lock, self._translated():
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                # A full disk may have ended the transaction already.
                if self._writer.in_transaction:
                    self._writer.execute("ROLLBACK")
                raise

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            raise JournalUnavailable(f"{self._path}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise CorruptFile(f"{self._path}: {error}") from error


def open_reader(path: Path) -> sqlite3.Connection:
    """A connection that cannot write, for a process that only builds a segment."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)


def _connect(path: Path, busy_ms: int) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=busy_ms / 1000, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def _column(connection: sqlite3.Connection, statement: str, values: Sequence[object]) -> list[int]:
    return [row[0] for row in connection.execute(statement, values)]


def _data_version(connection: sqlite3.Connection) -> int:
    version: int = connection.execute("PRAGMA data_version").fetchone()[0]
    return version


def _catalogue(connection: sqlite3.Connection) -> list[SegmentEntry]:
    rows = connection.execute("SELECT number, first, last, rows FROM segments ORDER BY first")
    return [SegmentEntry(*row) for row in rows]


def _position(connection: sqlite3.Connection) -> Position:
    last = dict(connection.execute("SELECT name, seq FROM sqlite_sequence").fetchall())
    return Position(last.get("memories", 0), last.get("tombstones", 0))


def _bury(connection: sqlite3.Connection, sequence: int) -> None:
    connection.execute("DELETE FROM memories WHERE sequence = ?", (sequence,))
    connection.execute("INSERT INTO tombstones (sequence) VALUES (?)", (sequence,))
