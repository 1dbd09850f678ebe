"""Durable learning over HTTP: how many rows a second, and what predictions notice of it.

    python -m benchmarks.speed.memorize

The model is a perceptron on scikit-learn's digits (d = 64, L = 10). Every reply of /memorize comes
after its rows are synced to the disk. Load and server share this machine's cores.
"""

import argparse
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.quality.server import Server
from benchmarks.speed.digits import digits, fit_digits
from benchmarks.speed.load import Load, LoadSummary, start

_WORK = Path("benchmarks/out/digits")
_CONNECTIONS = 64
_BATCH_ROWS = 256
_BODIES = 400
_LEARNED_ROWS = 1000


def memorize_bodies(rows: int) -> list[str]:
    """Requests of so many digits each, with a little noise so that no two are alike."""
    pixels, labels = digits()
    rng = np.random.default_rng(0)
    bodies = []
    for _ in range(_BODIES if rows == 1 else 40):
        index = rng.integers(0, len(pixels), rows)
        noisy = (pixels[index] + rng.normal(scale=0.05, size=(rows, 64))).round(3)
        bodies.append(json.dumps({"inputs": noisy.tolist(), "targets": labels[index].tolist()}))
    return bodies


def predict_bodies() -> list[str]:
    """Requests of one digit each."""
    return [json.dumps({"inputs": [row]}) for row in digits()[0][:_BODIES].tolist()]


def serve(store: Path, settings: dict[str, str]) -> Server:
    """A server with an empty state."""
    shutil.rmtree(_WORK / "state", ignore_errors=True)
    return Server(store, "digits", _WORK / "state", _WORK / "server.log", settings)


def throughput(
    store: Path, rows: int, connections: int, seconds: float, settings: dict[str, str]
) -> float:
    """Acknowledged rows per second."""
    with serve(store, settings) as server:
        load = Load(server.port, "/memorize", memorize_bodies(rows), connections, seconds)
        outcome = start(load).wait()
        _all("201", outcome)
    return outcome.per_second * rows


def interference(
    store: Path, rate: float, seconds: float, settings: dict[str, str]
) -> dict[str, LoadSummary]:
    """Predictions at a steady rate, alone and beside 1,000 memorized rows a second.

    The key says how many of those rows come in one request, 0 for none.
    """
    outcomes = {}
    with serve(store, settings) as server:
        asking = Load(server.port, "/predict", predict_bodies(), 32, seconds, rate, warmup_s=2.0)
        outcomes["0"] = start(asking).wait()
        for rows in (1, 10, 100):
            teaching = Load(
                server.port,
                "/memorize",
                memorize_bodies(rows),
                32,
                seconds + 2.0,
                _LEARNED_ROWS / rows,
                warmup_s=1.0,
            )
            # It begins before the predictions are measured, and ends after them.
            lessons = start(teaching)
            outcomes[str(rows)] = start(asking).wait()
            _all("201", lessons.wait())
    for outcome in outcomes.values():
        _all("200", outcome)
    return outcomes


def _all(code: str, outcome: LoadSummary) -> None:
    if set(outcome.codes) != {code}:
        raise RuntimeError(f"not every answer was {code}: {outcome.codes}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--rate", type=float, default=500.0, help="predictions per second")
    parser.add_argument("--workers", type=int, default=1)
    options = parser.parse_args(arguments)
    store = fit_digits(_WORK)
    settings = {"RESMEM_WORKERS": str(options.workers)}
    seconds = options.seconds
    single = throughput(store, 1, _CONNECTIONS, seconds, settings)
    print(f"\nsingle rows, {_CONNECTIONS} clients: {single:,.0f} rows/s, each synced")
    batched = throughput(store, _BATCH_ROWS, 4, seconds, settings)
    print(f"{_BATCH_ROWS} rows a request, 4 clients: {batched:,.0f} rows/s, each synced")
    outcomes = interference(store, options.rate, seconds, settings)
    alone = outcomes["0"].p99_ms
    print(f"\n/predict at {options.rate:.0f}/s beside {_LEARNED_ROWS} memorized rows/s, ms")
    print("rows in a /memorize request   p50    p99   p99 over that alone")
    for rows, outcome in outcomes.items():
        latencies = f"{outcome.p50_ms:5.2f}  {outcome.p99_ms:5.2f}   {outcome.p99_ms / alone:.2f}"
        print(f"{rows if rows != '0' else 'alone':>26s}  {latencies}")
    results = {
        "single": single,
        "batched": batched,
        "predict_ms": {rows: [one.p50_ms, one.p99_ms] for rows, one in outcomes.items()},
    }
    (_WORK.parent / "memorize.json").write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
