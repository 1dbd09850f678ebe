import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.quality.intervals import paired_accuracy, paired_rmse, rmse, wilson


def rights(true: int, false: int) -> NDArray[np.bool_]:
    return np.repeat([True, False], [true, false])


def test_wilson_gives_the_published_interval() -> None:
    # Newcombe, Statistics in Medicine 17 (1998), table I: 81 of 263.
    interval = wilson(rights(81, 182))
    assert interval.value == pytest.approx(81 / 263)
    assert interval.low == pytest.approx(0.2553, abs=5e-5)
    assert interval.high == pytest.approx(0.3662, abs=5e-5)


def test_wilson_stays_within_0_and_1_where_all_are_right() -> None:
    interval = wilson(rights(20, 0))
    assert interval.low < 1 == interval.value
    assert interval.high == pytest.approx(1)


def test_the_paired_difference_gives_the_published_interval() -> None:
    # Agresti, "Categorical Data Analysis", table 11.1: prime minister's approval, 1600 voters.
    first = np.repeat([True, True, False, False], [794, 150, 86, 570])
    second = np.repeat([True, False, True, False], [794, 150, 86, 570])
    interval = paired_accuracy(first, second)
    assert interval.value == pytest.approx(-0.04)
    assert interval.low == pytest.approx(-0.0587, abs=5e-4)
    assert interval.high == pytest.approx(-0.0213, abs=5e-4)


def test_rows_on_which_both_agree_carry_no_variance() -> None:
    right = rights(3, 7)
    same = paired_accuracy(right, right)
    assert same.low == same.value == same.high == 0


def test_the_bootstrap_covers_the_error_and_pairs_the_rows() -> None:
    errors = np.random.default_rng(0).normal(size=2000) * 3
    alone = rmse(errors)
    assert alone.low < 3 < alone.high
    assert alone.low < alone.value < alone.high
    half = paired_rmse(errors, errors / 2)
    assert half.value == pytest.approx(-alone.value / 2)
    assert half.high - half.low == pytest.approx((alone.high - alone.low) / 2)


def test_rows_that_are_drawn_together_count_as_one_draw() -> None:
    errors = np.random.default_rng(0).normal(size=300)
    days = np.repeat(np.arange(300), 20)
    alone, together = rmse(errors), rmse(np.repeat(errors, 20), days)
    assert together.value == pytest.approx(alone.value)
    assert (together.low, together.high) == pytest.approx((alone.low, alone.high))
    assert rmse(np.repeat(errors, 20)).high < together.high
