"""Notices clients that disconnect while their request waits, so that its rows leave the queue."""

import asyncio
from typing import Final, TypeVar

from starlette.types import Receive

from resmem_service.api.body import Disconnected

__all__ = ["DisconnectWatcher"]

T = TypeVar("T")

_LOOK_S: Final = 0.05
"""Most requests are answered long before; only one that takes longer is worth a watcher."""


class DisconnectWatcher:
    """Watches the clients of requests that take long; for one event loop.

    A timer and a look at the current task for every request would cost it 5 us of CPU. One timer
    looks at all of them: whoever it meets a second time gets a watcher.
    """

    def __init__(self) -> None:
        self._waiting: dict[asyncio.Future[object], _Client] = {}
        self._looking = False

    async def wait(self, future: "asyncio.Future[T]", receive: Receive) -> T:
        """Waits for the result of the future; call it once the body has been read to its end.

        Raises:
            Disconnected: the client went away first; the future is cancelled.
        """
        client = _Client(receive)
        waiting: asyncio.Future[object] = future  # type: ignore[assignment]  # only cancelled here
        self._waiting[waiting] = client
        if not self._looking:
            self._looking = True
            future.get_loop().call_later(_LOOK_S, self._look)
        try:
            return await future
        except asyncio.CancelledError:
            if client.gone:
                raise Disconnected from None
            raise
        finally:
            del self._waiting[waiting]
            if client.watcher is not None:
                client.watcher.cancel()

    def _look(self) -> None:
        for future, client in self._waiting.items():
            if client.seen and client.watcher is None:
                client.watcher = future.get_loop().create_task(client.watch(future))
            client.seen = True
        self._looking = bool(self._waiting)
        if self._looking:
            asyncio.get_running_loop().call_later(_LOOK_S, self._look)


class _Client:
    __slots__ = ("_receive", "gone", "seen", "watcher")

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.gone = False
        self.seen = False
        self.watcher: asyncio.Task[None] | None = None

    async def watch(self, future: "asyncio.Future[object]") -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self.gone = future.cancel()
