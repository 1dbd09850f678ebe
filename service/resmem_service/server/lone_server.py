"""The server of a service with one worker: it takes the signals itself."""

import asyncio
import logging
import os
import signal
import socket
from threading import Timer
from types import FrameType

from resmem_service.app import ResmemApp
from resmem_service.errors import QueueFull, ReloadFailed
from resmem_service.server.heap import give_memory_back
from resmem_service.server.http_server import HttpServer
from resmem_service.server.http_stop import STOP_GRACE_S
from resmem_service.server.listener import listening_socket, url_of
from resmem_service.settings import Settings
from resmem_service.telemetry import logs
from resmem_service.telemetry.logs import fields

__all__ = ["LoneServer", "serve_alone"]

_log = logging.getLogger(__name__)


def serve_alone(settings: Settings) -> int:
    """Serves until SIGTERM or SIGINT and returns 0; 2 if the model turns out not to load.

    Raises:
        BundleError, CorruptFile: no bundle, or one that is damaged at first sight.
        InvalidSettings: the address cannot be listened on.
    """
    logs.configure(settings.log_level, settings.log_format)
    give_memory_back()
    app = ResmemApp(settings)
    with listening_socket(settings.host, settings.port) as listener:
        _log.info("starting", extra=fields(url=url_of(listener)))
        LoneServer(app, settings).run(sockets=[listener])
    return 0 if app.lifecycle.failure is None else 2  # the log says why


class LoneServer(HttpServer):
    """SIGTERM and SIGINT drain, a second one ends at once; SIGHUP reloads."""

    def __init__(self, app: ResmemApp, settings: Settings) -> None:
        super().__init__(app, settings.drain_s)
        self._delay_s = settings.shutdown_delay_s
        self._reloads: set[asyncio.Task[None]] = set()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Called by uvicorn at SIGTERM and SIGINT.

        Not passed on to uvicorn, which would die of the signal in the end: to stop when told to is
        no failure, so the exit status is 0.
        """
        if self.stopping:
            self.should_exit = self.force_exit = True
            return
        # A person who presses Ctrl-C has nobody to warn, nor has a server that was never ready.
        warns = sig == signal.SIGTERM and not self._app.loading
        delay_s = self._delay_s if warns else 0.0
        last = Timer(
            delay_s + self._drain_s + STOP_GRACE_S, _end_now, [1, "stopping takes too long"]
        )
        last.daemon = True
        last.start()
        self.stop(signal.Signals(sig).name, delay_s=delay_s)

    async def on_tick(self, counter: int) -> bool:
        """Called by uvicorn ten times a second; True ends the server."""
        over = await super().on_tick(counter)
        if over and self.stopping and self._app.loading:
            # Nothing was promised to anybody yet, and nothing else ends a thread that loads.
            _end_now(0, "the model was still being loaded")
        return over

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Called by uvicorn once its loop runs."""
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._on_hangup)
        await super().startup(sockets)

    def _on_hangup(self) -> None:
        task = asyncio.create_task(self._reload())
        self._reloads.add(task)
        task.add_done_callback(self._reloads.discard)

    async def _reload(self) -> None:
        try:
            await self._app.reload()
        except ReloadFailed:
            return  # the log has it
        except QueueFull as error:
            _log.warning("SIGHUP is ignored: %s", error)


def _end_now(status: int, why: str) -> None:
    """Ends the process; what was acknowledged is on the disk."""
    _log.warning("ended at once, without draining: %s", why)
    os._exit(status)
