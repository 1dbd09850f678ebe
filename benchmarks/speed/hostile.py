"""A hostile client beside a polite one: what the polite one notices, and what memory it takes.

    python -m benchmarks.speed.hostile --minutes 10

Two workers under a limit of 1 GB (a cgroup, where this system lets us make one). The polite client
predicts 200 times a second and memorizes now and then, over connections that it keeps, and beside
that over a new connection for each request. The hostile one plays every shape of
`benchmarks.speed.hostile_shapes` over and over, each by itself and all at the same time. None of
the polite requests may fail, and their 99th percentile is to stay below 100 ms.

All of it shares the machine's cores with the server. So the hostile client has a lower priority,
which leaves what it sends as it is, and two things are measured beside the polite client's latency
that tell the server's part in it from the machine's: what the same client sees alone, before, and
the cores that server, hostile and polite client take. `--only SHAPE ...` plays some shapes alone.
"""

import argparse
import asyncio
import json
import shutil
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Final

import httpx
from resmem_service.child_command import module_command

from benchmarks.speed.contender import Contender, RunningServer, is_ready
from benchmarks.speed.digits import fit_digits
from benchmarks.speed.hostile_shapes import SHAPES, prepare
from benchmarks.speed.load import Load, LoadSummary, start
from benchmarks.speed.memorize import memorize_bodies, predict_bodies
from benchmarks.speed.memory_limit import MemoryLimit, tree_memory_mb

__all__ = ["Report", "measure"]

_WORK: Final = Path("benchmarks/out/hostile")
_PREDICTIONS_PER_S: Final = 200.0
_LESSONS_PER_S: Final = 2.0
_TIMEOUT_S: Final = 10.0
_TARGET_MS: Final = 100.0
_PLAY_S: Final = 20.0
_BETWEEN_PLAYS_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Report:
    """What came of it."""

    seconds: float
    limit: str
    """What bounds the memory of the server."""
    predictions: LoadSummary
    lessons: LoadSummary
    cores: dict[str, float]
    """CPU seconds per second of the server, the hostile client and the polite predictions."""
    newcomers: dict[str, int]
    """Predictions over a new connection each, by status or by what became of them."""
    hostile: dict[str, dict[str, int]]
    """What came of each shape's connections."""
    largest_mb: float
    """Proportional set size of the supervisor and the workers, the largest seen."""
    kills: int
    """Processes that the kernel has killed for want of memory."""

    @property
    def failures(self) -> int:
        """Polite requests that did not get what they should."""
        kept = sum(n for code, n in self.predictions.codes.items() if code != "200")
        taught = sum(n for code, n in self.lessons.codes.items() if code != "201")
        return kept + taught + sum(n for code, n in self.newcomers.items() if code != "200")

    @property
    def good(self) -> bool:
        """Whether the targets are met."""
        return self.failures == 0 and self.kills == 0 and self.predictions.p99_ms < _TARGET_MS


def _server(store: Path, work: Path, limit: MemoryLimit, workers: int) -> RunningServer:
    """The server under its limit, with an empty state."""
    shutil.rmtree(work / "state", ignore_errors=True)
    settings = {
        "RESMEM_STORE": str(store),
        "RESMEM_MODEL": "digits",
        "RESMEM_STATE_DIR": str(work / "state"),
        "RESMEM_WORKERS": str(workers),
    }
    contender = Contender(
        "resmem",
        "ResMem",
        lambda port: limit.command(module_command("resmem_service", "serve", "--port", str(port))),
        settings,
    )
    return RunningServer(contender, [], work / "server.log", is_ready)


