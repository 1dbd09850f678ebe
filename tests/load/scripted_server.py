"""A server that does what a test says: answers, refuses, stalls, hangs up."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

from resmem_service.load.target import Target

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
FULL = b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
LAST = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}"
HANG_UP = b""

Script = Callable[[int], Awaitable[bytes]]
"""The number of a request, from 0, to the bytes of its answer; nothing ends the connection."""


class ScriptedServer:
    """Listens on a port of its own from `with` on, in a thread of its own."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._ready = threading.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self.requests: list[bytes] = []
        self.connections = 0
        self.target = Target("127.0.0.1", 0)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(30)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Closes its port and every connection; nothing listens there when it returns."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join(30)

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._talk, "127.0.0.1", 0)
        self.target = Target("127.0.0.1", server.sockets[0].getsockname()[1])
        self._ready.set()
        await self._stopped.wait()
        server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
                number = len(self.requests)
                self.requests.append(head + await reader.readexactly(length))
                answer = await self._script(number)
                if not answer:
                    return
                writer.write(answer)
                if b"connection: close" in answer:
                    return
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()


def always(answer: bytes) -> Script:
    """The same answer to every request."""

    return in_turn(answer)


def in_turn(*answers: bytes) -> Script:
    """One answer after the other, again and again."""

    async def script(number: int) -> bytes:
        return answers[number % len(answers)]

    return script
