"""What a wrong request costs: CPU time and memory of every shape of refusal on every route.

    python -m benchmarks.speed.refusals           bodies of 0.5 and 4 MB, and 400 of them over HTTP
    python -m benchmarks.speed.refusals --full    up to 60 MB, plain and in 64 KB of gzip, and 1,000

Each request is given to the app in this process, so that the CPU time is that of the app alone,
without the cost of a client. Memory is what Python's allocators hand out (the peak, and what is
left when the answer is out, with the garbage collector off). Then a server of its own gets many of
them over HTTP, and its resident memory is compared before and after.
"""

import argparse
import asyncio
import gc
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import unquote

import psutil
from resmem_service.api.inference_protocol.datatypes import datatype_of
from resmem_service.app import ResmemApp
from resmem_service.child_command import module_command
from resmem_service.settings import Settings, load

from benchmarks.speed.contender import Contender, RunningServer, is_ready
from benchmarks.speed.refused_requests import Model, Refused, catalogue, zipped

__all__ = ["App", "Cost", "expandable", "main", "model_of"]

_MB: Final = 2**20
_QUICK: Final = (_MB // 2, 4 * _MB)
_FULL: Final = (_MB // 2, 8 * _MB, 60 * _MB)
_HEAD: Final = 2**15
"""Bytes of a path or a query: no server passes on more."""
_WIRE: Final = 2**16
"""Bytes of a compressed body."""
_SHOWN: Final = 12
_LITTLE: Final = 100_000
_LOOKS: Final = 100
_LOOK_S: Final = 0.01
"""After an answer a thread that decoded may still be putting its things away."""
_OUT: Final = Path("benchmarks/out")


@dataclass(frozen=True, slots=True)
class Cost:
    """What one request took."""

    request: Refused
    size: int
    """Bytes of its body, unpacked."""
    wire: int
    """And as it is sent."""
    status: int
    answer: int
    """Bytes of the answer's body."""
    seconds: float
    """CPU time."""
    peak: int = 0
    """Bytes at most, the body itself included."""
    retained: int = 0
    """Bytes that are left."""


class App:
    """The service in this process, asked without a socket; a context manager."""

    def __init__(self, settings: Settings) -> None:
        self.app = ResmemApp(settings)
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()

    def __enter__(self) -> Self:
        self._runner.run(self._start())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._runner.run(self._stack.aclose())
        self._runner.close()

    async def _start(self) -> None:
        asgi = self.app.asgi
        await self._stack.enter_async_context(asgi.router.lifespan_context(asgi))
        while self._status(await self._ask("GET", "/readyz", b"", {})) != 200:
            if self.app.lifecycle.failure is not None:
                raise self.app.lifecycle.failure
            await asyncio.sleep(0.01)

    def measure(self, request: Refused, size: int, *, memory: bool = False) -> Cost:
        """Sends a request of about `size` bytes; `memory` slows it down several times."""
        body = request.make(size)
        path = request.path if request.lengthen is None else request.lengthen(size)
        if memory:
            tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0] if memory else 0
        began = time.process_time()
        status, answer = self._runner.run(self._ask(request.method, path, body, request.headers))
        seconds = time.process_time() - began
        left = peak = 0
        if memory:
            peak = tracemalloc.get_traced_memory()[1] - before
            for _ in range(_LOOKS):
                left = tracemalloc.get_traced_memory()[0] - before - answer
                if left < _LITTLE:
                    break
                time.sleep(_LOOK_S)
            tracemalloc.stop()
        return Cost(request, size, len(body) or len(path), status, answer, seconds, peak, left)

    @staticmethod
    def _status(answer: tuple[int, int]) -> int:
        return answer[0]

    async def _ask(self, method: str, path: str, body: bytes, headers: Any) -> tuple[int, int]:
        """Status and length of an answer."""
        route, _, query = path.partition("?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "scheme": "http",
            "method": method,
            "path": unquote(route),
            "raw_path": route.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "server": ("127.0.0.1", 80),
            "client": ("127.0.0.1", 1),
            "headers": [(b"host", b"127.0.0.1"), (b"content-length", b"%d" % len(body))]
            + [(name.encode(), value.encode()) for name, value in headers.items()],
        }
        sent = status = length = 0

        async def receive() -> dict[str, Any]:
            nonlocal sent
            if sent:
                await asyncio.Event().wait()
            sent = 1
            # A copy, so that it is in the count of memory as what a server has read is.
            return {"type": "http.request", "body": bytes(memoryview(body)), "more_body": False}

        async def send(message: Any) -> None:
            nonlocal status, length
            status = message.get("status", status)
            length += len(message.get("body", b""))

        await self.app.asgi(scope, receive, send)
        return status, length


def model_of(app: App) -> Model:
    """What requests must say of the model that is served; it has one input of a fixed shape."""
    metadata = app.app.lifecycle.backend().metadata
    (spec,) = metadata.inputs
    shape = tuple(axis or 1 for axis in spec.shape)
    return Model(metadata.name, metadata.version, spec.name, datatype_of(spec.dtype), shape)


def expandable(requests: Iterable[Refused]) -> list[Refused]:
    """Those with a body that gzip makes small."""
    return [
        zipped(request)
        for request in requests
        if request.lengthen is None and "content-encoding" not in request.headers
    ]


def measured(app: App, requests: Sequence[Refused], sizes: Sequence[int]) -> list[Cost]:
    """The cost of each at each size, memory included."""
    costs = []
    for number, request in enumerate(requests):
        for size in sizes if request.lengthen is None else (_HEAD // 4, _HEAD):
            cost = app.measure(request, size)
            memory = app.measure(request, size, memory=True)
            costs.append(
                Cost(
                    request, size, cost.wire, cost.status, cost.answer, cost.seconds,
                    memory.peak, memory.retained,
                )
            )  # fmt: skip
        if sys.stderr.isatty():
            print(f"\r{number + 1} of {len(requests)}", end="", file=sys.stderr)
    return costs


def report(costs: Sequence[Cost]) -> None:
    """The worst of them by time, by peak and by what is left."""
    refused = [cost for cost in costs if cost.status >= 400]
    others = sorted({cost.request.name for cost in costs if cost.status < 400})
    print(f"{len(refused)} refusals of {len({cost.request.name for cost in refused})} shapes")
    for what, key in (
        ("CPU time", lambda cost: cost.seconds),
        ("peak", lambda cost: cost.peak),
        ("retained", lambda cost: cost.retained),
        ("answer", lambda cost: cost.answer),
    ):
        print(f"\nmost {what}:\n     MB  wire kB    CPU ms  peak MB  left kB  answer  status")
        for cost in sorted(refused, key=key, reverse=True)[:_SHOWN]:
            print(
                f"{cost.size / _MB:7.2f} {cost.wire / 1024:8.0f} {cost.seconds * 1e3:9.1f} "
                f"{cost.peak / _MB:8.1f} {cost.retained / 1024:8.1f} {cost.answer:7} "
                f"{cost.status:7}  {cost.request.name[:90]}"
            )
    for name in others:
        print(f"not refused: {name}")


def resident(requests: Sequence[Refused], count: int, size: int) -> None:
    """Sends many of them to a server of its own; its resident memory before and after."""
    with tempfile.TemporaryDirectory() as state:
        contender = Contender(
            "resmem",
            "ResMem",
            lambda port: module_command(
                "resmem_service", "serve", "--port", str(port), "--state-dir", state
            ),
        )
        ready = RunningServer(contender, [], _OUT / "refusals.log", is_ready)
        with ready as server:
            process = psutil.Process(server.pid)
            _send(server, islice(cycle(requests), 50), size)
            before = process.memory_info().rss
            statuses = _send(server, islice(cycle(requests), count), size)
            after = process.memory_info().rss
    refused = sum(number for status, number in statuses.items() if status >= 400)
    print(
        f"\na server over HTTP, {count} requests of up to {size / _MB:.1f} MB or "
        f"{_WIRE // 1024} kB of gzip, {refused} refused: "
        f"{before / _MB:.0f} MB resident before, {after / _MB:.0f} MB after; {statuses}"
    )


def _send(server: RunningServer, requests: Iterable[Refused], size: int) -> dict[int, int]:
    """How often each status came; 0 where the server ended the connection."""
    statuses: dict[int, int] = {}
    for request in requests:
        body = request.make(size)
        path = request.path if request.lengthen is None else request.lengthen(_HEAD // 8)
        status = 0
        with suppress(OSError):
            status = server.request(request.method, path, body, dict(request.headers))[0]
        statuses[status] = statuses.get(status, 0) + 1
    return dict(sorted(statuses.items()))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints; see the module."""
    parser = argparse.ArgumentParser(prog="benchmarks.speed.refusals")
    parser.add_argument("--full", action="store_true", help="sizes up to 60 MB; takes an hour")
    parser.add_argument("--only", default="", help="only shapes whose name holds this")
    told = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as state, App(load(state_dir=state)) as app:
        requests = [one for one in catalogue(model_of(app)) if told.only in one.name]
        plain = [one for one in requests if "content-encoding" not in one.headers]
        gc.collect()
        gc.freeze()
        gc.disable()
        costs = measured(app, requests, _FULL if told.full else _QUICK)
        costs += [
            cost
            for cost in measured(app, expandable(plain), _FULL[-1:] if told.full else _QUICK[-1:])
            if cost.wire <= _WIRE
        ]
        gc.enable()
        report(costs)
    bombs = [one for one in expandable(plain) if len(one.make(_QUICK[0])) <= _WIRE // 64]
    many = [each for pair in zip(requests, cycle(bombs), strict=False) for each in pair]
    resident(many, 1000 if told.full else 400, 4 * _MB)


if __name__ == "__main__":
    main()
