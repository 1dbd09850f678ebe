"""A state that cannot be written: 507 for what is to be learned, everything else goes on, and what
was refused is taken again without a restart when it can be written again."""

import os
import re
import resource
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import apsw
import httpx
import pytest
from resmem_service.memory.memory import ResidualMemory
from resmem_service.memory.segments.folders import StateFolders

from tests.conftest import FittedModel
from tests.end_to_end.server import Server
from tests.faults.process_tree import descendants
from tests.memory.examples import PIXELS, RULE, SHAPE, SMALL, memories
from tests.memory.segments.test_sealer import wait_until

ROOT = os.geteuid() == 0


@contextmanager
def tmpfs(folder: Path, size: str) -> Iterator[Path]:
    """A small file system of its own; skips where one cannot be mounted."""
    folder.mkdir(parents=True)
    mounted = mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder)
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount a tmpfs here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def mount(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            ["mount", *map(str, arguments)], capture_output=True, text=True, check=False
        )
    except FileNotFoundError:
        pytest.skip("there is no mount command")


def teach(server: Server, digits: FittedModel, row: int) -> httpx.Response:
    body = {
        "inputs": [digits.inputs[row].tolist()],
        "targets": [int(digits.targets[row])],
        "ids": [f"taught-{row}"],
    }
    return server.client.post("/memorize", json=body)


def nearest(server: Server, digits: FittedModel, row: int) -> dict[str, Any]:
    prediction = server.predict(digits.inputs[row].tolist(), neighbours=1)
    found: dict[str, Any] = prediction["neighbours"][0]
    return found


def check_refusing(server: Server, digits: FittedModel) -> None:
    """`taught-0` is there; nothing else can be added, and it cannot be forgotten."""
    for refused in (teach(server, digits, 1), server.client.delete("/memories/taught-0")):
        assert refused.status_code == 507, refused.text
        assert refused.json()["error"]["code"] == "journal_unavailable"
        assert "journal.sqlite3" in refused.json()["error"]["message"]
    assert nearest(server, digits, 0)["id"] == "taught-0"
    assert nearest(server, digits, 1)["id"] != "taught-1"
    assert server.client.get("/memories/taught-0").status_code == 200
    assert server.client.get("/memories/taught-1").status_code == 404
    assert server.client.get("/readyz").status_code == 200


def check_recovered(server: Server, digits: FittedModel) -> None:
    answer = teach(server, digits, 1)
    assert answer.status_code == 201, answer.text
    assert answer.json()["created"] == 1
    for row in (0, 1):
        assert nearest(server, digits, row)["id"] == f"taught-{row}"


def check_after_restart(digits: FittedModel, state: Path) -> None:
    with Server(digits.store, state) as server:
        for row in (0, 1):
            assert nearest(server, digits, row)["id"] == f"taught-{row}"


