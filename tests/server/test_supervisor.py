"""Several workers: one truth, one set of numbers, and what signals and kills do to them."""

import json
import logging
import os
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Event

import httpx
import pytest
from resmem_service.server import supervisor
from resmem_service.server.supervisor import supervise
from resmem_service.settings import load
from resmem_service.telemetry import logs

from tests.cli.test_serve import copied, served
from tests.conftest import FittedModel
from tests.end_to_end.server import Server
from tests.server.everyone import ask, ask_everyone, samples

ROW = [0.0] * 64
PREDICTED = 'resmem_http_requests_total{code="200",method="POST",route="/predict"}'
MEMORIZED = 'resmem_memorized_rows_total{result="created"}'


@pytest.fixture(scope="module")
def server(digits: FittedModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(digits.store, tmp_path_factory.mktemp("state"), workers=2) as running:
        yield running


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError(f"in a minute there was no {what}")


def gone(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return True
    return state.rpartition(")")[2].split()[0] == "Z"


def memorize(server: Server, row: list[float], target: int, id: str) -> dict[str, int]:
    body = {"inputs": [row], "targets": [target], "ids": [id]}
    answer = ask(server, "POST", "/memorize", json=body)
    assert answer.status_code == 201, answer.text
    found: dict[str, int] = answer.json()
    return found


def test_the_log_of_a_start(server: Server) -> None:
    messages = [line["message"] for line in server.log]
    assert messages[0] == "starting"
    assert messages.count("worker started") == messages.count("ready") == 2
    assert messages[-1] == "all workers ready"
    ready = {line["worker"] for line in server.log if line["message"] == "ready"}
    assert ready == {0, 1}


def test_memorized_by_any_known_to_every_worker_at_once(
    server: Server, digits: FittedModel
) -> None:
    for number, row in enumerate(digits.inputs[:5].tolist()):
        name = f"truth-{number}"
        memorize(server, row, 3, name)

        def has_it(answer: httpx.Response, name: str = name) -> None:
            (prediction,) = answer.json()["predictions"]
            # The next prediction, whoever makes it, not one soon after.
            assert prediction["neighbours"][0]["id"] == name

        body = {"inputs": [row], "neighbours": 1}
        ask_everyone(server, has_it, method="POST", path="/predict", json=body)
        assert ask(server, "DELETE", f"/memories/{name}").status_code == 200

        def has_it_no_longer(answer: httpx.Response, name: str = name) -> None:
            (prediction,) = answer.json()["predictions"]
            assert prediction["neighbours"][0]["id"] != name

        ask_everyone(server, has_it_no_longer, method="POST", path="/predict", json=body)


def test_a_memory_of_the_bundle_forgotten_by_any_is_gone_for_every_worker(server: Server) -> None:
    """Also for those who only look, and were not asked for a prediction since."""
    for name in ("fit-7", "fit-8", "fit-9"):
        assert ask(server, "DELETE", f"/memories/{name}").status_code == 200

        def is_gone(answer: httpx.Response) -> None:
            assert answer.status_code == 404

        def lists_it_not(answer: httpx.Response, name: str = name) -> None:
            assert name not in [memory["id"] for memory in answer.json()["memories"]]

        ask_everyone(server, is_gone, method="GET", path=f"/memories/{name}")
        listing = {"source": "fit", "limit": 20}
        ask_everyone(server, lists_it_not, method="GET", path="/memories", params=listing)


def test_the_same_id_from_many_clients_is_one_memory(server: Server, digits: FittedModel) -> None:
    before = ask(server, "GET", "/model").json()["memory"]["size"]
    row, other = digits.inputs[20].tolist(), digits.inputs[21].tolist()
    with ThreadPoolExecutor(16) as pool:
        same = list(pool.map(lambda _: memorize(server, row, 1, "one"), range(48)))
    assert sum(answer["created"] for answer in same) == 1
    assert sum(answer["replaced"] for answer in same) == 0
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda n: memorize(server, (row, other)[n % 2], 1, "one"), range(32)))

    def is_one(answer: httpx.Response) -> None:
        assert answer.json()["memory"]["size"] == before + 1

    ask_everyone(server, is_one, method="GET", path="/model")
    listed = ask(server, "GET", "/memories").json()["memories"]
    assert [memory["id"] for memory in listed].count("one") == 1


def test_whoever_answers_counts_for_all(server: Server) -> None:
    before = samples(server)
    asked = 0

    def count(answer: httpx.Response) -> None:
        nonlocal asked
        asked += 1
        assert answer.status_code == 200

    ask_everyone(server, count, method="POST", path="/predict", json={"inputs": [ROW]})

    def adds_up(answer: httpx.Response) -> None:
        assert f"{PREDICTED} {before[PREDICTED] + asked}" in answer.text
        assert 'resmem_model_info{name="digits",provider="cpu",version="1"} 1.0' in answer.text

    ask_everyone(server, adds_up, method="GET", path="/metrics")


