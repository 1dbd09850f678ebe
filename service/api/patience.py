"""A client that goes away stops waiting, and so should its rows in the queue."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from starlette.types import Receive

from service.api.body import Disconnected

__all__ = ["while_client_waits"]

_PATIENCE_S: Final = 0.05
"""Most requests are answered long before; only one that takes longer is worth a watcher."""


@contextmanager
def while_client_waits(receive: Receive) -> Iterator[None]:
    """Cancels what the current task awaits in this block if the client disconnects.

    Enter it once the body has been read to its end. Raises Disconnected in place of the
    cancellation.
    """
    watch = _Watch(receive)
    timer = asyncio.get_running_loop().call_later(_PATIENCE_S, watch.begin)
    try:
        yield
    except asyncio.CancelledError:
        if not watch.disconnected:
            raise
        watch.task.uncancel()
        raise Disconnected from None
    finally:
        timer.cancel()
        watch.end()


class _Watch:
    __slots__ = ("_receive", "_watcher", "disconnected", "task")

    def __init__(self, receive: Receive) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.task = task
        self.disconnected = False
        self._receive = receive
        self._watcher: asyncio.Task[None] | None = None

    def begin(self) -> None:
        self._watcher = asyncio.get_running_loop().create_task(self._wait())

    def end(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()

    async def _wait(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.disconnected = True
        self.task.cancel()
