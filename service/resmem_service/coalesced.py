"""Work that many ask for and that needs to be done once: one run, and one more after it. A leaf."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from resmem_service.errors import QueueFull

__all__ = ["Coalesced"]

T = TypeVar("T")


class Coalesced(Generic[T]):
    """Runs work one at a time, for one event loop.

    Who asks while it runs gets the result of the next run, which begins when this one has ended and
    which all share who ask until then: each gets the result of a run that began after it asked.
    """

    def __init__(
        self, work: Callable[[], Coroutine[Any, Any, T]], *, what: str, max_waiting: int = 64
    ) -> None:
        """`what` is the plural noun of such work in messages; `max_waiting` bounds who waits."""
        self._work = work
        self._what = what
        self._max_waiting = max_waiting
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
        elif self._running is not None and not self._running.done():
            task = self._next = self._begin(self._after(self._running))
        else:
            task = self._running = self._begin(self._work())
        self._waiting += 1
        try:
            return await asyncio.shield(task)
        finally:
            self._waiting -= 1

    async def _after(self, running: "asyncio.Task[T]") -> T:
        await asyncio.wait([running])
        self._running, self._next = self._next, None
        return await self._work()

    def _begin(self, work: Coroutine[Any, Any, T]) -> "asyncio.Task[T]":
        task = asyncio.create_task(work)
        # Where nobody is left to be told, an error is not logged as one that was lost.
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        return task
