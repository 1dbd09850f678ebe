"""Two servers behind a proxy are restarted in turn, under load: no request fails."""

import asyncio
import json
import socket
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest

from tests.conftest import FittedModel
from tests.end_to_end.server import Server
from tests.server.reverse_proxy import ReverseProxy

ROW = [0.0] * 64
CLIENTS = 6
PAUSE_S = 0.01
FLAGS = ["--shutdown-delay-s", "3"]


def free_ports(number: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


class Restarted:
    """A server that comes back on its port."""

    def __init__(self, model: FittedModel, state: Path, port: int, workers: int) -> None:
        self._model, self._state, self._workers = model, state, workers
        self._flags = [*FLAGS, "--port", str(port)]

    def start(self) -> None:
        self._server = Server(self._model.store, self._state, self._flags, workers=self._workers)
        self._server.__enter__()

    def stop(self) -> int:
        self._server.terminate()
        try:
            return self._server.status()
        finally:
            self._server.__exit__(None, None, None)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("workers", [1, 2])
def test_no_request_fails(digits: FittedModel, tmp_path: Path, workers: int) -> None:
    """25 of 34,511 did: SIGTERM made all requests 503 at once, and closed idle connections."""

    async def main() -> ReverseProxy:
        ports = free_ports(2)
        servers = [
            Restarted(digits, tmp_path / str(number), port, workers)
            for number, port in enumerate(ports)
        ]
        async with AsyncExitStack() as stack:
            for server in servers:
                await asyncio.to_thread(server.start)
                stack.push_async_callback(asyncio.to_thread, server.stop)
            proxy = await stack.enter_async_context(ReverseProxy(*ports))
            for upstream in proxy.upstreams:
                await upstream.is_ready.wait()
            clients = [asyncio.create_task(keep_asking(proxy)) for _ in range(CLIENTS)]
            try:
                for server, upstream in zip(servers, proxy.upstreams, strict=True):
                    before = proxy.outcomes.total()
                    assert await asyncio.to_thread(server.stop) == 0
                    assert not upstream.is_ready.is_set()
                    assert proxy.outcomes.total() > before
                    await asyncio.to_thread(server.start)
                    await upstream.is_ready.wait()
            finally:
                for client in clients:
                    client.cancel()
                    with suppress(asyncio.CancelledError):
                        await client
        return proxy

    proxy = asyncio.run(main())
    assert proxy.outcomes.keys() == {"200"}
    assert proxy.kept > proxy.outcomes.total() / 2, "connections were used again"


async def keep_asking(proxy: ReverseProxy) -> None:
    body = json.dumps({"inputs": [ROW]}).encode()
    while True:
        await proxy.post("/predict", body)
        await asyncio.sleep(PAUSE_S)
