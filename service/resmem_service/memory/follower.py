"""Follows the journal: what any process commits reaches this one's segments.

Whatever goes wrong on the way, predictions go on with the snapshot that there is. A segment that
does not open is left out by `SegmentSet`; where the journal itself cannot be read, reading is tried
again after a pause, so that no request pays for it again and again.
"""

import logging
import time
from contextlib import suppress
from dataclasses import replace
from threading import Lock
from typing import Final

import numpy as np

from resmem_service.errors import CorruptFile, JournalUnavailable
from resmem_service.memory.journal.journal import Changes, Journal, SegmentEntry
from resmem_service.memory.segments.folders import StateFolders
from resmem_service.memory.segments.segment_set import SegmentSet, UnusableSegment

__all__ = ["JournalFollower"]

_log = logging.getLogger(__name__)

_CATALOGUE_READINGS: Final = 8
_LAST_SEQUENCE: Final = 2**63 - 1
_FIRST_PAUSE_S: Final = 0.01
_LONGEST_PAUSE_S: Final = 1.0


class JournalFollower:
    """Moves the segments along the journal; every method may be called from any thread.

    Args:
        journal: where commits come from.
        segments: where they go; nobody else writes to them.
        folders: of the state, for what to say of damage.

    Attributes:
        trouble: why the journal could not be read the last time; None where it could.
    """

    def __init__(self, journal: Journal, segments: SegmentSet, folders: StateFolders) -> None:
        self._journal = journal
        self._segments = segments
        self._folders = folders
        self._lock = Lock()
        self._failures = 0
        self._not_before = 0.0
        self.trouble: str | None = None

    def refresh(self, *, at_once: bool = False) -> bool:
        """Takes over what was committed since the last time; True where something was.

        It never raises. After a reading that failed it waits a moment, longer each time up to a
        second, unless `at_once`: for whoever has just committed something.
        """
        if self._failures and not at_once and time.monotonic() < self._not_before:
            return False
        changed = False
        try:
            # Looks before it waits for whoever is reading; and then again, to read nothing twice.
            if self._journal.moved():
                with self._lock:
                    if self._journal.moved():
                        self.catch_up()
                        changed = True
        except Exception as error:
            self._failed(error)
            return False
        if self._failures:
            self._recovered()
        return changed

    def restore(self, *, reopen: bool = False) -> None:
        """Moves away from segments that were found damaged: their rows come from the journal.

        Args:
            reopen: whether to try again those that could not be opened.

        Raises:
            CorruptFile, JournalUnavailable: the journal cannot be read.
        """
        with self._lock:
            self._read(since_start=False, reopen=reopen)

    def catch_up(self, *, since_start: bool = False) -> None:
        """Reads what was committed, all of it where `since_start`; one caller at a time.

        Raises:
            CorruptFile: the journal is damaged, or contradicts the segments.
            JournalUnavailable: it cannot be read now.
        """
        own = None if since_start else self._journal.latest(self._segments.snapshot.position)
        if own is not None:
            self._segments.append(own)
            return
        self._read(since_start=since_start)

    def _read(self, *, since_start: bool, reopen: bool = False) -> None:
        failed: tuple[SegmentEntry, ...] | None = None
        for reading in range(_CATALOGUE_READINGS):
            since = None if since_start else self._segments.snapshot.position
            try:
                with self._journal.changes(since) as changes:
                    catalogue = tuple(changes.catalogue)
                    # Another process may have merged a segment away between the reading and the
                    # opening, and removes it file by file; the next catalogue has it no more.
                    strict = catalogue != failed and reading < _CATALOGUE_READINGS - 1
                    self._segments.apply(changes, strict=strict, reopen=reopen)
                    if since_start:
                        self._compare(changes)
                return
            except UnusableSegment:
                failed = catalogue

    def _compare(self, changes: Changes) -> None:
        """What votes must be what the journal has: its tombstones and catalogue bear no checksum.

        Raises:
            CorruptFile: it is not; the message names the damaged file, where it can be told.
        """
        if self._agrees(changes):
            return
        for segment in self._segments.snapshot.sealed.values():
            with suppress(CorruptFile):  # then it is damaged, and `apply` moves away from it
                segment.verify()
        self._segments.apply(replace(changes, rows=iter(()), tombstones=[]))
        if not self._agrees(changes):
            raise CorruptFile(
                f"{self._folders.journal} and the segments beside it disagree on which memories "
                "there are; `resmem verify` tells more"
            )

    def _agrees(self, changes: Changes) -> bool:
        """Whether the same memories vote as the journal holds, those aside that cannot be read."""
        if self._segments.living() == changes.living():
            return True
        stored, voting = changes.sequences(1, _LAST_SEQUENCE), self._segments.sequences()
        if not np.isin(voting, stored).all():
            return False
        missing = stored[~np.isin(stored, voting)].tolist()
        if any(True for sequence in missing for _ in changes.between(sequence, sequence)):
            return False
        self._segments.note_unreadable(changes.skipped)
        return True

    def _failed(self, error: Exception) -> None:
        known = isinstance(error, (JournalUnavailable, CorruptFile, OSError, MemoryError))
        if not self._failures:
            _log.error(
                "the journal cannot be read; predictions go on with what was read before: %s",
                error, exc_info=None if known else error,
            )  # fmt: skip
        pause = min(_FIRST_PAUSE_S * 2**self._failures, _LONGEST_PAUSE_S)
        self.trouble = str(error) or type(error).__name__
        self._not_before = time.monotonic() + pause
        self._failures = min(self._failures + 1, 16)

    def _recovered(self) -> None:
        self._failures = 0
        self.trouble = None
        _log.warning("the journal is read again; predictions know what was committed meanwhile")
