"""One moment of a journal, for commands that look at a state from outside and never write to it.

It works beside a running service: in WAL mode a reader blocks no writer and is blocked by none.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, cast

import apsw

from resmem_service.errors import CorruptFile, JournalUnavailable
from resmem_service.memory.journal.journal import SegmentEntry, StoredMemory
from resmem_service.memory.journal.sqlite.connections import chunks, open_reader, translated
from resmem_service.memory.journal.sqlite.rows import (
    CREATED,
    FORMAT,
    LAST_SEQUENCE,
    SOURCE,
    STORED,
    read_catalogue,
    read_position,
    read_stored,
    text,
)
from resmem_service.memory.rows import MemoryShape
from resmem_service.memory.search.codec import ResidualCodec

__all__ = ["JournalSnapshot", "Pages", "SourceRows", "open_snapshot"]

_PAGES_AT_ONCE: Final = 512
_ROWS_AT_ONCE: Final = 256
_ALL: Final = -1
_OF_THE_TARGET: Final = (apsw.FullError, apsw.CantOpenError, apsw.ReadOnlyError)
"""Errors of a copy that only its writing has."""

_SOURCES: Final = (
    f"SELECT {SOURCE}, count(*), ifnull(min({CREATED}), 0), ifnull(max({CREATED}), 0)"  # noqa: S608
    " FROM memories GROUP BY source ORDER BY 2 DESC, 1"
)


@dataclass(frozen=True, slots=True)
class SourceRows:
    """The memories of one source; times are Unix milliseconds."""

    source: str | None
    memories: int
    oldest_ms: int
    newest_ms: int


class Pages(NamedTuple):
    """What a journal's file consists of: pages, those that nothing uses, and bytes of one."""

    total: int
    free: int
    size: int


class JournalSnapshot:
    """What was committed when it was opened; made by `open_snapshot`.

    Attributes:
        path: the file.
        shape: of the memories, as the journal itself says.
        catalogue: the sealed segments, oldest first.
        position: the last sequence, the last tombstone and the horizon.
    """

    def __init__(self, path: Path, connection: apsw.Connection) -> None:
        self.path = path
        self._connection = connection
        self.shape = _read_shape(path, connection)
        try:
            self.catalogue: list[SegmentEntry] = read_catalogue(connection)
            self.position, _ = read_position(connection)
        except TypeError as error:
            raise CorruptFile(f"{path} has no readable catalogue: {error}") from error

    def memories(self, first: int = 1, last: int = LAST_SEQUENCE) -> int:
        """How many memories live, of the sequences first to last."""
        if (first, last) == (1, LAST_SEQUENCE):
            return self._number("SELECT count(*) FROM memories")
        return self._number(
            "SELECT count(*) FROM memories WHERE sequence BETWEEN ? AND ?", first, last
        )

    def oldest(self) -> int | None:
        """The lowest sequence of a memory; None where there is none."""
        return cast("int | None", self._rows("SELECT min(sequence) FROM memories")[0][0])

    def tombstones(self) -> list[int]:
        """The sequences of forgotten memories that segments may still hold, in order.

        Those below 0 are of the bundle.
        """
        return [row[0] for row in self._rows("SELECT sequence FROM tombstones ORDER BY sequence")]

    def alive_and_forgotten(self) -> int:
        """How many memories are there and have a tombstone, which cannot be."""
        return self._number(
            "SELECT count(*) FROM memories WHERE sequence IN (SELECT sequence FROM tombstones)"
        )

    def sources(self) -> list[SourceRows]:
        """The memories of each source, the largest first."""
        return [
            SourceRows(None if source is None else text(source), *numbers)
            for source, *numbers in self._rows(_SOURCES)
        ]

    def added_since(self, bounds_ms: Sequence[int]) -> list[int]:
        """How many memories were added after each of some Unix times in milliseconds."""
        # One pass over the table, however many bounds there are.
        sums = ", ".join(["ifnull(sum(created_ms > ?), 0)"] * len(bounds_ms))
        return list(self._rows(f"SELECT {sums} FROM memories", *bounds_ms)[0])  # noqa: S608

    def pages(self) -> Pages:
        """The size of the file in pages."""
        return Pages(
            self._number("PRAGMA page_count"),
            self._number("PRAGMA freelist_count"),
            self._number("PRAGMA page_size"),
        )

    def faults(self, limit: int) -> list[str]:
        """What SQLite's integrity check finds in the file, up to so many lines; none: it is sound.

        Raises:
            CorruptFile, JournalUnavailable: the file cannot be read.
        """
        lines = [str(row[0]) for row in self._rows(f"PRAGMA integrity_check({limit})")]
        return [] if lines == ["ok"] else lines

    def _rows(self, statement: str, *values: int) -> list[tuple[Any, ...]]:
        with translated(self.path):
            return self._connection.execute(statement, values).fetchall()

    def _number(self, statement: str, *values: int) -> int:
        return int(self._rows(statement, *values)[0][0])

    def raw(self) -> Iterator[Sequence[tuple[Any, ...]]]:
        """The rows of all memories as they lie there, unchecked, in chunks, oldest first.

        The columns are those of `sqlite_rows.STORED`.
        """
        with translated(self.path), closing(self._connection.cursor()) as cursor:
            yield from chunks(cursor.execute(STORED, (0, _ALL)), _ROWS_AT_ONCE)

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
        size = self.pages().size
        done = 0
        try:
            with closing(apsw.Connection(str(target))) as connection:
                # The transaction of this snapshot is open: writers neither wait nor start it over.
                with connection.backup("main", self._connection, "main") as backup:
                    while not backup.done:
                        backup.step(_PAGES_AT_ONCE)
                        copied = backup.page_count - backup.remaining
                        advance((copied - done) * size)
                        done = copied
                connection.execute("PRAGMA journal_mode = DELETE")
        except apsw.Error as error:
            with translated(target if isinstance(error, _OF_THE_TARGET) else self.path):
                raise


@contextmanager
def open_snapshot(path: Path) -> Iterator[JournalSnapshot]:
    """Holds one moment of a journal inside the block.

    Raises:
        CorruptFile: it is not a journal, or a damaged one.
        JournalUnavailable: it cannot be opened or read.
    """
    with translated(path), closing(open_reader(path)) as connection:
        connection.execute("BEGIN")
        yield JournalSnapshot(path, connection)


def _read_shape(path: Path, connection: apsw.Connection) -> MemoryShape:
    tables = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
    if not {"meta", "memories", "tombstones", "horizon", "segments"} <= tables:
        raise CorruptFile(f"{path} is a database, but no journal")
    meta = dict(connection.execute("SELECT key, value FROM meta"))
    if meta.get("format") != str(FORMAT):
        raise JournalUnavailable(f"{path} has a format that this version does not read")
    try:
        task = cast("Literal['classification', 'regression']", meta["task"])
        codec = ResidualCodec.named(meta["residuals"])
        return MemoryShape(int(meta["dim"]), int(meta["width"]), task, codec)
    except (KeyError, ValueError) as error:
        raise CorruptFile(f"{path} does not say what it holds: {meta}") from error
