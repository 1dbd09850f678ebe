"""What the tests of the batcher queue: numbers that know what they must come back as."""

import threading
from asyncio import Semaphore, get_running_loop
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from resmem_service.inference.batch_queue import Part

PATIENCE_S = 30.0
"""Only a broken batcher ever waits this long."""


@dataclass(frozen=True)
class Items:
    numbers: tuple[int, ...]
    signature: str = "a"

    def __len__(self) -> int:
        return len(self.numbers)

    def slice(self, start: int, stop: int) -> "Items":
        return Items(self.numbers[start:stop], self.signature)


Answers = list[str]
ItemPart = Part[Items, Answers]


def answers_of(items: Items) -> Answers:
    return [f"{items.signature}{number}" for number in items.numbers]


class Gate:
    """A run function that stops at a gate, so that a test says when each batch ends."""

    def __init__(self, run: Callable[[Sequence[ItemPart]], list[Answers | Exception]]) -> None:
        self.batches: list[list[Items]] = []
        self.threads: list[str] = []
        self._run = run
        self._permits = threading.Semaphore(0)
        self._loop = get_running_loop()
        self._begun = Semaphore(0)

    def __call__(self, parts: Sequence[ItemPart]) -> list[Answers | Exception]:
        self.batches.append([part.rows for part in parts])
        self.threads.append(threading.current_thread().name)
        self._loop.call_soon_threadsafe(self._begun.release)
        assert self._permits.acquire(timeout=PATIENCE_S)
        return self._run(parts)

    async def begun(self) -> None:
        """Returns once one more batch has begun."""
        await self._begun.acquire()

    def open(self, batches: int = 10_000) -> None:
        self._permits.release(batches)


def answer(parts: Sequence[ItemPart]) -> list[Answers | Exception]:
    return [answers_of(part.rows) for part in parts]


def unobserved(rows: int, waits: Sequence[float]) -> None:
    assert rows >= 1
    assert all(wait >= 0 for wait in waits)
