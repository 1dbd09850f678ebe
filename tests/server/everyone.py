"""Asking every worker: a new connection for each request, until all of them have answered."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx

from tests.end_to_end.server import Server

_MOST_REQUESTS = 3000


def ask(server: Server, method: str, path: str, **how: Any) -> httpx.Response:
    """One request on a connection of its own."""
    return server.client.request(method, path, headers={"connection": "close"}, **how)


def worker_of(answer: httpx.Response) -> str:
    """Who answered: each process has a prefix of its own for the ids that it makes."""
    return answer.headers["x-request-id"].partition("-")[0]


def ask_everyone(server: Server, check: Callable[[httpx.Response], None], **how: Any) -> None:
    """Sends the same request until each worker has answered twice; checks every answer."""
    seen: Counter[str] = Counter()
    for _ in range(_MOST_REQUESTS):
        answer = ask(server, **how)
        check(answer)
        seen[worker_of(answer)] += 1
        if len(seen) == server.workers and min(seen.values()) >= 2:
            return
    raise AssertionError(f"not every worker answers: {seen}")


def samples(server: Server) -> dict[str, float]:
    """`/metrics`, by name and labels as they stand there."""
    lines = ask(server, "GET", "/metrics").text.splitlines()
    pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: float(value) for name, _, value in pairs}
