import fcntl
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event

import pytest
from resmem_service.errors import JournalUnavailable, MemoryNotFound, QueueFull
from resmem_service.memory.journal.retention import Retention
from resmem_service.memory.memory import ResidualMemory
from resmem_service.memory.observer import SilentMemoryObserver
from resmem_service.memory.options import MemoryOptions
from resmem_service.memory.segments.build_process import BuildResult
from resmem_service.memory.segments.folders import StateFolders
from resmem_service.memory.segments.policy import SegmentPlan
from resmem_service.memory.segments.segment_builder import SegmentBuilder

from tests.memory.examples import PIXELS, RULE, SHAPE, SMALL, memories


class Watcher(SilentMemoryObserver):
    """Lets a test wait for segments instead of for time."""

    def __init__(self) -> None:
        self.rows: list[int] = []
        self.sealed = Event()

    def on_sealed(self, seconds: float, rows: int) -> None:
        self.rows.append(rows)
        self.sealed.set()


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
        total = memory.append(memories(range(part * 100, part * 100 + 100))).result(10).size
        wait_until(lambda: memory.statistics().growing_rows < 64)
    statistics = memory.statistics()
    assert total == statistics.sealed_rows + statistics.growing_rows == 200
    assert statistics.segments == 1
    assert watcher.rows == [64, 192]
    folders = [path.name for path in StateFolders(tmp_path / "state").segments.iterdir()]
    assert len(folders) == 1


def test_leftovers_of_a_dead_process_are_swept(
    tmp_path: Path, watcher: Watcher, opened: Callable[[], ResidualMemory]
) -> None:
    folders = StateFolders(tmp_path / "state")
    for name in (".building", "00000001", "00000077"):
        (folders.segments / name).mkdir(parents=True)
        (folders.segments / name / "graph.hnsw").write_bytes(b"half")
    (folders.segments / "lost+found").mkdir()
    (folders.segments / ".DS_Store").write_text("not ours")
    opened().append(memories(range(100))).result(10)
    assert watcher.sealed.wait(60)
    left = sorted(path.name for path in folders.segments.iterdir())
    assert left == [".DS_Store", "00000001", "lost+found"]


def test_only_the_holder_of_the_lock_seals(
    tmp_path: Path, watcher: Watcher, opened: Callable[[], ResidualMemory]
) -> None:
    memory = opened()
    with StateFolders(tmp_path / "state").lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        memory.append(memories(range(100))).result(10)
        assert not watcher.sealed.wait(1.5)
        assert memory.statistics().segments == 0
    wait_until(lambda: memory.statistics().segments == 1)


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

    monkeypatch.setattr(
        "resmem_service.memory.segments.segment_builder.SegmentBuilder._build", refuse
    )
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
    lock = StateFolders(tmp_path / "state").lock
    lock.parent.mkdir(parents=True)
    memory = opened()
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        memory.append(memories(range(64), source="bad")).result(10)
        assert memory.forget_source("bad") == 64
    assert watcher.sealed.wait(60)
    assert watcher.rows == [0]
    assert memory.size == 0
    assert list(StateFolders(tmp_path / "state").segments.iterdir()) == []


@pytest.mark.parametrize("retention", [Retention(capacity_rows=150), Retention(capacity_bytes=1)])
def test_the_oldest_are_evicted_over_the_capacity(tmp_path: Path, retention: Retention) -> None:
    keep = retention.capacity_rows or 1
    options = MemoryOptions(growing_bytes=1, retention=retention)
    memory = ResidualMemory.open(tmp_path / "s", fitted=None, shape=SHAPE, options=options)
    memory.append(memories(range(500), ids=[str(row) for row in range(500)])).result(10)
    wait_until(lambda: memory.size == keep)
    assert memory.records.find("499").sequence == 500
    with pytest.raises(MemoryNotFound):
        memory.records.find(str(499 - keep))
    assert memory.correct(PIXELS[[0]], RULE).sequences.min() >= 0
    revision = memory.revision
    memory.close()
    again = ResidualMemory.open(tmp_path / "s", fitted=None, shape=SHAPE, options=options)
    assert (again.size, again.revision) == (keep, revision)
    again.close()


def test_memories_over_their_age_are_evicted(tmp_path: Path) -> None:
    options = MemoryOptions(retention=Retention(max_age_s=0.2))
    memory = ResidualMemory.open(tmp_path / "s", fitted=None, shape=SHAPE, options=options)
    assert memory.append(memories(range(5))).result(10).size == 5
    wait_until(lambda: memory.size == 0)
    memory.close()


