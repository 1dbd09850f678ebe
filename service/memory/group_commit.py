"""The thread that writes: what was asked for while one commit was synced shares the next."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import chain, groupby, islice
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import TypeVar

from service.errors import NotReady, QueueFull
from service.memory.journal import Journal, Memories, Written
from service.memory.observer import MemoryObserver

__all__ = ["GroupCommit", "then"]

logger = logging.getLogger(__name__)

T = TypeVar("T")
U = TypeVar("U")


@dataclass(slots=True, eq=False)
class _Append:
    requests: Sequence[Memories]
    rows: int
    future: "Future[list[Written]]" = field(default_factory=Future)


@dataclass(slots=True, eq=False)
class _Forget:
    act: Callable[[], int]
    future: "Future[int]" = field(default_factory=Future)


class GroupCommit:
    """Serialises the writes of this process.

    Args:
        journal: where they go.
        publish: called after a commit and before its replies, so that whoever is told that a
            memory is durable finds it in the next prediction.
        observer: told of every commit.
        max_rows: rows in one transaction, and in the queue before it.
    """

    def __init__(
        self,
        journal: Journal,
        publish: Callable[[], None],
        observer: MemoryObserver,
        *,
        max_rows: int,
    ) -> None:
        self._journal = journal
        self._publish = publish
        self._observer = observer
        self._max_rows = max_rows
        self._queue: SimpleQueue[_Append | _Forget | None] = SimpleQueue()
        self._lock = Lock()
        self._waiting_rows = 0
        self._closed = False
        self._thread = Thread(target=self._run, name="resmem-journal", daemon=True)
        self._thread.start()

    def append(self, requests: Sequence[Memories]) -> "Future[list[Written]]":
        """Queues requests for one transaction; the future ends after commit and publication.

        Raises:
            QueueFull: the disk does not keep up and the queue is at its bound.
            NotReady: closed.
        """
        rows = sum(map(len, requests))
        queued = _Append(requests, rows)
        with self._lock:
            self._check_open()
            if self._waiting_rows > 0 and self._waiting_rows + rows > self._max_rows:
                raise QueueFull("the journal does not keep up; retry later")
            self._waiting_rows += rows
            self._queue.put(queued)
        return queued.future

    def forget(self, act: Callable[[], int]) -> "Future[int]":
        """Queues a call to one of the journal's methods that forget; its future has the count."""
        request = _Forget(act)
        with self._lock:
            self._check_open()
            self._queue.put(request)
        return request.future

    def close(self) -> None:
        """Finishes what is queued, then ends the thread."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._queue.put(None)
        self._thread.join()

    def _check_open(self) -> None:
        if self._closed:
            raise NotReady("the memory is closed")

    def _run(self) -> None:
        while True:
            group, last = self._gather()
            for appending, requests in groupby(group, lambda r: isinstance(r, _Append)):
                if appending:
                    self._commit([r for r in requests if isinstance(r, _Append)])
                else:
                    for request in requests:
                        if isinstance(request, _Forget):
                            self._forget(request)
            if last:
                return

    def _gather(self) -> tuple[list[_Append | _Forget], bool]:
        """Waits for one request and takes what came with it; True where it is the end."""
        group: list[_Append | _Forget] = []
        for request in self._arrivals():
            if request is None:
                return group, True
            # False where the caller has gone; from here on it can no longer cancel.
            if request.future.set_running_or_notify_cancel():
                group.append(request)
            elif isinstance(request, _Append):
                self._release(request.rows)
        return group, False

    def _arrivals(self) -> Iterator[_Append | _Forget | None]:
        yield self._queue.get()
        while True:
            try:
                yield self._queue.get_nowait()
            except Empty:
                return

    def _commit(self, queued: list[_Append]) -> None:
        started = time.perf_counter()
        try:
            requests = list(chain.from_iterable(each.requests for each in queued))
            written = self._journal.append(requests)
        except Exception as error:
            for each in queued:
                each.future.set_exception(error)
            return
        finally:
            self._release(sum(each.rows for each in queued))
        self._observer.on_commit(time.perf_counter() - started)
        self._publish_logged()
        self._observer.on_memorized(
            created=sum(one.created for one in written),
            replaced=sum(one.replaced for one in written),
            unchanged=sum(one.unchanged for one in written),
        )
        results = iter(written)
        for each in queued:
            each.future.set_result(list(islice(results, len(each.requests))))

    def _publish_logged(self) -> None:
        # What was committed is durable and must be acknowledged, whatever becomes of the rest.
        try:
            self._publish()
        except Exception:
            logger.exception("a commit could not be published to predictions")

    def _release(self, rows: int) -> None:
        with self._lock:
            self._waiting_rows -= rows

    def _forget(self, request: _Forget) -> None:
        started = time.perf_counter()
        try:
            forgotten = request.act()
        except Exception as error:
            request.future.set_exception(error)
            return
        self._observer.on_commit(time.perf_counter() - started)
        self._publish_logged()
        self._observer.on_forgotten(forgotten)
        request.future.set_result(forgotten)


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
