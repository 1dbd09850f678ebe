"""Uvicorn around the app: what is the same for a server alone and for one of several workers."""

import asyncio
import logging
import socket
import time
from functools import partial
from math import ceil
from typing import cast

import uvicorn

from resmem_service.app import ResmemApp
from resmem_service.resources import usable_memory_bytes
from resmem_service.server.body_budget import BodyBudget, default_budget_bytes
from resmem_service.server.connections import ConnectionLimits, Connections
from resmem_service.server.descriptors import usable_connections
from resmem_service.server.http_stop import StopTimetable
from resmem_service.server.protocol import HttpProtocol
from resmem_service.settings import Settings
from resmem_service.telemetry.logs import fields

__all__ = ["HttpServer"]

_BACKLOG = 2048

_log = logging.getLogger(__name__)


class HttpServer(uvicorn.Server):
    """Uvicorn, but it ends in steps that leave no request without an answer."""

    def __init__(self, app: ResmemApp, drain_s: float) -> None:
        connections = _connections(app)
        config = uvicorn.Config(
            app.asgi,
            loop="uvloop",
            # Uvicorn calls it as it would call a class, for each connection.
            http=cast(type[asyncio.Protocol], partial(HttpProtocol, connections)),
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # nobody here asks where a request comes from
            backlog=_BACKLOG,
            timeout_graceful_shutdown=ceil(drain_s),
        )
        super().__init__(config)
        self._app = app
        self._drain_s = drain_s
        self._listeners: list[socket.socket] = []
        self._refusing = False
        self._timetable: StopTimetable | None = None
        self._why = ""

    @property
    def stopping(self) -> bool:
        """Whether the end has been asked for."""
        return self._timetable is not None

    def stop(self, why: str, *, delay_s: float = 0.0) -> None:
        """Ends the server in the steps of `StopTimetable`, `delay_s` + `drain_s` at most."""
        if self.stopping:
            return
        self._timetable = StopTimetable(time.monotonic(), delay_s=delay_s, drain_s=self._drain_s)
        self._why = why
        self._app.lifecycle.drain()
        if delay_s:
            _log.info(
                "no longer ready",
                extra=fields(signal=why, shutdown_delay_s=delay_s),
            )

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Called by uvicorn once its loop runs."""
        self._listeners = sockets or []
        await super().startup(sockets)

    async def on_tick(self, counter: int) -> bool:
        """Called by uvicorn ten times a second; True ends the server."""
        # Its supervisor replaces a worker whose heartbeat stands still.
        self._app.metrics.publish(beat=self._app.is_getting_on())
        if self._app.lifecycle.failure is not None:
            return True
        if self._timetable is not None and self._advance(self._timetable, time.monotonic()):
            return True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Called by uvicorn at the end of its loop; waits for requests until the same deadline."""
        if self._timetable is not None:
            left = self._timetable.left_s(time.monotonic())
            self.config.timeout_graceful_shutdown = cast(int, left)  # any number of seconds will do
        await super().shutdown(sockets)

    def _advance(self, timetable: StopTimetable, now: float) -> bool:
        """Does what is due in the timetable; whether that is all."""
        if timetable.closes_connections(now):
            self._app.lifecycle.close_connections()
        if timetable.refuses_connections(now) and not self._refusing:
            self._refusing = True
            for server in self.servers:
                server.close()
            for listener in self._listeners:
                listener.close()
            _log.info("draining", extra=fields(signal=self._why))
        return timetable.is_over(
            now,
            in_flight=self._app.lifecycle.in_flight(),
            connections=len(self.server_state.connections),
        )


def _connections(app: ResmemApp) -> Connections:
    """What the settings allow the clients of this worker to do."""
    settings = app.settings
    budget = BodyBudget(_budget_bytes(settings), app.metrics.storage)
    connections = Connections(
        ConnectionLimits.of(settings),
        usable_connections(settings.max_connections),
        budget,
        app.metrics,
    )
    app.metrics.watch(connections=lambda: len(connections), body_bytes=lambda: budget.used)
    return connections


def _budget_bytes(settings: Settings) -> int:
    if settings.max_inflight_bytes is not None:
        return settings.max_inflight_bytes
    return default_budget_bytes(usable_memory_bytes(), settings.max_body_bytes)
