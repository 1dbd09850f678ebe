from collections.abc import Iterator
from pathlib import Path

import pytest

from service.errors import InvalidInput, MemoryNotFound
from service.memory.memory import ResidualMemory
from tests.memory.examples import LABELS, PIXELS, RULE, SHAPE, fitted_folder, memories


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[ResidualMemory]:
    memory = ResidualMemory.open(tmp_path / "state", fitted=fitted_folder(tmp_path), shape=SHAPE)
    yield memory
    memory.close()


def test_fitted_memories_can_be_read_forgotten_and_replaced(memory: ResidualMemory) -> None:
    record = memory.records.find("fit-3")
    assert (record.sequence, record.source, record.target) == (-4, "fit", int(LABELS[3]))
    assert memory.correct(PIXELS[[3]], RULE).sequences[0, 0] == -4
    assert memory.forget("fit-3")
    assert not memory.forget("fit-3")
    assert memory.correct(PIXELS[[3]], RULE).sequences[0, 0] != -4
    with pytest.raises(MemoryNotFound):
        memory.records.find("fit-3")
    replaced = memory.append(memories([3], ids=["fit-4"])).result(10)
    assert (replaced.created, replaced.replaced, replaced.size) == (0, 1, 499)
    assert memory.records.find("fit-4").sequence > 0


def test_pages_walk_through_all_memories_of_a_source(memory: ResidualMemory) -> None:
    memory.append(memories(range(600, 605), source="mine", ids=list("abcde"))).result(10)
    memory.append(memories([700], ids=["other"])).result(10)
    assert [record.id for record in memory.records.page(source="mine", limit=2, after=None)] == [
        "a",
        "b",
    ]
    assert [record.id for record in memory.records.page(source="mine", limit=9, after="b")] == list(
        "cde"
    )
    assert [record.id for record in memory.records.page(source=None, limit=9, after="e")] == [
        "other"
    ]
    memory.forget("fit-1")
    assert [record.id for record in memory.records.page(source="fit", limit=2, after="fit-0")] == [
        "fit-2",
        "fit-3",
    ]
    assert len(memory.records.page(source="fit", limit=1000, after=None)) == 499
    with pytest.raises(InvalidInput, match="fit-1") as error:
        memory.records.page(source="fit", limit=2, after="fit-1")
    assert error.value.field == "after"


def test_memories_behind_neighbours_are_described(memory: ResidualMemory) -> None:
    memory.append(memories([900], ids=["mine"], weight=3)).result(10)
    found = memory.records.describe([-2, 1, 99])
    assert [record and record.id for record in found] == ["fit-1", "mine", None]
    assert found[1] is not None
    assert found[1].weight == 3
