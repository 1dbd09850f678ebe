"""A load against a server that misbehaves in known ways: every request must be accounted for.

Nothing here depends on how fast the machine is: what is compared are counts, and the order of
moments that the generator itself wrote down.
"""

import asyncio
import os
import threading
from typing import Any

import numpy as np
import pytest
from resmem_service.errors import LoadFailed
from resmem_service.load.generator import carry_out
from resmem_service.load.load import Load
from resmem_service.load.result import OVERDUE, TIMED_OUT, Result

from tests.load.scripted_server import (
    CHUNKED,
    FULL,
    HANG_UP,
    LAST,
    OK,
    ScriptedServer,
    always,
    in_turn,
)


def load_on(server: ScriptedServer, **options: Any) -> Result:
    requests = [server.target.post("/predict", b'{"a": %d}' % number) for number in range(3)]
    options = {"connections": 4, "seconds": 0.3} | options
    return carry_out(Load(server.target, requests, **options))


def test_closed_loop_counts_what_the_server_saw() -> None:
    with ScriptedServer(always(OK)) as server:
        result = load_on(server)
        assert result.counts() == {"200": len(server.requests)}
        assert server.connections == 4
    assert 0 < result.completed <= len(server.requests)
    assert len(result.lateness) == 0
    assert (result.served.latency > 0).all()
    assert result.client_cpu_s > 0
    assert result.server_cpu_s is None


def test_requests_are_sent_in_turn() -> None:
    with ScriptedServer(always(OK)) as server:
        load_on(server, connections=1)
        assert [request[-2:-1] for request in server.requests[:5]] == [b"0", b"1", b"2", b"0", b"1"]


def test_warm_up_is_not_counted() -> None:
    with ScriptedServer(always(OK)) as server:
        result = load_on(server, warmup_s=0.3)
        counted = len(result.served)
        assert 0 < counted < len(server.requests)
    assert (result.served.due >= 0).all()


def test_chunked_answers_and_connections_that_end_are_answers() -> None:
    with ScriptedServer(in_turn(CHUNKED, LAST)) as server:
        result = load_on(server)
        assert set(result.counts()) == {"200"}
        assert server.connections > 4


def test_refusals_have_a_latency_of_their_own() -> None:
    with ScriptedServer(in_turn(OK, FULL)) as server:
        result = load_on(server)
        counts = result.counts()
        assert counts["429"] > 0
        assert sum(counts.values()) == len(server.requests)
    assert len(result.served) == counts["200"]
    assert result.completed <= counts["200"]


def test_a_request_that_the_server_hangs_up_on_is_counted_and_the_connection_replaced() -> None:
    with ScriptedServer(in_turn(OK, OK, HANG_UP)) as server:
        counts = load_on(server).counts()
        assert sum(counts.values()) == len(server.requests)
        lost = sum(number for name, number in counts.items() if name != "200")
        assert lost == len(server.requests) // 3


@pytest.mark.parametrize(
    "answer", [b"what?\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n"]
)
def test_an_answer_that_is_no_http_is_no_answer(answer: bytes) -> None:
    with ScriptedServer(in_turn(OK, answer)) as server:
        result = load_on(server)
        assert set(result.counts()) == {"200", "closed"}


def test_open_loop_sends_what_is_due_no_matter_what() -> None:
    with ScriptedServer(always(OK)) as server:
        result = load_on(server, rate=200.0, seconds=0.5)
        assert abs(len(server.requests) - 100) <= 1
    assert result.counts() == {"200": len(server.requests)}
    assert len(result.lateness) > 0
    assert np.allclose(np.diff(np.sort(result.served.due)), 1 / 200)


def test_a_stall_delays_what_was_due_meanwhile() -> None:
    """The test of coordinated omission: one connection, and a first answer that takes its time."""
    seen_enough = threading.Event()

    async def script(number: int) -> bytes:
        if number == 0:
            await asyncio.get_running_loop().run_in_executor(None, seen_enough.wait, 0.3)
        return OK

    with ScriptedServer(script) as server:
        result = load_on(server, connections=1, rate=100.0, seconds=0.6)
    served = result.served
    order = np.argsort(served.due)
    due, end = served.due[order], (served.due + served.latency)[order]
    assert abs(len(due) - 60) <= 1, "nothing that was due may be missing"
    stalled = (due > due[0]) & (due < end[0])
    assert stalled.sum() >= 20
    assert (end[stalled] > end[0]).all(), "they were answered after the stall, measured from due"
    assert (served.held[order][stalled] > 0).all(), "no connection was free for them"


def test_a_server_that_never_answers_is_seen_as_one() -> None:
    async def script(_: int) -> bytes:
        await asyncio.sleep(3600)
        return OK

    with ScriptedServer(script) as server:
        result = load_on(server, connections=2, rate=100.0, seconds=0.4, timeout_s=0.5)
    counts = result.counts()
    assert counts[TIMED_OUT] == 2
    assert abs(counts[TIMED_OUT] + counts[OVERDUE] - 40) <= 1
    assert result.completed == 0
    overdue = result.outcomes[OVERDUE]
    assert np.allclose(overdue.due + overdue.latency, result.seconds)
    assert len(result.served) == sum(counts.values())
    assert result.cpu_us is None
    assert result.drain_s > 0, "two requests were under way at the end"


def test_a_server_that_goes_away_ends_the_load() -> None:
    with ScriptedServer(always(OK)) as server:
        timer = threading.Timer(0.3, server.stop)
        timer.start()
        with pytest.raises(LoadFailed, match=r"went away .* after [\d,]+ requests: Conn.* refused"):
            load_on(server, seconds=60.0)
        timer.join()


def test_a_server_that_is_not_there() -> None:
    with ScriptedServer(always(OK)) as server:
        server.stop()
        with pytest.raises(LoadFailed, match=r"no connection to http://127.0.0.1:\d+: .*refused"):
            load_on(server)


def test_cpu_time_of_the_server_is_measured() -> None:
    with ScriptedServer(always(OK)) as server:
        result = load_on(server, pid=os.getpid())  # server and client are one process here
    assert result.server_cpu_s is not None
    assert result.cpu_us is not None
    assert result.cpu_us > 0
