"""A new version goes live without a restart, in every worker, and back again."""

import os
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from threading import Event
from typing import Any

import httpx
import pytest
from resmem_service.cli import main

from tests.conftest import TwoVersions
from tests.end_to_end.server import Server
from tests.server.everyone import ask, ask_everyone, samples


@pytest.fixture
def store(digits_twice: TwoVersions, tmp_path: Path) -> Path:
    """Two versions, the first of which is current, and a third that is damaged."""
    store = Path(shutil.copytree(digits_twice.store, tmp_path / "store"))
    damaged = store / "digits/3"
    shutil.copytree(store / "digits/2", damaged)
    model = damaged / "base.onnx"
    content = bytearray(model.read_bytes())
    content[len(content) // 2] ^= 1
    model.write_bytes(content)
    use(store, 1)
    return store


def use(store: Path, version: int) -> None:
    # Not `resmem use`, which looks at what it marks.
    (store / "digits/current").write_text(f"{version}\n")


def reload(server: Server) -> dict[str, Any]:
    answer = ask(server, "POST", "/admin/reload")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def serves(server: Server, version: str) -> None:
    """Every worker does, in all that it says."""

    def is_it(answer: httpx.Response) -> None:
        assert answer.json()["version"] == version

    ask_everyone(server, is_it, method="GET", path="/model")
    found = samples(server)
    models = [name for name in found if name.startswith("resmem_model_info")]
    assert models == [f'resmem_model_info{{name="digits",provider="cpu",version="{version}"}}']


@contextmanager
def load(work: Callable[[int], None], clients: int = 4) -> Iterator[None]:
    """Calls `work` all the time from several threads; its errors come out at the end."""
    over, numbers = Event(), count()

    def keep_on() -> None:
        while not over.is_set():
            work(next(numbers))

    with ThreadPoolExecutor(clients) as pool:
        running: list[Future[None]] = [pool.submit(keep_on) for _ in range(clients)]
        try:
            yield
        finally:
            over.set()
        for one in running:
            one.result()


@pytest.mark.parametrize("workers", [1, 2])
def test_there_and_back_under_load(
    digits_twice: TwoVersions, store: Path, tmp_path: Path, workers: int
) -> None:
    """No request fails or is answered by half a version, and no memory is lost."""
    rows, targets = digits_twice.inputs.tolist(), digits_twice.targets.tolist()
    versions: Counter[str] = Counter()
    taught: list[str] = []
    body = {"inputs": [rows[0]], "fields": ["base"]}
    with Server(store, tmp_path / "state", workers=workers) as server:

        def base() -> tuple[str, list[float]]:
            answer = ask(server, "POST", "/predict", json=body)
            assert answer.status_code == 200, answer.text
            reply = answer.json()
            return reply["model"]["version"], reply["predictions"][0]["base"]["scores"]

        right = dict([base()])
        use(store, 2)
        reload(server)
        right |= [base()]
        assert right.keys() == {"1", "2"}
        assert right["1"] != pytest.approx(right["2"])

        def work(number: int) -> None:
            version, scores = base()
            assert scores == pytest.approx(right[version], abs=1e-6)
            versions[version] += 1
            name = f"taught-{number}"
            some = {
                "inputs": [rows[number % len(rows)]],
                "targets": [str(targets[number % len(rows)])],
                "ids": [name],
            }
            answer = ask(server, "POST", "/memorize", json=some)
            assert answer.status_code == 201, answer.text
            taught.append(name)

        with load(work):
            for version in (1, 2, 1):
                use(store, version)
                done = reload(server)
                assert done["model"] == {"name": "digits", "version": str(version)}
                assert done["pinned"] is False
                serves(server, str(version))
        assert versions["1"]
        assert versions["2"]
        kept = memories(server)
        use(store, 2)
        reload(server)
        kept += memories(server)
        assert sorted(kept) == sorted(taught)
        server.terminate()
        assert server.status() == 0
        assert not list(tmp_path.rglob("*-wal")), "a journal was not closed"


def memories(server: Server) -> list[str]:
    """The ids of all that the served version was taught."""
    found: list[str] = []
    after: str | None = None
    while True:
        path = "/memories?limit=1000" + (f"&after={after}" if after else "")
        page = ask(server, "GET", path).json()
        found += [memory["id"] for memory in page["memories"]]
        after = page["next"]
        if after is None:
            return found


def test_a_version_that_will_not_do(store: Path, tmp_path: Path) -> None:
    with Server(store, tmp_path / "state", workers=2) as server:
        for mark, words in (("3", "SHA-256"), ("9", "no version 9"), ("x", "names no version")):
            (store / "digits/current").write_text(mark)
            answer = ask(server, "POST", "/admin/reload")
            error = answer.json()["error"]
            assert (answer.status_code, error["code"]) == (409, "reload_failed")
            assert error["message"].startswith("digits/1 still serves: ")
            assert words in error["message"]
            serves(server, "1")
        # Good bytes, but its state is damaged: found by the first worker, in loading.
        use(store, 2)
        journal = tmp_path / "state/digits/2/journal.sqlite3"
        journal.parent.mkdir()
        journal.write_text("no database at all, but long enough to be taken for one" * 50)
        answer = ask(server, "POST", "/admin/reload")
        assert answer.status_code == 409
        assert "journal.sqlite3" in answer.json()["error"]["message"]
        serves(server, "1")
        journal.unlink()
        assert reload(server)["model"]["version"] == "2"
        serves(server, "2")


@pytest.mark.parametrize("workers", [1, 2])
def test_hangup(store: Path, tmp_path: Path, workers: int) -> None:
    with Server(store, tmp_path / "state", workers=workers) as server:
        assert main(["use", "digits/2", "--store", str(store)]) == 0
        server.process.send_signal(signal.SIGHUP)
        for _ in range(workers):
            assert server.wait_for("reloaded")["model"] == "digits/2"
        serves(server, "2")
        use(store, 3)
        server.process.send_signal(signal.SIGHUP)
        failure = "the reload failed, digits/2 still serves: "
        while not server.log[-1]["message"].startswith(failure):
            server.next_line()
        serves(server, "2")


def test_two_at_once_take_turns_and_a_worker_is_replaced(store: Path, tmp_path: Path) -> None:
    with Server(store, tmp_path / "state", workers=2) as server:
        use(store, 2)
        with ThreadPoolExecutor(4) as pool:
            done = list(pool.map(lambda _: reload(server), range(4)))
        assert {one["model"]["version"] for one in done} == {"2"}
        assert sorted(one["previous"]["version"] for one in done) == ["1", "2", "2", "2"]
        serves(server, "2")
        # The new worker serves what the others do; what is marked by now takes a reload.
        use(store, 1)
        os.kill(server.pids()[1], signal.SIGKILL)
        server.wait_for("worker ended")
        server.wait_for("all workers ready")
        serves(server, "2")


def test_a_pinned_version(store: Path, tmp_path: Path) -> None:
    flags = ["--model", "digits/1"]
    with Server(store, tmp_path / "state", flags, workers=2) as server:
        use(store, 2)
        done = reload(server)
        assert done["pinned"] is True
        assert done["model"] == done["previous"] == {"name": "digits", "version": "1"}
        serves(server, "1")
