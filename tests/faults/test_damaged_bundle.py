"""The real server and a damaged bundle or state: it says which file, and does not serve."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import FittedModel
from tests.end_to_end.server import Server
from tests.faults.damage import flip

BUNDLE = ["manifest.json", "base.onnx", "memories/graph.hnsw", "memories/weights.npy"]
ROW = [0.0] * 64


@pytest.fixture
def store(digits: FittedModel, tmp_path: Path) -> Path:
    return Path(shutil.copytree(digits.store, tmp_path / "store"))


def refusal(store: Path, state: Path) -> str:
    """What a server that starts on it says before it ends."""
    command = [sys.executable, "-m", "service", "serve", "--port", "0"]
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


def test_a_damaged_journal_is_not_served(digits: FittedModel, tmp_path: Path) -> None:
    with Server(digits.store, tmp_path) as server:
        rows = digits.inputs[:20]
        body = {"inputs": rows.tolist(), "targets": digits.targets[:20].tolist()}
        assert server.client.post("/memorize", json=body).status_code == 201
        server.terminate()
        assert server.status() == 0
    (journal,) = tmp_path.rglob("journal.sqlite3")
    content = journal.read_bytes()
    # The embedding of a memory: a page of rows, found by the bytes of an input.
    flip(journal, content.index(rows[7].tobytes()) - 40)
    assert str(journal) in refusal(digits.store, tmp_path)


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
    """Predictions fail, the server lives, its log names the file."""
    path = store / "digits/1/memories/graph.hnsw"
    with Server(store, tmp_path / "state") as server:
        assert server.predict(ROW)
        os.truncate(path, 4096)
        for _ in range(2):
            answer = server.client.post("/predict", json={"inputs": [ROW]})
            assert answer.status_code == 500
            assert answer.json()["error"]["code"] == "internal"
        assert server.client.get("/healthz").status_code == 200
        server.terminate()
        assert server.status() == 0
        server.whole_log()
        assert any(str(path) in str(line) for line in server.log)


def test_a_sealed_segment_cut_while_it_is_served_is_built_anew(
    digits: FittedModel, tmp_path: Path
) -> None:
    with Server(digits.store, tmp_path, ["--growing-bytes", "65536"]) as server:
        rows = list(range(len(digits.inputs))) * 2
        body = {
            "inputs": digits.inputs[rows].tolist(),
            "targets": digits.targets[rows].tolist(),
        }
        assert server.client.post("/memorize", json=body).status_code == 201
        while not (segments := list(tmp_path.glob("**/segments/0*"))):
            server.predict(ROW)
        before = server.predict(ROW)
        os.truncate(segments[0] / "graph.hnsw", 0)
        status = 500
        while status == 500:
            answer = server.client.post("/predict", json={"inputs": [ROW]})
            status = answer.status_code
        assert status == 200
        assert answer.json()["predictions"][0]["scores"] == pytest.approx(
            before["scores"], abs=1e-5
        )
        # Predictions may have moved on just before the damaged folder is removed.
        for _ in range(1000):
            if not segments[0].exists():
                break
            server.predict(ROW)
        assert not segments[0].exists()
