"""The residual memory of one model: what was fitted, what was memorized, and how both correct."""

import errno
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from resmem_service import durable
from resmem_service.errors import (
    CorruptFile,
    InvalidInput,
    JournalUnavailable,
    QueueFull,
)
from resmem_service.memory.faults import Fault
from resmem_service.memory.follower import JournalFollower
from resmem_service.memory.journal.group_commit import GroupCommit, then
from resmem_service.memory.journal.journal import (
    Appended,
    Journal,
    Memories,
    Written,
)
from resmem_service.memory.journal.sqlite.journal import SqliteJournal
from resmem_service.memory.journal.sqlite.log_check import damage_in
from resmem_service.memory.observer import MemoryObserver, SilentMemoryObserver
from resmem_service.memory.options import MemoryOptions
from resmem_service.memory.records import Records
from resmem_service.memory.rows import MemoryShape
from resmem_service.memory.search import _kernel
from resmem_service.memory.search.soft_knn import Correction, SoftKnn
from resmem_service.memory.segment_care import SegmentCare, is_broken
from resmem_service.memory.segments.compaction import compact
from resmem_service.memory.segments.folders import StateFolders
from resmem_service.memory.segments.lock import wait_for_lock
from resmem_service.memory.segments.sealed_segment import SealedSegment
from resmem_service.memory.segments.sealer import Sealer
from resmem_service.memory.segments.segment_builder import SegmentBuilder
from resmem_service.memory.segments.segment_set import SegmentSet

__all__ = ["MemoryStatistics", "ResidualMemory"]

_log = logging.getLogger(__name__)

_SEARCHES: Final = 3

_PASSING = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT}
"""A folder that cannot be written now, and may be later: predictions need not wait for it."""


@dataclass(frozen=True, slots=True)
class MemoryStatistics:
    """What there is, now: living rows, bytes of the sealed files, segments, revision, faults.

    And the lowest self-recall of any segment, as far as it was measured; 1 without any.
    """

    sealed_rows: int
    growing_rows: int
    nbytes: int
    segments: int
    revision: int
    recall: float
    unsealed_bytes: int
    """Of the rows in RAM that wait to be sealed."""
    unsealed_bytes_limit: int
    """Appends are refused from here on."""
    unusable_segments: int
    """Damaged, gone or not to be opened, the bundle's among them."""
    unreadable_rows: int
    """Rows of the journal that were left out, since they differ from their checksums."""
    journal_readable: bool
    journal_writable: bool


