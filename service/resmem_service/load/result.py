"""What came of a load: when each request was due, what became of it, how long it took."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

__all__ = ["OVERDUE", "TIMED_OUT", "RequestGroup", "Result"]

TIMED_OUT: Final = "timeout"
"""Outcome of a request that was sent and not answered in time."""
OVERDUE: Final = "overdue"
"""Outcome of a request of an open loop that no connection was free for until the end."""

_UNANSWERED: Final = frozenset({TIMED_OUT, OVERDUE})

Seconds = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class RequestGroup:
    """The requests with one status, or that were lost in one way."""

    due: Seconds
    """`[n]`, from the beginning of the measurement."""
    latency: Seconds
    """`[n]`, from when the request was due to when its answer was whole, or it was given up."""
    held: Seconds
    """`[n]`, the part of it in which no connection was free to send the request."""

    @classmethod
    def none(cls) -> Self:
        """No requests."""
        return cls(np.empty(0), np.empty(0), np.empty(0))

    def __len__(self) -> int:
        return len(self.due)

    def percentile_ms(self, share: float) -> float:
        """The latency that this share (0 to 100) of the requests kept to, in milliseconds."""
        return _percentile_ms(self.latency, share)

    def answer_percentile_ms(self, share: float) -> float:
        """The same from when the request was sent: what the server alone took."""
        return _percentile_ms(self.latency - self.held, share)


@dataclass(frozen=True, slots=True)
class Result:
    """A load carried out: every request that was due while it was measured is in one outcome."""

    seconds: float
    """How long was measured."""
    completed: int
    """Answers with a status of 200 to 299 that came in that time, warm-up's last ones included."""
    outcomes: Mapping[str, RequestGroup]
    """By status code, `timeout`, `overdue`, or how the connection was lost."""
    lateness: Seconds
    """How much later than due the client itself sent requests that a connection was free for; a
    part of their latency that is not the server's. Empty in a closed loop."""
    drain_s: float
    """How long after the end the last request under way was answered or given up."""
    client_cpu_s: float
    server_cpu_s: float | None
    """CPU time of the server's processes while it was measured; None where nobody knows."""

    @property
    def per_second(self) -> float:
        """Answers with a status of 200 to 299 per second."""
        return self.completed / self.seconds

    @property
    def cpu_us(self) -> float | None:
        """CPU time of the server per such answer, in microseconds."""
        if self.server_cpu_s is None or not self.completed:
            return None
        return self.server_cpu_s / self.completed * 1e6

    @property
    def client_load(self) -> float:
        """The share of one core that the client took."""
        return self.client_cpu_s / self.seconds

    @property
    def lateness_ms(self) -> float:
        """The median of `lateness`, in milliseconds; NaN where it is empty."""
        return _percentile_ms(self.lateness, 50)

    @property
    def served(self) -> RequestGroup:
        """What latencies are told of: answers of 200 to 299, and requests never answered.

        The latter count with the time that they had waited for, since leaving them out would make
        a server look the better the more it stalls. Refusals are quick and answer nothing.
        """
        return _joined(
            {
                name: outcome
                for name, outcome in self.outcomes.items()
                if name in _UNANSWERED or _is_success(name)
            }
        )

    def counts(self) -> dict[str, int]:
        """Requests by outcome."""
        return {name: len(outcome) for name, outcome in sorted(self.outcomes.items())}

    def summary(self) -> dict[str, Any]:
        """The numbers as JSON can hold them; NaN is null."""
        served = self.served
        return {
            "seconds": self.seconds,
            "requests_per_s": self.per_second,
            "latency_ms": _percentiles(served.latency),
            "outcomes": {
                name: {"requests": len(outcome), "latency_ms": _percentiles(outcome.latency)}
                for name, outcome in sorted(self.outcomes.items())
            },
            "cpu_us_per_request": self.cpu_us,
            "client_load": self.client_load,
            "client_lateness_ms": _percentiles(self.lateness),
        }


def _percentile_ms(seconds: Seconds, share: float) -> float:
    return float(np.percentile(seconds, share)) * 1e3 if len(seconds) else float("nan")


def _is_success(name: str) -> bool:
    return len(name) == 3 and name.startswith("2")


def _joined(outcomes: Mapping[str, RequestGroup]) -> RequestGroup:
    parts = [RequestGroup.none(), *outcomes.values()]
    return RequestGroup(
        np.concatenate([part.due for part in parts]),
        np.concatenate([part.latency for part in parts]),
        np.concatenate([part.held for part in parts]),
    )


def _percentiles(seconds: Seconds) -> dict[str, float] | None:
    if not len(seconds):
        return None
    named = {f"p{share:g}": _percentile_ms(seconds, share) for share in (50, 90, 99, 99.9)}
    return named | {"max": _percentile_ms(seconds, 100)}