def test_compacting_removes_the_forgotten_from_every_file(
    tmp_path: Path, watcher: Watcher, opened: Callable[[], ResidualMemory]
) -> None:
    memory = opened()
    secret = PIXELS[77].tobytes()
    memory.append(memories(range(128), ids=[str(row) for row in range(128)])).result(10)
    assert watcher.sealed.wait(60)
    assert memory.forget("77")
    assert memory.compact() == 1
    assert memory.compact() == 0
    assert memory.size == 127
    before = memory.correct(PIXELS[:20], RULE).residuals
    memory.close()
    for path in (tmp_path / "state").rglob("*"):
        assert path.is_dir() or secret not in path.read_bytes(), path
    again = opened()
    assert again.size == 127
    assert (again.correct(PIXELS[:20], RULE).residuals == before).all()
    again.append(memories([77], ids=["77"])).result(10)
    assert again.correct(PIXELS[[77]], RULE).distances[0, 0] == 0


def test_what_is_forgotten_while_compacting_stays_forgotten(
    watcher: Watcher, opened: Callable[[], ResidualMemory], monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = opened()
    memory.append(memories(range(128), ids=[str(row) for row in range(128)])).result(10)
    assert watcher.sealed.wait(60)
    assert memory.forget("77")
    build = SegmentBuilder._build

    def build_and_forget(builder: SegmentBuilder, plan: SegmentPlan, lock: int) -> BuildResult:
        built = build(builder, plan, lock)
        assert memory.forget("78")
        return built

    monkeypatch.setattr(SegmentBuilder, "_build", build_and_forget)
    assert memory.compact() == 1
    assert memory.size == 126
    assert opened().size == 126


def test_compacting_waits_for_the_lock_and_says_who_has_it(
    tmp_path: Path, opened: Callable[[], ResidualMemory]
) -> None:
    memory = opened()
    with StateFolders(tmp_path / "state").lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(JournalUnavailable, match=r"segments\.lock"):
            memory.compact(wait_s=0.1)


def test_appends_are_refused_while_sealing_is_far_behind(tmp_path: Path) -> None:
    options = MemoryOptions(growing_bytes=1, max_growing_bytes=10_000, maintain=False)
    memory = ResidualMemory.open(tmp_path / "s", fitted=None, shape=SHAPE, options=options)
    memory.append(memories(range(100))).result(10)
    with pytest.raises(QueueFull, match="sealed"):
        memory.append(memories(range(1)))
    assert memory.correct(PIXELS[:1], RULE).distances[0, 0] == 0
    memory.close()


def test_bounds_must_be_above_zero() -> None:
    with pytest.raises(ValueError, match="above 0"):
        Retention(capacity_rows=0)
    assert not Retention()
    assert Retention(max_age_s=1)


def wait_until(condition: Callable[[], bool]) -> None:
    pause = Event()
    for _ in range(1000):
        if condition():
            return
        pause.wait(0.02)
    raise AssertionError("it did not come about in 20 s")


def test_a_builder_that_writes_more_than_a_pipe_holds_still_seals(
    monkeypatch: pytest.MonkeyPatch, watcher: Watcher, opened: Callable[[], ResidualMemory]
) -> None:
    """Its errors were read after its output had ended: both waited, and the lock was held."""
    monkeypatch.setenv("PYTHONVERBOSE", "1")  # some 500 KB on stderr
    memory = opened()
    memory.append(memories(range(100))).result(10)
    assert watcher.sealed.wait(60)
    assert watcher.rows[0] >= 64


def test_a_builder_that_hangs_is_ended_and_the_lock_is_free(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    watcher: Watcher,
    opened: Callable[[], ResidualMemory],
) -> None:
    hanging = tmp_path / "hanging"
    hanging.write_text("#!/bin/sh\nexec sleep 600\n")
    hanging.chmod(0o755)
    monkeypatch.setattr("resmem_service.memory.segments.segment_builder._LEAST_BUILD_S", 0.2)
    monkeypatch.setattr("resmem_service.memory.segments.segment_builder._ROW_S", 0.0)
    monkeypatch.setattr(sys, "executable", str(hanging))
    memory = opened()
    memory.append(memories(range(100))).result(10)
    wait_until(lambda: "building a segment took longer than" in caplog.text)
    monkeypatch.undo()
    assert watcher.sealed.wait(60)
    assert memory.size == 100
