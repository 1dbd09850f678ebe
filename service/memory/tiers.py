"""The segments that a correction reads: fitted, sealed, growing; and how changes reach them.

Readers take the current snapshot and keep it for a batch. One writer at a time (the caller sees to
that) appends to the newest growing segment in place, or swaps in another snapshot.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from service.errors import CorruptFile
from service.memory import _kernel
from service.memory.journal import Changes, Living, Position, SegmentEntry
from service.memory.sealed import SealedSegment
from service.memory.segment_policy import Backlog, SealedState
from service.memory.segment_rows import MemoryShape, SegmentRows
from service.memory.state_folders import StateFolders

__all__ = ["Snapshot", "Tiers"]

_FEWEST_GROWING_ROWS = 64


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One state of the memory, good for a batch."""

    fitted: SealedSegment | None
    catalogue: tuple[SegmentEntry, ...]
    sealed: Mapping[SegmentEntry, SealedSegment]
    growing: tuple[_kernel.GrowingSegment, ...]
    position: Position

    @property
    def segments(self) -> list[_kernel.Segment]:
        """All of them, for the kernel."""
        fitted = () if self.fitted is None else (self.fitted.native,)
        return [*fitted, *(segment.native for segment in self.sealed.values()), *self.growing]

    @property
    def size(self) -> int:
        """Living memories."""
        return sum(segment.rows - segment.dead_rows for segment in self.segments)


class Tiers:
    """Holds the current snapshot and moves it along the journal.

    Args:
        folders: where sealed segments lie; None where nothing can be memorized.
        shape: of the memories.
        fitted: the bundle's segment, if it has one.
        growing_bytes: size of a growing segment.
    """

    def __init__(
        self,
        folders: StateFolders | None,
        shape: MemoryShape,
        fitted: SealedSegment | None,
        growing_bytes: int,
    ) -> None:
        self._folders = folders
        self._shape = shape
        # The kernel keeps a vector twice: by row, and in the order in which it scans.
        self._row_bytes = 8 * shape.dim + shape.codec.native(shape.width).stride + 12
        self._capacity = max(_FEWEST_GROWING_ROWS, growing_bytes // self._row_bytes)
        self.snapshot = Snapshot(fitted, (), {}, (), Position())

    @property
    def growing_bytes(self) -> int:
        """What the rows in RAM take, forgotten ones included."""
        return self._row_bytes * sum(segment.rows for segment in self.snapshot.growing)

    def backlog(self) -> Backlog:
        """What there is to build segments from."""
        snapshot = self.snapshot
        full = [segment for segment in snapshot.growing if segment.rows == segment.capacity]
        return Backlog(
            sealed=[
                SealedState(
                    entry,
                    sealed.native.dead_rows,
                    damaged=sealed.native.damaged,
                    recall=sealed.recall,
                )
                if (sealed := snapshot.sealed.get(entry)) is not None
                else SealedState(entry)
                for entry in snapshot.catalogue
            ],
            full_rows=sum(segment.rows for segment in full),
            last=full[-1].sequence(full[-1].rows - 1) if full else 0,
        )

    def living(self) -> Living:
        """The memories added online that vote."""
        snapshot = self.snapshot
        parts = [
            segment.living()
            for segment in (*(s.native for s in snapshot.sealed.values()), *snapshot.growing)
        ]
        return Living(sum(rows for rows, _ in parts), sum(total for _, total in parts))

    def append(self, rows: SegmentRows) -> None:
        """Adds rows, at least one, that follow on the position."""
        snapshot = self._append(self.snapshot, rows)
        position = snapshot.position._replace(sequence=int(rows.sequences[-1]))
        self.snapshot = replace(snapshot, position=position)

    def apply(self, changes: Changes) -> None:
        """Moves to the position of `changes`.

        Raises:
            CorruptFile: a new sealed segment is damaged; the snapshot stays.
            FileNotFoundError: one was merged away meanwhile; read the changes again.
        """
        snapshot = self.snapshot
        if tuple(changes.catalogue) != snapshot.catalogue:
            snapshot = self._swap(snapshot, changes)
        for rows in changes.rows:
            snapshot = self._append(snapshot, rows)
        # After the rows: a memory that replaces another is there before the other goes.
        for sequence in changes.tombstones:
            _forget(snapshot, sequence)
        _evict(snapshot, changes.position.horizon)
        self.snapshot = replace(snapshot, position=changes.position)

    def forget_fitted(self, sequences: list[int]) -> None:
        """Skips memories of the bundle from now on."""
        for sequence in sequences:
            _forget(self.snapshot, sequence)

    def _swap(self, snapshot: Snapshot, changes: Changes) -> Snapshot:
        catalogue = tuple(changes.catalogue)
        sealed = {
            entry: snapshot.sealed.get(entry) or self._open(entry, changes.forgotten)
            for entry in catalogue
            if entry.rows > 0
        }
        last = max((entry.last for entry in catalogue), default=0)
        return replace(
            snapshot,
            catalogue=catalogue,
            sealed=sealed,
            growing=_after(snapshot.growing, last),
        )

    def _open(
        self, entry: SegmentEntry, forgotten: Callable[[int, int], list[int]]
    ) -> SealedSegment:
        assert self._folders is not None, "a catalogue comes from a state folder"
        folder = self._folders.of(entry)
        segment = SealedSegment.open(folder, self._shape)
        if segment.rows != entry.rows:
            raise CorruptFile(f"{folder} holds {segment.rows} rows instead of {entry.rows}")
        for sequence in forgotten(entry.first, entry.last):
            segment.forget(sequence)
        return segment

    def _append(self, snapshot: Snapshot, rows: SegmentRows) -> Snapshot:
        shape, growing = self._shape, list(snapshot.growing)
        codec, codes = shape.codec.native(shape.width), shape.codec.bytes_of(rows.residuals)
        # A reading that failed half-way is repeated: what it appended is not appended again.
        seen = growing[-1].sequence(growing[-1].rows - 1) if growing and growing[-1].rows else 0
        start = int(np.searchsorted(rows.sequences, seen, side="right"))
        while start < len(rows):
            if not growing or growing[-1].rows == growing[-1].capacity:
                growing.append(_kernel.GrowingSegment(self._capacity, shape.dim, codec))
            start += growing[-1].append(rows.embeddings, codes, rows.weights, rows.sequences, start)
        return replace(snapshot, growing=tuple(growing))


def _after(
    growing: tuple[_kernel.GrowingSegment, ...], sequence: int
) -> tuple[_kernel.GrowingSegment, ...]:
    """What of the growing segments came after a sequence."""
    kept = []
    for segment in growing:
        if segment.rows == 0 or segment.sequence(segment.rows - 1) <= sequence:
            continue
        kept.append(segment if segment.sequence(0) > sequence else segment.copy_after(sequence))
    return tuple(kept)


def _evict(snapshot: Snapshot, horizon: int) -> None:
    """Forgets every memory added online up to the horizon; nothing for those below it already."""
    for sealed in snapshot.sealed.values():
        sealed.native.forget_until(horizon)
    for growing in snapshot.growing:
        growing.forget_until(horizon)


def _forget(snapshot: Snapshot, sequence: int) -> None:
    if sequence < 0:
        if snapshot.fitted is not None:
            snapshot.fitted.forget(sequence)
        return
    for entry, sealed in snapshot.sealed.items():
        if entry.first <= sequence <= entry.last:
            sealed.forget(sequence)
            return
    for growing in snapshot.growing:
        row = growing.find(sequence)
        if row >= 0:
            growing.forget(row)
            return
