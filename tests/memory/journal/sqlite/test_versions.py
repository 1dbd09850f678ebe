import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest
from resmem_service.errors import CorruptFile, JournalUnavailable, UnsafeLibrary
from resmem_service.memory.follower import JournalFollower
from resmem_service.memory.journal.sqlite import (
    connections as sqlite_database,
)
from resmem_service.memory.journal.sqlite import (
    versions as sqlite_versions,
)
from resmem_service.memory.journal.sqlite.connections import open_reader, translated
from resmem_service.memory.journal.sqlite.journal import SqliteJournal
from resmem_service.memory.journal.sqlite.snapshot import open_snapshot
from resmem_service.memory.journal.sqlite.takeover import SqliteTakeover
from resmem_service.memory.journal.sqlite.versions import is_affected
from resmem_service.memory.memory import ResidualMemory

from tests.memory.examples import SHAPE, execute, memories

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("version", "affected"),
    [
        ("3.6.23", False),
        ("3.7.0", True),
        ("3.40.1", True),
        ("3.44.5", True),
        ("3.44.6", False),
        ("3.44.7", False),
        ("3.45.0", True),
        ("3.50.6", True),
        ("3.50.7", False),
        ("3.51.0", True),
        ("3.51.2", True),
        ("3.51.3", False),
        ("3.52.0", False),
        ("4.0.0", False),
        ("of the distribution", True),
    ],
)
def test_libraries_that_can_lose_commits_are_listed(version: str, affected: bool) -> None:
    assert is_affected(version) == affected


def test_the_one_that_is_installed_is_none_of_them() -> None:
    assert not is_affected(apsw.sqlite_lib_version())


