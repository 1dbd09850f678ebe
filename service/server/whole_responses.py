"""Uvicorn's HTTP protocol, with the head of a response and its body in one write.

Uvicorn writes them one after the other: two system calls and two packets, 10 us of CPU for the
server, and the client wakes twice. And it takes them in two messages and checks every header, 5 us
more: an app that has sound headers and the whole body may call `extensions[WHOLE_RESPONSE]`.
"""

import asyncio
from functools import partial
from typing import Any, Final, cast

from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from service.api.edge import WHOLE_RESPONSE
from service.api.endpoint import Header

__all__ = ["WholeResponses"]

_SET: Final = {
    "default_headers",
    "disconnected",
    "flow",
    "keep_alive",
    "message_event",
    "on_response",
    "response_complete",
    "response_started",
    "scope",
    "waiting_for_100_continue",
}
_OFFERED: Final = set(RequestResponseCycle.__init__.__code__.co_names) >= _SET
"""Whether this uvicorn keeps what it knows of a response where `_give` looks for it."""


class WholeResponses(HttpToolsProtocol):
    """For `uvicorn.Config(http=...)`."""

    def connection_made(  # type: ignore[override]  # as uvicorn itself has it
        self, transport: asyncio.Transport
    ) -> None:
        """Called by the event loop."""
        self._whole = _Transport(transport)
        super().connection_made(cast(asyncio.Transport, self._whole))

    def on_headers_complete(self) -> None:
        """Called by the parser."""
        super().on_headers_complete()
        cycle = self.cycle
        if _OFFERED and cycle is not None and cycle.scope is self.scope:
            offer = {WHOLE_RESPONSE: partial(self._give, cycle)}
            cycle.scope["extensions"] = offer  # type: ignore[typeddict-item]

    def _give(
        self, cycle: RequestResponseCycle, status: int, headers: list[Header], body: bytes
    ) -> bool:
        """What `RequestResponseCycle.send` does with both messages; False: send them."""
        if (
            cycle.response_started
            or cycle.disconnected
            or cycle.flow.write_paused
            or not cycle.keep_alive
            or cycle.scope["method"] == "HEAD"
        ):
            return False
        parts = [STATUS_LINE[status]]
        for name, value in (*cycle.default_headers, *headers):
            parts += (name, b": ", value, b"\r\n")
        parts += (b"\r\n", body)
        cycle.response_started = cycle.response_complete = True
        cycle.waiting_for_100_continue = False
        self._whole.write_whole(b"".join(parts))
        cycle.message_event.set()
        cycle.on_response()
        return True

    def on_response_complete(self) -> None:
        """Called by uvicorn, also where a head was all there was, as with HEAD."""
        self._whole.flush()
        super().on_response_complete()


class _Transport:
    """As much of a transport as uvicorn uses; holds a head back until what follows it."""

    __slots__ = ("_head", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""

    def write(self, data: bytes) -> None:
        if self._head:
            data, self._head = self._head + data, b""
        elif data.endswith(b"\r\n\r\n") and data.startswith(b"HTTP/1.1 ") and data[9:10] != b"1":
            self._head = data
            return
        self._transport.write(data)

    def write_whole(self, data: bytes) -> None:
        self._transport.write(data)

    def flush(self) -> None:
        if self._head:
            self._transport.write(self._head)
            self._head = b""

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()

    def pause_reading(self) -> None:
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        self._transport.resume_reading()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._transport.set_protocol(protocol)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)
