"""ResMem beside other servers: CPU time per request, throughput and latency, in one run.

    python -m benchmarks.speed.compare            # 6 to 7 minutes, environments not counted
    python -m benchmarks.speed.compare --quick    # about 2: one short round

One row of 64 numbers as JSON, the same 64-128-10 perceptron for all, 64 connections and one. Every
round starts each server afresh, checks its scores against ONNX Runtime and puts load on it; the
medians over the rounds count. One server runs at a time, and the load generator runs beside it on
the same cores, so that throughput is that of what the generator leaves; CPU time is that of the
server's process and all below it, without the generator. `python -m benchmarks.speed.report` makes
docs/speed.md of the results.
"""

import argparse
import json
import platform
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import orjson
from resmem_service.resources import usable_cpus

from benchmarks.speed.contender import Contender, Floats, RunningServer
from benchmarks.speed.contenders import contenders
from benchmarks.speed.digit_models import DigitModels, ensure_models
from benchmarks.speed.digits import digits
from benchmarks.speed.environments import versions
from benchmarks.speed.load import Load, LoadSummary, start

_OUT = Path("benchmarks/out")
_CONNECTIONS = (1, 64)
"""In this order: BentoML's dispatcher would go on to wait for company that it had before."""
_CHECKED_ROWS = 100
_BODIES = 400
_TOLERANCE = 1e-5


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a measurement takes."""

    rounds: int
    warmup_s: float
    seconds: dict[int, float]
    """By number of connections."""


_FULL = Timing(3, 1.0, {64: 3.0, 1: 2.0})
_QUICK = Timing(1, 0.5, {64: 1.0, 1: 1.0})


def expected_scores(models: DigitModels) -> tuple[Floats, Floats]:
    """What ONNX Runtime says of the first digits: probabilities, and those at the temperature."""
    session = ort.InferenceSession(models.scores_model, providers=["CPUExecutionProvider"])
    pixels = digits()[0][:_CHECKED_ROWS]
    scores = session.run(["scores"], {"pixels": pixels})[0]
    # softmax(z / T) out of softmax(z): logarithms differ from logits by a constant of the row.
    powers = np.exp(np.log(scores.astype(np.float64)) / models.temperature)
    return scores, powers / powers.sum(axis=1, keepdims=True)


def check(server: RunningServer, scores: Floats, tempered: Floats) -> None:
    """Compares its answers with ONNX Runtime's; raises RuntimeError where they differ."""
    contender = server.contender
    if not contender.checked:
        return
    wanted = tempered if contender.tempered else scores
    for row, right in zip(digits()[0][: len(wanted)].tolist(), wanted, strict=True):
        answer = server.ask(row)
        if answer.shape != right.shape or np.abs(answer - right).max() > _TOLERANCE:
            raise RuntimeError(f"{contender.name} says {answer}, ONNX Runtime {right}")
        if answer.argmax() != right.argmax():
            raise RuntimeError(f"{contender.name} takes a digit for another")


def measure(contender: Contender, models: DigitModels, timing: Timing) -> dict[int, LoadSummary]:
    """One round: started, checked, loaded; outcomes by number of connections."""
    rows = digits()[0][:_BODIES].tolist()
    bodies = [orjson.dumps(contender.body(row)).decode() for row in rows]
    log = _OUT / "comparison" / "logs" / f"{contender.name}.log"
    with RunningServer(contender, rows[0], log) as server:
        check(server, *expected_scores(models))
        outcomes = {}
        for connections in _CONNECTIONS:
            load = Load(
                server.port,
                contender.path,
                bodies,
                connections,
                timing.seconds[connections],
                warmup_s=timing.warmup_s,
                pid=server.pid,
            )
            outcomes[connections] = outcome = start(load).wait()
            if set(outcome.codes) != {"200"}:
                raise RuntimeError(f"{contender.name}: not every answer was 200: {outcome.codes}")
    return outcomes


def medians(rounds: Sequence[LoadSummary]) -> dict[str, Any]:
    """The numbers of several rounds, and how far apart the CPU times lay."""
    cpu = [one.cpu_us for one in rounds if one.cpu_us is not None]
    return {
        "cpu_us": statistics.median(cpu),
        "cpu_us_lowest": min(cpu),
        "cpu_us_highest": max(cpu),
        "requests_per_s": statistics.median(one.per_second for one in rounds),
        "p50_ms": statistics.median(one.p50_ms for one in rounds),
        "p99_ms": statistics.median(one.p99_ms for one in rounds),
        "client_load": statistics.median(one.client_load for one in rounds),
    }


def machine() -> dict[str, Any]:
    """What it was measured on."""
    model = "unknown processor"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.partition(":")[2].strip()
            break
    return {
        "processor": model,
        "cores": usable_cpus(),
        "python": platform.python_version(),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints, writes `benchmarks/out/compare.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round")
    parser.add_argument("--rounds", type=int, help="in place of 3")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="some of the servers")
    options = parser.parse_args(arguments)
    timing = _QUICK if options.quick else _FULL
    models = ensure_models()
    everyone = contenders(models)
    chosen = [one for one in everyone if not options.only or one.name in options.only]
    found: dict[str, dict[int, list[LoadSummary]]] = {
        one.name: {connections: [] for connections in _CONNECTIONS} for one in chosen
    }
    for number in range(options.rounds or timing.rounds):
        for contender in chosen:
            for connections, outcome in measure(contender, models, timing).items():
                found[contender.name][connections].append(outcome)
                print(
                    f"round {number + 1}  {contender.name:16}{connections:>3} connections  "
                    f"{outcome.cpu_us or 0:8.1f} us  {outcome.per_second:10,.0f}/s  "
                    f"p50 {outcome.p50_ms:.2f}  p99 {outcome.p99_ms:.2f} ms",
                    flush=True,
                )
    results = {
        "machine": machine(),
        "rounds": options.rounds or timing.rounds,
        "seconds": timing.seconds,
        "recall": models.recall,
        "ef": models.ef,
        "servers": [
            {
                "name": one.name,
                "title": one.title,
                "versions": _versions(one),
                "load": {
                    str(connections): medians(rounds)
                    for connections, rounds in found[one.name].items()
                },
                "rounds": {
                    str(connections): [asdict(outcome) for outcome in rounds]
                    for connections, rounds in found[one.name].items()
                },
            }
            for one in chosen
        ],
    }
    path = _OUT / ("compare-part.json" if options.only else "compare.json")
    path.write_text(json.dumps(results, indent=2) + "\n")
    print(path)


def _versions(contender: Contender) -> dict[str, str]:
    installed = versions(contender.interpreter)
    return {name: installed[name] for name in contender.packages}


if __name__ == "__main__":
    main()
