import fcntl
import shutil
from pathlib import Path

import numpy as np
import pytest
from resmem_service.errors import CorruptFile, JournalUnavailable
from resmem_service.maintenance.repair import Repaired, repair
from resmem_service.maintenance.verification import verify
from resmem_service.memory.memory import ResidualMemory
from resmem_service.memory.options import MemoryOptions
from resmem_service.memory.search.soft_knn import SoftKnn
from resmem_service.progress import Silent

from tests.maintenance.examples import Taught, digit_memories, flip
from tests.memory.examples import execute

QUIET = MemoryOptions(maintain=False)
RULE = SoftKnn(k=5, sigma=1.0)


def mend(taught: Taught, *, forget_damaged: bool = False) -> Repaired:
    shape = taught.bundle.manifest.memory_shape()
    return repair(taught.folders, shape, forget_damaged=forget_damaged, wait_s=0.1)


def opened(taught: Taught) -> ResidualMemory:
    return ResidualMemory.open(
        taught.folders.root,
        fitted=taught.bundle.memories_path,
        shape=taught.bundle.manifest.memory_shape(),
        options=QUIET,
    )


def faults(taught: Taught) -> list[str]:
    found = verify(taught.bundle, taught.folders, Silent())
    return [finding.detail for finding in found if finding.level == "fault"]


def change(taught: Taught, statement: str) -> None:
    execute(taught.folders.journal, statement)


def test_a_sound_state_is_left_alone(taught: Taught) -> None:
    assert mend(taught) == Repaired([], [], [])


def test_damaged_and_missing_segments_are_built_from_the_journal(taught: Taught) -> None:
    memory = opened(taught)
    queries = digit_memories(taught.model, range(40)).embeddings
    before = memory.correct(queries, RULE)
    memory.close()
    flip(taught.segment(1) / "graph.hnsw", 0.5)
    shutil.rmtree(taught.segment(2))
    done = mend(taught)
    assert [(entry.first, entry.last, entry.rows) for entry in done.rebuilt] == [
        (1, 60, 59),
        (61, 110, 49),
    ]
    assert (done.dropped, done.left) == ([], [])
    assert faults(taught) == []
    memory = opened(taught)
    after = memory.correct(queries, RULE)
    assert memory.size == 899 + 148
    memory.close()
    assert np.array_equal(after.sequences, before.sequences)
    np.testing.assert_allclose(after.residuals, before.residuals, atol=1e-6)


def test_a_running_memory_takes_the_new_segment(taught: Taught) -> None:
    memory = opened(taught)
    queries = digit_memories(taught.model, range(40)).embeddings
    before = memory.correct(queries, RULE)
    (taught.segment(1) / "targets.npy").unlink()
    assert len(mend(taught).rebuilt) == 1
    after = memory.correct(queries, RULE)
    assert memory.size == 899 + 148
    memory.close()
    np.testing.assert_allclose(after.residuals, before.residuals, atol=1e-6)


def test_memories_that_no_segment_holds_get_one(taught: Taught) -> None:
    change(taught, "DELETE FROM segments WHERE number = 1")
    (entry,) = mend(taught).rebuilt
    assert (entry.first, entry.last, entry.rows) == (1, 60, 59)
    assert faults(taught) == []


def test_damaged_memories_are_forgotten_only_when_told_to(taught: Taught) -> None:
    change(taught, "UPDATE memories SET weight = 2 WHERE sequence IN (7, 130)")
    flip(taught.segment(1) / "weights.npy", 0.5)
    done = mend(taught)
    assert (done.rebuilt, done.dropped) == ([], [])
    assert len(done.left) == 3
    assert "forget its damaged memories first" in done.left[2]
    done = mend(taught, forget_damaged=True)
    assert done.dropped == ["digit-6", "digit-129"]
    assert [entry.rows for entry in done.rebuilt] == [58]
    assert done.left == []
    assert faults(taught) == []


def test_a_memory_whose_id_was_damaged_can_be_forgotten(taught: Taught) -> None:
    content = taught.folders.journal.read_bytes()
    # The first place is in the table: its leaves were written before those of the index.
    places = [at for at in range(len(content)) if content.startswith(b"digit-140", at)]
    assert len(places) == 2
    for place in places:
        taught.folders.journal.write_bytes(content)
        flip(taught.folders.journal, place)
        if any("sequence" in fault or "memory 141" in fault for fault in faults(taught)):
            break
    done = mend(taught, forget_damaged=True)
    assert len(done.dropped) == 1
    assert faults(taught) == []


def test_segments_that_know_more_than_the_journal_are_kept(taught: Taught) -> None:
    change(taught, "DELETE FROM memories WHERE sequence = 7")
    done = mend(taught)
    assert done.rebuilt == []
    assert "has lost 1 memories" in done.left[0]
    assert taught.segment(1).is_dir()


def test_a_damaged_journal_is_beyond_repair(taught: Taught) -> None:
    content = taught.folders.journal.read_bytes()
    taught.folders.journal.write_bytes(content[: len(content) // 2])
    with pytest.raises(CorruptFile, match=r"journal\.sqlite3"):
        mend(taught)


def test_no_journal_is_made_where_there_is_none(taught: Taught) -> None:
    taught.folders.journal.unlink()
    with pytest.raises(JournalUnavailable, match=r"journal\.sqlite3"):
        mend(taught)
    assert not taught.folders.journal.exists()


def test_it_waits_for_the_lock(taught: Taught) -> None:
    with taught.folders.lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(JournalUnavailable, match=r"segments\.lock"):
            mend(taught)


def test_a_build_that_fails_leaves_the_state_as_it_was(
    taught: Taught, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise RuntimeError("building a segment failed: OSError: disk full")

    flip(taught.segment(1) / "graph.hnsw", 0.5)
    before = sorted(path.name for path in taught.folders.segments.iterdir())
    monkeypatch.setattr(
        "resmem_service.memory.segments.segment_builder.SegmentBuilder._build", fail
    )
    with pytest.raises(JournalUnavailable, match="disk full"):
        mend(taught)
    assert sorted(path.name for path in taught.folders.segments.iterdir()) == before
    monkeypatch.undo()
    assert len(mend(taught).rebuilt) == 1


def test_what_other_processes_left_is_swept(taught: Taught) -> None:
    left = Path(taught.folders.segments / "00000099")
    left.mkdir()
    flip(taught.segment(1) / "graph.hnsw", 0.5)
    mend(taught)
    assert not left.exists()
