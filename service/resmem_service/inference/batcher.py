"""The micro-batcher: a batch is what has queued while the last one ran.

It never waits on a timer (unless `max_delay_ms` says so): a lone request goes at once.

    submit -> what came in one turn of the event loop -> quick, and the thread idle: runs here
                                                      -> else: inbox -> batch thread -> loop

A batch that takes less time than two hand-overs between threads is best run where it is; one that
takes longer must not hold up the loop, and while the thread runs one the next gathers. From the
thread one wake-up of the loop answers a whole batch. The loop owns the counts, the thread owns the
waiting line, only the inbox stands between them; so nothing needs a lock.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Thread
from time import perf_counter
from typing import Generic, TypeVar

from resmem_service.errors import NotReady, QueueFull, TooManyRows
from resmem_service.inference.batch_queue import Batchable, BatchQueue, Part, Request
from resmem_service.inference.batch_time import BatchTime

__all__ = ["Batcher", "Limits", "RunBatch"]

R = TypeVar("R", bound=Batchable)
T = TypeVar("T")

RunBatch = Callable[[Sequence[Part[R, T]]], Sequence[T | Exception]]
"""Runs a batch in the batch thread: for each part its result, or an exception that is its alone."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much the batcher takes at once.

    Raises:
        ValueError: a bound below 1 row, a negative delay.
    """

    max_batch_rows: int = 256
    """Rows that run together at most; larger requests run in several batches."""
    max_queue_rows: int = 8192
    """Rows accepted and not yet answered, at most; beyond it requests are refused on arrival."""
    max_delay_ms: float = 0.0
    """How long the oldest request waits for company before a batch that is not full runs."""

    max_inline_ms: float = 4.0
    """A batch expected to take no longer runs on the event loop itself; 0: none does."""

    def __post_init__(self) -> None:
        if self.max_batch_rows < 1 or self.max_queue_rows < 1:
            raise ValueError("max_batch_rows and max_queue_rows must be at least 1")
        if not (self.max_delay_ms >= 0 and self.max_inline_ms >= 0):
            raise ValueError("max_delay_ms and max_inline_ms must not be negative")


class Batcher(Generic[R, T]):
    """Runs what many tasks of ONE event loop submit in batches.

    `start` binds it to the running loop; all other methods belong to that loop.
    """

    def __init__(
        self,
        run: RunBatch[R, T],
        limits: Limits,
        *,
        join: Callable[[list[T]], T],
        on_batch: Callable[[int, Sequence[float]], None],
    ) -> None:
        """Set up a batcher that does not run yet.

        `join` makes one answer of the results of a request's parts, in the order of its rows.
        `run` and `on_batch` are called in the batch thread or in the event loop, never in both at
        once. If `run` raises, every part of that batch runs again alone, so that only the guilty
        fail. `on_batch` is told the rows of each batch and the seconds that the requests which
        start in it have waited.
        """
        self._run = run
        self._limits = limits
        self._join = join
        self._on_batch = on_batch
        self._inbox: SimpleQueue[Request[R, T] | None] = SimpleQueue()
        self._waiting: BatchQueue[R, T] = BatchQueue()
        self._running: Sequence[Part[R, T]] = ()
        self._fresh: list[Request[R, T]] = []
        self._fresh_rows = 0
        self._handed = self._handed_rows = 0
        self._batch_time = BatchTime()
        self._inline_s = 0.0 if limits.max_delay_ms else limits.max_inline_ms / 1000
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: Thread | None = None
        self._ended = asyncio.Event()
        self._closed = False
        self._closing = False
        self._rows = 0
        self._batches_ended = self._batches_seen = 0

    @property
    def queued_rows(self) -> int:
        """Rows accepted and not yet answered, at most `max_queue_rows`."""
        return self._rows

    def is_getting_on(self) -> bool:
        """Whether the batch thread is idle, or has ended a batch since this was last asked.

        False for good once the thread has died of an error.
        """
        if self._thread is None or self._closing:
            return True
        ended, seen = self._batches_ended, self._batches_seen
        self._batches_seen = ended
        return self._thread.is_alive() and (not self._running or ended != seen)

    def start(self) -> None:
        """Start the batch thread for the running event loop.

        Raises:
            RuntimeError: no loop runs, or the batcher was started before.
        """
        if self._loop is not None:
            raise RuntimeError("the batcher was started already")
        self._loop = asyncio.get_running_loop()
        self._thread = Thread(
            target=self._work, args=(self._loop,), name="resmem-batch", daemon=True
        )
        self._thread.start()

    def check_room(self, rows: int) -> None:
        """Whether so many rows could be queued now, as far as the queue holds them at all.

        Raises:
            QueueFull: they could not.
        """
        bound = self._limits.max_queue_rows
        if self._rows + min(rows, bound) > bound:
            raise QueueFull(f"the queue has no room for {rows} rows; it holds {bound}")

    def submit(self, rows: R) -> "asyncio.Future[T]":
        """Queue at least one row; who cancels the future gives up on it.

        The future ends with the answer, with NotReady where the batcher closes first, or with
        whatever `run` raised for these rows.

        Raises:
            NotReady: not started, or closed.
            TooManyRows: more rows than the queue could ever hold.
            QueueFull: the queue has no room for it now.
        """
        if self._loop is None or self._closed:
            raise NotReady("the service is not ready for requests")
        size = len(rows)
        if size < 1:
            raise ValueError("a request has at least one row")
        if size > self._limits.max_queue_rows:
            raise TooManyRows(
                f"{size} rows are more than the queue holds: {self._limits.max_queue_rows}",
                "inputs",
            )
        self.check_room(size)
        future: asyncio.Future[T] = self._loop.create_future()
        request: Request[R, T] = Request(rows, future, perf_counter(), size)
        self._rows += size
        self._fresh.append(request)
        self._fresh_rows += size
        if not self._handed:
            if len(self._fresh) == 1:
                self._loop.call_soon(self._sort)
        elif not self._is_worth_waiting():
            self._hand_over()
        return future

    async def close(self) -> None:
        """Refuse what comes, let the running batch end, and end all that waits with NotReady."""
        self._closed = self._closing = True
        if self._thread is not None:
            self._inbox.put(None)
            await self._ended.wait()
            self._thread.join()

    def _sort(self) -> None:
        """Run what came in this turn of the event loop, or hand it over to the thread."""
        if not self._is_quick(self._fresh):
            self._hand_over()
            return
        fresh, self._fresh, self._fresh_rows = self._fresh, [], 0
        self._answer(self._run_parts([one.take(one.size) for one in fresh]))

    def _is_worth_waiting(self) -> bool:
        """Whether what came may run here, quickly, once the thread has ended the batch it runs.

        Else it would follow that one into the thread, and what comes next would follow it.
        """
        return (
            self._handed_rows <= self._limits.max_batch_rows
            and self._batch_time.expected(self._fresh_rows) <= self._inline_s
        )

    def _hand_over(self) -> None:
        self._handed += len(self._fresh)
        self._handed_rows += self._fresh_rows
        for request in self._fresh:
            self._inbox.put(request)
        self._fresh, self._fresh_rows = [], 0

    def _is_quick(self, fresh: Sequence[Request[R, T]]) -> bool:
        rows = sum(request.size for request in fresh)
        return (
            not self._closed
            and not self._handed
            and rows <= self._limits.max_batch_rows
            and self._batch_time.expected(rows) <= self._inline_s
            and not any(request.future.cancelled() for request in fresh)
            and len({request.rows.signature for request in fresh}) == 1
        )

    def _work(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            while self._collect():
                finished = self._run_next()
                if finished and not loop.is_closed():
                    loop.call_soon_threadsafe(self._deliver, finished)
        finally:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._end)

    def _collect(self) -> bool:
        """Move what has arrived into the line, waiting only if there is nothing; False: stop."""
        if not self._waiting.rows and not self._accept(self._inbox.get()):
            return False
        while not self._inbox.empty():
            if not self._accept(self._inbox.get()):
                return False
        return self._limits.max_delay_ms == 0 or self._linger()

    def _linger(self) -> bool:
        deadline = self._waiting.oldest + self._limits.max_delay_ms / 1000
        while self._waiting.rows < self._limits.max_batch_rows:
            left = deadline - perf_counter()
            if left <= 0:
                break
            try:
                if not self._accept(self._inbox.get(timeout=left)):
                    return False
            except Empty:
                break
        return True

    def _accept(self, request: Request[R, T] | None) -> bool:
        if request is None:
            return False
        self._waiting.add(request)
        return True

    def _run_next(self) -> list[Request[R, T]]:
        """Run one batch; the requests that it ended, and those dropped on the way."""
        self._running, finished = self._waiting.take(self._limits.max_batch_rows)
        if self._running:
            finished += self._run_parts(self._running)
            self._running = ()
            self._batches_ended += 1
        return finished

    def _run_parts(self, parts: Sequence[Part[R, T]]) -> list[Request[R, T]]:
        """Run one batch; the requests that it ended."""
        finished = []
        for part, outcome in zip(parts, self._outcomes(parts), strict=True):
            request = part.request
            if isinstance(outcome, Exception):
                request.error = outcome
            else:
                request.results.append(outcome)
            if request.error is not None or not request.remaining:
                finished.append(request)
        return finished

    def _outcomes(self, parts: Sequence[Part[R, T]]) -> Sequence[T | Exception]:
        began = perf_counter()
        rows = sum(len(part.rows) for part in parts)
        try:
            self._on_batch(
                rows, [began - part.request.arrived for part in parts if part.start == 0]
            )
            outcomes = self._run(parts)
        except Exception as error:
            return [error] if len(parts) == 1 else [self._alone(part) for part in parts]
        self._batch_time.note(rows, perf_counter() - began)
        return outcomes

    def _alone(self, part: Part[R, T]) -> T | Exception:
        try:
            return self._run([part])[0]
        except Exception as error:
            return error

    def _deliver(self, finished: Sequence[Request[R, T]]) -> None:
        """Take requests back from the thread; in the event loop."""
        self._handed -= len(finished)
        self._handed_rows -= sum(request.size for request in finished)
        self._answer(finished)
        if self._fresh and not self._handed:
            self._sort()

    def _answer(self, finished: Sequence[Request[R, T]]) -> None:
        """Answer requests, each once; in the event loop."""
        for request in finished:
            self._rows -= request.size
            if request.future.done():  # the caller has given up
                continue
            if request.error is not None:
                request.future.set_exception(request.error)
            else:
                request.future.set_result(self._join(request.results))

    def _end(self) -> None:
        """End what the thread has left; in the event loop, so that nothing slips in."""
        self._closed = True
        while not self._inbox.empty():
            self._accept(self._inbox.get())
        left = {part.request for part in self._running} | set(self._waiting.clear())
        left.update(self._fresh)
        self._fresh, self._fresh_rows = [], 0
        for request in left:
            request.error = NotReady("the service is shutting down")
        self._answer(list(left))
        self._ended.set()
