"""Uvicorn around the app: what is the same for a server alone and for one of several workers."""

import asyncio
import logging
import time
from functools import partial
from math import ceil
from typing import cast

import uvicorn

from service.app import ResmemApp
from service.resources import usable_memory_bytes
from service.server.body_budget import BodyBudget, default_budget_bytes
from service.server.connections import ConnectionLimits, Connections
from service.server.descriptors import usable_connections
from service.server.protocol import HttpProtocol
from service.settings import Settings
from service.telemetry.logs import fields

__all__ = ["HttpServer"]

_BACKLOG = 2048

_log = logging.getLogger(__name__)


class HttpServer(uvicorn.Server):
    """Uvicorn, but to end it first turns new requests away and waits for those under way."""

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
        self._deadline: float | None = None

    @property
    def draining(self) -> bool:
        """Whether the end has been asked for."""
        return self._deadline is not None

    def drain(self, why: str) -> None:
        """Ends the server once the requests under way are answered, or `drain_s` are over."""
        if not self.draining:
            self._deadline = time.monotonic() + self._drain_s
            self._app.gate.drain()
            _log.info("draining", extra=fields(signal=why))

    async def on_tick(self, counter: int) -> bool:
        """Called by uvicorn ten times a second; True ends the server."""
        # Its supervisor replaces a worker whose heartbeat stands still.
        self._app.metrics.publish(beat=self._app.is_getting_on())
        if self._app.gate.failure is not None:
            return True
        if self._deadline is not None and (
            self._app.gate.in_flight() == 0 or time.monotonic() >= self._deadline
        ):
            return True
        return await super().on_tick(counter)


def _connections(app: ResmemApp) -> Connections:
    """What the settings allow the clients of this worker to do."""
    settings = app.settings
    budget = BodyBudget(_budget_bytes(settings), app.metrics.cells)
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
