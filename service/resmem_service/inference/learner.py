"""The learner: what arrived while the last commit was synced shares the next.

    learn -> what came in one turn of the event loop -> residuals -> journal's thread -> loop

One commit is under way at a time, and wakes the loop once, however many requests it answers. The
arithmetic is done for all of them together, since numpy takes longer to begin than for the rows.
"""

import asyncio
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from resmem_service.errors import InvalidInput, JournalLocked, QueueFull
from resmem_service.inference.observer import InferenceObserver
from resmem_service.inference.online_scores import online_scores
from resmem_service.inference.predictions import Predictions
from resmem_service.inference.residuals import Task, residuals
from resmem_service.inference.rows import Rows
from resmem_service.memory.journal.journal import Appended, Memories
from resmem_service.memory.memory import ResidualMemory

__all__ = ["Examples", "Learner"]


@dataclass(frozen=True, slots=True, eq=False)
class Examples:
    """n rows of one request with what was predicted for them and what is true."""

    rows: Rows
    predictions: Predictions
    scored: Predictions
    """Of every `step`-th row: what the observer gets the losses of."""
    step: int
    targets: NDArray[np.int32] | NDArray[np.float32]
    """Class indices `[n]`, or `[n, L]` for regression."""
    ids: list[str | None]
    weights: NDArray[np.float64]
    """`[n]`: importance."""
    source: str | None

    def __len__(self) -> int:
        return len(self.ids)

    def with_residuals(self, differences: NDArray[np.float32]) -> Memories:
        """The examples as the memory takes them; `differences` is `[n, L]`."""
        return Memories(
            ids=self.ids,
            inputs=self.rows.encode(),
            targets=self.targets,
            embeddings=self.predictions.embeddings,
            residuals=differences,
            weights=self.weights,
            source=self.source,
        )


@dataclass(slots=True, eq=False)
class _Request:
    examples: Examples
    future: asyncio.Future[Appended]
    arrived: float


class Learner:
    """Turns examples into memories, for one event loop."""

    def __init__(
        self, memory: ResidualMemory, task: Task, *, max_rows: int, observer: InferenceObserver
    ) -> None:
        """`max_rows` is what may wait here at once, the commit under way included."""
        self._memory = memory
        self._task: Task = task
        self._max_rows = max_rows
        self._observer = observer
        self._waiting: list[_Request] = []
        self._committing = False
        self._rows = 0

    async def learn(self, examples: Examples) -> Appended:
        """Keep all rows or none; when it returns they are durable and in use.

        A caller that gives up does not cancel a write that others' writes go with.

        Raises:
            InvalidInput: field `targets`, see `residuals` and `ResidualMemory.check`.
            JournalUnavailable: nothing was kept.
            QueueFull: the disk, or sealing, does not keep up.
            NotReady: the memory is closed.
        """
        if self._rows and self._rows + len(examples) > self._max_rows:
            raise QueueFull("the disk does not keep up with what is memorized; retry later")
        loop = asyncio.get_running_loop()
        request = _Request(examples, loop.create_future(), time.monotonic())
        if not self._waiting and not self._committing:
            loop.call_soon(self._commit, loop)
        self._waiting.append(request)
        self._rows += len(examples)
        return await request.future

    def _commit(self, loop: asyncio.AbstractEventLoop) -> None:
        """Hand over what waits."""
        group, self._waiting = self._waiting, []
        requests, memories = self._learnable(group)
        if not requests:
            return
        self._committing = True

        def wake(done: "Future[list[Appended]]") -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._answer, loop, requests, done)

        try:
            done = self._memory.append_all(memories, arrived=requests[0].arrived)
            done.add_done_callback(wake)
        except Exception as error:
            failed: Future[list[Appended]] = Future()
            failed.set_exception(error)
            self._answer(loop, requests, failed)

    def _learnable(self, group: Sequence[_Request]) -> tuple[list[_Request], list[Memories]]:
        """The requests that can be written, and as what; the others fail, each alone."""
        try:
            return list(group), self._memories([request.examples for request in group])
        except InvalidInput as error:
            if len(group) == 1:
                self._end(group[0], error)
                return [], []
        requests, memories = [], []
        for request in group:
            one, its = self._learnable([request])
            requests += one
            memories += its
        return requests, memories

    def _memories(self, group: Sequence[Examples]) -> list[Memories]:
        base = np.concatenate([examples.predictions.base for examples in group])
        targets = np.concatenate([examples.targets for examples in group])
        differences = residuals(base, targets, self._task)
        self._memory.check(differences)
        memories, start = [], 0
        for examples in group:
            stop = start + len(examples)
            memories.append(examples.with_residuals(differences[start:stop]))
            start = stop
        return memories

    def _answer(
        self,
        loop: asyncio.AbstractEventLoop,
        requests: Sequence[_Request],
        done: "Future[list[Appended]]",
    ) -> None:
        """Answer a commit's requests and begin the next; in the event loop."""
        error = done.exception()
        if error is None:
            changed = []
            for request, appended in zip(requests, done.result(), strict=True):
                self._end(request, appended)
                if appended.created or appended.replaced:
                    changed.append(request.examples)
            if changed:
                self._score(changed)
        elif isinstance(error, JournalLocked):
            self._give_up(requests, error)
        else:
            for request in requests:
                self._end(request, error)
        self._committing = False
        if self._waiting:
            self._commit(loop)

    def _give_up(self, requests: Sequence[_Request], error: JournalLocked) -> None:
        """Fail what has waited for as long as the oldest was allowed to; the rest waits on."""
        waiting = [*requests, *self._waiting]
        latest = max(requests[0].arrived, time.monotonic() - self._memory.busy_s)
        self._waiting = [request for request in waiting if request.arrived > latest]
        for request in waiting[: len(waiting) - len(self._waiting)]:
            self._end(request, error)

    def _score(self, learned: Sequence[Examples]) -> None:
        scores = online_scores(
            np.concatenate([examples.scored.base for examples in learned]),
            np.concatenate([examples.scored.scores for examples in learned]),
            np.concatenate([examples.targets[:: examples.step] for examples in learned]),
            self._task,
        )
        self._observer.on_learned(scores)

    def _end(self, request: _Request, outcome: Appended | BaseException) -> None:
        self._rows -= len(request.examples)
        if request.future.done():  # the caller has given up
            return
        if isinstance(outcome, BaseException):
            request.future.set_exception(outcome)
        else:
            request.future.set_result(outcome)
