"""No commit is acknowledged that went into a file without its name.

Before, each of these was acknowledged as durable, and gone after a restart.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import apsw
import pytest
from resmem_service.errors import JournalUnavailable
from resmem_service.memory.journal.sqlite.files import JournalFiles
from resmem_service.memory.journal.sqlite.journal import SqliteJournal
from resmem_service.memory.memory import ResidualMemory
from resmem_service.memory.segments.folders import StateFolders

from tests.memory.examples import PIXELS, RULE, SHAPE, SMALL, memories

Act = Callable[[StateFolders], object]


def checkpoint(folders: StateFolders, mode: str) -> None:
    with closing(apsw.Connection(str(folders.journal))) as other:
        other.execute(f"PRAGMA wal_checkpoint({mode})")


def shm(folders: StateFolders) -> Path:
    return folders.journal.with_name("journal.sqlite3-shm")


def replace_file(path: Path) -> None:
    shutil.copy(path, path.with_name("copy"))
    path.with_name("copy").replace(path)


def put_another_in_its_place(folders: StateFolders) -> None:
    folders.root.rename(folders.root.with_name("old"))
    folders.root.mkdir()
    SqliteJournal(folders.journal, SHAPE).close()


ACTS: dict[str, Act] = {
    "the journal is removed": lambda folders: folders.journal.unlink(),
    "the journal is renamed": lambda folders: folders.journal.rename(folders.root / "old"),
    "the journal is replaced": lambda folders: replace_file(folders.journal),
    "the journal is cut to nothing": lambda folders: os.truncate(folders.journal, 0),
    "the journal is cut": lambda folders: os.truncate(folders.journal, 8192),
    "its log is removed": lambda folders: folders.log.unlink(),
    "its log is replaced": lambda folders: replace_file(folders.log),
    "its log is cut to nothing": lambda folders: os.truncate(folders.log, 0),
    "its log is cut": lambda folders: os.truncate(folders.log, 5000),
    "its index is removed": lambda folders: shm(folders).unlink(),
    "the state is removed": lambda folders: shutil.rmtree(folders.root),
    "the state is renamed": lambda folders: folders.root.rename(folders.root.with_name("old")),
    "the state is another": put_another_in_its_place,
}


@pytest.fixture
def folders(tmp_path: Path) -> StateFolders:
    return StateFolders(tmp_path / "state")


@pytest.fixture
def memory(folders: StateFolders) -> Iterator[ResidualMemory]:
    memory = ResidualMemory.open(folders.root, fitted=None, shape=SHAPE, options=SMALL)
    memory.append(memories(range(40))).result(10)
    checkpoint(folders, "PASSIVE")
    memory.append(memories([40])).result(10)
    yield memory
    memory.close()


@pytest.mark.parametrize("act", ACTS.values(), ids=ACTS.keys())
def test_nothing_is_acknowledged_that_would_be_gone(
    memory: ResidualMemory, folders: StateFolders, act: Act
) -> None:
    act(folders)
    for row in (41, 42):
        with pytest.raises(JournalUnavailable, match=str(folders.root)):
            memory.append(memories([row])).result(10)
    with pytest.raises(JournalUnavailable, match=str(folders.root)):
        memory.forget_source("nobody")
    # Predictions go on with all that was acknowledged before.
    assert memory.correct(PIXELS[:41], RULE).distances[:, 0].max() == 0
    reasons = {fault.reason for fault in memory.faults()}
    assert {"journal_unwritable"} <= reasons <= {"journal_unwritable", "journal_unreadable"}
    assert not memory.statistics().journal_writable


@pytest.mark.parametrize(
    "act", [act for name, act in ACTS.items() if "cut" not in name], ids=lambda _: ""
)
def test_what_goes_between_the_commit_and_its_reply(
    memory: ResidualMemory,
    folders: StateFolders,
    act: Act,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The check before a commit cannot see it; the one after it does, before the reply."""
    check = JournalFiles.check
    calls: list[object] = []

    def check_and_act(files: JournalFiles) -> None:
        check(files)
        if not calls:
            calls.append(act(folders))

    monkeypatch.setattr(JournalFiles, "check", check_and_act)
    with pytest.raises(JournalUnavailable, match=str(folders.root)):
        memory.append(memories([41])).result(10)


def test_a_journal_that_was_put_back_is_written_again(
    memory: ResidualMemory, folders: StateFolders
) -> None:
    elsewhere = folders.root.with_name("elsewhere")
    folders.root.rename(elsewhere)
    with pytest.raises(JournalUnavailable):
        memory.append(memories([41])).result(10)
    elsewhere.rename(folders.root)
    assert memory.append(memories([41])).result(10).size == 42
    assert memory.faults() == []


def test_compaction_and_checkpoints_make_the_files_shorter_and_are_no_damage(
    memory: ResidualMemory, folders: StateFolders
) -> None:
    ids = [f"{row}" for row in range(100, 1100)]
    memory.append(memories(range(100, 1100), ids=ids, source="many")).result(10)
    checkpoint(folders, "TRUNCATE")
    memory.append(memories([41])).result(10)
    size = folders.journal.stat().st_size
    assert memory.forget_source("many") == 1000
    memory.compact()
    assert folders.journal.stat().st_size < size / 2
    for row in (42, 43):
        memory.append(memories([row])).result(10)
        checkpoint(folders, "TRUNCATE")
    assert memory.append(memories([44])).result(10).size == 45
    assert memory.faults() == []
    # Another process does so, and this one finds the file shorter.
    files = JournalFiles(folders.journal)
    memory.append(memories(range(100, 1100), ids=ids, source="many")).result(10)
    checkpoint(folders, "TRUNCATE")
    files.check()
    memory.forget_source("many")
    memory.compact()
    files.check()
