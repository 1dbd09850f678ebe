"""A server to compare: how it is started, asked and understood; and while it runs."""

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any, Self

import numpy as np
import orjson
from numpy.typing import NDArray

__all__ = [
    "Contender",
    "Floats",
    "RunningServer",
    "free_port",
    "is_ready",
    "nested_inputs",
    "nested_scores",
]

_START_S = 90.0
_STOP_S = 15.0
_ANSWER_S = 10.0
_AGAIN_S = 0.1
_POLL_S = 0.005

Floats = NDArray[np.floating[Any]]


def nested_inputs(row: Sequence[float]) -> dict[str, Any]:
    """The body of those that leave its form to their user."""
    return {"inputs": [row]}


def nested_scores(answer: Any) -> Any:
    """And the scores in their answer."""
    return answer["scores"][0]


@dataclass(frozen=True, slots=True)
class Contender:
    """A server that answers rows of 64 numbers."""

    name: str
    title: str
    command: Callable[[int], list[str]]
    """Its command line for a port."""
    environment: Mapping[str, str] = field(default_factory=dict)
    path: str = "/predict"
    body: Callable[[Sequence[float]], dict[str, Any]] = nested_inputs
    scores: Callable[[Any], Any] = nested_scores
    """From a decoded answer to the base model's scores `[10]`."""
    checked: bool = True
    """Whether its scores must be those of ONNX Runtime."""
    tempered: bool = False
    """Whether they are those at the bundles' temperature."""
    interpreter: Path = Path(sys.executable)
    """The Python that it runs in."""
    after_start: Callable[["RunningServer"], None] | None = None
    packages: Sequence[str] = ()
    """Whose versions to tell."""


class RunningServer:
    """A contender's process and all that it starts; a context manager that ends them."""

    def __init__(
        self,
        contender: Contender,
        row: Sequence[float],
        log: Path,
        wait: "Callable[[RunningServer], bool] | None" = None,
    ) -> None:
        """`wait` is asked, again and again, whether it has begun; by default: does it answer?"""
        self.contender = contender
        self._begun = wait or RunningServer._answers
        self.port = free_port()
        self._body = orjson.dumps(contender.body(row))
        self._log = log
        self._said = b""
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process that is above all of its others."""
        assert self._process is not None
        return self._process.pid

    def __enter__(self) -> Self:
        """Starts it and waits for its first answer; raises RuntimeError with its log if none."""
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self.contender.command(self.port),
                env=_without_settings() | dict(self.contender.environment),
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait()
            if self.contender.after_start is not None:
                self.contender.after_start(self)
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Asks it to end; kills what is left of its session after a while."""
        assert self._process is not None
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_STOP_S)
        with suppress(ProcessLookupError):  # what it has started may outlive it
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def request(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        headers: Mapping[str, str] = MappingProxyType({"content-type": "application/json"}),
    ) -> tuple[int, bytes]:
        """Status and body of one answer; raises OSError where there is none."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_ANSWER_S)
        try:
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except http.client.HTTPException as error:
            raise OSError(str(error)) from error
        finally:
            connection.close()

    def ask(self, row: Sequence[float]) -> Floats:
        """The scores that it gives to a row; raises RuntimeError if it refuses."""
        body = orjson.dumps(self.contender.body(row))
        status, reply = self.request("POST", self.contender.path, body)
        if status != 200:
            raise RuntimeError(f"{self.contender.name}: {status}: {reply[:300]!r}")
        return np.asarray(self.contender.scores(orjson.loads(reply)))

    def _wait(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            if self._begun(self):
                return
        log = self._log.read_text(errors="replace")[-3000:]
        raise RuntimeError(f"{self.contender.name} did not start: {self._said[:300]!r}\n{log}")

    def _answers(self) -> bool:
        try:
            status, self._said = self.request("POST", self.contender.path, self._body)
        except OSError:
            status = 0
        if status != 200:
            time.sleep(_AGAIN_S)
        return status == 200


def is_ready(server: RunningServer) -> bool:
    """Whether ResMem says that it is ready; for `RunningServer(wait=...)`, 200 times a second."""
    with suppress(OSError):
        if server.request("GET", "/readyz")[0] == 200:
            return True
    time.sleep(_POLL_S)
    return False


def _without_settings() -> dict[str, str]:
    """The environment, without what the shell sets for a server of its own."""
    return {key: value for key, value in os.environ.items() if not key.startswith("RESMEM_")}


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
