from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from resmem_service.errors import CorruptFile, JournalUnavailable, MemoryNotFound
from resmem_service.memory.journal.sqlite.journal import SqliteJournal
from resmem_service.memory.memory import ResidualMemory
from resmem_service.memory.options import MemoryOptions
from resmem_service.memory.segments.folders import StateFolders

from tests.memory.examples import (
    LABELS,
    PIXELS,
    RESIDUALS,
    RULE,
    SHAPE,
    SMALL,
    execute,
    fitted_folder,
    memories,
)
from tests.memory.segments.test_sealer import wait_until


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fitted_folder(tmp_path_factory.mktemp("fitted"))


@pytest.fixture
def memory(tmp_path: Path, fitted: Path) -> Iterator[ResidualMemory]:
    memory = ResidualMemory.open(tmp_path / "state", fitted=fitted, shape=SHAPE)
    yield memory
    memory.close()


def test_an_acknowledged_memory_is_in_the_next_correction(memory: ResidualMemory) -> None:
    row = 1000
    before = memory.correct(PIXELS[[row]], RULE)
    appended = memory.append(memories([row], ids=["taught"], weight=50)).result(10)
    assert (appended.created, appended.size) == (1, 501)
    after = memory.correct(PIXELS[[row]], RULE)
    described = memory.records.describe(after.sequences[0].tolist())
    assert before.distances[0, 0] > 0
    assert after.distances[0, 0] == 0
    assert described[0] == memory.records.find("taught")
    assert after.residuals[0].argmax() == LABELS[row]
    assert after.weights[0, 0] > 0.9


def test_everything_acknowledged_is_back_after_a_restart(tmp_path: Path, fitted: Path) -> None:
    state = tmp_path / "state"
    memory = ResidualMemory.open(state, fitted=fitted, shape=SHAPE, options=SMALL)
    memory.append(memories(range(600, 700), ids=[str(row) for row in range(600, 700)])).result(10)
    memory.forget("650")
    memory.forget("fit-7")
    memory.append(memories([800], ids=["fit-8"])).result(10)
    size, revision = memory.size, memory.revision
    before = memory.correct(PIXELS[600:700], RULE)
    memory.close()
    again = ResidualMemory.open(state, fitted=fitted, shape=SHAPE, options=SMALL)
    after = again.correct(PIXELS[600:700], RULE)
    assert (again.size, again.revision) == (size, revision) == (598, 104)
    np.testing.assert_allclose(after.residuals, before.residuals, atol=1e-6)
    with pytest.raises(MemoryNotFound):
        again.records.find("650")
    assert again.records.find("fit-8").sequence > 0
    again.close()


def test_two_processes_on_one_state_see_each_other(
    tmp_path: Path, fitted: Path, memory: ResidualMemory
) -> None:
    other = ResidualMemory.open(tmp_path / "state", fitted=fitted, shape=SHAPE)
    other.append(memories([900], ids=["theirs"])).result(10)
    assert memory.correct(PIXELS[[900]], RULE).distances[0, 0] == 0
    assert other.forget("theirs")
    assert memory.correct(PIXELS[[900]], RULE).distances[0, 0] > 0
    other.close()


