"""Uvicorn's HTTP protocol, with the head of a response and its body in one write.

Uvicorn writes them one after the other: two system calls and two packets, 10 us of CPU for the
server, and the client wakes twice.
"""

import asyncio
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["WholeResponses"]


class WholeResponses(HttpToolsProtocol):
    """For `uvicorn.Config(http=...)`."""

    def connection_made(  # type: ignore[override]  # as uvicorn itself has it
        self, transport: asyncio.Transport
    ) -> None:
        """Called by the event loop."""
        self._whole = _Transport(transport)
        super().connection_made(cast(asyncio.Transport, self._whole))

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
