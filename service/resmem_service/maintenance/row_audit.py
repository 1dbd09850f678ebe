"""Reads a journal's rows for an auditor: each is sound, or a fault with a reason."""

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from resmem_service.errors import ResmemError
from resmem_service.memory.journal.sqlite.rows import is_intact, text
from resmem_service.memory.journal.sqlite.snapshot import JournalSnapshot
from resmem_service.memory.rows import MemoryShape, SegmentRows, Targets

__all__ = ["AuditedRows", "RowFault", "audit_rows"]

Decode = Callable[[Sequence[bytes]], object]
"""Raises ResmemError where encoded inputs are not what the model takes."""

_NUMBER_BYTES: Final = 4
_Row = Sequence[Any]


@dataclass(frozen=True, slots=True)
class RowFault:
    """A memory that cannot be trusted."""

    sequence: int
    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class AuditedRows:
    """A chunk of the journal, in the order of sequences."""

    sound: SegmentRows | None
    """None where no row of the chunk is."""
    faults: list[RowFault]

    def __len__(self) -> int:
        return len(self.faults) + (0 if self.sound is None else len(self.sound))


def audit_rows(snapshot: JournalSnapshot, decode: Decode | None) -> Iterator[AuditedRows]:
    """All memories of a journal, oldest first.

    Args:
        snapshot: of the journal.
        decode: checks inputs; None leaves them unlooked at but for their checksum.

    Raises:
        CorruptFile, JournalUnavailable: the file cannot be read on from some row.
    """
    for rows in snapshot.raw():
        reasons = {row[9]: reason for row in rows if (reason := _damage(row, snapshot.shape))}
        sound = _without(rows, reasons)
        if sound:
            reasons |= _nonsense(sound, snapshot.shape)
            sound = _without(sound, reasons)
        if sound and decode is not None:
            reasons |= _undecodable(sound, decode)
            sound = _without(sound, reasons)
        yield AuditedRows(
            sound=_arrays(sound, snapshot.shape) if sound else None,
            faults=[
                RowFault(row[9], text(row[0]), reasons[row[9]]) for row in rows if row[9] in reasons
            ],
        )


def _without(rows: Sequence[_Row], reasons: Mapping[int, str]) -> list[_Row]:
    return [row for row in rows if row[9] not in reasons]


def _damage(row: _Row, shape: MemoryShape) -> str | None:
    if not is_intact(row):
        return "differs from its checksum"
    if not isinstance(row[10], bytes) or zlib.crc32(row[10]) != row[7]:
        return "has an input that differs from its checksum"
    dtype, elements = shape.codec.stored_shape(shape.width)
    numbers = shape.width if shape.task == "regression" else 1
    for name, blob, size in (
        ("a target", row[1], _NUMBER_BYTES * numbers),
        ("an embedding", row[2], _NUMBER_BYTES * shape.dim),
        ("a residual", row[3], np.dtype(dtype).itemsize * elements),
    ):
        if len(blob) != size:
            return f"has {name} of {len(blob)} bytes where {size} are due"
    return None


def _nonsense(rows: Sequence[_Row], shape: MemoryShape) -> dict[int, str]:
    """What was written as it is, and should not have been."""
    targets, embeddings, codes = _columns(rows, shape)
    good_target = np.isfinite(targets).reshape(len(rows), -1).all(axis=1)
    if shape.task == "classification":
        good_target = (targets >= 0) & (targets < shape.width)
    weights = np.array([row[4] for row in rows])
    reasons: dict[int, str] = {}
    for good, reason in (
        (np.isfinite(embeddings).all(axis=1), "has an embedding that is not finite"),
        (_finite(codes, shape), "has a residual that is not finite"),
        (good_target, "has a target that the model cannot have"),
        ((weights > 0) & np.isfinite(weights), "has a weight that is not above 0"),
    ):
        reasons |= {rows[row][9]: reason for row in np.flatnonzero(~good).tolist()}
    return reasons


def _finite(codes: NDArray[Any], shape: MemoryShape) -> NDArray[np.bool_]:
    try:
        return np.asarray(np.isfinite(shape.codec.decode(codes, shape.width)).all(axis=1))
    except IndexError:  # a class that there is not
        if len(codes) == 1:
            return np.zeros(1, np.bool_)
        return np.concatenate([_finite(codes[row : row + 1], shape) for row in range(len(codes))])


def _undecodable(rows: Sequence[_Row], decode: Decode) -> dict[int, str]:
    try:
        decode([row[10] for row in rows])
    except ResmemError as error:
        # Some row is at fault, or they differ in shape, which a model may allow.
        if len(rows) == 1:
            return {rows[0][9]: f"has an input that the model does not take: {error.message}"}
        return {
            sequence: reason
            for row in rows
            for sequence, reason in _undecodable([row], decode).items()
        }
    return {}


def _columns(
    rows: Sequence[_Row], shape: MemoryShape
) -> tuple[Targets, NDArray[np.float32], NDArray[Any]]:
    dtype, elements = shape.codec.stored_shape(shape.width)
    target, embedding, residual = (b"".join([row[at] for row in rows]) for at in (1, 2, 3))
    targets: Targets = np.frombuffer(target, np.int32)
    if shape.task == "regression":
        targets = np.frombuffer(target, np.float32).reshape(len(rows), -1)
    return (
        targets,
        np.frombuffer(embedding, np.float32).reshape(len(rows), shape.dim),
        np.frombuffer(residual, dtype).reshape(len(rows), elements),
    )


def _arrays(rows: Sequence[_Row], shape: MemoryShape) -> SegmentRows:
    targets, embeddings, codes = _columns(rows, shape)
    return SegmentRows(
        embeddings=embeddings,
        residuals=codes,
        targets=targets,
        sequences=np.array([row[9] for row in rows], np.int64),
        weights=np.array([row[4] for row in rows], np.float32),
    )
