"""Rows that a SQLite journal took over from another state, and what they were there.

A row and the note of where it came from are written in one transaction: whatever kills the process,
the notes say exactly what is there, and the next run goes on behind the last of them.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import apsw

from resmem_service.memory.journal.journal import Memories, MemoryRecord
from resmem_service.memory.journal.sqlite import eviction
from resmem_service.memory.journal.sqlite.connections import Database
from resmem_service.memory.journal.sqlite.rows import columns, insertion
from resmem_service.memory.rows import MemoryShape

__all__ = ["Arrivals", "Note", "SqliteTakeover", "Totals", "stamp_of"]

# Made where it is needed: a state that never took anything over does without.
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS carried (
    origin TEXT NOT NULL,
    old INTEGER NOT NULL,
    stamp INTEGER NOT NULL,
    sequence INTEGER UNIQUE,
    unfit INTEGER NOT NULL,
    PRIMARY KEY (origin, old)
) WITHOUT ROWID
"""
_SAME_ID: Final = (
    "SELECT memories.sequence, carried.old FROM memories LEFT JOIN carried"
    " ON carried.sequence = memories.sequence AND carried.origin = ? WHERE memories.id = ?"
)
_DROP: Final = "DELETE FROM carried WHERE origin = ? AND old = ?"
_NOTE: Final = "INSERT INTO carried (origin, old, stamp, sequence, unfit) VALUES (?, ?, ?, ?, ?)"
_TOTALS: Final = (
    "SELECT count(sequence), count(*) - count(sequence) - ifnull(sum(unfit), 0),"
    " ifnull(sum(unfit), 0) FROM carried WHERE origin = ?"
)


@dataclass(frozen=True, slots=True)
class Arrivals:
    """n memories of one source on their way in."""

    memories: Memories
    old: Sequence[MemoryRecord]
    """What each of them is in the state that it comes from."""


class Note(NamedTuple):
    """What became of one memory of the other state."""

    old: int
    """Its sequence there."""
    stamp: int
    """See `stamp_of`."""
    sequence: int | None
    """Its sequence here; None where it was left out, or another memory had its id."""
    unfit: bool


class Totals(NamedTuple):
    """How many memories of the other state came over, met their id here, or did not fit."""

    carried: int
    kept: int
    unfit: int


class SqliteTakeover:
    """What one journal takes over from one other state.

    Args:
        path: the journal that takes; it is there.
        shape: of its memories.
        origin: names the other state.
        busy_ms: how long a write waits for a process that serves the journal.
    """

    def __init__(self, path: Path, shape: MemoryShape, origin: str, *, busy_ms: int) -> None:
        self._shape = shape
        self._origin = origin
        self._database = Database(path, busy_ms=busy_ms)
        try:
            with self._database.transaction() as connection:
                connection.execute(_SCHEMA)
        except BaseException:
            self._database.close()
            raise

    @property
    def last(self) -> int:
        """The newest sequence of the other state that was dealt with; 0 for none."""
        with self._database.reading() as connection:
            found = connection.execute(
                "SELECT max(old) FROM carried WHERE origin = ?", (self._origin,)
            ).get
        return found or 0

    @property
    def totals(self) -> Totals:
        """Of all runs so far."""
        with self._database.reading() as connection:
            return Totals(*connection.execute(_TOTALS, (self._origin,)).get)

    def others(self) -> bool:
        """Whether anything came from a state of another name."""
        with self._database.reading() as connection:
            row = connection.execute(
                "SELECT 1 FROM carried WHERE origin != ? LIMIT 1", (self._origin,)
            ).get
        return row is not None

    def notes(self, first: int, last: int) -> list[Note]:
        """The notes on the sequences first to last of the other state, in order."""
        with self._database.reading() as connection:
            rows = connection.execute(
                "SELECT old, stamp, sequence, unfit FROM carried"
                " WHERE origin = ? AND old BETWEEN ? AND ? ORDER BY old",
                (self._origin, first, last),
            )
            return [Note(old, stamp, sequence, bool(unfit)) for old, stamp, sequence, unfit in rows]

    def carry(self, arrivals: Iterable[Arrivals], unfit: Iterable[MemoryRecord]) -> int:
        """Adds memories and notes in one transaction; returns how many came in.

        A memory that is here under the same id stays, unless it came from the same state, where it
        must have been replaced since.

        Raises:
            JournalUnavailable: nothing was written.
        """
        carried = 0
        with self._database.transaction() as connection:
            for part in arrivals:
                rows = columns([part.memories], self._shape)
                for row, old in zip(rows, part.old, strict=True):
                    sequence = None
                    if self._make_room(connection, old.id):
                        connection.execute(insertion(1), row)
                        sequence = connection.last_insert_rowid()
                        carried += 1
                    self._note(connection, old, sequence, unfit=False)
            for old in unfit:
                self._note(connection, old, None, unfit=True)
        return carried

    def forget(self, gone: Sequence[int]) -> int:
        """Forgets what came over of sequences that the other state no longer has.

        Returns the number of memories; one that was replaced or forgotten here does not count.
        """
        forgotten = 0
        with self._database.transaction() as connection:
            for old in gone:
                sequence = connection.execute(
                    "SELECT sequence FROM carried WHERE origin = ? AND old = ?", (self._origin, old)
                ).get
                if sequence is not None:
                    forgotten += eviction.mark_forgotten(connection, [sequence])
                connection.execute(_DROP, (self._origin, old))
        return forgotten

    def release(self) -> None:
        """Drops all notes: the memories stay, as if they had been added here."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM carried WHERE origin = ?", (self._origin,))

    def close(self) -> None:
        """Ends all use."""
        self._database.close()

    def _make_room(self, connection: apsw.Connection, id: str) -> bool:
        """Whether a memory of this id may come in; its former version from there goes."""
        same = connection.execute(_SAME_ID, (self._origin, id)).get
        if same is None:
            return True
        sequence, old = same
        if old is None:
            return False
        eviction.mark_forgotten(connection, [sequence])
        connection.execute(_DROP, (self._origin, old))
        return True

    def _note(
        self,
        connection: apsw.Connection,
        old: MemoryRecord,
        sequence: int | None,
        *,
        unfit: bool,
    ) -> None:
        connection.execute(_NOTE, (self._origin, old.sequence, stamp_of(old), sequence, int(unfit)))


def stamp_of(record: MemoryRecord) -> int:
    """Tells one memory from another that got its sequence after a backup was restored.

    A digest, since an id may say something about a person, and notes outlive what is forgotten.
    """
    content = f"{record.created_ms} {record.id}".encode()
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), signed=True)
