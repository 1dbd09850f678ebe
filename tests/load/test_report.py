from dataclasses import replace

import numpy as np
from resmem_service.load.load import Load
from resmem_service.load.report import render
from resmem_service.load.result import RequestGroup, Result
from resmem_service.load.target import Target

LOAD = Load(Target("127.0.0.1", 8080), [b"x"], 16, 2.0, 0.5)
ANSWERS = RequestGroup(np.linspace(0, 2, 100), np.linspace(0.001, 0.1, 100), np.zeros(100))
REFUSALS = RequestGroup(np.array([1.0]), np.array([0.0004]), np.zeros(1))
RESULT = Result(2.0, 100, {"200": ANSWERS, "429": REFUSALS}, np.empty(0), 0.0, 0.2, 0.01)


def test_what_is_told() -> None:
    told = render(LOAD, RESULT, rows=8, cpu_of="process 7")
    assert "requests/s   50.0\n" in told
    assert "rows/s       400.0\n" in told
    assert "p50 50.50 ms" in told
    assert "200          100 requests\n" in told
    assert "429          1 requests   p50 0.40 ms" in told
    assert "100.0 us a request, process 7" in told
    assert "closed loop" in told
    assert "note" not in told


def test_cpu_that_nobody_knows() -> None:
    unknown = replace(RESULT, server_cpu_s=None)
    told = render(LOAD, unknown, rows=1, cpu_of="the server is on another machine")
    assert "not available: the server is on another machine" in told


def test_nothing_answered() -> None:
    told = render(LOAD, replace(RESULT, outcomes={}, completed=0), rows=1, cpu_of="process 7")
    assert "nothing was answered" in told


def test_a_client_that_is_the_bottleneck_says_so() -> None:
    told = render(LOAD, replace(RESULT, client_cpu_s=1.95), rows=1, cpu_of="")
    assert "client itself was busy" in told


def test_a_client_that_is_late_says_so() -> None:
    load = replace(LOAD, rate=50.0)
    told = render(load, replace(RESULT, lateness=np.full(9, 0.004)), rows=1, cpu_of="")
    assert "50 requests/s due" in told
    assert "4.0 ms late" in told
    assert "ms late" not in render(
        load, replace(RESULT, lateness=np.full(9, 1e-4)), rows=1, cpu_of=""
    )
