from collections.abc import Iterator
from pathlib import Path

import pytest
from resmem_service.errors import CorruptFile, JournalUnavailable
from resmem_service.memory.journal.sqlite.journal import SqliteJournal
from resmem_service.memory.journal.sqlite.snapshot import open_snapshot
from resmem_service.memory.rows import MemoryShape
from resmem_service.memory.search.codec import ResidualCodec

from tests.memory.examples import PIXELS, RESIDUALS, SHAPE, execute, memories


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.sqlite3"


@pytest.fixture
def journal(path: Path) -> Iterator[SqliteJournal]:
    journal = SqliteJournal(path, SHAPE)
    journal.append([memories(range(600), ids=[str(row) for row in range(600)], source="s")])
    yield journal
    journal.close()


def test_it_shows_one_moment(path: Path, journal: SqliteJournal) -> None:
    journal.publish(1, 50, 50, [], lambda _: None)
    with open_snapshot(path) as snapshot:
        journal.append([memories([900])])
        journal.forget("3")
        assert snapshot.memories() == 600
        assert [memory.record.id for memory in snapshot.stored()] == [str(n) for n in range(600)]
        assert snapshot.position.revision == 600
        assert [(entry.first, entry.last) for entry in snapshot.catalogue] == [(1, 50)]
    with open_snapshot(path) as snapshot:
        assert snapshot.position.revision == 602


@pytest.mark.usefixtures("journal")
def test_memories_come_whole(path: Path) -> None:
    with open_snapshot(path) as snapshot:
        memory = list(snapshot.stored())[7]
    assert memory.embedding.tobytes() == memory.input == PIXELS[7].tobytes()
    assert memory.residual.tobytes() == RESIDUALS[7].tobytes()
    assert (memory.record.id, memory.record.source) == ("7", "s")


def test_it_knows_the_shape_of_what_it_holds(tmp_path: Path) -> None:
    shape = MemoryShape(64, 10, "regression", ResidualCodec.named("float16"))
    SqliteJournal(tmp_path / "j.sqlite3", shape).close()
    with open_snapshot(tmp_path / "j.sqlite3") as snapshot:
        assert snapshot.shape == shape


def test_a_copy_is_one_moment_in_one_file(
    path: Path, journal: SqliteJournal, tmp_path: Path
) -> None:
    steps: list[int] = []

    def write_meanwhile(size: int) -> None:
        steps.append(size)
        journal.append([memories([700 + len(steps)])])

    with open_snapshot(path) as snapshot:
        snapshot.copy(tmp_path / "copy.sqlite3", write_meanwhile)
    assert sum(steps) == (tmp_path / "copy.sqlite3").stat().st_size
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.startswith("copy")) == [
        "copy.sqlite3"
    ]
    with open_snapshot(tmp_path / "copy.sqlite3") as copy:
        assert copy.memories() == 600
        assert copy.faults(5) == []
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith("copy")] == ["copy.sqlite3"]
    again = SqliteJournal(tmp_path / "copy.sqlite3", SHAPE)
    assert again.append([memories([1])])[0].created == 1
    again.close()


@pytest.mark.usefixtures("journal")
def test_a_damaged_row_is_named(path: Path) -> None:
    execute(path, "UPDATE memories SET source = 't' WHERE id = '7'")
    with open_snapshot(path) as snapshot:
        assert len([row for rows in snapshot.raw() for row in rows]) == 600
        with pytest.raises(CorruptFile, match=r"journal\.sqlite3: memory 8 \(id '7'\)"):
            list(snapshot.stored())


def test_what_is_no_journal_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(JournalUnavailable, match=r"nowhere\.sqlite3"),
        open_snapshot(tmp_path / "nowhere.sqlite3"),
    ):
        pass
    (tmp_path / "text").write_text("some text " * 100)
    with pytest.raises(CorruptFile, match="text"), open_snapshot(tmp_path / "text"):
        pass
    execute(tmp_path / "empty", "CREATE TABLE other (x)")
    with pytest.raises(CorruptFile, match="no journal"), open_snapshot(tmp_path / "empty"):
        pass


@pytest.mark.usefixtures("journal")
@pytest.mark.parametrize(
    ("statement", "complaint"),
    [
        ("UPDATE meta SET value = 'x' WHERE key = 'dim'", "does not say what it holds"),
        ("DELETE FROM meta WHERE key = 'residuals'", "does not say what it holds"),
        ("UPDATE meta SET value = '9' WHERE key = 'format'", "format"),
        ("DELETE FROM horizon", "no readable catalogue"),
    ],
)
def test_what_it_says_of_itself_is_checked(path: Path, statement: str, complaint: str) -> None:
    execute(path, statement)
    with (
        pytest.raises((CorruptFile, JournalUnavailable), match=complaint),
        open_snapshot(path),
    ):
        pass
