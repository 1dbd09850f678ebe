"""How memories lie in SQLite: the schema, and rows to and from its columns."""

import random
import sqlite3
import struct
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
from numpy.typing import NDArray

from service.errors import CorruptFile
from service.memory.journal import (
    Memories,
    MemoryRecord,
    Position,
    SegmentEntry,
    StoredMemory,
)
from service.memory.segment_rows import MemoryShape, SegmentRows, Targets

__all__ = [
    "CHUNK_ROWS",
    "FORMAT",
    "INSERT",
    "RECORD",
    "SCHEMA",
    "STORED",
    "checksum",
    "columns",
    "is_intact",
    "read_catalogue",
    "read_position",
    "read_record",
    "read_segment_rows",
    "read_stored",
]

FORMAT: Final = 1
CHUNK_ROWS: Final = 1024

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

INSERT: Final = (
    "INSERT INTO memories (id, target, embedding, residual, weight, source, created_ms,"
    " input_checksum, checksum, input) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
RECORD: Final = "SELECT id, sequence, source, target, weight, created_ms FROM memories"
_WHOLE: Final = (
    "SELECT id, target, embedding, residual, weight, source, created_ms, input_checksum, checksum,"
    " sequence"
)
STORED: Final = f"{_WHOLE}, input FROM memories WHERE sequence > ? ORDER BY sequence LIMIT ?"
_SEARCHED: Final = f"{_WHOLE} FROM memories WHERE sequence BETWEEN ? AND ? ORDER BY sequence"

_Content = tuple[str, bytes, bytes, bytes, float, str | None, int, int]
Columns = tuple[str, bytes, bytes, bytes, float, str | None, int, int, int, bytes]


def make_id() -> str:
    """A new id: nanoseconds and 64 random bits, so that ids made later sort later (and cheaply)."""
    return f"{time.time_ns():016x}{random.getrandbits(64):016x}"


def columns(memories: Memories, shape: MemoryShape) -> list[Columns]:
    """The rows of a request as the values of INSERT."""
    embeddings = np.ascontiguousarray(memories.embeddings, np.float32)
    residuals = shape.codec.encode(memories.residuals)
    targets = np.ascontiguousarray(memories.targets)
    times = memories.created_ms or [time.time_ns() // 1_000_000] * len(memories)
    rows: list[Columns] = []
    for row, id in enumerate(memories.ids):
        encoded = memories.inputs[row]
        content = (
            id or make_id(),
            targets[row].tobytes(),
            embeddings[row].tobytes(),
            residuals[row].tobytes(),
            float(memories.weights[row]),
            memories.source,
            times[row],
            zlib.crc32(encoded),
        )
        rows.append((*content, checksum(content), encoded))
    return rows


def checksum(content: _Content) -> int:
    """What guards a row, for SQLite guards none: CRC-32 of all but the input, which has its own.

    So building a segment is sure of its rows without reading the inputs, often the larger part.
    """
    id, target, embedding, residual, weight, source, created_ms, input_checksum = content
    named = b"" if source is None else b"\1" + source.encode()
    head = struct.pack("<dqI", weight, created_ms, input_checksum)
    sums = zlib.crc32(b"\0".join((head, id.encode(), named)))
    for part in (target, embedding, residual):
        sums = zlib.crc32(part, sums)
    return sums


def is_intact(row: Sequence[Any]) -> bool:
    """Whether the first columns of a row, down to its checksum, are what was written."""
    *content, expected = row[:9]
    try:
        found = checksum(cast("_Content", tuple(content)))
    except (TypeError, AttributeError, struct.error):  # a column of another type
        return False
    return bool(found == expected)


def read_record(row: Sequence[Any], shape: MemoryShape) -> MemoryRecord:
    """A row of RECORD as its owner sees it."""
    id, sequence, source, target, weight, created_ms = row
    targets = _targets([target], shape)
    return MemoryRecord(id, sequence, source, targets[0].tolist(), weight, created_ms)


def read_stored(row: Sequence[Any], shape: MemoryShape, file: Path) -> StoredMemory:
    """A row of STORED, from `file`.

    Raises:
        CorruptFile: it differs from its checksums.
    """
    id, target, embedding, residual, weight, source, created_ms, expected, *_ = row
    sequence, encoded = row[9:]
    if not is_intact(row) or zlib.crc32(encoded) != expected:
        raise CorruptFile(f"{file}: memory {sequence} (id {id!r}) differs from its checksum")
    return StoredMemory(
        record=read_record((id, sequence, source, target, weight, created_ms), shape),
        input=encoded,
        embedding=np.frombuffer(embedding, np.float32),
        residual=shape.codec.decode(_codes([residual], shape), shape.width)[0],
    )


def read_segment_rows(
    connection: sqlite3.Connection, first: int, last: int, shape: MemoryShape
) -> Iterator[SegmentRows]:
    """The living rows of sequences first to last, in chunks, none of them empty.

    Raises:
        CorruptFile: a row differs from its checksum.
    """
    cursor = connection.execute(_SEARCHED, (first, last))
    while rows := cursor.fetchmany(CHUNK_ROWS):
        for row in rows:
            if not is_intact(row):
                file = connection.execute("PRAGMA database_list").fetchone()[2]
                raise CorruptFile(
                    f"{file}: memory {row[9]} (id {row[0]!r}) differs from its checksum"
                )
        _, targets, embeddings, residuals, weights, _, _, _, _, sequences = zip(*rows, strict=True)
        yield SegmentRows(
            embeddings=_matrix(embeddings, shape.dim),
            residuals=_codes(residuals, shape),
            targets=_targets(targets, shape),
            sequences=np.array(sequences, np.int64),
            weights=np.array(weights, np.float32),
        )


def read_catalogue(connection: sqlite3.Connection) -> list[SegmentEntry]:
    """The sealed segments, oldest first."""
    rows = connection.execute("SELECT number, first, last, rows FROM segments ORDER BY first")
    return [SegmentEntry(*row) for row in rows]


def read_position(connection: sqlite3.Connection) -> Position:
    """How far the journal has come."""
    last = dict(connection.execute("SELECT name, seq FROM sqlite_sequence").fetchall())
    (horizon,) = connection.execute("SELECT sequence FROM horizon").fetchone()
    return Position(last.get("memories", 0), last.get("tombstones", 0), horizon)


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
