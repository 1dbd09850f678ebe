import pytest
from hypothesis import given
from hypothesis import strategies as st
from resmem_service.fit.batches import CELLS, batches


@given(st.integers(0, 100_000), st.sampled_from([0, 1, 7, 4000, 10**5, 10**7, 10**9]))
def test_every_row_is_in_one_batch_that_fits(rows: int, width: int) -> None:
    reached = 0
    for batch in batches(rows, width):
        size = batch.stop - batch.start
        assert batch.start == reached
        assert size == 1 or size * width <= CELLS
        reached = batch.stop
    assert reached == rows


def test_batches_are_as_large_as_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resmem_service.fit.batches.CELLS", 100)
    assert [batch.stop for batch in batches(25, 10)] == [10, 20, 25]
