"""Ten times more than the server can do: what it still does, how quickly it refuses, what is left.

    python -m benchmarks.speed.overload

A server with 60,000 memories (the one of `benchmarks.speed.compare`) first gets what it can take,
then ten times as many requests a second, each due at its time whether or not others are answered,
over ten times as many connections, then a little again. Requests of one row are held back by
their connections, since each has one under way; those of 256 rows fill the queue and are refused.
The load generator shares the machine's cores with the server.
"""

import argparse
import json
import resource
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from math import nan
from pathlib import Path
from statistics import median
from typing import NamedTuple

import orjson
import psutil

from benchmarks.speed.contender import RunningServer
from benchmarks.speed.contenders import MEMORY, resmem_contenders
from benchmarks.speed.digit_models import ensure_models
from benchmarks.speed.digits import digits
from benchmarks.speed.load import Load, LoadSummary, start

_OUT = Path("benchmarks/out")
_TIMES = 10
_LIGHT = 0.3
_CONNECTIONS = 64
_PEAK_ROWS = 4096
"""Under way at most where the peak is measured: half of what the queue takes."""
_SAMPLE_S = 0.05


class Timing(NamedTuple):
    """How long a measurement takes."""

    rounds: int
    seconds: float


_FULL, _QUICK = Timing(3, 4.0), Timing(1, 2.0)


def bodies(rows: int) -> list[str]:
    """Requests of so many digits."""
    pixels = digits()[0]
    count = min(200, len(pixels) // rows)
    return [
        orjson.dumps({"inputs": pixels[i * rows : (i + 1) * rows].tolist()}).decode()
        for i in range(count)
    ]


@contextmanager
def resident_mb(pid: int) -> Iterator[list[float]]:
    """Resident memory of a process and all below it, sampled while something else goes on."""
    samples: list[float] = []
    done = threading.Event()
    process = psutil.Process(pid)

    def watch() -> None:
        while not done.wait(_SAMPLE_S):
            with suppress(psutil.NoSuchProcess):  # one that builds a segment has just ended
                everyone = [process, *process.children(recursive=True)]
                samples.append(sum(one.memory_info().rss for one in everyone) / 2**20)

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield samples
    finally:
        done.set()
        watcher.join()


def overload(
    server: RunningServer, rows: int, connections: int, timing: Timing
) -> dict[str, float]:
    """Capacity and ten times that in turn, a light load before and after; a line of the table."""
    sent = bodies(rows)
    few = max(1, min(_CONNECTIONS, _PEAK_ROWS // rows))

    def run(clients: int, rate: float | None, warmup_s: float = 0.0) -> LoadSummary:
        load = Load(
            server.port, "/predict", sent, clients, timing.seconds, rate, warmup_s, server.pid
        )
        return start(load).wait()

    peaks = [run(few, None, warmup_s=1.0)]
    overs: list[LoadSummary] = []
    resident: list[float] = []
    before = run(few, _LIGHT * peaks[0].per_second, warmup_s=0.2)
    for _ in range(timing.rounds):
        peaks.append(run(few, None, warmup_s=0.2))
        with resident_mb(server.pid) as samples:
            overs.append(run(connections, _TIMES * peaks[-1].per_second))
        resident.append(max(samples))
    after = run(few, _LIGHT * peaks[0].per_second)
    codes = sum((Counter(over.codes) for over in overs), Counter[str]())
    if (set(codes) | set(after.codes)) - {"200", "429", "overdue"}:
        raise RuntimeError(f"not every answer was 200 or 429: {codes}, then {after.codes}")
    peak = median(one.per_second for one in peaks[1:])
    goodput = median(over.per_second for over in overs)
    return {
        "rows": rows,
        "connections": connections,
        "peak_per_s": peak,
        "due_per_s": codes.total() / sum(over.seconds for over in overs),
        "goodput_per_s": goodput,
        "goodput_share": goodput / peak,
        "peak_cpu_us": median(one.cpu_us or nan for one in peaks[1:]),
        "goodput_cpu_us": median(over.cpu_us or nan for over in overs),
        "refused_per_s": codes["429"] / sum(over.seconds for over in overs),
        "refused_p50_ms": median(over.refused_p50_ms for over in overs),
        "refused_p99_ms": median(over.refused_p99_ms for over in overs),
        "answered_p50_ms": median(over.answered_p50_ms for over in overs),
        "client_load": median(over.client_load for over in overs),
        "drain_s": max(over.drain_s for over in overs),
        "rss_first_mb": resident[0],
        "rss_last_mb": resident[-1],
        "light_p99_ms_before": before.p99_ms,
        "light_p99_ms_after": after.p99_ms,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints, writes `benchmarks/out/overload.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round of 2 seconds a step")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 256], help="rows in a request")
    parser.add_argument("--connections", type=int, default=_TIMES * _CONNECTIONS)
    options = parser.parse_args(arguments)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))  # for the server and the client below
    contender = resmem_contenders(ensure_models())[MEMORY]
    results = []
    for rows in options.rows:
        log = _OUT / "comparison" / "logs" / "overload.log"
        with RunningServer(contender, digits()[0][0].tolist(), log) as server:
            results.append(
                overload(server, rows, options.connections, _QUICK if options.quick else _FULL)
            )
        for name, value in results[-1].items():
            print(f"{name:22}{value:>12,.2f}")
        print(flush=True)
    (_OUT / "overload.json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
