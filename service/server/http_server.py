"""Uvicorn around the app: what is the same for a server alone and for one of several workers."""

import logging
import time
from math import ceil

import uvicorn

from service.app import ResmemApp
from service.server.whole_responses import WholeResponses
from service.telemetry.logs import fields

__all__ = ["HttpServer"]

_BACKLOG = 2048
_KEEP_ALIVE_S = 75
"""Longer than the load balancers in front keep a connection, so that they end it, not we."""

_log = logging.getLogger(__name__)


class HttpServer(uvicorn.Server):
    """Uvicorn, but to end it first turns new requests away and waits for those under way."""

    def __init__(self, app: ResmemApp, drain_s: float) -> None:
        config = uvicorn.Config(
            app.asgi,
            loop="uvloop",
            http=WholeResponses,
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # nobody here asks where a request comes from
            backlog=_BACKLOG,
            timeout_keep_alive=_KEEP_ALIVE_S,
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
