"""An endpoint on the hot path: raw bytes to raw bytes, past FastAPI's own handling.

FastAPI spends about 40 us of CPU to call a function with nothing to validate, its router alone 14.
The middleware therefore calls `answer` of these endpoints itself; FastAPI keeps the route for its
documentation and for refusing other methods.
"""

from abc import ABC, abstractmethod
from typing import ClassVar, Final, NamedTuple

from fastapi import Request, Response
from starlette.types import Receive, Scope

__all__ = ["JSON", "Content", "Endpoint", "Header"]

Header = tuple[bytes, bytes]

JSON: Final[Header] = (b"content-type", b"application/json")


class Content(NamedTuple):
    """The body of an answer that is more than JSON, and the headers that say so."""

    body: bytes
    headers: tuple[Header, ...]


class Endpoint(ABC):
    """One method of one route."""

    path: ClassVar[str]
    method: ClassVar[str] = "POST"
    status: ClassVar[int] = 200

    @abstractmethod
    async def answer(self, scope: Scope, receive: Receive) -> bytes | Content:
        """Answers a request: bytes where the body is JSON, else `Content`; errors are raised."""

    async def respond(self, request: Request) -> Response:
        """Answers as a route of FastAPI would; used for its documentation."""
        answer = await self.answer(request.scope, request.receive)
        body, headers = answer if isinstance(answer, Content) else (answer, (JSON,))
        names = {name.decode(): value.decode() for name, value in headers}
        return Response(body, self.status, headers=names)
