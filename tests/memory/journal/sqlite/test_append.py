from collections.abc import Iterator
from contextlib import closing
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from resmem_service.memory.journal.journal import Position
from resmem_service.memory.journal.sqlite.journal import SqliteJournal
from resmem_service.memory.rows import SegmentRows

from tests.memory.examples import SHAPE, memories


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[SqliteJournal]:
    journal = SqliteJournal(tmp_path / "journal.sqlite3", SHAPE, fitted_rows=5)
    yield journal
    journal.close()


def read(journal: SqliteJournal, since: Position | None = None) -> SegmentRows:
    with journal.changes(since) as changes:
        return SegmentRows.concatenate(list(changes.rows))


def equal(one: SegmentRows, other: SegmentRows) -> bool:
    return all(
        np.array_equal(getattr(one, field.name), getattr(other, field.name))
        for field in fields(SegmentRows)
    )


@pytest.mark.parametrize("rows", [1, 2, 63, 64, 65, 200])
def test_what_was_just_written_is_what_the_file_holds(
    journal: SqliteJournal, tmp_path: Path, rows: int
) -> None:
    journal.append([memories(range(7))])
    with journal.changes(None) as changes:
        position = changes.position
    journal.append([memories(range(100, 100 + rows)), memories([5], ids=["a"], weight=3.0)])

    other = SqliteJournal(tmp_path / "journal.sqlite3", SHAPE)
    with closing(other):
        assert equal(read(journal, position), read(other, position))
        assert equal(read(journal), read(other))
        assert len(read(other)) == 7 + rows + 1


def test_rows_of_others_come_with_ones_own(journal: SqliteJournal, tmp_path: Path) -> None:
    with journal.changes(None) as changes:
        position = changes.position
    other = SqliteJournal(tmp_path / "journal.sqlite3", SHAPE)
    with closing(other):
        journal.append([memories([0], ids=["mine"])])
        other.append([memories([1], ids=["theirs"])])
        journal.append([memories([2], ids=["mine again"])])
        assert read(journal, position).sequences.tolist() == [1, 2, 3]
        assert equal(read(journal, position), read(other, position))


def test_one_transaction_counts_as_its_requests_one_by_one(journal: SqliteJournal) -> None:
    written = journal.append(
        [
            memories([0, 1], ids=["a", "b"]),
            memories([0], ids=["a"]),
            memories([2, 3], ids=["a", "c"]),
            memories([2], ids=["a"]),
            memories([4], ids=["a"]),
        ]
    )
    assert [(w.created, w.replaced, w.unchanged) for w in written] == [
        (2, 0, 0),
        (0, 0, 1),
        (1, 1, 0),
        (0, 0, 1),
        (0, 1, 0),
    ]
    rows = read(journal)
    assert [record.id for record in journal.page(None, 0, 10)] == ["b", "c", "a"]
    assert rows.sequences.tolist() == [1, 2, 3]
    assert rows.targets.tolist() == memories([1, 3, 4]).targets.tolist()


def test_a_fitted_memory_is_replaced_once(journal: SqliteJournal) -> None:
    written = journal.append(
        [memories([0], ids=["fit-3"]), memories([1], ids=["fit-3"]), memories([2], ids=["fit-5"])]
    )
    assert [(w.created, w.replaced) for w in written] == [(0, 1), (0, 1), (1, 0)]
    assert journal.tombstones(-5, -1) == [-4]


def test_many_rows_replace_many(journal: SqliteJournal) -> None:
    ids = [f"é{row}" for row in range(150)]
    journal.append([memories(range(150), ids=ids)])
    (written,) = journal.append([memories(range(50, 200), ids=ids)])
    assert (written.created, written.replaced) == (0, 150 - written.unchanged)
    assert read(journal).targets.tolist() == [
        journal.records([row.sequence])[row.sequence].target for row in journal.page(None, 0, 200)
    ]
    assert [row.id for row in journal.page(None, 0, 200)] == ids
    assert len(journal.tombstones(1, 1000)) == 150
