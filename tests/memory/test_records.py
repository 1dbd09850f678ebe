from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from resmem_service.errors import MemoryNotFound
from resmem_service.memory.memory import ResidualMemory
from resmem_service.memory.options import MemoryOptions

from tests.memory.examples import LABELS, PIXELS, RULE, SHAPE, fitted_folder, memories

QUIET = MemoryOptions(maintain=False)


@pytest.fixture(scope="module")
def small_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fitted_folder(tmp_path_factory.mktemp("bundle"), rows=20)


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


def listed(memory: ResidualMemory, source: str | None, limit: int, after: int = 0) -> list[str]:
    found = memory.records.page(source=source, limit=limit, after=after)
    return [record.id for record in found]


def test_pages_walk_through_all_memories_of_a_source(memory: ResidualMemory) -> None:
    memory.append(memories(range(600, 605), source="mine", ids=list("abcde"))).result(10)
    memory.append(memories([700], ids=["other"])).result(10)
    assert listed(memory, "mine", 2) == ["a", "b"]
    assert listed(memory, "mine", 9, after=2) == ["c", "d", "e"]
    assert listed(memory, None, 9, after=5) == ["other"]
    memory.forget("fit-1")
    assert listed(memory, "fit", 2, after=-1) == ["fit-2", "fit-3"]
    assert listed(memory, "fit", 2, after=-2) == ["fit-2", "fit-3"], "wherever that one went"
    assert len(listed(memory, "fit", 1000)) == 499


CHANGES = st.lists(
    st.tuples(st.sampled_from(["turn", "replace", "forget", "add"]), st.integers(0, 30)),
    max_size=25,
)


@settings(max_examples=40, deadline=None)
@given(source=st.sampled_from([None, "mine", "fit"]), limit=st.integers(1, 5), changes=CHANGES)
def test_a_walk_meets_what_is_there_throughout_exactly_once(
    small_bundle: Path, source: str | None, limit: int, changes: list[tuple[str, int]]
) -> None:
    """Whatever is replaced, forgotten and added between its pages."""
    with TemporaryDirectory() as folder:
        memory = ResidualMemory.open(Path(folder), fitted=small_bundle, shape=SHAPE, options=QUIET)
        for name in ("mine", "fit"):
            row_ids = [f"{name}-{row}" for row in range(20, 30)]
            memory.append(memories(range(10), ids=row_ids, source=name)).result(10)
        pending = iter(changes)

        def change() -> None:
            for what, number in pending:
                name = source or "mine"
                if what == "turn":
                    return
                if what == "forget":
                    memory.forget(f"{name}-{number}")
                else:
                    row = number if what == "replace" else 40 + number
                    one = memories([30 + number], ids=[f"{name}-{row}"], source=name)
                    memory.append(one).result(10)

        def sequences(count: int, after: int) -> list[int]:
            found = memory.records.page(source=source, limit=count, after=after)
            return [record.sequence for record in found]

        before, met, after = sequences(1000, 0), [], 0
        while page := sequences(limit, after):
            met += page
            after = page[-1]
            change()
        throughout = set(before) & set(sequences(1000, 0))
        assert len(met) == len(set(met))
        assert throughout <= set(met)
        memory.close()


def test_memories_behind_neighbours_are_described(memory: ResidualMemory) -> None:
    memory.append(memories([900], ids=["mine"], weight=3)).result(10)
    found = memory.records.describe([-2, 1, 99])
    assert [record and record.id for record in found] == ["fit-1", "mine", None]
    assert found[1] is not None
    assert found[1].weight == 3
