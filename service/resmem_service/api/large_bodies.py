"""Large bodies are decoded beside the event loop, few at a time: others are answered meanwhile."""

import asyncio
from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

__all__ = ["LARGE_BYTES", "LargeBodies"]

P = ParamSpec("P")
T = TypeVar("T")

LARGE_BYTES: Final = 2**19
"""Bytes of JSON from which on decoding, or saying what is wrong with it, takes milliseconds."""
_AT_ONCE: Final = 2


class LargeBodies:
    """Runs what is slow about large bodies in other threads; for one event loop."""

    def __init__(self) -> None:
        self._turn = asyncio.Semaphore(_AT_ONCE)

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of `work`; whatever it raises is raised here."""
        async with self._turn:
            return await asyncio.to_thread(work, *args, **kwargs)
