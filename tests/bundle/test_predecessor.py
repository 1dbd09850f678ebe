import logging
from pathlib import Path

import pytest
from resmem_service.bundle.predecessor import Predecessor, find_predecessor, warn_of_predecessor
from resmem_service.errors import CorruptFile

from tests.conftest import TwoVersions
from tests.migrate.states import opened, teach


@pytest.fixture
def states(digits_twice: TwoVersions, tmp_path: Path) -> Path:
    """Version 1 was taught 12 memories; version 2 never served."""
    few = digits_twice.inputs[:12], digits_twice.targets[:12]
    teach(digits_twice.old, tmp_path, *few, ids=[str(row) for row in range(12)])
    return tmp_path


def warned(two: TwoVersions, states: Path, caplog: pytest.LogCaptureFixture) -> list[str]:
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        warn_of_predecessor(states, two.store, two.new.manifest)
    return [found.getMessage() for found in caplog.records]


def test_the_newest_older_version_that_was_taught(states: Path) -> None:
    assert find_predecessor(states, "digits", "2") == Predecessor("1", 12)
    for version in ("3", "7", "20"):  # 3 and 7 were served and never taught, 20 is no predecessor
        (states / "digits" / version).mkdir()
    (states / "digits/.rebase-9").mkdir()
    assert find_predecessor(states, "digits", "9") == Predecessor("1", 12)
    assert find_predecessor(states, "digits", "1") is None
    assert find_predecessor(states, "other", "2") is None


def test_it_reads_only(states: Path) -> None:
    before = {path: path.read_bytes() for path in states.rglob("*") if path.is_file()}
    find_predecessor(states, "digits", "2")
    assert {path: path.read_bytes() for path in before} == before


def test_a_version_without_memories_names_the_command(
    digits_twice: TwoVersions, states: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (line,) = warned(digits_twice, states, caplog)
    assert "version 1 was taught 12" in line
    assert (
        f"`resmem rebase --model digits/2 --from 1 --store {digits_twice.store} "
        f"--state-dir {states}`"
    ) in line
    # Served once, and still not taught.
    opened(digits_twice.new, states).close()
    assert len(warned(digits_twice, states, caplog)) == 1


def test_no_warning_without_need(
    digits_twice: TwoVersions, states: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert warned(digits_twice, states / "elsewhere", caplog) == []
    few = digits_twice.inputs[:1], digits_twice.targets[:1]
    teach(digits_twice.new, states, *few, ids=["own"])
    assert warned(digits_twice, states, caplog) == []


def test_a_damaged_old_state_keeps_nobody_from_serving(
    digits_twice: TwoVersions, states: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (states / "digits/1/journal.sqlite3").write_bytes(b"x" * 5000)
    with pytest.raises(CorruptFile, match="journal"):
        find_predecessor(states, "digits", "2")
    assert warned(digits_twice, states, caplog) == []
