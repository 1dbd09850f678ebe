"""The background thread of a memory: seals full growing segments, merges, mends and evicts."""

import logging
from collections.abc import Callable
from threading import Event, Thread
from typing import Final

from service.memory.journal import Journal
from service.memory.lease import try_lease
from service.memory.observer import MemoryObserver
from service.memory.retention import Retention, enforce
from service.memory.segment_builder import SegmentBuilder
from service.memory.segment_policy import SegmentPlan, next_segment
from service.memory.segment_rows import MemoryShape
from service.memory.state_folders import StateFolders
from service.memory.tiers import Tiers

__all__ = ["Sealer"]

logger = logging.getLogger(__name__)

_RETRY_S: Final = 1.0
_LONGEST_RETRY_S: Final = 30.0
_PAUSE_S: Final = 0.1
"""Between builds, longer than `wait_for_lease` polls: `compact` gets its turn under any load."""
_RETENTION_S: Final = 1.0


class Sealer:
    """Works when woken, and every second where memories are evicted.

    Several processes may serve one state: the one that holds the lease works.

    Args:
        folders: of the state.
        shape: of its memories.
        tiers: tell what there is to build from.
        journal: is told what to evict.
        builder: builds.
        refresh: brings the tiers up to the journal.
        retention: what to keep.
        max_segment_rows: merging stops at this size.
        observer: told of evictions.
    """

    def __init__(
        self,
        folders: StateFolders,
        shape: MemoryShape,
        tiers: Tiers,
        journal: Journal,
        builder: SegmentBuilder,
        *,
        refresh: Callable[[], None],
        retention: Retention,
        max_segment_rows: int,
        observer: MemoryObserver,
    ) -> None:
        self._folders = folders
        self._shape = shape
        self._tiers = tiers
        self._journal = journal
        self._builder = builder
        self._refresh = refresh
        self._retention = retention
        self._max_segment_rows = max_segment_rows
        self._observer = observer
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
        failures = 0
        while True:
            self._wanted.wait(_RETENTION_S if self._retention else None)
            if self._closed.is_set():
                return
            self._wanted.clear()
            try:
                pause = self._work()
                failures = 0
            except Exception as error:
                if not self._closed.is_set():
                    # All of it once; a disk that stays full would fill the log as well.
                    logger.error(
                        "sealing failed; the rows stay where they are: %s", error,
                        exc_info=failures == 0,
                    )  # fmt: skip
                pause = min(_RETRY_S * 2**failures, _LONGEST_RETRY_S)
                failures += 1
            if pause is not None and not self._closed.wait(pause):
                self._wanted.set()

    def _work(self) -> float | None:
        """Does one thing of what there is to do; gives the seconds until the next, None for none.

        One build a lease, not all of them: who waits for the lease would starve under a load that
        fills growing segments as fast as they are sealed.
        """
        if not self._retention and self._plan() is None:
            return None
        with try_lease(self._folders.lease) as lease:
            if lease is None:
                return None if self._plan() is None else _RETRY_S
            self._evict()
            # Another process may have built all this just before.
            self._refresh()
            plan = self._plan()
            if plan is None:
                return None
            self._builder.carry_out(plan, self._tiers.snapshot.catalogue, lease)
            self._refresh()
            return None if self._plan() is None else _PAUSE_S

    def _plan(self) -> SegmentPlan | None:
        return next_segment(self._tiers.backlog(), max_rows=self._max_segment_rows)

    def _evict(self) -> None:
        if self._retention:
            evicted = enforce(self._retention, self._journal, self._shape)
            if evicted:
                self._observer.on_forgotten(evicted)
