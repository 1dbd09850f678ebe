"""Eviction and erasure in the embedded journal, in steps so short that no append waits long."""

import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final, cast

import apsw

from resmem_service.errors import CorruptFile, JournalUnavailable
from resmem_service.memory import fitted
from resmem_service.memory.journal.journal import Living, Position
from resmem_service.memory.journal.sqlite.connections import Database, open_reader, translated

__all__ = [
    "count_memories",
    "drop",
    "erase",
    "evict",
    "mark_fitted_forgotten",
    "mark_forgotten",
    "read_living",
    "row_bytes",
]

_ALL: Final = 2**63 - 1
_ROWS_AT_ONCE: Final = 2000
_PAGES_AT_ONCE: Final = 2000
_TURN_MS: Final = 50
_ROW_BYTES: Final = (
    "SELECT avg(length(input) + length(target) + length(embedding) + length(residual) + 100)"
    " FROM (SELECT * FROM memories ORDER BY sequence DESC LIMIT 100)"
)


def mark_forgotten(connection: apsw.Connection, sequences: Sequence[int]) -> int:
    """Forgets memories inside a transaction, leaves tombstones, and returns how many it forgot."""
    if not sequences:
        return 0
    gone = connection.execute(
        "DELETE FROM memories WHERE sequence IN (SELECT value FROM json_each(?))"
        " RETURNING sequence",
        (_listed(sequences),),
    ).fetchall()
    connection.execute(
        "INSERT INTO tombstones (sequence) SELECT value FROM json_each(?)",
        (_listed([cast("int", sequence) for (sequence,) in gone]),),
    )
    return len(gone)


def mark_fitted_forgotten(connection: apsw.Connection, id: str, fitted_rows: int) -> int:
    """Forgets the memory of the bundle that an id names; 0 where there is none, or no longer."""
    row = fitted.row_of_id(id, fitted_rows)
    if row is None:
        return 0
    connection.execute(
        "INSERT OR IGNORE INTO tombstones (sequence) VALUES (?)", (fitted.sequence_of(row),)
    )
    return connection.changes()


def _listed(sequences: Sequence[int]) -> str:
    return f"[{','.join(map(str, sequences))}]"


def evict(database: Database, *, keep_rows: int | None, before_ms: int | None) -> int:
    """Forgets the oldest memories, all but `keep_rows` and all added before a Unix time.

    They leave no tombstones: the horizon rises instead. Returns how many they were.
    """
    evicted = 0
    while True:
        with database.transaction() as connection:
            last = max(_surplus(connection, keep_rows), _expired(connection, before_ms))
            gone = connection.execute(
                "DELETE FROM memories WHERE sequence IN (SELECT sequence FROM memories"
                " WHERE sequence <= ? ORDER BY sequence LIMIT ?) RETURNING sequence",
                (last, _ROWS_AT_ONCE),
            ).fetchall()
            if not gone:
                return evicted
            evicted += len(gone)
            connection.execute("UPDATE horizon SET sequence = ?", (max(gone)[0],))


def drop(database: Database, sequences: Sequence[int]) -> None:
    """Forgets memories that cannot be read; those of their columns may lie that are indexed."""
    with database.transaction() as connection:
        connection.execute("REINDEX memories")
        connection.executemany(
            "DELETE FROM memories WHERE sequence = ?", [(sequence,) for sequence in sequences]
        )
        connection.executemany(
            "INSERT OR IGNORE INTO tombstones (sequence) VALUES (?)",
            [(sequence,) for sequence in sequences],
        )


def erase(database: Database, position: Position) -> None:
    """Drops the tombstones up to a position and gives free pages back to the file system."""
    with database.transaction() as connection:
        connection.execute(
            "DELETE FROM tombstones WHERE sequence BETWEEN 1 AND ? AND number <= ?",
            (position.sequence, position.tombstone),
        )
    left = 1
    while left:
        with database.transaction() as connection:
            connection.execute(f"PRAGMA incremental_vacuum({_PAGES_AT_ONCE})").fetchall()
            left = connection.execute("PRAGMA freelist_count").get
    _cut_log(database)


def _cut_log(database: Database) -> None:
    """Cuts the write-ahead log, in which old pages stay readable until then.

    SQLite holds off every writer while it waits for those that read the log, so it waits in turns.
    """
    until = time.monotonic() + database.busy_ms / 1000
    while True:
        with database.writing() as connection:
            connection.set_busy_timeout(min(_TURN_MS, database.busy_ms))
            busy, *_ = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").get
        if not busy:
            return
        if time.monotonic() >= until:
            raise JournalUnavailable(
                f"{database.path}: another process reads it; compact again later"
            )
        time.sleep(_TURN_MS / 1000)


def read_living(connection: apsw.Connection, path: Path) -> Living:
    """Counts the memories from the index of their ids, without reading a row.

    Raises:
        CorruptFile: the tombstones and their index disagree.
    """
    (found,) = next(connection.execute("PRAGMA integrity_check(tombstones)"))
    if found != "ok":
        raise CorruptFile(f"{path}: {found}")
    return Living(
        *connection.execute("SELECT count(*), ifnull(sum(sequence), 0) FROM memories").get
    )


def row_bytes(database: Database) -> int:
    """What a memory takes, as the newest ones show; 0 without any."""
    with database.reading() as connection:
        mean = connection.execute(_ROW_BYTES).get
    return int(mean or 0)


def count_memories(path: Path) -> int:
    """How many memories a journal holds; 0 where there is no file. Writes nothing.

    Raises:
        JournalUnavailable: it cannot be read now.
        CorruptFile: it is not a journal.
    """
    if not path.exists():
        return 0
    with translated(path), closing(open_reader(path)) as connection:
        return int(connection.execute("SELECT count(*) FROM memories").get)


def _surplus(connection: apsw.Connection, keep_rows: int | None) -> int:
    """The last sequence of those that are too many, 0 for none."""
    if keep_rows is None:
        return 0
    count = connection.execute("SELECT count(*) FROM memories").get
    if count <= keep_rows:
        return 0
    found = connection.execute(
        "SELECT sequence FROM memories ORDER BY sequence LIMIT 1 OFFSET ?", (count - keep_rows - 1,)
    ).get
    return int(found)


def _expired(connection: apsw.Connection, before_ms: int | None) -> int:
    """The last sequence of those that are too old, 0 for none."""
    if before_ms is None:
        return 0
    # A time to come is of a clock that was wrong for a while: it must not shield what came after.
    young = connection.execute(
        "SELECT sequence FROM memories WHERE created_ms BETWEEN ? AND ? ORDER BY sequence LIMIT 1",
        (before_ms, time.time_ns() // 1_000_000),
    ).get
    old = connection.execute(
        "SELECT sequence FROM memories WHERE sequence < ? AND created_ms < ?"
        " ORDER BY sequence DESC LIMIT 1",
        (_ALL if young is None else young, before_ms),
    ).get
    return 0 if old is None else int(old)
