import shutil
from pathlib import Path

import pytest
from resmem_service.errors import CorruptFile
from resmem_service.maintenance.inspection import inspect
from resmem_service.maintenance.inspection_table import render
from resmem_service.memory.journal.sqlite.snapshot import SourceRows
from resmem_service.memory.segments.folders import StateFolders

from tests.maintenance.examples import Taught, digit_memories, listing


def test_it_counts_by_tier_source_and_age(taught: Taught) -> None:
    before = listing(taught.folders.root)
    found = inspect(taught.bundle, taught.folders)
    state = found.state
    assert state is not None
    assert (found.bundle.memories, found.bundle.forgotten) == (900, 1)
    assert (state.memories, state.sealed, state.growing) == (148, 108, 40)
    assert (state.tombstones, state.horizon, state.revision) == (2, 0, 153)
    assert state.sources == [
        SourceRows("desk", 98, 1_700_000_000_000, 1_700_000_000_099),
        SourceRows(None, 50, 1_700_000_000_100, 1_700_000_000_149),
    ]
    assert [(s.number, s.first, s.last, s.rows, s.forgotten) for s in state.segments] == [
        (1, 1, 60, 60, 1),
        (2, 61, 110, 50, 1),
    ]
    on_disk = sum(p.stat().st_size for p in taught.segment(1).iterdir())
    assert state.segments[0].nbytes == on_disk
    assert state.disk.journal == taught.folders.journal.stat().st_size
    assert sum(state.ages.values()) == 148
    assert state.ages["an hour"] == 0
    assert listing(taught.folders.root) == before


def test_the_groups_of_age_do_not_overlap(taught: Taught) -> None:
    journal = taught.journal()
    memories = digit_memories(taught.model, range(300, 310))
    journal.append([memories])
    assert memories.created_ms is not None
    now = digit_memories(taught.model, range(310, 313))
    object.__setattr__(now, "created_ms", None)
    journal.append([now])
    found = inspect(taught.bundle, taught.folders).state
    assert found is not None
    assert (found.ages["an hour"], sum(found.ages.values())) == (3, 161)
    assert found.disk.journal_log > 0
    journal.close()


def test_evicted_memories_and_free_pages_show(taught: Taught) -> None:
    journal = taught.journal()
    journal.evict(keep_rows=40, before_ms=None)
    journal.close()
    state = inspect(taught.bundle, taught.folders).state
    assert state is not None
    assert (state.memories, state.sealed, state.horizon) == (40, 0, 110)
    assert [segment.forgotten for segment in state.segments] == [60, 50]
    assert state.disk.free > 0
    assert "evicted up to sequence 110" in render(inspect(taught.bundle, taught.folders))


def test_the_table_is_for_reading(taught: Taught) -> None:
    lines = render(inspect(taught.bundle, taught.folders)).splitlines()
    assert lines[0].startswith("bundle   digits/1, classification, made ")
    text = "\n".join(lines)
    assert "148 memories: 108 sealed, 40 growing; revision 153" in text
    assert "2 tombstones; nothing evicted" in text
    desk = next(line for line in lines if line.startswith("desk"))
    assert desk.split() == ["desk", "98", "2023-11-14", "22:13:20", "2023-11-14", "22:13:20"]
    assert any(line.startswith("00000002  61 to 110    50          1 ") for line in lines)


def test_nothing_memorized_yet(taught: Taught, tmp_path: Path) -> None:
    found = inspect(taught.bundle, StateFolders(tmp_path / "none"))
    assert found.state is None
    assert "nothing was memorized online yet" in render(found)


def test_a_segment_that_is_gone_takes_no_room(taught: Taught) -> None:
    shutil.rmtree(taught.segment(1))
    state = inspect(taught.bundle, taught.folders).state
    assert state is not None
    assert state.segments[0].nbytes == 0


def test_a_damaged_journal_is_named(taught: Taught) -> None:
    taught.folders.journal.write_bytes(b"nothing that SQLite wrote" * 50)
    with pytest.raises(CorruptFile, match=r"journal\.sqlite3"):
        inspect(taught.bundle, taught.folders)
