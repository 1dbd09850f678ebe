"""How memories lie in SQLite: the schema, and rows to and from its columns."""

import os
import struct
import time
import zlib
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Final

import apsw
import numpy as np
from numpy.typing import NDArray

from resmem_service.errors import CorruptFile
from resmem_service.memory.journal.journal import (
    Memories,
    MemoryRecord,
    Position,
    SegmentEntry,
    StoredMemory,
)
from resmem_service.memory.rows import MemoryShape, SegmentRows, Targets

__all__ = [
    "CHUNK_ROWS",
    "CREATED",
    "FORMAT",
    "KNOWN",
    "LAST_SEQUENCE",
    "RECORD",
    "SCHEMA",
    "SOURCE",
    "STORED",
    "Columns",
    "checksum",
    "columns",
    "insertion",
    "is_intact",
    "read_catalogue",
    "read_position",
    "read_record",
    "read_segment_rows",
    "read_stored",
    "text",
    "to_segment_rows",
]

FORMAT: Final = 1
CHUNK_ROWS: Final = 1024
LAST_SEQUENCE: Final = 2**63 - 1

SCHEMA: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE memories (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    target BLOB NOT NULL,
    embedding BLOB NOT NULL,
    residual BLOB NOT NULL,
    weight REAL NOT NULL,
    source TEXT,
    created_ms INTEGER NOT NULL,
    checksum INTEGER NOT NULL,
    input_checksum INTEGER NOT NULL,
    input BLOB NOT NULL
);
CREATE INDEX memories_by_source ON memories (source, sequence) WHERE source IS NOT NULL;
CREATE TABLE tombstones (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    sequence INTEGER NOT NULL UNIQUE
);
CREATE TABLE horizon (sequence INTEGER NOT NULL);
INSERT INTO horizon VALUES (0);
CREATE TABLE segments (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    rows INTEGER NOT NULL
);
"""

_COLUMNS: Final = (
    "id, target, embedding, residual, weight, source, created_ms, input_checksum, checksum, input"
)
_ROW: Final = f"({', '.join('?' * 10)})"


def _typed(column: str, kind: str) -> str:
    """A column as it was written; NULL, which fits no checksum, where it is of another type."""
    return f"iif(typeof({column}) = '{kind}', {column}, NULL)"


# As bytes: a damaged text need not be UTF-8, and it is the checksum that finds it out.
_ID: Final = "iif(typeof(id) = 'text', CAST(id AS BLOB), NULL)"
SOURCE: Final = "iif(typeof(source) = 'text', CAST(source AS BLOB), iif(source IS NULL, NULL, 0))"
_INPUT: Final = _typed("input", "blob")
_TARGET: Final = _typed("target", "blob")
_WEIGHT: Final = _typed("weight", "real")
CREATED: Final = _typed("created_ms", "integer")
RECORD: Final = f"SELECT {_ID}, sequence, {SOURCE}, target, weight, created_ms FROM memories"  # noqa: S608
KNOWN: Final = f"SELECT id, {_INPUT}, {_TARGET}, {_WEIGHT}, {SOURCE}, sequence FROM memories"  # noqa: S608
_WHOLE: Final = (
    f"SELECT {_ID}, {_TARGET}, {_typed('embedding', 'blob')}, {_typed('residual', 'blob')},"
    f" {_WEIGHT}, {SOURCE}, {CREATED}, {_typed('input_checksum', 'integer')},"
    f" {_typed('checksum', 'integer')}, sequence"
)
STORED: Final = f"{_WHOLE}, {_INPUT} FROM memories WHERE sequence > ? ORDER BY sequence LIMIT ?"
_SEARCHED: Final = f"{_WHOLE} FROM memories WHERE sequence BETWEEN ? AND ? ORDER BY sequence"

_SEQUENCES: Final = (
    "SELECT sequence FROM memories WHERE sequence BETWEEN ? AND ? ORDER BY sequence LIMIT ?"
)

_POSITION: Final = """
SELECT
    ifnull((SELECT seq FROM sqlite_sequence WHERE name = 'memories'), 0),
    ifnull((SELECT seq FROM sqlite_sequence WHERE name = 'tombstones'), 0),
    (SELECT sequence FROM horizon),
    ifnull((SELECT seq FROM sqlite_sequence WHERE name = 'segments'), 0),
    (SELECT count(*) FROM segments)
