"""Prediction and memorization: the base model and the memory behind one batcher."""

import asyncio
import math
from collections.abc import Sequence
from itertools import accumulate
from time import perf_counter
from typing import Final

import numpy as np
from numpy.typing import NDArray

from resmem_service.errors import InvalidInput
from resmem_service.inference.base_model import BaseModel
from resmem_service.inference.batch_queue import Part
from resmem_service.inference.batcher import Batcher, Limits
from resmem_service.inference.learner import Examples, Learner
from resmem_service.inference.observer import InferenceObserver, SilentInferenceObserver
from resmem_service.inference.predictions import Predictions
from resmem_service.inference.residuals import Task, base_prediction
from resmem_service.inference.rows import Lesson, Rows
from resmem_service.inference.scoring_budget import ScoringBudget
from resmem_service.memory.journal.journal import Appended
from resmem_service.memory.memory import ResidualMemory
from resmem_service.memory.search.soft_knn import Correction, SoftKnn

__all__ = ["Predictor"]

_QUICK: Final = 8192
"""Elements up to which BLAS does not start threads."""
_NONE: Final = np.empty(0, dtype=np.intp)


class Predictor:
    """Answers rows and learns them, for one event loop: the one that calls `start`."""

    def __init__(
        self,
        model: BaseModel,
        memory: ResidualMemory,
        *,
        task: Task,
        temperature: float,
        rule: SoftKnn,
        limits: Limits | None = None,
        observer: InferenceObserver | None = None,
    ) -> None:
        """Set up a predictor; it owns neither the model nor the memory."""
        self.model = model
        self.memory = memory
        self._task: Task = task
        self._temperature = temperature
        self._rule = rule
        self._limits = limits or Limits()
        self._observer: InferenceObserver = observer or SilentInferenceObserver()
        self._batcher = Batcher[Rows, Predictions](
            self._run,
            self._limits,
            join=Predictions.concatenate,
            on_batch=self._observer.on_batch,
        )
        self._budget = ScoringBudget()
        self._learner = Learner(
            memory, task, max_rows=self._limits.max_queue_rows, observer=self._observer
        )

    @property
    def queued_rows(self) -> int:
        """Rows accepted and not yet answered."""
        return self._batcher.queued_rows

    def is_getting_on(self) -> bool:
        """Whether batches end; see `Batcher.is_getting_on`."""
        return self._batcher.is_getting_on()

    def check_room(self, rows: int) -> None:
        """Whether so many rows could be queued now.

        Raises:
            QueueFull: they could not.
        """
        self._batcher.check_room(rows)

    def warm_up(self) -> None:
        """Run every batch size once, and one row all the way; blocks, call it before `start`."""
        if self.model.warm_up(self._limits.max_batch_rows):
            self._answer(self.model.zeros(1))

    def start(self) -> None:
        """Begin to take rows from the running event loop."""
        self._batcher.start()

    async def close(self) -> None:
        """End what waits with NotReady and stop."""
        await self._batcher.close()

    def predict(self, rows: Rows) -> "asyncio.Future[Predictions]":
        """Predict n rows, at least 1; who cancels the future gives up on them.

        It ends with InvalidInput where the model refuses a row, or has no finite answer to it.

        Raises:
            QueueFull, TooManyRows, NotReady: see `Batcher.submit`.
        """
        return self._batcher.submit(rows)

    async def memorize(
        self,
        rows: Rows,
        *,
        targets: NDArray[np.int32] | NDArray[np.float32],
        ids: list[str | None],
        weights: NDArray[np.float64],
        source: str | None,
    ) -> Appended:
        """Predict n rows, then learn them; when it returns they are durable and in use.

        `targets` are class indices int32 `[n]`, or float32 `[n, L]` for regression; `weights` `[n]`
        is their importance. All rows are kept or none. The observer gets the losses of what is new;
        a request that changes nothing, say a client's second try, counts for nothing. Of a request
        with more than 16 rows a sample is scored, see `ScoringBudget`.

        Raises:
            InvalidInput: as `predict`, or naming `targets`, see `Learner.learn`.
            JournalUnavailable: nothing was kept.
            QueueFull, TooManyRows, NotReady: see `Batcher.submit` and `Learner.learn`.
        """
        step = self._budget.step(len(rows))
        if step == 1:
            predictions = validated = await self.predict(rows)
        else:
            # This one first: an error names the row of the request, not of the sample.
            predictions = await self.predict(Lesson(rows.arrays))
            validated = await self.predict(rows.every(step))
        return await self._learner.learn(
            Examples(rows, predictions, validated, step, targets, ids, weights, source)
        )

    def _run(self, parts: Sequence[Part[Rows, Predictions]]) -> list[Predictions | Exception]:
        """One batch, in the batch thread: rows -> z, phi -> correction -> predictions."""
        rows = type(parts[0].rows).concatenate([part.rows for part in parts])
        predictions, bad = self._answer(rows)
        stops = list(accumulate(len(part.rows) for part in parts))
        return [
            _own(part, predictions, bad, stop - len(part.rows), stop)
            for part, stop in zip(parts, stops, strict=True)
        ]

    def _answer(self, rows: Rows) -> tuple[Predictions, NDArray[np.intp]]:
        """Predictions of rows, and which of them the model has no finite answer to."""
        began = perf_counter()
        output = self.model.run(rows)
        logits, embeddings = output.logits, output.embeddings
        bad = _not_finite(logits, embeddings)
        if bad.size:  # the others of the batch must not meet a NaN
            logits, embeddings = logits.copy(), embeddings.copy()
            logits[bad], embeddings[bad] = 0.0, 0.0
        base = base_prediction(logits, self._task, self._temperature)
        if isinstance(rows, Lesson):
            self._observer.on_stage("base", perf_counter() - began)
            return _uncorrected(base, embeddings), bad
        ran = perf_counter()
        # Read before the search, which may see newer memories but never older ones.
        size, revision = self.memory.size, self.memory.revision
        correction = self.memory.correct(embeddings, self._rule)
        searched = perf_counter()
        if self._task == "regression":
            with np.errstate(over="ignore"):  # found below
                scores = base + correction.residuals
        else:
            scores = base + correction.residuals
        if (odd := _not_finite(scores)).size:
            bad = np.union1d(bad, odd)
        combined = perf_counter()
        observer = self._observer
        observer.on_stage("base", ran - began)
        observer.on_stage("search", searched - ran)
        observer.on_stage("combine", combined - searched)
        squares = np.einsum("nl,nl->n", correction.residuals, correction.residuals)
        observer.on_corrections(correction.distances[:, 0], np.sqrt(squares))
        return Predictions(base, scores, embeddings, correction, size, revision), bad


