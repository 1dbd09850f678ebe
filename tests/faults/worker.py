"""A worker for the kill test: `python -m tests.faults.worker STATE FITTED DIGITS NAME SEED`.

It opens a state as a server's worker does, with growing segments of 64 rows, and has clients that
memorize, replace, repeat and forget as fast as they can; worker `a` also compacts all the time. It
never ends by itself. What it says stands in `teaching.Line`.
"""

import os
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Final

from service.errors import JournalUnavailable, QueueFull
from service.memory import fitted
from service.memory.memory import ResidualMemory
from service.memory.observer import Unobserved
from service.memory.options import MemoryOptions
from tests.faults.teaching import FITTED_ROWS, SHAPE, Digits, Line

OPTIONS: Final = MemoryOptions(growing_bytes=1)
CLIENTS: Final = 3
_SOURCES: Final = 4
_MOST_ROWS: Final = 20
_LONGEST_PAUSE_S: Final = 0.02
_FULL: Final = 200
"""Memories of a client beyond which it forgets more than it teaches."""


def say(line: Line) -> None:
    """One write: a kill leaves the whole line in the pipe or nothing of it."""
    os.write(sys.stdout.fileno(), line.dump() + b"\n")


class Teller(Unobserved):
    """Says when a segment was built."""

    def on_sealed(self, seconds: float, rows: int) -> None:
        say(Line("sealed"))


class Client:
    """Does one thing after the other to memories that are its own."""

    def __init__(self, memory: ResidualMemory, digits: Digits, name: str, seed: int) -> None:
        self._memory = memory
        self._digits = digits
        self._name = name
        self._random = random.Random(f"{name}{seed}")
        self._sources = [f"{name}/{number}" for number in range(_SOURCES)]
        self._made = f"{name}-{seed}-"
        self._count = 0
        self._versions: dict[str, int] = {}
        self._source: dict[str, str] = {}
        for source in self._sources:
            for record in memory.records.page(source=source, limit=10**6, after=None):
                self._versions[record.id] = int(record.weight)
                self._source[record.id] = source

    def run(self) -> None:
        while True:
            self._one()
            time.sleep(self._random.random() * _LONGEST_PAUSE_S)

    def _one(self) -> None:
        full = len(self._versions) > _FULL
        chance = self._random.random()
        if chance < (0.3 if full else 0.7) or not self._versions:
            self._append()
        elif chance < (0.9 if full else 0.97):
            self._forget()
        else:
            self._forget_source()

    def _append(self) -> None:
        """New ids and old ones, some of which are repeated as they are."""
        source = self._random.choice(self._sources)
        versions: dict[str, int] = {}
        for _ in range(self._random.randint(1, _MOST_ROWS)):
            chance = self._random.random()
            if chance < 0.7 or not self._versions:
                self._count += 1
                versions[f"{self._made}{self._count}"] = 1
            elif chance < 0.98:
                id = self._random.choice(list(self._versions))
                # The same version again is the same content only under the same source.
                repeat = chance < 0.8 and self._source[id] == source
                versions[id] = self._versions[id] + (0 if repeat else 1)
            else:
                versions[self._fitted()] = 1 + self._random.randrange(10**6)
        request = self._digits.memories(versions, source)
        line = Line("begin", self._name, append=versions, source=source)
        if self._do(line, lambda: self._memory.append(request).result(60)):
            self._versions.update(versions)
            self._source.update(dict.fromkeys(versions, source))

    def _forget(self) -> None:
        id = self._random.choice(list(self._versions))
        if self._random.random() < 0.1:
            id = self._fitted()
        if self._do(Line("begin", self._name, forget=id), lambda: self._memory.forget(id)):
            self._versions.pop(id, None)

    def _forget_source(self) -> None:
        source = self._random.choice(self._sources)
        line = Line("begin", self._name, forget_source=source)
        if self._do(line, lambda: self._memory.forget_source(source)):
            gone = [id for id in self._versions if self._source[id] == source]
            for id in gone:
                del self._versions[id]

    def _fitted(self) -> str:
        """A memory of the bundle that no other client touches."""
        mine = "ab".index(self._name[0]) * CLIENTS + int(self._name[1])
        return fitted.id_of(self._random.randrange(mine, FITTED_ROWS, 2 * CLIENTS))

    def _do(self, line: Line, act: Callable[[], object]) -> bool:
        say(line)
        try:
            act()
        except (JournalUnavailable, QueueFull):
            say(Line("refused", self._name))
            return False
        say(Line("done", self._name))
        return True


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
    taught = Digits.load(Path(digits))
    clients = [Client(memory, taught, f"{name}{number}", int(seed)) for number in range(CLIENTS)]
    threads = [Thread(target=client.run) for client in clients]
    if name == "a":
        threads.append(Thread(target=compact, args=(memory,)))
    for thread in threads:
        thread.start()


if __name__ == "__main__":
    main(*sys.argv[1:])
