"""kill -9 at random instants, with two processes on one state and all kinds of work going on.

The long run: `RESMEM_KILLS=300 pytest tests/faults/test_kill.py --log-cli-level=INFO`. Another
`RESMEM_SEED` gives other instants.
"""

import logging
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from resmem_service.memory import fitted as names
from resmem_service.memory.journal.journal import Memories, StoredMemory
from resmem_service.memory.journal.sqlite.journal import SqliteJournal
from resmem_service.memory.memory import ResidualMemory
from resmem_service.memory.options import MemoryOptions
from resmem_service.memory.search.soft_knn import SoftKnn
from resmem_service.memory.segments.folders import StateFolders

from tests.faults.client import state_of
from tests.faults.digits import FITTED_ROWS, SHAPE, Digits
from tests.faults.history import History, Kind, Line, States
from tests.memory.examples import LABELS, PIXELS, fitted_folder

logger = logging.getLogger(__name__)

KILLS = int(os.environ.get("RESMEM_KILLS", "10"))
SEED = int(os.environ.get("RESMEM_SEED", "1"))
PATIENCE_S = 60
LONGEST_LIFE_S = 1.2
DIES_YOUNG = 0.12


class Workers:
    """Two workers on one state, in one process group; what they said, in order."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.processes: list[subprocess.Popen[bytes]] = []
        self.lines_of: dict[str, list[Line]] = {"a": [], "b": []}
        self._readers = []
        group = 0
        for name, lines in self.lines_of.items():
            paths = [str(folder / part) for part in ("state", "memories", "digits.npz")]
            command = [sys.executable, "-m", "tests.faults.worker", *paths, name, str(seed)]
            process = subprocess.Popen(
                command, process_group=group, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
            group = group or process.pid
            self.processes.append(process)
            self._readers.append(Thread(target=self._read, args=(process, lines)))
        for reader in self._readers:
            reader.start()

    def kill_one(self, index: int) -> None:
        self.processes[index].kill()

    def kill(self) -> None:
        """All at once: the workers and what they build segments with."""
        os.killpg(self.processes[0].pid, signal.SIGKILL)
        for reader in self._readers:
            reader.join(PATIENCE_S)
        for process in self.processes:
            assert process.wait(PATIENCE_S) == -signal.SIGKILL, "a worker died by itself"
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.close()
            process.stdout.close()

    @property
    def lines(self) -> list[Line]:
        return [line for lines in self.lines_of.values() for line in lines]

    def wait_for(self, kind: Kind) -> None:
        """Until a worker has said this, or both that they are ready."""
        deadline = time.monotonic() + PATIENCE_S
        while sum(line.kind == kind for line in self.lines) < (2 if kind == "ready" else 1):
            assert time.monotonic() < deadline, f"no worker has said that it is {kind}"
            assert all(process.poll() is None for process in self.processes), "a worker ended"
            time.sleep(0.01)

    def _read(self, process: subprocess.Popen[bytes], lines: list[Line]) -> None:
        assert process.stdout is not None
        lines.extend(Line.load(line) for line in process.stdout if line.endswith(b"\n"))


def live_and_die(folder: Path, seed: int, chance: random.Random) -> list[Line]:
    """Starts workers, kills them some time later; gives what they said."""
    workers = Workers(folder, seed)
    try:
        if chance.random() > DIES_YOUNG:
            workers.wait_for("ready")
        time.sleep(chance.uniform(0, LONGEST_LIFE_S * (3 if chance.random() < 0.2 else 1)))
        if chance.random() < 0.25:
            workers.kill_one(chance.randrange(2))
            time.sleep(chance.uniform(0, LONGEST_LIFE_S))
    finally:
        workers.kill()
    return workers.lines


def live_to_see(folder: Path, seed: int) -> list[Line]:
    """Starts workers and kills them when they have sealed and compacted."""
    workers = Workers(folder, seed)
    try:
        workers.wait_for("ready")
        workers.wait_for("sealed")
        workers.wait_for("compacted")
    finally:
        workers.kill()
    return workers.lines


@contextmanager
def opened(state: Path, fitted: Path) -> Iterator[ResidualMemory]:
    options = MemoryOptions(growing_bytes=1, maintain=False)
    memory = ResidualMemory.open(state, fitted=fitted, shape=SHAPE, options=options)
    with closing(memory):
        yield memory


def states_in(memory: ResidualMemory) -> States:
    """Every memory that the records know."""
    records = memory.records.page(source=None, limit=10**6)
    records += memory.records.page(source=names.SOURCE, limit=FITTED_ROWS)
    return {record.id: state_of(record.weight, record.source) for record in records}


def check_votes(memory: ResidualMemory, digits: Digits, states: States) -> None:
    """Every memory votes, and nothing else."""
    assert memory.size == len(states)
    sequences = {memory.records.find(id).sequence: id for id in states}
    rule = SoftKnn(k=memory.size, sigma=1.0, ef=2 * memory.size)
    found = {s for s in memory.correct(digits.pixels[:1], rule).sequences[0].tolist() if s != 0}
    assert found <= sequences.keys()
    # A graph has rows that no path leads to from that far away.
    for sequence in sequences.keys() - found:
        id = sequences[sequence]
        embedding = digits.row(id, states[id])
        nearest = memory.correct(embedding[None], replace(rule, k=1))
        assert (nearest.sequences[0, 0], nearest.distances[0, 0]) == (sequence, 0)


def stored_memories(state: Path) -> list[StoredMemory]:
    journal = SqliteJournal(StateFolders(state).journal, SHAPE, fitted_rows=FITTED_ROWS)
    found = journal.stored(0, 10**6)
    journal.close()
    return found


def rebuild(state: Path, clean: Path, fitted: Path) -> None:
    """A fresh state with what the journal of another says, and nothing of its segments."""
    with opened(state, fitted) as old:
        living = {r.id for r in old.records.page(source=names.SOURCE, limit=10**6)}
    with opened(clean, fitted) as memory:
        for row in range(FITTED_ROWS):
            if names.id_of(row) not in living:
                memory.forget(names.id_of(row))
        for one in stored_memories(state):
            record = one.record
            memory.append(
                Memories(
                    ids=[record.id],
                    inputs=[one.input],
                    targets=np.array([record.target], np.int32),
                    embeddings=one.embedding[None],
                    residuals=one.residual[None],
                    weights=np.array([record.weight]),
                    source=record.source,
                )
            )


@pytest.mark.timeout(120 + 30 * KILLS)
def test_kill_at_any_instant(tmp_path: Path) -> None:
    state, fitted = tmp_path / "state", fitted_folder(tmp_path, FITTED_ROWS)
    digits = Digits(PIXELS, LABELS)
    digits.save(tmp_path / "digits.npz")
    chance, history, counts = random.Random(SEED), History(FITTED_ROWS), Counter[str]()
    for kill in range(KILLS):
        seed = SEED * 10_000 + kill
        lines = live_and_die(tmp_path, seed, chance) if kill else live_to_see(tmp_path, seed)
        for line in lines:
            history.take(line)
            counts[line.kind] += 1
        with opened(state, fitted) as memory:
            states = states_in(memory)
            history.settle(states)
            check_votes(memory, digits, states)
    rebuild(state, tmp_path / "clean", fitted)
    queries = PIXELS[::9]
    with opened(state, fitted) as memory, opened(tmp_path / "clean", fitted) as clean:
        assert memory.size == clean.size
        rule = SoftKnn(k=20, sigma=10.0, ef=2 * memory.size)
        theirs, ours = clean.correct(queries, rule), memory.correct(queries, rule)
        np.testing.assert_allclose(ours.residuals, theirs.residuals, atol=1e-5)
    logger.info("%d kills, %d requests acknowledged, %s", KILLS, history.acknowledged, counts)
