"""How the real server starts, drains and ends, and how it stands what clients do to sockets."""

import json
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from tests.conftest import FittedModel
from tests.end_to_end.server import Server

ROW = [0.0] * 64
SLOW_LOAD = """
import sys
import time

class Slow:
    def find_spec(self, name, path=None, target=None):
        if name == "resmem_service.assembly":
            import onnxruntime

            class Session(onnxruntime.InferenceSession):
                def __init__(self, *arguments, **options):
                    time.sleep(3600)

            onnxruntime.InferenceSession = Session
        return None

sys.meta_path.insert(0, Slow())
"""


@pytest.fixture(scope="module")
def server(digits: FittedModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    flags = ["--max-body-bytes", "100000"]
    with Server(digits.store, tmp_path_factory.mktemp("state"), flags) as running:
        yield running


def raw(server: Server, request: bytes, *, then: bytes = b"") -> bytes:
    """Sends bytes, reads the head of the answer and what follows until the server closes."""
    url = server.client.base_url
    with socket.create_connection((url.host, url.port or 80), timeout=60) as connection:
        connection.sendall(request)
        if then:
            connection.sendall(then)
        connection.shutdown(socket.SHUT_WR)
        found = b""
        while part := connection.recv(65536):
            found += part
        return found


def test_the_log_of_a_start(server: Server) -> None:
    starting, serving, ready = server.log[:3]
    assert starting["message"] == "starting"
    assert starting["url"].startswith("http://127.0.0.1:")
    assert serving["message"] == "serving"
    assert {key: serving[key] for key in ("model", "version", "provider", "memories")} == {
        "model": "digits",
        "version": "1",
        "provider": "cpu",
        "memories": 900,
    }
    assert ready["message"] == "ready"
    assert ready["seconds"] > 0


def test_headers(server: Server) -> None:
    headers = server.client.get("/healthz").headers
    assert "server" not in headers
    assert headers["x-request-id"]


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_far_too_large(server: Server, chunked: bool) -> None:
    """Refused without being kept, and the next request of the client is answered."""

    def chunks() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 100_000

    content = chunks() if chunked else b" " * 10_000_000
    answer = server.client.post("/predict", content=content)
    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "body_too_large"
    assert server.predict(ROW)


def test_no_http(server: Server) -> None:
    assert raw(server, b"\x16\x03\x01 what?\r\n\r\n").startswith(b"HTTP/1.1 400")
    assert server.predict(ROW)


def test_a_length_that_is_no_number(server: Server) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: ten\r\n\r\n"
    assert raw(server, head).startswith(b"HTTP/1.1 400")
    assert server.predict(ROW)


def test_a_client_that_goes_in_the_middle_of_its_body(server: Server) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n"
    raw(server, head, then=b'{"inputs": [[0')
    assert server.predict(ROW)
    metrics = server.client.get("/metrics").text
    assert "resmem_requests_in_flight 1.0" in metrics


def test_many_clients_at_once(server: Server, digits: FittedModel) -> None:
    rows = digits.inputs[:200].tolist()
    body = {"inputs": rows, "fields": ["label"]}
    together = server.client.post("/predict", json=body).json()["predictions"]
    with ThreadPoolExecutor(16) as pool:
        alone = list(pool.map(lambda row: server.predict(row, fields=["label"]), rows))
    assert alone == together


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_told_to_end(digits: FittedModel, tmp_path: Path, signum: signal.Signals) -> None:
    with Server(digits.store, tmp_path) as server:
        server.predict(ROW)
        server.client.get("/nowhere")
        server.process.send_signal(signum)
        assert server.status() == 0
        # And requests leave no line.
        assert server.whole_log() == ["starting", "serving", "ready", "draining"]
        assert server.log[-1]["signal"] == signum.name
    assert not list(tmp_path.rglob("*-wal")), "the journal was not closed"


@contextmanager
def half_a_request(server: Server) -> Iterator[tuple[socket.socket, bytes]]:
    """A connection on which a request is under way, and the rest of that request."""
    url = server.client.base_url
    body = json.dumps({"inputs": [ROW]}).encode()
    head = f"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection((url.host, url.port or 80), timeout=60) as slow:
        slow.sendall(head.encode() + body[:10])
        # Only once it is seen to be under way.
        while "resmem_requests_in_flight 2.0" not in server.client.get("/metrics").text:
            pass
        yield slow, body[10:]


def test_leaving(digits: FittedModel, tmp_path: Path) -> None:
    """After SIGTERM only readiness fails for a while, and late in it connections are closed."""
    with Server(digits.store, tmp_path, ["--shutdown-delay-s", "3"]) as server:
        assert server.client.get("/readyz").status_code == 200
        server.terminate()
        server.wait_for("no longer ready")
        answer = server.client.get("/readyz")
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] == "not_ready"
        assert answer.headers["retry-after"]
        assert server.client.get("/healthz").status_code == 200
        closed: list[bool] = []
        while not any(closed):
            answer = server.client.post("/predict", json={"inputs": [ROW]})
            assert answer.status_code == 200
            closed.append(answer.headers.get("connection") == "close")
        assert not closed[0]
        taught = server.client.post("/memorize", json={"inputs": [ROW], "targets": [1]})
        assert taught.status_code == 201
        assert server.status() == 0
        assert server.whole_log()[-1] == "draining"


