"""Load on a running server, from a process of its own: closed loop, or open loop at a steady rate.

The client is a bare asyncio protocol over uvloop, since a general one would take more CPU than the
server that it measures. In the open loop a latency counts from the moment a request was due, so
that a server which stalls cannot hide it by slowing its clients down.
"""

import asyncio
import json
import subprocess
import sys
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any, cast

import numpy as np
import uvloop

__all__ = ["Load", "Outcome", "start"]


@dataclass(frozen=True, slots=True)
class Load:
    """What to send to 127.0.0.1: JSON bodies in turn, over `connections`, for `seconds`."""

    port: int
    path: str
    bodies: Sequence[str]
    connections: int
    seconds: float
    rate: float | None = None
    """Requests per second in all; None: each connection asks again when it is answered."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a load."""

    answers: int
    seconds: float
    codes: dict[str, int]
    """Answers by status code."""
    p50_ms: float
    p99_ms: float

    @property
    def per_second(self) -> float:
        """Answers per second."""
        return self.answers / self.seconds


class Running:
    """A load under way in its own process."""

    def __init__(self, load: Load) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.speed.load"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(load)))
        self._process.stdin.close()

    def wait(self) -> Outcome:
        """Its outcome, when it has ended; raises RuntimeError where it failed."""
        assert self._process.stdout is not None
        said = self._process.stdout.read()
        if self._process.wait() != 0:
            raise RuntimeError("the load generator failed")
        return Outcome(**json.loads(said))


def start(load: Load) -> Running:
    """Begins a load in a process of its own."""
    return Running(load)


class _Client(asyncio.Protocol):
    """One connection: sends a request, reads the answer, tells the generator."""

    def __init__(self, generator: "_Generator") -> None:
        self._generator = generator
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._generator.idle(self)

    def send(self, request: bytes, due: float) -> None:
        assert self._transport is not None
        self._due = due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._buffer[:end]).lower()
        at = head.index(b"content-length:") + 15
        length = int(head[at:].split(b"\r\n", 1)[0])
        if len(self._buffer) < end + 4 + length:
            return
        code = head[9:12].decode()
        self._buffer.clear()
        self._generator.answered(code, perf_counter() - self._due)
        self._generator.idle(self)


class _Generator:
    def __init__(self, load: Load) -> None:
        self._load = load
        self._requests = [_request(load.path, body) for body in load.bodies]
        self._sent = 0
        self._codes: Counter[str] = Counter()
        self._latencies: list[float] = []
        self._idle: deque[_Client] = deque()
        self._late: deque[float] = deque()
        self._ends = float("inf")

    @classmethod
    async def run(cls, load: Load) -> Outcome:
        generator = cls(load)
        loop = asyncio.get_running_loop()
        for _ in range(load.connections):
            await loop.create_connection(lambda: _Client(generator), "127.0.0.1", load.port)
        return await generator._go()

    def idle(self, client: _Client) -> None:
        if perf_counter() >= self._ends or self._ends == float("inf"):
            self._idle.append(client)
        elif self._load.rate is None:
            self._send(client, perf_counter())
        elif self._late:
            self._send(client, self._late.popleft())
        else:
            self._idle.append(client)

    def answered(self, code: str, seconds: float) -> None:
        self._codes[code] += 1
        self._latencies.append(seconds)

    def _send(self, client: _Client, due: float) -> None:
        request = self._requests[self._sent % len(self._requests)]
        self._sent += 1
        client.send(request, due)

    async def _go(self) -> Outcome:
        began = perf_counter()
        self._ends = began + self._load.seconds
        if self._load.rate is None:
            for _ in range(len(self._idle)):
                self._send(self._idle.popleft(), perf_counter())
            await asyncio.sleep(self._load.seconds)
        else:
            await self._keep_rate(began, self._load.rate)
        took = perf_counter() - began
        answers = len(self._latencies)
        p50, p99 = np.percentile(self._latencies, [50, 99]) * 1e3
        return Outcome(answers, took, dict(self._codes), float(p50), float(p99))

    async def _keep_rate(self, began: float, rate: float) -> None:
        due = began
        while due < self._ends:
            now = perf_counter()
            while due <= now:
                if self._idle:
                    self._send(self._idle.popleft(), due)
                else:
                    self._late.append(due)
                due += 1 / rate
            await asyncio.sleep(max(0.0, due - perf_counter()))


def _request(path: str, body: str) -> bytes:
    content = body.encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n"
        f"content-length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def main() -> None:
    """Carries out the load on standard input and prints its outcome as JSON."""
    load: dict[str, Any] = json.load(sys.stdin)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(asdict(runner.run(_Generator.run(Load(**load))))))


if __name__ == "__main__":
    main()
