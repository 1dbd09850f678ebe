"""The image's health check against a server that is ready, is not, or is not there."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest


class Handler(BaseHTTPRequestHandler):
    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status if self.path == "/readyz" else 404)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Says nothing."""


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    with HTTPServer(("127.0.0.1", 0), Handler) as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.02,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


def check(root: Path, port: int) -> int:
    return subprocess.run(
        [sys.executable, "-I", "-S", str(root / "deploy/image/healthcheck.py")],
        env={"RESMEM_PORT": str(port)},
        capture_output=True,
        timeout=30,
        check=False,
    ).returncode


@pytest.mark.parametrize(("status", "expected"), [(200, 0), (503, 1), (404, 1)])
def test_healthy_means_ready(
    root: Path, server: HTTPServer, monkeypatch: pytest.MonkeyPatch, status: int, expected: int
) -> None:
    monkeypatch.setattr(Handler, "status", status)
    assert check(root, server.server_port) == expected


def test_nobody_listening_is_unhealthy(root: Path, server: HTTPServer) -> None:
    server.server_close()
    assert check(root, server.server_port) == 1
