"""One moment of a journal, for commands that look at a state from outside and never write to it.

It works beside a running service: in WAL mode a reader blocks no writer and is blocked by none.
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final, Literal, cast

from service.errors import CorruptFile, JournalUnavailable
from service.memory.codec import ResidualCodec
from service.memory.journal import SegmentEntry, StoredMemory
from service.memory.segment_rows import MemoryShape
from service.memory.sqlite_database import open_reader, translated
from service.memory.sqlite_rows import (
    FORMAT,
    STORED,
    read_catalogue,
    read_position,
    read_stored,
)

__all__ = ["JournalSnapshot", "open_snapshot"]

_PAGES_AT_ONCE: Final = 512
_ROWS_AT_ONCE: Final = 256
_ALL: Final = -1
_OF_THE_TARGET: Final = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)
"""Errors of a copy that only its writing has."""

Scalar = int | float | str | None


class JournalSnapshot:
    """What was committed when it was opened; made by `open_snapshot`.

    Attributes:
        path: the file.
        shape: of the memories, as the journal itself says.
        catalogue: the sealed segments, oldest first.
        position: the last sequence, the last tombstone and the horizon.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self.shape = _read_shape(path, connection)
        try:
            self.catalogue: list[SegmentEntry] = read_catalogue(connection)
            self.position, _ = read_position(connection)
        except TypeError as error:
            raise CorruptFile(f"{path} has no readable catalogue: {error}") from error

    def rows(self, statement: str, *values: Scalar) -> list[tuple[Any, ...]]:
        """The answer to a SELECT.

        Raises:
            CorruptFile, JournalUnavailable: the file cannot be read.
        """
        with translated(self.path):
            return self._connection.execute(statement, values).fetchall()

    def number(self, statement: str, *values: Scalar) -> int:
        """The one number that a SELECT or PRAGMA answers with."""
        return int(self.rows(statement, *values)[0][0])

    def memories(self) -> int:
        """How many memories live."""
        return self.number("SELECT count(*) FROM memories")

    def raw(self) -> Iterator[Sequence[tuple[Any, ...]]]:
        """The rows of all memories as they lie there, unchecked, in chunks, oldest first.

        The columns are those of `sqlite_rows.STORED`. Text that is not UTF-8 has marks in it.
        """
        with translated(self.path), closing(self._connection.cursor()) as cursor:
            cursor.execute(STORED, (0, _ALL))
            while rows := cursor.fetchmany(_ROWS_AT_ONCE):
                yield rows

    def stored(self) -> Iterator[StoredMemory]:
        """All memories, oldest first.

        Raises:
            CorruptFile: one differs from its checksum.
        """
        for rows in self.raw():
            for row in rows:
                yield read_stored(row, self.shape, self.path)

    def copy(self, target: Path, advance: Callable[[int], None]) -> None:
        """Writes all of it to a new file, which needs no log beside it; not synced.

        `advance` is told of every step of some pages: how many bytes more were copied.
        """
        size = self.number("PRAGMA page_size")
        done = 0

        def progress(_: int, left: int, total: int) -> None:
            nonlocal done
            advance((total - left - done) * size)
            done = total - left

        try:
            with closing(sqlite3.connect(target, isolation_level=None)) as connection:
                # The transaction of this snapshot is open: writers neither wait nor start it over.
                self._connection.backup(connection, pages=_PAGES_AT_ONCE, progress=progress)
                connection.execute("PRAGMA journal_mode = DELETE")
        except sqlite3.Error as error:
            with translated(target if error.sqlite_errorcode in _OF_THE_TARGET else self.path):
                raise


@contextmanager
def open_snapshot(path: Path) -> Iterator[JournalSnapshot]:
    """Holds one moment of a journal inside the block.

    Raises:
        CorruptFile: it is no journal, or a damaged one.
        JournalUnavailable: it cannot be opened or read.
    """
    with translated(path), closing(open_reader(path)) as connection:
        connection.text_factory = lambda text: text.decode(errors="replace")
        connection.execute("BEGIN")
        yield JournalSnapshot(path, connection)


def _read_shape(path: Path, connection: sqlite3.Connection) -> MemoryShape:
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
    if not {"meta", "memories", "tombstones", "horizon", "segments"} <= tables:
        raise CorruptFile(f"{path} is a database, but no journal")
    meta = dict(connection.execute("SELECT key, value FROM meta").fetchall())
    if meta.get("format") != str(FORMAT):
        raise JournalUnavailable(f"{path} has a format that this version does not read")
    try:
        task = cast("Literal['classification', 'regression']", meta["task"])
        codec = ResidualCodec.named(meta["residuals"])
        return MemoryShape(int(meta["dim"]), int(meta["width"]), task, codec)
    except (KeyError, ValueError) as error:
        raise CorruptFile(f"{path} does not say what it holds: {meta}") from error
