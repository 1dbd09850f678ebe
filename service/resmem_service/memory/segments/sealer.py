"""The background thread of a memory: seals full growing segments, merges, mends and evicts.

Once a second it also has the files in use looked after, so that one that is gone or damaged is
built anew although nobody asks for a prediction.
"""

import logging
import time
from collections.abc import Callable
from threading import Event, Thread
from typing import Final

from resmem_service.memory.journal.journal import Journal, SegmentEntry
from resmem_service.memory.journal.retention import Retention, enforce
from resmem_service.memory.observer import MemoryObserver
from resmem_service.memory.rows import MemoryShape
from resmem_service.memory.segments.folders import StateFolders
from resmem_service.memory.segments.lock import try_lock
from resmem_service.memory.segments.policy import Backlog, SegmentPlan, next_segment
from resmem_service.memory.segments.segment_builder import SegmentBuilder
from resmem_service.memory.segments.segment_set import SegmentSet

__all__ = ["Sealer"]

_log = logging.getLogger(__name__)

_TICK_S: Final = 1.0
_RETRY_S: Final = 1.0
_LONGEST_RETRY_S: Final = 30.0
_LONGEST_POSTPONEMENT_S: Final = 300.0
_PAUSE_S: Final = 0.1
"""Between builds, longer than `wait_for_lock` polls: `compact` gets its turn under any load."""


class _Postponed:
    """Ranges of rows whose segments were built anew a short while ago, or could not be.

    Each further attempt at the same range comes later: a build that ends in a segment that nobody
    can open must not go on for ever, nor keep others from being built.
    """

    def __init__(self) -> None:
        self._attempts: dict[tuple[int, int], tuple[int, float]] = {}

    def attempted(self, plan: SegmentPlan) -> None:
        """Puts off the next attempt at what a plan mends."""
        key = plan.first, plan.last
        count = self._attempts.get(key, (0, 0.0))[0] + 1
        pause = min(2.0**count, _LONGEST_POSTPONEMENT_S)
        self._attempts[key] = count, time.monotonic() + pause

    def holds(self, entry: SegmentEntry) -> bool:
        """Whether this one is to be left alone now."""
        _, until = self._attempts.get((entry.first, entry.last), (0, 0.0))
        return time.monotonic() < until

    def keep(self, backlog: Backlog) -> None:
        """Forgets the attempts at what needs no mending any more."""
        broken = {(s.entry.first, s.entry.last) for s in backlog.sealed if s.needs_mending}
        self._attempts = {
            key: value
            for key, value in self._attempts.items()
            if key in broken or time.monotonic() < value[1]
        }


class Sealer:
    """Works when woken, and looks every second whether there is something to do.

    Several processes may serve one state: the one that holds the lock works.

    Args:
        folders: of the state.
        shape: of its memories.
        segments: says what there is to build from.
        journal: is told what to evict.
        builder: builds.
        refresh: brings the segments up to the journal.
        inspect: looks after the files in use, see `SegmentCare.inspect`.
        retention: what to keep.
        max_segment_rows: merging stops at this size.
        observer: told of evictions, and of builds that failed.

    Attributes:
        failure: why the last build failed; None where it did not.
    """

    def __init__(
        self,
        folders: StateFolders,
        shape: MemoryShape,
        segments: SegmentSet,
        journal: Journal,
        builder: SegmentBuilder,
        *,
        refresh: Callable[[], None],
        inspect: Callable[[], None],
        retention: Retention,
        max_segment_rows: int,
        observer: MemoryObserver,
    ) -> None:
        self._folders = folders
        self._shape = shape
        self._segments = segments
        self._journal = journal
        self._builder = builder
        self._refresh = refresh
        self._inspect = inspect
        self._retention = retention
        self._max_segment_rows = max_segment_rows
        self._observer = observer
        self._postponed = _Postponed()
        self.failure: str | None = None
        self._wanted, self._closed = Event(), Event()
        self._thread = Thread(target=self._run, name="resmem-sealer", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Says that there may be something to do; returns at once.

        Called after every commit, most of which fill no segment: no thread is woken for those.
        """
        if self._retention or self._plan() is not None:
            self._wanted.set()

    def close(self) -> None:
        """Stops, in the middle of a build if need be: the next start builds again."""
        self._closed.set()
        self._wanted.set()
        self._builder.stop()
        self._thread.join()

    def _run(self) -> None:
        failures, not_before, inspected = 0, 0.0, 0.0
        while True:
            pausing = not_before - time.monotonic()
            self._wanted.wait(min(pausing, _TICK_S) if pausing > 0 else _TICK_S)
            if self._closed.is_set():
                return
            self._wanted.clear()
            now = time.monotonic()
            if now >= inspected + _TICK_S:
                self._look()
                inspected = now
            if now < not_before:
                continue
            try:
                pause = self._work()
                failures, self.failure = 0, None
            except Exception as error:
                if not self._closed.is_set():
                    self.failure = str(error) or type(error).__name__
                    self._observer.on_seal_failed()
                    # All of it once; a disk that stays full would fill the log as well.
                    _log.error(
                        "sealing failed; the rows stay where they are: %s", error,
                        exc_info=failures == 0,
                    )  # fmt: skip
                pause = min(_RETRY_S * 2**failures, _LONGEST_RETRY_S)
                failures += 1
            not_before = 0.0 if pause is None else time.monotonic() + pause

    def _look(self) -> None:
        try:
            self._inspect()
        except Exception:
            _log.exception("the segments in use could not be looked after")

    def _work(self) -> float | None:
        """Does one thing of what there is to do; gives the seconds until the next, None for none.

        One build, then the lock is given back: who waits for it would starve under a load that
        fills growing segments as fast as they are sealed.
        """
        if not self._retention and self._plan() is None:
            return None
        with try_lock(self._folders.lock) as lock:
            if lock is None:
                return None if self._plan() is None else _RETRY_S
            self._evict()
            # Another process may have built all this just before.
            self._refresh()
            self._postponed.keep(self._segments.backlog())
            plan = self._plan()
            if plan is None:
                return None
            if plan.mends:
                self._postponed.attempted(plan)
            self._builder.carry_out(plan, self._segments.snapshot.catalogue, lock)
            self._refresh()
            return None if self._plan() is None else _PAUSE_S

    def _plan(self) -> SegmentPlan | None:
        return next_segment(
            self._segments.backlog(),
            max_rows=self._max_segment_rows,
            postponed=self._postponed.holds,
        )

    def _evict(self) -> None:
        if self._retention:
            evicted = enforce(self._retention, self._journal, self._shape)
            if evicted:
                self._observer.on_forgotten(evicted)
