"""The segments that a correction reads: fitted, sealed, growing; and how changes reach them.

Readers take the current snapshot and keep it for a batch. One writer at a time (the caller sees to
that) appends to the newest growing segment in place, or swaps in another snapshot.

A snapshot holds every living memory up to its position once, whatever becomes of a sealed segment:
where one of the catalogue cannot be used, its rows stay in what held them before (growing segments,
and the sealed ones that it was merged from), or are read from the journal into growing segments.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from resmem_service.errors import CorruptFile
from resmem_service.memory.faults import is_shortage
from resmem_service.memory.journal.journal import Changes, Living, Position, SegmentEntry
from resmem_service.memory.rows import MemoryShape, SegmentRows
from resmem_service.memory.search import _kernel
from resmem_service.memory.segments.folders import StateFolders
from resmem_service.memory.segments.growing_segment import Growing, GrowingRows, newest, without
from resmem_service.memory.segments.policy import Backlog, SealedState
from resmem_service.memory.segments.sealed_segment import SealedSegment

__all__ = ["SegmentSet", "Snapshot", "Unusable", "UnusableSegment"]

_log = logging.getLogger(__name__)


class UnusableSegment(Exception):
    """A segment that the catalogue names does not open; the snapshot stays as it is."""


@dataclass(frozen=True, slots=True)
class Unusable:
    """Why a segment of the catalogue is not in use."""

    reason: str
    shortage: bool
    """Descriptors or memory ran out: it need not be built anew, only opened again."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One state of the memory, good for a batch."""

    fitted: SealedSegment | None
    catalogue: tuple[SegmentEntry, ...]
    sealed: Mapping[SegmentEntry, SealedSegment]
    """Those in use: of the catalogue, and of an earlier one where their successor is unusable."""
    growing: Growing
    position: Position
    unusable: Mapping[SegmentEntry, Unusable]

    @property
    def segments(self) -> list[_kernel.Segment]:
        """All of them, for the kernel."""
        fitted = () if self.fitted is None else (self.fitted.native,)
        return [*fitted, *(segment.native for segment in self.sealed.values()), *self.growing]

    @property
    def size(self) -> int:
        """Living memories."""
        return sum(segment.rows - segment.dead_rows for segment in self.segments)

    @property
    def sealed_until(self) -> int:
        """The last sequence of the catalogue."""
        return max((entry.last for entry in self.catalogue), default=0)

    @property
    def unsealed(self) -> list[_kernel.GrowingSegment]:
        """The growing segments with rows that no sealed segment should hold yet."""
        sealed = self.sealed_until
        return [
            part for part in self.growing if part.rows and part.sequence(part.rows - 1) > sealed
        ]


