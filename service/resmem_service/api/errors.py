"""Every error becomes an answer here: `{"error": {"code", "message", "field"}}` and its status."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, NoReturn

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from resmem_service.api.content_coding import CODINGS
from resmem_service.api.routes import methods_of, template_of
from resmem_service.api.statuses import INTERNAL, STATUSES
from resmem_service.errors import InvalidInput, ResmemError, UnsupportedMediaType
from resmem_service.excerpt import LONGEST_NAMED, excerpt, shortened

__all__ = [
    "ErrorResponse",
    "MethodNotAllowed",
    "RouteNotFound",
    "WriteBody",
    "answer_to",
    "error_body",
    "raise_as_ours",
]

WriteBody = Callable[[str, str, str | None], bytes]
"""The body for a code, a message and the field at fault, if it is one."""

_RETRY_AFTER_S: Final = b"1"
_LONGEST_MESSAGE: Final = 2000
_LONGEST_METHOD: Final = 40
_LONGEST_VALUE: Final = 60
_LONGEST_FIELD: Final = LONGEST_NAMED + 64
"""Characters; a name and what stands around it."""

_log = logging.getLogger(__name__)


class RouteNotFound(ResmemError):
    """No route has this path."""

    code = "not_found"


class MethodNotAllowed(ResmemError):
    """The route has other methods; `allowed` is the value of the `Allow` header."""

    code = "method_not_allowed"

    def __init__(self, message: str, allowed: str) -> None:
        super().__init__(message)
        self.allowed = allowed


@dataclass(frozen=True, slots=True)
class ErrorResponse:
    """The answer to a request that failed; `code` is also the reason that metrics count."""

    status: int
    code: str
    headers: list[tuple[bytes, bytes]]
    body: bytes


def error_body(code: str, message: str, field: str | None) -> bytes:
    """Encodes the body that every error of this API has."""
    error = {"code": code, "message": message}
    if field is not None:
        error["field"] = field
    return orjson.dumps({"error": error})


def answer_to(error: Exception, request_id: str, write: WriteBody = error_body) -> ErrorResponse:
    """Makes the response to any error; what the caller did not cause is logged, not sent."""
    if isinstance(error, ResmemError) and error.code in STATUSES:
        status = STATUSES[error.code]
        if status == 507:
            _log.error("%s [request %s]", error, request_id)
        return ErrorResponse(
            status,
            error.code,
            _headers(error, status),
            write(
                error.code,
                _encodable(error.message, _LONGEST_MESSAGE),
                error.field and _encodable(error.field, _LONGEST_FIELD),
            ),
        )
    _log.error("a request failed [request %s]", request_id, exc_info=error)
    message = f"the server failed; its log tells more under request {request_id}"
    return ErrorResponse(500, INTERNAL, [], write(INTERNAL, message, None))


def raise_as_ours(app: FastAPI) -> None:
    """Makes FastAPI's own refusals errors of ours, which the middleware answers like all others."""

    async def http(request: Request, error: Exception) -> NoReturn:
        assert isinstance(error, HTTPException)
        if error.status_code == 405:
            # The router names the methods of the first route alone that has the path.
            path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
            allowed = ", ".join(methods_of(template_of(path)))
            method = excerpt(request.method, _LONGEST_METHOD)
            raise MethodNotAllowed(f"the path has no method {method}; it has {allowed}", allowed)
        if error.status_code == 404:
            raise RouteNotFound("there is no such route; /docs lists them all")
        raise error

    async def validation(_: Request, error: Exception) -> NoReturn:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        raise InvalidInput(_misfit(first), str(first["loc"][-1]))

    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, validation)


def _misfit(error: Mapping[str, Any]) -> str:
    """What pydantic finds wrong with a parameter, in the words of all other messages."""
    value, bounds = error.get("input"), error.get("ctx", {})
    match error["type"]:
        case "missing":
            return "is missing"
        case "string_too_short":
            return "is empty"
        case "string_too_long" if isinstance(value, str):
            return f"has {len(value)} characters; at most {bounds['max_length']} are taken"
        case "greater_than_equal":
            wanted = f"be at least {bounds['ge']}"
        case "less_than_equal":
            wanted = f"be at most {bounds['le']}"
        case "int_parsing" | "int_parsing_size":
            wanted = "be a whole number"
        case _:
            return str(error["msg"])
    return f"is {excerpt(value, _LONGEST_VALUE)}; it must {wanted}"


def _encodable(text: str, longest: int) -> str:
    """Shortens text that quotes a client, and replaces lone surrogates, which UTF-8 cannot hold."""
    return shortened(text, longest).encode(errors="replace").decode()


def _headers(error: ResmemError, status: int) -> list[tuple[bytes, bytes]]:
    if isinstance(error, MethodNotAllowed):
        return [(b"allow", error.allowed.encode())]
    if status == 401:
        return [(b"www-authenticate", b"Bearer")]
    if isinstance(error, UnsupportedMediaType):
        return [(b"accept", b"application/json")]
    if status == 415:
        return [(b"accept-encoding", b", ".join(CODINGS))]
    if status in (429, 503):
        return [(b"retry-after", _RETRY_AFTER_S)]
    return []
