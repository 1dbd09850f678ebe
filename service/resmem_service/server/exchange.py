"""One request and its response, between the connection and the ASGI app."""

import asyncio
import logging
import re
from io import BytesIO
from typing import Any, Final, Protocol

from starlette.types import ASGIApp, Message, Scope

from resmem_service.api.endpoint import JSON, Header
from resmem_service.errors import Overloaded, ResmemError
from resmem_service.server.body_budget import BodyBudget
from resmem_service.server.head import Head
from resmem_service.server.refusals import STATUS_LINES

__all__ = ["CONTINUE", "Exchange", "Line"]

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_NOT_IN_HEADERS: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_NO_BODY: Final = (204, 304)
_FAILED: Final = b'{"error":{"code":"internal","message":"the server failed; its log tells more"}}'

_log = logging.getLogger(__name__)


class Line(Protocol):
    """The connection, as an exchange sees it."""

    write_paused: bool
    """Whether the client reads too slowly for more to be written."""

    def write(self, data: bytes) -> None:
        """Sends bytes."""

    async def writable(self) -> None:
        """Waits until the client has read enough, or is gone."""

    def finished(self, exchange: "Exchange", *, keep_alive: bool) -> None:
        """The response is out."""

    def abort(self) -> None:
        """Ends the connection at once."""

    def default_headers(self) -> list[Header]:
        """What every response has."""

    def wonder(self) -> None:
        """The app waits to be told that the client has gone."""


