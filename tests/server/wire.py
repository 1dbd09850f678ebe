"""A client that writes bytes as it likes, and a server with short deadlines to stand it."""

import select
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

import orjson
import psutil

from tests.end_to_end.server import Server
from tests.server.everyone import samples

PATIENCE_S = 60


@dataclass(frozen=True)
class Response:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def code(self) -> str:
        """Of the contract's envelope, which it must be in."""
        error = orjson.loads(self.body)["error"]
        assert error.keys() >= {"code", "message"}
        assert self.headers["x-request-id"]
        assert self.headers["content-type"] == "application/json"
        code: str = error["code"]
        return code


class Client:
    """One connection."""

    def __init__(self, server: Server, receive_bytes: int | None = None) -> None:
        url = server.client.base_url
        self.socket = socket.socket()
        if receive_bytes is not None:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.settimeout(PATIENCE_S)
        self.socket.connect((url.host, url.port or 80))
        self._read = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    @property
    def address(self) -> str:
        host, port = self.socket.getsockname()
        return f"{host}:{port}"

    def send(self, *parts: bytes, pause_s: float = 0.0) -> Self:
        for part in parts:
            self.socket.sendall(part)
            time.sleep(pause_s)
        return self

    def try_to_send(self, part: bytes, times: int) -> int:
        """How often it went before the server no longer took any."""
        for sent in range(times):
            try:
                self.socket.sendall(part)
            except OSError:
                return sent
        return times

    def half_close(self) -> Self:
        self.socket.shutdown(socket.SHUT_WR)
        return self

    def response(self, *, bodiless: bool = False) -> Response:
        """The next response, an interim one too."""
        while b"\r\n\r\n" not in self._read:
            self._receive()
        head, _, self._read = self._read.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        length = 0 if bodiless else int(headers.get("content-length", 0))
        while len(self._read) < length:
            self._receive()
        body, self._read = self._read[:length], self._read[length:]
        return Response(int(first.split()[1]), headers, body)

    def last_response(self) -> Response:
        """The next response; nothing follows it, and the server closes, as it has announced."""
        response = self.response()
        assert response.headers["connection"] == "close"
        assert self.rest() == b""
        return response

    def rest(self) -> bytes:
        """What comes until the server closes."""
        while part := self.socket.recv(2**16):
            self._read += part
        rest, self._read = self._read, b""
        return rest

    def ended(self) -> bytes:
        """As `rest`; a reset is an end too."""
        try:
            return self.rest()
        except ConnectionResetError:
            return self._read

    def readable(self) -> bool:
        """Whether the server has sent something, or has closed."""
        # Not select(): it takes no descriptor above 1,023, and a whole run of tests has more open.
        waiting = select.poll()
        waiting.register(self.socket, select.POLLIN)
        return bool(waiting.poll(0))

    def read_some(self, most: int) -> int:
        """Reads up to so many bytes of the next response."""
        part = self.socket.recv(most)
        assert part, f"the server closed after {self._read[:1000]!r}"
        self._read += part
        return len(part)

    def _receive(self) -> None:
        part = self.socket.recv(2**16)
        assert part, f"the server closed after {self._read!r}"
        self._read += part


def get(path: str, *headers: str, method: str = "GET") -> bytes:
    return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: a", *headers, "", "")).encode()


def post(body: bytes, *headers: str, path: str = "/predict", length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    sent = (f"Content-Length: {size}", *headers)
    return get(path, *sent, method="POST") + body


def row(width: int = 64) -> bytes:
    return orjson.dumps({"inputs": [[0.0] * width], "fields": ["label"]})


def eventually(holds: Callable[[], Any]) -> None:
    """Waits until something holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, "it never held"
        time.sleep(0.05)


def counted(server: Server, name: str) -> float:
    return samples(server)[name]


@contextmanager
def counts(server: Server, name: str, amount: float = 1) -> Iterator[None]:
    """Within it a counter grows by so much."""
    before = counted(server, name)
    yield
    eventually(lambda: counted(server, name) >= before + amount)
    assert counted(server, name) == before + amount


def resident_bytes(server: Server) -> int:
    """Of all processes of the server."""
    process = psutil.Process(server.process.pid)
    everyone = [process, *process.children(recursive=True)]
    found: int = sum(each.memory_info().rss for each in everyone)
    return found
