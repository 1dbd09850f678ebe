"""What a client does that means harm, or is written badly: each shape once, until its time is over.

A shape opens connections of its own, to 127.0.0.1 alone, and gives what came of them: a status, or
in a word how it ended. Nothing that it sends is more than 64 MB, and nothing is random, so that two
runs ask the same of a server.
"""

import asyncio
import gzip
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import cache
from typing import Final

__all__ = ["SHAPES", "Shape", "prepare"]

Shape = Callable[[int, float], Awaitable[list[str]]]
"""A port, and the seconds after which what is still open is closed, to what came of each one."""

_MB: Final = 2**20
_BOMBS: Final = (b"0,", b"{},", b'"a",', b"x")
_BOMB_BYTES: Final = 58 * _MB
_SILENT: Final = 100
_HALF: Final = 20
_FLOOD: Final = 100


def request(
    method: str = "POST",
    path: str = "/predict",
    body: bytes = b"",
    *headers: str,
    length: int | None = None,
) -> bytes:
    """One request as it goes over the wire; a length that is not the body's is a lie."""
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json"]
    lines += [f"Content-Length: {len(body) if length is None else length}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


async def _status(reader: asyncio.StreamReader) -> str:
    line = await reader.readline()
    return line.split()[1].decode(errors="replace") if line.startswith(b"HTTP/1") else "closed"


async def _talk(port: int, content: bytes, *, hold: bool = False) -> str:
    """Sends it and gives the status of the first answer; `hold` waits until the server closes."""
    writer = None
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=_MB)
        writer.write(content)
        await writer.drain()
        status = await _status(reader)
        if hold:
            while await reader.read(65536):
                pass
        return status
    except (OSError, ValueError):
        return "reset"
    except asyncio.CancelledError:  # the time of the shape is over
        return "still open"
    finally:
        if writer is not None:
            writer.transport.abort()


async def _many(
    port: int, play_s: float, contents: list[bytes], *, hold: bool = False
) -> list[str]:
    """Each on a connection of its own, all at once."""
    tasks = [asyncio.create_task(_talk(port, content, hold=hold)) for content in contents]
    _, late = await asyncio.wait(tasks, timeout=play_s)
    for task in late:
        task.cancel()
    return list(await asyncio.gather(*tasks))


@cache
def _compressed(text: bytes, size: int) -> bytes:
    return gzip.compress(b'{"inputs":[' + text * (size // len(text)))


def prepare() -> None:
    """Makes what takes long to make, before anything is to be on time."""
    for text in _BOMBS:
        _compressed(text, _BOMB_BYTES)


async def deep_nesting(port: int, play_s: float) -> list[str]:
    """Lists in lists, a few bytes for each level."""
    depths = (8, 16, 20, 24, 40, 1000, 30_000)
    bodies = [b'{"inputs":' + b"[" * depth + b"0" + b"]" * depth + b"}" for depth in depths]
    return await _many(port, play_s, [request(body=body) for body in bodies])


async def gzip_bombs(port: int, play_s: float) -> list[str]:
    """A thousandth on the wire of what the server would unpack."""
    bodies = [_compressed(text, _BOMB_BYTES) for text in _BOMBS]
    return await _many(port, play_s, [request("POST", "/predict", body, "Content-Encoding: gzip")
                              for body in bodies])  # fmt: skip


async def no_json(port: int, play_s: float) -> list[str]:
    """Bodies that are not JSON, some of them compressed."""
    packed = _compressed(_BOMBS[-1], _BOMB_BYTES)
    bodies = [request("POST", "/predict", packed, "Content-Encoding: gzip")] * 8
    return await _many(port, play_s, [*bodies, *[request(body=b"\xff" * 10_000)] * _FLOOD])


async def half_heads(port: int, play_s: float) -> list[str]:
    """A head whose end never comes."""
    return await _many(port, play_s, [request()[:40]] * _HALF, hold=True)


async def half_bodies(port: int, play_s: float) -> list[str]:
    """60 MB are promised, 2 MB come."""
    lie = request(body=b" " * 2 * _MB, length=60 * _MB)
    return await _many(port, play_s, [lie] * _HALF, hold=True)


async def silent_connections(port: int, play_s: float) -> list[str]:
    """Nothing is sent at all."""
    return await _many(port, play_s, [b""] * _SILENT, hold=True)


async def endless_headers(port: int, play_s: float) -> list[str]:
    """Header after header, 32 MB of them where nobody stops it."""
    line = b"X: y\r\n"
    return await _many(port, play_s, [request()[:-2] + line * (32 * _MB // len(line))])


async def slow_readers(port: int, play_s: float) -> list[str]:
    """Many large answers are asked for, and none is read."""

    async def one() -> str:
        loop = asyncio.get_running_loop()
        with socket.socket() as raw:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            raw.setblocking(False)
            try:
                await loop.sock_connect(raw, ("127.0.0.1", port))
                with suppress(TimeoutError):
                    async with asyncio.timeout(play_s / 2):
                        await loop.sock_sendall(raw, request("GET", "/openapi.json") * 2000)
                await asyncio.sleep(play_s / 4)
            except OSError:
                return "reset"
        return "still open"

    return list(await asyncio.gather(*(one() for _ in range(5))))


async def unknown_methods(port: int, play_s: float) -> list[str]:
    """Words where a method should be."""
    return await _many(
        port, play_s, [request("BREW", "/predict"), b"\x16\x03\x01 what?\r\n\r\n"] * 20
    )


async def continue_abuse(port: int, play_s: float) -> list[str]:
    """Asks whether to go on with far too much, and goes on with another request."""
    ask = request("POST", "/predict", b"", "Expect: 100-continue", length=10**10)
    good = request("POST", "/predict", b"", "Expect: 100-continue", length=100)
    return await _many(port, play_s, [ask + request("GET", "/healthz"), good] * 5, hold=True)


async def reload_flood(port: int, play_s: float) -> list[str]:
    """The model is to be loaded again and again, all at once."""
    return await _many(port, play_s, [request("POST", "/admin/reload", b"")] * _FLOOD)


async def pipelining_flood(port: int, play_s: float) -> list[str]:
    """A thousand requests in one write."""
    healthy = request("GET", "/healthz") * 1000
    wrong = request("POST", "/predict", b"{}") * 1000
    return await _many(port, play_s, [healthy, wrong] * 2)


async def unknown_keys(port: int, play_s: float) -> list[str]:
    """A key of 16 MB that no request has, which an error might quote."""
    return await _many(port, play_s, [request(body=b'{"' + b"k" * 16 * _MB + b'":1}')] * 2)


async def half_closed(port: int, play_s: float) -> list[str]:
    """Sends a request, closes its side at once, and hangs up before the answer every other time."""
    body = request("POST", "/predict", b'{"inputs":[[0]]}')
    found = []
    for number in range(20):
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(body)
            writer.write_eof()
            if number % 2:
                found.append("hung up")
            else:
                async with asyncio.timeout(play_s / 4):
                    found.append(await _status(reader))
            writer.transport.abort()
        except (OSError, TimeoutError):
            found.append("reset")
    return found


SHAPES: Final[dict[str, Shape]] = {
    shape.__name__: shape
    for shape in (
        deep_nesting,
        gzip_bombs,
        no_json,
        half_heads,
        half_bodies,
        silent_connections,
        endless_headers,
        slow_readers,
        unknown_methods,
        continue_abuse,
        reload_flood,
        pipelining_flood,
        unknown_keys,
        half_closed,
    )
}
