"""The whole app in this process: its lifespan, and a client that reaches it without a socket."""

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
from resmem_service.app import ResmemApp
from resmem_service.settings import Settings

T = TypeVar("T")


class LocalService:
    """Use it in a `with`; its event loop runs only while one of its methods does."""

    def __init__(self, settings: Settings) -> None:
        self.app = ResmemApp(settings)
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        self._stopped = False

    def __enter__(self) -> Self:
        self.run(self._start())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Ends the app, once."""
        if not self._stopped:
            self._stopped = True
            self.run(self._stack.aclose())
            self._runner.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine in the app's loop."""
        return self._runner.run(work)

    def request(self, method: str, path: str, **how: Any) -> httpx.Response:
        return self.run(self.client.request(method, path, **how))

    def get(self, path: str, **how: Any) -> httpx.Response:
        return self.request("GET", path, **how)

    def post(self, path: str, body: object, **how: Any) -> httpx.Response:
        """Bytes go as they are, anything else as JSON."""
        if isinstance(body, bytes):
            return self.request("POST", path, content=body, **how)
        return self.request("POST", path, json=body, **how)

    def delete(self, path: str, **how: Any) -> httpx.Response:
        return self.request("DELETE", path, **how)

    async def _start(self) -> None:
        app = self.app.asgi
        await self._stack.enter_async_context(app.router.lifespan_context(app))
        transport = httpx.ASGITransport(app)
        self.client = await self._stack.enter_async_context(
            httpx.AsyncClient(transport=transport, base_url="http://resmem")
        )
        while (await self.client.get("/readyz")).status_code != 200:
            if self.app.lifecycle.failure is not None:
                raise self.app.lifecycle.failure
            await asyncio.sleep(0.001)
