import os
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import apsw
import numpy as np
import pytest
from resmem_service.errors import CorruptFile, JournalUnavailable
from resmem_service.memory.journal.journal import Position, SegmentEntry
from resmem_service.memory.journal.sqlite.journal import SqliteJournal
from resmem_service.memory.rows import MemoryShape, SegmentRows

from tests.memory.examples import LABELS, PIXELS, RESIDUALS, SHAPE, execute, memories


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite3"


@pytest.fixture
def journal(path: Path) -> Iterator[SqliteJournal]:
    journal = SqliteJournal(path, SHAPE, fitted_rows=10, busy_ms=20)
    yield journal
    journal.close()


def living(journal: SqliteJournal, since: Position | None = None) -> SegmentRows | None:
    with journal.changes(since) as changes:
        parts = list(changes.rows)
    return SegmentRows.concatenate(parts) if parts else None


def position(journal: SqliteJournal) -> Position:
    with journal.changes(None) as changes:
        return changes.position


def test_rows_come_back_as_they_went_in(journal: SqliteJournal) -> None:
    written = journal.append([memories(range(3), ids=["a", "b", None], source="s", weight=2.5)])
    assert written[0].ids[:2] == ["a", "b"]
    assert (written[0].created, written[0].replaced, written[0].unchanged) == (3, 0, 0)
    rows = living(journal)
    assert rows is not None
    assert np.array_equal(rows.embeddings, PIXELS[:3])
    assert np.array_equal(rows.residuals, RESIDUALS[:3])
    assert np.array_equal(rows.targets, LABELS[:3])
    assert list(rows.sequences) == [1, 2, 3]
    assert list(rows.weights) == [2.5] * 3
    record = journal.find("b")
    assert record is not None
    assert (record.id, record.sequence, record.source, record.target, record.weight) == (
        "b",
        2,
        "s",
        int(LABELS[1]),
        2.5,
    )


def test_regression_targets_keep_their_width(tmp_path: Path) -> None:
    shape = MemoryShape(dim=64, width=10, task="regression")
    journal = SqliteJournal(tmp_path / "r.sqlite3", shape)
    request = memories(range(2), ids=["a", "b"])
    object.__setattr__(request, "targets", RESIDUALS[:2])
    journal.append([request])
    rows, record = living(journal), journal.find("b")
    assert rows is not None
    assert np.array_equal(rows.targets, RESIDUALS[:2])
    assert record is not None
    assert record.target == RESIDUALS[1].tolist()
    journal.close()


def test_the_same_content_again_changes_nothing(journal: SqliteJournal) -> None:
    journal.append([memories(range(2), ids=["a", "b"], source="s")])
    before = position(journal)
    again = journal.append([memories(range(2), ids=["a", "b"], source="s")])
    assert (again[0].created, again[0].replaced, again[0].unchanged) == (0, 0, 2)
    assert position(journal) == before


@pytest.mark.parametrize("change", ["target", "weight", "source", "input"])
def test_other_content_replaces(journal: SqliteJournal, change: str) -> None:
    journal.append([memories([0], ids=["a"])])
    other = memories([1 if change == "input" else 0], ids=["a"])
    if change == "target":
        object.__setattr__(other, "targets", other.targets + np.int32(1))
    if change == "weight":
        object.__setattr__(other, "weights", other.weights * 2)
    if change == "source":
        object.__setattr__(other, "source", "elsewhere")
    written = journal.append([other])
    assert (written[0].created, written[0].replaced) == (0, 1)
    with journal.changes(Position(1, 0)) as changes:
        assert changes.tombstones == [1]
        assert [list(rows.sequences) for rows in changes.rows] == [[2]]


def test_requests_of_one_group_see_each_other(journal: SqliteJournal) -> None:
    one, two = journal.append([memories([0], ids=["a"]), memories([0], ids=["a"])])
    assert (one.created, two.created, two.unchanged) == (1, 0, 1)


def test_made_ids_differ_and_sort_by_age(journal: SqliteJournal) -> None:
    ids = [journal.append([memories(range(50))])[0].ids for _ in range(2)]
    assert len({*ids[0], *ids[1]}) == 100
    assert max(ids[0]) < min(ids[1])


def test_fitted_memories_are_replaced_and_forgotten_by_id(journal: SqliteJournal) -> None:
    assert journal.append([memories([0], ids=["fit-3"])])[0].replaced == 1
    assert journal.append([memories([1], ids=["fit-10"])])[0].created == 1
    assert journal.forget("fit-4") == [1]
    assert journal.forget("fit-4") == [0]
    assert journal.forget("fit-99") == [0]
    assert sorted(journal.tombstones(-10, -1)) == [-5, -4]
    assert journal.forget_source("fit") == [8]


def test_a_forgotten_id_can_be_added_again(journal: SqliteJournal) -> None:
    journal.append([memories([0], ids=["a"])])
    assert journal.forget("a") == [1]
    assert journal.find("a") is None
    assert journal.append([memories([0], ids=["a"])])[0].created == 1


