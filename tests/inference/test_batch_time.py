import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from resmem_service.inference.batch_time import Pace


def test_a_size_never_seen_is_never_thought_quick() -> None:
    pace = Pace()
    pace.note(4, 0.001)
    assert pace.expected(7) == 0.001
    assert pace.expected(3) == pace.expected(8) == math.inf


@given(seconds=st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=30), rows=st.integers(1, 10_000))
def test_what_is_expected_lies_between_what_was_seen(seconds: list[float], rows: int) -> None:
    pace = Pace()
    for one in seconds:
        pace.note(rows, one)
    assert min(seconds) * 0.999 <= pace.expected(rows) <= max(seconds) * 1.001


def test_one_slow_batch_counts_less_than_one_fast_batch() -> None:
    pace = Pace()
    pace.note(1, 1.0)
    pace.note(1, 2.0)
    assert pace.expected(1) == pytest.approx(1.1)
    pace.note(1, 0.1)
    assert pace.expected(1) == pytest.approx(0.6)
