"""A sealed segment that is damaged, gone or not to be opened costs no answer, and is built anew.

Before, each of them made every request of every route a 500, at full load of a processor, until a
restart; and most of them refused the restart.
"""

import errno
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from time import process_time

import numpy as np
import pytest
from resmem_service.memory.memory import ResidualMemory
from resmem_service.memory.options import MemoryOptions
from resmem_service.memory.rows import MemoryShape
from resmem_service.memory.search.soft_knn import SoftKnn
from resmem_service.memory.segments.build_process import BuildResult
from resmem_service.memory.segments.folders import StateFolders
from resmem_service.memory.segments.policy import SegmentPlan
from resmem_service.memory.segments.sealed_segment import SealedSegment
from resmem_service.memory.segments.segment_builder import SegmentBuilder

from tests.faults.damage import flip
from tests.memory.examples import PIXELS, RESIDUALS, SHAPE, SMALL, memories
from tests.memory.segments.test_sealer import wait_until

RULE = SoftKnn(k=1, sigma=10.0, ef=400)
QUIET = MemoryOptions(growing_bytes=1, maintain=False)
FIRST, SECOND = range(150), range(150, 300)

Damage = Callable[[Path], object]


def replace_file(folder: Path) -> None:
    shutil.copy(folder / "sequences.npy", folder / "new")
    (folder / "new").replace(folder / "weights.npy")


