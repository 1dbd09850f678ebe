"""The supervisor: binds the socket, keeps the workers alive and gives them their orders."""

import asyncio
import logging
import signal
import socket
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any, Final

from resmem_service.bundle.store import ModelStore
from resmem_service.coalesced import Coalesced
from resmem_service.errors import QueueFull, ReloadFailed, ResmemError
from resmem_service.reloaded import Reloaded
from resmem_service.resources import usable_cpus
from resmem_service.server.listener import listening_socket, url_of
from resmem_service.server.messages import Assignment, ReloadOutcome
from resmem_service.server.rollout import commit_everywhere, prepare_everywhere
from resmem_service.server.stack_dump import StackDump
from resmem_service.server.worker_process import WorkerProcess
from resmem_service.settings import Settings
from resmem_service.telemetry import logs
from resmem_service.telemetry.logs import fields
from resmem_service.telemetry.metric_storage import MetricTable, Restart

__all__ = ["Supervisor", "supervise"]

_SHORT_LIFE_S: Final = 30.0
_MOST_SHORT_LIVES: Final = 5
_SHORTEST_PAUSE_S: Final = 0.25
_LONGEST_PAUSE_S: Final = 30.0
_CANNOT_SERVE: Final = 2
_MOST_RELOADS: Final = 1024
"""Two of each worker and some signals; every worker bounds those that its clients ask for."""
_LOOK_S: Final = 1.0
"""Between two looks at the workers' heartbeats."""

_log = logging.getLogger(__name__)


def supervise(settings: Settings) -> int:
    """Serves with `settings.workers` processes until SIGTERM or SIGINT and returns 0.

    Returns 2 if the model turns out not to load, 1 if the workers die again and again.

    Raises:
        BundleError, CorruptFile: no bundle, or one that is damaged at first sight.
        InvalidSettings: the address cannot be listened on.
    """
    logs.configure(settings.log_level, settings.log_format)
    bundle = ModelStore(settings.store).resolve(settings.model)
    bundle.check()
    with listening_socket(settings.host, settings.port) as listener:
        _log.info("starting", extra=fields(url=url_of(listener), workers=settings.workers))
        return asyncio.run(Supervisor(settings, bundle.reference, listener).run())


