"""Connections over real sockets: what is no request, what is too large, what stays in order."""

import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import FittedModel
from tests.end_to_end.server import Server
from tests.server.wire import Client, counted, counts, eventually, get, post, resident_bytes, row

MIB = 2**20
LIMIT = 8 * MIB


@pytest.fixture(scope="module")
def server(digits: FittedModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    flags = ["--max-body-bytes", str(LIMIT), "--admin-keys", "root", "--predict-keys", "p"]
    with Server(digits.store, tmp_path_factory.mktemp("state"), flags) as running:
        running.client.headers["authorization"] = "Bearer root"
        yield running


KEY = "Authorization: Bearer p\r\nContent-Type: application/json"


def served(server: Server) -> None:
    with Client(server) as client:
        assert client.send(post(row(), KEY)).response().status == 200


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        (b"nonsense\r\n\r\n", 400, "malformed_request"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, "malformed_request"),
        (b"GET /healthz HTTP/1.1\nHost: a\n\n", 400, "malformed_request"),
        (b"GET /healthz\r\n", 400, "malformed_request"),
        (get("/healthz", "A: b\nContent-Length: 3"), 400, "malformed_request"),
        (post(b"", "Content-Length: 1"), 400, "malformed_request"),
        (post(b"", "Transfer-Encoding: chunked"), 400, "malformed_request"),
        (get("/predict", "Transfer-Encoding: gzip, chunked"), 501, "unsupported_transfer_coding"),
        (get("/predict", method="FOO"), 501, "unknown_method"),
        (get("/metrics", method="FOO"), 501, "unknown_method"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "http_version_not_supported"),
        (post(b"", "Expect: 200-ok"), 417, "expectation_failed"),
        (get("/" + "a" * 70_000), 431, "head_too_large"),
        (get("/healthz", *["a:"] * 200), 431, "head_too_large"),
        (get("/healthz", *["a: " + "b" * 1000] * 100), 431, "head_too_large"),
    ],
)
@pytest.mark.parametrize("step", [5000, 10**6])
def test_what_is_no_request(
    server: Server, request_: bytes, status: int, code: str, step: int
) -> None:
    """Answered in the envelope, counted with few labels, and the connection is closed."""
    label = f'resmem_requests_rejected_total{{reason="{code}"}}'
    with counts(server, label), Client(server) as client:
        for at in range(0, len(request_), step):
            client.try_to_send(request_[at : at + step], 1)
        response = client.last_response()
        assert (response.status, response.code) == (status, code)
    served(server)


def test_an_unknown_method_is_counted_as_other(server: Server) -> None:
    label = 'resmem_http_requests_total{code="501",method="other",route="other"}'
    with counts(server, label), Client(server) as client:
        client.send(get("/predict", method="FOO")).last_response()


def test_errors_of_the_inference_protocol_have_its_shape(server: Server) -> None:
    with Client(server) as client:
        response = client.send(get("/v2/models/digits", method="FOO")).last_response()
    assert b'"error":"' in response.body
    assert b'"code":"unknown_method"' in response.body


def test_a_flood_of_nonsense_leaves_a_line_with_the_address(
    digits: FittedModel, tmp_path: Path
) -> None:
    with Server(digits.store, tmp_path) as flooded:
        addresses = []
        for _ in range(200):
            with Client(flooded) as client:
                addresses.append(client.address)
                client.send(get("/predict", method="FOO")).last_response()
        flooded.terminate()
        messages = flooded.whole_log()
        lines = [line for line in flooded.log if line.get("reason") == "unknown_method"]
        assert len(messages) < 20
        assert lines[0]["peer"] == addresses[0]
        assert lines[0]["level"] == "warning"


