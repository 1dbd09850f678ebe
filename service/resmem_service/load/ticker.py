"""A clock that ticks in the event loop as evenly as the kernel can."""

import asyncio
import ctypes
import os
import struct
import sys
from collections.abc import Callable

__all__ = ["Ticker"]

_CLOCK_MONOTONIC = 1
_SHORTEST_S = 2e-4
"""Ticks closer than this run together; nobody can tell them apart."""


class Ticker:
    """Calls back every so many seconds until it is stopped; late calls are not made up for.

    The timers of an event loop have steps of a millisecond: uvloop is 0.3 ms late in the mean at
    500 ticks a second, and spins at 2,000. Linux's timerfd is 0.1 ms late and lets it sleep. Where
    there is none, the loop's timers have to do.
    """

    def __init__(self, seconds: float, tick: Callable[[], None]) -> None:
        """Starts; in the event loop that is to tick."""
        self._seconds = max(seconds, _SHORTEST_S)
        self._tick = tick
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.TimerHandle | None = None
        self._descriptor = _timer(self._seconds) if sys.platform == "linux" else -1
        if self._descriptor >= 0:
            self._loop.add_reader(self._descriptor, self._on_timer)
        else:
            self._on_delay()

    def stop(self) -> None:
        """Ticks no more."""
        if self._handle is not None:
            self._handle.cancel()
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1

    def _on_timer(self) -> None:
        os.read(self._descriptor, 8)  # how many ticks; the caller looks at its own clock
        self._tick()

    def _on_delay(self) -> None:
        self._handle = self._loop.call_later(max(self._seconds, 1e-3), self._on_delay)
        self._tick()


def _timer(seconds: float) -> int:
    """A descriptor that can be read at every tick; -1 where there is none to be had."""
    library = ctypes.CDLL(None)
    descriptor: int = library.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
    whole, fraction = divmod(round(seconds * 1e9), 10**9)
    each = struct.pack("@ll", whole, fraction)
    if descriptor >= 0 and library.timerfd_settime(descriptor, 0, each + each, None) != 0:
        os.close(descriptor)
        return -1
    return descriptor
