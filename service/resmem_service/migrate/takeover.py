"""The memories of one state on their way into the state of another model version.

    old journal -> batches of whole memories -> (embedded anew by the caller) -> new journal

Where the new version has no state yet, its journal grows in a hidden folder beside it, which a
last renaming makes the state; where it has one, served or not, memories are added to that. Either
way the new journal notes what it has (`sqlite_takeover`), so that a run ended at any instant is
gone on with by the next, and one after the last finds only what changed meanwhile. The old state is
only read.
"""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from resmem_service import durable
from resmem_service.errors import CorruptFile, JournalUnavailable
from resmem_service.memory.journal.journal import Journal, MemoryRecord, StoredMemory
from resmem_service.memory.journal.sqlite.eviction import count_memories
from resmem_service.memory.journal.sqlite.journal import SqliteJournal
from resmem_service.memory.journal.sqlite.takeover import (
    Arrivals,
    Note,
    SqliteTakeover,
    Totals,
    stamp_of,
)
from resmem_service.memory.observer import SilentMemoryObserver
from resmem_service.memory.options import MemoryOptions
from resmem_service.memory.rows import MemoryShape
from resmem_service.memory.segments.folders import StateFolders
from resmem_service.memory.segments.graph_settings import GraphSettings
from resmem_service.memory.segments.lock import try_lock
from resmem_service.memory.segments.policy import SegmentPlan
from resmem_service.memory.segments.segment_builder import SegmentBuilder

__all__ = ["Takeover", "take_over"]

_BUSY_MS: Final = 10_000
_PAGE_ROWS: Final = 1000
_GONE_AT_ONCE: Final = 500


class Takeover:
    """One old state, one new one; made by `take_over`.

    Attributes:
        fresh: whether the new state is still hidden, and nobody else can write to it.
    """

    def __init__(self, old: Journal, final: Path, shape: MemoryShape, origin: str) -> None:
        self.fresh = not StateFolders(final).journal.exists()
        self._old = old
        self._final = final
        self._folders = folders = StateFolders(_hidden(final) if self.fresh else final)
        folders.root.mkdir(exist_ok=True)
        self._shape = shape
        self._new = SqliteJournal(folders.journal, shape, busy_ms=_BUSY_MS)
        self._notes = SqliteTakeover(folders.journal, shape, origin, busy_ms=_BUSY_MS)

    @property
    def totals(self) -> Totals:
        """What became of the old state's memories, in all runs so far."""
        return self._notes.totals

    @property
    def of_another(self) -> bool:
        """Whether the new state holds memories that were taken over from somewhere else."""
        return self._notes.others()

    def forgotten_fitted(self, rows: int) -> int:
        """How many of the `rows` memories of the old bundle were forgotten in the old state."""
        return len(self._old.tombstones(-rows, -1))

    def reconcile(self) -> int:
        """Forgets what was forgotten, replaced or evicted in the old state since it came over.

        Where the old state is not the one of before, say restored from a backup, nothing is
        forgotten: what it has is taken over as from a state never seen. Returns how many were
        forgotten.
        """
        gone: list[int] = []
        with self._old.changes(None) as changes:
            same = changes.position.sequence >= self._notes.last
        for records, notes in self._windows() if same else ():
            for note in notes:
                record = records.get(note.old)
                if record is None:
                    gone.append(note.old)
                elif stamp_of(record) != note.stamp:
                    same = False
        if not same:
            self._notes.release()
            return 0
        return sum(
            self._notes.forget(gone[start : start + _GONE_AT_ONCE])
            for start in range(0, len(gone), _GONE_AT_ONCE)
        )

    def batches(self, rows: int) -> Iterator[list[StoredMemory]]:
        """What is still to come over, oldest first; each batch must be carried before the next.

        A batch begins where the last commit ended, so that an interrupted run and its
        continuation embed the same rows together as a run without a break.

        Raises:
            CorruptFile: a memory of the old state is damaged.
        """
        while batch := self._old.stored(self._notes.last, rows):
            yield batch

    def carry(self, arrivals: Sequence[Arrivals], unfit: Sequence[MemoryRecord]) -> int:
        """Commits a batch: the memories that come over, and those that are left out.

        Returns how many came over; the others met a memory with their id.

        Raises:
            JournalUnavailable: nothing of the batch was written.
        """
        return self._notes.carry(arrivals, unfit)

    def seal(
        self,
        announce: Callable[[int], None],
        options: MemoryOptions = MemoryOptions(graph=GraphSettings()),  # noqa: B008 - immutable
    ) -> int:
        """Builds the segments of a hidden state, where it would not fit a growing one.

        Calls `announce` with the number of rows before it begins, and returns it; 0 for nothing to
        do. What a killed run left half-built is built again.

        Raises:
            RuntimeError: a build failed.
        """
        with self._new.changes(None) as changes:
            catalogue, last = changes.catalogue, changes.position.sequence
        first = 1 + max((entry.last for entry in catalogue), default=0)
        rows, row_bytes = last - first + 1, 4 * (self._shape.dim + self._shape.width)
        if not self.fresh or rows * row_bytes < options.growing_bytes:
            return 0
        announce(rows)
        step = options.max_segment_rows
        builder = SegmentBuilder(
            self._folders, self._shape, options.graph, self._new, SilentMemoryObserver()
        )
        with try_lock(self._folders.lock) as lock:
            if lock is None:
                raise JournalUnavailable(f"{self._folders.lock}: another process builds segments")
            for start in range(first, last + 1, step):
                plan = SegmentPlan(start, min(start + step - 1, last), [], None)
                catalogue.append(builder.carry_out(plan, catalogue, lock))
        return rows

    def check(self) -> None:
        """Compares what came over with the old state, memory by memory.

        Raises:
            CorruptFile: they disagree.
        """
        newest = 0
        for records, notes in self._windows():
            noted = {note.old: note for note in notes}
            sequences = [note.sequence for note in notes if note.sequence is not None]
            here = self._new.records(sequences)
            for old, record in records.items():
                note = noted.get(old)
                if note is None:
                    raise self._disagreement(f"memory {record.id!r} is missing")
                if note.sequence is None:
                    continue
                copy = here.get(note.sequence)
                # A client of the new version may have forgotten it there.
                if copy is None and not self.fresh:
                    continue
                if copy is None or not _alike(copy, record) or copy.sequence < newest:
                    raise self._disagreement(f"memory {record.id!r} is not what it was")
                newest = copy.sequence
        count = count_memories(self._folders.journal)
        if self.fresh and count != self.totals.carried:
            raise self._disagreement(f"it holds {count} memories, not {self.totals.carried}")

    def publish(self) -> bool:
        """Makes the hidden state the state of the new version, and ends its use.

        False where the version has got a state of its own by now, which must be taken over into.
        """
        if not self.fresh:
            return True
        self.close()
        # A server that could not start leaves an empty folder.
        with suppress(OSError):
            self._final.rmdir()
        try:
            durable.publish_folder(self._folders.root, self._final)
        except OSError:
            if not self._final.exists():
                raise
            return False
        return True

    def close(self) -> None:
        """Ends the use of the new journal."""
        self._notes.close()
        self._new.close()

    def _windows(self) -> Iterator[tuple[dict[int, MemoryRecord], list[Note]]]:
        """Stretches of the old state up to the last note: its memories, and the notes on them."""
        done, last = 0, self._notes.last
        while done < last:
            page = self._old.page(None, done, _PAGE_ROWS)
            end = min(page[-1].sequence, last) if len(page) == _PAGE_ROWS else last
            records = {record.sequence: record for record in page if record.sequence <= end}
            yield records, self._notes.notes(done + 1, end)
            done = end

    def _disagreement(self, what: str) -> CorruptFile:
        return CorruptFile(f"{self._folders.root} disagrees with the state it comes from: {what}")


