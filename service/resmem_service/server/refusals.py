"""Answers to what never becomes a request, in the contract's envelope; counted, logged rarely."""

import logging
from collections.abc import Iterable
from http import HTTPStatus
from itertools import count
from os import urandom
from time import monotonic
from typing import Final

from resmem_service.api.endpoint import JSON, Header
from resmem_service.api.errors import answer_to, error_body
from resmem_service.api.inference_protocol import errors as inference_protocol
from resmem_service.api.routes import OTHER
from resmem_service.api.statuses import status_of
from resmem_service.errors import ResmemError
from resmem_service.telemetry.logs import fields
from resmem_service.telemetry.metrics import Metrics

__all__ = ["STATUS_LINES", "Refusals"]

STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}

_LINE_EVERY_S: Final = 10.0
"""At most one line of the log in this time for each reason."""

_log = logging.getLogger(__name__)


class Refusals:
    """Those of one worker."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._run = urandom(4).hex()
        self._numbers = count(1)
        self._silent_until: dict[str, float] = {}
        self._unlogged: dict[str, int] = {}

    def response(
        self,
        error: ResmemError,
        peer: str,
        default_headers: Iterable[Header],
        *,
        method: str = "",
        target: str = "",
    ) -> bytes:
        """The whole response, after which the connection is closed; counts and logs it.

        `method` and `target` are what is known of the request.
        """
        request_id = f"{self._run}-r{next(self._numbers):x}"
        spoken = inference_protocol.is_spoken_at(target.partition("?")[0])
        write = inference_protocol.error_body if spoken else error_body
        answer = answer_to(error, request_id, write)
        self.count(error, method)
        self.log(error, peer)
        parts = [STATUS_LINES[answer.status]]
        for name, value in (
            *default_headers,
            (b"content-length", str(len(answer.body)).encode()),
            (b"x-request-id", request_id.encode()),
            JSON,
            *answer.headers,
            (b"connection", b"close"),
        ):
            parts += (name, b": ", value, b"\r\n")
        parts.append(b"\r\n")
        if method != "HEAD":
            parts.append(answer.body)
        return b"".join(parts)

    def count(self, error: ResmemError, method: str = "") -> None:
        """Counts a refusal among the requests to no known route."""
        self._metrics.requests(OTHER, method, str(status_of(error))).add()
        self._metrics.rejections(error.code).add()

    def log(self, error: ResmemError, peer: str) -> None:
        """Logs a refusal, unless its reason was logged a short while ago."""
        code, now = error.code, monotonic()
        if now < self._silent_until.get(code, 0.0):
            self._unlogged[code] = self._unlogged.get(code, 0) + 1
            return
        self._silent_until[code] = now + _LINE_EVERY_S
        _log.warning(
            "a request was refused: %s",
            error.message,
            extra=fields(reason=code, peer=peer, more=self._unlogged.pop(code, 0)),
        )
