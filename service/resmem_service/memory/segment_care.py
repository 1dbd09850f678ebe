"""Looks after the sealed segments in use: verifies, measures, leaves what is damaged."""

import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from resmem_service.errors import CorruptFile, ResmemError
from resmem_service.memory.follower import JournalFollower
from resmem_service.memory.journal.journal import SegmentEntry
from resmem_service.memory.segments.sealed_segment import SealedSegment
from resmem_service.memory.segments.segment_set import SegmentSet
from resmem_service.memory.segments.self_recall import POOR_RECALL

__all__ = ["SegmentCare", "is_broken"]

_log = logging.getLogger(__name__)

_FIRST_REOPENING_S: Final = 0.5
_LONGEST_REOPENING_S: Final = 30.0


def is_broken(segment: SealedSegment) -> bool:
    """Whether files of a segment are damaged, or gone from its folder."""
    return segment.damage is not None or segment.loss is not None


class SegmentCare:
    """Takes care of the segments of one memory; every method may be called from any thread.

    Args:
        segments: the segments in use.
        fitted: the bundle's segment, if it has one.
        follower: takes rows from the journal in the place of a segment; None without a journal,
            and then there are no segments but the bundle's.
        ef: how many candidates a search keeps, when a segment is asked for its own rows.
        refresh: brings the segments up to the journal.
        wake_sealer: says that there may be something to build.
    """

    def __init__(
        self,
        segments: SegmentSet,
        fitted: SealedSegment | None,
        follower: JournalFollower | None,
        *,
        ef: int,
        refresh: Callable[[], None],
        wake_sealer: Callable[[], None],
    ) -> None:
        self._segments = segments
        self._fitted = fitted
        self._follower = follower
        self._ef = ef
        self._refresh = refresh
        self._wake_sealer = wake_sealer
        self._reopen_at, self._reopen_pause_s = 0.0, _FIRST_REOPENING_S

    def verify(self) -> None:
        """Reads all files through and asks each segment for a sample of its own rows.

        A sealed segment that differs from its checksums is left: the journal has its rows. One that
        does not find its own rows is named in the log.

        Raises:
            CorruptFile: a file of the bundle differs from its checksum, or the journal cannot be
                read in the place of a sealed segment; the message names it.
        """
        if self._fitted is not None:
            self._fitted.verify()
            self._measure(self._fitted)
        for segment in self._segments.snapshot.sealed.values():
            with suppress(CorruptFile):
                segment.verify()
                self._measure(segment)
        self.leave_damaged()

    def inspect(self) -> None:
        """Looks after the files in use, and tries again what did not open; called every second.

        What is damaged is left, what is gone from its folder is built anew.

        Raises:
            CorruptFile, JournalUnavailable: the journal cannot be read in the place of a damaged
                segment.
        """
        self._refresh()
        for entry, segment in list(self._segments.snapshot.sealed.items()):
            self._look_after(segment, entry)
        if self._fitted is not None:
            self._look_after(self._fitted, None)
        if not self._segments.snapshot.unusable:
            self._reopen_at, self._reopen_pause_s = 0.0, _FIRST_REOPENING_S
        elif self._follower is not None and self._due():
            self._follower.restore(reopen=True)
        self.leave_damaged()

    def leave_damaged(self) -> None:
        """Has the journal's rows take the place of every damaged segment, and wakes the sealer.

        Raises:
            CorruptFile: the bundle's segment is damaged, or the journal cannot be read.
        """
        if self._fitted is not None:
            self._fitted.check()
        sealed = self._segments.snapshot.sealed.values()
        if all(segment.sound() for segment in list(sealed)):
            return
        assert self._follower is not None, "sealed segments come from a journal"
        try:
            self._follower.restore()
        except ResmemError as error:
            raise CorruptFile(error.message) from error
        self._wake_sealer()

    def _measure(self, segment: SealedSegment) -> None:
        if segment.measure_recall(self._ef) < POOR_RECALL:
            _log.warning(
                "%s finds only %.1f %% of its own rows: `resmem verify` says what to do",
                segment.folder, 100 * (segment.recall or 0),
            )  # fmt: skip

    def _look_after(self, segment: SealedSegment, entry: SegmentEntry | None) -> None:
        """Sets `loss` of a segment, of the bundle where `entry` is None, and says so once."""
        if not segment.sound():
            return
        loss = segment.missing_name()
        if loss is not None and entry is not None and not self._is_named(entry):
            # Merged away meanwhile, or as far as anybody can tell now.
            return
        if loss is not None and segment.loss is None:
            _log.error("%s; predictions go on with what is mapped of it", loss)
        segment.loss = loss
        if loss is None and not segment.verified:
            # It was opened by a prediction, which does not wait for all of it to be read.
            with suppress(CorruptFile):
                segment.verify()

    def _is_named(self, entry: SegmentEntry) -> bool:
        """Whether the catalogue names a segment, as it is now.

        Whoever removes the files of a segment has published its successor before.
        """
        self._refresh()
        if self._follower is None or self._follower.trouble is not None:
            return False
        return entry in self._segments.snapshot.catalogue

    def _due(self) -> bool:
        """Whether segments that did not open are tried again now: later each time."""
        now = time.monotonic()
        if now < self._reopen_at:
            return False
        self._reopen_pause_s = min(2 * self._reopen_pause_s, _LONGEST_REOPENING_S)
        self._reopen_at = now + self._reopen_pause_s
        return True
