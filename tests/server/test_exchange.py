"""One request after the other over a transport that remembers each write."""

import asyncio
from typing import Any

import pytest
import uvicorn
from resmem_service.api.middleware import WHOLE_RESPONSE
from resmem_service.api.routes import REASONS, series
from resmem_service.server.body_budget import BodyBudget
from resmem_service.server.connections import ConnectionLimits, Connections
from resmem_service.server.protocol import HttpProtocol
from resmem_service.telemetry.metrics import Metrics
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Recorder(asyncio.Transport):
    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []
        self.closed = self.half_closed = False
        self.read_paused = False

    def write(self, data: Any) -> None:
        assert not self.closed
        self.writes.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.read_paused = True

    def resume_reading(self) -> None:
        self.read_paused = False

    def write_eof(self) -> None:
        self.half_closed = True

    def abort(self) -> None:
        self.closed = True

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("127.0.0.1", 1234) if name in ("peername", "sockname") else default


def answering(*bodies: bytes, status: int = 200, length: bool = True) -> ASGIApp:
    async def app(_: Scope, __: Receive, send: Send) -> None:
        headers = [(b"content-length", b"%d" % sum(map(len, bodies)))] if length else []
        await send({"type": "http.response.start", "status": status, "headers": headers})
        for at, body in enumerate(bodies, 1):
            await asyncio.sleep(0)
            more = at < len(bodies)
            await send({"type": "http.response.body", "body": body, "more_body": more})

    return app


def connected(app: ASGIApp, transport: Recorder) -> HttpProtocol:
    """A protocol in the running loop, with a connection made."""
    config = uvicorn.Config(app, ws="none", log_config=None)
    config.load()
    state = uvicorn.Server(config).server_state
    state.default_headers = [(b"date", b"today")]
    metrics = Metrics(series(), REASONS)
    budget = BodyBudget(2**20, metrics.storage)
    connections = Connections(ConnectionLimits(), 10, budget, metrics)
    protocol = HttpProtocol(connections, config=config, server_state=state, app_state={})
    protocol.connection_made(transport)
    return protocol


def exchange(app: ASGIApp, *requests: bytes) -> Recorder:
    """What is written for requests that come one after the other on one connection."""
    transport = Recorder()

    async def main() -> None:
        protocol = connected(app, transport)
        for request in requests:
            protocol.data_received(request)
            for _ in range(20):
                await asyncio.sleep(0)
        protocol.connection_lost(None)

    asyncio.run(main())
    return transport


GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


def test_head_and_body_go_out_together() -> None:
    transport = exchange(answering(b"body"), GET, GET)
    assert len(transport.writes) == 2
    for written in transport.writes:
        assert written.startswith(b"HTTP/1.1 200 OK\r\n")
        assert written.endswith(b"\r\n\r\nbody")


def test_a_body_that_looks_like_a_head_stays_a_body() -> None:
    tricky = b"HTTP/1.1 200 OK\r\n\r\n"
    transport = exchange(answering(tricky, tricky), GET, GET)
    whole = b"".join(transport.writes)
    assert whole.count(b"content-length") == 2
    assert whole.endswith(tricky + tricky)
    assert len(transport.writes) == 4


def test_parts_of_a_long_body_do_not_wait_for_each_other() -> None:
    transport = exchange(answering(b"a", b"b", length=False), GET)
    assert len(transport.writes) == 2
    assert transport.writes[0].endswith(b"\r\n\r\n1\r\na\r\n")
    assert transport.writes[1] == b"1\r\nb\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    ("app", "request_"),
    [
        (answering(b"body"), GET.replace(b"GET", b"HEAD")),
        (answering(b"", status=204, length=False), GET),
        (answering(b""), GET),
    ],
)
def test_a_head_alone_goes_out(app: ASGIApp, request_: bytes) -> None:
    transport = exchange(app, request_)
    assert b"".join(transport.writes).endswith(b"\r\n\r\n")
    assert transport.writes[0].startswith(b"HTTP/1.1 20")


def test_to_continue_is_said_at_once() -> None:
    transport = Recorder()

    async def app(_: Scope, receive: Receive, send: Send) -> None:
        body = b""
        while not body:
            body = (await receive())["body"]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    head = b"POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 2\r\n\r\n"

    async def main() -> None:
        protocol = connected(app, transport)
        protocol.data_received(head)
        await asyncio.sleep(0.01)
        assert transport.writes == [b"HTTP/1.1 100 Continue\r\n\r\n"]
        protocol.data_received(b"ok")
        await asyncio.sleep(0.01)
        protocol.connection_lost(None)

    asyncio.run(main())
    assert transport.writes[1].endswith(b"2\r\nok\r\n0\r\n\r\n")


