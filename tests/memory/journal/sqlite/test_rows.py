"""Every column of a memory stands under a checksum, and none is read past it."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import apsw
import numpy as np
import pytest
from resmem_service.errors import CorruptFile
from resmem_service.memory.journal.sqlite.journal import SqliteJournal
from resmem_service.memory.journal.sqlite.rows import is_intact
from resmem_service.memory.journal.sqlite.snapshot import open_snapshot
from resmem_service.memory.memory import ResidualMemory
from resmem_service.memory.search.soft_knn import SoftKnn

from tests.memory.examples import PIXELS, SHAPE, memories


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[SqliteJournal]:
    journal = SqliteJournal(tmp_path / "journal.sqlite3", SHAPE)
    journal.append([memories(range(20), ids=[f"é{row}" for row in range(20)], source="s")])
    journal.append([memories([20])])
    yield journal
    journal.close()


CHANGES = [
    "id = 'e3'",
    "target = x'05000000'",
    "embedding = zeroblob(256)",
    "embedding = 'text'",
    "embedding = NULL",
    "embedding = CAST(zeroblob(255) || x'ff' AS TEXT)",
    "id = CAST(id AS BLOB)",
    "id = CAST(x'ff' AS TEXT)",
    "source = CAST(x'ff' AS TEXT)",
    "source = CAST('s' AS BLOB)",
    "residual = zeroblob(40)",
    "weight = 1.5",
    "source = NULL",
    "source = ''",
    "created_ms = created_ms + 1",
    "created_ms = 'x'",
    "checksum = checksum + 1",
    "input_checksum = input_checksum - 1",
]


def damage(journal: Path, change: str) -> None:
    with closing(apsw.Connection(str(journal))) as connection:
        # A damaged file heeds no constraint.
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "UPDATE sqlite_master SET sql = replace(sql, 'NOT NULL', '') WHERE name = 'memories'"
        )
    with closing(apsw.Connection(str(journal))) as connection:
        connection.execute(f"UPDATE memories SET {change} WHERE sequence = 4")


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_column_is_read_by_nobody(
    journal: SqliteJournal, tmp_path: Path, change: str
) -> None:
    path = tmp_path / "journal.sqlite3"
    damage(path, change)
    with journal.changes(None) as changes:
        read = np.concatenate([rows.sequences for rows in changes.rows])
    assert read.tolist() == [*range(1, 4), *range(5, 22)]
    assert list(changes.skipped) == [4]
    with pytest.raises(
        CorruptFile, match=r"journal\.sqlite3: memory 4 .* differs from its checksum"
    ):
        journal.stored(0, 30)
    assert len(journal.stored(4, 30)) == 17


def test_a_changed_input_is_found_where_inputs_are_read(
    journal: SqliteJournal, tmp_path: Path
) -> None:
    damage(tmp_path / "journal.sqlite3", "input = zeroblob(256)")
    with pytest.raises(CorruptFile, match="memory 4 "):
        journal.stored(0, 30)
    with journal.changes(None) as changes:
        assert sum(len(rows) for rows in changes.rows) == 21


@pytest.mark.usefixtures("journal")
def test_a_damaged_memory_is_never_served(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It costs itself alone: refused at the start before, and 500 on all routes of all workers."""
    damage(tmp_path / "journal.sqlite3", "residual = zeroblob(40)")
    memory = ResidualMemory.open(tmp_path, fitted=None, shape=SHAPE)
    assert memory.size == 20
    assert 4 not in memory.correct(PIXELS[:30], SoftKnn(k=21, sigma=10.0)).sequences
    assert memory.statistics().unreadable_rows == 1
    assert [fault.reason for fault in memory.faults()] == ["rows_unreadable"]
    assert caplog.text.count("memory 4 (id 'é3')") == 1
    # Taught again, word for word, it is there again: it was "unchanged" before, and left out.
    again = memory.append(memories([3], ids=["é3"], source="s")).result(10)
    assert (again.replaced, again.size) == (1, 21)
    assert memory.correct(PIXELS[[3]], SoftKnn(k=1, sigma=10.0)).distances[0, 0] == 0
    assert memory.faults() == []
    memory.close()


def test_damaged_memories_can_be_dropped(journal: SqliteJournal, tmp_path: Path) -> None:
    damage(tmp_path / "journal.sqlite3", "residual = zeroblob(40)")
    journal.drop([4])
    assert journal.tombstones(1, 100) == [4]
    assert len(journal.stored(0, 30)) == 20
    assert journal.append([memories([3], ids=["é3"])])[0].created == 1


@pytest.mark.parametrize("value", ["CAST(x'fffe' AS TEXT)", "'other'", "7"])
def test_a_damaged_column_hides_no_other_memory(
    journal: SqliteJournal, tmp_path: Path, value: str
) -> None:
    for column in ("id", "source", "target", "input", "weight", "created_ms"):
        damage(tmp_path / "journal.sqlite3", f"{column} = {value}")
    with open_snapshot(tmp_path / "journal.sqlite3") as snapshot:
        found = [row[9] for rows in snapshot.raw() for row in rows if not is_intact(row)]
        assert found == [4]
        assert sum(source.memories for source in snapshot.sources()) == 21
    assert [record.id for record in journal.page(None, 4, 30)][:1] == ["é4"]


def test_a_damaged_memory_can_be_replaced(journal: SqliteJournal, tmp_path: Path) -> None:
    for column in ("source", "target", "input", "weight"):
        damage(tmp_path / "journal.sqlite3", f"{column} = CAST(x'fffe' AS TEXT)")
    (written,) = journal.append([memories([3], ids=["é3"], source="s")])
    assert (written.created, written.replaced) == (0, 1)
    assert len(journal.stored(0, 30)) == 21
