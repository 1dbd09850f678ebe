"""The memory behind a running server, for the clients of the kill test and for its checks."""

import random
from collections.abc import Collection
from typing import Any

import httpx

from tests.faults.client import Gone, Lost, Refused, state_of
from tests.faults.digits import Digits
from tests.faults.history import Lesson, State, States

_PATIENCE_S = 60
_PAGE = 1000
_REFUSING = (429, 503, 507)
"""Busy, draining, journal locked: nothing was done."""


class ServedMemory:
    """One connection at a time; every so often it looks whether predictions use what it was told.

    Args:
        url: of the server.
        digits: what there is to teach.
        classes: of the model, in its order.
        seed: of what it looks at.
    """

    def __init__(self, url: str, digits: Digits, classes: list[str], seed: int) -> None:
        self._http = httpx.Client(base_url=url, timeout=_PATIENCE_S)
        self._digits = digits
        self._classes = classes
        self._random = random.Random(seed)

    def close(self) -> None:
        self._http.close()

    def memorize(self, lesson: Lesson) -> list[str]:
        answer = self._ask("POST", "/memorize", json=self._digits.body(lesson))
        assert answer.status_code == 201, answer.text
        ids: list[str] = answer.json()["ids"]
        assert not lesson.versions or ids == list(lesson.versions)
        id, (_, state) = self._random.choice(list(zip(ids, lesson.rows(), strict=True)))
        if self._looks() and (found := self._nearest(id, state)):
            assert found[0] == id, "acknowledged, and the next prediction is without it"
        return ids

    def forget(self, id: str) -> None:
        state = self.find([id], "").get(id) if self._looks() else None
        answer = self._ask("DELETE", f"/memories/{id}")
        assert answer.status_code in (200, 404), answer.text
        if state is not None and not id.startswith("fit-"):
            assert id not in self._nearest(id, state), "forgotten, and the next prediction uses it"

    def forget_source(self, source: str) -> None:
        answer = self._ask("DELETE", "/memories", params={"source": source})
        assert answer.status_code == 200, answer.text

    def find(self, ids: Collection[str], source: str) -> States:
        try:
            found = self.states(source) if source else {}
            for id in ids:
                answer = self._ask("GET", f"/memories/{id}")
                assert answer.status_code in (200, 404), answer.text
                if answer.status_code == 200:
                    found[id] = self._state(answer.json())
        except (Lost, Refused) as error:
            raise Gone from error
        return found

    def states(self, source: str | None) -> States:
        """All memories added online, or all of one source, page by page."""
        found: States = {}
        params: dict[str, str | int] = {"limit": _PAGE} | ({"source": source} if source else {})
        while True:
            answer = self._ask("GET", "/memories", params=params)
            assert answer.status_code == 200, answer.text
            page = answer.json()
            found |= {memory["id"]: self._state(memory) for memory in page["memories"]}
            if page["next"] is None:
                return found
            params["after"] = page["next"]

    def predict(self, rows: list[list[float]], **options: Any) -> list[dict[str, Any]]:
        answer = self._ask("POST", "/predict", json={"inputs": rows, **options})
        if answer.status_code in _REFUSING:
            raise Refused(answer.text)
        assert answer.status_code == 200, answer.text
        predictions: list[dict[str, Any]] = answer.json()["predictions"]
        return predictions

    def some_inputs(self, count: int) -> list[list[float]]:
        """Rows to ask about."""
        places = self._random.sample(range(len(self._digits.pixels)), count)
        rows: list[list[float]] = (self._digits.pixels[places] / 16).tolist()
        return rows

    def _looks(self) -> bool:
        return self._random.random() < 0.2

    def _nearest(self, id: str, state: State) -> list[str]:
        """The ids of the neighbours of a memory; none where nobody answers any more."""
        try:
            (prediction,) = self.predict([self._digits.input(id, state)], neighbours=5)
        except (Lost, Refused, Gone):
            return []
        return [neighbour["id"] for neighbour in prediction["neighbours"]]

    def _state(self, memory: dict[str, Any]) -> State:
        state = state_of(memory["weight"], memory["source"])
        if state[1] != "fit":
            label = self._digits.label(memory["id"], state)
            assert memory["target"] == self._classes[label], f"another target: {memory}"
        return state

    def _ask(self, method: str, path: str, **how: Any) -> httpx.Response:
        try:
            answer = self._http.request(method, path, **how)
        except httpx.ConnectError as error:
            raise Gone from error
        except httpx.TimeoutException:
            raise
        except httpx.TransportError as error:
            raise Lost from error
        if answer.status_code in _REFUSING:
            raise Refused(answer.text)
        return answer