@contextmanager
def take_over(
    old: Path, old_shape: MemoryShape, new: Path, shape: MemoryShape, origin: str
) -> Iterator[Takeover]:
    """Opens both states; one run at a time for all versions of a model.

    Args:
        old: the state folder that is read; it has a journal.
        old_shape: of its memories.
        new: the state folder that is to have them, a sibling of `old`.
        shape: of the new memories.
        origin: names the old state and the exact model that its memories are embedded with.

    Raises:
        JournalUnavailable: another run is at work, or a journal cannot be opened.
        CorruptFile: a journal is none, or of another shape.
    """
    with _alone(new.parent):
        journal = SqliteJournal(StateFolders(old).journal, old_shape, busy_ms=_BUSY_MS)
        try:
            takeover = _open(journal, new, shape, origin)
            try:
                yield takeover
            finally:
                takeover.close()
        finally:
            journal.close()


def _open(old: Journal, new: Path, shape: MemoryShape, origin: str) -> Takeover:
    takeover = Takeover(old, new, shape, origin)
    # Begun for another version, or with another model of this one; or overtaken by a server.
    if takeover.fresh and takeover.of_another:
        takeover.close()
        shutil.rmtree(_hidden(new))
        return Takeover(old, new, shape, origin)
    if not takeover.fresh:
        shutil.rmtree(_hidden(new), ignore_errors=True)
    return takeover


def _hidden(new: Path) -> Path:
    return new.with_name(f".rebase-{new.name}")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise JournalUnavailable(f"{folder}: another rebase is at work there") from None
        yield
    finally:
        os.close(descriptor)


def _alike(copy: MemoryRecord, record: MemoryRecord) -> bool:
    return (copy.id, copy.source, copy.weight, copy.created_ms) == (
        record.id,
        record.source,
        record.weight,
        record.created_ms,
    )
