"""Writers of several processes against whoever resets the log: the shape of the WAL-reset bug.

The long run: `RESMEM_STRESS_S=600 pytest tests/faults/test_checkpoints.py`.
"""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from resmem_service.memory.journal.sqlite.journal import SqliteJournal
from resmem_service.memory.journal.sqlite.log_check import damage_in
from resmem_service.memory.journal.sqlite.snapshot import open_snapshot
from resmem_service.memory.memory import ResidualMemory
from resmem_service.memory.segments.folders import StateFolders

from tests.faults.journal_worker import FORGOTTEN
from tests.memory.examples import SHAPE

STRESS_S = float(os.environ.get("RESMEM_STRESS_S", "3"))
WRITERS = ("a", "b", "c")


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.faults.journal_worker", *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def stop(process: subprocess.Popen[str]) -> int:
    """What it has done."""
    told, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    return int(told)


@pytest.mark.timeout(300 + 2 * STRESS_S)
def test_no_commit_is_lost_beside_checkpoints_and_compaction(tmp_path: Path) -> None:
    folders = StateFolders(tmp_path)
    SqliteJournal(folders.journal, SHAPE).close()
    writers = {name: start("append", tmp_path, name) for name in WRITERS}
    others = [start("checkpoint", tmp_path), start("checkpoint", tmp_path)]
    others.append(start("compact", tmp_path))
    for process in (*writers.values(), *others):
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
    time.sleep(STRESS_S)
    committed = {name: stop(writer) for name, writer in writers.items()}
    resets = [stop(other) for other in others]
    assert min(committed.values()) > 0
    assert max(resets) > 0
    expected = {
        f"{name}-{number}"
        for name, count in committed.items()
        for number in range(count)
        if number % FORGOTTEN
    }
    assert damage_in(folders.log) is None
    with open_snapshot(folders.journal) as snapshot:
        assert snapshot.faults(10) == []
        found = [memory.record.id for memory in snapshot.stored()]
    assert len(found) == len(set(found))
    assert set(found) == expected
    memory = ResidualMemory.open(tmp_path, fitted=None, shape=SHAPE)
    assert memory.size == len(expected)
    memory.close()
