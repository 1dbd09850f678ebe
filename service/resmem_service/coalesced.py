"""Work that many ask for and that needs to be done once: one run, and one more after it. A leaf."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any, Final, Generic, TypeVar

from resmem_service.errors import QueueFull

__all__ = ["Coalesced"]

T = TypeVar("T")

_REST_PER_RUN: Final = 3.0
_LONGEST_REST_S: Final = 5.0


class Coalesced(Generic[T]):
    """Runs work one at a time, for one event loop.

    Who asks while it runs gets the result of the next run, which begins when this one has ended and
    which all share who ask until then: each gets the result of a run that began after it asked.
    """

    def __init__(
        self,
        work: Callable[[], Coroutine[Any, Any, T]],
        *,
        what: str,
        max_waiting: int = 64,
        rests: bool = False,
    ) -> None:
        """Set up; nothing runs yet.

        Args:
            work: what is run.
            what: the plural noun of such work in messages.
            max_waiting: bounds who waits.
            rests: whether the next run begins only when three times as long as the last one took
                has passed since its end, or 5 s: however often it is asked for, the work takes a
                quarter of the time.
        """
        self._work = work
        self._what = what
        self._max_waiting = max_waiting
        self._rest_per_run = _REST_PER_RUN if rests else 0.0
        self._rests_until = 0.0
        self._waiting = 0
        self._running: asyncio.Task[T] | None = None
        self._next: asyncio.Task[T] | None = None

    async def run(self) -> T:
        """The result of a run that begins now or later; whoever gives up stops nothing.

        Raises:
            QueueFull: too many wait already. And whatever the work raises.
        """
        if self._waiting >= self._max_waiting:
            raise QueueFull(f"{self._waiting} {self._what} wait already; retry later")
        if self._next is not None:
            task = self._next
        elif self._running is not None and not (self._running.done() and self._rest_s() <= 0):
            task = self._next = self._begin(self._after(self._running))
        else:
            task = self._running = self._begin(self._timed())
        self._waiting += 1
        try:
            return await asyncio.shield(task)
        finally:
            self._waiting -= 1

    async def _after(self, running: "asyncio.Task[T]") -> T:
        await asyncio.wait([running])
        await asyncio.sleep(max(0.0, self._rest_s()))
        self._running, self._next = self._next, None
        return await self._timed()

    async def _timed(self) -> T:
        began = time.monotonic()
        try:
            return await self._work()
        finally:
            ended = time.monotonic()
            rest_s = min(self._rest_per_run * (ended - began), _LONGEST_REST_S)
            self._rests_until = ended + rest_s

    def _rest_s(self) -> float:
        return self._rests_until - time.monotonic()

    def _begin(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        task = asyncio.create_task(work)
        # Where nobody is left to be told, an error is not logged as one that was lost.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task
