"""The connections to a journal's file: one a purpose, so that no reading waits for a commit."""

import logging
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import Final

from service import durable
from service.errors import CorruptFile, JournalUnavailable
from service.memory import _kernel

__all__ = ["Database", "committed", "open_reader", "translated"]

logger = logging.getLogger(__name__)

_RETRY_S: Final = 1.0

_PRAGMAS: Final = (
    # Set before the first table is made: free pages can then be given back bit by bit.
    "auto_vacuum = INCREMENTAL",
    "journal_mode = WAL",
    "synchronous = FULL",
    # What is deleted is overwritten at once.
    "secure_delete = ON",
)

Prepare = Callable[[sqlite3.Connection], None]


class Database:
    """Three connections, each behind a lock; errors of SQLite come out as ours.

    Args:
        path: the file, made where it is missing; `-wal` and `-shm` files appear beside it.
        busy_ms: how long a write waits for another process that holds the lock.
        prepare: called with the writing connection, to make or check the tables.
        patient: go on where the file cannot be written now, with what can be read of it, or with
            empty tables; every write tries to open it again, and so does `reopen`.

    Attributes:
        openings: rises when the connections are replaced.

    Raises:
        JournalUnavailable: the file cannot be opened or made, and the caller is not patient.
        CorruptFile: it is no database.
    """

    def __init__(
        self,
        path: Path,
        *,
        busy_ms: int,
        prepare: Prepare = lambda _: None,
        patient: bool = False,
    ) -> None:
        self.path = path
        self._busy_ms = busy_ms
        self._prepare = prepare
        self._patient = patient
        self._locks = {name: Lock() for name in ("write", "read", "follow")}
        self.openings = 1
        self._writable = True
        self._tried = time.monotonic()
        self._connections: dict[str, sqlite3.Connection] = {}
        self._counter: _kernel.SharedCounter | None = None
        try:
            self._open(busy_ms)
        except JournalUnavailable as error:
            if not patient:
                raise
            logger.error("nothing can be memorized: %s", error)
            self._writable = False
            self._open_to_read()

    @property
    def commits(self) -> int | None:
        """A number that rises with every write of any process, after its commit; None: not known.

        To read it takes no lock and no statement. A process that is killed between a commit and
        this leaves it where it was.
        """
        counter = self._counter
        if counter is None:
            return None
        value = counter.value
        return None if counter.damaged else value

    def reopen(self) -> bool:
        """Tries again, once a second at most, where the file could not be written.

        True where it can be now: everything must be read again.
        """
        if self._writable or time.monotonic() - self._tried < _RETRY_S:
            return False
        if not self._locks["write"].acquire(blocking=False):
            return False  # a write is trying
        try:
            with self._locks["read"], self._locks["follow"]:
                self._open_again(busy_ms=0)
        except JournalUnavailable:
            return False
        finally:
            self._locks["write"].release()
        return True

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """A write transaction, synced when the block is left, undone where it raises."""
        with self.writing() as connection, committed(connection):
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """The writing connection outside of a transaction."""
        with self._locks["write"], translated(self.path):
            if not self._writable:
                with self._locks["read"], self._locks["follow"]:
                    self._open_again(self._busy_ms)
            try:
                yield self._connections["write"]
            finally:
                if self._counter is not None:
                    self._counter.add()

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection for look-ups."""
        with self._locks["read"], translated(self.path):
            yield self._connections["read"]

    @contextmanager
    def following(self) -> Iterator[sqlite3.Connection]:
        """The connection that follows the commits of all processes; it never writes."""
        with self._locks["follow"], translated(self.path):
            yield self._connections["follow"]

    def close(self) -> None:
        """Closes all; the last process to close folds the write-ahead log into the file."""
        with ExitStack() as stack:
            for lock in self._locks.values():
                stack.enter_context(lock)
            self._close()

    def _open(self, busy_ms: int) -> None:
        with translated(self.path):
            self._try_to_write(busy_ms)
            for name in self._locks:
                self._connections[name] = _connect(self.path, self._busy_ms)
        with suppress(OSError):  # commits are then looked for in the database itself
            self._counter = _kernel.SharedCounter(f"{self.path}-commits")

    def _try_to_write(self, busy_ms: int) -> None:
        try:
            if self._patient:  # its folder may have been impossible to make until now
                durable.make_folder(self.path.parent)
        except OSError as error:
            raise JournalUnavailable(f"{self.path.parent}: {error.strerror}") from error
        with closing(_connect(self.path, busy_ms, cached_statements=0)) as connection:
            # SQLite opens a write-protected file all the same, and says so at the first write.
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("PRAGMA user_version = 0")
            connection.execute("ROLLBACK")
            self._prepare(connection)

    def _open_again(self, busy_ms: int) -> None:
        """Under all locks."""
        self.openings += 1
        self._tried = time.monotonic()
        self._close()
        try:
            self._open(busy_ms)
        except JournalUnavailable:
            self._close()
            self._open_to_read()
            raise
        self._writable = True
        logger.warning("%s can be written again", self.path)

    def _open_to_read(self) -> None:
        with translated(self.path):
            for name in self._locks:
                self._connections[name] = self._reader()

    def _close(self) -> None:
        for connection in self._connections.values():
            connection.close()
        self._connections = {}
        self._counter = None

    def _reader(self) -> sqlite3.Connection:
        if self.path.exists():
            # Without a log there is nothing to follow; to make one is what failed.
            log = self.path.with_name(f"{self.path.name}-wal")
            options = "mode=ro" if log.exists() and log.stat().st_size else "immutable=1"
            reader = sqlite3.connect(
                f"{self.path.absolute().as_uri()}?{options}",
                uri=True,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=0,  # see `_connect`
            )
            if reader.execute("SELECT 1 FROM sqlite_master").fetchone():
                self._prepare(reader)
                return reader
            reader.close()
        empty = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
        self._prepare(empty)
        return empty


@contextmanager
def committed(connection: sqlite3.Connection) -> Iterator[None]:
    """The block as one write transaction, undone where it raises."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # A full disk may have ended the transaction already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Errors of SQLite come out of the block as ours.

    Raises:
        JournalUnavailable: the file cannot be opened, read or written now.
        CorruptFile: it is no database, or a damaged one.
    """
    try:
        yield
    except (sqlite3.OperationalError, sqlite3.ProgrammingError) as error:
        raise JournalUnavailable(f"{path}: {error}") from error
    except sqlite3.DatabaseError as error:
        raise CorruptFile(f"{path}: {error}") from error


def open_reader(path: Path) -> sqlite3.Connection:
    """A connection that cannot write, for a process that only reads."""
    uri = path.absolute().as_uri()
    reader = sqlite3.connect(f"{uri}?mode=ro", uri=True, isolation_level=None)
    try:
        reader.execute("SELECT 1 FROM sqlite_master")
    except sqlite3.OperationalError:
        reader.close()
        log = path.with_name(f"{path.name}-wal")
        if not path.exists() or (log.exists() and log.stat().st_size):
            raise
        # A disk that is full or read-only has no room for the index of a log; none is needed.
        reader = sqlite3.connect(f"{uri}?immutable=1", uri=True, isolation_level=None)
    except BaseException:
        reader.close()
        raise
    return reader


def _connect(path: Path, busy_ms: int, *, cached_statements: int = 128) -> sqlite3.Connection:
    # A closed one keeps its files open while its statements are cached, and all connections of a
    # process share one mapping of the log's index: one that could not write it spoils the next.
    connection = sqlite3.connect(
        path,
        timeout=busy_ms / 1000,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=cached_statements,
    )
    try:
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    return connection