def test_a_source_is_forgotten_whole_and_alone(journal: SqliteJournal) -> None:
    journal.append([memories(range(5), source="bad"), memories(range(5, 8), source="good")])
    assert journal.forget_source("bad") == [5]
    assert journal.forget_source("bad") == [0]
    assert journal.tombstones(1, 100) == [1, 2, 3, 4, 5]
    assert [record.sequence for record in journal.page(None, 0, 10)] == [6, 7, 8]


def test_whole_memories_come_back_with_their_time(journal: SqliteJournal) -> None:
    request = memories(range(3), ids=["a", "b", "c"], source="s")
    object.__setattr__(request, "created_ms", [10, 20, 30])
    journal.append([request])
    (stored,) = journal.stored(1, 1)
    assert (stored.record.id, stored.record.source, stored.record.created_ms) == ("b", "s", 20)
    assert stored.input == PIXELS[1].tobytes()
    assert np.array_equal(stored.embedding, PIXELS[1])
    assert np.array_equal(stored.residual, RESIDUALS[1])
    assert journal.stored(3, 10) == []


def test_pages_are_ordered_and_bounded(journal: SqliteJournal) -> None:
    journal.append([memories(range(5), source="x"), memories(range(5, 8))])
    assert [r.sequence for r in journal.page("x", 2, 2)] == [3, 4]
    assert [r.sequence for r in journal.page(None, 4, 100)] == [5, 6, 7, 8]
    assert sorted(journal.records([2, 7, 99])) == [2, 7]


def test_moved_says_when_any_process_committed(journal: SqliteJournal, path: Path) -> None:
    assert journal.moved()
    seen = position(journal)
    assert not journal.moved()
    other = SqliteJournal(path, SHAPE)
    other.append([memories([0])])
    other.close()
    assert journal.moved()
    rows = living(journal, seen)
    assert rows is not None
    assert len(rows) == 1
    assert not journal.moved()


def appended(journal: SqliteJournal, row: int) -> Position:
    """Appends a row and gives the position before it, which was read."""
    before = position(journal)
    journal.append([memories([row])])
    return before


def test_own_rows_are_not_read_again(journal: SqliteJournal) -> None:
    before = appended(journal, 3)
    assert journal.moved()
    rows = journal.latest(before)
    assert rows is not None
    assert list(rows.sequences) == [before.sequence + 1]
    assert np.array_equal(rows.embeddings, PIXELS[3:4])
    assert not journal.moved()
    assert journal.latest(before) is None


def test_own_rows_are_read_where_others_came_before(journal: SqliteJournal, path: Path) -> None:
    other = SqliteJournal(path, SHAPE)
    before = position(journal)
    other.append([memories([0])])
    journal.append([memories([1])])
    other.close()
    assert journal.latest(before) is None
    assert journal.moved()
    rows = living(journal, before)
    assert rows is not None
    assert len(rows) == 2


def test_own_rows_are_read_where_others_came_after(journal: SqliteJournal, path: Path) -> None:
    other = SqliteJournal(path, SHAPE)
    before = appended(journal, 0)
    other.forget(journal.page(None, 0, 1)[0].id)
    other.close()
    assert journal.latest(before) is None
    assert journal.moved()


def test_own_rows_are_read_where_they_replace_others(journal: SqliteJournal) -> None:
    journal.append([memories([0], ids=["a"])])
    before = position(journal)
    journal.append([memories([1], ids=["a"])])
    assert journal.latest(before) is None
    with journal.changes(before) as changes:
        assert changes.tombstones == [1]


@pytest.fixture
def uncounted(path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SqliteJournal]:
    """A journal that counts no commits, like a process that dies right after each."""

    def refuse(path: str) -> None:
        raise PermissionError(13, "Permission denied", path)

    with monkeypatch.context() as patch:
        patch.setattr("resmem_service.memory.search._kernel.SharedCounter", refuse)
        other = SqliteJournal(path, SHAPE)
    yield other
    other.close()


def test_own_rows_are_read_where_uncounted_ones_came_before(
    journal: SqliteJournal, uncounted: SqliteJournal
) -> None:
    before = position(journal)
    uncounted.append([memories([0])])
    journal.append([memories([1])])
    assert journal.latest(before) is None
    rows = living(journal, before)
    assert rows is not None
    assert len(rows) == 2


def test_a_commit_that_was_not_counted_is_noticed(
    journal: SqliteJournal, uncounted: SqliteJournal
) -> None:
    position(journal)
    uncounted.append([memories([0])])
    deadline = time.monotonic() + 10
    while not journal.moved():
        assert time.monotonic() < deadline


def test_without_a_counter_every_commit_is_noticed(uncounted: SqliteJournal) -> None:
    before = appended(uncounted, 0)
    assert uncounted.moved()
    assert uncounted.latest(before) is None
    assert living(uncounted, before) is not None
    assert not uncounted.moved()


