import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from resmem_service.errors import InvalidInput, JournalLocked, JournalUnavailable, QueueFull
from resmem_service.inference.learner import Examples, Learner
from resmem_service.inference.observer import OnlineScores, SilentInferenceObserver
from resmem_service.inference.predictions import Predictions
from resmem_service.inference.residuals import Task
from resmem_service.inference.rows import Rows
from resmem_service.memory.journal.journal import Appended, Memories
from resmem_service.memory.memory import ResidualMemory
from resmem_service.memory.rows import MemoryShape
from resmem_service.memory.search.codec import ResidualCodec
from resmem_service.memory.search.soft_knn import Correction

from tests.memory.examples import LABELS, PIXELS


class Watcher(SilentInferenceObserver):
    def __init__(self) -> None:
        self.learned: list[OnlineScores] = []

    def on_learned(self, scores: OnlineScores) -> None:
        self.learned.append(scores)


class Commits:
    """A memory's `append_all`, which can hold a group back, or fail it."""

    def __init__(self, memory: ResidualMemory, monkeypatch: pytest.MonkeyPatch) -> None:
        self.groups: list[list[int]] = []
        self.failure: Exception | None = None
        self.hold = False
        self._held: list[Callable[[], object]] = []
        self._append = memory.append_all
        monkeypatch.setattr(memory, "append_all", self.append_all)

    def append_all(self, requests: Sequence[Memories], *, arrived: float) -> Future[list[Appended]]:
        assert arrived <= time.monotonic()
        self.groups.append([len(request) for request in requests])
        if self.failure is not None:
            failed: Future[list[Appended]] = Future()
            failed.set_exception(self.failure)
            return failed
        if not self.hold:
            return self._append(requests)
        reply: Future[list[Appended]] = Future()
        self._held.append(lambda: self._end(requests, reply))
        return reply

    def _end(self, requests: Sequence[Memories], reply: Future[list[Appended]]) -> None:
        if self.failure is None:
            reply.set_result(self._append(requests).result(10))
        else:
            reply.set_exception(self.failure)
            self.failure = None

    def release(self) -> None:
        self.hold = False
        for commit in self._held:
            commit()


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[ResidualMemory]:
    shape = MemoryShape(dim=64, width=10, task="classification")
    memory = ResidualMemory.open(tmp_path, fitted=None, shape=shape)
    yield memory
    memory.close()