"""

_HEAD: Final = struct.Struct("<dqI")

_Content = tuple[str, bytes, bytes, bytes, float, str | None, int, int]
Columns = tuple[str, bytes, bytes, bytes, float, str | None, int, int, int, bytes]


def columns(requests: Sequence[Memories], shape: MemoryShape) -> list[Columns]:
    """The rows of requests, one after the other, as `insertion` takes them."""
    ids = [id for request in requests for id in request.ids]
    inputs = [encoded for request in requests for encoded in request.inputs]
    contents = zip(
        _named(ids),
        _blobs(np.concatenate([request.targets for request in requests])),
        _blobs(np.concatenate([request.embeddings for request in requests], dtype=np.float32)),
        _blobs(shape.codec.encode(np.concatenate([request.residuals for request in requests]))),
        np.concatenate([request.weights for request in requests], dtype=np.float64).tolist(),
        [request.source for request in requests for _ in request.ids],
        chain.from_iterable(map(_times, requests)),
        map(zlib.crc32, inputs),
        strict=True,
    )
    return [
        (*content, checksum(content), encoded)
        for content, encoded in zip(contents, inputs, strict=True)
    ]


def _named(ids: Sequence[str | None]) -> list[str]:
    """Ids, made where there are none: nanoseconds and 64 random bits.

    Those made later sort later, which is cheaper to index.
    """
    bits = os.urandom(8 * len(ids)).hex()
    now = f"{time.time_ns():016x}"
    return [
        now + bits[16 * row : 16 * row + 16] if id is None else id for row, id in enumerate(ids)
    ]


def _times(request: Memories) -> Sequence[int]:
    return request.created_ms or [time.time_ns() // 1_000_000] * len(request)


def _blobs(array: NDArray[Any]) -> list[bytes]:
    """The bytes of each row."""
    raw, size = array.tobytes(), array.nbytes // len(array)
    return [raw[start : start + size] for start in range(0, len(raw), size)]


def insertion(rows: int) -> str:
    """The statement that inserts so many rows, of 10 host parameters each."""
    return f"INSERT INTO memories ({_COLUMNS}) VALUES {', '.join([_ROW] * rows)}"  # noqa: S608


def checksum(content: _Content) -> int:
    """What guards a row, for SQLite guards none: CRC-32 of all but the input, which has its own.

    So building a segment is sure of its rows without reading the inputs, often the larger part.
    """
    id, target, embedding, residual, weight, source, created_ms, input_checksum = content
    named = b"" if source is None else b"\1" + source.encode()
    head = _HEAD.pack(weight, created_ms, input_checksum)
    return zlib.crc32(b"%b\0%b\0%b%b%b%b" % (head, id.encode(), named, target, embedding, residual))


def is_intact(row: Sequence[Any]) -> bool:
    """Whether a row of STORED is what was written, down to its checksum."""
    id, target, embedding, residual, weight, source, created_ms, input_checksum, expected = row[:9]
    try:
        named = b"" if source is None else b"\1" + source
        head = _HEAD.pack(weight, created_ms, input_checksum)
        found = zlib.crc32(b"%b\0%b\0%b%b%b%b" % (head, id, named, target, embedding, residual))
    except (TypeError, struct.error):  # a column of another type
        return False
    return bool(found == expected)


def text(value: object) -> str:
    """An id or a source as RECORD and STORED have it, with marks for what of it is not UTF-8."""
    return value.decode(errors="replace") if isinstance(value, bytes) else repr(value)


def _mismatch(file: Path | str, row: Sequence[Any]) -> str:
    return f"{file}: memory {row[9]} (id {text(row[0])!r}) differs from its checksum"


def read_record(row: Sequence[Any], shape: MemoryShape) -> MemoryRecord:
    """A row of RECORD as its owner sees it."""
    id, sequence, source, target, weight, created_ms = row
    targets = _targets([target], shape)
    return MemoryRecord(
        text(id),
        sequence,
        None if source is None else text(source),
        targets[0].tolist(),
        weight,
        created_ms,
    )


def read_stored(row: Sequence[Any], shape: MemoryShape, file: Path) -> StoredMemory:
    """A row of STORED, from `file`.

    Raises:
        CorruptFile: it differs from its checksums.
    """
    id, target, embedding, residual, weight, source, created_ms, expected, *_ = row
    sequence, encoded = row[9:]
    if not is_intact(row) or encoded is None or zlib.crc32(encoded) != expected:
        raise CorruptFile(_mismatch(file, row))
    return StoredMemory(
        record=read_record((id, sequence, source, target, weight, created_ms), shape),
        input=encoded,
        embedding=np.frombuffer(embedding, np.float32),
        residual=shape.codec.decode(_codes([residual], shape), shape.width)[0],
    )


def read_segment_rows(
    connection: apsw.Connection,
    first: int,
    last: int,
    shape: MemoryShape,
    skipped: dict[int, str],
) -> Iterator[SegmentRows]:
    """The living rows of sequences first to last that are sound, in chunks, none of them empty.

    One damaged row costs that row: it is left out, and `skipped` has its id by its sequence.
    """
    while rows := _read_chunk(connection, first, last, skipped):
        first = rows[-1][9] + 1
        sound = [row for row in rows if is_intact(row)]
        try:
            if sound:
                yield to_segment_rows(sound, [row[9] for row in sound], shape)
        except (ValueError, TypeError, struct.error):
            # Written as it is, and not what a memory of this shape can be.
            sound = [row for row in sound if _fits(row, shape)]
            if sound:
                yield to_segment_rows(sound, [row[9] for row in sound], shape)
        if len(sound) < len(rows):
            kept = {row[9] for row in sound}
            skipped.update((row[9], text(row[0])) for row in rows if row[9] not in kept)


def _read_chunk(
    connection: apsw.Connection, first: int, last: int, skipped: dict[int, str]
) -> list[Sequence[Any]]:
    """The next rows of _SEARCHED, one by one where some of them cannot be read at all."""
    try:
        return list(connection.execute(f"{_SEARCHED} LIMIT ?", (first, last, CHUNK_ROWS)))
    except apsw.CorruptError:
        pass
    while True:
        sequences = list(connection.execute(_SEQUENCES, (first, last, CHUNK_ROWS)))
        rows: list[Sequence[Any]] = []
        for (sequence,) in sequences:
            try:
                rows += connection.execute(_SEARCHED, (sequence, sequence))
            except apsw.CorruptError:
                skipped[sequence] = "not readable"
        if rows or not sequences:
            return rows
        first = sequences[-1][0] + 1


def _fits(row: Sequence[Any], shape: MemoryShape) -> bool:
    try:
        to_segment_rows([row], [row[9]], shape)
    except (ValueError, TypeError):
        return False
    return True


def to_segment_rows(
    rows: Sequence[Sequence[Any]], sequences: Sequence[int], shape: MemoryShape
) -> SegmentRows:
    """Rows that begin like those of `columns`, as arrays."""
    _, targets, embeddings, residuals, weights, *_ = zip(*rows, strict=True)
    return SegmentRows(
        embeddings=_matrix(embeddings, shape.dim),
        residuals=_codes(residuals, shape),
        targets=_targets(targets, shape),
        sequences=np.array(sequences, np.int64),
        weights=np.array(weights, np.float32),
    )


def read_catalogue(connection: apsw.Connection) -> list[SegmentEntry]:
    """The sealed segments, oldest first."""
    rows = connection.execute("SELECT number, first, last, rows FROM segments ORDER BY first")
    return [SegmentEntry(*row) for row in rows]


def read_position(connection: apsw.Connection) -> tuple[Position, tuple[int, int]]:
    """How far the journal has come, and two numbers that change whenever the catalogue does.

    Raises:
        TypeError: a table without the row that it should have.
    """
    *position, publications, entries = connection.execute(_POSITION).get
    if None in position:
        raise TypeError("the table horizon is empty")
    return Position(*position), (publications, entries)


def _matrix(
    blobs: Sequence[bytes], columns: int
) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.frombuffer(b"".join(blobs), np.float32).reshape(len(blobs), columns)


def _codes(blobs: Sequence[bytes], shape: MemoryShape) -> NDArray[Any]:
    dtype, columns = shape.codec.stored_shape(shape.width)
    return np.frombuffer(b"".join(blobs), dtype).reshape(len(blobs), columns)


def _targets(blobs: Sequence[bytes], shape: MemoryShape) -> Targets:
    if shape.task == "classification":
        return np.frombuffer(b"".join(blobs), np.int32)
    return _matrix(blobs, shape.width)