def test_a_worker_is_killed(digits: FittedModel, tmp_path: Path) -> None:
    """Nothing acknowledged is lost, the other one serves on, no sum falls, and it is replaced."""
    with Server(digits.store, tmp_path, workers=2) as server:
        rows = digits.inputs.tolist()
        for number in range(20):
            memorize(server, rows[number], 1, f"before-{number}")
        before, pids = samples(server), server.pids()
        os.kill(pids[0], signal.SIGKILL)
        until(lambda: gone(pids[0]), "end of the worker")
        for number in range(20):
            memorize(server, rows[20 + number], 1, f"after-{number}")
            now = samples(server)
            for name, value in before.items():
                if "_total" in name and "worker=" not in name:  # those of one process end with it
                    assert now[name] >= value, name
        assert server.wait_for("worker ended")["status"] == "SIGKILL"
        server.wait_for("all workers ready")
        assert server.pids()[1] == pids[1]
        assert server.pids()[0] != pids[0]

        def knows_all(answer: httpx.Response) -> None:
            assert answer.json()["memory"]["size"] == 940

        ask_everyone(server, knows_all, method="GET", path="/model")
        found = samples(server)
        assert found[MEMORIZED] == 40
        # Gauges of the other worker may be a tenth of a second old.
        until(lambda: samples(server)["resmem_requests_in_flight"] == 1, "end of the dead's share")
        server.terminate()
        assert server.status() == 0
        assert not list(tmp_path.rglob("*-wal")), "the journal was not closed"


def test_a_worker_that_starts_takes_no_request_from_one_that_answers(
    digits: FittedModel, tmp_path: Path
) -> None:
    with Server(digits.store, tmp_path, workers=2) as server, ThreadPoolExecutor(1) as pool:
        over, statuses = Event(), Counter[int]()

        def keep_asking() -> None:
            while not over.is_set():
                with suppress(httpx.TransportError):  # it was the one that was killed
                    answer = ask(server, "POST", "/predict", json={"inputs": [ROW]})
                    statuses[answer.status_code] += 1

        asking = pool.submit(keep_asking)
        try:
            os.kill(server.pids()[0], signal.SIGKILL)
            server.wait_for("all workers ready")
        finally:
            over.set()
        asking.result()
        assert statuses.keys() == {200}


def test_the_supervisor_is_killed(digits: FittedModel, tmp_path: Path) -> None:
    with Server(digits.store, tmp_path, workers=2) as server:
        url = server.client.base_url
        server.kill()
        for pid in server.pids().values():
            until(lambda pid=pid: gone(pid), "end of the orphan")  # type: ignore[misc]
        with socket.create_server((url.host, url.port or 0)):
            pass  # nobody holds the port any more


def test_draining(digits: FittedModel, tmp_path: Path) -> None:
    """A request under way is answered; then all end, with status 0."""
    with Server(digits.store, tmp_path, workers=2) as server:
        url = server.client.base_url
        body = json.dumps({"inputs": [ROW]}).encode()
        head = f"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n"
        with socket.create_connection((url.host, url.port or 80), timeout=60) as slow:
            slow.sendall(head.encode() + body[:10])
            until(lambda: samples(server)["resmem_requests_in_flight"] == 2, "request in flight")
            server.terminate()
            for _ in range(2):
                assert server.wait_for("draining")["signal"] == "SIGTERM"
            slow.sendall(body[10:])
            assert slow.recv(65536).startswith(b"HTTP/1.1 200")
        assert server.status() == 0
        assert all(gone(pid) for pid in server.pids().values())


def test_told_twice_it_does_not_wait(digits: FittedModel, tmp_path: Path) -> None:
    with Server(digits.store, tmp_path, workers=2) as server:
        url = server.client.base_url
        with socket.create_connection((url.host, url.port or 80), timeout=60) as slow:
            slow.sendall(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n")
            until(lambda: samples(server)["resmem_requests_in_flight"] == 2, "request in flight")
            server.process.send_signal(signal.SIGINT)
            server.wait_for("draining")
            server.process.send_signal(signal.SIGINT)
            assert server.status() == 0


def test_a_model_that_does_not_load(digits: FittedModel, tmp_path: Path) -> None:
    """Nothing is gained by trying again: it ends as one worker alone does."""
    store = copied(digits, tmp_path)
    model = store / "digits/1/base.onnx"
    model.write_bytes(b"\0" * model.stat().st_size)
    done = served(store, tmp_path, "--workers", "2")
    assert done.returncode == 2
    assert "base.onnx" in done.stderr
    assert "Traceback" not in done.stderr
    missing = served(store, tmp_path, "--workers", "2", "--model", "cats")
    assert missing.returncode == 2
    assert missing.stderr.startswith("resmem: error: ")


def test_workers_that_die_again_and_again(
    digits: FittedModel,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    monkeypatch.setattr(supervisor, "_SHORTEST_PAUSE_S", 0.001)
    monkeypatch.setattr(logs, "configure", lambda *_: None)
    settings = load(store=digits.store, state_dir=tmp_path, workers=2, port=0)
    with caplog.at_level(logging.ERROR):
        assert supervise(settings) == 1
    assert "giving up: the workers die repeatedly" in caplog.text
