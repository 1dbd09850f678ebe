"""A worker for the kill test: `python -m tests.faults.worker STATE FITTED DIGITS NAME SEED`.

It opens a state as a server's worker does, with growing segments of 64 rows, and has clients that
memorize, replace, repeat and forget as fast as they can; worker `a` also compacts all the time. It
never ends by itself. What it says stands in `history.Line`.
"""

import os
import sys
import time
from collections.abc import Collection
from pathlib import Path
from threading import Event, Thread
from typing import Final

from resmem_service.errors import JournalUnavailable, QueueFull
from resmem_service.memory.memory import ResidualMemory
from resmem_service.memory.observer import SilentMemoryObserver
from resmem_service.memory.options import MemoryOptions

from tests.faults.client import Client, Gone, Refused, share, state_of
from tests.faults.digits import FITTED_ROWS, SHAPE, Digits
from tests.faults.history import Lesson, Line, States

OPTIONS: Final = MemoryOptions(growing_bytes=1)
CLIENTS: Final = 3


def say(line: Line) -> None:
    """One write: a kill leaves the whole line in the pipe or nothing of it."""
    os.write(sys.stdout.fileno(), line.dump() + b"\n")


class Teller(SilentMemoryObserver):
    """Says when a segment was built."""

    def on_sealed(self, seconds: float, rows: int) -> None:
        say(Line("sealed"))


class OpenMemory:
    """The memory of this process, for its clients: a reply is never lost without the process."""

    def __init__(self, memory: ResidualMemory, digits: Digits) -> None:
        self._memory = memory
        self._digits = digits

    def memorize(self, lesson: Lesson) -> list[str]:
        try:
            return self._memory.append(self._digits.memories(lesson)).result(60).ids
        except (JournalUnavailable, QueueFull) as error:
            raise Refused from error

    def forget(self, id: str) -> None:
        try:
            self._memory.forget(id)
        except JournalUnavailable as error:
            raise Refused from error

    def forget_source(self, source: str) -> None:
        try:
            self._memory.forget_source(source)
        except JournalUnavailable as error:
            raise Refused from error

    def find(self, ids: Collection[str], source: str) -> States:
        raise Gone


def compact(memory: ResidualMemory) -> None:
    while True:
        time.sleep(0.3)
        try:
            memory.compact(wait_s=1)
        except JournalUnavailable:
            continue
        say(Line("compacted"))


def end_with_parent() -> None:
    os.read(0, 1)
    os._exit(1)


def main(state: str, fitted: str, digits: str, name: str, seed: str) -> None:
    Thread(target=end_with_parent, daemon=True).start()
    memory = ResidualMemory.open(
        Path(state), fitted=Path(fitted), shape=SHAPE, options=OPTIONS, observer=Teller()
    )
    say(Line("ready"))
    taught = OpenMemory(memory, Digits.load(Path(digits)))
    records = memory.records.page(source=None, limit=10**6)
    known = {record.id: state_of(record.weight, record.source) for record in records}
    first = "ab".index(name) * CLIENTS
    threads = []
    for number in range(CLIENTS):
        bundled = share(first + number, 2 * CLIENTS, FITTED_ROWS)
        client = Client(taught, say, f"{name}{number}", int(seed), known, bundled)
        threads.append(Thread(target=client.run, args=(Event(),)))
    if name == "a":
        threads.append(Thread(target=compact, args=(memory,)))
    for thread in threads:
        thread.start()


if __name__ == "__main__":
    main(*sys.argv[1:])
