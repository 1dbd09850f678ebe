"""Clients that take too long, on real servers with short deadlines."""

import resource
import time
from collections.abc import Iterator

import numpy as np
import orjson
import pytest

from tests.conftest import FittedModel
from tests.end_to_end.server import Server
from tests.server.wire import Client, counted, counts, eventually, get, post, resident_bytes, row

MIB = 2**20
FLAGS = {
    "--head-timeout-s": "1",
    "--keep-alive-s": "2",
    "--body-timeout-s": "1",
    "--send-timeout-s": "1",
}
BODY = {
    "length": post(b"{", length=1000),
    "chunks": get("/predict", "Transfer-Encoding: chunked", method="POST") + b"1\r\n{\r\n",
}


@pytest.fixture(scope="module")
def server(digits: FittedModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    flags = [part for pair in FLAGS.items() for part in pair]
    with Server(digits.store, tmp_path_factory.mktemp("state"), flags) as running:
        yield running


def closed(reason: str) -> str:
    return f'resmem_connections_closed_total{{reason="{reason}"}}'


def rejected(reason: str) -> str:
    return f'resmem_requests_rejected_total{{reason="{reason}"}}'


def large(rows: int = 4096) -> bytes:
    """A request whose answer is some 1.5 MB."""
    inputs = np.zeros((rows, 64), np.float32)
    return post(orjson.dumps({"inputs": inputs}, option=orjson.OPT_SERIALIZE_NUMPY))


@pytest.mark.parametrize("sent", [b"", b"\r\n\r\n"])
def test_a_new_connection_that_sends_nothing(server: Server, sent: bytes) -> None:
    with counts(server, closed("silent")), Client(server) as client:
        assert client.send(sent).rest() == b""


def test_a_head_that_does_not_end(server: Server) -> None:
    with counts(server, rejected("request_timeout")), Client(server) as client:
        response = client.send(b"GET /healthz HTTP/1.1\r\nHost: ").last_response()
        assert (response.status, response.code) == (408, "request_timeout")


def test_a_head_that_comes_too_slowly(server: Server) -> None:
    """Each byte is no new deadline."""
    with Client(server) as client:
        client.send(b"GET /healthz HTTP/1.1\r\nX: ")
        for _ in range(100):
            if client.try_to_send(b"y", 1) == 0 or client.readable():
                break
            time.sleep(0.1)
        assert client.response().status == 408


def test_a_connection_between_requests(server: Server) -> None:
    with counts(server, closed("idle")), Client(server) as client:
        for _ in range(3):
            assert client.send(get("/healthz")).response().status == 200
            time.sleep(0.5)
        assert client.rest() == b""


@pytest.mark.parametrize("framing", BODY)
def test_a_body_that_does_not_go_on(server: Server, framing: str) -> None:
    with counts(server, rejected("request_timeout")), Client(server) as client:
        response = client.send(BODY[framing]).last_response()
        assert (response.status, response.code) == (408, "request_timeout")


@pytest.mark.parametrize("path", ["/memorize", "/v2/models/digits/infer"])
def test_deadlines_of_other_routes(server: Server, path: str) -> None:
    with Client(server) as client:
        assert client.send(post(b"{", length=9, path=path)).last_response().status == 408


@pytest.mark.parametrize("framing", BODY)
def test_a_body_that_comes_a_few_bytes_at_a_time(server: Server, framing: str) -> None:
    more = b" " if framing == "length" else b"1\r\n \r\n"
    with Client(server) as client:
        client.send(BODY[framing])
        for _ in range(100):
            if client.try_to_send(more, 1) == 0 or client.readable():
                break
            time.sleep(0.1)
        response = client.response()
        assert (response.status, response.code) == (408, "request_timeout")


def test_a_body_that_is_slow_but_fast_enough(server: Server) -> None:
    body = row() + b" " * 200_000
    with Client(server) as client:
        client.send(post(b"", length=len(body)))
        parts = [body[at : at + 8192] for at in range(0, len(body), 8192)]
        client.send(*parts, pause_s=0.1)
        assert client.response().status == 200


def test_an_answer_that_nobody_reads(server: Server) -> None:
    with counts(server, closed("slow_reader")), Client(server, receive_bytes=4096) as client:
        client.socket.settimeout(1)
        client.try_to_send(large(), 8)
        eventually(lambda: counted(server, "resmem_inflight_body_bytes") == 0)
        eventually(lambda: counted(server, "resmem_connections") <= 2)


def test_an_answer_that_is_read_slowly(server: Server) -> None:
    with Client(server, receive_bytes=4096) as client:
        client.send(large())
        for _ in range(30):
            client.read_some(2**15)
            time.sleep(0.1)
        response = client.response()
        assert response.status == 200
        assert len(orjson.loads(response.body)["predictions"]) == 4096


def test_two_thousand_silent_connections_beside_a_polite_client(server: Server) -> None:
    """All are closed when their time is over, and the client notices nothing of them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    many = min(2000, (hard if hard != resource.RLIM_INFINITY else 10**6) - 200)
    if soft != resource.RLIM_INFINITY and soft < many + 200:
        resource.setrlimit(resource.RLIMIT_NOFILE, (many + 200, hard))
    before = resident_bytes(server)
    parts = [b"", b"GET /predict HTT", post(b"{", length=100)]
    silent = []
    try:
        for number in range(many):
            silent.append(Client(server).send(parts[number % 3]))
            if number % 20 == 0:
                assert server.client.post("/predict", content=row()).status_code == 200
        assert resident_bytes(server) < before + 60 * MIB
        for client in silent:
            client.ended()
        assert server.client.post("/predict", content=row()).status_code == 200
    finally:
        for client in silent:
            client.socket.close()
    eventually(lambda: counted(server, "resmem_connections") <= 2)