def put_a_file_in_its_place(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("")


def put_a_pipe_in_its_place(folder: Path) -> None:
    (folder / "segment.json").unlink()
    os.mkfifo(folder / "segment.json")


DAMAGES: dict[str, Damage] = {
    "cut": lambda folder: os.truncate(folder / "graph.hnsw", 0),
    "flipped": lambda folder: flip(folder / "graph.hnsw", 4000),
    "unlinked": lambda folder: (folder / "weights.npy").unlink(),
    "replaced": replace_file,
    "undescribed": lambda folder: (folder / "segment.json").unlink(),
    "no description": lambda folder: (folder / "segment.json").write_bytes(b"\xff{"),
    "a pipe": put_a_pipe_in_its_place,
    "no header": lambda folder: flip(folder / "residuals.npy", 20),
    "vanished": shutil.rmtree,
    "renamed": lambda folder: folder.rename(folder.with_name("elsewhere")),
    "a file": put_a_file_in_its_place,
    "all of them": lambda folder: shutil.rmtree(folder.parent),
}


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def opened(state: Path) -> Iterator[Callable[[MemoryOptions], ResidualMemory]]:
    """Memories of one state, as several workers have it; closed at the end, sealers first."""
    open_ones: list[ResidualMemory] = []

    def open_memory(options: MemoryOptions) -> ResidualMemory:
        memory = ResidualMemory.open(state, fitted=None, shape=SHAPE, options=options)
        open_ones.append(memory)
        return memory

    yield open_memory
    for memory in open_ones:
        memory.close()


def teach(memory: ResidualMemory, rows: range) -> None:
    ids = [f"taught-{row}" for row in rows]
    memory.append(memories(rows, ids=ids, weight=100)).result(10)


def check(memory: ResidualMemory, rows: range, *, forgotten: tuple[int, ...] = ()) -> None:
    """Every memory votes once, and what was forgotten does not."""
    living = [row for row in rows if row not in forgotten]
    found = memory.correct(PIXELS[living], RULE)
    assert found.distances[:, 0].max() == 0
    np.testing.assert_allclose(found.residuals, RESIDUALS[living], atol=1e-5)
    assert len(set(found.sequences[:, 0].tolist())) == len(living)
    for row in forgotten:
        assert memory.correct(PIXELS[[row]], RULE).distances[0, 0] > 0
    assert memory.size == len(living)


def sealed_folder(state: Path, memory: ResidualMemory) -> Path:
    wait_until(lambda: memory.statistics().segments == 1)
    (folder,) = StateFolders(state).segments.iterdir()
    return folder


@pytest.mark.parametrize("name", [name for name in DAMAGES if name != "flipped"])
def test_a_segment_that_is_damaged_before_it_is_mapped(
    state: Path, opened: Callable[[MemoryOptions], ResidualMemory], name: str
) -> None:
    """A worker that reads the catalogue only then answers from its rows in RAM."""
    late = opened(QUIET)
    teach(late, FIRST)
    assert late.forget("taught-3")
    sealing = opened(SMALL)
    folder = sealed_folder(state, sealing)
    sealing.close()
    DAMAGES[name](folder)
    for _ in range(3):
        check(late, FIRST, forgotten=(3,))
    assert [fault.reason for fault in late.faults()] == ["segment_unusable"]
    assert late.statistics().unusable_segments == 1
    # The follower goes on over newer rows and tombstones, those of other workers among them.
    other = opened(QUIET)
    teach(other, SECOND)
    check(late, range(300), forgotten=(3,))
    assert other.forget("taught-4")
    assert other.forget("taught-299")
    revision = late.revision
    check(late, range(300), forgotten=(3, 4, 299))
    assert late.revision == revision + 2
    check(other, range(300), forgotten=(3, 4, 299))
    # Whoever may build mends it, with no request.
    mending = opened(SMALL)
    wait_until(lambda: not mending.faults() and mending.statistics().segments > 0)
    for memory in (late, other, mending):
        check(memory, range(300), forgotten=(3, 4, 299))
        assert memory.faults() == []


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_segment_that_is_damaged_while_it_is_mapped(
    state: Path,
    opened: Callable[[MemoryOptions], ResidualMemory],
    damage: Damage,
    caplog: pytest.LogCaptureFixture,
) -> None:
    serving = opened(SMALL)
    teach(serving, FIRST)
    folder = sealed_folder(state, serving)
    check(serving, FIRST)
    damage(folder)
    check(serving, FIRST)
    wait_until(lambda: (folders := sealed_names(state)) != [] and folder.name not in folders)
    wait_until(lambda: serving.statistics().segments == 1 and not serving.faults())
    check(serving, FIRST)
    teach(serving, SECOND)
    assert serving.forget("taught-7")
    check(serving, range(300), forgotten=(7,))
    assert caplog.text.count(f"{folder}/") <= 3  # what is wrong is said once, not for each request


def test_a_flipped_bit_in_a_segment_that_was_mapped_without_reading_it(
    state: Path, opened: Callable[[MemoryOptions], ResidualMemory]
) -> None:
    """No prediction waits for checksums; the sealer's thread compares them once a second."""
    late = opened(QUIET)
    teach(late, FIRST)
    sealing = opened(SMALL)
    folder = sealed_folder(state, sealing)
    sealing.close()
    flip(folder / "graph.hnsw", 4000)
    late.refresh()
    assert late.statistics().segments == 1
    late.inspect()
    assert [fault.reason for fault in late.faults()] == ["segment_unusable"]
    check(late, FIRST)
    mending = opened(SMALL)
    wait_until(lambda: not mending.faults())
    check(late, FIRST)


def sealed_names(state: Path) -> list[str]:
    segments = StateFolders(state).segments
    if not segments.is_dir():
        return []
    return [path.name for path in segments.iterdir() if path.name.isdecimal() and path.is_dir()]


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_a_segment_that_is_damaged_when_the_server_starts(
    state: Path, opened: Callable[[MemoryOptions], ResidualMemory], damage: Damage
) -> None:
    first = opened(SMALL)
    teach(first, FIRST)
    folder = sealed_folder(state, first)
    assert first.forget("taught-9")
    first.close()
    damage(folder)
    for options in (QUIET, SMALL):
        memory = opened(options)
        memory.warm()
        check(memory, FIRST, forgotten=(9,))
        if options is QUIET:
            assert [fault.reason for fault in memory.faults()] == ["segment_unusable"]
    wait_until(lambda: not memory.faults() and memory.statistics().segments == 1)
    check(memory, FIRST, forgotten=(9,))


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EMFILE, "Too many open files", "graph.hnsw"),
        OSError(errno.ENFILE, "Too many open files in system", "graph.hnsw"),
        MemoryError(),
    ],
    ids=["EMFILE", "ENFILE", "MemoryError"],
)
def test_a_shortage_is_waited_for_and_nothing_is_built_anew(
    state: Path,
    opened: Callable[[MemoryOptions], ResidualMemory],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
) -> None:
    serving = opened(SMALL)
    with monkeypatch.context() as patch:
        patch.setattr(SealedSegment, "open", _refusing(error))
        teach(serving, FIRST)
        wait_until(lambda: bool(serving.faults()))
        check(serving, FIRST)
        teach(serving, range(150, 160))
        check(serving, range(160))
        assert caplog.text.count("sealed segment 00000001 cannot be used") == 1
    wait_until(lambda: not serving.faults() and serving.statistics().segments > 0)
    check(serving, range(160))
    assert sealed_names(state) == ["00000001"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EACCES, "Permission denied", "graph.hnsw"),
        OSError(errno.EIO, "Input/output error", "graph.hnsw"),
        RuntimeError("nobody expected this"),
    ],
    ids=["EACCES", "EIO", "unexpected"],
)
def test_whatever_opening_meets_costs_no_answer(
    state: Path,
    opened: Callable[[MemoryOptions], ResidualMemory],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    late = opened(QUIET)
    teach(late, FIRST)
    sealing = opened(SMALL)
    sealed_folder(state, sealing)
    sealing.close()
    opening = _refusing(error)
    with monkeypatch.context() as patch:
        patch.setattr(SealedSegment, "open", opening)
        for _ in range(100):
            check(late, FIRST)
        # Not for each request: once, and once more since it may have been merged away meanwhile.
        assert opening.calls == 2
    mending = opened(SMALL)
    wait_until(lambda: not mending.faults())
    check(late, FIRST)


class _refusing:  # noqa: N801 - stands for a method
    """In the place of `SealedSegment.open`."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.calls = 0

    def __call__(self, folder: Path, shape: MemoryShape) -> SealedSegment:
        self.calls += 1
        raise self.error


def test_a_broken_segment_costs_a_prediction_no_more_than_a_sound_one(
    state: Path, opened: Callable[[MemoryOptions], ResidualMemory]
) -> None:
    """Before, every request opened it again and read the catalogue eight times."""
    late = opened(QUIET)
    teach(late, FIRST)
    before = _cost(late)
    sealing = opened(SMALL)
    folder = sealed_folder(state, sealing)
    sealing.close()
    os.truncate(folder / "graph.hnsw", 0)
    check(late, FIRST)
    assert late.faults()
    assert _cost(late) < 3 * before


def _cost(memory: ResidualMemory) -> float:
    """The least CPU time of three runs of predictions."""

    def run() -> float:
        began = process_time()
        for _ in range(500):
            memory.correct(PIXELS[:1], RULE)
        return process_time() - began

    return min(run() for _ in range(3))


def test_a_merged_segment_that_is_damaged_leaves_those_it_was_made_of_in_use(
    state: Path, opened: Callable[[MemoryOptions], ResidualMemory]
) -> None:
    """No row is read from the journal: the old segments are mapped still."""
    late = opened(QUIET)
    sealing = opened(SMALL)
    teach(sealing, FIRST)
    sealed_folder(state, sealing)
    late.refresh()
    assert late.statistics().segments == 1
    (old,) = sealed_names(state)
    teach(sealing, SECOND)
    wait_until(lambda: sealed_names(state) not in ([old], []) and not sealing.faults())
    wait_until(lambda: sealing.statistics().growing_rows < 64)
    sealing.close()
    (merged,) = sealed_names(state)
    os.truncate(StateFolders(state).segments / merged / "graph.hnsw", 100)
    check(late, range(300))
    statistics = late.statistics()
    assert (statistics.segments, statistics.sealed_rows) == (1, 128)
    assert statistics.unusable_segments == 1
    assert late.forget("taught-5")
    check(late, range(300), forgotten=(5,))
    mending = opened(SMALL)
    wait_until(lambda: not mending.faults())
    check(late, range(300), forgotten=(5,))
    assert late.statistics().growing_rows < 64


def test_a_segment_that_can_never_be_built_keeps_no_other_from_being_sealed(
    state: Path,
    opened: Callable[[MemoryOptions], ResidualMemory],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    build = SegmentBuilder._build

    def fail_the_first(builder: SegmentBuilder, plan: SegmentPlan, lock: int) -> BuildResult:
        if plan.first == 1:
            raise RuntimeError("its rows cannot be read")
        return build(builder, plan, lock)

    serving = opened(SMALL)
    teach(serving, FIRST)
    folder = sealed_folder(state, serving)
    monkeypatch.setattr(SegmentBuilder, "_build", fail_the_first)
    os.truncate(folder / "graph.hnsw", 0)
    check(serving, FIRST)
    wait_until(lambda: "sealing_failed" in {fault.reason for fault in serving.faults()})
    teach(serving, range(150, 300))
    wait_until(lambda: serving.statistics().segments == 1)
    assert serving.statistics().unusable_segments == 1
    check(serving, range(300))


def test_what_is_forgotten_while_a_segment_cannot_be_opened_stays_forgotten(
    state: Path,
    opened: Callable[[MemoryOptions], ResidualMemory],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Compaction drops tombstones: a file that it did not renew would bring the memory back."""
    sealing = opened(SMALL)
    teach(sealing, FIRST)
    sealed_folder(state, sealing)
    sealing.close()
    with monkeypatch.context() as patch:
        shortage = OSError(errno.EMFILE, "Too many open files", "graph.hnsw")
        patch.setattr(SealedSegment, "open", _refusing(shortage))
        serving = opened(QUIET)
        assert serving.forget("taught-11")
        serving.compact()
        check(serving, FIRST, forgotten=(11,))
    with closing(ResidualMemory.open(state, fitted=None, shape=SHAPE, options=QUIET)) as again:
        check(again, FIRST, forgotten=(11,))


def test_a_segment_that_another_worker_has_merged_away_is_no_loss(
    state: Path,
    opened: Callable[[MemoryOptions], ResidualMemory],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Before, a worker that had not followed the merge yet took it for a file that was lost."""
    late = opened(QUIET)
    sealing = opened(SMALL)
    teach(sealing, FIRST)
    folder = sealed_folder(state, sealing)
    late.refresh()
    teach(sealing, SECOND)
    wait_until(lambda: not folder.exists())
    caplog.clear()
    late.inspect()
    assert late.faults() == []
    assert late.statistics().unusable_segments == 0
    assert caplog.text == ""
    check(late, range(300))


def test_a_segment_that_is_merged_away_between_a_look_and_the_next(
    state: Path,
    opened: Callable[[MemoryOptions], ResidualMemory],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The merge falls between the reading of the catalogue and the look at the folder."""
    late = opened(QUIET)
    sealing = opened(SMALL)
    teach(sealing, FIRST)
    folder = sealed_folder(state, sealing)
    late.refresh()
    look = SealedSegment.missing_name

    def merge_first(segment: SealedSegment) -> str | None:
        if folder.exists() and not sealing.size > len(FIRST):
            teach(sealing, SECOND)
            wait_until(lambda: not folder.exists())
        return look(segment)

    with monkeypatch.context() as patch:
        patch.setattr(SealedSegment, "missing_name", merge_first)
        caplog.clear()
        late.inspect()
    assert late.faults() == []
    assert caplog.text == ""
    assert len(sealed_names(state)) == 1
    assert not folder.exists()
    check(late, range(300))


def test_no_shortage_of_descriptors_makes_a_mapped_segment_a_damaged_one(
    state: Path, opened: Callable[[MemoryOptions], ResidualMemory]
) -> None:
    """Before, the checksums opened the files by name, and what could not be opened was damaged."""
    serving = opened(SMALL)
    teach(serving, FIRST)
    folder = sealed_folder(state, serving)
    segment = SealedSegment.open(folder, SHAPE)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        segment.verify()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert segment.damage is None
    assert segment.verified
