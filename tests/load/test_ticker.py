import asyncio
import sys

import pytest
import uvloop
from resmem_service.load.ticker import Ticker


def ticks(seconds: float, count: int) -> int:
    """Waits for so many ticks, then stops the clock and gives it time to tick on."""

    async def run() -> int:
        done = asyncio.Event()
        seen = 0

        def tick() -> None:
            nonlocal seen
            seen += 1
            if seen == count:
                done.set()

        ticker = Ticker(seconds, tick)
        await asyncio.wait_for(done.wait(), 30)
        ticker.stop()
        before = seen
        await asyncio.sleep(5 * seconds)
        assert seen == before
        ticker.stop()
        return seen

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run())


@pytest.mark.parametrize("seconds", [0.005, 0.0005, 1e-7])
def test_ticks_until_it_is_stopped(seconds: float) -> None:
    assert ticks(seconds, 20) == 20


def test_without_the_kernels_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert ticks(0.002, 10) == 10