class Exchange:
    """Begins with a complete head. Belongs to the event loop."""

    __slots__ = (
        "_bodiless",
        "_body",
        "_budget",
        "_chunked",
        "_delivered",
        "_event",
        "_head_message",
        "_line",
        "_parts",
        "_refusal",
        "_remaining",
        "_to_continue",
        "body_complete",
        "charged",
        "disconnected",
        "head",
        "keep_alive",
        "response_complete",
        "response_started",
        "task",
        "watched",
    )

    def __init__(self, line: Line, head: Head, budget: BodyBudget) -> None:
        self._line = line
        self._budget = budget
        self.head = head
        self.keep_alive = head.keep_alive
        self.body_complete = False
        self.disconnected = False
        self.response_started = False
        self.response_complete = False
        self.watched = False
        """Whether the app waits to be told that the client has gone."""
        self.charged = 0
        """Bytes that the budget counts for this request."""
        self.task: asyncio.Task[None] | None = None
        self._to_continue = head.expects_continue
        self._body = b""
        self._parts: BytesIO | None = None
        self._delivered = False
        self._refusal: ResmemError | None = None
        self._event: asyncio.Event | None = None
        self._head_message: Message | None = None
        self._remaining: int | None = None
        """Bytes of the response that its Content-Length still promises."""
        self._chunked = False
        self._bodiless = False

    def take(self, piece: bytes) -> bool:
        """Some of the body has arrived; False: there is no memory for it.

        A body in one piece is never copied, one in several only once: what `BytesIO` has written
        it gives away as it is.
        """
        if not self._budget.take(len(piece), self.charged):
            return False
        self.charged += len(piece)
        if self._parts is not None:
            self._parts.write(piece)
        elif not self._body:
            self._body = piece
        else:
            self._parts = BytesIO()
            self._parts.write(self._body)
            self._parts.write(piece)
            self._body = b""
        return True

    def complete(self) -> None:
        """The body is complete."""
        self.body_complete = True
        if self._parts is not None:
            self._body, self._parts = self._parts.getvalue(), None
        self._wake()

    def refuse(self, error: ResmemError) -> None:
        """What is to come of the body is not waited for: the app gets the error instead of it."""
        self._refusal = error
        self._body, self._parts = b"", None
        self._give_back()
        self._wake()

    def disconnect(self) -> None:
        """The client has gone."""
        if not self.response_complete:
            self.disconnected = True
        self._body, self._parts = b"", None
        self._wake()

    async def run(self, app: ASGIApp, scope: Scope, tasks: set[Any]) -> None:
        """Runs the app as one of the server's tasks; the client is answered whatever it does."""
        try:
            await app(scope, self.receive, self.send)
            if not self.response_complete and not self.disconnected:
                raise RuntimeError("the app returned without a complete response")
        except BaseException as error:
            if not self.response_complete and not self.disconnected:
                _log.error("the app failed", exc_info=error)
                self._fail()
            if not isinstance(error, Exception):
                raise
        finally:
            self._refusal = None  # its traceback holds what is in use here
            self._body, self._parts = b"", None
            self._give_back()
            tasks.discard(self.task)
            self.task = None

    async def receive(self) -> Message:
        """ASGI's; gives the body in one message.

        Raises:
            ResmemError: the request was refused before its body was complete.
        """
        if not (self._delivered or self.response_complete):
            while not (self.body_complete or self.disconnected):
                if self._refusal is not None:
                    raise self._refusal
                if self._to_continue:
                    self._to_continue = False
                    self._line.write(CONTINUE)
                await self._wait()
            if self.body_complete and not self.disconnected:
                self._delivered = True
                body, self._body = self._body, b""
                return {"type": "http.request", "body": body, "more_body": False}
        self.watched = True
        self._line.wonder()
        while not (self.disconnected or self.response_complete):
            await self._wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        """ASGI's. A head waits for what follows it, so that both go out together.

        Raises:
            RuntimeError: the app does not keep to ASGI, or not to the length that it named.
        """
        if self.response_complete:
            raise RuntimeError("the response is complete already")
        if message["type"] == "http.response.start":
            if self.response_started or self._head_message is not None:
                raise RuntimeError("a response has one start")
            self._head_message = message
            return
        if self._line.write_paused and not self.disconnected:
            await self._line.writable()
        if self.disconnected:
            return
        body: bytes = message.get("body", b"")
        more: bool = message.get("more_body", False)
        start, self._head_message = self._head_message, None
        parts: list[bytes] = []
        if start is not None:
            parts = self._head_of(start["status"], self._framed(start))
        elif not self.response_started:
            raise RuntimeError("a response begins with its start")
        self.response_started = True
        parts += self._frame(body, more)
        self._line.write(b"".join(parts))
        if not more:
            if self._remaining:
                raise RuntimeError("the response is shorter than its Content-Length")
            self._end()

    def give(self, status: int, headers: list[Header], body: bytes) -> bool:
        """`WHOLE_RESPONSE`: what `send` does with both messages; False: send them."""
        if (
            self.response_started
            or self._head_message is not None
            or self.disconnected
            or self._line.write_paused
            or self.head.method == "HEAD"
        ):
            return False
        self.response_started = True
        parts = self._head_of(status, headers)
        parts.append(body)
        self._line.write(b"".join(parts))
        self._end()
        return True

    def charge(self, amount: int) -> None:
        """`BODY_CHARGE`: counts bytes, or fewer bytes, that the body takes as it is decoded.

        Raises:
            Overloaded: there is no memory for them.
        """
        if amount > 0 and not self._budget.take(amount, self.charged):
            raise Overloaded(
                "the bodies of other requests take all of max_inflight_bytes; try again later"
            )
        if amount < 0:
            self._budget.give_back(-amount)
        self.charged += amount

    def _head_of(self, status: int, headers: list[Header]) -> list[bytes]:
        parts = [STATUS_LINES[status]]
        for name, value in self._line.default_headers():
            parts += (name, b": ", value, b"\r\n")
        for name, value in headers:
            parts += (name, b": ", value, b"\r\n")
        if not (self.keep_alive and self.body_complete):
            parts.append(b"connection: close\r\n")
        parts.append(b"\r\n")
        return parts

    def _framed(self, start: Message) -> list[Header]:
        """The headers of a start, with those added that say where the body ends."""
        headers = []
        for name, value in start.get("headers", ()):
            if _NOT_IN_HEADERS.search(name) or _NOT_IN_HEADERS.search(value):
                raise RuntimeError(f"the response has the header {name!r} with control characters")
            lower = name.lower()
            if lower == b"content-length":
                self._remaining = int(value)
            elif lower == b"connection":
                self.keep_alive = self.keep_alive and b"close" not in value.lower()
                continue
            headers.append((lower, value))
        bodiless = self.head.method == "HEAD" or start["status"] in _NO_BODY
        if bodiless:
            self._remaining, self._bodiless = None, True
        elif self._remaining is None and self.head.version == "1.0":
            self.keep_alive = False
        elif self._remaining is None:
            self._chunked = True
            headers.append((b"transfer-encoding", b"chunked"))
        return headers

    def _frame(self, body: bytes, more: bool) -> list[bytes]:
        if self._bodiless:
            return []
        if self._chunked:
            parts = [b"%x\r\n" % len(body), body, b"\r\n"] if body else []
            return parts if more else [*parts, b"0\r\n\r\n"]
        if self._remaining is not None:
            if len(body) > self._remaining:
                raise RuntimeError("the response is longer than its Content-Length")
            self._remaining -= len(body)
        return [body]

    def _end(self) -> None:
        self.response_complete = True
        if self._event is not None:
            self._event.set()
        self._line.finished(self, keep_alive=self.keep_alive and self.body_complete)

    def _fail(self) -> None:
        length = (b"content-length", str(len(_FAILED)).encode())
        self.keep_alive = False
        self._head_message = None
        if not self.give(500, [length, JSON], _FAILED):
            self._line.abort()

    async def _wait(self) -> None:
        if self._event is None:
            self._event = asyncio.Event()
        self._event.clear()
        await self._event.wait()

    def _wake(self) -> None:
        if self._event is not None:
            self._event.set()

    def _give_back(self) -> None:
        if self.charged:
            self._budget.give_back(self.charged)
            self.charged = 0
