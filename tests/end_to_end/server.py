"""The real server: `resmem serve` in a process of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from queue import Queue
from threading import Thread
from types import TracebackType
from typing import Any, Self

import httpx

_PATIENCE_S = 60


class Server:
    """Use it in a `with`: inside it is ready, afterwards it is gone."""

    def __init__(
        self,
        store: Path,
        state: Path,
        flags: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        *,
        workers: int = 1,
        command: Sequence[str] = (sys.executable, "-m", "resmem_service"),
    ) -> None:
        self.workers = workers
        clean = {key: value for key, value in os.environ.items() if not key.startswith("RESMEM_")}
        self.process = subprocess.Popen(
            [*command, "serve", "--port", "0", "--workers", str(workers), *flags],
            env={
                **clean,
                "RESMEM_STORE": str(store),
                "RESMEM_STATE_DIR": str(state),
                "RESMEM_LOG_FORMAT": "json",
                **(environment or {}),
            },
            stderr=subprocess.PIPE,
            text=True,
        )
        self.log: list[dict[str, Any]] = []
        self._lines: Queue[str] = Queue()
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        self.client = httpx.Client(timeout=_PATIENCE_S)
        try:
            self.client.base_url = self.wait_for("starting")["url"]
            self.wait_for("ready" if self.workers == 1 else "all workers ready")
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()

    def _end(self) -> None:
        self.client.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(_PATIENCE_S)
        self._reader.join(_PATIENCE_S)
        assert not self._reader.is_alive(), "a worker has outlived its supervisor"
        assert self.process.stderr is not None
        self.process.stderr.close()

    def wait_for(self, message: str) -> dict[str, Any]:
        """The next line of the log with this message."""
        deadline = time.monotonic() + _PATIENCE_S
        while self.next_line()["message"] != message:
            assert time.monotonic() < deadline, f"no line {message!r} came: {self.log}"
        return self.log[-1]

    def next_line(self) -> dict[str, Any]:
        """The next line of the log."""
        line = self._lines.get(timeout=_PATIENCE_S)
        assert line, f"the server ended: {self.log}"
        self.log.append(json.loads(line))
        return self.log[-1]

    def lines_so_far(self) -> list[dict[str, Any]]:
        """The lines of the log that have come."""
        while not self._lines.empty():
            self.next_line()
        return self.log

    def whole_log(self) -> list[str]:
        """The messages of all lines, once it has ended."""
        while line := self._lines.get(timeout=_PATIENCE_S):
            self.log.append(json.loads(line))
        return [line["message"] for line in self.log]

    def kill(self) -> None:
        """As a power cut would."""
        self.process.kill()
        self.process.wait(_PATIENCE_S)

    def terminate(self) -> None:
        """Asks it to end."""
        self.process.send_signal(signal.SIGTERM)

    def status(self) -> int:
        """Its exit status, once it has ended."""
        return self.process.wait(_PATIENCE_S)

    def pids(self) -> dict[int, int]:
        """The process of each worker, the latest that the log has told of so far."""
        return {
            line["worker"]: line["pid"] for line in self.log if line["message"] == "worker started"
        }

    def predict(self, row: Sequence[float], **options: Any) -> dict[str, Any]:
        """What it says to one row."""
        answer = self.client.post("/predict", json={"inputs": [row], **options})
        assert answer.status_code == 200, answer.text
        (prediction,) = answer.json()["predictions"]
        found: dict[str, Any] = prediction
        return found

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._lines.put(line)
        self._lines.put("")
