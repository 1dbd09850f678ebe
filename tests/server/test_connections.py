"""How many connections there may be: which goes for the sake of another, and descriptors."""

import asyncio
import resource
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import uvicorn
import uvloop
from resmem_service.api.routes import REASONS, series
from resmem_service.server import descriptors
from resmem_service.server.body_budget import BodyBudget
from resmem_service.server.connections import ConnectionLimits, Connections
from resmem_service.server.protocol import HttpProtocol
from resmem_service.telemetry.metrics import Metrics
from starlette.types import Receive, Scope, Send

from tests.conftest import FittedModel
from tests.end_to_end.server import Server
from tests.server.wire import Client, counted, eventually, get, post, row


def evicted(server: Server) -> float:
    return counted(server, 'resmem_connections_closed_total{reason="evicted"}')


def test_who_waits_makes_room_for_who_comes(digits: FittedModel, tmp_path: Path) -> None:
    """A crowd that sends nothing, or no whole request, keeps nobody out."""
    parts = [b"", b"GET /healthz HT"]
    with Server(digits.store, tmp_path, ["--max-connections", "20"]) as server:
        regular = Client(server)
        crowd = []
        for number in range(90):
            crowd.append(Client(server).send(parts[number % 2]))
            assert regular.send(get("/healthz")).response().status == 200
            if number % 10 == 0:
                with Client(server) as client:
                    assert client.send(post(row())).response().status == 200
        assert counted(server, "resmem_connections") <= 20 + 64
        assert evicted(server) > 40
        for client in crowd:
            client.socket.close()
        regular.socket.close()
        eventually(lambda: counted(server, "resmem_connections") <= 3)


def test_bodies_that_do_not_come_keep_nobody_out(digits: FittedModel, tmp_path: Path) -> None:
    with Server(digits.store, tmp_path, ["--max-connections", "10"]) as server:
        crowd = [Client(server).send(post(b"{", length=10)) for _ in range(40)]
        with Client(server) as client:
            assert client.send(post(row())).response().status == 200
        eventually(lambda: any(client.readable() for client in crowd))
        told = next(client for client in crowd if client.readable())
        response = told.last_response()
        assert (response.status, response.code) == (503, "too_many_connections")
        for client in crowd:
            client.socket.close()


def test_when_open_files_run_out_the_server_waits_and_goes_on(
    digits: FittedModel, tmp_path: Path
) -> None:
    with Server(digits.store, tmp_path) as server:
        assert server.client.post("/predict", content=row()).status_code == 200
        pid = server.process.pid
        process = psutil.Process(pid)
        soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (process.num_fds() + 10, hard))
        clients = [Client(server) for _ in range(60)]
        assert server.client.post("/predict", content=row()).status_code == 200
        lines = server.lines_so_far()
        assert len(lines) < 100, lines[-3:]
        for client in clients:
            client.socket.close()
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))

        def served() -> bool:
            with Client(server) as client:
                return client.send(get("/healthz")).response().status == 200

        eventually(served)


@pytest.mark.parametrize(
    ("limits", "usable", "raised"),
    [
        ((1024, 10**6), 4096, 4096 + 256),
        ((10**5, 10**6), 4096, None),
        ((1024, 2048), 2048 - 256, 2048),
        ((300, 300), 150, 300),
        ((1024, resource.RLIM_INFINITY), 4096, 4096 + 256),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), 4096, None),
    ],
)
def test_descriptors(
    limits: tuple[int, int], usable: int, raised: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[int] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    monkeypatch.setattr(resource, "setrlimit", lambda _, pair: made.append(pair[0]))
    assert descriptors.usable_connections(4096) == usable
    assert made == ([] if raised is None else [raised])


async def until(holds: Callable[[], object]) -> None:
    """Waits until something holds."""
    async with asyncio.timeout(30):
        while not holds():  # noqa: ASYNC110 - it is the server's to tell, which has no event for it
            await asyncio.sleep(0.01)


class Waiting:
    """An app that answers when it is told to, and notes who has gone."""

    def __init__(self) -> None:
        self.asked = 0
        self.gone: list[str] = []
        self.go_on = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        self.asked += 1
        if scope["path"] == "/watched":
            while (await receive())["type"] != "http.disconnect":
                pass
            self.gone.append(scope["path"])
            return
        await self.go_on.wait()
        headers = [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok"})


class Place:
    """A server in this process, on uvloop as the real one."""

    def __init__(self, limits: ConnectionLimits, max_connections: int = 100) -> None:
        self.app = Waiting()
        self.metrics = Metrics(series(), REASONS)
        budget = BodyBudget(2**20, self.metrics.storage)
        self.connections = Connections(limits, max_connections, budget, self.metrics)

    async def __aenter__(self) -> tuple[str, int]:
        config = uvicorn.Config(self.app, ws="none", log_config=None)
        config.load()
        state = uvicorn.Server(config).server_state

        def make() -> HttpProtocol:
            return HttpProtocol(self.connections, config=config, server_state=state, app_state={})

        self.server = await asyncio.get_running_loop().create_server(make, "127.0.0.1", 0)
        address: tuple[str, int] = self.server.sockets[0].getsockname()
        return address

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        await until(lambda: not len(self.connections))


QUICK = ConnectionLimits(head_timeout_s=0.2, keep_alive_s=0.2, linger_silence_s=0.2)


async def connected(address: tuple[str, int], request: bytes) -> socket.socket:
    loop = asyncio.get_running_loop()
    client = socket.socket()
    client.setblocking(False)
    await loop.sock_connect(client, address)
    await loop.sock_sendall(client, request)
    return client


async def everything(client: socket.socket) -> bytes:
    found = b""
    async with asyncio.timeout(30):
        while part := await asyncio.get_running_loop().sock_recv(client, 65536):
            found += part
    client.close()
    return found


def test_where_all_are_in_use_a_new_one_is_told_so() -> None:
    async def main() -> None:
        place = Place(QUICK, max_connections=3)
        async with place as address:
            busy = [await connected(address, get("/", "Connection: close")) for _ in range(3)]
            await until(lambda: place.app.asked == 3)
            told = await everything(await connected(address, b""))
            assert told.startswith(b"HTTP/1.1 503 ")
            assert b'"too_many_connections"' in told
            assert b"retry-after: 1" in told
            assert place.metrics.rejections("too_many_connections").value == 1
            place.app.go_on.set()
            for client in busy:
                assert (await everything(client)).endswith(b"ok")

    uvloop.run(main())


def test_a_client_that_has_gone_is_told_from_one_that_closed_its_half() -> None:
    """Both have sent their last byte; the one that listens gets what it waits for."""

    async def main() -> None:
        place = Place(QUICK)
        async with place as address:
            listening = await connected(address, get("/"))
            listening.shutdown(socket.SHUT_WR)
            gone = await connected(address, get("/watched"))
            gone.close()
            await until(lambda: place.app.gone)
            place.app.go_on.set()
            assert (await everything(listening)).endswith(b"ok")

    uvloop.run(main())


def test_a_watched_client_that_closed_its_half_is_sent_an_interim_response_at_most() -> None:
    async def main() -> None:
        async with Place(QUICK) as address:
            client = await connected(address, get("/watched"))
            client.shutdown(socket.SHUT_WR)
            loop = asyncio.get_running_loop()
            async with asyncio.timeout(30):
                assert await loop.sock_recv(client, 100) == b"HTTP/1.1 100 Continue\r\n\r\n"
            await asyncio.sleep(0.3)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()  # with a reset, which only the sweep can notice

    uvloop.run(main())
