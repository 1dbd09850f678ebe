"""The timetable of a stop, on a clock of its own."""

from hypothesis import given
from hypothesis import strategies as st
from resmem_service.server.http_stop import StopTimetable

SECONDS = st.floats(0, 1000)


def test_every_step_in_turn() -> None:
    plan = StopTimetable(100.0, delay_s=10.0, drain_s=30.0)
    assert not plan.closes_connections(104.9)
    assert plan.closes_connections(105.0)
    assert not plan.refuses_connections(109.9)
    assert not plan.is_over(109.9, in_flight=0, connections=0)
    assert plan.refuses_connections(110.0)
    assert plan.is_over(110.0, in_flight=0, connections=0)
    assert not plan.is_over(110.9, in_flight=0, connections=3), "a request may be on its way"
    assert plan.is_over(111.0, in_flight=0, connections=3)
    assert not plan.is_over(139.9, in_flight=1, connections=3)
    assert plan.is_over(140.0, in_flight=1, connections=3)
    assert (plan.left_s(111.0), plan.left_s(141.0)) == (29.0, 0.0)


def test_at_once() -> None:
    plan = StopTimetable(100.0, delay_s=0.0, drain_s=0.0)
    assert plan.closes_connections(100.0)
    assert plan.refuses_connections(100.0)
    assert plan.is_over(100.0, in_flight=5, connections=5)


@given(delay=SECONDS, drain=SECONDS, now=st.floats(0, 3000), busy=st.booleans())
def test_one_deadline_for_all(delay: float, drain: float, now: float, busy: bool) -> None:
    plan = StopTimetable(0.0, delay_s=delay, drain_s=drain)
    over = plan.is_over(now, in_flight=busy, connections=1)
    assert over or now < delay + drain
    assert now + plan.left_s(now) <= max(now, delay + drain) + 1e-6
    assert not over or plan.refuses_connections(now)
    assert not plan.refuses_connections(now) or plan.closes_connections(now)
