"""The requests that wait for the batch thread, and who runs next.

Plain data without a lock or a clock: only the batch thread touches it.
"""

from asyncio import Future
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from itertools import chain
from typing import Final, Generic, Protocol, Self, TypeVar

__all__ = ["BatchQueue", "Batchable", "Part", "Request"]


class Batchable(Protocol):
    """What can be queued: something with rows that can be sliced."""

    def __len__(self) -> int: ...

    @property
    def signature(self) -> Hashable:
        """Only things of one signature run in one batch."""
        ...

    def slice(self, start: int, stop: int) -> Self:
        """Return the rows from `start` up to, not including, `stop`."""
        ...


R = TypeVar("R", bound=Batchable)
T = TypeVar("T")

_TURNS: Final = 8
"""A large request, one of more than this part of a batch, gets as much of it at least."""


@dataclass(slots=True, eq=False)
class Request(Generic[R, T]):
    """One submission: its rows, how many of them were taken, and what came of them so far."""

    rows: R
    future: Future[T]
    arrived: float
    size: int
    taken: int = 0
    results: list[T] = field(default_factory=list)
    error: Exception | None = None

    @property
    def remaining(self) -> int:
        """Rows that no batch has taken yet."""
        return self.size - self.taken

    def take(self, count: int) -> "Part[R, T]":
        """Cut off the next `count` rows."""
        start, self.taken = self.taken, self.taken + count
        whole = count == self.size
        return Part(self, start, self.rows if whole else self.rows.slice(start, self.taken))


@dataclass(frozen=True, slots=True, eq=False)
class Part(Generic[R, T]):
    """The rows of a request from `start` on that run in one batch."""

    request: Request[R, T]
    start: int
    rows: R


class BatchQueue(Generic[R, T]):
    """Waiting requests, one line for each signature.

    Lines take turns. Within a line the first large request gets an eighth of a batch and small ones
    what they need; what room is left goes to the large ones in their order, and who needs more
    goes to the end of the line. So a small request never waits for the whole of a large one,
    neither starves the other, and large ones are not cut up where they are alone.
    """

    def __init__(self) -> None:
        self._lines: dict[Hashable, deque[Request[R, T]]] = {}
        self.rows = 0
        """Rows that wait, those of requests given up on included until `take` finds them."""

    def add(self, request: Request[R, T]) -> None:
        """Put a request at the end of its line."""
        self._lines.setdefault(request.rows.signature, deque()).append(request)
        self.rows += request.remaining

    def take(self, room: int) -> tuple[list[Part[R, T]], list[Request[R, T]]]:
        """Cut the next batch, at most `room` rows of one signature, from the line whose turn it is.

        Returns its parts, at most one of a request, and the requests dropped because their caller
        gave up. Requests that have failed already are removed and not returned. No parts means that
        this line held nothing else; others may.
        """
        if not self._lines:
            return [], []
        signature = next(iter(self._lines))
        line = self._lines.pop(signature)
        chosen, dropped = self._choose(line, room)
        parts = [request.take(count) for request, count in chosen.items()]
        self.rows -= sum(chosen.values())
        line.extend(request for request in chosen if request.remaining)
        if line:
            self._lines[signature] = line
        return parts, dropped

    def clear(self) -> list[Request[R, T]]:
        """Empty the queue; returns the requests that nobody has answered yet."""
        waiting = [r for r in chain.from_iterable(self._lines.values()) if r.error is None]
        self._lines.clear()
        self.rows = 0
        return waiting

    @property
    def oldest(self) -> float:
        """When the first request of the line whose turn it is arrived.

        Raises:
            StopIteration: nothing waits.
        """
        return next(iter(self._lines.values()))[0].arrived

    def _choose(
        self, line: deque[Request[R, T]], room: int
    ) -> tuple[dict[Request[R, T], int], list[Request[R, T]]]:
        """Pop requests until the batch is full; the rows that each gets, and those dropped."""
        turn = max(1, room // _TURNS)
        chosen: dict[Request[R, T], int] = {}
        held: list[Request[R, T]] = []
        dropped = []
        large = False
        while line and room:
            request = line.popleft()
            if request.error is not None or request.future.cancelled():
                self.rows -= request.remaining
                if request.error is None:
                    dropped.append(request)
                continue
            if large and request.remaining > turn:
                held.append(request)
                continue
            large = large or request.remaining > turn
            chosen[request] = min(request.remaining, turn, room)
            room -= chosen[request]
        for request in [*chosen, *held]:
            if not room:
                break
            count = chosen.get(request, 0)
            chosen[request] = count + min(request.remaining - count, room)
            room -= chosen[request] - count
        line.extendleft(request for request in reversed(held) if request not in chosen)
        return chosen, dropped
