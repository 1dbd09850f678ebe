"""All or none: what the workers are told, also when one refuses, dies or hangs."""

import asyncio
from collections.abc import Callable
from itertools import count
from typing import cast

import pytest
from resmem_service.errors import ReloadFailed
from resmem_service.server.messages import Abandon, Commit, Prepare
from resmem_service.server.rollout import commit_everywhere, prepare_everywhere
from resmem_service.server.worker_process import WorkerProcess

PATIENCE_S = 60.0


class Worker:
    """Writes down what it is told; answers with `refusal`, or not at all."""

    def __init__(self, told: list[tuple[int, object]], refusal: str | None = None) -> None:
        self._told = told
        self._refusal = refusal
        self._beats = count()
        self.answers = True
        self.alive = True
        self.on_prepare: Callable[[], None] = lambda: None

    def heartbeat(self) -> float:
        return next(self._beats) if self.alive else -1.0

    async def carry_out(self, what: Prepare | Commit | Abandon) -> str | None:
        self.tell(what)
        if not self.answers:
            await asyncio.Event().wait()
        if isinstance(what, Prepare):
            self.on_prepare()
            return self._refusal
        return None

    def tell(self, what: Prepare | Commit | Abandon) -> int:
        self._told.append((id(self), what))
        return 0

    def retire(self, why: str) -> None:
        self._told.append((id(self), "retired"))

    def dismiss(self) -> None:
        self._told.append((id(self), "dismissed"))


def prepared(*workers: Worker, seconds: float = PATIENCE_S) -> list[object]:
    return prepared_of(lambda: list(workers), seconds)


def prepared_of(ready: Callable[[], list[Worker]], seconds: float) -> list[object]:
    async def main() -> list[WorkerProcess]:
        return await prepare_everywhere(
            lambda: [cast(WorkerProcess, one) for one in ready()], "m/2", seconds=seconds
        )

    return list(asyncio.run(main()))


def committed(*workers: Worker, seconds: float = PATIENCE_S) -> None:
    asyncio.run(commit_everywhere([cast(WorkerProcess, one) for one in workers], seconds=seconds))


def test_one_goes_first() -> None:
    told: list[tuple[int, object]] = []
    first, *rest = (Worker(told) for _ in range(3))
    assert prepared(first, *rest) == [first, *rest]
    assert told[0] == (id(first), Prepare("m/2"))
    assert sorted(worker for worker, _ in told[1:]) == sorted(map(id, rest))
    told.clear()
    committed(first, *rest)
    assert [what for _, what in told] == [Commit()] * 3


def test_the_first_refuses_and_the_others_never_hear_of_it() -> None:
    told: list[tuple[int, object]] = []
    first, second = Worker(told, "worker 0 died of it"), Worker(told)
    with pytest.raises(ReloadFailed, match="worker 0 died of it"):
        prepared(first, second)
    assert told == [(id(first), Prepare("m/2")), (id(first), Abandon())]


def test_another_refuses_and_all_drop_it() -> None:
    told: list[tuple[int, object]] = []
    workers = [Worker(told), Worker(told), Worker(told, "no memory left")]
    with pytest.raises(ReloadFailed, match="no memory left"):
        prepared(*workers)
    assert told[3:] == [(id(worker), Abandon()) for worker in workers]


def test_one_whose_load_does_not_end_is_replaced_and_the_others_drop_it() -> None:
    told: list[tuple[int, object]] = []
    workers = [Worker(told), Worker(told)]
    workers[1].answers = False
    with pytest.raises(ReloadFailed, match=r"m/2 was not loaded within 1 s"):
        prepared(*workers, seconds=0.7)
    assert told[2:] == [(id(workers[1]), "retired"), (id(workers[0]), Abandon())]


def test_one_that_hangs_is_not_asked_and_its_replacement_is() -> None:
    told: list[tuple[int, object]] = []
    hung, second, new = (Worker(told) for _ in range(3))
    hung.alive = False
    workers = [hung, second]
    second.on_prepare = lambda: workers.__setitem__(0, new)
    assert prepared_of(lambda: workers, PATIENCE_S) == [second, new]
    assert told == [(id(second), Prepare("m/2")), (id(new), Prepare("m/2"))]


def test_one_that_does_not_commit_is_replaced() -> None:
    told: list[tuple[int, object]] = []
    first, second = Worker(told), Worker(told)
    second.answers = False
    committed(first, second, seconds=0.1)
    assert told[2:] == [(id(second), "dismissed")]


def test_nobody_is_there() -> None:
    with pytest.raises(ReloadFailed, match="no worker"):
        prepared()
