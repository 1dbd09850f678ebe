"""The memory of bodies in flight, apart from connections."""

from resmem_service.server.body_budget import BodyBudget, default_budget_bytes
from resmem_service.telemetry.metric_storage import Gauge, MetricStorage, MetricTable

MIB = 2**20


def test_no_more_than_the_limit_and_what_is_given_back_is_free() -> None:
    budget = BodyBudget(100 * MIB, MetricStorage())
    assert [budget.take(30 * MIB) for _ in range(4)] == [True, True, True, False]
    assert budget.used == budget.total() == 90 * MIB
    budget.give_back(30 * MIB)
    assert budget.take(40 * MIB)


def test_a_request_that_is_nearly_alone_passes() -> None:
    """Also piece by piece, beyond the limit, and beside what is small."""
    budget = BodyBudget(10 * MIB, MetricStorage())
    budget.hold(MIB // 2)
    held = 0
    for _ in range(30):
        assert budget.take(MIB, held)
        held += MIB
    assert not budget.take(MIB), "nothing else passes beside it"
    assert not budget.take(1)


def test_workers_share_it() -> None:
    table = MetricTable(2)
    one, other = (BodyBudget(100 * MIB, MetricStorage(table, worker)) for worker in range(2))
    assert one.take(80 * MIB)
    assert not other.take(30 * MIB)
    assert other.take(10 * MIB)
    assert one.total() == other.total() == 90 * MIB
    table.ended(0)  # killed
    assert other.total() == 10 * MIB
    assert other.take(90 * MIB)
    assert table.values[1, Gauge.BODY_BYTES] == 100 * MIB
    table.close()


def test_the_default_is_a_quarter_of_the_memory_and_two_bodies_at_least() -> None:
    assert default_budget_bytes(4096 * MIB, 64 * MIB) == 1024 * MIB
    assert default_budget_bytes(256 * MIB, 64 * MIB) == 128 * MIB