def examples(
    rows: range, targets: NDArray[np.int32] | NDArray[np.float32] | None = None, step: int = 1
) -> Examples:
    index = list(rows)
    targets = LABELS[index] if targets is None else targets
    width = 10 if targets.ndim == 1 else targets.shape[1]
    base = np.full((len(index), width), 0.1, np.float32)
    none = np.zeros((len(index), 0))
    predicted = Predictions(
        base=base,
        scores=base,
        embeddings=PIXELS[index],
        correction=Correction(np.zeros_like(base), none.astype(np.int64), none, none),
        memory_size=0,
        revision=0,
    )
    return Examples(
        rows=Rows({"pixels": PIXELS[index]}),
        predictions=predicted,
        scored=predicted if step == 1 else predicted.slice(0, -(-len(index) // step)),
        step=step,
        targets=targets,
        ids=[f"row-{row}" for row in index],
        weights=np.ones(len(index)),
        source=None,
    )


async def turns() -> None:
    """Lets everything run that can."""
    for _ in range(4):
        await asyncio.sleep(0)


def run(
    memory: ResidualMemory,
    scenario: Callable[[Learner], Awaitable[None]],
    *,
    task: Task = "classification",
    max_rows: int = 1000,
    watcher: Watcher | None = None,
) -> None:
    async def main() -> None:
        await scenario(Learner(memory, task, max_rows=max_rows, observer=watcher or Watcher()))

    asyncio.run(main())


def test_what_comes_together_is_one_commit_and_what_comes_meanwhile_the_next(
    memory: ResidualMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits, watcher = Commits(memory, monkeypatch), Watcher()

    async def scenario(learner: Learner) -> None:
        commits.hold = True
        first = [asyncio.create_task(learner.learn(examples(range(n, n + 2)))) for n in (0, 2)]
        await turns()
        later = [asyncio.create_task(learner.learn(examples(range(n, n + 1)))) for n in (4, 5, 6)]
        await turns()
        commits.release()
        answers = await asyncio.gather(*first, *later)
        assert [answer.created for answer in answers] == [2, 2, 1, 1, 1]
        assert [answer.ids[0] for answer in answers] == [
            "row-0",
            "row-2",
            "row-4",
            "row-5",
            "row-6",
        ]
        assert [answer.size for answer in answers] == [4, 4, 7, 7, 7]

    run(memory, scenario, watcher=watcher)
    assert commits.groups == [[2, 2], [1, 1, 1]]
    assert [scores.rows for scores in watcher.learned] == [4, 3]
    assert watcher.learned[0].base_loss == pytest.approx(-4 * np.log(0.1), rel=1e-6)


def test_what_changes_nothing_is_not_scored(memory: ResidualMemory) -> None:
    watcher = Watcher()

    async def scenario(learner: Learner) -> None:
        await learner.learn(examples(range(3)))
        again, fresh = await asyncio.gather(
            learner.learn(examples(range(3))), learner.learn(examples(range(5, 7)))
        )
        assert (again.created, again.replaced, fresh.created) == (0, 0, 2)

    run(memory, scenario, watcher=watcher)
    assert [scores.rows for scores in watcher.learned] == [3, 2]


def test_of_a_sample_the_losses_are_those_of_its_own_targets(memory: ResidualMemory) -> None:
    watcher = Watcher()

    async def scenario(learner: Learner) -> None:
        await learner.learn(examples(range(30), step=7))

    run(memory, scenario, watcher=watcher)
    assert [scores.rows for scores in watcher.learned] == [5]
    assert watcher.learned[0].base_errors == int((LABELS[0:30:7] != 0).sum())
    assert memory.size == 30


def test_a_bad_target_fails_its_own_request_only(memory: ResidualMemory) -> None:
    async def scenario(learner: Learner) -> None:
        outcomes = await asyncio.gather(
            learner.learn(examples(range(2))),
            learner.learn(examples(range(2, 4), np.array([1, 10], np.int32))),
            learner.learn(examples(range(4, 6))),
            return_exceptions=True,
        )
        assert [type(outcome) for outcome in outcomes] == [Appended, InvalidInput, Appended]
        assert "row 1" in str(outcomes[1])

    run(memory, scenario)
    assert memory.size == 4


def test_a_residual_that_cannot_be_stored_fails_its_own_request_only(tmp_path: Path) -> None:
    shape = MemoryShape(dim=64, width=1, task="regression", codec=ResidualCodec("float16"))
    memory = ResidualMemory.open(tmp_path, fitted=None, shape=shape)

    async def scenario(learner: Learner) -> None:
        outcomes = await asyncio.gather(
            learner.learn(examples(range(1), np.array([[1e6]], np.float32))),
            learner.learn(examples(range(1, 2), np.array([[2.0]], np.float32))),
            return_exceptions=True,
        )
        assert [type(outcome) for outcome in outcomes] == [InvalidInput, Appended]

    run(memory, scenario, task="regression")
    assert memory.size == 1
    memory.close()


def test_a_failed_commit_fails_its_group_and_not_the_next(
    memory: ResidualMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    commits = Commits(memory, monkeypatch)

    async def scenario(learner: Learner) -> None:
        commits.failure = JournalUnavailable("full")
        failed = await asyncio.gather(
            *(learner.learn(examples(range(n, n + 1))) for n in range(3)), return_exceptions=True
        )
        assert [type(outcome) for outcome in failed] == [JournalUnavailable] * 3
        commits.failure = None
        assert (await learner.learn(examples(range(3)))).created == 3

    run(memory, scenario, max_rows=3)
    assert commits.groups == [[1, 1, 1], [3]]


@pytest.mark.parametrize("busy_s", [0.0, 3600.0])
def test_each_waits_for_a_lock_from_its_own_arrival(
    memory: ResidualMemory, monkeypatch: pytest.MonkeyPatch, busy_s: float
) -> None:
    """What came while the first waited does not begin to wait when the first has given up."""
    commits = Commits(memory, monkeypatch)
    monkeypatch.setattr(ResidualMemory, "busy_s", busy_s)

    async def scenario(learner: Learner) -> None:
        commits.hold = True
        first = asyncio.create_task(learner.learn(examples(range(1))))
        await turns()
        later = [asyncio.create_task(learner.learn(examples(range(n, n + 1)))) for n in (1, 2)]
        await turns()
        commits.failure = JournalLocked("locked")
        commits.release()
        with pytest.raises(JournalLocked):
            await first
        outcomes = await asyncio.gather(*later, return_exceptions=True)
        if busy_s:
            assert [getattr(outcome, "created", outcome) for outcome in outcomes] == [1, 1]
        else:
            assert [type(outcome) for outcome in outcomes] == [JournalLocked] * 2
        assert (await learner.learn(examples(range(3)))).size == 3, "rows are free again"

    run(memory, scenario, max_rows=3)
    assert commits.groups == [[1], *([[1, 1]] if busy_s else []), [3]]


def test_a_memory_that_takes_no_more_says_so_to_each(
    memory: ResidualMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: Sequence[Memories], *, arrived: float) -> Future[list[Appended]]:
        raise QueueFull(f"not sealed yet at {arrived}")

    async def scenario(learner: Learner) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(memory, "append_all", full)
            with pytest.raises(QueueFull, match="not sealed"):
                await learner.learn(examples(range(2)))
        assert (await learner.learn(examples(range(2)))).created == 2

    run(memory, scenario, max_rows=2)


def test_waiting_rows_are_bounded_and_given_back(memory: ResidualMemory) -> None:
    async def scenario(learner: Learner) -> None:
        taken = asyncio.create_task(learner.learn(examples(range(3))))
        await asyncio.sleep(0)
        with pytest.raises(QueueFull):
            await learner.learn(examples(range(3, 5)))
        await taken
        # Larger than the bound, it passes alone: nothing else could ever let it through.
        assert (await learner.learn(examples(range(10, 20)))).created == 10

    run(memory, scenario, max_rows=4)


def test_who_gives_up_is_learned_from_all_the_same(memory: ResidualMemory) -> None:
    async def scenario(learner: Learner) -> None:
        leaving = asyncio.create_task(learner.learn(examples(range(2))))
        staying = asyncio.create_task(learner.learn(examples(range(2, 4))))
        await asyncio.sleep(0)
        leaving.cancel()
        assert (await staying).created == 2
        assert (await learner.learn(examples(range(4, 8)))).size == 8

    run(memory, scenario, max_rows=4)
