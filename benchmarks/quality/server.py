"""The real server as a process of its own, on a free port, and what a client asks of it."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import numpy as np
from numpy.typing import NDArray
from resmem_service.child_command import module_command

__all__ = ["Answers", "Server"]

_BATCH_ROWS = 250
_START_SECONDS = 60.0
_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Answers:
    """What /predict said to n rows: label indices [n], or values [n] for regression."""

    base: NDArray[Any]
    knn: NDArray[Any]
    """Vote of the neighbours' targets alone: what a plain soft kNN would answer."""
    resmem: NDArray[Any]
    nearest: list[str]
    """Id of the first neighbour of each row."""


class Server:
    """`resmem serve` on one bundle and one state folder; a context manager that stops it."""

    def __init__(
        self,
        store: Path,
        model: str,
        state: Path,
        log: Path,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self._settings = dict(settings or {}) | {
            "RESMEM_STORE": str(store),
            "RESMEM_MODEL": model,
            "RESMEM_STATE_DIR": str(state),
            "RESMEM_MAX_NEIGHBOURS": "1000",
        }
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._client = httpx.Client()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._client.close()
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=_TIMEOUT_SECONDS)

    def start(self) -> None:
        """Start the process and wait until it is ready; raises RuntimeError with its log if not."""
        port = _free_port()
        environment = os.environ | self._settings | {"RESMEM_PORT": str(port)}
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                module_command("resmem_service", "serve"),
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self._client.close()
        self._client = httpx.Client(
            base_url=f"http://127.0.0.1:{port}", timeout=_TIMEOUT_SECONDS, trust_env=False
        )
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                if self._client.get("/readyz").is_success:
                    return
            except httpx.TransportError:
                time.sleep(0.1)
        self._process.kill()
        raise RuntimeError(f"the server did not start:\n{self._log.read_text()}")

    @property
    def port(self) -> int:
        """Where it listens on 127.0.0.1."""
        port = self._client.base_url.port
        assert port is not None, "the server was not started"
        return port

    def kill(self) -> None:
        """Kill the process as a power cut would: SIGKILL, no time to say goodbye."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(timeout=_TIMEOUT_SECONDS)

    def model(self) -> dict[str, Any]:
        """The body of `GET /model`."""
        return self._checked(self._client.get("/model"))

    def predict(self, inputs: NDArray[Any]) -> Answers:
        """Ask for n rows, 250 a request, each with its k neighbours."""
        facts = self.model()
        body: dict[str, Any] = {"neighbours": facts["parameters"]["k"]}
        predictions: list[dict[str, Any]] = []
        for start in range(0, len(inputs), _BATCH_ROWS):
            body["inputs"] = inputs[start : start + _BATCH_ROWS].tolist()
            reply = self._checked(self._client.post("/predict", json=body))
            predictions += reply["predictions"]
        nearest = [row["neighbours"][0]["id"] for row in predictions]
        if facts["task"] == "regression":
            base = np.array([row["base"] for row in predictions], np.float64)
            resmem = np.array([row["value"] for row in predictions], np.float64)
            knn = np.array([_mean(row["neighbours"]) for row in predictions])
            return Answers(base.ravel(), knn, resmem.ravel(), nearest)
        index = {name: number for number, name in enumerate(facts["classes"])}
        return Answers(
            np.array([index[row["base"]["label"]] for row in predictions]),
            np.array([index[_vote(row["neighbours"])] for row in predictions]),
            np.array([index[row["label"]] for row in predictions]),
            nearest,
        )

    def values(self, inputs: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Base and ResMem values [n] of a regression, in one request without neighbours."""
        body = {"inputs": inputs.tolist(), "fields": ["value", "base"]}
        predictions = self._checked(self._client.post("/predict", json=body))["predictions"]
        base = np.array([row["base"] for row in predictions], np.float64)
        resmem = np.array([row["value"] for row in predictions], np.float64)
        return base.ravel(), resmem.ravel()

    def memorize(
        self, inputs: NDArray[Any], targets: Sequence[Any], ids: Sequence[str], weight: float
    ) -> None:
        """Teach n rows in one request; returns when they are durable."""
        self._checked(
            self._client.post(
                "/memorize",
                json={
                    "inputs": inputs.tolist(),
                    "targets": list(targets),
                    "ids": list(ids),
                    "weights": [weight] * len(inputs),
                },
            )
        )

    @staticmethod
    def _checked(response: httpx.Response) -> dict[str, Any]:
        if not response.is_success:
            raise RuntimeError(f"{response.request.url}: {response.status_code} {response.text}")
        body: dict[str, Any] = response.json()
        return body


def _vote(neighbours: list[dict[str, Any]]) -> str:
    votes: dict[str, float] = {}
    for one in neighbours:
        votes[one["target"]] = votes.get(one["target"], 0.0) + one["weight"]
    return max(votes, key=votes.__getitem__)


def _mean(neighbours: list[dict[str, Any]]) -> float:
    """Mean of the targets by weight; shrinkage leaves the weights' sum below 1, so divide."""
    weights = np.array([one["weight"] for one in neighbours])
    targets = np.array([one["target"] for one in neighbours], np.float64).ravel()
    return float(weights @ targets / weights.sum())


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
