"""Large bodies are expanded and decoded beside the event loop, one at a time.

Others are answered meanwhile: each worker spends no more than one core on large bodies, however
many there are.
"""

import asyncio
from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

__all__ = ["LARGE_BYTES", "LargeBodies"]

P = ParamSpec("P")
T = TypeVar("T")

LARGE_BYTES: Final = 2**19
"""Bytes of JSON from which on decoding, or saying what is wrong with it, takes milliseconds."""


class LargeBodies:
    """Runs what is slow about large bodies in another thread; for one event loop."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The result of `work`; whatever it raises is raised here.

        Who asks first comes first, and who has more to do, step by step, asks again for each.
        """
        async with self._turn:
            return await asyncio.to_thread(work, *args, **kwargs)
