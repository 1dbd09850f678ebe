"""One connection to the server: a request goes out, its answer comes in, then the next."""

import asyncio
from time import perf_counter
from typing import Protocol, cast

import httptools

__all__ = ["Connection", "Owner"]


class Owner(Protocol):
    """Told what becomes of a connection and its requests."""

    def on_answer(self, connection: "Connection", status: int) -> None:
        """The request was answered, and the connection is free unless it closes now."""

    def on_lost(self, connection: "Connection", reason: str) -> None:
        """The connection is gone; if it was `busy`, so is its request."""


class Connection(asyncio.Protocol):
    """HTTP/1.1 with keep-alive, one request at a time."""

    __slots__ = ("_owner", "_parser", "_transport", "busy", "due", "sent")

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self.busy = False
        self.due = 0.0
        """When the request under way should have been sent, by `perf_counter`."""
        self.sent = 0.0
        """When it was."""

    @property
    def alive(self) -> bool:
        """Whether it can take a request."""
        return self._transport is not None and not self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called by the event loop."""
        self._transport = cast(asyncio.Transport, transport)

    def send(self, request: bytes, due: float) -> None:
        """Sends a request; the connection must be alive and not busy."""
        assert self._transport is not None
        self.busy, self.due, self.sent = True, due, perf_counter()
        self._transport.write(request)

    def abort(self) -> None:
        """Ends it at once; `on_lost` follows."""
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self.abort()

    def on_message_complete(self) -> None:
        """Called by the parser."""
        status: int = self._parser.get_status_code()
        if status < 200 or not self.busy:  # an interim answer, or one that nobody asked for
            return
        if not self._parser.should_keep_alive():
            assert self._transport is not None
            self._transport.close()
        self.busy = False
        self._owner.on_answer(self, status)

    def connection_lost(self, exc: Exception | None) -> None:
        """Called by the event loop."""
        self._owner.on_lost(self, "closed" if exc is None else type(exc).__name__)
