"""The worker's end of the pipe to its supervisor: it obeys, and asks for reloads."""

import asyncio
import logging
import os
import time
from collections.abc import Coroutine
from itertools import count
from multiprocessing.connection import Connection
from threading import Thread
from typing import Any

from resmem_service.app import ResmemApp
from resmem_service.coalesced import Coalesced
from resmem_service.errors import ReloadFailed
from resmem_service.reloaded import Reloaded
from resmem_service.server.http_server import HttpServer
from resmem_service.server.http_stop import STOP_GRACE_S
from resmem_service.server.messages import (
    Abandon,
    Commit,
    Drain,
    Order,
    OrderResult,
    Prepare,
    Ready,
    ReloadAsked,
    ReloadOutcome,
    ToSupervisor,
    ToWorker,
)
from resmem_service.telemetry.metric_storage import Gauge, MetricStorage

__all__ = ["Control"]

_log = logging.getLogger(__name__)


class Control:
    """The `Fleet` of a worker: all the others are behind its supervisor.

    A thread of its own reads, so that a worker whose event loop is stuck ends all the same when
    its supervisor does; everything else happens in the event loop.
    """

    def __init__(
        self,
        connection: "Connection[ToSupervisor, ToWorker]",
        storage: MetricStorage,
        *,
        others_answer: bool,
    ) -> None:
        self._connection = connection
        self._storage = storage
        self._others_answer = others_answer
        self._numbers = count()
        self._reloads = Coalesced(self._ask, what="reloads")
        self._asked: dict[int, asyncio.Future[Reloaded]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def storage(self) -> MetricStorage:
        """The storage that this worker counts in."""
        return self._storage

    @property
    def others_answer(self) -> bool:
        """Whether another worker was ready when this one was started."""
        return self._others_answer

    def all_ready(self) -> bool:
        """Whether no worker takes requests that it cannot answer yet."""
        return not any(self._storage.by_worker(Gauge.LOADING))

    def on_ready(self) -> None:
        """Tells the supervisor and the other workers that this worker answers requests."""
        self._storage.values[Gauge.LOADING] = 0.0
        self._tell(Ready())

    async def reload(self) -> Reloaded:
        """Has the supervisor reload every worker; calls share one, see `Coalesced`.

        Raises:
            ReloadFailed: no worker serves another version than before.
            QueueFull: too many wait for one already.
        """
        return await self._reloads.run()

    async def _ask(self) -> Reloaded:
        number = next(self._numbers)
        asked: asyncio.Future[Reloaded] = asyncio.get_running_loop().create_future()
        self._asked[number] = asked
        self._tell(ReloadAsked(number))
        return await asked

    def follow(self, app: ResmemApp, server: HttpServer, drain_s: float) -> None:
        """Obeys from now on, in the running event loop."""
        self._app, self._server = app, server
        loop = asyncio.get_running_loop()
        Thread(target=self._read, args=(loop, drain_s), name="resmem-control", daemon=True).start()

    def _read(self, loop: asyncio.AbstractEventLoop, drain_s: float) -> None:
        try:
            while True:
                loop.call_soon_threadsafe(self._obey, self._connection.recv())
        except (EOFError, OSError):
            _log.error("the supervisor is gone; this worker ends as well")
        except RuntimeError:  # the loop is closed: the worker has ended already
            return
        try:
            loop.call_soon_threadsafe(self._server.stop, "orphaned")
        except RuntimeError:
            return
        time.sleep(drain_s + STOP_GRACE_S)
        os._exit(1)

    def _obey(self, message: ToWorker) -> None:
        match message:
            case Order():
                self._begin(self._carry_out(message))
            case ReloadOutcome(number, reloaded, reason):
                asked = self._asked.pop(number)
                if asked.cancelled():
                    return
                if reloaded is None:
                    asked.set_exception(ReloadFailed(reason))
                else:
                    asked.set_result(reloaded)
            case Drain(why, delay_s):
                self._server.stop(why, delay_s=delay_s)

    async def _carry_out(self, order: Order) -> None:
        try:
            match order.what:
                case Prepare(model):
                    await self._app.prepare(model)
                case Commit():
                    self._app.commit()
                case Abandon():
                    await self._app.abandon()
        except ReloadFailed as error:
            self._tell(OrderResult(order.number, error.message))
        else:
            self._tell(OrderResult(order.number))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _tell(self, message: ToSupervisor) -> None:
        try:
            self._connection.send(message)
        except OSError:  # its end is noticed where messages are read
            _log.debug("the supervisor is gone, so %s was not sent", message)