def fill(folder: Path) -> Path:
    """Takes all space that is left."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return ballast


def test_a_full_disk(digits: FittedModel, tmp_path: Path) -> None:
    with tmpfs(tmp_path / "state", "8m") as state:
        with Server(digits.store, state) as server:
            assert teach(server, digits, 0).status_code == 201
            ballast = fill(state)
            check_refusing(server, digits)
            ballast.unlink()
            check_recovered(server, digits)
        check_after_restart(digits, state)


def test_a_disk_that_is_full_when_the_server_starts(digits: FittedModel, tmp_path: Path) -> None:
    with tmpfs(tmp_path / "state", "8m") as state:
        with Server(digits.store, state) as server:
            assert teach(server, digits, 0).status_code == 201
            server.terminate()
            assert server.status() == 0
        ballast = fill(state)
        with Server(digits.store, state) as server:
            check_refusing(server, digits)
            ballast.unlink()
            check_recovered(server, digits)
        check_after_restart(digits, state)


def test_files_that_may_not_grow(digits: FittedModel, tmp_path: Path) -> None:
    """As on a full disk, by a limit that needs no root."""
    with Server(digits.store, tmp_path) as server:
        assert teach(server, digits, 0).status_code == 201
        process = server.process.pid
        before = resource.prlimit(process, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        check_refusing(server, digits)
        resource.prlimit(process, resource.RLIMIT_FSIZE, before)
        check_recovered(server, digits)
    check_after_restart(digits, tmp_path)


def test_a_journal_that_another_process_has_locked(digits: FittedModel, tmp_path: Path) -> None:
    with Server(digits.store, tmp_path) as server:
        assert teach(server, digits, 0).status_code == 201
        (journal,) = tmp_path.rglob("journal.sqlite3")
        with closing(apsw.Connection(str(journal))) as other:
            other.execute("BEGIN IMMEDIATE")
            check_refusing(server, digits)
        check_recovered(server, digits)
    check_after_restart(digits, tmp_path)


@pytest.mark.parametrize("killed", [False, True])
def test_a_state_that_is_read_only_when_the_server_starts(
    digits: FittedModel, tmp_path: Path, killed: bool
) -> None:
    """The journal is read as it is, whether or not a write-ahead log was left beside it."""
    with tmpfs(tmp_path / "state", "8m") as state:
        with Server(digits.store, state) as server:
            assert teach(server, digits, 0).status_code == 201
            if killed:
                server.kill()
            else:
                server.terminate()
                assert server.status() == 0
        assert mount("-o", "remount,ro", state).returncode == 0
        with Server(digits.store, state) as server:
            check_refusing(server, digits)
            assert mount("-o", "remount,rw", state).returncode == 0
            check_recovered(server, digits)
        check_after_restart(digits, state)


def test_a_state_that_cannot_be_made_when_the_server_starts(
    digits: FittedModel, tmp_path: Path
) -> None:
    with tmpfs(tmp_path / "state", "8m") as state:
        assert mount("-o", "remount,ro", state).returncode == 0
        with Server(digits.store, state) as server:
            refused = teach(server, digits, 0)
            assert refused.status_code == 507
            assert "state" in refused.json()["error"]["message"]
            assert nearest(server, digits, 0)["id"].startswith("fit-")
            assert mount("-o", "remount,rw", state).returncode == 0
            assert teach(server, digits, 0).status_code == 201
            check_recovered(server, digits)
        check_after_restart(digits, state)


@pytest.mark.skipif(ROOT, reason="permissions do not bind root; the mounts above do")
def test_a_folder_without_permission(digits: FittedModel, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o500)
    with Server(digits.store, state) as server:
        assert teach(server, digits, 0).status_code == 507
        assert nearest(server, digits, 0)["id"].startswith("fit-")
        state.chmod(0o700)
        assert teach(server, digits, 0).status_code == 201
        check_recovered(server, digits)


def test_no_space_for_a_sealed_segment(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The rows stay in RAM and vote; they are sealed when there is space."""
    folders = StateFolders(tmp_path / "state")
    with tmpfs(folders.segments, "128k"):
        memory = ResidualMemory.open(folders.root, fitted=None, shape=SHAPE, options=SMALL)
        ballast = fill(folders.segments)
        assert memory.append(memories(range(100))).result(10).size == 100
        wait_until(lambda: "sealing failed" in caplog.text)
        assert "was not written whole" in caplog.text or "No space left" in caplog.text
        assert memory.correct(PIXELS[:100], RULE).distances[:, 0].max() == 0
        assert memory.append(memories(range(100, 110))).result(10).size == 110
        assert memory.statistics().segments == 0
        ballast.unlink()
        wait_until(lambda: memory.statistics().segments == 1)
        assert memory.size == 110
        assert memory.correct(PIXELS[:110], RULE).distances[:, 0].max() == 0
        traced = [record for record in caplog.records if record.exc_info]
        assert len(traced) == 1
        assert all("\n" not in record.getMessage() for record in caplog.records)
        memory.close()


def test_no_process_that_serves_has_another_sqlite(digits: FittedModel, tmp_path: Path) -> None:
    """Not one of the interpreter's or of the system: each would end the locks of the other."""
    with Server(digits.store, tmp_path, workers=2) as server:
        for row in range(2):
            assert teach(server, digits, row).status_code == 201
            nearest(server, digits, row)
        processes = [server.process.pid, *descendants(server.process.pid)]
        assert len(processes) >= 3
        for process in processes:
            mapped = Path(f"/proc/{process}/maps").read_text()
            assert not re.search(r"/(lib|_)sqlite3[^/]*\.so", mapped)
        memory = server.client.get("/model").json()["memory"]
        assert memory["journal"] == f"SQLite {apsw.sqlite_lib_version()}"


def test_forgetting_that_waits_for_a_lock_stops_no_look_up(
    digits: FittedModel, tmp_path: Path
) -> None:
    """More of them than the server has threads; each gets its answer when the lock is gone."""
    flags = ("--busy-ms", "60000")
    with Server(digits.store, tmp_path, flags) as server:
        for row in range(2):
            assert teach(server, digits, row).status_code == 201
        (journal,) = tmp_path.rglob("journal.sqlite3")
        url = f"{server.client.base_url}/memories/taught-0"
        with (
            ThreadPoolExecutor(60) as pool,
            closing(apsw.Connection(str(journal))) as other,
        ):
            other.execute("BEGIN IMMEDIATE")
            waiting = [pool.submit(httpx.delete, url, timeout=60) for _ in range(60)]
            wait_until(lambda: in_flight(server) >= 60)
            assert server.client.get("/memories/taught-1").status_code == 200
            assert nearest(server, digits, 0)["id"] == "taught-0"
            assert not any(request.done() for request in waiting)
            other.execute("ROLLBACK")
            codes = [request.result().status_code for request in waiting]
        assert sorted(codes) == [200] + [404] * 59
        assert nearest(server, digits, 0)["id"] != "taught-0"


def in_flight(server: Server) -> int:
    text = server.client.get("/metrics").text
    (line,) = (line for line in text.splitlines() if line.startswith("resmem_requests_in_flight"))
    return int(float(line.split()[-1]))
