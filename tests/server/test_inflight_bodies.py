"""The memory of bodies in flight, on real servers."""

import gzip
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conftest import FittedModel
from tests.end_to_end.server import Server
from tests.server.wire import Client, Response, counted, eventually, get, post, resident_bytes, row

MIB = 2**20
BODY = 24 * MIB
BUDGET = 64 * MIB
FLAGS = ["--max-body-bytes", str(BODY), "--max-inflight-bytes", str(BUDGET)]
WIDE = 40 * MIB
"""What RSS may grow by beside the budget."""


@pytest.fixture(scope="module", params=[1, 2])
def server(
    digits: FittedModel, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Server]:
    state = tmp_path_factory.mktemp("state")
    with Server(digits.store, state, FLAGS, workers=request.param) as running:
        yield running


def polite(server: Server) -> None:
    with Client(server) as client:
        assert client.send(post(row())).response().status == 200


def all_is_free(server: Server) -> None:
    eventually(lambda: counted(server, "resmem_inflight_body_bytes") == 0)


@pytest.mark.parametrize("framing", ["length", "chunks"])
def test_many_half_sent_bodies(server: Server, framing: str) -> None:
    """They stay within the budget, with small requests served beside them; then all is free."""
    polite(server)
    before = resident_bytes(server)
    block = b"0" * MIB
    clients = []
    for _ in range(15):
        client = Client(server)
        clients.append(client)
        if framing == "length":
            client.send(post(b"", length=BODY))
        else:
            client.send(get("/predict", "Transfer-Encoding: chunked", method="POST"))
        part = block if framing == "length" else b"%x\r\n%b\r\n" % (MIB, block)
        client.try_to_send(part, 20)
        polite(server)
        assert resident_bytes(server) < before + BUDGET + WIDE
    refused = [client for client in clients if client.readable()]
    assert len(refused) >= 12
    for client in refused:
        response = client.last_response()
        assert (response.status, response.code) == (503, "overloaded")
        assert response.headers["retry-after"]
    for client in clients:
        client.socket.close()
    all_is_free(server)
    whole = row() + b" " * (BODY - len(row()))
    with Client(server) as client:
        assert client.send(post(whole)).response().status == 200
    all_is_free(server)


def test_what_comes_out_of_compressed_bodies_is_counted(server: Server) -> None:
    """Each of 60 small bodies becomes 24 MB: at most the budget's worth of them at a time."""
    polite(server)
    before = resident_bytes(server)
    request = post(gzip.compress(row() + b" " * (BODY - len(row()))), "Content-Encoding: gzip")

    def ask(_: int) -> Response:
        with Client(server) as client:
            return client.send(request).response()

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(ask, range(60)))
    assert {answer.status for answer in answers} <= {200, 503}
    assert [answer.status for answer in answers].count(200) >= 1
    assert resident_bytes(server) < before + BUDGET + BODY + WIDE
    all_is_free(server)


def test_small_requests_push_out_large_ones_that_do_not_go_on(server: Server) -> None:
    large = [Client(server).send(post(b"0" * (20 * MIB), length=BODY)) for _ in range(3)]
    small = [Client(server).send(post(b"0" * 200_000, length=200_001)) for _ in range(100)]
    polite(server)
    assert counted(server, "resmem_inflight_body_bytes") <= 1.2 * BUDGET
    eventually(lambda: any(client.readable() for client in large))
    for client in (*large, *small):
        client.socket.close()
    all_is_free(server)


def test_bodies_of_clients_that_go_are_freed(server: Server) -> None:
    for _ in range(30):
        with Client(server) as client:
            client.send(post(b"0" * (10 * MIB), length=BODY))
    all_is_free(server)
    polite(server)


def test_a_whole_body_that_waits_for_nothing_is_held_once(server: Server) -> None:
    """Joined from hundreds of parts without a copy of all of them."""
    polite(server)
    before = resident_bytes(server)
    whole = b"[" + b" " * (BODY - 2) + b"]"  # refused by the first look at it
    with Client(server) as client:
        client.send(post(whole[:-1], length=BODY))
        eventually(lambda: counted(server, "resmem_inflight_body_bytes") > BODY - 10)
        assert resident_bytes(server) < before + 2 * BODY + 10 * MIB
        assert client.send(whole[-1:]).response().status == 422
    all_is_free(server)
