"""All or none: what the workers are told, also when one refuses, dies or hangs."""

import asyncio
from typing import cast

import pytest

from service.errors import ReloadFailed
from service.server import rollout
from service.server.messages import Abandon, Commit, Prepare
from service.server.rollout import commit_everywhere, prepare_everywhere
from service.server.worker_process import WorkerProcess


class Worker:
    """Writes down what it is told; answers with `refusal`, or not at all."""

    def __init__(self, told: list[tuple[int, object]], refusal: str | None = None) -> None:
        self._told = told
        self._refusal = refusal
        self.hangs = False

    async def carry_out(self, what: Prepare | Commit | Abandon) -> str | None:
        self.tell(what)
        if self.hangs:
            await asyncio.Event().wait()
        return self._refusal if isinstance(what, Prepare) else None

    def tell(self, what: Prepare | Commit | Abandon) -> int:
        self._told.append((id(self), what))
        return 0


def prepared(*workers: Worker) -> None:
    asyncio.run(prepare_everywhere([cast(WorkerProcess, one) for one in workers], "m/2"))


def test_one_goes_first() -> None:
    told: list[tuple[int, object]] = []
    first, *rest = (Worker(told) for _ in range(3))
    prepared(first, *rest)
    assert told[0] == (id(first), Prepare("m/2"))
    assert sorted(worker for worker, _ in told[1:]) == sorted(map(id, rest))
    told.clear()
    asyncio.run(commit_everywhere([cast(WorkerProcess, one) for one in (first, *rest)]))
    assert [what for _, what in told] == [Commit()] * 3


def test_the_first_refuses_and_the_others_never_hear_of_it() -> None:
    told: list[tuple[int, object]] = []
    first, second = Worker(told, "worker 0 died of it"), Worker(told)
    with pytest.raises(ReloadFailed, match="worker 0 died of it"):
        prepared(first, second)
    assert (id(second), Prepare("m/2")) not in told
    assert [what for _, what in told[1:]] == [Abandon()] * 2


def test_another_refuses_and_all_drop_it() -> None:
    told: list[tuple[int, object]] = []
    workers = [Worker(told), Worker(told), Worker(told, "no memory left")]
    with pytest.raises(ReloadFailed, match="no memory left"):
        prepared(*workers)
    assert told[3:] == [(id(worker), Abandon()) for worker in workers]


def test_one_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout, "_PATIENCE_S", 0.01)
    told: list[tuple[int, object]] = []
    workers = [Worker(told), Worker(told)]
    workers[1].hangs = True
    with pytest.raises(ReloadFailed, match="m/2 was not loaded within"):
        prepared(*workers)
    assert told[2:] == [(id(worker), Abandon()) for worker in workers]


def test_nobody_is_there() -> None:
    with pytest.raises(ReloadFailed, match="no worker"):
        prepared()
