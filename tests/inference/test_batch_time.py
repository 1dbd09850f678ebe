import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from resmem_service.inference.batch_time import BatchTime


def test_a_size_never_seen_is_never_thought_quick() -> None:
    times = BatchTime()
    times.note(4, 0.001)
    assert times.expected(7) == 0.001
    assert times.expected(3) == times.expected(8) == math.inf


@given(seconds=st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=30), rows=st.integers(1, 10_000))
def test_what_is_expected_lies_between_what_was_seen(seconds: list[float], rows: int) -> None:
    times = BatchTime()
    for one in seconds:
        times.note(rows, one)
    assert min(seconds) * 0.999 <= times.expected(rows) <= max(seconds) * 1.001


def test_one_slow_batch_counts_less_than_one_fast_batch() -> None:
    times = BatchTime()
    times.note(1, 1.0)
    times.note(1, 2.0)
    assert times.expected(1) == pytest.approx(1.1)
    times.note(1, 0.1)
    assert times.expected(1) == pytest.approx(0.6)
