"""Carries a load out: opens the connections, keeps the schedule, writes down what becomes of it.

In the open loop a request's latency counts from the moment it was due, sent or not: a server that
stalls must not hide it by slowing its clients down ("coordinated omission").
"""

import asyncio
import time
from array import array
from collections import defaultdict, deque
from time import perf_counter
from typing import TYPE_CHECKING, Final

import numpy as np
import uvloop

from resmem_service.errors import LoadFailed
from resmem_service.load.connection import Connection
from resmem_service.load.load import Load
from resmem_service.load.result import OVERDUE, TIMED_OUT, RequestGroup, Result
from resmem_service.load.ticker import Ticker

if TYPE_CHECKING:
    from resmem_service.load.process_tree import ProcessTree

__all__ = ["carry_out"]

_AT_ONCE: Final = 100
"""Connections opened at the same time."""
_AGAIN_S: Final = 0.05
_GONE_S: Final = 2.0
"""A server that takes no connection for so long is gone, not restarting."""
_LOOK_S: Final = 0.1


def carry_out(load: Load) -> Result:
    """Runs a load from beginning to end; blocks.

    Raises:
        LoadFailed: nothing listens there, or the server went away.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(load))


async def _run(load: Load) -> Result:
    return await _Generator(load).run()


class _Outcomes:
    """Requests by what became of them; arrays, since a long load has millions."""

    def __init__(self) -> None:
        self._due: defaultdict[str, array[float]] = defaultdict(lambda: array("d"))
        self._latency: defaultdict[str, array[float]] = defaultdict(lambda: array("d"))
        self._held: defaultdict[str, array[float]] = defaultdict(lambda: array("d"))

    def add(self, name: str, due: float, sent: float, ended: float) -> None:
        self._due[name].append(due)
        self._latency[name].append(ended - due)
        self._held[name].append(sent - due)

    def finish(self, began: float) -> dict[str, RequestGroup]:
        return {
            name: RequestGroup(
                np.array(due) - began, np.array(self._latency[name]), np.array(self._held[name])
            )
            for name, due in self._due.items()
        }


class _Generator:
    """One load; also the owner of its connections."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._tls = load.target.tls()
        self._sent = 0
        self._free: deque[Connection] = deque()
        self._open: set[Connection] = set()
        self._overdue: deque[float] = deque()
        self._outcomes = _Outcomes()
        self._lateness = array("d")
        self._completed = 0
        self._starts = self._opens = self._ends = float("inf")
        self._next_due = 0.0
        self._lost_at: float | None = None
        self._reopening: set[asyncio.Task[None]] = set()
        self._failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def run(self) -> Result:
        load = self._load
        tree = _tree(load.pid)
        await self._connect()
        processes = [] if tree is None else tree.processes()
        ticker = self._start()
        await self._until(self._opens)
        ours, before = time.process_time(), 0.0 if tree is None else tree.cpu_s(processes)
        await self._until(self._ends)
        ours = time.process_time() - ours
        server = None if tree is None else tree.cpu_s(tree.processes()) - before
        if ticker is not None:
            ticker.stop()
            self._tick()  # the last ones due, should this process have slept over its end
        await self._last_answers()
        drained = perf_counter() - self._ends
        for connection in list(self._open):
            connection.abort()
        for due in self._overdue:
            self._record(OVERDUE, due, self._ends, self._ends)
        return Result(
            seconds=load.seconds,
            completed=self._completed,
            outcomes=self._outcomes.finish(self._opens),
            lateness=np.array(self._lateness),
            drain_s=drained,
            client_cpu_s=ours,
            server_cpu_s=server,
        )

    def on_answer(self, connection: Connection, status: int) -> None:
        """Called by a connection."""
        now = perf_counter()
        if 200 <= status < 300 and self._opens <= now < self._ends:
            self._completed += 1
        self._record(str(status), connection.due, connection.sent, now)
        self._use(connection)

    def on_lost(self, connection: Connection, reason: str) -> None:
        """Called by a connection."""
        self._open.discard(connection)
        if connection.busy:
            now = perf_counter()
            waited = now - connection.sent >= self._load.timeout_s
            name = TIMED_OUT if waited else reason
            self._record(name, connection.due, connection.sent, now)
        if not self._open and self._lost_at is None:
            self._lost_at = perf_counter()
        if perf_counter() < self._ends:
            task = asyncio.get_running_loop().create_task(self._reopen())
            self._reopening.add(task)
            task.add_done_callback(self._reopening.discard)

    def _use(self, connection: Connection) -> None:
        """Sends what is due next over a free connection, or keeps it for later."""
        now = perf_counter()
        if not connection.alive:
            return  # `on_lost` replaces it
        if not self._starts <= now < self._ends:
            self._free.append(connection)
        elif self._load.rate is None:
            self._send(connection, now)
        elif self._overdue:
            self._send(connection, self._overdue.popleft())
        else:
            self._free.append(connection)

    def _send(self, connection: Connection, due: float) -> None:
        requests = self._load.requests
        connection.send(requests[self._sent % len(requests)], due)
        self._sent += 1

    def _tick(self) -> None:
        """Sends what has become due, in the open loop."""
        assert self._load.rate is not None
        now = perf_counter()
        while self._next_due <= now and self._next_due < self._ends:
            due, self._next_due = self._next_due, self._next_due + 1 / self._load.rate
            connection = self._take()
            if connection is None:
                self._overdue.append(due)
                continue
            self._send(connection, due)
            if due >= self._opens:
                self._lateness.append(connection.sent - due)

    def _take(self) -> Connection | None:
        while self._free:
            connection = self._free.popleft()
            if connection.alive:
                return connection
        return None

    def _record(self, name: str, due: float, sent: float, ended: float) -> None:
        if self._opens <= due < self._ends:
            self._outcomes.add(name, due, sent, ended)

    def _start(self) -> Ticker | None:
        load, now = self._load, perf_counter()
        self._starts, self._opens = now, now + load.warmup_s
        self._ends = self._opens + load.seconds
        if load.rate is not None:
            self._next_due = now
            return Ticker(1 / load.rate, self._tick)
        waiting, self._free = self._free, deque()
        for connection in waiting:
            self._use(connection)
        return None

    async def _until(self, moment: float) -> None:
        """Waits, and looks after requests that are not answered; ends early with a failure."""
        while (left := moment - perf_counter()) > 0:
            await self._look(min(left, _LOOK_S))

    async def _last_answers(self) -> None:
        """Waits for requests under way; each is answered, lost or timed out in the end."""
        await self._look(0)
        while any(connection.busy for connection in self._open):
            await self._look(_LOOK_S / 10)

    async def _look(self, seconds: float) -> None:
        await asyncio.wait([self._failure], timeout=seconds)
        if self._failure.done():
            self._failure.result()
        earliest = perf_counter() - self._load.timeout_s
        for connection in list(self._open):
            if connection.busy and connection.sent <= earliest:
                connection.abort()

    async def _connect(self) -> None:
        left = self._load.connections
        while left > 0:
            some = min(left, _AT_ONCE)
            left -= some
            try:
                await asyncio.gather(*(self._open_one() for _ in range(some)))
            except OSError as error:
                raise LoadFailed(
                    f"no connection to {self._load.target.url}: {_said(error)}"
                ) from None

    async def _open_one(self) -> None:
        target = self._load.target
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: Connection(self), target.host, target.port, ssl=self._tls
        )
        self._open.add(connection)
        self._lost_at = None
        self._use(connection)

    async def _reopen(self) -> None:
        """Replaces a connection that was lost, unless the server is gone."""
        while perf_counter() < self._ends:
            try:
                await self._open_one()
            except OSError as error:
                self._give_up(error)
            else:
                return
            await asyncio.sleep(_AGAIN_S)

    def _give_up(self, error: OSError) -> None:
        now = perf_counter()
        if self._lost_at is None or now - self._lost_at < _GONE_S or self._failure.done():
            return
        message = (
            f"{self._load.target.url} went away {self._lost_at - self._starts:.1f} s into the "
            f"load, after {self._sent:,} requests: {_said(error)}"
        )
        self._failure.set_exception(LoadFailed(message))


def _said(error: OSError) -> str:
    """Returns the operating system's message for an error."""
    return error.strerror or str(error) or type(error).__name__


def _tree(pid: int | None) -> "ProcessTree | None":
    if pid is None:
        return None
    # Here, not above: psutil is of the extra `bench`, and a load without a pid needs none.
    from resmem_service.load.process_tree import ProcessTree

    return ProcessTree.of(pid)
