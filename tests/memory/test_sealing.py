import fcntl
import json
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from threading import Event

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.memory.graph_settings import GraphSettings
from service.memory.journal import SegmentEntry
from service.memory.memory import ResidualMemory
from service.memory.observer import Unobserved
from service.memory.seal_process import SealTask
from service.memory.sealing import FANOUT, Backlog, SealFolders, plan
from tests.memory.examples import SHAPE, SMALL, memories


class Watcher(Unobserved):
    """Lets a test wait for segments instead of for time."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.sealed = Event()

    def on_sealed(self, seconds: float, rows: int) -> None:
        self.rows.append(rows)
        self.sealed.set()


def entries(sizes: list[int]) -> list[SegmentEntry]:
    return [SegmentEntry(i + 1, i * 1000, i * 1000 + 999, rows) for i, rows in enumerate(sizes)]


@given(st.integers(1, 3000))
def test_few_segments_remain_however_often_one_is_sealed(seals: int) -> None:
    sizes: list[int] = []
    written = 0
    for _ in range(seals):
        taken = plan(Backlog(entries(sizes), 1, 0))
        merged = 1 + sum(entry.rows for entry in taken)
        sizes = [*sizes[: len(sizes) - len(taken)], merged]
        written += merged
    assert sum(sizes) == seals
    assert all(older > FANOUT * newer for older, newer in pairwise(sizes))
    assert len(sizes) <= 8
    assert written <= seals * (1 + 3 * len(bin(seals)))


def test_a_task_survives_the_command_line() -> None:
    task = SealTask("j", 1, 2, "f", SHAPE, GraphSettings(m=8))
    assert SealTask.load(task.dump()) == task
    assert json.loads(task.dump())["shape"]["dim"] == 64


@pytest.fixture
def watcher() -> Watcher:
    return Watcher()


@pytest.fixture
def opened(tmp_path: Path, watcher: Watcher) -> Iterator[Callable[[], ResidualMemory]]:
    memory: list[ResidualMemory] = []

    def open_memory() -> ResidualMemory:
        memory.append(
            ResidualMemory.open(
                tmp_path / "state", fitted=None, shape=SHAPE, options=SMALL, observer=watcher
            )
        )
        return memory[-1]

    yield open_memory
    for one in memory:
        one.close()


def test_full_growing_segments_are_sealed_and_merged(
    tmp_path: Path, watcher: Watcher, opened: Callable[[], ResidualMemory]
) -> None:
    memory = opened()
    total = 0
    for part in range(2):
        watcher.sealed.clear()
        total = memory.append(memories(range(part * 100, part * 100 + 100))).result(10).size
        assert watcher.sealed.wait(60)
    statistics = memory.statistics()
    assert total == statistics.sealed_rows + statistics.growing_rows == 200
    assert statistics.growing_rows < 64
    assert statistics.segments == 1
    assert watcher.rows == [64, 192]
    folders = [path.name for path in SealFolders(tmp_path / "state").segments.iterdir()]
    assert len(folders) == 1


def test_leftovers_of_a_dead_process_are_swept(
    tmp_path: Path, watcher: Watcher, opened: Callable[[], ResidualMemory]
) -> None:
    folders = SealFolders(tmp_path / "state")
    for name in (".building", "00000001", "00000077"):
        (folders.segments / name).mkdir(parents=True)
        (folders.segments / name / "graph.hnsw").write_bytes(b"half")
    opened().append(memories(range(100))).result(10)
    assert watcher.sealed.wait(60)
    assert [path.name for path in folders.segments.iterdir()] == ["00000001"]


def test_only_the_holder_of_the_lease_seals(
    tmp_path: Path, watcher: Watcher, opened: Callable[[], ResidualMemory]
) -> None:
    memory = opened()
    with SealFolders(tmp_path / "state").lease.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        memory.append(memories(range(100))).result(10)
        assert not watcher.sealed.wait(1.5)
        assert memory.statistics().segments == 0
    assert watcher.sealed.wait(60)
    assert memory.statistics().segments == 1


def test_a_build_that_fails_leaves_the_rows_and_is_tried_again(
    watcher: Watcher,
    opened: Callable[[], ResidualMemory],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    memory = opened()
    failed = Event()

    def refuse(*_: object) -> int:
        failed.set()
        raise OSError("disk full")

    monkeypatch.setattr("service.memory.sealing.Sealer._build", refuse)
    assert memory.append(memories(range(100))).result(10).size == 100
    assert failed.wait(10)
    assert memory.size == 100
    monkeypatch.undo()
    assert watcher.sealed.wait(60)
    assert memory.size == 100
    assert "sealing failed" in caplog.text


def test_rows_forgotten_while_their_segment_was_built_stay_forgotten(
    watcher: Watcher, opened: Callable[[], ResidualMemory]
) -> None:
    memory = opened()
    memory.append(memories(range(128), ids=[str(i) for i in range(128)])).result(10)
    assert memory.forget("5")
    assert watcher.sealed.wait(60)
    assert memory.size == 127


def test_a_segment_of_which_no_row_lives_leaves_no_folder(
    tmp_path: Path, watcher: Watcher, opened: Callable[[], ResidualMemory]
) -> None:
    lease = SealFolders(tmp_path / "state").lease
    lease.parent.mkdir(parents=True)
    memory = opened()
    with lease.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        memory.append(memories(range(64), source="bad")).result(10)
        assert memory.forget_source("bad") == 64
    assert watcher.sealed.wait(60)
    assert watcher.rows == [0]
    assert memory.size == 0
    assert list(SealFolders(tmp_path / "state").segments.iterdir()) == []