def test_one_of_many_with_the_same_id_is_created(memory: ResidualMemory) -> None:
    appended = []

    def add() -> None:
        appended.append(memory.append(memories([1000], ids=["same"])).result(10))

    threads = [Thread(target=add) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(reply.created for reply in appended) == [0] * 15 + [1]
    assert memory.size == 501


def test_corrections_are_consistent_while_rows_are_appended(memory: ResidualMemory) -> None:
    done: list[int] = []

    def write() -> None:
        done.extend(
            memory.append(memories(range(row, row + 50))).result(10).size
            for row in range(600, 1700, 50)
        )

    writer = Thread(target=write)
    writer.start()
    while writer.is_alive():
        found = memory.correct(PIXELS[600:620], RULE)
        assert np.isfinite(found.distances).all()
        assert np.all(np.diff(found.distances, axis=1) >= 0)
        np.testing.assert_allclose(found.weights.sum(axis=1), 1)
        np.testing.assert_allclose(found.residuals.sum(axis=1), 0, atol=1e-5)
    assert done == list(range(550, 550 + 22 * 50, 50))


def test_a_memory_of_fitted_rows_alone_cannot_be_written(fitted: Path) -> None:
    memory = ResidualMemory.open(None, fitted=fitted, shape=SHAPE)
    assert (memory.size, memory.revision) == (500, 0)
    assert memory.correct(PIXELS[:1], RULE).sequences[0, 0] == -1
    with pytest.raises(JournalUnavailable):
        memory.append(memories([0]))
    with pytest.raises(JournalUnavailable):
        memory.forget("fit-0")
    assert memory.records.page(source=None, limit=5) == []
    memory.warm()
    memory.close()


def test_an_empty_memory_corrects_nothing(tmp_path: Path) -> None:
    memory = ResidualMemory.open(tmp_path / "state", fitted=None, shape=SHAPE)
    assert not memory.correct(PIXELS[:3], RULE).residuals.any()
    assert memory.size == 0
    assert memory.append(memories([0])).result(10).size == 1
    assert np.array_equal(memory.correct(PIXELS[:1], RULE).residuals, RESIDUALS[:1])
    memory.close()


def test_predictions_go_on_while_the_journal_cannot_be_read(
    memory: ResidualMemory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: object) -> bool:
        raise JournalUnavailable("disk I/O error")

    with monkeypatch.context() as patch:
        patch.setattr("resmem_service.memory.journal.sqlite.journal.SqliteJournal.moved", fail)
        assert memory.correct(PIXELS[:1], RULE).sequences[0, 0] == -1
        memory.correct(PIXELS[:1], RULE)
    assert caplog.text.count("cannot be read") == 1
    memory.append(memories([1000])).result(10)
    assert memory.correct(PIXELS[[1000]], RULE).distances[0, 0] == 0


def test_a_segment_that_the_catalogue_names_need_not_be_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The journal has its rows; the start was refused before."""
    folders = StateFolders(tmp_path)
    journal = SqliteJournal(folders.journal, SHAPE)
    journal.append([memories(range(5))])
    journal.publish(1, 5, 5, [], lambda _: None)
    journal.close()
    options = MemoryOptions(maintain=False)
    memory = ResidualMemory.open(tmp_path, fitted=None, shape=SHAPE, options=options)
    assert memory.size == 5
    assert memory.correct(PIXELS[:5], RULE).distances[:, 0].tolist() == [0] * 5
    assert [fault.reason for fault in memory.faults()] == ["segment_unusable"]
    assert "00000001" in caplog.text
    memory.close()


def test_a_state_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(JournalUnavailable, match="file"):
        ResidualMemory.open(tmp_path / "file" / "state", fitted=None, shape=SHAPE)


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM tombstones",
        "UPDATE tombstones SET sequence = sequence + 1",
        "DELETE FROM memories WHERE sequence = 30",
        "UPDATE horizon SET sequence = 3",
    ],
)
def test_a_journal_that_its_segments_contradict_is_refused(tmp_path: Path, damage: str) -> None:
    """One of them lies, and a forgotten memory might vote again."""
    memory = ResidualMemory.open(tmp_path, fitted=None, shape=SHAPE, options=SMALL)
    memory.append(memories(range(100), ids=[str(row) for row in range(100)])).result(10)
    wait_until(lambda: memory.statistics().sealed_rows > 0)
    assert memory.forget("50")
    memory.close()
    execute(StateFolders(tmp_path).journal, damage)
    with pytest.raises(CorruptFile, match=r"journal\.sqlite3 and the segments beside it disagree"):
        ResidualMemory.open(tmp_path, fitted=None, shape=SHAPE)
