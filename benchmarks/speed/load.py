"""Load on a running server from a process of its own, so that what starts it can do other things.

The load itself is that of `resmem bench`: `resmem_service.load` says how it is measured.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from resmem_service.load import load as service_load
from resmem_service.load.generator import carry_out
from resmem_service.load.result import RequestGroup, Result
from resmem_service.load.target import Target

__all__ = ["Load", "LoadSummary", "Running", "start"]


@dataclass(frozen=True, slots=True)
class Load:
    """What to send to 127.0.0.1: JSON bodies in turn, over `connections`, for `seconds`."""

    port: int
    path: str
    bodies: Sequence[str]
    connections: int
    seconds: float
    rate: float | None = None
    """Requests per second in all; None: each connection asks again when it is answered."""
    warmup_s: float = 0.0
    """How long the same load runs before it is measured."""
    pid: int | None = None
    """The server's process, whose CPU time and that of all below it is measured."""
    timeout_s: float = 60.0

    def plan(self) -> service_load.Load:
        """As the generator takes it."""
        target = Target("127.0.0.1", self.port)
        return service_load.Load(
            target,
            [target.post(self.path, body.encode()) for body in self.bodies],
            self.connections,
            self.seconds,
            self.warmup_s,
            self.rate,
            self.timeout_s,
            self.pid,
        )


@dataclass(frozen=True, slots=True)
class LoadSummary:
    """What came of a load."""

    completed: int
    """Answers with a status of 200 to 299 that came while it was measured."""
    seconds: float
    codes: dict[str, int]
    """Requests by status code; those without one by what became of them."""
    answered_p50_ms: float
    """Of answers with status 200 alone, from when the request was sent."""
    p50_ms: float
    """Of those and of requests never answered, with the time that they waited; see `Result`."""
    p90_ms: float
    p99_ms: float
    refused_p50_ms: float
    """Of answers with status 429, from when the request was sent; NaN where there are none."""
    refused_p99_ms: float
    drain_s: float
    """How long after the end the last request under way was answered."""
    cpu_us: float | None
    """CPU time of the server's processes per completed answer; None without a `pid`."""
    client_load: float
    """The share of one core that the client took."""

    @property
    def per_second(self) -> float:
        """Completed answers per second."""
        return self.completed / self.seconds

    @classmethod
    def of(cls, result: Result) -> "LoadSummary":
        """The numbers of a result."""
        served = result.served
        nothing = RequestGroup.none()
        answered, refused = (result.outcomes.get(code, nothing) for code in ("200", "429"))
        p50, p90, p99 = (served.percentile_ms(share) for share in (50, 90, 99))
        return cls(
            result.completed,
            result.seconds,
            result.counts(),
            answered.answer_percentile_ms(50),
            p50,
            p90,
            p99,
            refused.answer_percentile_ms(50),
            refused.answer_percentile_ms(99),
            result.drain_s,
            result.cpu_us,
            result.client_load,
        )


class Running:
    """A load under way in its own process."""

    def __init__(self, load: Load) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.speed.load"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(load)))
        self._process.stdin.close()

    def wait(self) -> LoadSummary:
        """Its outcome, when it has ended; raises RuntimeError where it failed."""
        assert self._process.stdout is not None
        with self._process.stdout as answer:
            printed = answer.read()
        if self._process.wait() != 0:
            raise RuntimeError("the load generator failed")
        return LoadSummary(**json.loads(printed))


def start(load: Load) -> Running:
    """Begins a load in a process of its own."""
    return Running(load)


def main() -> None:
    """Carries out the load on standard input and prints its outcome as JSON."""
    load: dict[str, Any] = json.load(sys.stdin)
    print(json.dumps(asdict(LoadSummary.of(carry_out(Load(**load).plan())))))


if __name__ == "__main__":
    main()
