"""The server of a service with one worker: it takes the signals itself."""

import asyncio
import logging
import signal
import socket
from types import FrameType

from service.app import ResmemApp
from service.errors import QueueFull, ReloadFailed
from service.server.http_server import HttpServer
from service.server.listener import listening_socket, url_of
from service.settings import Settings
from service.telemetry import logs
from service.telemetry.logs import fields

__all__ = ["LoneServer", "serve_alone"]

_log = logging.getLogger(__name__)


def serve_alone(settings: Settings) -> int:
    """Serves until SIGTERM or SIGINT and returns 0; 2 if the model turns out not to load.

    Raises:
        BundleError, CorruptFile: no bundle, or one that is damaged at first sight.
        InvalidSettings: the address cannot be listened on.
    """
    logs.configure(settings.log_level, settings.log_format)
    app = ResmemApp(settings)
    with listening_socket(settings.host, settings.port) as listener:
        _log.info("starting", extra=fields(url=url_of(listener)))
        LoneServer(app, settings.drain_s).run(sockets=[listener])
    return 0 if app.gate.failure is None else 2  # the log says why


class LoneServer(HttpServer):
    """SIGTERM and SIGINT drain, a second one ends at once; SIGHUP reloads."""

    def __init__(self, app: ResmemApp, drain_s: float) -> None:
        super().__init__(app, drain_s)
        self._reloads: set[asyncio.Task[None]] = set()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """Called by uvicorn at SIGTERM and SIGINT.

        Not passed on to uvicorn, which would die of the signal in the end: to stop when told to is
        no failure, so the exit status is 0.
        """
        if self.draining:
            self.should_exit = self.force_exit = True
        else:
            self.drain(signal.Signals(sig).name)

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
