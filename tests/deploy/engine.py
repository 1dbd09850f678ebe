"""The Docker engine as the tests use it: run a command, wait for a state, talk to a container."""

import json
import os
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

ROOT = Path(__file__).parents[2]


def docker(
    *arguments: str,
    check: bool = True,
    timeout: float = 120,
    environment: Mapping[str, str] = MappingProxyType({}),
) -> str:
    """What a docker command says on its standard output, without the last newline."""
    done = subprocess.run(
        ["docker", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    if check and done.returncode != 0:
        raise AssertionError(f"docker {' '.join(arguments)}\n{done.stdout}\n{done.stderr}")
    return done.stdout.rstrip("\n")


def inspect(thing: str) -> dict[str, Any]:
    """What the engine knows of an image or a container."""
    (found,) = json.loads(docker("inspect", thing))
    return dict(found)


def eventually(condition: Callable[[], bool], seconds: float, otherwise: Callable[[], str]) -> None:
    """Returns once the condition holds; fails with the words of `otherwise` if it never does."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, otherwise()
        time.sleep(0.2)


@dataclass(frozen=True)
class Client:
    """JSON to and from one server."""

    url: str

    def call(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Status and decoded body, for errors too."""
        content = None if body is None else json.dumps(body).encode()
        request = Request(
            self.url + path, content, {"content-type": "application/json"}, method=method
        )
        try:
            with urlopen(request, timeout=30) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except HTTPError as error:
            return error.code, json.loads(error.read() or b"null")


def zero_rows(model: dict[str, Any], rows: int) -> dict[str, Any]:
    """Inputs that any model of GET /model takes: zeros, 1 where an axis is free."""

    def zeros(shape: list[int | None]) -> Any:
        return [zeros(shape[1:]) for _ in range(shape[0] or 1)] if shape else 0.0

    return {each["name"]: [zeros(each["shape"]) for _ in range(rows)] for each in model["inputs"]}