class ResidualMemory:
    """Corrects predictions and learns; every method may be called from any thread.

    Without a state folder it is the bundle's memories alone, and cannot be appended to.

    Attributes:
        records: single memories, by id, source and sequence.
    """

    def __init__(
        self,
        state: Path | None,
        *,
        fitted: Path | None,
        shape: MemoryShape,
        options: MemoryOptions,
        observer: MemoryObserver,
    ) -> None:
        self._shape = shape
        self._fitted = None if fitted is None else SealedSegment.open(fitted, shape)
        self._options = options
        self._folders = folders = None if state is None else StateFolders(state)
        self._segments = SegmentSet(folders, shape, self._fitted, options.growing_bytes)
        self._follower: JournalFollower | None = None
        self.records = Records(None, self._fitted)
        self._journal: Journal | None = None
        self._sealer: Sealer | None = None
        self._writes: GroupCommit | None = None
        self._care = self._caretaker(None)
        if folders is None:
            return
        _make_folder(folders.root)
        _check_log(folders.log)
        self._journal = SqliteJournal(
            folders.journal,
            shape,
            fitted_rows=self._fitted_rows,
            busy_ms=options.busy_ms,
            patient=True,
        )
        self.records = Records(self._journal, self._fitted)
        self._follower = JournalFollower(self._journal, self._segments, folders)
        try:
            self._follower.catch_up(since_start=True)
        except BaseException:
            self._journal.close()
            raise
        self._care = self._caretaker(self._follower)
        self._segments.forget_fitted(self._journal.tombstones(-self._fitted_rows, -1))
        self._builder = SegmentBuilder(
            folders,
            shape,
            options.graph,
            self._journal,
            observer,
            note_unreadable=self._segments.note_unreadable,
        )
        if options.maintain:
            self._sealer = Sealer(
                folders,
                shape,
                self._segments,
                self._journal,
                self._builder,
                refresh=self.refresh,
                inspect=self._care.inspect,
                retention=options.retention,
                max_segment_rows=options.max_segment_rows,
                observer=observer,
            )
        self._writes = GroupCommit(
            self._journal,
            self._publish,
            observer,
            max_rows=options.max_pending_rows,
            busy_ms=options.busy_ms,
        )
        self._wake_sealer()

    @classmethod
    def open(
        cls,
        state: Path | None,
        *,
        fitted: Path | None,
        shape: MemoryShape,
        options: MemoryOptions = MemoryOptions(),  # noqa: B008 - immutable
        observer: MemoryObserver = SilentMemoryObserver(),  # noqa: B008 - stateless
    ) -> "ResidualMemory":
        """Opens the memories of a bundle and of a state folder, which is made where missing.

        Args:
            state: folder of the journal and of the segments sealed from it; None for a memory of
                the fitted rows alone, which cannot be written.
            fitted: the bundle's segment; None for a bundle without memories.
            shape: sizes of the model's embeddings and outputs.
            options: bounds.
            observer: told of commits and of sealing.

        A sealed segment that is damaged is no error either: its rows are taken from the journal.

        Raises:
            CorruptFile: a file of the bundle or the journal is not what it should be; the message
                names it.
            JournalUnavailable: the state is no folder. One that cannot be written now is no error:
                the memory corrects with what can be read, refuses what it is to learn, and tries
                again with every request.
        """
        return cls(state, fitted=fitted, shape=shape, options=options, observer=observer)

    @property
    def size(self) -> int:
        """Memories that vote."""
        return self._segments.snapshot.size

    @property
    def busy_s(self) -> float:
        """How long a write waits for another process that holds the journal, from its arrival."""
        return self._options.busy_ms / 1000

    @property
    def revision(self) -> int:
        """A number that rises with every change; 0 for a memory that never changed."""
        return self._segments.snapshot.position.revision

    @property
    def journal_engine(self) -> str | None:
        """Name and version of the database that keeps the journal; None without a journal."""
        return None if self._journal is None else self._journal.engine

    def statistics(self) -> MemoryStatistics:
        """Counts for the gauges."""
        snapshot = self._segments.snapshot
        sealed = list(snapshot.sealed.values())
        if snapshot.fitted is not None:
            sealed.append(snapshot.fitted)
        return MemoryStatistics(
            sealed_rows=sum(segment.living_rows for segment in sealed),
            growing_rows=sum(segment.rows - segment.dead_rows for segment in snapshot.growing),
            nbytes=sum(segment.nbytes for segment in sealed),
            segments=len(sealed),
            revision=snapshot.position.revision,
            recall=min(
                (segment.recall for segment in sealed if segment.recall is not None), default=1.0
            ),
            unsealed_bytes=self._segments.growing_bytes,
            unsealed_bytes_limit=self._options.max_growing_bytes,
            unusable_segments=len(snapshot.unusable) + sum(is_broken(one) for one in sealed),
            unreadable_rows=len(self._segments.unreadable),
            journal_readable=self._follower is None or self._follower.trouble is None,
            journal_writable=self._journal is None or self._journal.trouble() is None,
        )

    def faults(self) -> list[Fault]:
        """What is wrong now; predictions go on with all of it that is not fatal."""
        return list(self._faults())

    def correct(self, embeddings: NDArray[np.float32], rule: SoftKnn) -> Correction:
        """The corrections of a batch.

        Every memory that any process acknowledged before the call takes part.

        Args:
            embeddings: `[n, d]`, finite.
            rule: how to find and weigh neighbours.

        Raises:
            CorruptFile: a file of the bundle was cut or written to, or led the search out of it; or
                a sealed segment is damaged and the journal cannot be read in its place.
        """
        self.refresh()
        queries = np.ascontiguousarray(embeddings, np.float32)
        for _ in range(_SEARCHES):
            try:
                found = _kernel.correct(
                    self._segments.snapshot.segments,
                    queries,
                    self._shape.width,
                    rule.k,
                    rule.ef,
                    rule.sigma,
                    rule.alpha,
                )
            except _kernel.CorruptGraph as error:
                # What was found is worth nothing; once more without what is damaged.
                trouble = error
                self._care.leave_damaged()
            else:
                return Correction(*found)
        raise CorruptFile(str(trouble)) from trouble

    def check(self, residuals: NDArray[np.float32]) -> None:
        """Makes sure that residuals `[n, L]` can be stored, before they join others' commit.

        Raises:
            InvalidInput: field `targets`: the codec cannot hold one of them.
        """
        try:
            self._shape.codec.check(residuals)
        except ValueError as error:
            raise InvalidInput(str(error), "targets") from error

    def append(self, memories: Memories) -> "Future[Appended]":
        """Adds memories; the future ends when they are durable and part of the next correction.

        Its exception is JournalUnavailable where nothing was written.

        Raises:
            InvalidInput: as `check`.
            QueueFull: the disk, or sealing, does not keep up.
            NotReady: closed.
        """
        self.check(memories.residuals)
        return then(self.append_all([memories]), lambda appended: appended[0])

    def append_all(
        self, requests: Sequence[Memories], *, arrived: float | None = None
    ) -> "Future[list[Appended]]":
        """Adds the memories of several requests, at least one, that passed `check`; as `append`.

        One transaction holds them all. The exception is JournalLocked where another process held
        the journal for `busy_s` from `arrived` on, a `time.monotonic`, which is now where None.
        """
        if self._segments.growing_bytes >= self._options.max_growing_bytes:
            raise QueueFull("memories arrive faster than they can be sealed; retry later")
        return then(self._writing().append(requests, arrived=arrived), self._appended)

    def forget(self, id: str) -> bool:
        """Forgets the memory of this id, durably; False where there is none.

        Raises:
            JournalUnavailable: nothing was forgotten.
        """
        return self.request_forget(id).result() > 0

    def forget_source(self, source: str) -> int:
        """Forgets every memory of a source, durably; returns how many.

        Raises:
            JournalUnavailable: nothing was forgotten.
        """
        return self.request_forget_source(source).result()

    def request_forget(self, id: str) -> "Future[int]":
        """As `forget`, for who must not wait: the future has the number of memories forgotten."""
        return self._writing().forget(id)

    def request_forget_source(self, source: str) -> "Future[int]":
        """As `forget_source`, for who must not wait."""
        return self._writing().forget_source(source)

    def warm(self) -> None:
        """Reads the sealed files through: no first query waits for the disk, or meets damage.

        A sealed segment that differs from its checksums is left: the journal has its rows. Then
        asks each segment for a sample of its own rows, some 0.05 s of CPU each: one that does not
        find them is named in the log.

        Raises:
            CorruptFile: a file of the bundle differs from its checksum, or the journal cannot be
                read in the place of a sealed segment; the message names it.
        """
        self._care.verify()

    def refresh(self) -> None:
        """Takes over what any process committed since the last time; cheap where nothing was.

        It never raises: where the journal cannot be read, predictions use what was read before.
        """
        if self._follower is not None and self._follower.refresh():
            self._wake_sealer()

    def inspect(self) -> None:
        """Looks after the files in use; see `SegmentCare.inspect`, which the sealer calls."""
        self._care.inspect()

    def compact(self, *, wait_s: float = 60.0) -> int:
        """Removes what was forgotten from the disk; blocks, beside a service that runs.

        Every sealed segment that holds forgotten rows is built anew from the journal, and the
        journal gives back their pages; so is one that does not find its own rows. Forgotten
        memories of the bundle stay in its files, which are immutable: the next fit leaves them out.

        Returns the number of forgotten rows that were removed from segments.

        Raises:
            JournalUnavailable: another process builds segments for longer than `wait_s`, or the
                journal cannot be written.
            RuntimeError: a build failed; the old segment stays.
        """
        journal, folders = self._written_journal(), self._folders
        assert folders is not None
        with wait_for_lock(folders.lock, seconds=wait_s) as lock:
            if lock is None:
                raise JournalUnavailable(f"{folders.lock}: another process builds segments")
            self.refresh()
            for segment in self._segments.snapshot.sealed.values():
                segment.measure_recall(self._options.graph.ef)
            return compact(self._segments, journal, self._builder, lock, self.refresh)

    def close(self) -> None:
        """Finishes queued writes and ends all threads."""
        for part in (self._writes, self._sealer, self._journal):
            if part is not None:
                part.close()

    def _caretaker(self, follower: JournalFollower | None) -> SegmentCare:
        return SegmentCare(
            self._segments,
            self._fitted,
            follower,
            ef=self._options.graph.ef,
            refresh=self.refresh,
            wake_sealer=self._wake_sealer,
        )

    def _publish(self) -> None:
        if self._follower is not None and self._follower.refresh(at_once=True):
            self._wake_sealer()

    def _faults(self) -> Iterator[Fault]:
        snapshot = self._segments.snapshot
        fitted = snapshot.fitted
        if fitted is not None and fitted.damage is not None:
            yield Fault(
                "bundle_damaged",
                "a file of the bundle's memories was cut or written to; restore the version and "
                "reload",
                fatal=True,
            )
        elif fitted is not None and fitted.loss is not None:
            yield Fault(
                "bundle_files_missing",
                "a file of the bundle's memories is gone from its folder; predictions go on with "
                "what is mapped, but a restart would fail",
            )
        broken = len(snapshot.unusable) + sum(map(is_broken, snapshot.sealed.values()))
        if broken:
            yield Fault(
                "segment_unusable",
                f"{broken} sealed segments are damaged, gone or do not open; predictions use "
                "their rows all the same, and they are built anew from the journal",
            )
        if self._segments.unreadable:
            yield Fault(
                "rows_unreadable",
                f"{len(self._segments.unreadable)} memories in the journal differ from their "
                "checksums and are left out; `resmem verify` names them, `resmem repair "
                "--forget-damaged` forgets them",
            )
        if self._follower is not None and self._follower.trouble is not None:
            yield Fault(
                "journal_unreadable",
                "the journal cannot be read; predictions use what was read before",
            )
        if self._journal is not None and self._journal.trouble() is not None:
            yield Fault(
                "journal_unwritable",
                "the journal cannot be written, or is no longer the file that is open; nothing "
                "can be memorized",
            )
        if self._sealer is not None and self._sealer.failure is not None:
            yield Fault(
                "sealing_failed", "the last build of a sealed segment failed; its rows stay in RAM"
            )
        if self._segments.growing_bytes >= self._options.max_growing_bytes:
            yield Fault(
                "sealing_behind",
                "the rows that wait to be sealed reach max_growing_bytes; nothing can be "
                "memorized until some are",
            )

    @property
    def _fitted_rows(self) -> int:
        return 0 if self._fitted is None else self._fitted.rows

    def _appended(self, written: Sequence[Written]) -> list[Appended]:
        size, revision = self.size, self.revision
        return [Appended(one.ids, one.created, one.replaced, size, revision) for one in written]

    def _written_journal(self) -> Journal:
        if self._journal is None:
            raise JournalUnavailable("this memory has no state folder")
        return self._journal

    def _writing(self) -> GroupCommit:
        if self._writes is None:
            raise JournalUnavailable("this memory has no state folder")
        return self._writes

    def _wake_sealer(self) -> None:
        if self._sealer is not None:
            self._sealer.wake()


def _make_folder(folder: Path) -> None:
    try:
        durable.make_folder(folder)
    except OSError as error:
        if error.errno not in _PASSING:
            raise JournalUnavailable(f"{folder}: {error.strerror}") from error


def _check_log(log: Path) -> None:
    """SQLite passes over what is damaged in its log, and all that was committed after it."""
    damage = damage_in(log)
    if damage is not None:
        raise CorruptFile(
            f"{log}: {damage}; restore a backup, or go on without with `resmem repair`"
        )