class SegmentSet:
    """Holds the current snapshot and moves it along the journal.

    Args:
        folders: where sealed segments lie; None where nothing can be memorized.
        shape: of the memories.
        fitted: the bundle's segment, if it has one.
        growing_bytes: size of a growing segment.

    Attributes:
        unreadable: the rows of the journal that were skipped since they differ from their
            checksums: ids by sequence, until they are forgotten.
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
        self._growing = GrowingRows(shape, growing_bytes)
        self.snapshot = Snapshot(fitted, (), {}, (), Position(), {})
        self.unreadable: dict[int, str] = {}

    @property
    def growing_bytes(self) -> int:
        """What the rows in RAM that wait to be sealed take, forgotten ones included."""
        return self._growing.row_bytes * sum(part.rows for part in self.snapshot.unsealed)

    def backlog(self) -> Backlog:
        """What there is to build segments from."""
        snapshot = self.snapshot
        full = [segment for segment in snapshot.unsealed if segment.rows == segment.capacity]
        return Backlog(
            sealed=[self._state(snapshot, entry) for entry in snapshot.catalogue],
            full_rows=sum(segment.rows for segment in full),
            last=newest(tuple(full)),
        )

    def living(self) -> Living:
        """The memories added online that vote."""
        snapshot = self.snapshot
        parts = [
            segment.living()
            for segment in (*(s.native for s in snapshot.sealed.values()), *snapshot.growing)
        ]
        return Living(sum(rows for rows, _ in parts), sum(total for _, total in parts))

    def sequences(self) -> NDArray[np.int64]:
        """The sequences of the memories added online that vote, in no order."""
        snapshot = self.snapshot
        segments = (*(s.native for s in snapshot.sealed.values()), *snapshot.growing)
        return np.array(
            [
                segment.sequence(row)
                for segment in segments
                for row in range(segment.rows)
                if segment.lives(row)
            ],
            np.int64,
        )

    def append(self, rows: SegmentRows) -> None:
        """Adds rows, at least one, that follow on the position."""
        snapshot = self.snapshot
        growing = self._growing.append(snapshot.growing, rows)
        position = snapshot.position._replace(sequence=int(rows.sequences[-1]))
        self.snapshot = replace(snapshot, growing=growing, position=position)

    def apply(self, changes: Changes, *, strict: bool = False, reopen: bool = False) -> None:
        """Moves to the position of `changes`, and away from segments that were found damaged.

        Args:
            changes: what came after the position of the snapshot.
            strict: whether a segment that does not open is an error; otherwise it is `unusable`.
            reopen: whether to try those again that are unusable.

        Raises:
            UnusableSegment: where `strict`; the snapshot stays.
        """
        snapshot = self.snapshot
        if (
            tuple(changes.catalogue) != snapshot.catalogue
            or (reopen and snapshot.unusable)
            or any(segment.damage for segment in snapshot.sealed.values())
        ):
            snapshot = self._swap(snapshot, changes, strict)
        for rows in changes.rows:
            snapshot = replace(snapshot, growing=self._growing.append(snapshot.growing, rows))
        # After the rows: a memory that replaces another is there before the other goes.
        for sequence in changes.tombstones:
            _forget(snapshot, sequence)
            self.unreadable.pop(sequence, None)
        _evict(snapshot, changes.position.horizon)
        self.note_unreadable(changes.skipped)
        for sequence in [s for s in self.unreadable if s <= changes.position.horizon]:
            del self.unreadable[sequence]
        self.snapshot = replace(snapshot, position=changes.position)

    def note_unreadable(self, skipped: Mapping[int, str]) -> None:
        """Says once of each row that was skipped which it is."""
        for sequence, id in skipped.items():
            if sequence not in self.unreadable:
                self.unreadable[sequence] = id
                _log.error(
                    "memory %d (id %r) in the journal differs from its checksum: it is left out "
                    "until it is memorized again; `resmem repair --forget-damaged` forgets it",
                    sequence, id,
                )  # fmt: skip

    def forget_fitted(self, sequences: list[int]) -> None:
        """Skips memories of the bundle from now on."""
        for sequence in sequences:
            _forget(self.snapshot, sequence)

    def _state(self, snapshot: Snapshot, entry: SegmentEntry) -> SealedState:
        segment = snapshot.sealed.get(entry)
        if segment is not None:
            damaged = segment.native.damaged or bool(segment.damage or segment.loss)
            return SealedState(
                entry, segment.native.dead_rows, damaged=damaged, recall=segment.recall
            )
        unusable = snapshot.unusable.get(entry)
        return SealedState(entry, damaged=unusable is not None and not unusable.shortage)

    def _swap(self, snapshot: Snapshot, changes: Changes, strict: bool) -> Snapshot:
        """The snapshot with the segments of the catalogue of `changes`, as far as they can be used.

        Raises:
            UnusableSegment: where `strict`, one cannot be.
        """
        catalogue = tuple(changes.catalogue)
        sealed: dict[SegmentEntry, SealedSegment] = {}
        unusable: dict[SegmentEntry, Unusable] = {}
        for entry in catalogue:
            if entry.rows == 0:
                continue
            try:
                sealed[entry] = self._segment(entry, snapshot, changes.forgotten)
            except Exception as error:
                if strict:
                    raise UnusableSegment(f"{error}") from error
                unusable[entry] = _unusable(error)
                _log_unusable(entry, unusable[entry], snapshot.unusable.get(entry), error)
        sealed |= {
            entry: segment
            for entry, segment in snapshot.sealed.items()
            if segment.damage is None and any(_holds(other, entry) for other in unusable)
        }
        if snapshot.unusable and not unusable:
            _log.warning("every sealed segment is in use again")
        covered = [
            (entry.first, entry.last) for entry in {*sealed, *(e for e in catalogue if not e.rows)}
        ]
        missing = [gap for entry in unusable for gap in self._missing(snapshot, sealed, entry)]
        read = [rows for first, last in sorted(missing) for rows in changes.between(first, last)]
        return replace(
            snapshot,
            catalogue=catalogue,
            sealed=sealed,
            # The newest stay last: what comes is added there.
            growing=(*self._growing.holding(read), *without(snapshot.growing, covered)),
            unusable=unusable,
        )

    def _segment(
        self,
        entry: SegmentEntry,
        snapshot: Snapshot,
        forgotten: Callable[[int, int], list[int]],
    ) -> SealedSegment:
        """The segment of an entry: the one in use, or opened.

        Raises:
            CorruptFile, OSError: it is damaged, or does not open.
        """
        used = snapshot.sealed.get(entry)
        if used is not None:
            if used.damage is not None:
                raise CorruptFile(used.damage)
            return used
        assert self._folders is not None, "a catalogue comes from a state folder"
        folder = self._folders.of(entry)
        segment = SealedSegment.open(folder, self._shape)
        if segment.rows != entry.rows:
            raise CorruptFile(f"{folder} holds {segment.rows} rows instead of {entry.rows}")
        before = snapshot.unusable.get(entry)
        if before is not None and not before.shortage:
            segment.verify()  # it was damaged, and may be so still
        for sequence in forgotten(entry.first, entry.last):
            segment.forget(sequence)
        return segment

    def _missing(
        self,
        snapshot: Snapshot,
        sealed: Mapping[SegmentEntry, SealedSegment],
        entry: SegmentEntry,
    ) -> list[tuple[int, int]]:
        """The ranges of an unusable entry that neither `sealed` nor the growing segments hold."""
        gone = [
            (max(one.first, entry.first), min(one.last, entry.last))
            for one in snapshot.sealed
            if one not in sealed and one.first <= entry.last and one.last >= entry.first
        ]
        known = max(snapshot.position.sequence, newest(snapshot.growing), entry.first - 1)
        return [*gone, *([(known + 1, entry.last)] if known < entry.last else [])]


def _unusable(error: Exception) -> Unusable:
    shortage = is_shortage(error)
    if isinstance(error, CorruptFile):
        return Unusable(str(error), shortage)
    if isinstance(error, OSError):
        return Unusable(f"{error.filename}: {error.strerror}", shortage)
    return Unusable(f"{type(error).__name__}: {error}", shortage)


def _log_unusable(
    entry: SegmentEntry, now: Unusable, before: Unusable | None, error: Exception
) -> None:
    if before is not None and before.shortage == now.shortage:
        # Each attempt may meet another file of it.
        return
    _log.error(
        "sealed segment %08d cannot be used: %s; predictions use its rows as the journal has them, "
        "and %s", entry.number, now.reason,
        "it is opened again soon" if now.shortage else "it is built anew",
        exc_info=None if isinstance(error, (CorruptFile, OSError, MemoryError)) else error,
    )  # fmt: skip


def _holds(outer: SegmentEntry, inner: SegmentEntry) -> bool:
    return outer != inner and outer.first <= inner.first and inner.last <= outer.last


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
        if entry.first <= sequence <= entry.last and sealed.forget(sequence):
            return
    for growing in snapshot.growing:
        row = growing.find(sequence)
        if row >= 0 and growing.forget(row):
            return
