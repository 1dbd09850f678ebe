import asyncio
import time
from collections.abc import Awaitable, Callable
from itertools import pairwise

import pytest
from resmem_service.coalesced import Coalesced
from resmem_service.errors import QueueFull


class Work:
    """Counts its runs; each waits to be let through."""

    def __init__(self) -> None:
        self.begun = 0
        self.at_once = 0
        self.most_at_once = 0
        self.through = asyncio.Semaphore(0)
        self.fails = False

    async def run(self) -> int:
        self.begun += 1
        number = self.begun
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await self.through.acquire()
        self.at_once -= 1
        if self.fails:
            raise ValueError(f"run {number}")
        return number


def scenario(
    play: Callable[[Work, Coalesced[int]], Awaitable[None]], max_waiting: int = 64
) -> None:
    async def main() -> None:
        work = Work()
        async with asyncio.timeout(30):
            await play(work, Coalesced(work.run, what="reloads", max_waiting=max_waiting))

    asyncio.run(main())


def test_a_crowd_shares_one_run_after_the_first() -> None:
    async def play(work: Work, reloads: Coalesced[int]) -> None:
        asked = [asyncio.create_task(reloads.run()) for _ in range(50)]
        await asyncio.sleep(0)
        work.through.release()
        work.through.release()
        assert await asyncio.gather(*asked) == [1] + [2] * 49
        assert (work.begun, work.most_at_once) == (2, 1)
        work.through.release()
        assert await reloads.run() == 3

    scenario(play)


def test_every_caller_gets_a_run_that_began_after_it_asked() -> None:
    async def play(work: Work, reloads: Coalesced[int]) -> None:
        asked = []
        for _ in range(200):
            before = work.begun
            asked.append((before, asyncio.create_task(reloads.run())))
            if len(asked) % 3 == 0:
                work.through.release()
            await asyncio.sleep(0)
        for _ in range(200):
            work.through.release()
        for before, task in asked:
            assert await task > before
        assert work.most_at_once == 1
        assert work.begun < 150

    scenario(play)


def test_a_failure_is_told_to_all_who_share_it_and_ends_nothing() -> None:
    async def play(work: Work, reloads: Coalesced[int]) -> None:
        work.fails = True
        asked = [asyncio.create_task(reloads.run()) for _ in range(3)]
        work.through.release()
        work.through.release()
        results = await asyncio.gather(*asked, return_exceptions=True)
        assert [str(each) for each in results] == ["run 1", "run 2", "run 2"]
        work.fails = False
        work.through.release()
        assert await reloads.run() == 3

    scenario(play)


def test_who_gives_up_stops_nothing_for_the_others() -> None:
    async def play(work: Work, reloads: Coalesced[int]) -> None:
        asked = [asyncio.create_task(reloads.run()) for _ in range(4)]
        await asyncio.sleep(0)
        asked[0].cancel()
        asked[1].cancel()
        work.through.release()
        work.through.release()
        assert await asyncio.gather(*asked[2:]) == [2, 2]

    scenario(play)


def test_few_may_wait() -> None:
    async def play(work: Work, reloads: Coalesced[int]) -> None:
        asked = [asyncio.create_task(reloads.run()) for _ in range(3)]
        await asyncio.sleep(0)
        with pytest.raises(QueueFull, match="3 reloads wait already"):
            await reloads.run()
        work.through.release()
        work.through.release()
        await asyncio.gather(*asked)
        work.through.release()
        assert await reloads.run() == 3

    scenario(play, max_waiting=3)


def test_work_that_rests_takes_a_quarter_of_the_time_however_often_it_is_asked_for() -> None:
    spans: list[tuple[float, float]] = []

    async def work() -> int:
        began = time.monotonic()
        await asyncio.sleep(0.02)
        spans.append((began, time.monotonic()))
        return len(spans)

    async def main() -> None:
        reloads = Coalesced(work, what="reloads", rests=True)
        for number in (1, 2):  # one after the other, each asked for when the last has its result
            assert await reloads.run() == number
        # And all at once: they share the run that begins when the rest is over.
        assert await asyncio.gather(*(reloads.run() for _ in range(20))) == [3] * 20

    asyncio.run(main())
    for (began, ended), (following, _) in pairwise(spans):
        assert following - ended >= 3 * (ended - began) - 0.005
