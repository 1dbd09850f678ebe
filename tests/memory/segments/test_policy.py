from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from resmem_service.memory.journal.journal import SegmentEntry
from resmem_service.memory.segments.policy import FANOUT, Backlog, SealedState, next_segment


def sealed(*sizes: int, dead: int = 0) -> list[SealedState]:
    return [
        SealedState(SegmentEntry(i + 1, i * 1000 + 1, i * 1000 + 1000, rows), dead)
        for i, rows in enumerate(sizes)
    ]


@settings(deadline=None)
@given(st.integers(1, 3000))
def test_few_segments_remain_and_each_row_is_inserted_few_times(seals: int) -> None:
    sizes: list[int] = []
    inserted = 0
    for _ in range(seals):
        plan = next_segment(Backlog(sealed(*sizes), 1, 10**9), max_rows=10**9)
        assert plan is not None
        kept = len(sizes) - len(plan.replaces)
        merged = 1 + sum(sizes[kept:])
        inserted += merged - (plan.base.rows if plan.base else 0)
        sizes = [*sizes[:kept], merged]
    assert sum(sizes) == seals
    assert all(older > FANOUT * newer for older, newer in pairwise(sizes))
    assert len(sizes) <= 8
    assert inserted <= seals * len(bin(seals))


def test_the_first_segment_takes_all_full_rows() -> None:
    plan = next_segment(Backlog([], 128, 130), max_rows=1000)
    assert plan is not None
    assert (plan.first, plan.last, plan.replaces, plan.base) == (1, 130, [], None)


def test_the_larger_part_is_carried_on_and_a_smaller_one_is_not() -> None:
    plan = next_segment(Backlog(sealed(100), 64, 2000), max_rows=1000)
    assert plan is not None
    assert (plan.first, plan.base) == (1, plan.replaces[0])
    plan = next_segment(Backlog(sealed(10), 64, 2000), max_rows=1000)
    assert plan is not None
    assert (len(plan.replaces), plan.base) == (1, None)


def test_merging_stops_at_the_largest_size() -> None:
    plan = next_segment(Backlog(sealed(900), 500, 2000), max_rows=1000)
    assert plan is not None
    assert (plan.first, plan.replaces) == (1001, [])


def test_a_segment_that_is_dead_in_large_part_is_built_anew() -> None:
    assert next_segment(Backlog(sealed(100, dead=30), 0, 0), max_rows=1000) is None
    plan = next_segment(Backlog(sealed(100, dead=31), 0, 0), max_rows=1000)
    assert plan is not None
    assert (plan.first, plan.last, plan.base) == (1, 1000, None)
    carried = next_segment(Backlog(sealed(100, dead=31), 64, 2000), max_rows=1000)
    assert carried is not None
    assert carried.base is None


def test_a_damaged_segment_is_built_anew_before_all_else() -> None:
    states = sealed(900, 300, 80)
    states[1] = SealedState(states[1].entry, damaged=True)
    plan = next_segment(Backlog(states, 128, 4000), max_rows=10_000)
    assert plan is not None
    assert (plan.first, plan.last, plan.replaces) == (1001, 2000, [states[1].entry])
    assert plan.base is None