@pytest.mark.parametrize(
    "open_it",
    [
        lambda path: SqliteJournal(path, SHAPE),
        lambda path: SqliteJournal(path, SHAPE, patient=True),
        open_reader,
        lambda path: open_snapshot(path).__enter__(),
    ],
)
def test_an_affected_library_opens_no_journal(
    open_it: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "journal.sqlite3"
    SqliteJournal(path, SHAPE).close()
    monkeypatch.setattr(sqlite_versions, "library_version", lambda: "3.40.1")
    with pytest.raises(UnsafeLibrary, match=r"SQLite 3\.40\.1 .*pip install -U apsw"):
        open_it(path)


def test_nothing_that_can_be_imported_brings_another_library() -> None:
    """Of two SQLite libraries in one process each ends the locks of the other."""
    program = """
import importlib, pkgutil, sys
import resmem_service
for found in pkgutil.walk_packages(resmem_service.__path__, "resmem_service."):
    if not found.name.endswith("__main__"):
        importlib.import_module(found.name)
print([name for name in sys.modules if name.split(".")[0] in ("sqlite3", "_sqlite3")])
print(sum("sqlite" in line and ".so" in line for line in open("/proc/self/maps")))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.splitlines() == ["[]", "0"], done.stderr


def test_no_module_of_the_tree_imports_another_library() -> None:
    pattern = re.compile(r"^\s*(import|from)\s+_?sqlite3\b", re.MULTILINE)
    found = [
        path
        for folder in ("service", "tests", "benchmarks", "examples")
        for path in (ROOT / folder).rglob("*.py")
        if pattern.search(path.read_text())
    ]
    assert found == []


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (apsw.BusyError, JournalUnavailable),
        (apsw.LockedError, JournalUnavailable),
        (apsw.FullError, JournalUnavailable),
        (apsw.IOError, JournalUnavailable),
        (apsw.ReadOnlyError, JournalUnavailable),
        (apsw.CantOpenError, JournalUnavailable),
        (apsw.ProtocolError, JournalUnavailable),
        (apsw.SQLError, JournalUnavailable),
        (apsw.ConnectionClosedError, JournalUnavailable),
        (apsw.CorruptError, CorruptFile),
        (apsw.NotADBError, CorruptFile),
        (apsw.ConstraintError, CorruptFile),
        (apsw.MisuseError, apsw.MisuseError),
        (apsw.BindingsError, apsw.BindingsError),
    ],
)
def test_errors_of_the_file_come_out_as_ours_and_mistakes_do_not(
    error: type[Exception], expected: type[Exception]
) -> None:
    why = "full" if error is apsw.FullError else "why"
    with pytest.raises(expected, match=why), translated(Path("journal")):
        raise error("why")


def test_an_error_of_the_operating_system_says_which_call_it_was_of() -> None:
    pattern = r"^journal: .*\(SQLITE_IOERR_FSYNC\)$"
    with pytest.raises(JournalUnavailable, match=pattern), translated(Path("journal")):
        raise apsw.exception_for(apsw.SQLITE_IOERR_FSYNC)


def _of_another_shape(path: Path) -> None:
    SqliteJournal(path, SHAPE).close()
    execute(path, "UPDATE meta SET value = '7' WHERE key = 'dim'")


def _no_database(path: Path) -> None:
    path.write_bytes(b"x" * 5000)


def _no_folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("spoil", [_of_another_shape, _no_database, _no_folder])
@pytest.mark.parametrize("patient", [False, True])
def test_an_opening_that_fails_leaves_nothing_open(
    tmp_path: Path, spoil: Callable[[Path], None], patient: bool
) -> None:
    path = tmp_path / "journal.sqlite3"
    spoil(path)
    before = len(apsw.connections())
    kept: list[BaseException] = []
    for open_it in (
        lambda: SqliteJournal(path, SHAPE, patient=patient),
        lambda: open_snapshot(path).__enter__(),
        lambda: SqliteTakeover(path, SHAPE, "other", busy_ms=10),
    ):
        try:
            opened = open_it()
        except (CorruptFile, JournalUnavailable) as error:
            kept.append(error)  # its frames hold what was open
        else:
            if isinstance(opened, SqliteTakeover):
                opened.close()
    assert len(kept) >= 1
    assert len(apsw.connections()) == before


@pytest.mark.parametrize("failing", range(4))
def test_a_connection_that_fails_closes_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: int
) -> None:
    connect, opened = sqlite_database._connect, 0

    def sometimes(path: Path, busy_ms: int) -> apsw.Connection:
        nonlocal opened
        opened += 1
        if opened == failing + 1:
            raise apsw.FullError("full")
        return connect(path, busy_ms)

    monkeypatch.setattr(sqlite_database, "_connect", sometimes)
    before = len(apsw.connections())
    with pytest.raises(JournalUnavailable) as kept:
        SqliteJournal(tmp_path / "journal.sqlite3", SHAPE)
    assert "full" in str(kept.value)
    assert len(apsw.connections()) == before


def test_a_memory_that_does_not_open_leaves_no_journal_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reload that fails would keep three connections for each time that it is tried."""

    def fail(*_: object, **__: object) -> None:
        raise CorruptFile("damaged")

    monkeypatch.setattr(JournalFollower, "catch_up", fail)
    before = len(apsw.connections())
    with pytest.raises(CorruptFile) as kept:
        ResidualMemory.open(tmp_path, fitted=None, shape=SHAPE)
    assert str(kept.value) == "damaged"
    assert len(apsw.connections()) == before


def test_a_transaction_that_fails_is_undone(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "journal.sqlite3", SHAPE)

    def spoil(statement: str) -> None:
        with journal._database.transaction() as connection:
            connection.execute("DELETE FROM horizon")
            connection.execute(statement)

    for statement in ("SELECT nothing", "INSERT INTO meta VALUES ('dim', 9)"):
        with pytest.raises((CorruptFile, JournalUnavailable)):
            spoil(statement)
    assert journal.append([memories([0])])[0].created == 1
    assert execute(tmp_path / "journal.sqlite3", "SELECT sequence FROM horizon") == [(0,)]
    journal.close()
