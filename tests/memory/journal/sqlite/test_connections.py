from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from threading import Event

import apsw
import pytest
from resmem_service.errors import JournalLocked, JournalUnavailable
from resmem_service.memory.journal.sqlite import connections as sqlite_database
from resmem_service.memory.journal.sqlite.journal import SqliteJournal

from tests.memory.examples import SHAPE, memories


class Disk:
    """Opens no file for writing while it is full."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = True
        self._connect = sqlite_database._connect
        monkeypatch.setattr(sqlite_database, "_connect", self.connect)
        # Tried again with every look, not once a second.
        monkeypatch.setattr(sqlite_database, "_RETRY_S", 0)

    def connect(self, path: Path, busy_ms: int) -> apsw.Connection:
        if self.full:
            raise apsw.FullError("database or disk is full")
        return self._connect(path, busy_ms)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Disk:
    return Disk(monkeypatch)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "journal.sqlite3"


def written(path: Path, disk: Disk) -> None:
    """A journal with three memories, from before."""
    disk.full = False
    journal = SqliteJournal(path, SHAPE, patient=True)
    journal.append([memories(range(3), ids=["a", "b", "c"])])
    journal.close()
    disk.full = True


@pytest.mark.usefixtures("disk")
def test_without_patience_it_is_an_error(path: Path) -> None:
    with pytest.raises(JournalUnavailable, match="full"):
        SqliteJournal(path, SHAPE)


def test_what_there_is_can_be_read_meanwhile(path: Path, disk: Disk) -> None:
    written(path, disk)
    journal = SqliteJournal(path, SHAPE, patient=True)
    assert [record.id for record in journal.page(None, 0, 10)] == ["a", "b", "c"]
    with journal.changes(None) as changes:
        assert changes.living() == (3, 6)
    for _ in range(2):
        with pytest.raises(JournalUnavailable, match="full"):
            journal.append([memories([5])])
    assert journal.find("b") is not None
    journal.close()


@pytest.mark.parametrize("there", [False, True])
def test_a_write_opens_it_again(path: Path, disk: Disk, there: bool) -> None:
    if there:
        written(path, disk)
    journal = SqliteJournal(path, SHAPE, patient=True)
    before = 3 if there else 0
    assert len(journal.page(None, 0, 10)) == before
    assert path.exists() == there
    disk.full = False
    assert journal.append([memories([5])])[0].created == 1
    assert len(journal.page(None, 0, 10)) == before + 1
    assert journal.moved()
    journal.close()


def test_looking_for_changes_opens_it_again(path: Path, disk: Disk) -> None:
    journal = SqliteJournal(path, SHAPE, patient=True)
    with journal.changes(None):
        pass
    written(path, disk)
    disk.full = False
    assert journal.moved()
    with journal.changes(None) as changes:
        assert changes.living() == (3, 6)
    journal.close()


def test_another_write_of_this_process_is_waited_for_no_longer(path: Path) -> None:
    path.parent.mkdir()
    journal = SqliteJournal(path, SHAPE, busy_ms=60_000)
    with (
        journal._database.writing(),
        pytest.raises(JournalLocked, match="this process has been writing for 20 ms"),
    ):
        journal.append([memories([1])], wait_ms=20)
    assert journal.append([memories([1])], wait_ms=0)[0].created == 1
    journal.close()


def test_a_lock_of_another_process_is_waited_for_as_long_as_asked(path: Path) -> None:
    path.parent.mkdir()
    journal = SqliteJournal(path, SHAPE, busy_ms=60_000)
    with closing(apsw.Connection(str(path))) as other:
        other.execute("BEGIN IMMEDIATE")
        for write in (
            lambda: journal.append([memories([1])], wait_ms=20),
            lambda: journal.forget("a", wait_ms=20),
            lambda: journal.forget_source("s", wait_ms=20),
        ):
            with pytest.raises(JournalLocked, match="locked"):
                write()
    journal.close()


def test_who_follows_does_not_wait_for_an_opening(
    path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(path, disk)
    journal = SqliteJournal(path, SHAPE, patient=True)
    opening, let = Event(), Event()

    def wait(path: Path, busy_ms: int) -> apsw.Connection:  # noqa: ARG001
        opening.set()
        assert let.wait(20)
        raise apsw.BusyError("database is locked")

    monkeypatch.setattr(sqlite_database, "_connect", wait)
    with ThreadPoolExecutor(1) as pool:
        write = pool.submit(journal.append, [memories([5])])
        assert opening.wait(20)
        with pytest.raises(JournalUnavailable, match="being opened again"):
            journal.moved()
        let.set()
        with pytest.raises(JournalLocked):
            write.result()
    assert journal.find("b") is not None
    journal.close()
