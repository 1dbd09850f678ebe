"""A reverse proxy as operators run them: it looks at readiness and keeps connections open.

Like nginx or HAProxy it picks among the servers that were ready at the last look, sends a POST
once, on a connection that it has kept or on a new one, and tries another server only where it could
not connect: a request that was sent may have been carried out.
"""

import asyncio
from collections import Counter
from contextlib import suppress
from itertools import count
from types import TracebackType
from typing import Self

_LOOK_S = 0.25

Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Upstream:
    """One server behind the proxy."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.is_ready = asyncio.Event()
        self.idle: list[Connection] = []
        self._opened: list[asyncio.StreamWriter] = []

    async def look(self) -> None:
        """Asks for readiness, on a connection of its own."""
        try:
            async with asyncio.timeout(2):
                reader, writer = await self._open()
                try:
                    writer.write(b"GET /readyz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                    ready = (await reader.readline()).startswith(b"HTTP/1.1 200 ")
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            ready = False
        if ready:
            self.is_ready.set()
        else:
            self.is_ready.clear()

    async def connection(self) -> Connection:
        """One that was kept, or a new one; raises OSError if there is none to be had."""
        while self.idle:
            reader, writer = self.idle.pop()
            if not reader.at_eof() and not writer.is_closing():
                return reader, writer
            writer.close()
        return await self._open()

    async def close(self) -> None:
        """Closes all connections, and waits until they are."""
        for writer in self._opened:
            writer.close()
        await asyncio.gather(
            *(writer.wait_closed() for writer in self._opened), return_exceptions=True
        )

    async def _open(self) -> Connection:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        self._opened.append(writer)
        return reader, writer


class ReverseProxy:
    """Use it in an `async with`; `outcomes` counts statuses and what went wrong otherwise."""

    def __init__(self, *ports: int) -> None:
        self.upstreams = [Upstream(port) for port in ports]
        self.outcomes: Counter[str] = Counter()
        self.kept = 0
        self._turns = count()

    async def __aenter__(self) -> Self:
        self._looking = asyncio.create_task(self._look())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._looking.cancel()
        with suppress(asyncio.CancelledError):
            await self._looking
        for upstream in self.upstreams:
            await upstream.close()

    async def post(self, path: str, body: bytes) -> None:
        """Forwards one request and notes how it went."""
        try:
            self.outcomes[await self._forward(path, body)] += 1
        except (OSError, EOFError) as error:
            self.outcomes[repr(error)] += 1

    async def _look(self) -> None:
        while True:
            for upstream in self.upstreams:
                await upstream.look()
            await asyncio.sleep(_LOOK_S)

    async def _forward(self, path: str, body: bytes) -> str:
        turn = next(self._turns)
        ready = [one for one in self.upstreams if one.is_ready.is_set()]
        for attempt in range(len(ready)):
            upstream = ready[(turn + attempt) % len(ready)]
            with suppress(ConnectionRefusedError):
                connection = await upstream.connection()
                return await self._exchange(upstream, connection, path, body)
        return "no server"

    async def _exchange(
        self, upstream: Upstream, connection: Connection, path: str, body: bytes
    ) -> str:
        reader, writer = connection
        head = f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n"
        try:
            writer.write(head.encode() + body)
            answer = (await reader.readuntil(b"\r\n\r\n")).lower()
            fields = dict(line.partition(b": ")[::2] for line in answer.split(b"\r\n")[1:])
            await reader.readexactly(int(fields[b"content-length"]))
        except BaseException:
            writer.close()
            raise
        if fields.get(b"connection") == b"close":
            writer.close()
        else:
            self.kept += 1
            upstream.idle.append(connection)
        return answer.split()[1].decode()