def test_draining(digits: FittedModel, tmp_path: Path) -> None:
    """What is under way is answered, also on a connection that was idle; nobody else gets in."""
    with Server(digits.store, tmp_path) as server, httpx.Client(timeout=60) as idle:
        url = server.client.base_url
        assert idle.get(f"{url}/healthz").status_code == 200
        with half_a_request(server) as (slow, rest):
            server.terminate()
            server.wait_for("draining")
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((url.host, url.port or 80), timeout=60)
            answer = server.client.post("/predict", json={"inputs": [ROW]})
            assert answer.status_code == 200
            assert answer.headers["connection"] == "close"
            assert idle.get(f"{url}/readyz").status_code == 503
            slow.sendall(rest)
            answered = slow.recv(65536)
            assert answered.startswith(b"HTTP/1.1 200")
            assert b"connection: close" in answered
        assert server.status() == 0


@pytest.mark.parametrize("workers", [1, 2])
def test_a_body_that_never_ends_delays_the_stop_once(
    digits: FittedModel, tmp_path: Path, workers: int
) -> None:
    """It took drain_s twice, and the end, with the closing of the journal, was cut off."""
    with Server(digits.store, tmp_path, ["--drain-s", "6"], workers=workers) as server:
        with half_a_request(server):
            server.terminate()
            assert server.status() == 0
        assert not any("without more ado" in message for message in server.whole_log())
    assert not list(tmp_path.rglob("*-wal")), "the journal was not closed"


def test_ctrl_c_warns_nobody(digits: FittedModel, tmp_path: Path) -> None:
    with Server(digits.store, tmp_path, ["--shutdown-delay-s", "3600"]) as server:
        server.process.send_signal(signal.SIGINT)
        assert server.status() == 0
        assert server.whole_log()[-1] == "draining"


def test_stopped_while_the_model_is_loaded(digits: FittedModel, tmp_path: Path) -> None:
    """It waited until all was loaded. Nobody needs to be warned either."""
    (tmp_path / "sitecustomize.py").write_text(SLOW_LOAD)
    environment = {"PYTHONPATH": str(tmp_path), "RESMEM_SHUTDOWN_DELAY_S": "3600"}
    server = Server(digits.store, tmp_path / "state", environment=environment)
    try:
        url = server.wait_for("starting")["url"]
        while True:
            with suppress(httpx.TransportError):
                assert httpx.get(f"{url}/readyz", timeout=60).status_code == 503
                break
        server.terminate()
        assert server.status() == 0
    finally:
        server.process.kill()
        server.whole_log()
        assert server.process.stderr is not None
        server.process.stderr.close()


def test_told_twice_it_does_not_wait(digits: FittedModel, tmp_path: Path) -> None:
    with Server(digits.store, tmp_path) as server:
        url = server.client.base_url
        with socket.create_connection((url.host, url.port or 80), timeout=60) as slow:
            slow.sendall(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n")
            while "resmem_requests_in_flight 2.0" not in server.client.get("/metrics").text:
                pass
            server.terminate()
            server.wait_for("draining")
            assert server.client.get("/healthz").status_code == 200
            server.terminate()
            assert server.status() == 0
