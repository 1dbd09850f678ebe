"""What a server takes when nobody asks, and how long it takes to begin.

    python -m benchmarks.speed.idle

Time to ready runs from the start of the process to the first 200 of /readyz, files in the page
cache, the median of several starts. Idle CPU time is that of all of its processes, over a while in
which nothing is sent, not even a scrape of /metrics.
"""

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from resmem_service.load.process_tree import ProcessTree

from benchmarks.speed.contender import Contender, RunningServer, is_ready
from benchmarks.speed.contenders import MEMORY, resmem_contenders
from benchmarks.speed.digit_models import ensure_models
from benchmarks.speed.digits import digits

_OUT = Path("benchmarks/out")
_STARTS = 5
_SETTLE_S = 3.0


def seconds_to_ready(contender: Contender) -> float:
    """Of one start."""
    log = _OUT / "comparison" / "logs" / "idle.log"
    began = time.perf_counter()
    with RunningServer(contender, digits()[0][0].tolist(), log, wait=is_ready):
        return time.perf_counter() - began


def idle_share(contender: Contender, seconds: float) -> float:
    """CPU time over time, while nothing happens."""
    log = _OUT / "comparison" / "logs" / "idle.log"
    with RunningServer(contender, digits()[0][0].tolist(), log) as server:
        time.sleep(_SETTLE_S)
        tree = ProcessTree.of(server.pid)
        before, began = tree.cpu_s(tree.processes()), time.perf_counter()
        time.sleep(seconds)
        return (tree.cpu_s(tree.processes()) - before) / (time.perf_counter() - began)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints, writes `benchmarks/out/idle.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0, help="of idleness")
    options = parser.parse_args(arguments)
    alone = resmem_contenders(ensure_models())[MEMORY]
    results: dict[str, float] = {}
    for workers in (1, 2):
        settings = dict(alone.environment) | {"RESMEM_WORKERS": str(workers)}
        contender = replace(alone, environment=settings)
        ready = statistics.median(seconds_to_ready(contender) for _ in range(_STARTS))
        share = idle_share(contender, options.seconds)
        results |= {f"ready_{workers}_s": ready, f"idle_{workers}_share": share}
        print(
            f"{workers} workers: ready after {ready:.2f} s, idle {100 * share:.2f} % of a core",
            flush=True,
        )
    (_OUT / "idle.json").write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
