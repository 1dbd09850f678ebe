"""A worker that hangs is replaced, and nothing waits for it longer than it may take."""

import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.conftest import FittedModel, TwoVersions
from tests.end_to_end.server import Server
from tests.faults.test_stopped_worker import stop
from tests.server.everyone import ask_everyone, samples
from tests.server.test_reload import reload, serves, use
from tests.server.test_supervisor import gone, until

ROW = [0.0] * 64
HUNG = 'resmem_worker_restarts_total{reason="hung"}'
DIED = 'resmem_worker_restarts_total{reason="died"}'
SOON = ["--worker-timeout-s", "2"]
LATE = ["--worker-timeout-s", "3600"]

FROZEN = """
import signal
import time

def freeze(*_):
    time.sleep(3600)

signal.signal(signal.SIGUSR2, freeze)
"""


def replaced(server: Server, worker: int) -> None:
    """Waits until another process is ready in the place of a worker."""
    before = server.pids()[worker]
    while server.pids()[worker] == before:
        server.next_line()
    server.wait_for("all workers ready")
    assert gone(before)


def test_a_stopped_worker_is_replaced_while_the_other_serves(
    digits: FittedModel, tmp_path: Path
) -> None:
    """It kept its place, and what it had accepted, for ever."""
    with Server(digits.store, tmp_path, SOON, workers=2) as server:
        assert (samples(server)[HUNG], samples(server)[DIED]) == (0, 0)
        other = server.pids()[1]
        stop(server.pids()[0])
        replaced(server, 0)
        (line,) = (line for line in server.log if line["message"].startswith("a worker hangs"))
        assert (line["level"], line["worker"]) == ("error", 0)
        ended = next(line for line in server.log if line["message"] == "worker ended")
        assert (ended["status"], ended["reason"]) == ("SIGKILL", "hung")
        assert server.pids()[1] == other
        assert (samples(server)[HUNG], samples(server)[DIED]) == (1, 0)
        os.kill(other, signal.SIGKILL)
        replaced(server, 1)
        assert (samples(server)[HUNG], samples(server)[DIED]) == (1, 1)
        server.terminate()
        assert server.status() == 0


def test_the_log_tells_where_a_worker_hung(digits: FittedModel, tmp_path: Path) -> None:
    """Its event loop is blocked, as by a request that takes for ever to parse."""
    (tmp_path / "sitecustomize.py").write_text(FROZEN)
    environment = {"PYTHONPATH": str(tmp_path)}
    with Server(digits.store, tmp_path / "state", SOON, environment, workers=2) as server:
        os.kill(server.pids()[1], signal.SIGUSR2)
        replaced(server, 1)
        (stacks,) = (
            line["message"] for line in server.log if "threads of worker 1" in line["message"]
        )
        assert "sitecustomize.py" in stacks
        assert "in freeze" in stacks

        def is_answered(answer: httpx.Response) -> None:
            assert answer.status_code == 200

        body = {"inputs": [ROW]}
        ask_everyone(server, is_answered, method="POST", path="/predict", json=body)


@pytest.fixture
def store(digits_twice: TwoVersions, tmp_path: Path) -> Path:
    store = Path(shutil.copytree(digits_twice.store, tmp_path / "store"))
    use(store, 1)
    return store


def test_a_reload_beside_a_worker_that_hangs(store: Path, tmp_path: Path) -> None:
    """It waited 600 s for it and failed."""
    with Server(store, tmp_path / "state", SOON, workers=2) as server:
        use(store, 2)
        # Only once the other one is known to answer, so that it gets the request.
        stop(server.pids()[0])
        assert reload(server)["model"]["version"] == "2"
        serves(server, "2")
        assert samples(server)[HUNG] == 1


def test_a_worker_that_dies_during_a_reload_is_replaced_at_once(
    store: Path, tmp_path: Path
) -> None:
    """Nobody was started before the reload had ended, which waits for the one that hangs."""
    with (
        Server(store, tmp_path / "state", LATE, workers=3) as server,
        ThreadPoolExecutor(1) as pool,
    ):
        use(store, 2)
        hung, dead = server.pids()[0], server.pids()[1]
        stop(hung)
        server.process.send_signal(signal.SIGHUP)
        os.kill(dead, signal.SIGKILL)
        server.wait_for("worker ended")
        server.wait_for("worker started")
        server.wait_for("ready")
        asking = pool.submit(reload, server)
        os.kill(hung, signal.SIGCONT)
        assert asking.result()["model"]["version"] == "2"
        serves(server, "2")
        until(lambda: samples(server)[DIED] == 1, "restart in the metrics")