def _not_finite(*outputs: NDArray[np.float32]) -> NDArray[np.intp]:
    """Rows in which some output holds NaN or infinity."""
    if all(_is_finite(output) for output in outputs):
        return _NONE
    good = np.logical_and.reduce([np.isfinite(output).all(axis=1) for output in outputs])
    return np.flatnonzero(~good)


def _is_finite(output: NDArray[np.float32]) -> bool:
    # A sum of squares keeps NaN and infinity, and takes a third of the time where it is small; it
    # may be infinite without.
    if output.size <= _QUICK and math.isfinite(np.vdot(output, output)):
        return True
    return bool(np.isfinite(output).all())


def _uncorrected(base: NDArray[np.float32], embeddings: NDArray[np.float32]) -> Predictions:
    """Makes predictions of the base alone, for rows that are not searched for in the memory."""
    none = (len(base), 0)
    correction = Correction(
        np.zeros_like(base), np.zeros(none, np.int64), np.zeros(none), np.zeros(none)
    )
    return Predictions(base, base, embeddings, correction, 0, 0)


def _own(
    part: Part[Rows, Predictions],
    predictions: Predictions,
    bad: NDArray[np.intp],
    start: int,
    stop: int,
) -> Predictions | Exception:
    """What belongs to one part of the batch; an error if one of its rows is bad."""
    if bad.size:
        mine = bad[(bad >= start) & (bad < stop)]
        if mine.size:
            row = part.start + int(mine[0]) - start
            return InvalidInput(f"the answer to row {row} is not finite", "inputs")
    return predictions if stop - start == len(predictions) else predictions.slice(start, stop)
