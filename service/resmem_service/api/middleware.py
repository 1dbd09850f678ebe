"""The outermost middleware: it admits requests, counts them, and answers every error.

Pure ASGI, since each `BaseHTTPMiddleware` costs about 170 us of CPU a request. Every error of the
app comes up to here and becomes the contract's answer in one place.
"""

from collections.abc import Iterable, Mapping
from itertools import count
from os import urandom
from time import perf_counter
from typing import Any, Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from resmem_service.api.auth import KeyRing
from resmem_service.api.body import Disconnected
from resmem_service.api.content_coding import compress, wished_coding
from resmem_service.api.endpoint import JSON, Content, Endpoint, Header
from resmem_service.api.errors import answer_to, error_body
from resmem_service.api.inference_protocol import errors as inference_protocol
from resmem_service.api.lifecycle import Lifecycle
from resmem_service.api.origins import Origins, check_media_type
from resmem_service.api.routes import ROUTES, methods_of, template_of
from resmem_service.telemetry.metrics import Metrics

__all__ = ["WHOLE_RESPONSE", "ErrorCapture", "RequestMiddleware"]

WHOLE_RESPONSE: Final = "resmem.whole_response"
"""An ASGI extension that our server offers: `(status, headers, body) -> bool` sends a response at
once, headers as they are, the content's length among them and none about the connection. False: it
is to be sent in messages."""

_CLIENT_GONE: Final = 499
"""The status that metrics show where nobody was left to read one, as nginx has it."""
_LONGEST_ID: Final = 128
_CLOSE: Final[Header] = (b"connection", b"close")
_NO_EXTENSIONS: Final[Mapping[str, Any]] = {}
_ERROR: Final = "resmem.error"
_SCOPES: Final = {(route.method, route.path): route.scope for route in ROUTES}
_BINARY: Final = frozenset(route.path for route in ROUTES if route.path.endswith("/infer"))
"""The routes whose bodies may hold bytes behind their JSON."""
_RELOAD: Final = "/admin/reload"
_PREFLIGHT: Final = b"access-control-request-method"


class ErrorCapture:
    """Keeps errors of the framework's app for `RequestMiddleware`.

    It is the outermost of the framework's own layers: without it the framework answers 500 itself.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Runs the app; an error that it raises is left in the scope."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        try:
            await self._app(scope, receive, send)
        except Exception as error:
            scope[_ERROR] = error


class RequestMiddleware:
    """Wraps the framework's app, and answers the hot endpoints without it."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        lifecycle: Lifecycle,
        endpoints: Iterable[Endpoint],
        keys: KeyRing,
        origins: Origins,
        metrics: Metrics,
    ) -> None:
        self._app = app
        self._lifecycle = lifecycle
        self._endpoints = {(each.method, each.path): each for each in endpoints}
        self._keys = keys
        self._origins = origins
        self._metrics = metrics
        self._counters = {
            (route.path, route.method, code): metrics.requests(route.path, route.method, str(code))
            for route in ROUTES
            for code in route.codes
        }
        self._run = urandom(4).hex()
        self._numbers = count(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = perf_counter()
        method, route = scope["method"], template_of(_path(scope))
        lifecycle = self._lifecycle
        in_flight = lifecycle.requests if route != _RELOAD else lifecycle.other_requests
        in_flight.size += 1
        sent = dict(scope["headers"])
        request_id = self._request_id(sent.get(b"x-request-id", b""))
        reply = _Reply(scope, send, request_id.encode(), self._lifecycle)
        try:
            if (origin := sent.get(b"origin")) is not None:
                reply.shared = self._origins.headers(origin)
                if reply.shared and method == "OPTIONS" and _PREFLIGHT in sent:
                    await reply.give(200, b"", self._origins.preflight(methods_of(route)))
                    return
                self._origins.check(method, origin, sent.get(b"host"))
            needed = _SCOPES.get((method, route))
            if needed is not None:
                self._keys.admit(sent.get(b"authorization"), needed)
            if method == "POST" and (kind := sent.get(b"content-type")) is not None:
                check_media_type(kind, binary=route in _BINARY)
            endpoint = self._endpoints.get((method, route))
            if endpoint is not None:
                answer = await endpoint.answer(scope, receive)
                body, headers = answer if isinstance(answer, Content) else (answer, (JSON,))
                coding = wished_coding(scope["headers"], len(body))
                if coding is not None:
                    body = await compress(body, coding)
                    headers = (*headers, (b"content-encoding", coding))
                await reply.give(endpoint.status, body, headers)
            else:
                await self._app(scope, receive, reply.forward)
                error = scope.pop(_ERROR, None)
                if error is not None:
                    raise error
        except Disconnected:
            pass
        except Exception as error:
            spoken = inference_protocol.is_spoken_at(_path(scope))
            write = inference_protocol.error_body if spoken else error_body
            failure = answer_to(error, request_id, write)
            _release(error)
            self._metrics.rejections(failure.code).add()
            if not reply.status:
                await reply.give(failure.status, failure.body, (JSON, *failure.headers))
        finally:
            in_flight.size -= 1
            self._metrics.durations[route](perf_counter() - began)
            self._count(route, method, reply.status or _CLIENT_GONE)

    def _request_id(self, own: bytes) -> str:
        """Returns the id that the client sent, if it is usable, else a new one."""
        if own and len(own) <= _LONGEST_ID and own.isascii() and own.decode().isprintable():
            return own.decode()
        return f"{self._run}-{next(self._numbers):x}"

    def _count(self, route: str, method: str, status: int) -> None:
        counter = self._counters.get((route, method, status))
        if counter is None:
            counter = self._metrics.requests(route, method, str(status))
        counter.add()


class _Reply:
    """Sends the response to the client, and remembers its status."""

    __slots__ = ("_lifecycle", "_request_id", "_scope", "_send", "shared", "status")

    def __init__(self, scope: Scope, send: Send, request_id: bytes, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle
        self._scope = scope
        self._send = send
        self._request_id = (b"x-request-id", request_id)
        self.shared: tuple[Header, ...] = ()
        """What the page of another origin needs to read the answer."""
        self.status = 0

    async def give(self, status: int, body: bytes, headers: Iterable[Header]) -> None:
        length = (b"content-length", str(len(body)).encode())
        head = [length, self._request_id, *self.shared, *headers]
        self.status = status
        if self._lifecycle.closing:
            head.append(_CLOSE)
        else:
            whole = self._scope.get("extensions", _NO_EXTENSIONS).get(WHOLE_RESPONSE)
            if whole is not None and whole(status, head, body):
                return
        await self._send({"type": "http.response.start", "status": status, "headers": head})
        await self._send({"type": "http.response.body", "body": body})

    async def forward(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message["headers"], self._request_id, *self.shared]
            if self._lifecycle.closing:
                message["headers"].append(_CLOSE)
        await self._send(message)


def _release(error: BaseException) -> None:
    """Lets go of what an error and those behind it hold: the frames they passed, and all in them.

    Such a frame may hold the error in turn, and a body of 64 MB; the garbage collector comes
    seldom.
    """
    errors, seen = [error], set[int]()
    while errors:
        error = errors.pop()
        if id(error) not in seen:
            seen.add(id(error))
            error.__traceback__ = None
            errors += [each for each in (error.__cause__, error.__context__) if each is not None]


def _path(scope: Scope) -> str:
    path: str = scope["path"]
    root = scope.get("root_path")
    return path.removeprefix(root) if root else path
