"""Many clients of two workers write the same ids at the same time."""

import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import httpx
import pytest

from tests.conftest import FittedModel
from tests.end_to_end.server import Server

CLIENTS = 12
IDS = 30
ROWS = 5


@pytest.fixture(scope="module")
def server(digits: FittedModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with Server(digits.store, tmp_path_factory.mktemp("state"), workers=2) as running:
        yield running


def teach(server: Server, digits: FittedModel, name: str, *, own: bool) -> list[dict[str, Any]]:
    """Every client teaches all ids, some at a time, in an order of its own; gives all answers."""
    together = Barrier(CLIENTS, timeout=60)

    def client(number: int) -> list[dict[str, Any]]:
        rows = list(range(IDS))
        random.Random(number).shuffle(rows)
        answers = []
        # A connection of its own: the kernel gives it to one of the workers.
        with httpx.Client(base_url=server.client.base_url, timeout=60) as http:
            together.wait()
            for start in range(0, IDS, ROWS):
                some = rows[start : start + ROWS]
                body = {
                    "inputs": digits.inputs[some].tolist(),
                    "targets": [(row + number * own) % 10 for row in some],
                    "ids": [f"{name}-{row}" for row in some],
                    "source": name,
                }
                answer = http.post("/memorize", json=body)
                assert answer.status_code == 201, answer.text
                answers.append({**answer.json(), "asked": body["ids"]})
        return answers

    with ThreadPoolExecutor(CLIENTS) as pool:
        return [answer for answers in pool.map(client, range(CLIENTS)) for answer in answers]


def check(server: Server, name: str, size: int, answers: list[dict[str, Any]]) -> None:
    assert all(answer["ids"] == answer["asked"] for answer in answers)
    assert sum(answer["created"] for answer in answers) == IDS
    assert max(answer["memory"]["size"] for answer in answers) == size + IDS
    listed = server.client.get("/memories", params={"source": name, "limit": 1000}).json()
    assert sorted(memory["id"] for memory in listed["memories"]) == sorted(
        f"{name}-{row}" for row in range(IDS)
    )
    sizes = {server.client.get("/model").json()["memory"]["size"] for _ in range(10)}
    assert sizes == {size + IDS}


def size_of(server: Server) -> int:
    size: int = server.client.get("/model").json()["memory"]["size"]
    return size


def test_with_the_same_content_one_memory_is_created(server: Server, digits: FittedModel) -> None:
    size = size_of(server)
    answers = teach(server, digits, "same", own=False)
    assert sum(answer["replaced"] for answer in answers) == 0
    check(server, "same", size, answers)


def test_with_contents_of_their_own_the_last_one_stays(server: Server, digits: FittedModel) -> None:
    size = size_of(server)
    answers = teach(server, digits, "own", own=True)
    # Whoever comes with another content replaces; nobody does so by chance.
    replaced = sum(answer["replaced"] for answer in answers)
    assert 0 < replaced <= IDS * (CLIENTS - 1)
    check(server, "own", size, answers)
    for row in range(IDS):
        prediction = server.predict(digits.inputs[row].tolist(), neighbours=2)
        named = [n["id"] for n in prediction["neighbours"] if n["distance"] == 0]
        assert named.count(f"own-{row}") == 1
