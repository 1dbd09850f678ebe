import json
from math import isnan

import numpy as np
import pytest
from resmem_service.load.result import RequestGroup, Result


def outcome(*latency_ms: float) -> RequestGroup:
    latency = np.array(latency_ms) / 1e3
    return RequestGroup(np.arange(len(latency_ms), dtype=float), latency, latency / 4)


def result(server_cpu_s: float | None = 0.002, **outcomes: RequestGroup) -> Result:
    named = {name.removeprefix("_"): one for name, one in outcomes.items()}
    return Result(2.0, 10, named, np.empty(0), 0.0, 0.5, server_cpu_s)


def test_rates_and_cpu() -> None:
    measured = result(_200=outcome(*[1.0] * 10))
    assert measured.per_second == 5
    assert measured.cpu_us == pytest.approx(200)
    assert measured.client_load == 0.25
    assert result(server_cpu_s=None).cpu_us is None


def test_percentiles() -> None:
    one = outcome(*range(101))
    assert one.percentile_ms(50) == pytest.approx(50)
    assert one.percentile_ms(99) == pytest.approx(99)
    assert one.answer_percentile_ms(50) == pytest.approx(37.5), "less the time it was held"
    assert isnan(outcome().percentile_ms(50))


def test_latency_is_that_of_answers_and_of_requests_never_answered() -> None:
    """Refusals are quick; a connection that broke tells nothing of how long an answer takes."""
    measured = result(
        _200=outcome(1, 2),
        _204=outcome(3),
        _429=outcome(0.1),
        _500=outcome(0.2),
        closed=outcome(0.3),
        timeout=outcome(30_000),
        overdue=outcome(400),
    )
    assert sorted(measured.served.latency * 1e3) == pytest.approx([1, 2, 3, 400, 30_000])
    assert measured.counts() == {
        "200": 2, "204": 1, "429": 1, "500": 1, "closed": 1, "overdue": 1, "timeout": 1
    }  # fmt: skip


def test_summary_is_json() -> None:
    summary = result(_200=outcome(1, 2, 3), _429=outcome(5)).summary()
    assert json.loads(json.dumps(summary)) == summary
    assert summary["latency_ms"]["p50"] == pytest.approx(2)
    assert summary["outcomes"]["429"]["requests"] == 1
    assert result().summary()["latency_ms"] is None
