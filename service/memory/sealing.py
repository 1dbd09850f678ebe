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
        """Says that there may be something to do; returns at once."""
        self._wanted.set()

    def close(self) -> None:
        """Stops, in the middle of a build if need be: the next start builds again."""
        self._closed.set()
        self._wanted.set()
        self._builder.stop()
        self._thread.join()

    def _run(self) -> None:
        while True:
            self._wanted.wait(_RETENTION_S if self._retention else None)
            if self._closed.is_set():
                return
            self._wanted.clear()
            try:
                done = self._work()
            except Exception:
                done = False
                if not self._closed.is_set():
                    logger.exception("sealing failed; the rows stay where they are")
            if not done and not self._closed.wait(_RETRY_S):
                self._wanted.set()

    def _work(self) -> bool:
        """Does what there is to do; False where it waits for another process's lease."""
        if not self._retention and self._plan() is None:
            return True
        with try_lease(self._folders.lease) as lease:
            if lease is None:
                return self._plan() is None
            self._evict()
            # Another process may have built all this just before.
            self._refresh()
            while not self._closed.is_set() and (plan := self._plan()) is not None:
                self._builder.carry_out(plan, self._tiers.snapshot.catalogue, lease)
                self._refresh()
            return True

    def _plan(self) -> SegmentPlan | None:
        return next_segment(self._tiers.backlog(), max_rows=self._max_segment_rows)

    def _evict(self) -> None:
        if self._retention:
            evicted = enforce(self._retention, self._journal, self._shape)
            if evicted:
                self._observer.on_forgotten(evicted)
