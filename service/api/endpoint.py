"""An endpoint on the hot path: raw bytes to raw bytes, past FastAPI's own handling.

FastAPI spends about 40 us of CPU to call a function with nothing to validate, its router alone 14.
The edge therefore calls `answer` of these endpoints itself; FastAPI keeps the route for its
documentation, for refusing other methods, and for an app that is mounted below a path of another.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

from fastapi import Request, Response
from starlette.types import Receive, Scope

__all__ = ["Endpoint"]


class Endpoint(ABC):
    """One method of one route."""

    path: ClassVar[str]
    method: ClassVar[str] = "POST"
    status: ClassVar[int] = 200

    @abstractmethod
    async def answer(self, scope: Scope, receive: Receive) -> bytes:
        """The JSON body of the answer; whatever is wrong is raised."""

    async def respond(self, request: Request) -> Response:
        """The same as a FastAPI route."""
        body = await self.answer(request.scope, request.receive)
        return Response(body, self.status, media_type="application/json")
