"""Logs that SQLite itself wrote, of journals whose process was killed: copied before the close."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from resmem_service.memory.journal.sqlite.journal import SqliteJournal
from resmem_service.memory.journal.sqlite.log_check import damage_in

from tests.memory.examples import SHAPE, execute, memories

FRAME = 24 + 4096


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A journal of ten commits, all of them still in its log."""
    folder = tmp_path_factory.mktemp("killed")
    journal = SqliteJournal(folder / "live.sqlite3", SHAPE)
    for row in range(10):
        journal.append([memories([row], ids=[f"id-{row}"])])
    for suffix in ("", "-wal"):
        shutil.copy(folder / f"live.sqlite3{suffix}", folder / f"j.sqlite3{suffix}")
    journal.close()
    return folder / "j.sqlite3"


@pytest.fixture
def log(killed: Path, tmp_path: Path) -> Path:
    for suffix in ("", "-wal"):
        shutil.copy(f"{killed}{suffix}", tmp_path / f"j.sqlite3{suffix}")
    return tmp_path / "j.sqlite3-wal"


def survivors(log: Path) -> int:
    """How many memories SQLite finds, in a copy."""
    for suffix in ("", "-wal"):
        shutil.copy(log.with_name(f"j.sqlite3{suffix}"), log.with_name(f"copy.sqlite3{suffix}"))
    copy = log.with_name("copy.sqlite3")
    ((tables,),) = execute(copy, "SELECT count(*) FROM sqlite_master")
    if not tables:
        return 0
    ((count,),) = execute(copy, "SELECT count(*) FROM memories")
    return int(count)


def commits(log: Path) -> list[int]:
    """The numbers of the frames that end a transaction."""
    content = log.read_bytes()
    starts = range(32, len(content) - FRAME + 1, FRAME)
    return [n for n, at in enumerate(starts) if any(content[at + 4 : at + 8])]


def test_a_whole_log_has_no_damage(log: Path) -> None:
    assert damage_in(log) is None
    assert survivors(log) == 10


@pytest.mark.parametrize("at", [8, 30, 500, 4000])
def test_a_flipped_bit_before_a_later_commit_is_damage(log: Path, at: int) -> None:
    whole = log.read_bytes()
    for frame in range(commits(log)[-2] + 1):
        content = bytearray(whole)
        content[32 + frame * FRAME + at] ^= 1
        log.write_bytes(content)
        found = damage_in(log)
        assert found is not None
        assert f"frame {frame + 1} is damaged" in found
    assert survivors(log) < 10


def test_a_torn_end_is_no_damage(log: Path) -> None:
    """The last transaction may never have been acknowledged."""
    whole = log.read_bytes()
    ends = commits(log)
    for frame in range(ends[-2] + 1, ends[-1] + 1):
        content = bytearray(whole)
        content[32 + frame * FRAME + 100] ^= 1
        log.write_bytes(content)
        assert damage_in(log) is None
        assert survivors(log) == 9
    log.write_bytes(whole[: len(whole) - 1000])
    assert damage_in(log) is None


@pytest.mark.parametrize("at", [0, 9, 20, 31])
def test_a_damaged_header_loses_all_of_it(log: Path, at: int) -> None:
    content = bytearray(log.read_bytes())
    content[at] ^= 1
    log.write_bytes(content)
    found = damage_in(log)
    assert found is not None
    assert "header" in found
    assert survivors(log) == 0


def missing(log: Path) -> None:
    log.unlink()


def empty(log: Path) -> None:
    log.write_bytes(b"")


def zeros(log: Path) -> None:
    log.write_bytes(bytes(5000))


@pytest.mark.parametrize("make", [missing, empty, zeros])
def test_no_log_is_no_damage(log: Path, make: Callable[[Path], None]) -> None:
    make(log)
    assert damage_in(log) is None


def test_what_is_left_of_an_earlier_round_is_no_damage(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "j.sqlite3", SHAPE)
    for row in range(20):
        journal.append([memories([row])])
    execute(tmp_path / "j.sqlite3", "PRAGMA wal_checkpoint(RESTART)")
    journal.append([memories([30])])
    journal.append([memories([31])])
    log = tmp_path / "j.sqlite3-wal"
    assert log.stat().st_size > 20 * FRAME
    assert damage_in(log) is None
    content = bytearray(log.read_bytes())
    content[32 + 24 + 7] ^= 1
    (tmp_path / "damaged").write_bytes(content)
    assert damage_in(tmp_path / "damaged") is not None
    journal.close()


def test_a_log_that_is_being_written_is_no_damage(tmp_path: Path) -> None:
    journal = SqliteJournal(tmp_path / "j.sqlite3", SHAPE)
    for row in range(0, 1500, 10):
        journal.append([memories(range(row, row + 10))])
        assert damage_in(tmp_path / "j.sqlite3-wal") is None
    journal.close()
