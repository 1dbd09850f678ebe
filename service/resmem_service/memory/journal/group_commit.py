"""The thread that writes: what was asked for while one commit was synced shares the next.

    queued -> the oldest ones of a kind -> one transaction -> publication -> replies

Each write waits for a locked journal until `busy_ms` after its arrival, however many are queued:
when the wait for the oldest has failed, all those fail with it whose time is up as well.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain, islice, takewhile
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import ClassVar, Final, Literal, TypeVar

from resmem_service.errors import (
    CorruptFile,
    JournalLocked,
    JournalUnavailable,
    NotReady,
    QueueFull,
)
from resmem_service.memory.journal.journal import Journal, Memories, Written
from resmem_service.memory.observer import MemoryObserver

__all__ = ["GroupCommit", "then"]

_log = logging.getLogger(__name__)

T = TypeVar("T")
U = TypeVar("U")

_SHORTEST_WAIT_S: Final = 0.1
"""A commit of another process takes so long: what has waited for its turn gets that chance."""


@dataclass(slots=True, eq=False)
class _Append:
    requests: Sequence[Memories]
    rows: int
    arrived: float
    future: "Future[list[Written]]" = field(default_factory=Future)
    kind: ClassVar[str] = "append"


@dataclass(slots=True, eq=False)
class _Forget:
    by: Literal["id", "source"]
    name: str
    arrived: float
    future: "Future[int]" = field(default_factory=Future)

    @property
    def kind(self) -> str:
        return self.by


_Queued = _Append | _Forget


class GroupCommit:
    """Serialises the writes of this process.

    Args:
        journal: where they go.
        publish: called after a commit and before its replies, so that whoever is told that a
            memory is durable finds it in the next prediction.
        observer: told of every commit.
        max_rows: rows in one transaction, and in the queue before it.
        busy_ms: how long a write waits for another process that holds the lock, from its arrival.
    """

    def __init__(
        self,
        journal: Journal,
        publish: Callable[[], None],
        observer: MemoryObserver,
        *,
        max_rows: int,
        busy_ms: int,
    ) -> None:
        self._journal = journal
        self._publish = publish
        self._observer = observer
        self._max_rows = max_rows
        self._busy_s = busy_ms / 1000
        self._queue: SimpleQueue[_Queued | None] = SimpleQueue()
        self._lock = Lock()
        self._waiting_rows = 0
        self._waiting: list[_Queued] = []
        self._ended = False
        self._closed = False
        self._thread = Thread(target=self._run, name="resmem-journal", daemon=True)
        self._thread.start()

    def append(
        self, requests: Sequence[Memories], *, arrived: float | None = None
    ) -> "Future[list[Written]]":
        """Queues requests for one transaction; the future ends after commit and publication.

        Args:
            requests: all of them are written, or none.
            arrived: the `time.monotonic` from which on they wait, where it was before now.

        Raises:
            QueueFull: the disk does not keep up and the queue is at its bound.
            NotReady: closed.
        """
        rows = sum(map(len, requests))
        queued = _Append(requests, rows, time.monotonic() if arrived is None else arrived)
        with self._lock:
            self._check_open()
            if self._waiting_rows > 0 and self._waiting_rows + rows > self._max_rows:
                raise QueueFull("the disk does not keep up with what is memorized; retry later")
            self._waiting_rows += rows
            self._queue.put(queued)
        return queued.future

    def forget(self, id: str) -> "Future[int]":
        """Queues the forgetting of one memory; the future has 1, or 0 where there is none.

        Raises:
            NotReady: closed.
        """
        return self._put(_Forget("id", id, time.monotonic()))

    def forget_source(self, source: str) -> "Future[int]":
        """Queues the forgetting of all memories of a source; the future has their number.

        Raises:
            NotReady: closed.
        """
        return self._put(_Forget("source", source, time.monotonic()))

    def close(self) -> None:
        """Finishes what is queued, then ends the thread."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._queue.put(None)
        self._thread.join()

    def _put(self, queued: _Forget) -> "Future[int]":
        with self._lock:
            self._check_open()
            self._queue.put(queued)
        return queued.future

    def _check_open(self) -> None:
        if self._closed:
            raise NotReady("the memory is closed")

    def _run(self) -> None:
        while not self._ended or self._waiting:
            self._take_in(block=not self._waiting)
            if self._waiting:
                self._write()

    def _take_in(self, *, block: bool) -> None:
        """Moves what has arrived to what waits; `block` waits until something has."""
        for queued in self._arrivals(block=block):
            if queued is None:
                self._ended = True
            # False where the caller has gone; from here on it can no longer cancel.
            elif queued.future.set_running_or_notify_cancel():
                self._waiting.append(queued)
            elif isinstance(queued, _Append):
                self._release([queued])

    def _arrivals(self, *, block: bool) -> Iterator[_Queued | None]:
        if block:
            yield self._queue.get()
        while True:
            try:
                yield self._queue.get_nowait()
            except Empty:
                return

    def _write(self) -> None:
        """Writes the first ones, those of one kind."""
        kind = self._waiting[0].kind
        group = list(takewhile(lambda queued: queued.kind == kind, self._waiting))
        until = min(queued.arrived for queued in group) + self._busy_s
        try:
            self._commit(group, max(until - time.monotonic(), _SHORTEST_WAIT_S))
        except JournalLocked as error:
            self._take_in(block=False)
            until = max(until, time.monotonic())
            waiting, self._waiting = self._waiting, []
            late: list[_Queued] = []
            for queued in waiting:
                in_time = queued.arrived + self._busy_s > until
                (self._waiting if in_time else late).append(queued)
            self._fail(late, error)
            return
        except Exception as error:
            self._fail(group, error)
        del self._waiting[: len(group)]

    def _commit(self, group: Sequence[_Queued], wait_s: float) -> None:
        """One transaction, its publication and its replies."""
        wait_ms = int(wait_s * 1000)
        appends = [queued for queued in group if isinstance(queued, _Append)]
        if appends:
            self._append(appends, wait_ms)
        else:
            self._forget([queued for queued in group if isinstance(queued, _Forget)], wait_ms)

    def _append(self, group: Sequence[_Append], wait_ms: int) -> None:
        requests = list(chain.from_iterable(queued.requests for queued in group))
        with self._committed():
            written = self._journal.append(requests, wait_ms=wait_ms)
        self._release(group)
        self._observer.on_memorized(
            created=sum(one.created for one in written),
            replaced=sum(one.replaced for one in written),
            unchanged=sum(one.unchanged for one in written),
        )
        results = iter(written)
        for queued in group:
            queued.future.set_result(list(islice(results, len(queued.requests))))

    def _forget(self, group: Sequence[_Forget], wait_ms: int) -> None:
        names = [queued.name for queued in group]
        forget = self._journal.forget if group[0].by == "id" else self._journal.forget_source
        with self._committed():
            forgotten = forget(*names, wait_ms=wait_ms)
        self._observer.on_forgotten(sum(forgotten))
        for queued, count in zip(group, forgotten, strict=True):
            queued.future.set_result(count)

    @contextmanager
    def _committed(self) -> Iterator[None]:
        """Times the commit in the block, then publishes it."""
        started = time.perf_counter()
        yield
        self._observer.on_commit(time.perf_counter() - started)
        # What was committed is durable and must be acknowledged, whatever becomes of the rest.
        try:
            self._publish()
        except Exception:
            _log.exception("a commit could not be published to predictions")

    def _fail(self, group: Sequence[_Queued], error: Exception) -> None:
        if isinstance(error, CorruptFile):
            # Nothing was written, which is what whoever memorizes needs to know.
            error = JournalUnavailable(error.message)
        self._release([queued for queued in group if isinstance(queued, _Append)])
        for queued in group:
            queued.future.set_exception(error)

    def _release(self, group: Sequence[_Append]) -> None:
        with self._lock:
            self._waiting_rows -= sum(queued.rows for queued in group)


def then(future: "Future[T]", act: Callable[[T], U]) -> "Future[U]":
    """A future that ends with what `act` makes of the result, in the thread that sets it."""
    reply: Future[U] = Future()
    reply.set_running_or_notify_cancel()

    def finish(done: "Future[T]") -> None:
        try:
            reply.set_result(act(done.result()))
        except Exception as error:
            reply.set_exception(error)

    future.add_done_callback(finish)
    return reply
