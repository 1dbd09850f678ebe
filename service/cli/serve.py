"""`resmem serve`: the app behind uvicorn, until a signal ends it."""

import argparse
import logging
import signal
import socket
import time
from math import ceil
from types import FrameType

import uvicorn

from service import settings as options
from service.app import ResmemApp
from service.errors import InvalidSettings
from service.settings import Settings
from service.telemetry import logs
from service.telemetry.logs import fields

__all__ = ["Server", "add_parser", "serve"]

_BACKLOG = 2048
_KEEP_ALIVE_S = 75
"""Longer than the load balancers in front keep a connection, so that they end it, not we."""

_log = logging.getLogger(__name__)


def add_parser(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Adds the command."""
    parser = subparsers.add_parser(
        "serve",
        help="serve a bundle over HTTP",
        description="Serves a bundle over HTTP. Every flag is also an environment variable "
        "(RESMEM_PORT) and a key of the file that --config names (port).",
    )
    options.add_flags(parser)
    parser.set_defaults(run=lambda arguments: serve(options.from_args(arguments)))


def serve(settings: Settings) -> int:
    """Serves until SIGTERM or SIGINT and returns 0; 2 if the model turns out not to load.

    Raises:
        BundleError, CorruptFile: no bundle, or one that is damaged at first sight.
        InvalidSettings: the address cannot be listened on.
    """
    logs.configure(settings.log_level, settings.log_format)
    app = ResmemApp(settings)
    with _listening_socket(settings.host, settings.port) as listener:
        host, port = listener.getsockname()[:2]
        _log.info("starting", extra=fields(url=f"http://{_bracketed(host)}:{port}"))
        Server(app, settings.drain_s).run(sockets=[listener])
    return 0 if app.gate.failure is None else 2  # the log says why


class Server(uvicorn.Server):
    """Uvicorn, but a signal first turns new requests away and waits for those under way."""

    def __init__(self, app: ResmemApp, drain_s: float) -> None:
        config = uvicorn.Config(
            app.asgi,
            loop="uvloop",
            http="httptools",
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

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """The first signal drains, a second one ends the server at once.

        Not passed on to uvicorn, which would die of the signal in the end: to stop when told to is
        no failure, so the exit status is 0.
        """
        if self._deadline is not None:
            self.should_exit = self.force_exit = True
            return
        self._deadline = time.monotonic() + self._drain_s
        self._app.gate.drain()
        _log.info("draining", extra=fields(signal=signal.Signals(sig).name))

    async def on_tick(self, counter: int) -> bool:
        """Called by uvicorn ten times a second; True ends the server."""
        if self._app.gate.failure is not None:
            return True
        if self._deadline is not None and (
            self._app.metrics.in_flight == 0 or time.monotonic() >= self._deadline
        ):
            return True
        return await super().on_tick(counter)


def _listening_socket(host: str, port: int) -> socket.socket:
    """A socket bound to the address; nobody can connect before uvicorn listens on it."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise InvalidSettings(
            f"cannot listen on {_bracketed(host)}:{port}: {error.strerror}; "
            "choose another with --port or RESMEM_PORT"
        ) from error
    return listener


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host
