"""Workers killed while a version goes live: all serve the same one, and each keeps its memories."""

import logging
import os
import random
import shutil
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from pathlib import Path
from threading import Event

import httpx
import pytest

from tests.conftest import TwoVersions
from tests.end_to_end.server import Server
from tests.faults.process_tree import running
from tests.server.everyone import ask, ask_everyone
from tests.server.test_reload import memories, use

ROUNDS = int(os.environ.get("RESMEM_KILLS", "4"))
LONGEST_S = 0.3
"""About as long as a reload takes."""


class Service:
    """A server of two versions, and what the clients of either were told."""

    def __init__(self, model: TwoVersions, store: Path, server: Server) -> None:
        self.taught: list[str] = []
        self.over = Event()
        self._rows, self._targets = model.inputs.tolist(), model.targets.tolist()
        self._store = store
        self._server = server

    def teach(self) -> None:
        for number in count():
            if self.over.is_set():
                return
            row = number % len(self._rows)
            name = f"taught-{number}"
            body = {
                "inputs": [self._rows[row]],
                "targets": [str(self._targets[row])],
                "ids": [name],
            }
            with suppress(httpx.TransportError):
                answer = ask(self._server, "POST", "/memorize", json=body)
                assert answer.status_code == 201, answer.text
                self.taught.append(name)

    def reload(self, version: str, before: str, *, hang_up: bool) -> set[str]:
        """Asks for a version; gives those of which one must be served by then."""
        use(self._store, int(version))
        if hang_up:
            self._server.process.send_signal(signal.SIGHUP)
            return {before, version}
        try:
            answer = ask(self._server, "POST", "/admin/reload")
        except httpx.TransportError:  # it was the worker that was asked
            return {before, version}
        if answer.status_code == 200:
            assert answer.json()["model"]["version"] == version
            return {version}
        assert answer.status_code == 409, answer.text
        return {before}

    def served(self) -> str:
        """What every worker serves."""
        found: set[str] = set()
        ask_everyone(
            self._server,
            lambda answer: found.add(answer.json()["version"]),
            method="GET",
            path="/model",
        )
        (version,) = found
        return version


@pytest.mark.timeout(120 + 60 * ROUNDS)
def test_one_version_or_the_other(
    digits_twice: TwoVersions, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "httpx")  # a line for each request, kept until the end
    store = Path(shutil.copytree(digits_twice.store, tmp_path / "store"))
    use(store, 1)
    chance = random.Random(1)
    with (
        Server(store, tmp_path / "state", workers=2) as server,
        ThreadPoolExecutor(2) as pool,
    ):
        service = Service(digits_twice, store, server)
        teaching = pool.submit(service.teach)
        try:
            for turn in range(ROUNDS):
                version, before = "21"[turn % 2], service.served()
                asked = pool.submit(service.reload, version, before, hang_up=turn % 4 == 1)
                time.sleep(chance.uniform(0, LONGEST_S))
                worker = chance.choice(running(server.process.pid, "resmem_service.server.worker"))
                os.kill(worker, signal.SIGKILL)
                possible = asked.result()
                server.wait_for("all workers ready")
                assert service.served() in possible
        finally:
            service.over.set()
        teaching.result()
        kept: list[str] = []
        for version in "12":
            assert service.reload(version, service.served(), hang_up=False) == {version}
            kept += memories(server)
        assert set(service.taught) <= set(kept)
        assert len(set(kept)) == len(kept)
