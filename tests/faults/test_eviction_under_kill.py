"""kill -9 while old memories are evicted: what goes is the oldest, and no more than is due."""

import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

import pytest
from resmem_service.memory.journal.retention import Retention
from resmem_service.memory.memory import ResidualMemory
from resmem_service.memory.options import MemoryOptions

from tests.faults.digits import SHAPE
from tests.memory.segments.test_sealer import wait_until

LIVES: Final = 3
LONGEST_LIFE_S: Final = 1.0
ROWS: Final = 300
AGE_S: Final = 1.0


@dataclass
class Writer:
    """One of the processes, over all its lives."""

    name: str
    next: int = 0
    """The first row that was not acknowledged."""
    commits: list[tuple[int, float]] = field(default_factory=list)
    """The first row of each, and a time before it."""

    def start(self, state: Path, bound: Retention) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.faults.evicting_worker"),
                *(str(state), self.name, str(self.next), json.dumps(asdict(bound))),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def hear(self, first: str, process: subprocess.Popen[str]) -> None:
        """Takes what a process said before it was killed; `first` is read already."""
        rest = process.communicate(timeout=60)[0]
        for line in (first + rest).splitlines(keepends=True):
            if line.endswith("\n"):
                end, began = line.split()
                self.commits.append((self.next, float(began)))
                self.next = int(end)

    def rows_in(self, memory: ResidualMemory) -> list[int]:
        records = memory.records.page(source=self.name, limit=10**6)
        return [int(record.id.partition("-")[2]) for record in records]

    def check(self, rows: list[int]) -> None:
        """What is there is the newest, without a gap."""
        if rows:
            assert rows == list(range(rows[0], rows[0] + len(rows)))
            assert rows[-1] + 1 >= self.next
            self.next = rows[-1] + 1  # committed, though nobody was told any more


@contextmanager
def opened(state: Path, bound: Retention, *, maintain: bool) -> Iterator[ResidualMemory]:
    options = MemoryOptions(growing_bytes=1, retention=bound, maintain=maintain)
    memory = ResidualMemory.open(state, fitted=None, shape=SHAPE, options=options)
    with closing(memory):
        yield memory


def live_and_die(writers: list[Writer], state: Path, bound: Retention) -> float:
    """Gives the time after which nothing can have been evicted any more."""
    processes = [writer.start(state, bound) for writer in writers]
    # A life begins with the first commit, however long a busy machine takes to get there.
    firsts = [process.stdout.readline() for process in processes if process.stdout is not None]
    time.sleep(random.uniform(0, LONGEST_LIFE_S))
    for process in processes:
        process.kill()
    for writer, first, process in zip(writers, firsts, processes, strict=True):
        writer.hear(first, process)
    return time.time()


@pytest.mark.parametrize("bound", [Retention(capacity_rows=ROWS), Retention(max_age_s=AGE_S)])
def test_the_newest_stay(tmp_path: Path, bound: Retention) -> None:
    writers = [Writer("a"), Writer("b")]
    for _ in range(LIVES):
        killed = live_and_die(writers, tmp_path, bound)
        with opened(tmp_path, bound, maintain=False) as memory:
            rows = [writer.rows_in(memory) for writer in writers]
            for writer, those in zip(writers, rows, strict=True):
                young = [first for first, began in writer.commits if began > killed - AGE_S]
                if bound.max_age_s and young:
                    assert those[0] <= young[0], "evicted before its time"
                writer.check(those)
            count = sum(map(len, rows))
            assert memory.size == count, "what was evicted votes, or what is there does not"
            if bound.capacity_rows:
                assert count >= min(ROWS, sum(writer.next for writer in writers))
    with opened(tmp_path, bound, maintain=True) as memory:
        wait_until(lambda: memory.size == (bound.capacity_rows or 0))
        for writer in writers:
            writer.check(writer.rows_in(memory))
