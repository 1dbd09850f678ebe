"""Rows and the notes on where they came from: in one transaction, and no client's row harmed."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from resmem_service.errors import JournalUnavailable
from resmem_service.memory.journal.journal import MemoryRecord
from resmem_service.memory.journal.sqlite.journal import SqliteJournal
from resmem_service.memory.journal.sqlite.takeover import Arrivals, SqliteTakeover, stamp_of

from tests.memory.examples import LABELS, SHAPE, memories


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[SqliteJournal]:
    journal = SqliteJournal(tmp_path / "journal.sqlite3", SHAPE)
    yield journal
    journal.close()


@pytest.fixture
def notes(journal: SqliteJournal) -> Iterator[SqliteTakeover]:
    notes = SqliteTakeover(journal._database.path, SHAPE, "1:abc", busy_ms=50)
    yield notes
    notes.close()


def record(row: int, *, sequence: int | None = None, id: str | None = None) -> MemoryRecord:
    """A digit as the memory of another state, where its sequence is 10 times its row."""
    return MemoryRecord(
        id=id or f"id-{row}",
        sequence=10 * row if sequence is None else sequence,
        source=None,
        target=int(LABELS[row]),
        weight=1.0,
        created_ms=1000 + row,
    )


def arrivals(records: list[MemoryRecord]) -> list[Arrivals]:
    rows = [(record.created_ms or 0) - 1000 for record in records]
    return [
        Arrivals(
            replace(
                memories(rows, ids=[record.id for record in records]),
                created_ms=[record.created_ms or 0 for record in records],
            ),
            records,
        )
    ]


def ids(journal: SqliteJournal) -> list[str]:
    return [found.id for found in journal.page(None, 0, 100)]


def test_rows_come_in_with_a_note_each(journal: SqliteJournal, notes: SqliteTakeover) -> None:
    assert notes.last == 0
    assert notes.carry(arrivals([record(1), record(2)]), [record(3)]) == 2
    assert ids(journal) == ["id-1", "id-2"]
    assert [found.created_ms for found in journal.page(None, 0, 9)] == [1001, 1002]
    assert notes.last == 30
    assert notes.totals == (2, 0, 1)
    found = notes.notes(1, 30)
    assert [(note.old, note.sequence, note.unfit) for note in found] == [
        (10, 1, False),
        (20, 2, False),
        (30, None, True),
    ]
    assert found[0].stamp == stamp_of(record(1))
    assert notes.notes(11, 29) == [found[1]]


def test_a_clients_memory_under_the_same_id_stays(
    journal: SqliteJournal, notes: SqliteTakeover
) -> None:
    journal.append([memories([50], ids=["id-1"])])
    assert notes.carry(arrivals([record(1), record(2)]), []) == 1
    kept = journal.find("id-1")
    assert kept is not None
    assert kept.target == LABELS[50]
    assert notes.totals == (1, 1, 0)
    # And is not forgotten when the old one is.
    assert notes.forget([10]) == 0
    assert ids(journal) == ["id-1", "id-2"]


def test_a_memory_that_was_replaced_there_is_replaced_here(
    journal: SqliteJournal, notes: SqliteTakeover
) -> None:
    notes.carry(arrivals([record(1), record(2)]), [])
    again = record(3, id="id-1")
    assert notes.carry(arrivals([again]), []) == 1
    assert ids(journal) == ["id-2", "id-1"]
    assert journal.tombstones(1, 9) == [1]
    assert [note.old for note in notes.notes(1, 99)] == [20, 30]


def test_forgetting_spares_what_changed_here(journal: SqliteJournal, notes: SqliteTakeover) -> None:
    notes.carry(arrivals([record(1), record(2), record(3)]), [record(4)])
    journal.append([memories([50], ids=["id-2"])])
    journal.forget("id-3")
    assert notes.forget([10, 20, 30, 40]) == 1
    assert ids(journal) == ["id-2"]
    assert notes.last == 0


def test_two_states_are_told_apart(
    journal: SqliteJournal, notes: SqliteTakeover, tmp_path: Path
) -> None:
    notes.carry(arrivals([record(1)]), [])
    assert not notes.others()
    second = SqliteTakeover(tmp_path / "journal.sqlite3", SHAPE, "2:abc", busy_ms=50)
    assert second.others()
    assert second.last == 0
    assert second.carry(arrivals([record(1), record(2)]), []) == 1
    assert second.totals == (1, 1, 0)
    second.release()
    assert not notes.others()
    assert ids(journal) == ["id-1", "id-2"]
    second.close()


def test_a_refused_batch_leaves_no_note(journal: SqliteJournal, notes: SqliteTakeover) -> None:
    with (
        journal._database.transaction(),
        pytest.raises(JournalUnavailable, match="locked"),
    ):
        notes.carry(arrivals([record(1)]), [record(2)])
    assert ids(journal) == []
    assert notes.totals == (0, 0, 0)


def test_a_stamp_names_nobody() -> None:
    assert stamp_of(record(1)) != stamp_of(record(2))
    assert stamp_of(record(1)) != stamp_of(record(1, id="somebody@example.org"))
    assert stamp_of(record(1)) == stamp_of(record(1, sequence=99))
