"""The connections to a journal's file: one a purpose, so that no reading waits for a commit.

APSW adds no transactions of its own: outside of `committed`, each statement is one.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any, Final

import apsw

from resmem_service import durable
from resmem_service.errors import CorruptFile, JournalLocked, JournalUnavailable
from resmem_service.memory.journal.sqlite.files import JournalFiles
from resmem_service.memory.journal.sqlite.versions import check_library
from resmem_service.memory.search import _kernel

__all__ = ["Database", "chunks", "committed", "is_in_use", "open_reader", "translated"]

_log = logging.getLogger(__name__)

_RETRY_S: Final = 1.0
_LOOK_S: Final = 0.005
_IN_USE_MS: Final = 200
_READ_ONLY: Final = apsw.SQLITE_OPEN_READONLY | apsw.SQLITE_OPEN_URI

_DAMAGE: Final = (
    apsw.ConstraintError,
    apsw.CorruptError,
    apsw.FormatError,
    apsw.InternalError,
    apsw.MismatchError,
    apsw.NotADBError,
    apsw.NotFoundError,
    apsw.TooBigError,
    UnicodeDecodeError,
)
"""What SQLite raises for a file that is not a database, or has contents that cannot be."""

_TROUBLE: Final = (
    apsw.AbortError,
    apsw.BusyError,
    apsw.CantOpenError,
    apsw.ConnectionClosedError,
    apsw.EmptyError,
    apsw.FullError,
    apsw.IOError,
    apsw.InterruptError,
    apsw.LockedError,
    apsw.PermissionsError,
    apsw.ProtocolError,
    apsw.ReadOnlyError,
    apsw.SchemaChangeError,
    apsw.SQLError,
)
"""What it raises where the file may be whole, and cannot be used now."""
_REMEMBERED_S: Final = 60.0
_NEVER: Final[tuple[float, str | None]] = (-_REMEMBERED_S, None)

_PRAGMAS: Final = (
    # Set before the first table is made: free pages can then be given back bit by bit.
    "auto_vacuum = INCREMENTAL",
    "journal_mode = WAL",
    "synchronous = FULL",
    # What is deleted is overwritten at once.
    "secure_delete = ON",
)

Prepare = Callable[[apsw.Connection], None]


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
        busy_ms: as given.

    Raises:
        JournalUnavailable: the file cannot be opened or made, and the caller is not patient.
        CorruptFile: it is not a database.
        UnsafeLibrary: the SQLite library can lose what was committed.
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
        self.busy_ms = busy_ms
        self._prepare = prepare
        self._patient = patient
        self._locks = {name: Lock() for name in ("write", "read", "follow")}
        self.openings = 1
        self._writable = True
        self._opening = False
        self._tried = time.monotonic()
        self._connections: dict[str, apsw.Connection] = {}
        self._counter: _kernel.SharedCounter | None = None
        check_library()
        self._files: JournalFiles | None = None
        self._failure = _NEVER
        try:
            self._open(busy_ms)
        except JournalUnavailable as error:
            if not patient:
                raise
            _log.error("nothing can be memorized: %s", error)
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
            self._reopen(busy_ms=0)
        except JournalUnavailable:
            return False
        finally:
            self._locks["write"].release()
        return True

    @contextmanager
    def transaction(self, wait_ms: int | None = None) -> Iterator[apsw.Connection]:
        """A write transaction, synced when the block is left, undone where it raises.

        Raises:
            JournalLocked: another writer held the journal for `wait_ms`; None is `busy_ms`.
        """
        with self.writing(wait_ms) as connection, committed(connection):
            yield connection

    @contextmanager
    def writing(self, wait_ms: int | None = None) -> Iterator[apsw.Connection]:
        """The writing connection outside of a transaction.

        Raises:
            JournalLocked: this process wrote for longer than `wait_ms`; None is `busy_ms`.
        """
        wait_ms = self.busy_ms if wait_ms is None else wait_ms
        until = time.monotonic() + wait_ms / 1000
        with self._noted(), self._turn_to_write(wait_ms), translated(self.path):
            if not self._writable:
                self._reopen(_left_ms(until))
            connection = self._connection("write")
            connection.set_busy_timeout(_left_ms(until))
            self._check_files()
            try:
                yield connection
            finally:
                if self._counter is not None:
                    self._counter.add()
            # Before it is acknowledged: what went into a file without a name is as good as lost.
            self._check_files(log=True)

    def trouble(self) -> str | None:
        """Why nothing can be written, as far as that shows without writing; None for nothing."""
        if not self._writable:
            return f"{self.path} cannot be written"
        try:
            self._check_files()
        except JournalUnavailable as error:
            return error.message
        failed_at, message = self._failure
        return message if time.monotonic() < failed_at + _REMEMBERED_S else None

    @contextmanager
    def reading(self) -> Iterator[apsw.Connection]:
        """The connection for look-ups."""
        with self._locks["read"], translated(self.path):
            yield self._connection("read")

    @contextmanager
    def following(self) -> Iterator[apsw.Connection]:
        """The connection that follows the commits of all processes; it never writes.

        Raises:
            JournalUnavailable: a write is opening the journal again; whoever predicts does not wait
                for that.
        """
        lock = self._locks["follow"]
        while not lock.acquire(timeout=_LOOK_S):
            if self._opening:
                raise JournalUnavailable(f"{self.path} is being opened again")
        try:
            with translated(self.path):
                yield self._connection("follow")
        finally:
            lock.release()

    def _connection(self, name: str) -> apsw.Connection:
        connection = self._connections.get(name)
        if connection is None:
            raise JournalUnavailable(f"{self.path} is closed")
        return connection

    def close(self) -> None:
        """Closes all; the last process to close folds the write-ahead log into the file."""
        with ExitStack() as stack:
            for lock in self._locks.values():
                stack.enter_context(lock)
            self._close()

    @contextmanager
    def _noted(self) -> Iterator[None]:
        """Remembers why the block failed, until one succeeds."""
        try:
            yield
        except (JournalUnavailable, CorruptFile) as error:
            self._failure = time.monotonic(), error.message
            raise
        self._failure = _NEVER

    def _check_files(self, *, log: bool = False) -> None:
        files = self._files
        if files is not None:
            files.check()
            if log:
                files.check_log()

    def _open(self, busy_ms: int) -> None:
        with translated(self.path):
            self._try_to_write(busy_ms)
            self._connect_all(partial(_connect, self.path, self.busy_ms))
        with suppress(OSError):  # commits are then looked for in the database itself
            self._counter = _kernel.SharedCounter(f"{self.path}-commits")
        self._files = JournalFiles(self.path)

    def _try_to_write(self, busy_ms: int) -> None:
        try:
            if self._patient:  # its folder may have been impossible to make until now
                durable.make_folder(self.path.parent)
        except OSError as error:
            raise JournalUnavailable(f"{self.path.parent}: {error.strerror}") from error
        with closing(_connect(self.path, busy_ms)) as connection:
            # SQLite opens a write-protected file all the same, and says so at the first write.
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("PRAGMA user_version = 0")
            connection.execute("ROLLBACK")
            self._prepare(connection)

    @contextmanager
    def _turn_to_write(self, wait_ms: int) -> Iterator[None]:
        lock = self._locks["write"]
        if not lock.acquire(timeout=wait_ms / 1000):
            raise JournalLocked(f"{self.path}: this process has been writing for {wait_ms} ms")
        try:
            yield
        finally:
            lock.release()

    def _reopen(self, busy_ms: int) -> None:
        """Under the lock for writing."""
        self._opening = True
        try:
            with self._locks["read"], self._locks["follow"]:
                self._open_again(busy_ms)
        finally:
            self._opening = False

    def _open_again(self, busy_ms: int) -> None:
        """Under all locks."""
        self.openings += 1
        self._tried = time.monotonic()
        self._close()
        try:
            self._open(busy_ms)
        except JournalUnavailable:
            self._open_to_read()
            raise
        self._writable = True
        _log.warning("%s can be written again", self.path)

    def _open_to_read(self) -> None:
        with translated(self.path):
            self._connect_all(self._reader)

    def _connect_all(self, connect: Callable[[], apsw.Connection]) -> None:
        try:
            for name in self._locks:
                self._connections[name] = connect()
        except BaseException:
            self._close()
            raise

    def _close(self) -> None:
        for connection in self._connections.values():
            connection.close()
        self._connections = {}
        self._counter = None
        self._files = None

    def _reader(self) -> apsw.Connection:
        if self.path.exists():
            # Without a log there is nothing to follow; to make one is what failed.
            log = self.path.with_name(f"{self.path.name}-wal")
            options = "mode=ro" if log.exists() and log.stat().st_size else "immutable=1"
            reader = apsw.Connection(f"{self.path.absolute().as_uri()}?{options}", flags=_READ_ONLY)
            try:
                if reader.execute("SELECT 1 FROM sqlite_master").get is not None:
                    self._prepare(reader)
                    return reader
            except BaseException:
                reader.close()
                raise
            reader.close()
        empty = apsw.Connection(":memory:")
        self._prepare(empty)
        return empty


@contextmanager
def committed(connection: apsw.Connection) -> Iterator[None]:
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
        JournalLocked: another process holds it.
        JournalUnavailable: the file cannot be opened, read or written now.
        CorruptFile: it is not a database, or a damaged one.
    """
    try:
        yield
    except (apsw.BusyError, apsw.LockedError) as error:
        raise JournalLocked(f"{path}: {_described(error)}") from error
    except _TROUBLE as error:
        raise JournalUnavailable(f"{path}: {_described(error)}") from error
    except _DAMAGE as error:
        raise CorruptFile(f"{path}: {_described(error)}") from error


