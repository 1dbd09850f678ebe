import pytest
from resmem_service.inference.scoring_budget import ScoringBudget


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("rows", [1, 2, 16])
def test_small_requests_are_scored_whole_whatever_came_before(rows: int) -> None:
    budget = ScoringBudget(Clock())
    for _ in range(100):
        budget.step(256)
    assert budget.step(rows) == 1


def scored(budget: ScoringBudget, rows: int) -> int:
    return -(-rows // budget.step(rows))


def test_a_large_request_is_sampled() -> None:
    assert scored(ScoringBudget(Clock()), 17) == 9
    assert scored(ScoringBudget(Clock()), 256) == 16
    assert scored(ScoringBudget(Clock()), 8192) == 16


def test_many_large_requests_share_two_hundred_rows_a_second() -> None:
    clock = Clock()
    budget = ScoringBudget(clock)
    total = 0
    for _ in range(1000):  # in ten seconds
        clock.now += 0.01
        total += scored(budget, 256)
    assert 1900 <= total <= 2200


def test_each_of_them_is_looked_at_and_rest_restores_the_sample() -> None:
    clock = Clock()
    budget = ScoringBudget(clock)
    for _ in range(100):
        assert scored(budget, 256) >= 1
    assert scored(budget, 256) == 1
    clock.now += 10
    assert scored(budget, 256) == 16