class Supervisor:
    """Runs until it is told to stop, or until workers die repeatedly; serves no request itself."""

    def __init__(self, settings: Settings, served: str, listener: socket.socket) -> None:
        """`served` is the version to begin with, `name/version`."""
        self._settings = settings
        self._served = served
        self._listener = listener
        self._table = MetricTable(settings.workers)
        self._lives: dict[int, WorkerProcess] = {}
        self._reloads = Coalesced(
            self._reload, what="reloads", max_waiting=_MOST_RELOADS, rests=True
        )
        self._stopping = asyncio.Event()
        self._status = 0
        self._was_ready = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> int:
        """Starts the workers, and returns the exit status once all have ended."""
        loop = asyncio.get_running_loop()
        for stop in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(stop, self._on_stop, stop)
        loop.add_signal_handler(signal.SIGHUP, lambda: self._begin(self._reload_logged()))
        for worker in range(self._settings.workers):
            self._table.starting(worker)
        self._begin(self._watch())
        async with asyncio.TaskGroup() as group:
            for worker in range(self._settings.workers):
                group.create_task(self._keep(worker))
        self._table.close()
        return self._status

    async def reload(self) -> Reloaded:
        """Brings the version that the store marks current into service, on all workers or none.

        One at a time: all who call while one is under way share the next, see `Coalesced`.

        Raises:
            ReloadFailed: it will not do, with the reason; the version that was served still is.
            QueueFull: very many wait for one already.
        """
        return await self._reloads.run()

    async def _reload(self) -> Reloaded:
        # Workers that load the old version for the first time are not stopped at it.
        await self._was_ready.wait()
        previous = self._served
        model = self._settings.model or previous.partition("/")[0]
        try:
            bundle = await asyncio.to_thread(ModelStore(self._settings.store).verified, model)
            workers = await prepare_everywhere(
                self._ready_lives,
                bundle.reference,
                seconds=self._settings.worker_start_timeout_s,
            )
        except (ResmemError, OSError) as error:
            _log.error("the reload failed, %s still serves: %s", previous, error)
            raise ReloadFailed(f"{previous} still serves: {error}") from error
        # From here on every worker that starts serves the new version; those that are still
        # loading the old one begin anew. Nothing was awaited since the last look at `_lives`.
        self._served = bundle.reference
        for life in self._lives.values():
            if life not in workers:
                life.dismiss()
        await commit_everywhere(workers, seconds=self._settings.worker_timeout_s)
        return Reloaded(self._served, previous, pinned="/" in model)

    async def _keep(self, worker: int) -> None:
        """Replaces a worker whenever it ends, the sooner the longer it had lived."""
        short_lives = 0
        while not self._stopping.is_set():
            began = time.monotonic()
            end = await self._live(worker)
            if self._stopping.is_set():
                return
            if end.dismissed:
                continue
            why = Restart.HUNG if end.hung else Restart.DIED
            self._table.restarted(worker, why)
            _log.error(
                "worker ended",
                extra=fields(worker=worker, status=end.status, reason=why.name.lower()),
            )
            short = time.monotonic() - began < _SHORT_LIFE_S
            short_lives = short_lives + 1 if short else 0
            if not self._was_ready.is_set() and end.status == str(_CANNOT_SERVE):
                self._stop(_CANNOT_SERVE, "a worker cannot serve, its log says why")
            elif short_lives >= _MOST_SHORT_LIVES and not self._ready_lives():
                _log.error("giving up: the workers die repeatedly; the lines above say why")
                self._stop(1, "giving up")
            elif short_lives > 1:
                await self._pause(min(_LONGEST_PAUSE_S, _SHORTEST_PAUSE_S * 2**short_lives))

    async def _live(self, worker: int) -> "_End":
        """One life of a worker, and how it ended."""
        stacks = StackDump()
        if not self._ready_lives():
            self._table.starting(worker)
        try:
            life = await WorkerProcess.start(
                self._assignment(worker, stacks.descriptor),
                self._table,
                stacks,
                on_reload_asked=lambda life, number: self._begin(self._answer(life, number)),
                on_ready=self._on_ready,
            )
        except OSError as error:  # as where a container may have no more processes
            stacks.read()
            self._table.ended(worker)
            return _End(f"not started: {error}")
        self._lives[worker] = life
        if self._stopping.is_set() or life.model != self._served:
            life.dismiss()  # what has changed while its process was made, nobody told it
        try:
            status = await life.ended()
        finally:
            del self._lives[worker]
            self._table.ended(worker)
        trace = life.stacks()
        if trace:
            _log.error("the threads of worker %d when it ended:\n%s", worker, trace)
        return _End(_described(status), hung=life.hung, dismissed=life.dismissed)

    async def _watch(self) -> None:
        """Ends workers that hang; when told to stop, `_stop` has a deadline for all of them."""
        settings = self._settings
        look_s = min(_LOOK_S, settings.worker_timeout_s / 4)
        while not self._stopping.is_set():
            await self._pause(look_s)
            for life in self._lives.values():
                bound = settings.worker_timeout_s if life.ready else settings.worker_start_timeout_s
                if life.note_time(look_s) < bound or life.hung or life.dismissed:
                    continue
                what = "does nothing" if life.ready else "has not loaded the model"
                _log.error(
                    "a worker hangs: it %s since %.0f s; it is replaced", what, bound,
                    extra=fields(worker=life.worker, pid=life.pid),
                )  # fmt: skip
                life.end_hung()

    def _assignment(self, worker: int, stacks: int) -> Assignment:
        settings = self._settings
        share = max(1, usable_cpus() // settings.workers)
        own = {"model": self._served, "threads": settings.threads or share}
        return Assignment(
            settings.model_copy(update=own),
            worker,
            self._listener.fileno(),
            self._table.descriptor,
            stacks,
            bool(self._ready_lives()),
        )

    def _ready_lives(self) -> list[WorkerProcess]:
        return [
            life
            for life in self._lives.values()
            if life.ready and not life.dismissed and not life.hung
        ]

    def _on_ready(self) -> None:
        self._was_ready.set()
        if len(self._ready_lives()) == self._settings.workers:
            _log.info("all workers ready", extra=fields(model=self._served))

    def _on_stop(self, signum: signal.Signals) -> None:
        """The first signal drains, a second one ends the workers at once."""
        if self._stopping.is_set():
            self._kill()
        else:
            self._stop(0, signum.name)

    def _stop(self, status: int, why: str) -> None:
        self._status = status
        self._stopping.set()
        _log.info("stopping", extra=fields(signal=why))
        # A person who presses Ctrl-C has nobody to warn.
        delay_s = self._settings.shutdown_delay_s if why == signal.SIGTERM.name else 0.0
        # As the workers do: who comes from now on is to be refused, not kept waiting.
        asyncio.get_running_loop().call_later(delay_s, self._listener.close)
        for life in self._lives.values():
            if life.ready:
                life.retire(why, delay_s=delay_s)
            else:  # still loading: nobody waits for its answers
                life.kill()

    def _kill(self) -> None:
        for life in self._lives.values():
            life.kill()

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    async def _answer(self, life: WorkerProcess, number: int) -> None:
        """Answers a worker whose client asked for a reload."""
        try:
            life.send(ReloadOutcome(number, await self.reload()))
        except (ReloadFailed, QueueFull) as error:
            life.send(ReloadOutcome(number, None, error.message))

    async def _reload_logged(self) -> None:
        try:
            await self.reload()
        except ReloadFailed:
            return  # the log has it
        except QueueFull as error:
            _log.warning("SIGHUP is ignored: %s", error)

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


@dataclass(frozen=True, slots=True)
class _End:
    """How a life of a worker ended."""

    status: str
    """Its exit status, or the name of the signal."""
    hung: bool = False
    dismissed: bool = False


def _described(status: int) -> str:
    return signal.Signals(-status).name if status < 0 else str(status)
