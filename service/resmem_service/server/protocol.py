"""A client's connection: what arrives is limited here, before it is parsed and before the app.

    bytes -> head, complete (`Head`) -> body, complete -> the app (`Exchange`) -> response

A connection is always in one `_State`. Bytes of a later request wait, unparsed, until the response
to the one before it is out. Whatever is refused before the app could refuse it gets its answer from
`Refusals`. The connection is closed then, but only once the client has had time to read the answer,
since closing a socket that has unread bytes destroys what was sent.

Uvicorn's server makes these for its `http` option; of uvicorn itself only what its `Server` shares
with protocols is used: `ServerState`, and `shutdown`.
"""

import asyncio
from enum import IntEnum
from socket import SO_ERROR, SOL_SOCKET
from typing import Any, Final

import uvicorn
from starlette.types import Scope
from uvicorn.server import ServerState

from resmem_service.api.body import BODY_CHARGE
from resmem_service.api.content_coding import body_too_large
from resmem_service.api.endpoint import Header
from resmem_service.api.middleware import WHOLE_RESPONSE
from resmem_service.errors import (
    HeadTooLarge,
    MalformedRequest,
    Overloaded,
    RequestTimeout,
    ResmemError,
    TooManyConnections,
)
from resmem_service.server.chunked import ChunkedBody
from resmem_service.server.connections import Connections
from resmem_service.server.exchange import CONTINUE, Exchange
from resmem_service.server.head import Head, is_start_of_request, parse_head, request_line

__all__ = ["HttpProtocol"]

_HEAD_END: Final = b"\r\n\r\n"
_REMEMBERED_HEAD_BYTES: Final = 2048
_SMALL_BODY_BYTES: Final = 256 * 2**10
"""Requests up to this size do not wait for larger ones, see `Connections.make_room`."""


class _State(IntEnum):
    WAITING = 0
    """For the first byte of a request."""
    HEAD = 1
    BODY = 2
    ANSWERING = 3
    LINGERING = 4
    """Answered before the request was complete: what still comes of it is thrown away."""
    CLOSED = 5


