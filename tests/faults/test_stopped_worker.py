"""A worker that hangs (SIGSTOP, as a debugger or a frozen container does): what the others do."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.conftest import FittedModel
from tests.end_to_end.server import Server
from tests.server.everyone import ask, ask_everyone, samples
from tests.server.test_supervisor import until

TAUGHT = 40


def stop(process: int) -> None:
    os.kill(process, signal.SIGSTOP)
    status = Path(f"/proc/{process}/stat")
    until(lambda: status.read_text().rpartition(")")[2].split()[0] == "T", "standstill")


@contextmanager
def stopped(process: int) -> Iterator[None]:
    stop(process)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


def teach(server: Server, digits: FittedModel, row: int) -> httpx.Response:
    body = {
        "inputs": [digits.inputs[row].tolist()],
        "targets": [int(digits.targets[row])],
        "ids": [f"taught-{row}"],
    }
    return ask(server, "POST", "/memorize", json=body)


def test_the_other_serves_on_and_it_catches_up(digits: FittedModel, tmp_path: Path) -> None:
    with Server(digits.store, tmp_path, workers=2) as server:
        with stopped(server.pids()[0]):
            for row in range(TAUGHT):
                assert teach(server, digits, row).status_code == 201
                body = {"inputs": [digits.inputs[row].tolist()], "neighbours": 1}
                (prediction,) = ask(server, "POST", "/predict", json=body).json()["predictions"]
                assert prediction["neighbours"][0]["id"] == f"taught-{row}"
            assert ask(server, "DELETE", "/memories/taught-0").status_code == 200
            assert samples(server)['resmem_memorized_rows_total{result="created"}'] == TAUGHT

        def knows_all(answer: httpx.Response) -> None:
            assert answer.json()["memory"]["size"] == 900 + TAUGHT - 1

        ask_everyone(server, knows_all, method="GET", path="/model")


def test_told_to_end_nobody_waits_for_it_longer_than_for_requests(
    digits: FittedModel, tmp_path: Path
) -> None:
    with Server(digits.store, tmp_path, ["--drain-s", "0"], workers=2) as server:
        assert teach(server, digits, 0).status_code == 201
        stop(server.pids()[0])
        server.terminate()
        assert server.status() == 0
    with Server(digits.store, tmp_path) as server:
        assert server.client.get("/memories/taught-0").status_code == 200


def test_told_twice_nobody_waits_for_it_at_all(digits: FittedModel, tmp_path: Path) -> None:
    with Server(digits.store, tmp_path, ["--drain-s", "3600"], workers=2) as server:
        assert teach(server, digits, 0).status_code == 201
        stop(server.pids()[0])
        server.terminate()
        server.wait_for("draining")  # said by the other one
        server.terminate()
        assert server.status() == 0
    with Server(digits.store, tmp_path) as server:
        assert server.client.get("/memories/taught-0").status_code == 200
