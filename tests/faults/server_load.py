"""All kinds of load on a running server: clients that teach, one that asks, and compaction."""

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Event
from types import TracebackType
from typing import Final, Self

import pytest

from tests.faults.client import Client, Gone, Lost, Refused, share
from tests.faults.digits import FITTED_ROWS
from tests.faults.history import Line, States
from tests.faults.served_memory import ServedMemory

CLIENTS: Final = 5
_BETWEEN_COMPACTIONS_S: Final = 0.3
_BETWEEN_QUESTIONS_S: Final = 0.005
_PATIENCE_S: Final = 60


class ServerLoad:
    """Use it in a `with`: afterwards all is quiet, and what went wrong comes out.

    Args:
        connect: makes a connection to the server, each with a number of its own.
        options: tell a command where the server's state is.
        tell: told of everything that the clients do.
        seed: a new one for each load.
        known: all memories added online that there are.

    Attributes:
        compacted: set when `resmem compact` has succeeded.
        compaction: the process of the newest one.
    """

    def __init__(
        self,
        connect: Callable[[int], ServedMemory],
        options: list[str],
        tell: Callable[[Line], None],
        seed: int,
        known: States,
    ) -> None:
        self._options = options
        self._over = Event()
        self.compacted = Event()
        self.compaction: subprocess.Popen[str] | None = None
        self._memories = [connect(number) for number in range(CLIENTS + 1)]
        self._clients = [
            Client(memory, tell, f"c{number}", seed, known, share(number, CLIENTS, FITTED_ROWS))
            for number, memory in enumerate(self._memories[:CLIENTS])
        ]

    def __enter__(self) -> Self:
        self._pool = ThreadPoolExecutor(CLIENTS + 2)
        self._running: list[Future[None]] = [
            *(self._pool.submit(client.run, self._over) for client in self._clients),
            self._pool.submit(self._ask, self._memories[-1]),
            self._pool.submit(self._compact),
        ]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._over.set()
        self._pool.shutdown()
        for memory in self._memories:
            memory.close()
        for one in self._running:
            one.result()

    def _ask(self, memory: ServedMemory) -> None:
        """Predicts all the time: whatever dies, nobody is told anything but whole answers."""
        while not self._over.wait(_BETWEEN_QUESTIONS_S):
            try:
                predictions = memory.predict(memory.some_inputs(3))
            except (Lost, Refused):
                continue
            except Gone:
                return
            for prediction in predictions:
                assert sum(prediction["scores"]) == pytest.approx(1, abs=1e-3)

    def _compact(self) -> None:
        while not self._over.wait(_BETWEEN_COMPACTIONS_S):
            self.compaction = process = subprocess.Popen(
                [sys.executable, "-m", "resmem_service", "compact", *self._options],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            try:
                _, trouble = process.communicate(timeout=_PATIENCE_S)
            finally:
                process.kill()
            assert "Traceback" not in trouble, trouble
            if process.returncode == 0:
                self.compacted.set()
