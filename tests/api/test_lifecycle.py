"""The gate's crowds: who still uses a backend that was replaced."""

import asyncio
from typing import cast

from resmem_service.api.lifecycle import Backend, Gate

BACKEND = cast(Backend, object())


def test_earlier_requests_are_waited_for_and_later_ones_are_not() -> None:
    async def life() -> None:
        gate = Gate()
        gate.open(BACKEND)
        early = gate.crowd
        early.size += 1
        gate.open(BACKEND)
        late = gate.crowd
        late.size += 1
        assert gate.in_flight() == 2
        waiting = asyncio.create_task(gate.earlier_left())
        await asyncio.sleep(0.05)
        assert not waiting.done()
        early.size -= 1
        await waiting
        assert gate.in_flight() == 1

    asyncio.run(life())


def test_one_from_before_two_swaps_may_use_either_backend() -> None:
    async def life() -> None:
        gate = Gate()
        gate.open(BACKEND)
        early = gate.crowd
        early.size += 1
        gate.open(BACKEND)
        first = asyncio.create_task(gate.earlier_left())
        gate.open(BACKEND)
        second = asyncio.create_task(gate.earlier_left())
        await asyncio.sleep(0.05)
        assert not first.done()
        assert not second.done()
        early.size -= 1
        await asyncio.gather(first, second)

    asyncio.run(life())


def test_shut_nobody_waits() -> None:
    async def life() -> None:
        gate = Gate()
        gate.crowd.size += 1
        gate.open(BACKEND)
        gate.shut()
        await gate.earlier_left()
        assert gate.in_flight() == 1

    asyncio.run(life())
