"""The real server and a damaged bundle or state: it says which file, and goes on where it can."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.conftest import FittedModel
from tests.end_to_end.server import Server
from tests.faults.damage import flip
from tests.faults.place import searched_whole
from tests.memory.segments.test_sealer import wait_until

BUNDLE = ["manifest.json", "base.onnx", "memories/graph.hnsw", "memories/weights.npy"]
ROW = [0.0] * 64


@pytest.fixture
def store(digits: FittedModel, tmp_path: Path) -> Path:
    return Path(shutil.copytree(digits.store, tmp_path / "store"))


def refusal(store: Path, state: Path) -> str:
    """What a server that starts on it says before it ends."""
    command = [sys.executable, "-m", "resmem_service", "serve", "--port", "0"]
    places = ["--store", str(store), "--state-dir", str(state)]
    ended = subprocess.run(
        [*command, *places], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 2, ended.stderr
    assert "Traceback" not in ended.stderr
    return ended.stderr


@pytest.mark.parametrize("name", BUNDLE)
@pytest.mark.parametrize("cut", [False, True])
def test_a_damaged_bundle_is_not_served(store: Path, tmp_path: Path, name: str, cut: bool) -> None:
    path = store / "digits/1" / name
    size = path.stat().st_size
    if cut:
        os.truncate(path, size - 1)
    else:
        flip(path, size // 2)
    assert str(path) in refusal(store, tmp_path / "state")


def test_a_damaged_row_of_the_journal_costs_that_row(digits: FittedModel, tmp_path: Path) -> None:
    """Two workers, and a restart: the start was refused, and a running server answered 500."""
    rows = digits.inputs[:20]
    with Server(digits.store, tmp_path, workers=2) as server:
        body = {
            "inputs": rows.tolist(),
            "targets": digits.targets[:20].tolist(),
            "ids": [f"taught-{row}" for row in range(20)],
        }
        assert server.client.post("/memorize", json=body).status_code == 201
        server.terminate()
        assert server.status() == 0
    (journal,) = tmp_path.rglob("journal.sqlite3")
    content = journal.read_bytes()
    # The embedding of a memory: a page of rows, found by the bytes of an input.
    flip(journal, content.index(rows[7].tobytes()) - 40)
    with Server(digits.store, tmp_path, workers=2) as server:
        for _ in range(10):
            answer = ask(server, rows)
            assert answer["memory"]["size"] == 900 + 19
            nearest = [one["neighbours"][0]["id"] for one in answer["predictions"]]
            missed = [row for row in range(20) if nearest[row] != f"taught-{row}"]
            assert missed == [7]
            assert reasons(server) == ["rows_unreadable"]
        assert "resmem_memory_unreadable_rows 1.0" in server.client.get("/metrics").text
        body = {"inputs": [rows[0].tolist()], "targets": [3], "ids": ["taught-0"]}
        assert server.client.post("/memorize", json=body).status_code == 201
        assert ask(server, rows)["memory"]["size"] == 900 + 19
        server.terminate()
        assert server.status() == 0
        server.whole_log()
        assert sum("taught-7" in str(line) for line in server.log) == 2  # each worker, once
    place = ["--store", str(digits.store), "--state-dir", str(tmp_path)]
    verified = resmem("verify", *place)
    assert verified.returncode == 1
    assert "taught-7" in verified.stdout + verified.stderr
    repaired = resmem("repair", *place, "--forget-damaged")
    assert repaired.returncode == 0, repaired.stderr
    assert resmem("verify", *place).returncode == 0
    with Server(digits.store, tmp_path) as server:
        assert reasons(server) == []
        assert ask(server, rows)["memory"]["size"] == 900 + 19


def test_a_damaged_log_that_a_kill_left_is_not_served(digits: FittedModel, tmp_path: Path) -> None:
    with Server(digits.store, tmp_path) as server:
        for row in range(5):
            body = {"inputs": [digits.inputs[row].tolist()], "targets": [int(digits.targets[row])]}
            assert server.client.post("/memorize", json=body).status_code == 201
        server.kill()
    (log,) = tmp_path.rglob("journal.sqlite3-wal")
    # In the frames of a commit that others follow.
    flip(log, log.stat().st_size // 2)
    assert str(log) in refusal(digits.store, tmp_path)


def test_a_bundle_cut_while_it_is_served(store: Path, tmp_path: Path) -> None:
    """Predictions fail and readiness says why, the server lives, its log names the file."""
    path = store / "digits/1/memories/graph.hnsw"
    with Server(store, tmp_path / "state") as server:
        assert server.predict(ROW)
        os.truncate(path, 4096)
        for _ in range(2):
            answer = server.client.post("/predict", json={"inputs": [ROW]})
            assert answer.status_code == 500
            assert answer.json()["error"]["code"] == "internal"
        for route in ("/readyz", "/v2/health/ready", "/v2/models/digits/ready"):
            unready = server.client.get(route)
            assert unready.status_code == 503
            assert "bundle" in unready.text
        for route in ("/healthz", "/metrics", "/model", "/memories"):
            assert server.client.get(route).status_code == 200
        assert "resmem_memory_unusable_segments 1.0" in server.client.get("/metrics").text
        server.terminate()
        assert server.status() == 0
        server.whole_log()
        assert any(str(path) in str(line) for line in server.log)


@pytest.mark.parametrize("name", BUNDLE)
def test_a_touched_file_of_a_bundle_is_the_same_file(
    store: Path, tmp_path: Path, name: str
) -> None:
    """As a backup program or `touch` leaves it: every prediction was a 500 until a reload."""
    with Server(store, tmp_path / "state") as server:
        before = server.predict(ROW)
        for times in (None, (0, 0)):
            os.utime(store / "digits/1" / name, times)
            assert server.predict(ROW) == before
            assert reasons(server) == []


def test_a_bundle_that_is_removed_while_it_is_served(store: Path, tmp_path: Path) -> None:
    """Predictions go on with what is mapped; a restart would fail, and readiness says so."""
    with Server(store, tmp_path / "state") as server:
        before = server.predict(ROW)
        shutil.rmtree(store / "digits/1/memories")
        wait_until(lambda: reasons(server) == ["bundle_files_missing"])
        assert server.predict(ROW) == before


@pytest.mark.parametrize("mapped", [True, False], ids=["after", "before"])
def test_a_sealed_segment_cut_while_it_is_served_is_built_anew(
    digits: FittedModel, tmp_path: Path, mapped: bool
) -> None:
    """Cut after the server has mapped it, or before: no request fails, and it is built anew.

    Whether a server has mapped a segment that it has just published is a race; so it is decided
    here: one that starts has mapped all of them, and one that was stopped while another process
    sealed has not.
    """
    store = searched_whole(digits, tmp_path / "exact")
    rows = list(range(len(digits.inputs)))
    body = {
        "inputs": digits.inputs[rows].tolist(),
        "targets": digits.targets[rows].tolist(),
        "ids": [f"taught-{row}" for row in rows],
    }
    flags = ["--growing-bytes", "65536"]
    with Server(store, tmp_path, ["--growing-bytes", str(2**26)]) as server:
        assert server.client.post("/memorize", json=body).status_code == 201
        before = server.predict(ROW)
        if mapped:
            server.terminate()
            assert server.status() == 0
            with Server(store, tmp_path, flags) as sealing:
                segment = the_segment(sealing, tmp_path)
            with Server(store, tmp_path, flags) as mapping:
                assert sealed_rows(mapping) > 0
                check_cut(mapping, segment, before, tmp_path)
            return
        with Server(store, tmp_path, flags) as sealing:
            segment = the_segment(sealing, tmp_path)
            sealing.terminate()
            assert sealing.status() == 0
        # This one has had no request since, and looks after its segments once a second.
        check_cut(server, segment, before, tmp_path)


def the_segment(server: Server, state: Path) -> Path:
    """The one sealed segment there is, once all is sealed that fills growing segments."""
    wait_until(lambda: metric(server, 'memory_rows{tier="growing"}') < 212)
    (folder,) = state.glob("**/segments/0*")
    return folder


def check_cut(server: Server, segment: Path, before: dict[str, Any], state: Path) -> None:
    os.truncate(segment / "graph.hnsw", 0)
    for _ in range(20):
        assert server.predict(ROW)["scores"] == pytest.approx(before["scores"], abs=1e-5)
    wait_until(lambda: not segment.exists() and reasons(server) == [])
    (anew,) = state.glob("**/segments/0*")
    assert anew != segment
    assert sealed_rows(server) > 0
    assert server.predict(ROW)["scores"] == pytest.approx(before["scores"], abs=1e-5)


def sealed_rows(server: Server) -> float:
    """Those of the state, the bundle's aside."""
    return metric(server, 'memory_rows{tier="sealed"}') - 900


def metric(server: Server, name: str) -> float:
    text = server.client.get("/metrics").text
    return float(next(line for line in text.splitlines() if f"resmem_{name} " in line).split()[1])


def reasons(server: Server) -> list[str]:
    answer = server.client.get("/readyz")
    assert answer.status_code == 200
    return [each["reason"] for each in answer.json().get("degraded", [])]


def ask(server: Server, rows: NDArray[np.float32]) -> dict[str, Any]:
    answer = server.client.post("/predict", json={"inputs": rows.tolist(), "neighbours": 1})
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def resmem(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "resmem_service", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
