"""A worker as its supervisor sees it: a process, and the pipe to it."""

import asyncio
import logging
import select
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable
from itertools import count
from multiprocessing.connection import Connection, Pipe
from typing import Final

from resmem_service.child_command import module_command
from resmem_service.server.http_stop import STOP_GRACE_S
from resmem_service.server.messages import (
    Abandon,
    Assignment,
    Commit,
    Drain,
    Order,
    OrderResult,
    Prepare,
    Ready,
    ReloadAsked,
    ToSupervisor,
    ToWorker,
)
from resmem_service.server.stack_dump import StackDump
from resmem_service.telemetry.logs import fields
from resmem_service.telemetry.metric_storage import Gauge, MetricTable

__all__ = ["WorkerProcess"]

_LAST_WORDS_S: Final = 10.0
"""From the end of its pipe to its own."""
_DUMP_S: Final = 1.0
"""What a worker that hangs has to write down where its threads are."""

_log = logging.getLogger(__name__)


class WorkerProcess:
    """One life of a worker. Belongs to the supervisor's event loop."""

    def __init__(
        self,
        assignment: Assignment,
        process: Process,
        connection: "Connection[ToWorker, ToSupervisor]",
        table: MetricTable,
        stacks: StackDump,
        on_reload_asked: Callable[["WorkerProcess", int], None],
        on_ready: Callable[[], None],
    ) -> None:
        """Use `start`."""
        self.worker = assignment.worker
        self.pid = process.pid
        self.model = assignment.settings.model
        """The version that it was started with, `name/version`."""
        self.ready = False
        self.hung = False
        """Whether it was ended because it hung."""
        self.dismissed = False
        """Whether it was told to end, so that its end is no failure."""
        self._drain_s = assignment.settings.drain_s
        self._table = table
        self._stacks = stacks
        self._beat = self.heartbeat()
        self._still_s = 0.0
        self._process = process
        self._connection = connection
        self._on_reload_asked = on_reload_asked
        self._on_ready = on_ready
        self._numbers = count()
        self._answers: dict[int, asyncio.Future[str | None]] = {}
        self._hung_up = asyncio.Event()
        asyncio.get_running_loop().add_reader(connection.fileno(), self._read)

    @classmethod
    async def start(
        cls,
        assignment: Assignment,
        table: MetricTable,
        stacks: StackDump,
        *,
        on_reload_asked: Callable[["WorkerProcess", int], None],
        on_ready: Callable[[], None],
    ) -> "WorkerProcess":
        """Starts the process; it will be ready later.

        `table` and `stacks` are those whose descriptors the assignment names; `on_reload_asked`
        gets the number that the answer, a `ReloadOutcome`, must have.

        Raises:
            OSError: no process can be started now.
        """
        ours, theirs = Pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *module_command("resmem_service.server.worker", str(theirs.fileno())),
                stdin=DEVNULL,
                pass_fds=(
                    *(theirs.fileno(), assignment.listener, assignment.table, assignment.stacks),
                ),
                process_group=0,  # a terminal's Ctrl-C is for the supervisor alone
            )
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        _log.info("worker started", extra=fields(worker=assignment.worker, pid=process.pid))
        started = cls(assignment, process, ours, table, stacks, on_reload_asked, on_ready)
        started.send(assignment)
        return started

    def send(self, message: ToWorker) -> None:
        """Sends a message; it is lost where nobody reads, because the worker is dead or hangs."""
        try:
            room = select.poll()
            room.register(self._connection.fileno(), select.POLLOUT)
            # Else one that hangs, and the pipe is full: this event loop must not wait for it.
            if room.poll(0):
                self._connection.send(message)
                return
        except OSError:
            pass
        _log.debug("worker %d did not receive %s", self.worker, message)

    def tell(self, what: Prepare | Commit | Abandon) -> int:
        """Gives an order; the number that the answer will have."""
        number = next(self._numbers)
        self.send(Order(number, what))
        return number

    async def carry_out(self, what: Prepare | Commit | Abandon) -> str | None:
        """Gives an order and waits until it is done; why it was not, where it was not."""
        number = self.tell(what)
        answer: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        self._answers[number] = answer
        if self._hung_up.is_set():
            self._desert(answer)
        try:
            return await answer
        finally:
            del self._answers[number]

    async def ended(self) -> int:
        """Waits for the end; the exit status, or the signal's number below 0."""
        await self._hung_up.wait()
        try:
            async with asyncio.timeout(_LAST_WORDS_S):
                return await self._process.wait()
        except TimeoutError:
            self.kill()
            return await self._process.wait()

    def kill(self) -> None:
        """Ends it at once."""
        if self._process.returncode is None:
            self._process.kill()

    def dismiss(self) -> None:
        """Ends it at once, so that another takes its place, which counts as no failure.

        One that hangs or has died was replaced already, and is counted.
        """
        if not self.hung and not self._hung_up.is_set():
            self.dismissed = True
            self.kill()

    def retire(self, why: str, *, delay_s: float = 0.0) -> None:
        """Has it answer what is under way and end, and ends it when the time for that is over.

        For `delay_s` before that it still takes requests, though it is not ready any more.
        """
        self.dismissed = True
        self.send(Drain(why, delay_s))
        allowed_s = delay_s + self._drain_s + STOP_GRACE_S
        asyncio.get_running_loop().call_later(allowed_s, self.kill)

    def heartbeat(self) -> float:
        """What moves while it gets on with its work."""
        return float(self._table.values[self.worker, Gauge.HEARTBEAT])

    def note_time(self, seconds: float) -> float:
        """Tells that so much time has gone by; the seconds that its heartbeat stands still by now.

        Of a worker that is not ready: since it was started. Counted in the supervisor's own steps,
        not by a clock: where both have stood still, as in a container that was paused, the worker
        is not to blame.
        """
        beat = self.heartbeat()
        moved, self._beat = beat != self._beat, beat
        self._still_s = 0.0 if self.ready and moved else self._still_s + seconds
        return self._still_s

    def end_hung(self) -> None:
        """Has it write down where its threads are, and ends it a second later."""
        if self.hung or self._process.returncode is not None:
            return
        self.hung = True
        self._stacks.ask(self._process.pid)
        asyncio.get_running_loop().call_later(_DUMP_S, self.kill)

    def stacks(self) -> str:
        """Where the threads of one that has ended were, if it hung or crashed; ask once."""
        return self._stacks.read()

    def _read(self) -> None:
        try:
            while self._connection.poll():
                self._take(self._connection.recv())
        except (EOFError, OSError):
            asyncio.get_running_loop().remove_reader(self._connection.fileno())
            self._connection.close()
            self.ready = False
            self._hung_up.set()
            for answer in self._answers.values():
                self._desert(answer)

    def _take(self, message: ToSupervisor) -> None:
        match message:
            case Ready():
                self.ready = True
                self._still_s = 0.0
                self._on_ready()
            case ReloadAsked(number):
                self._on_reload_asked(self, number)
            case OrderResult(number, refusal):
                answer = self._answers.get(number)
                if answer is not None and not answer.done():
                    answer.set_result(refusal)

    def _desert(self, answer: "asyncio.Future[str | None]") -> None:
        if not answer.done():
            answer.set_result(f"worker {self.worker} {'hung' if self.hung else 'died'} of it")