def chunks(cursor: apsw.Cursor, rows: int) -> Iterator[list[tuple[Any, ...]]]:
    """What a cursor has left, in lists of `rows`, the last one shorter."""
    while some := list(islice(cursor, rows)):
        yield some


def open_reader(path: Path) -> apsw.Connection:
    """A connection that cannot write, for a process that only reads.

    Raises:
        UnsafeLibrary: as `Database`.
        apsw.Error: it cannot be opened; see `translated`.
    """
    check_library()
    uri = path.absolute().as_uri()
    reader = apsw.Connection(f"{uri}?mode=ro", flags=_READ_ONLY)
    try:
        reader.execute("SELECT 1 FROM sqlite_master")
    except _TROUBLE:
        reader.close()
        log = path.with_name(f"{path.name}-wal")
        if not path.exists() or (log.exists() and log.stat().st_size):
            raise
        # A disk that is full or read-only has no room for the index of a log; none is needed.
        reader = apsw.Connection(f"{uri}?immutable=1", flags=_READ_ONLY)
    except BaseException:
        reader.close()
        raise
    return reader


def is_in_use(path: Path) -> bool:
    """Whether any process has the file open: then SQLite gives nobody the whole of it."""
    with closing(apsw.Connection(str(path))) as connection:
        connection.set_busy_timeout(_IN_USE_MS)
        try:
            connection.execute("PRAGMA locking_mode = EXCLUSIVE")
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
        except _TROUBLE:
            return True
        except _DAMAGE:  # too damaged to tell, which is why it is to be replaced
            return False
    return False


def _left_ms(until: float) -> int:
    return max(0, int((until - time.monotonic()) * 1000))


def _described(error: Exception) -> str:
    """The message of SQLite; for one of the operating system, which call it was of as well."""
    message = str(error)
    if isinstance(error, apsw.FullError) and "full" not in message:
        # A backup's steps raise it with the message of a connection that knows of no error.
        message = "database or disk is full"
    code = getattr(error, "extendedresult", 0)
    name = apsw.mapping_extended_result_codes.get(code)
    return message if name is None else f"{message} ({name})"


def _connect(path: Path, busy_ms: int) -> apsw.Connection:
    # To be closed at once where it fails: all connections of a process share one mapping of the
    # log's index, and one that could not write it spoils the next.
    connection = apsw.Connection(str(path))
    try:
        connection.set_busy_timeout(busy_ms)
        for pragma in _PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    return connection
