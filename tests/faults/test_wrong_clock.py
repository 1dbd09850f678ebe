"""A clock that jumps, and memories that are to go when they have reached an age."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
from resmem_service.memory.journal.retention import Retention
from resmem_service.memory.memory import ResidualMemory
from resmem_service.memory.options import MemoryOptions

from tests.faults.digits import SHAPE
from tests.memory.examples import memories
from tests.memory.segments.test_sealer import wait_until

HOUR_MS = 3_600_000
AN_HOUR = MemoryOptions(retention=Retention(max_age_s=3600))


def fill(state: Path, *ages: int) -> int:
    """Ten memories of each age in hours, in this order; below 0 they are of a time to come."""
    now = time.time_ns() // 1_000_000
    memory = ResidualMemory.open(
        state, fitted=None, shape=SHAPE, options=MemoryOptions(maintain=False)
    )
    for part, age in enumerate(ages):
        some = memories(range(10 * part, 10 * part + 10), source=str(part))
        memory.append(replace(some, created_ms=[now - age * HOUR_MS] * 10)).result(10)
    size = memory.size
    memory.close()
    return size


def left(state: Path, size: int) -> set[str | None]:
    """The sources of what is left, once there are so many."""
    memory = ResidualMemory.open(state, fitted=None, shape=SHAPE, options=AN_HOUR)
    wait_until(lambda: memory.size == size)
    sources = {record.source for record in memory.records.page(source=None, limit=99)}
    memory.close()
    return sources


def test_a_time_to_come_shields_nothing(tmp_path: Path) -> None:
    """The clock was a year ahead for a while: what came after it grows old all the same."""
    assert fill(tmp_path, 3, -8760, 2, 0) == 40
    assert left(tmp_path, 10) == {"3"}


def test_what_came_before_something_young_stays(tmp_path: Path) -> None:
    """The clock was hours behind for a while: only the oldest are ever evicted."""
    assert fill(tmp_path, 3, 0, 5, 0) == 40
    assert left(tmp_path, 30) == {"1", "2", "3"}


def test_a_clock_that_is_behind_evicts_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert fill(tmp_path, 0, 0) == 20
    monkeypatch.setattr(time, "time", lambda: 1_000_000_000.0)
    monkeypatch.setattr(time, "time_ns", lambda: 1_000_000_000 * 10**9)
    memory = ResidualMemory.open(tmp_path, fitted=None, shape=SHAPE, options=AN_HOUR)
    made = replace(memories(range(50, 60), source="behind"), created_ms=None)
    assert memory.append(made).result(10).size == 30
    time.sleep(1.5)  # evictions come once a second
    assert memory.size == 30
    memory.close()
