"""The residual memory of one model: what was fitted, what was memorized, and how both correct."""

import errno
import logging
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service import durable
from service.errors import CorruptFile, InvalidInput, JournalUnavailable, QueueFull
from service.memory import _kernel
from service.memory.compaction import compact
from service.memory.group_commit import GroupCommit, then
from service.memory.journal import Appended, Journal, Memories, Written
from service.memory.journal_follower import JournalFollower
from service.memory.lease import wait_for_lease
from service.memory.observer import MemoryObserver, Unobserved
from service.memory.options import MemoryOptions
from service.memory.records import Records
from service.memory.sealed import SealedSegment
from service.memory.sealing import Sealer
from service.memory.segment_builder import SegmentBuilder
from service.memory.segment_rows import MemoryShape
from service.memory.self_recall import POOR_RECALL
from service.memory.soft_knn import Correction, SoftKnn
from service.memory.sqlite_journal import SqliteJournal
from service.memory.state_folders import StateFolders
from service.memory.tiers import Tiers
from service.memory.write_ahead_log import damage_in

__all__ = ["MemoryStatistics", "ResidualMemory"]

logger = logging.getLogger(__name__)

_PASSING = {errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT}
"""A folder that cannot be written now, and may be later: predictions need not wait for it."""


@dataclass(frozen=True, slots=True)
class MemoryStatistics:
    """What there is, now: living rows, bytes of the sealed files, segments, revision.

    And the lowest self-recall of any segment, as far as it was measured; 1 without any.
    """

    sealed_rows: int
    growing_rows: int
    nbytes: int
    segments: int
    revision: int
    recall: float


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
        self._tiers = Tiers(folders, shape, self._fitted, options.growing_bytes)
        self._follower: JournalFollower | None = None
        self.records = Records(None, self._fitted)
        self._journal: Journal | None = None
        self._sealer: Sealer | None = None
        self._writes: GroupCommit | None = None
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
        self._follower = JournalFollower(self._journal, self._tiers, folders)
        self._follower.catch_up(since_start=True)
        self._tiers.forget_fitted(self._journal.tombstones(-self._fitted_rows, -1))
        self._builder = SegmentBuilder(folders, shape, options.graph, self._journal, observer)
        if options.maintain:
            self._sealer = Sealer(
                folders,
                shape,
                self._tiers,
                self._journal,
                self._builder,
                refresh=self.refresh,
                retention=options.retention,
                max_segment_rows=options.max_segment_rows,
                observer=observer,
            )
        self._writes = GroupCommit(
            self._journal,
            self.refresh,
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
        observer: MemoryObserver = Unobserved(),  # noqa: B008 - stateless
    ) -> "ResidualMemory":
        """Opens the memories of a bundle and of a state folder, which is made where missing.

        Args:
            state: folder of the journal and of the segments sealed from it; None for a memory of
                the fitted rows alone, which cannot be written.
            fitted: the bundle's segment; None for a bundle without memories.
            shape: sizes of the model's embeddings and outputs.
            options: bounds.
            observer: told of commits and of sealing.

        Raises:
            CorruptFile: a file is not what it should be; the message names it.
            JournalUnavailable: the state is no folder. One that cannot be written now is no error:
                the memory corrects with what can be read, refuses what it is to learn, and tries
                again with every request.
        """
        return cls(state, fitted=fitted, shape=shape, options=options, observer=observer)

    @property
    def size(self) -> int:
        """Memories that vote."""
        return self._tiers.snapshot.size

    @property
    def busy_s(self) -> float:
        """How long a write waits for another process that holds the journal, from its arrival."""
        return self._options.busy_ms / 1000

    @property
    def revision(self) -> int:
        """A number that rises with every change; 0 for a memory that never changed."""
        return self._tiers.snapshot.position.revision

    @property
    def journal_engine(self) -> str | None:
        """Name and version of the database that keeps the journal; None without a journal."""
        return None if self._journal is None else self._journal.engine

    def statistics(self) -> MemoryStatistics:
        """Counts for the gauges."""
        snapshot = self._tiers.snapshot
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
        )

    def correct(self, embeddings: NDArray[np.float32], rule: SoftKnn) -> Correction:
        """The corrections of a batch.

        Every memory that any process acknowledged before the call takes part.

        Args:
            embeddings: `[n, d]`, finite.
            rule: how to find and weigh neighbours.

        Raises:
            CorruptFile: a graph led the search out of its file, or a file was cut since it was
                mapped. A segment sealed here is built anew from the journal; try again.
        """
        self.refresh()
        queries = np.ascontiguousarray(embeddings, np.float32)
        try:
            found = _kernel.correct(
                self._tiers.snapshot.segments,
                queries,
                self._shape.width,
                rule.k,
                rule.ef,
                rule.sigma,
                rule.alpha,
            )
        except _kernel.CorruptGraph as error:
            self._wake_sealer()
            raise CorruptFile(str(error)) from error
        return Correction(*found)

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
        if self._tiers.growing_bytes >= self._options.max_growing_bytes:
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

        Then asks each segment for a sample of its own rows, some 0.05 s of CPU each: one that does
        not find them is named in the log.

        Raises:
            CorruptFile: a file differs from its checksum; the message names it.
        """
        snapshot = self._tiers.snapshot
        for segment in (*snapshot.sealed.values(), *([self._fitted] if self._fitted else ())):
            segment.verify()
            if segment.measure_recall(self._options.graph.ef) < POOR_RECALL:
                logger.warning(
                    "%s finds only %.1f %% of its own rows: `resmem verify` says what to do",
                    segment.folder, 100 * (segment.recall or 0),
                )  # fmt: skip

    def refresh(self) -> None:
        """Takes over what any process committed since the last time; cheap where nothing was."""
        if self._follower is not None and self._follower.refresh():
            self._wake_sealer()

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
        with wait_for_lease(folders.lease, seconds=wait_s) as lease:
            if lease is None:
                raise JournalUnavailable(f"{folders.lease}: another process builds segments")
            self.refresh()
            for segment in self._tiers.snapshot.sealed.values():
                segment.measure_recall(self._options.graph.ef)
            return compact(self._tiers, journal, self._builder, lease, self.refresh)

    def close(self) -> None:
        """Finishes queued writes and ends all threads."""
        for part in (self._writes, self._sealer, self._journal):
            if part is not None:
                part.close()

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