class Watch:
    """Threads that look on until they are told to stop: memory, and clients that come anew.

    Args:
        pid: of the server.
        port: where it listens.
        per_second: how many clients come.
    """

    def __init__(self, pid: int, port: int, per_second: float) -> None:
        self._pid, self._port, self._pause_s = pid, port, 1 / per_second
        self._over = threading.Event()
        self.largest_mb = 0.0
        self.newcomers: Counter[str] = Counter()
        self._threads = [threading.Thread(target=one) for one in (self._weigh, self._come)]
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Returns when both have ended."""
        self._over.set()
        for thread in self._threads:
            thread.join(2 * _TIMEOUT_S)

    def _weigh(self) -> None:
        while not self._over.wait(0.5):
            self.largest_mb = max(self.largest_mb, tree_memory_mb(self._pid))

    def _come(self) -> None:
        body = predict_bodies()[0]
        headers = {"content-type": "application/json"}
        url = f"http://127.0.0.1:{self._port}/predict"
        while not self._over.wait(self._pause_s):
            try:
                answer = httpx.post(
                    url, content=body, headers=headers, timeout=_TIMEOUT_S, trust_env=False
                )
                self.newcomers[str(answer.status_code)] += 1
            except httpx.HTTPError as error:
                self.newcomers[type(error).__name__] += 1


async def attack(port: int, seconds: float, shapes: Sequence[str]) -> dict[str, Counter[str]]:
    """Plays these shapes beside each other, each again and again, until the time is over."""
    deadline, play_s = time.monotonic() + seconds, min(_PLAY_S, seconds / 2)
    found: dict[str, Counter[str]] = {name: Counter() for name in shapes}

    async def keep_on(name: str) -> None:
        while time.monotonic() < deadline:
            found[name].update(await SHAPES[name](port, play_s))
            await asyncio.sleep(_BETWEEN_PLAYS_S)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(keep_on(name)) for name in shapes]
        await asyncio.sleep(seconds)
        if not tasks:
            return found
        _, late = await asyncio.wait(tasks, timeout=_PLAY_S + 10)
        for task in late:
            task.cancel()
    return found


def measure(
    seconds: float,
    store: Path,
    work: Path,
    *,
    workers: int = 2,
    megabytes: int = 1024,
    shapes: Sequence[str] = tuple(SHAPES),
) -> Report:
    """Starts the server, lets both clients at it, and ends all of them.

    Args:
        seconds: how long the polite client is measured.
        store: has a model `digits` that takes 64 numbers.
        work: where the server's state and its log go.
        workers: of the server.
        megabytes: of memory that it may take.
        shapes: what the hostile client plays, by their names; none leaves the polite one alone.

    Raises:
        RuntimeError: the server does not start, or one of the clients fails by itself.
    """
    with MemoryLimit(megabytes) as limit, _server(store, work, limit, workers) as server:
        pid, port = server.pid, server.port
        polite = [
            Load(port, path, bodies, connections, seconds, rate, 1.0, pid, _TIMEOUT_S)
            for path, bodies, connections, rate in (
                ("/predict", predict_bodies(), 16, _PREDICTIONS_PER_S),
                ("/memorize", memorize_bodies(1), 2, _LESSONS_PER_S),
            )
        ]
        command = [sys.executable, "-m", "benchmarks.speed.hostile"]
        hostile = subprocess.Popen(
            [
                *("nice", "-n", "5", *command, "--attack", str(port)),
                *("--seconds", str(seconds), "--only", *shapes),
            ],
            stdout=subprocess.PIPE,
        )
        watch = Watch(pid, port, 5.0)
        try:
            assert hostile.stdout is not None
            hostile.stdout.readline()  # it is prepared
            predictions, lessons = (load.wait() for load in [start(one) for one in polite])
            watch.stop()
            played, _ = hostile.communicate(timeout=_PLAY_S + 60)
        finally:
            watch.stop()
            hostile.kill()
            hostile.wait()
        if hostile.returncode != 0:
            raise RuntimeError("the hostile client failed")
        attacked = json.loads(played)
        cores = {
            "server": (predictions.cpu_us or 0.0) * 1e-6 * predictions.per_second,
            "hostile client": attacked["cpu_s"] / attacked["seconds"],
            "polite predictions": predictions.client_load,
        }
        return Report(
            seconds,
            limit.kind,
            predictions,
            lessons,
            cores,
            dict(watch.newcomers),
            attacked["found"],
            watch.largest_mb,
            limit.kills(),
        )


def _show(report: Report) -> None:
    print(f"memory limit: {report.limit}; killed for want of memory: {report.kills}")
    for name, counts in report.hostile.items():
        print(f"  {name:20s} " + ", ".join(f"{what}: {n}" for what, n in sorted(counts.items())))
    predictions = report.predictions
    print(f"polite /predict:  {predictions.codes}")
    print(f"polite /memorize: {report.lessons.codes}")
    print(f"polite /predict over a new connection each: {report.newcomers}")
    print(f"failures {report.failures} (target 0)")
    print(f"p50 {predictions.p50_ms:.2f} ms, p99 {predictions.p99_ms:.2f} ms (target < 100)")
    print("cores: " + ", ".join(f"{who} {load:.2f}" for who, load in report.cores.items()))
    print(f"largest memory of the server's processes {report.largest_mb:.0f} MB")


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; the status says whether the targets are met."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seconds", type=float, help="instead of --minutes")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--megabytes", type=int, default=1024, help="of memory for the server")
    parser.add_argument("--only", nargs="*", default=list(SHAPES), choices=SHAPES, metavar="SHAPE")
    parser.add_argument("--alone", type=float, default=20.0, metavar="SECONDS",
                        help="how long the polite client is measured alone before")  # fmt: skip
    parser.add_argument("--attack", type=int, metavar="PORT", help="only the hostile client")
    options = parser.parse_args(arguments)
    seconds = options.seconds or options.minutes * 60
    if options.attack:
        prepare()
        print("prepared", flush=True)
        prepared = time.process_time(), time.monotonic()
        found = asyncio.run(attack(options.attack, seconds, options.only))
        spent = time.process_time() - prepared[0], time.monotonic() - prepared[1]
        print(json.dumps({"found": found, "cpu_s": spent[0], "seconds": spent[1]}))
        return 0
    play = partial(
        measure,
        store=fit_digits(_WORK),
        work=_WORK,
        workers=options.workers,
        megabytes=options.megabytes,
    )
    alone = play(options.alone, shapes=()).predictions
    report = play(seconds, shapes=options.only)
    print(f"the polite client alone: p50 {alone.p50_ms:.2f} ms, p99 {alone.p99_ms:.2f} ms")
    _show(report)
    result = asdict(report) | {"failures": report.failures, "alone": asdict(alone)}
    (_WORK.parent / "hostile.json").write_text(json.dumps(result, indent=2))
    return 0 if report.good else 1


if __name__ == "__main__":
    sys.exit(main())