START: Message = {"type": "http.response.start", "status": 200, "headers": []}
PART: Message = {"type": "http.response.body", "body": b"a", "more_body": True}


@pytest.mark.parametrize(
    ("messages", "status"), [([], b"500"), ([START], b"500"), ([START, PART], b"200")]
)
@pytest.mark.parametrize("raises", [False, True])
def test_an_app_that_ends_early(messages: list[Message], status: bytes, raises: bool) -> None:
    """The client is answered where nothing went out yet, and the connection is closed."""

    async def app(_: Scope, __: Receive, send: Send) -> None:
        for message in messages:
            await send(message)
        if raises:
            raise LookupError

    transport = exchange(app, GET)
    assert transport.closed
    assert len(transport.writes) == 1
    assert transport.writes[0].startswith(b"HTTP/1.1 " + status)


@pytest.mark.parametrize(
    "messages",
    [
        [PART],
        [START, START],
        [{**START, "headers": [(b"content-length", b"2")]}, {**PART, "more_body": False}],
        [{**START, "headers": [(b"content-length", b"0")]}, {**PART, "more_body": False}],
        [{**START, "headers": [(b"a", b"b\r\nc: d")]}, {**PART, "more_body": False}],
    ],
)
def test_an_app_that_breaks_the_protocol(messages: list[Message]) -> None:
    """Nothing of the kind reaches the client, and the connection is closed."""

    async def app(_: Scope, __: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    transport = exchange(app, GET)
    assert transport.closed
    assert b"c: d" not in b"".join(transport.writes)


class Giving:
    """An app that gives its responses away whole, and remembers whether they were taken."""

    def __init__(self) -> None:
        self.taken: list[bool] = []
        self.after: list[Message] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"].encode()
        headers = [(b"content-length", b"%d" % len(path))]
        give = scope["extensions"][WHOLE_RESPONSE]
        self.taken.append(give(200, headers, path))
        if self.taken[-1]:
            assert not give(200, headers, path), "a response is given once"
            self.after.append(await receive())
            return
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": path})


def get(path: str, *headers: str, method: str = "GET") -> bytes:
    return "\r\n".join((f"{method} {path} HTTP/1.1", "host: x", *headers, "", "")).encode()


def test_a_whole_response_is_one_write_and_leaves_the_connection_open() -> None:
    app = Giving()
    transport = exchange(app, get("/a"), get("/b"))
    assert app.taken == [True, True]
    assert app.after == [{"type": "http.disconnect"}] * 2
    assert [written[-6:] for written in transport.writes] == [b"\r\n\r\n/a", b"\r\n\r\n/b"]
    for written in transport.writes:
        head = written.split(b"\r\n")
        assert head[0] == b"HTTP/1.1 200 OK"
        assert b"content-length: 2" in head
        assert b"date: today" in head


def test_whole_responses_to_pipelined_requests_keep_their_order() -> None:
    transport = exchange(Giving(), get("/a") + get("/b") + get("/c"))
    assert [written[-2:] for written in transport.writes] == [b"/a", b"/b", b"/c"]


@pytest.mark.parametrize(
    ("request_", "ending"),
    [
        (get("/a", "connection: close"), b"connection: close\r\n\r\n/a"),
        (get("/a").replace(b"1.1", b"1.0"), b"connection: close\r\n\r\n/a"),
        (get("/a", method="HEAD"), b"content-length: 2\r\n\r\n"),
    ],
)
def test_what_ends_the_connection_or_has_no_body(request_: bytes, ending: bytes) -> None:
    transport = exchange(Giving(), request_)
    assert b"".join(transport.writes).endswith(ending)
    assert transport.closed is (b"close" in ending)


@pytest.mark.parametrize("away", [False, True])
def test_nothing_is_written_to_a_client_that_is_away_or_does_not_read(away: bool) -> None:
    app = Giving()
    transport = Recorder()

    async def main() -> None:
        protocol = connected(app, transport)
        protocol.data_received(GET)
        if away:
            protocol.connection_lost(None)
        else:
            protocol.pause_writing()
        await asyncio.sleep(0.01)
        assert app.taken == [False]
        assert transport.writes == []
        if not away:
            protocol.resume_writing()
            await asyncio.sleep(0.01)
            assert len(transport.writes) == 1
            protocol.connection_lost(None)

    asyncio.run(main())
