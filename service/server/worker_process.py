"""A worker as its supervisor sees it: a process, and the pipe to it."""

import asyncio
import logging
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable
from itertools import count
from multiprocessing.connection import Connection, Pipe
from typing import Final

from service.child_command import module_command
from service.server.messages import (
    Abandon,
    Answer,
    Assignment,
    Commit,
    Order,
    Prepare,
    Ready,
    ReloadAsked,
    ToSupervisor,
    ToWorker,
)
from service.telemetry.logs import fields

__all__ = ["WorkerProcess"]

_LAST_WORDS_S: Final = 10.0
"""From the end of its pipe to its own."""

_log = logging.getLogger(__name__)


class WorkerProcess:
    """One life of a worker. Belongs to the supervisor's event loop."""

    def __init__(
        self,
        worker: int,
        process: Process,
        connection: "Connection[ToWorker, ToSupervisor]",
        on_reload_asked: Callable[["WorkerProcess", int], None],
        on_ready: Callable[[], None],
    ) -> None:
        """Use `start`."""
        self.worker = worker
        self.ready = False
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
        *,
        on_reload_asked: Callable[["WorkerProcess", int], None],
        on_ready: Callable[[], None],
    ) -> "WorkerProcess":
        """Starts the process; it will be ready later.

        `on_reload_asked` gets the number that the answer, an `Outcome`, must have.
        """
        ours, theirs = Pipe()
        try:
            process = await asyncio.create_subprocess_exec(
                *module_command("service.server.worker", str(theirs.fileno())),
                stdin=DEVNULL,
                pass_fds=(theirs.fileno(), assignment.listener, assignment.board),
                process_group=0,  # a terminal's Ctrl-C is for the supervisor alone
            )
        finally:
            theirs.close()
        _log.info("worker started", extra=fields(worker=assignment.worker, pid=process.pid))
        started = cls(assignment.worker, process, ours, on_reload_asked, on_ready)
        started.send(assignment)
        return started

    def send(self, message: ToWorker) -> None:
        """Sends a message; to the dead it is lost."""
        try:
            self._connection.send(message)
        except OSError:
            _log.debug("worker %d has not got %s", self.worker, message)

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
                self._on_ready()
            case ReloadAsked(number):
                self._on_reload_asked(self, number)
            case Answer(number, refusal):
                answer = self._answers.get(number)
                if answer is not None and not answer.done():
                    answer.set_result(refusal)

    def _desert(self, answer: "asyncio.Future[str | None]") -> None:
        if not answer.done():
            answer.set_result(f"worker {self.worker} died of it")