class HttpProtocol(asyncio.Protocol):
    """One connection. Belongs to the event loop."""

    __slots__ = (
        "_answered",
        "_app",
        "_app_state",
        "_began",
        "_buffer",
        "_chunks",
        "_client",
        "_connections",
        "_eof",
        "_exchange",
        "_held",
        "_known_head",
        "_known_raw",
        "_loop",
        "_probed",
        "_read_paused",
        "_received",
        "_refused",
        "_remaining",
        "_root_path",
        "_server",
        "_server_state",
        "_state",
        "_stuck_bytes",
        "_stuck_since",
        "_transport",
        "_unsent",
        "_unsent_since",
        "_writable",
        "since",
        "write_paused",
    )

    def __init__(
        self,
        connections: Connections,
        *,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """All but the first is what uvicorn gives."""
        self._connections = connections
        self._server_state = server_state
        self._app = config.loaded_app
        self._app_state = app_state
        self._root_path: str = config.root_path
        self._loop = _loop or asyncio.get_event_loop()
        self._transport: asyncio.Transport
        self._server: tuple[str, int] | None = None
        self._client: tuple[str, int] | None = None
        self._state = _State.WAITING
        self.since = 0.0
        """When the client last did what is expected of it."""
        self._began = 0.0
        """When the body began."""
        self._answered = False
        """Whether a request was answered here before."""
        self._buffer = b""
        """What has arrived and was not looked at, or is a head that is not complete."""
        self._held = 0
        """Bytes that the budget counts for this connection: the buffer, and what is not sent."""
        self._remaining = 0
        """Bytes of the body that are still to come; lingering: that may still come."""
        self._chunks: ChunkedBody | None = None
        self._exchange: Exchange | None = None
        self._received = 0
        """Bytes of the body that have come."""
        self._refused = False
        """Whether the rest of the body is thrown away."""
        self._known_raw = b""
        self._known_head: Head | None = None
        self._eof = False
        self._probed = False
        self._read_paused = False
        self.write_paused = False
        self._unsent = 0
        self._unsent_since = 0.0
        self._stuck_bytes = 0
        self._stuck_since = 0.0
        self._writable: asyncio.Event | None = None

    def connection_made(  # type: ignore[override]  # uvloop's are no BaseTransport
        self, transport: asyncio.Transport
    ) -> None:
        """Called by the event loop."""
        self._transport = transport
        self._server = _address(transport.get_extra_info("sockname"))
        self._client = _address(transport.get_extra_info("peername"))
        self._server_state.connections.add(self)  # type: ignore[arg-type]  # of uvicorn's own kinds
        if not self._connections.enter(self):
            error = _too_many_connections()
            if self._connections.crowded:
                self._connections.refusals.count(error)
                transport.abort()
            else:
                self._refuse(error)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's
        """Called by the event loop."""
        self._state = _State.CLOSED
        self._server_state.connections.discard(self)
        self._connections.leave(self)
        self._drop_buffer()
        self.resume_writing()
        self._chunks = None
        if self._exchange is not None:
            self._exchange.disconnect()
            self._exchange = None

    def data_received(self, data: bytes) -> None:
        """Called by the event loop."""
        state = self._state
        if state <= _State.HEAD:
            self._read_head(data)
        elif state == _State.BODY:
            self.since = self._connections.now
            self._read_body(data)
        elif state == _State.ANSWERING:
            self._keep(data)
        elif state == _State.LINGERING:
            self.since = self._connections.now
            self._remaining -= len(data)
            if self._remaining < 0:
                self._transport.abort()

    def eof_received(self) -> bool:
        """Called by the event loop; True leaves the connection open for what is to be sent."""
        self._eof = True
        if self._state == _State.HEAD:
            self._refuse(MalformedRequest("the request ended in the middle of its head"))
        elif self._state == _State.BODY:
            self._refuse_body(MalformedRequest("the request ended in the middle of its body"))
        elif self._state == _State.ANSWERING:
            if self._exchange is not None and self._exchange.watched:
                self.wonder()
        else:
            return False
        return True

    def pause_writing(self) -> None:
        """Called by the event loop: the client reads more slowly than is written."""
        self.write_paused = True
        self._unsent = self._transport.get_write_buffer_size()
        self._unsent_since = self._stuck_since = self._connections.now
        self._stuck_bytes = self._unsent
        self._connections.budget.hold(self._stuck_bytes)

    def resume_writing(self) -> None:
        """Called by the event loop: the client has read."""
        if self.write_paused:
            self.write_paused = False
            self._connections.budget.give_back(self._stuck_bytes)
        if self._writable is not None:
            self._writable.set()

    def shutdown(self) -> None:
        """Called by uvicorn: a request under way is answered, and then the connection is closed."""
        if self._exchange is not None:
            self._exchange.keep_alive = False
        else:
            self._close()

    def write(self, data: bytes) -> None:
        """Sends bytes."""
        self._transport.write(data)

    async def writable(self) -> None:
        """Waits until the client has read enough for more to be written, or is gone."""
        while self.write_paused:
            if self._writable is None:
                self._writable = asyncio.Event()
            self._writable.clear()
            await self._writable.wait()

    def abort(self) -> None:
        """Ends the connection at once."""
        self._transport.abort()

    def default_headers(self) -> list[Header]:
        """What every response has: uvicorn keeps the date there."""
        return self._server_state.default_headers

    def wonder(self) -> None:
        """The app waits to be told that the client has gone.

        A client that has closed its sending half waits for its answer; one that has closed its
        socket looks the same until something is sent to it, which it then refuses. An interim
        response changes nothing for the former.
        """
        exchange = self._exchange
        if (
            exchange is not None
            and self._eof
            and not self._probed
            and exchange.head.version != "1.0"
            and not exchange.response_started
        ):
            self._probed = True
            self._transport.write(CONTINUE)

    def finished(self, exchange: Exchange, *, keep_alive: bool) -> None:
        """The response is out."""
        self._exchange = None
        self._answered = True
        if self._transport.is_closing():
            return
        if not keep_alive:
            unread = not exchange.body_complete or self._buffer or self._read_paused
            if unread and not self._eof:
                self._linger()
            else:
                self._close()
            return
        self._state = _State.WAITING
        self.since = self._connections.now
        if self._buffer:
            data = self._buffer
            self._drop_buffer()
            if self._read_paused:
                self._read_paused = False
                self._transport.resume_reading()
            self._read_head(data)
        if self._eof:
            if self._state == _State.HEAD:
                self._refuse(MalformedRequest("the request ended in the middle of its head"))
            elif self._state == _State.WAITING:
                self._close()

    def check(self, now: float) -> None:
        """Ends the connection if the client takes too long; called by the sweep."""
        limits = self._connections.limits
        state = self._state
        if self.write_paused or state >= _State.LINGERING:
            self._check_reader(now)
        if state == _State.WAITING:
            allowed = limits.keep_alive_s if self._answered else limits.head_timeout_s
            if now - self.since > allowed + limits.period_s and not self.write_paused:
                self._connections.closed("idle" if self._answered else "silent").add()
                self._close()
        elif state == _State.HEAD:
            if now - self.since > limits.head_timeout_s + limits.period_s:
                self._refuse(
                    RequestTimeout(
                        "the head of the request did not arrive within "
                        f"{limits.head_timeout_s:g} s (head_timeout_s)"
                    )
                )
        elif state == _State.BODY:
            self._check_body(now)
        elif state == _State.ANSWERING:
            if self._probed:
                socket = self._transport.get_extra_info("socket")
                if socket.getsockopt(SOL_SOCKET, SO_ERROR):
                    self._transport.abort()
        elif state == _State.LINGERING and (
            now - self._began > limits.linger_s
            or now - self.since > limits.linger_silence_s + limits.period_s
        ):
            self._transport.abort()

    def eviction_rank(self) -> int | None:
        """See `connections.Connection`: what costs a client least goes first."""
        if self._state == _State.LINGERING:
            return 0
        if self._state == _State.WAITING:
            return 4 if self._answered else 1
        if self._state == _State.HEAD:
            return 2
        if self._state == _State.BODY and not self._refused:
            return 3 if self.since < self._connections.now else 5
        return None

    def body_held(self) -> int:
        """Bytes of a body that is not complete yet."""
        return self._received if self._state == _State.BODY and not self._refused else 0

    def evict(self) -> None:
        """Closes the connection for the sake of another."""
        self._connections.closed("evicted").add()
        if self._state == _State.BODY:
            self._refuse_body(_too_many_connections())
        elif self._state == _State.LINGERING:
            self._transport.abort()
        else:
            self._close()

    def give_up_body(self) -> None:
        """Refuses the request whose body is not complete, and frees what has come of it."""
        self._refuse_body(_overloaded())

    def _read_head(self, data: bytes) -> None:
        limits = self._connections.limits
        checked = len(self._buffer)
        if checked:
            data = self._buffer + data
        elif data[0] in b"\r\n":  # an empty line before a request is passed over
            data = data.lstrip(b"\r\n")
            if not data:
                return
        end = data.find(_HEAD_END, max(0, checked - 3)) + 4
        if end < 4:
            self._keep_head(data, checked)
            return
        if end > limits.max_head_bytes:
            self._refuse(_head_too_large(limits.max_head_bytes), data)
            return
        raw, rest = data[:end], data[end:]
        if raw == self._known_raw and self._known_head is not None:
            head = self._known_head
        else:
            try:
                head = parse_head(raw)
            except ResmemError as error:
                self._refuse(error, raw)
                return
            if end <= _REMEMBERED_HEAD_BYTES:
                self._known_raw, self._known_head = raw, head
        if checked:
            self._drop_buffer()
        self._begin(head, rest)

    def _keep_head(self, data: bytes, checked: int) -> None:
        """A head that is not complete yet."""
        limit = self._connections.limits.max_head_bytes
        if len(data) > limit:
            self._refuse(_head_too_large(limit), data)
        elif not is_start_of_request(data, checked):
            message = "this is not an HTTP/1.1 request; the port speaks neither TLS nor HTTP/2"
            self._refuse(MalformedRequest(message), data)
        elif not self._connections.budget.take(len(data) - checked, self._held):
            self._refuse(_overloaded(), data)
        else:
            self._held += len(data) - checked
            self._buffer = data
            if self._state == _State.WAITING:
                self._state = _State.HEAD
                self.since = self._connections.now

    def _begin(self, head: Head, rest: bytes) -> None:
        """The head of a request is complete; `rest` follows it."""
        exchange = self._exchange = Exchange(self, head, self._connections.budget)
        length = head.length
        if length == 0:
            self._state = _State.ANSWERING
            exchange.body_complete = True
            if rest:
                self._keep(rest)
        else:
            self._state = _State.BODY
            self.since = self._began = self._connections.now
            self._received = 0
            self._refused = False
            if length is None:
                limits = self._connections.limits
                self._chunks = ChunkedBody(limits.max_head_bytes, limits.max_body_bytes)
            else:
                self._remaining = length
                limit = self._connections.limits.max_body_bytes
                if length > limit:
                    self._refuse_body(body_too_large(limit))
                elif length > _SMALL_BODY_BYTES and not self._connections.budget.fits(length):
                    self._refuse_body(_overloaded())
            if rest:
                self._read_body(rest)
        self._hand_over(exchange)

    def _hand_over(self, exchange: Exchange) -> None:
        """Has the app answer a request, whose body may still be arriving."""
        head = exchange.head
        scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": head.version,
            "server": self._server,
            "client": self._client,
            "scheme": "http",
            "method": head.method,
            "root_path": self._root_path,
            "path": self._root_path + head.path,
            "raw_path": head.raw_path,
            "query_string": head.query,
            "headers": head.headers.copy(),
            "state": self._app_state.copy(),
            "extensions": {WHOLE_RESPONSE: exchange.give, BODY_CHARGE: exchange.charge},
        }
        tasks = self._server_state.tasks
        exchange.task = self._loop.create_task(exchange.run(self._app, scope, tasks))
        tasks.add(exchange.task)

    def _read_body(self, data: bytes) -> None:
        exchange = self._exchange
        if exchange is None or self._refused:
            return
        if self._chunks is None:
            piece, rest = data, b""
            if len(data) > self._remaining:
                piece, rest = data[: self._remaining], data[self._remaining :]
            self._remaining -= len(piece)
            complete = not self._remaining
        else:
            try:
                pieces, used = self._chunks.feed(data)
            except ResmemError as error:
                self._refuse_body(error)
                return
            piece, rest = pieces[0] if len(pieces) == 1 else b"".join(pieces), data[used:]
            complete = self._chunks.complete
        if piece:
            self._received += len(piece)
            if not exchange.take(piece) and not self._take_with_room_made(exchange, piece):
                self._refuse_body(_overloaded())
                return
        if complete:
            self._chunks = None
            self._state = _State.ANSWERING
            exchange.complete()
            if rest:
                self._keep(rest)

    def _take_with_room_made(self, exchange: Exchange, piece: bytes) -> bool:
        size = max(self._received, exchange.head.length or 0)
        return (
            size <= _SMALL_BODY_BYTES
            and self._connections.make_room(len(piece))
            and exchange.take(piece)
        )

    def _keep(self, data: bytes) -> None:
        """What comes before a response is out belongs to a later request; no more is read."""
        if self._connections.budget.take(len(data), self._held):
            self._held += len(data)
            self._buffer += data
        elif self._exchange is not None:
            self._exchange.keep_alive = False  # the client must send it again
        if not self._read_paused:
            self._read_paused = True
            self._transport.pause_reading()

    def _refuse_body(self, error: ResmemError) -> None:
        """The app answers, with this error where it asks for the body."""
        if self._exchange is not None and not self._refused:
            self._refused = True
            self._chunks = None
            self._exchange.refuse(error)
            self._connections.refusals.log(error, self._peer())

    def _refuse(self, error: ResmemError, raw: bytes = b"") -> None:
        """Answers in place of the app; `raw` is what is there of the head."""
        method, target = request_line(raw) or (b"", b"")
        response = self._connections.refusals.response(
            error,
            self._peer(),
            self.default_headers(),
            method=method.decode(),
            target=target.decode(),
        )
        self._transport.write(response)
        if self._eof:
            self._close()
        else:
            self._linger()

    def _linger(self) -> None:
        """Says that nothing more will be sent, and reads on for a while, so that it is read."""
        self._state = _State.LINGERING
        self.since = self._began = self._connections.now
        self._remaining = self._connections.limits.linger_bytes
        self._drop_buffer()
        self._transport.write_eof()
        if self._read_paused:
            self._read_paused = False
            self._transport.resume_reading()

    def _close(self) -> None:
        """Closes the connection once what was written is sent."""
        self._state = _State.CLOSED
        self._drop_buffer()
        self._transport.close()

    def _drop_buffer(self) -> None:
        self._buffer = b""
        if self._held:
            self._connections.budget.give_back(self._held)
            self._held = 0

    def _check_body(self, now: float) -> None:
        limits = self._connections.limits
        if self._refused:
            return
        grace = limits.body_timeout_s + limits.period_s
        if now - self.since > grace:
            message = f"nothing of the body came for {limits.body_timeout_s:g} s (body_timeout_s)"
        elif now - self._began > grace + self._received / limits.min_body_bytes_per_s:
            message = (
                f"the body came at less than {limits.min_body_bytes_per_s} bytes per second "
                "(min_body_bytes_per_s)"
            )
        else:
            return
        self._refuse_body(RequestTimeout(message))

    def _check_reader(self, now: float) -> None:
        """A client that does not read what is sent to it."""
        limits = self._connections.limits
        unsent = self._transport.get_write_buffer_size()
        if unsent != self._unsent:
            self._unsent, self._unsent_since = unsent, now
        if not unsent:
            return
        grace = limits.send_timeout_s + limits.period_s
        slow = now - self._unsent_since > grace
        if self.write_paused:
            sent = max(0, self._stuck_bytes - unsent)
            slow = slow or now - self._stuck_since > grace + sent / limits.min_body_bytes_per_s
            budget = self._connections.budget
            if not slow and now > self._stuck_since and not budget.fits(0, self._stuck_bytes):
                slow = True  # others need the memory
        if slow:
            self._connections.closed("slow_reader").add()
            self._transport.abort()

    def _peer(self) -> str:
        if self._client is None:
            return "unknown"
        host, port = self._client
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _address(name: object) -> tuple[str, int] | None:
    if isinstance(name, tuple) and len(name) >= 2:
        return str(name[0]), int(name[1])
    return None


def _overloaded() -> Overloaded:
    return Overloaded(
        "the bodies of other requests take all of max_inflight_bytes; try again later"
    )


def _too_many_connections() -> TooManyConnections:
    return TooManyConnections("too many connections are open; try again later")


def _head_too_large(limit: int) -> HeadTooLarge:
    return HeadTooLarge(f"the head of the request is over the limit of {limit} bytes")
