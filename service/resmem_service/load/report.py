"""The result of a load, in lines for a person."""

from math import isnan
from typing import Final

from resmem_service.load.load import Load
from resmem_service.load.result import RequestGroup, Result

__all__ = ["render"]

_BUSY: Final = 0.9
"""Share of a core from which on the client may be what limits the throughput."""
_LATE_MS: Final = 1.0


def render(load: Load, result: Result, *, rows: int, cpu_of: str) -> str:
    """Throughput, latency, what became of the requests, and CPU time.

    `rows` are those of each request; `cpu_of` says whose CPU time it is, or why it is not known.
    """
    served = result.served
    lines = [
        ("load", _shape(load)),
        ("requests/s", f"{result.per_second:,.1f}"),
        ("rows/s", f"{result.per_second * rows:,.1f}"),
        ("latency", _latency(served)),
    ]
    for name, outcome in sorted(result.outcomes.items()):
        took = "" if outcome is served or name.startswith("2") else f"   {_latency(outcome)}"
        lines.append((name, f"{len(outcome):,} requests{took}"))
    cpu = result.cpu_us
    lines.append(
        (
            "server CPU",
            f"not available: {cpu_of}" if cpu is None else f"{cpu:,.1f} us a request, {cpu_of}",
        )
    )
    lines.append(("client CPU", f"{100 * result.client_load:.0f} % of a core"))
    return "".join(f"{name:<12} {text}\n" for name, text in lines) + _warnings(result)


def _shape(load: Load) -> str:
    arrival = "closed loop" if load.rate is None else f"{load.rate:g} requests/s due"
    return (
        f"{load.connections} connections, {arrival}, {load.seconds:g} s after "
        f"{load.warmup_s:g} s of warm-up"
    )


def _latency(outcome: RequestGroup) -> str:
    shares = [(f"p{share}", outcome.percentile_ms(share)) for share in (50, 90, 99)]
    shares.append(("max", outcome.percentile_ms(100)))
    if isnan(shares[0][1]):
        return "nothing was answered"
    return "   ".join(f"{name} {value:.2f} ms" for name, value in shares)


def _warnings(result: Result) -> str:
    warnings = ""
    if result.client_load > _BUSY:
        warnings += "note: the client itself was busy all the time; the server may be faster\n"
    if result.lateness_ms > _LATE_MS:
        warnings += (
            f"note: the client sent its requests {result.lateness_ms:.1f} ms late (median), which "
            "the latencies contain\n"
        )
    return warnings
