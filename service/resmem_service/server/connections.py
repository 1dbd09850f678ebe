"""All connections of a worker: how many there may be, and how long each may take for what.

Nothing here runs for a request. The clock is read once a sweep, so that a connection notes the time
without a system call; a deadline is thereby kept to about the period of the sweeps, and never
early.
"""

import asyncio
from dataclasses import dataclass
from typing import Final, Protocol, Self

from resmem_service.server.body_budget import BodyBudget
from resmem_service.server.refusals import Refusals
from resmem_service.settings import Settings
from resmem_service.telemetry.metrics import Metrics

__all__ = ["Connection", "ConnectionLimits", "Connections"]

_LONGEST_PERIOD_S: Final = 1.0
_PERIODS_PER_TIMEOUT: Final = 4
_EVICTED_PART: Final = 32
_SPARE: Final = 64
"""Connections above the limit that may be open for the moment in which they are told so."""


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What a client may do to a connection; the settings of the same names say more."""

    max_head_bytes: int = 64 * 2**10
    max_body_bytes: int = 64 * 2**20
    head_timeout_s: float = 10.0
    keep_alive_s: float = 75.0
    body_timeout_s: float = 30.0
    min_body_bytes_per_s: int = 8192
    send_timeout_s: float = 30.0
    linger_s: float = 30.0
    """How long the rest of a request is read that was refused before its end, at most."""
    linger_silence_s: float = 5.0
    """And how long nothing of it may come."""
    linger_bytes: int = 256 * 2**20
    """And how much of it."""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """As the settings say."""
        return cls(
            max_head_bytes=settings.max_head_bytes,
            max_body_bytes=settings.max_body_bytes,
            head_timeout_s=settings.head_timeout_s,
            keep_alive_s=settings.keep_alive_s,
            body_timeout_s=settings.body_timeout_s,
            min_body_bytes_per_s=settings.min_body_bytes_per_s,
            send_timeout_s=settings.send_timeout_s,
        )

    @property
    def period_s(self) -> float:
        """From one sweep to the next."""
        timeouts = (
            self.head_timeout_s,
            self.keep_alive_s,
            self.body_timeout_s,
            self.send_timeout_s,
            self.linger_silence_s,
        )
        return min(_LONGEST_PERIOD_S, min(timeouts) / _PERIODS_PER_TIMEOUT)


class Connection(Protocol):
    """A connection as it is seen from here."""

    since: float
    """When the client did last what it is expected to do."""

    def check(self, now: float) -> None:
        """Ends it if the client takes too long."""

    def eviction_rank(self) -> int | None:
        """The lower, the sooner it may be closed for the sake of another; None: never."""

    def body_held(self) -> int:
        """Bytes of a body that is not complete yet."""

    def evict(self) -> None:
        """Closes it; it has a rank."""

    def give_up_body(self) -> None:
        """Refuses the request whose body is not complete, and frees what has come of it."""


class Connections:
    """Those of one worker; belongs to its event loop."""

    def __init__(
        self, limits: ConnectionLimits, max_connections: int, budget: BodyBudget, metrics: Metrics
    ) -> None:
        self.limits = limits
        self.budget = budget
        self.refusals = Refusals(metrics)
        self.now = 0.0
        """The time of the last sweep."""
        self.closed = metrics.closed_connections
        """Counter of connections that were closed for a reason."""
        self._max_connections = max_connections
        self._open: set[Connection] = set()
        self._evictable: list[Connection] = []
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._open)

    def enter(self, connection: Connection) -> bool:
        """A connection was made; False: there is no room for it, and it is to say so and go."""
        if self._timer is None:
            loop = asyncio.get_running_loop()
            self.now = loop.time()
            self._timer = loop.call_later(self.limits.period_s, self._sweep, loop)
        connection.since = self.now
        room = len(self._open) < self._max_connections or self._evict()
        self._open.add(connection)
        return room

    def leave(self, connection: Connection) -> None:
        """A connection was lost."""
        self._open.discard(connection)

    @property
    def crowded(self) -> bool:
        """Whether so many are above the limit that there is no room to tell them."""
        return len(self._open) > self._max_connections + _SPARE

    def make_room(self, amount: int) -> bool:
        """Gives up bodies that are not complete, the largest first, until a small one fits.

        A client that sends a small request at once must not wait for those that send large ones
        for ever.
        """
        held = sorted(
            (each.body_held(), id(each), each) for each in self._open if each.body_held() > amount
        )
        while held and not self.budget.fits(amount):
            held.pop()[2].give_up_body()
        return self.budget.fits(amount)

    def _evict(self) -> bool:
        while True:
            if not self._evictable and not self._find_evictable():
                return False
            connection = self._evictable.pop()
            if connection in self._open and connection.eviction_rank() is not None:
                connection.evict()
                return True

    def _find_evictable(self) -> bool:
        """Collects some at once, the first to go last, so that a crowd is not sorted each time."""
        ranked = [
            (rank, each.since, id(each), each)
            for each in self._open
            if (rank := each.eviction_rank()) is not None
        ]
        ranked.sort()
        some = ranked[: 1 + len(ranked) // _EVICTED_PART]
        self._evictable = [each for *_, each in reversed(some)]
        return bool(some)

    def _sweep(self, loop: asyncio.AbstractEventLoop) -> None:
        self.now = loop.time()
        for connection in list(self._open):
            connection.check(self.now)
        self._timer = None
        if self._open:
            self._timer = loop.call_later(self.limits.period_s, self._sweep, loop)
