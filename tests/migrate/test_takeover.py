"""The memories of one state into another: hidden until whole, gone on with, never a loss."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from resmem_service.errors import CorruptFile, JournalUnavailable
from resmem_service.memory.journal.journal import Memories, StoredMemory
from resmem_service.memory.journal.sqlite.journal import SqliteJournal
from resmem_service.memory.journal.sqlite.takeover import Arrivals
from resmem_service.memory.memory import ResidualMemory
from resmem_service.memory.options import MemoryOptions
from resmem_service.memory.rows import MemoryShape
from resmem_service.memory.segments.folders import StateFolders
from resmem_service.migrate.takeover import Takeover, take_over

from tests.memory.examples import LABELS, RESIDUALS, SHAPE, memories

NEW_SHAPE = MemoryShape(dim=3, width=10, task="classification")


@pytest.fixture
def old(tmp_path: Path) -> Iterator[SqliteJournal]:
    (tmp_path / "1").mkdir()
    journal = SqliteJournal(tmp_path / "1/journal.sqlite3", SHAPE, fitted_rows=20)
    yield journal
    journal.close()


def opened(folder: Path, origin: str = "1:abc") -> AbstractContextManager[Takeover]:
    return take_over(folder / "1", SHAPE, folder / "2", NEW_SHAPE, origin)


def arrivals(batch: Sequence[StoredMemory]) -> list[Arrivals]:
    """With the first three pixels as their new embedding."""
    return [
        Arrivals(
            Memories(
                ids=[memory.record.id],
                inputs=[memory.input],
                targets=np.array([memory.record.target], np.int32),
                embeddings=memory.embedding[None, 10:13].copy(),
                residuals=memory.residual[None],
                weights=np.array([memory.record.weight]),
                source=memory.record.source,
                created_ms=[memory.record.created_ms or 0],
            ),
            [memory.record],
        )
        for memory in batch
    ]


def fill(takeover: Takeover, rows: int = 7) -> int:
    """All that is to come, in batches; returns how many."""
    return sum(takeover.carry(arrivals(batch), []) for batch in takeover.batches(rows))


def ids(folder: Path) -> list[str]:
    with closing(SqliteJournal(folder / "2/journal.sqlite3", NEW_SHAPE)) as journal:
        return [record.id for record in journal.page(None, 0, 10_000)]


def named(rows: range, prefix: str = "id") -> Memories:
    return memories(rows, ids=[f"{prefix}-{row}" for row in rows], source="test", weight=2.5)


def test_a_state_is_hidden_until_it_is_whole(old: SqliteJournal, tmp_path: Path) -> None:
    old.append([named(range(30))])
    with opened(tmp_path) as takeover:
        assert takeover.fresh
        assert fill(takeover) == 30
        takeover.check()
        assert not (tmp_path / "2").exists()
        assert takeover.publish()
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["1", "2"]
    assert ids(tmp_path) == [f"id-{row}" for row in range(30)]
    # Forgotten there meanwhile, and learned: the next run brings both.
    old.forget("id-3")
    old.append([named(range(30, 33))])
    with opened(tmp_path) as takeover:
        assert not takeover.fresh
        assert takeover.reconcile() == 1
        assert fill(takeover) == 3
        takeover.check()
        assert takeover.totals.carried == 32
        assert takeover.publish()
    assert ids(tmp_path) == [f"id-{row}" for row in range(33) if row != 3]


def test_a_second_run_goes_on_and_another_model_starts_anew(
    old: SqliteJournal, tmp_path: Path
) -> None:
    old.append([named(range(30))])
    with opened(tmp_path) as takeover:
        takeover.carry(arrivals(next(takeover.batches(7))), [])
    with opened(tmp_path) as takeover:
        assert [memory.record.id for memory in next(takeover.batches(2))] == ["id-7", "id-8"]
    with opened(tmp_path, "1:def") as takeover:
        assert fill(takeover) == 30
        takeover.check()


@pytest.mark.usefixtures("old")
def test_one_run_at_a_time(tmp_path: Path) -> None:
    with (
        opened(tmp_path),
        pytest.raises(JournalUnavailable, match="another rebase"),
        opened(tmp_path),
    ):
        pass
    with opened(tmp_path):
        pass


def test_a_state_made_meanwhile_is_not_replaced(old: SqliteJournal, tmp_path: Path) -> None:
    old.append([named(range(5))])
    with opened(tmp_path) as takeover:
        fill(takeover)
        (tmp_path / "2").mkdir()
        served = SqliteJournal(tmp_path / "2/journal.sqlite3", NEW_SHAPE)
        assert not takeover.publish()
    with opened(tmp_path) as takeover:
        assert not takeover.fresh
        assert fill(takeover) == 5
        assert takeover.publish()
    assert not (tmp_path / ".rebase-2").exists()
    assert served.find("id-4") is not None
    served.close()


def test_an_empty_folder_is_no_state(old: SqliteJournal, tmp_path: Path) -> None:
    old.append([named(range(5))])
    (tmp_path / "2").mkdir()
    with opened(tmp_path) as takeover:
        assert takeover.fresh
        fill(takeover)
        assert takeover.publish()
    assert len(ids(tmp_path)) == 5


def test_what_a_client_forgot_in_the_new_state_stays_forgotten(
    old: SqliteJournal, tmp_path: Path
) -> None:
    old.append([named(range(5))])
    with opened(tmp_path) as takeover:
        fill(takeover)
        takeover.publish()
    with closing(SqliteJournal(tmp_path / "2/journal.sqlite3", NEW_SHAPE)) as served:
        served.forget("id-4")
    with opened(tmp_path) as takeover:
        assert takeover.reconcile() == 0
        assert fill(takeover) == 0
        takeover.check()
    assert "id-4" not in ids(tmp_path)


def test_everything_forgotten_there_is_forgotten_here(old: SqliteJournal, tmp_path: Path) -> None:
    old.append([named(range(1500))])
    with opened(tmp_path) as takeover:
        fill(takeover, 500)
        takeover.publish()
    old.forget_source("test")
    with opened(tmp_path) as takeover:
        assert takeover.reconcile() == 1500
    assert ids(tmp_path) == []


def test_many_pages_with_gaps(old: SqliteJournal, tmp_path: Path) -> None:
    old.append([memories(range(1700), ids=[f"id-{n}" for n in range(1700)])])
    old.append([memories(range(1700), ids=[f"more-{n}" for n in range(1700)])])
    with opened(tmp_path) as takeover:
        fill(takeover, 1000)
        gone = [0, 999, 1000, 1001, 1699]
        for number in gone:
            old.forget(f"id-{number}")
        takeover.check()  # forgotten while it checks: the next run's business
        assert takeover.reconcile() == len(gone)
        takeover.check()
        assert takeover.totals.carried == 3400 - len(gone)


@pytest.mark.parametrize("taught", [0, 2, 40])
def test_a_restored_old_state_forgets_nothing(
    old: SqliteJournal, tmp_path: Path, taught: int
) -> None:
    """Its sequences begin anew: they must not be taken for those of before."""
    old.append([named(range(10))])
    with opened(tmp_path) as takeover:
        fill(takeover)
        takeover.publish()
    old.close()
    shutil.rmtree(tmp_path / "1")
    (tmp_path / "1").mkdir()
    with closing(SqliteJournal(tmp_path / "1/journal.sqlite3", SHAPE)) as restored:
        if taught:
            restored.append([named(range(taught), "later")])
        with opened(tmp_path) as takeover:
            assert takeover.reconcile() == 0
            assert fill(takeover) == taught
            takeover.check()
    assert len(ids(tmp_path)) == 10 + taught


@pytest.mark.parametrize(
    ("statement", "complaint"),
    [
        ("DELETE FROM memories WHERE id = 'id-3'", "'id-3' is not what it was"),
        ("UPDATE memories SET weight = 9 WHERE id = 'id-3'", "'id-3' is not what it was"),
        ("UPDATE memories SET sequence = 99 WHERE id = 'id-3'", "'id-3' is not what it was"),
        ("DELETE FROM carried WHERE sequence = 4", "'id-3' is missing"),
        (
            "INSERT INTO memories SELECT 99, 'stray', target, embedding, residual, weight, source,"
            " created_ms, input_checksum, checksum, input FROM memories WHERE id = 'id-3'",
            "holds 11 memories, not 10",
        ),
    ],
)
def test_a_state_that_is_not_right_is_not_published(
    old: SqliteJournal, tmp_path: Path, statement: str, complaint: str
) -> None:
    old.append([named(range(10))])
    with opened(tmp_path) as takeover:
        fill(takeover)
        with takeover._notes._database.transaction() as connection:
            connection.execute(statement)
        with pytest.raises(CorruptFile, match=complaint):
            takeover.check()


def test_a_large_state_is_sealed_before_it_is_published(old: SqliteJournal, tmp_path: Path) -> None:
    old.append([named(range(300))])
    small = MemoryOptions(growing_bytes=100 * 4 * 13, max_segment_rows=200)
    announced: list[int] = []
    with opened(tmp_path) as takeover:
        fill(takeover, 100)
        assert takeover.seal(announced.append, replace(small, growing_bytes=1 << 20)) == 0
        assert takeover.seal(announced.append, small) == 300
        assert takeover.seal(announced.append, small) == 0
        old.append([named(range(300, 310))])
        assert fill(takeover) == 10
        takeover.check()
        assert takeover.totals.carried == 310
        assert takeover.publish()
    assert announced == [300]
    folders = StateFolders(tmp_path / "2")
    assert len(list(folders.segments.iterdir())) == 2
    memory = ResidualMemory.open(tmp_path / "2", fitted=None, shape=NEW_SHAPE, options=small)
    assert memory.size == 310
    assert memory.statistics().sealed_rows == 300
    memory.close()


def test_a_served_state_is_left_to_its_server(old: SqliteJournal, tmp_path: Path) -> None:
    old.append([named(range(300))])
    served = ResidualMemory.open(tmp_path / "2", fitted=None, shape=NEW_SHAPE)
    own = replace(memories([5], ids=["own"]), embeddings=np.ones((1, 3), np.float32))
    served.append(replace(own, residuals=RESIDUALS[[5]])).result()
    with opened(tmp_path) as takeover:
        fill(takeover)
        assert takeover.seal(print, MemoryOptions(growing_bytes=1)) == 0
        takeover.check()
        assert takeover.publish()
    served.refresh()
    assert served.size == 301
    found = served.records.find("own")
    assert found.target == LABELS[5]
    served.close()


def test_forgotten_memories_of_the_bundle_are_counted(old: SqliteJournal, tmp_path: Path) -> None:
    for id in ("fit-0", "fit-19"):
        old.forget(id)
    with opened(tmp_path) as takeover:
        assert takeover.forgotten_fitted(20) == 2
