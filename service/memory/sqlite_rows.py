"""How memories lie in SQLite: the schema, and rows to and from its columns."""

import random
import sqlite3
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from service.memory.journal import Memories, MemoryRecord, StoredMemory
from service.memory.segment_rows import MemoryShape, SegmentRows, Targets

__all__ = [
    "CHUNK_ROWS",
    "INSERT",
    "RECORD",
    "SCHEMA",
    "columns",
    "read_record",
    "read_segment_rows",
]

FORMAT: Final = 1
CHUNK_ROWS: Final = 1024

SCHEMA: Final = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE memories (
    sequence INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    input BLOB NOT NULL,
    target BLOB NOT NULL,
    embedding BLOB NOT NULL,
    residual BLOB NOT NULL,
    weight REAL NOT NULL,
    source TEXT,
    created_ms INTEGER NOT NULL
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
    "INSERT INTO memories (id, input, target, embedding, residual, weight, source, created_ms)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
)
RECORD: Final = "SELECT id, sequence, source, target, weight, created_ms FROM memories"
STORED: Final = (
    "SELECT id, sequence, source, target, weight, created_ms, input, embedding, residual"
    " FROM memories WHERE sequence > ? ORDER BY sequence LIMIT ?"
)
_SEARCHED: Final = (
    "SELECT embedding, residual, target, sequence, weight FROM memories"
    " WHERE sequence BETWEEN ? AND ? ORDER BY sequence"
)

Columns = tuple[str, bytes, bytes, bytes, bytes, float, str | None, int]


def make_id() -> str:
    """A new id: nanoseconds and 64 random bits, so that ids made later sort later (and cheaply)."""
    return f"{time.time_ns():016x}{random.getrandbits(64):016x}"


def columns(memories: Memories, shape: MemoryShape) -> list[Columns]:
    """The rows of a request as the values of INSERT."""
    embeddings = np.ascontiguousarray(memories.embeddings, np.float32)
    residuals = shape.codec.encode(memories.residuals)
    targets = np.ascontiguousarray(memories.targets)
    times = memories.created_ms or [time.time_ns() // 1_000_000] * len(memories)
    return [
        (
            id or make_id(),
            memories.inputs[row],
            targets[row].tobytes(),
            embeddings[row].tobytes(),
            residuals[row].tobytes(),
            float(memories.weights[row]),
            memories.source,
            times[row],
        )
        for row, id in enumerate(memories.ids)
    ]


def read_record(row: Sequence[Any], shape: MemoryShape) -> MemoryRecord:
    """A row of RECORD as its owner sees it."""
    id, sequence, source, target, weight, created_ms = row
    targets = _targets([target], shape)
    return MemoryRecord(id, sequence, source, targets[0].tolist(), weight, created_ms)


def read_stored(row: Sequence[Any], shape: MemoryShape) -> StoredMemory:
    """A row of STORED."""
    *record, encoded, embedding, residual = row
    return StoredMemory(
        record=read_record(record, shape),
        input=encoded,
        embedding=np.frombuffer(embedding, np.float32),
        residual=shape.codec.decode(_codes([residual], shape), shape.width)[0],
    )


def read_segment_rows(
    connection: sqlite3.Connection, first: int, last: int, shape: MemoryShape
) -> Iterator[SegmentRows]:
    """The living rows of sequences first to last, in chunks, none of them empty."""
    cursor = connection.execute(_SEARCHED, (first, last))
    while rows := cursor.fetchmany(CHUNK_ROWS):
        embeddings, residuals, targets, sequences, weights = zip(*rows, strict=True)
        yield SegmentRows(
            embeddings=_matrix(embeddings, shape.dim),
            residuals=_codes(residuals, shape),
            targets=_targets(targets, shape),
            sequences=np.array(sequences, np.int64),
            weights=np.array(weights, np.float32),
        )


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