@pytest.mark.parametrize("path", ["/metrics", "/docs", "/admin/reload", "/nowhere", "/predict"])
@pytest.mark.parametrize("filler", [b"X: y\r\n", b"x", b"X: " + b"y" * 1000 + b"\r\n"])
def test_a_head_without_end_costs_nothing(server: Server, path: str, filler: bytes) -> None:
    """250 MB of them took 4.8 GB."""
    before = resident_bytes(server)
    with Client(server) as client:
        client.send(f"GET {path} HTTP/1.1\r\n".encode())
        block = filler * (2**17 // len(filler))
        client.try_to_send(block, 800)  # 100 MB
        assert resident_bytes(server) < before + 20 * MIB
    served(server)


def test_a_head_that_comes_byte_by_byte(server: Server) -> None:
    request = post(row(), KEY)
    with Client(server) as client:
        client.send(*(request[at : at + 1] for at in range(len(request))))
        assert client.response().status == 200


def test_empty_lines_before_a_request(server: Server) -> None:
    with Client(server) as client:
        client.send(b"\r\n", b"\r\n\r\n" + get("/healthz"), pause_s=0.05)
        assert client.response().status == 200


@pytest.mark.parametrize("step", [1, 7, 10**6])
def test_chunks(server: Server, step: int) -> None:
    body = row()
    middle = len(body) // 2
    wire = b"%x;a=b\r\n%b\r\n%x\r\n%b\r\n0\r\nAuthorization: none\r\n\r\n" % (
        middle,
        body[:middle],
        len(body) - middle,
        body[middle:],
    )
    with Client(server) as client:
        client.send(get("/predict", "Transfer-Encoding: chunked", KEY, method="POST"))
        client.send(*(wire[at : at + step] for at in range(0, len(wire), step)))
        assert client.response().status == 200
        assert client.send(get("/healthz")).response().status == 200


@pytest.mark.parametrize(
    ("wire", "status"),
    [(b"zz\r\n", 400), (b"1\r\nab\r\n", 400), (b"1;" + b"a" * 10**5, 431)],
)
def test_broken_chunks(server: Server, wire: bytes, status: int) -> None:
    with Client(server) as client:
        client.send(get("/predict", "Transfer-Encoding: chunked", KEY, method="POST") + wire)
        assert client.last_response().status == status


@pytest.mark.parametrize("pause_s", [0.0, 0.05])
def test_pipelined_requests_are_answered_in_order(server: Server, pause_s: float) -> None:
    requests = [get("/healthz"), post(row(), KEY), get("/nowhere"), post(b"x", KEY)] * 5
    with Client(server) as client:
        client.send(*([b"".join(requests)] if not pause_s else requests), pause_s=pause_s)
        assert [client.response().status for _ in requests] == [200, 200, 404, 400] * 5


def test_a_flood_of_pipelined_requests_waits_in_the_clients_socket(server: Server) -> None:
    before = resident_bytes(server)
    one = get("/healthz")
    with Client(server) as client:
        client.socket.settimeout(1)
        client.try_to_send(one * (2**18 // len(one)), 400)  # 100 MB, none of the answers is read
        assert resident_bytes(server) < before + 30 * MIB
    served(server)


@pytest.mark.parametrize("path", ["/predict", "/model", "/metrics", "/nowhere"])
def test_a_client_that_closes_its_half_gets_its_answer(server: Server, path: str) -> None:
    request = post(row(), KEY) if path == "/predict" else get(path, KEY)
    with Client(server) as client:
        client.send(request).half_close()
        assert client.response().status == (404 if path == "/nowhere" else 200)
        assert client.rest() == b""


def test_pipelined_requests_before_the_half_was_closed_are_all_answered(server: Server) -> None:
    with Client(server) as client:
        client.send((get("/healthz") + post(row(), KEY)) * 3).half_close()
        assert [client.response().status for _ in range(6)] == [200] * 6
        assert client.rest() == b""


@pytest.mark.parametrize("part", [b"GET / HT", post(row(), KEY, length=10**6)])
def test_half_a_request_and_no_more(server: Server, part: bytes) -> None:
    with Client(server) as client:
        response = client.send(part).half_close().last_response()
    assert (response.status, response.code) == (400, "malformed_request")


def test_to_continue(server: Server) -> None:
    body = row()
    with Client(server) as client:
        client.send(post(b"", "Expect: 100-continue", KEY, length=len(body)))
        assert client.response().status == 100
        assert client.send(body).response().status == 200
        assert client.send(get("/healthz")).response().status == 200


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (post(b"", "Expect: 100-continue", KEY, length=LIMIT + 1), 413),
        (post(b"", "Expect: 100-continue", length=10), 401),
        (post(b"", "Expect: 100-continue", KEY, length=10, path="/memorize"), 403),
        (post(b"", "Expect: 100-continue", length=10, path="/nowhere"), 404),
        (post(b"", "Expect: 100-continue", KEY, length=10, path="/metrics"), 405),
    ],
)
def test_a_refusal_in_place_of_to_continue_ends_the_connection(
    server: Server, request_: bytes, status: int
) -> None:
    """It stayed open, and the next request was taken for the body."""
    with Client(server) as client:
        assert client.send(request_).last_response().status == status


@pytest.mark.parametrize("coding", ["length", "chunks"])
@pytest.mark.parametrize("path", ["/predict", "/metrics", "/docs", "/nowhere"])
def test_a_body_that_is_too_large_is_refused_readably(
    server: Server, path: str, coding: str
) -> None:
    """Although the client sends all of it before it reads."""
    before = resident_bytes(server)
    block = b"0" * MIB
    with Client(server) as client:
        if coding == "length":
            client.send(post(b"", KEY, path=path, length=40 * MIB))
            parts = [block] * 40
        else:
            client.send(get(path, "Transfer-Encoding: chunked", KEY, method="POST"))
            parts = [b"%x\r\n%b\r\n" % (MIB, block)] * 40
        client.send(*parts)
        response = client.last_response()
        expected = {"/predict": 413, "/nowhere": 404}.get(path, 405)
        assert response.status == expected
        assert resident_bytes(server) < before + 3 * LIMIT + 20 * MIB


def test_no_key_no_upload(server: Server) -> None:
    """Who may not come in is told before the body."""
    with Client(server) as client:
        response = client.send(post(b"0" * 1000, length=LIMIT)).last_response()
    assert response.status == 401


def test_a_body_that_a_route_does_not_read_does_not_end_the_connection(server: Server) -> None:
    with Client(server) as client:
        for _ in range(2):
            assert client.send(post(b"x" * 100, path="/nowhere")).response().status == 404
        assert client.send(get("/healthz")).response().status == 200


def test_what_is_sent_after_a_refusal_is_not_answered(server: Server) -> None:
    with Client(server) as client:
        client.send(get("/a", method="FOO") + get("/healthz"), get("/healthz"))
        client.last_response()


def test_head_has_no_body(server: Server) -> None:
    with Client(server) as client:
        client.send(get("/docs", method="HEAD") + get("/healthz"))
        assert client.response(bodiless=True).status == 200
        assert client.response().body == b'{"status":"ok"}'


def test_http_1_0_closes(server: Server) -> None:
    with Client(server) as client:
        client.send(get("/healthz").replace(b"1.1", b"1.0"))
        assert client.last_response().status == 200


@pytest.mark.parametrize("target", ["/%0d%0aX-Injected:%20yes", "/memories/%0d%0aX-Injected:%201"])
def test_line_ends_in_a_path_reach_no_header(server: Server, target: str) -> None:
    with Client(server) as client:
        response = client.send(get(target, "Authorization: Bearer root")).response()
    assert response.status == 404
    assert "x-injected" not in response.headers


def test_compressed_bodies(server: Server) -> None:
    large = row() + b" " * (LIMIT - len(row()))
    with Client(server) as client:
        for content, status in ((large, 200), (large + b" ", 413)):
            client.send(post(gzip.compress(content, 1), "Content-Encoding: gzip", KEY))
            assert client.response().status == status
    eventually(lambda: counted(server, "resmem_inflight_body_bytes") == 0)
    assert counted(server, "resmem_connections") >= 1
