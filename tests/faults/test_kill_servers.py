"""kill -9 of any process of a server with two workers, under all kinds of load, over HTTP.

The long run: `RESMEM_KILLS=300 pytest tests/faults/test_kill_servers.py --log-cli-level=INFO`.
Another `RESMEM_SEED` gives other instants.
"""

import logging
import os
import random
import signal
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import suppress
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Final, Literal, get_args

import numpy as np
import pytest
from numpy.typing import NDArray
from resmem_service.cli import main
from resmem_service.memory import fitted

from tests.conftest import FittedModel
from tests.end_to_end.server import Server
from tests.faults.digits import FITTED_ROWS
from tests.faults.place import Place
from tests.faults.process_tree import descendants, running
from tests.faults.server_load import ServerLoad
from tests.server.test_supervisor import until

logger = logging.getLogger(__name__)

KILLS = int(os.environ.get("RESMEM_KILLS", "5"))
SEED = int(os.environ.get("RESMEM_SEED", "1"))
LONGEST_LIFE_S = 1.2
PATIENCE_S = 60
WORKER: Final = "resmem_service.server.worker"
BUILDER: Final = "resmem_service.memory.segments.build_process"

Victim = Literal["worker", "builder", "everyone", "supervisor", "compaction", "told twice"]
ENDS_ALL: Final = ("everyone", "supervisor", "told twice")


def victims(chance: random.Random) -> Iterator[Victim]:
    """Each kind once, then as it comes."""
    every: tuple[Victim, ...] = get_args(Victim)
    yield from chain(every, (chance.choice(every) for _ in repeat(None)))


def kill(*processes: int) -> bool:
    """False where none of them was there any more."""
    there = 0
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)
            there += 1
    return there > 0


def strike(victim: Victim, server: Server, load: ServerLoad, chance: random.Random) -> None:
    """Kills, as soon as there is whom to kill."""
    match victim:
        case "worker":
            before = running(server.process.pid, WORKER)
            assert kill(chance.choice(before))
            if chance.random() < 0.3:  # the one in its place as well, while it starts
                supervisor = server.process.pid
                until(lambda: bool({*running(supervisor, WORKER)} - {*before}), "new worker")
                new = {*running(supervisor, WORKER)} - {*before}
                time.sleep(chance.uniform(0, LONGEST_LIFE_S))
                kill(*new)
        case "builder":
            until(lambda: kill(*running(server.process.pid, BUILDER)), "builder")
        case "everyone":
            everyone = [server.process.pid, *descendants(server.process.pid)]
            chance.shuffle(everyone)
            assert kill(*everyone)
        case "supervisor":
            server.kill()  # its workers end by themselves
        case "compaction":
            until(
                lambda: (process := load.compaction) is not None and kill(process.pid),
                "compaction",
            )
        case "told twice":
            server.terminate()
            time.sleep(chance.uniform(0, LONGEST_LIFE_S / 4))
            server.terminate()  # which kills what has not ended
            # The second one may come when all is done but the end of the interpreter.
            assert server.status() in (0, -signal.SIGTERM)


def live(
    place: Place, server: Server, victim: Victim, seed: int, chance: random.Random, *, first: bool
) -> None:
    """Some load, one kill in the midst of it, and a little more load where there is a server."""
    with place.load(server, seed) as load:
        if first:
            assert load.compacted.wait(PATIENCE_S), "nothing was compacted"
            until(lambda: segments(server) >= 2, "segment beside the bundle's")
        time.sleep(chance.uniform(0, LONGEST_LIFE_S))
        strike(victim, server, load, chance)
        if victim not in ENDS_ALL:
            time.sleep(chance.uniform(0, LONGEST_LIFE_S / 2))
    if victim == "worker":
        server.wait_for("all workers ready")


def segments(server: Server) -> int:
    count: int = server.client.get("/model").json()["memory"]["segments"]
    return count


def check_against_clean_rebuild(place: Place, server: Server, folder: Path) -> None:
    """A fresh state, made of what the journal has, predicts the same."""
    folder.mkdir()
    file, clean = folder / "memories.jsonl", folder / "states"
    assert main(["verify", *place.options()]) == 0
    assert main(["export", *place.options(), "--to", str(file)]) == 0
    assert main(["import", *place.options(clean), "--max-weight", "1e9", str(file)]) == 0
    rows = (place.digits.pixels[::7] / 16).tolist()
    with Server(place.store, clean) as rebuilt:
        for row in range(FITTED_ROWS):
            # Those that were replaced have been imported.
            if fitted.id_of(row) not in place.history.states:
                assert rebuilt.client.delete(f"/memories/{fitted.id_of(row)}").status_code == 200
        assert np.abs(scores(server, rows) - scores(rebuilt, rows)).max() < 1e-5


def scores(server: Server, rows: list[list[float]]) -> NDArray[np.float64]:
    answer = server.client.post("/predict", json={"inputs": rows})
    assert answer.status_code == 200, answer.text
    return np.array([prediction["scores"] for prediction in answer.json()["predictions"]])


@pytest.mark.timeout(120 + 60 * KILLS)
def test_kill_any_process_at_any_instant(
    digits: FittedModel, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "httpx")  # a line for each request, kept until the end
    place, chance, counts = Place(digits, tmp_path), random.Random(SEED), Counter[str]()
    orders = deque(islice(victims(chance), KILLS))
    over = False
    while not over:
        with place.server() as server:
            place.check(server)
            while orders:
                victim = orders.popleft()
                seed = SEED * 10_000 + len(orders)
                live(place, server, victim, seed, chance, first=not counts)
                counts[victim] += 1
                if victim in ENDS_ALL:
                    break
                place.check(server)
            else:
                check_against_clean_rebuild(place, server, tmp_path / "clean")
                over = True
    acknowledged = place.history.acknowledged
    logger.info("%d kills, %d requests acknowledged, %s", KILLS, acknowledged, dict(counts))