def test_a_counter_that_is_cut_is_done_without(journal: SqliteJournal, path: Path) -> None:
    position(journal)
    os.truncate(f"{path}-commits", 0)
    for row in range(3):
        before = appended(journal, row)
        assert journal.moved()
        assert journal.latest(before) is None
        assert living(journal, before) is not None
        assert not journal.moved()


def test_a_reading_sees_the_tombstones_of_its_own_moment(
    journal: SqliteJournal, path: Path
) -> None:
    journal.append([memories(range(3), ids=["a", "b", "c"])])
    journal.forget("b")
    other = SqliteJournal(path, SHAPE)
    with journal.changes(None) as changes:
        with pytest.raises(JournalUnavailable, match="compact again later"):
            other.erase(Position(3, 1))
        assert changes.forgotten(1, 3) == [2]
    assert journal.tombstones(1, 3) == []
    other.close()


def test_tombstones_of_later_than_a_compaction_began_stay(journal: SqliteJournal) -> None:
    journal.append([memories(range(3), ids=["a", "b", "c"])])
    for id in ("b", "c"):
        journal.forget(id)
    journal.erase(Position(3, 1))
    assert journal.tombstones(1, 3) == [3]


def test_a_reading_that_fails_is_still_due(journal: SqliteJournal) -> None:
    journal.append([memories([0])])

    with pytest.raises(FileNotFoundError), journal.changes(None):
        raise FileNotFoundError
    assert journal.moved()


def test_long_readings_come_in_chunks(journal: SqliteJournal, tmp_path: Path) -> None:
    journal.append([memories(range(1500))])
    other = SqliteJournal(tmp_path / "journal.sqlite3", SHAPE)
    with closing(other), other.changes(None) as changes:
        assert [len(rows) for rows in changes.rows] == [1024, 476]


def test_publishing_swaps_segments_and_hides_their_rows(journal: SqliteJournal) -> None:
    journal.append([memories(range(10))])
    placed: list[SegmentEntry] = []
    first = journal.publish(1, 4, 4, [], placed.append)
    rows = living(journal)
    assert rows is not None
    assert list(rows.sequences) == [5, 6, 7, 8, 9, 10]
    second = journal.publish(1, 9, 9, [first], placed.append)
    with journal.changes(None) as changes:
        assert changes.catalogue == [second]
    assert placed == [first, second]
    assert second.number > first.number


def test_a_segment_that_cannot_be_placed_is_not_in_the_catalogue(journal: SqliteJournal) -> None:
    def refuse(entry: SegmentEntry) -> None:
        raise OSError(entry)

    with pytest.raises(OSError, match="SegmentEntry"):
        journal.publish(1, 4, 4, [], refuse)
    with journal.changes(None) as changes:
        assert changes.catalogue == []


def test_a_locked_journal_is_unavailable_and_recovers(journal: SqliteJournal, path: Path) -> None:
    other = apsw.Connection(str(path))
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(JournalUnavailable, match="locked"):
        journal.append([memories([0])])
    assert living(journal) is None
    other.close()
    assert journal.append([memories([0])])[0].created == 1


def test_a_full_disk_writes_nothing_and_recovers(path: Path) -> None:
    journal = SqliteJournal(path, SHAPE)
    with journal._database.writing() as connection:
        pages = connection.execute("PRAGMA page_count").get
        connection.execute(f"PRAGMA max_page_count = {pages + 5}")
    with pytest.raises(JournalUnavailable, match="full"):
        journal.append([memories([0], ids=["kept-out"]), memories(range(200))])
    assert journal.find("kept-out") is None
    with journal._database.writing() as connection:
        connection.execute("PRAGMA max_page_count = 100000")
    assert journal.append([memories(range(200))])[0].created == 200
    journal.close()


def test_a_folder_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(JournalUnavailable, match="unable to open"):
        SqliteJournal(tmp_path / "nowhere" / "j.sqlite3", SHAPE)


@pytest.mark.parametrize("content", [b"x" * 5000, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_file_that_is_no_database_is_corrupt(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(CorruptFile, match="not a database"):
        SqliteJournal(path, SHAPE)


def test_another_database_is_not_taken_over(path: Path) -> None:
    execute(path, "CREATE TABLE theirs (x)")
    with pytest.raises(CorruptFile, match="no journal"):
        SqliteJournal(path, SHAPE)


@pytest.mark.usefixtures("journal")
def test_a_journal_of_another_shape_is_refused(path: Path) -> None:
    with pytest.raises(CorruptFile, match="made for"):
        SqliteJournal(path, MemoryShape(dim=32, width=10, task="classification"))


def test_requests_that_disagree_in_length_or_repeat_an_id_are_refused() -> None:
    with pytest.raises(ValueError, match="as many"):
        memories(range(3), ids=["a"])
    with pytest.raises(ValueError, match="twice"):
        memories(range(2), ids=["a", "a"])
