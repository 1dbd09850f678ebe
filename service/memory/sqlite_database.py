"""The connections to a journal's file: one a purpose, so that no reading waits for a commit."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from service.errors import CorruptFile, JournalUnavailable

__all__ = ["Database", "open_reader"]


class Database:
    """Three connections, each behind a lock; errors of SQLite come out as ours.

    Args:
        path: the file, made where it is missing; `-wal` and `-shm` files appear beside it.
        busy_ms: how long a write waits for another process that holds the lock.

    Raises:
        JournalUnavailable: the file cannot be opened or made.
        CorruptFile: it is no database.
    """

    def __init__(self, path: Path, *, busy_ms: int) -> None:
        self.path = path
        self._locks = {name: Lock() for name in ("write", "read", "follow")}
        with self._translated():
            self._connections = {name: _connect(path, busy_ms) for name in self._locks}

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A write transaction, synced when the block is left, undone where it raises."""
        with self.writing() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                # A full disk may have ended the transaction already.
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """The writing connection outside of a transaction."""
        with self._locks["write"], self._translated():
            yield self._connections["write"]

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection for look-ups."""
        with self._locks["read"], self._translated():
            yield self._connections["read"]

    @contextmanager
    def following(self) -> Iterator[sqlite3.Connection]:
        """The connection that follows the commits of all processes; it never writes."""
        with self._locks["follow"], self._translated():
            yield self._connections["follow"]

    def close(self) -> None:
        """Closes all; the last process to close folds the write-ahead log into the file."""
        for name, lock in self._locks.items():
            with lock:
                self._connections[name].close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.OperationalError, sqlite3.ProgrammingError) as error:
            raise JournalUnavailable(f"{self.path}: {error}") from error
        except sqlite3.DatabaseError as error:
            raise CorruptFile(f"{self.path}: {error}") from error


def open_reader(path: Path) -> sqlite3.Connection:
    """A connection that cannot write, for a process that only builds a segment."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)


def _connect(path: Path, busy_ms: int) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=busy_ms / 1000, isolation_level=None, check_same_thread=False
    )
    # Set before the first table is made: free pages can then be given back bit by bit.
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    # What is deleted is overwritten at once.
    connection.execute("PRAGMA secure_delete = ON")
    return connection
