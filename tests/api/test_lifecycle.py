"""The lifecycle: which requests still use a backend that was replaced."""

import asyncio
from typing import cast

from resmem_service.api.lifecycle import Backend, Lifecycle

BACKEND = cast(Backend, object())


def test_earlier_requests_are_waited_for_and_later_ones_are_not() -> None:
    async def life() -> None:
        lifecycle = Lifecycle()
        lifecycle.serve(BACKEND)
        early = lifecycle.requests
        early.size += 1
        lifecycle.serve(BACKEND)
        late = lifecycle.requests
        late.size += 1
        assert lifecycle.in_flight() == 2
        waiting = asyncio.create_task(lifecycle.wait_for_earlier())
        await asyncio.sleep(0.05)
        assert not waiting.done()
        early.size -= 1
        await waiting
        assert lifecycle.in_flight() == 1

    asyncio.run(life())


def test_one_from_before_two_swaps_may_use_either_backend() -> None:
    async def life() -> None:
        lifecycle = Lifecycle()
        lifecycle.serve(BACKEND)
        early = lifecycle.requests
        early.size += 1
        lifecycle.serve(BACKEND)
        first = asyncio.create_task(lifecycle.wait_for_earlier())
        lifecycle.serve(BACKEND)
        second = asyncio.create_task(lifecycle.wait_for_earlier())
        await asyncio.sleep(0.05)
        assert not first.done()
        assert not second.done()
        early.size -= 1
        await asyncio.gather(first, second)

    asyncio.run(life())


def test_shut_nobody_waits() -> None:
    async def life() -> None:
        lifecycle = Lifecycle()
        lifecycle.requests.size += 1
        lifecycle.serve(BACKEND)
        lifecycle.stop()
        await lifecycle.wait_for_earlier()
        assert lifecycle.in_flight() == 1

    asyncio.run(life())
