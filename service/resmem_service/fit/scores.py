"""Scores on held-out rows: base alone, plain kNN on the labels and ResMem, with intervals."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, Self

import numpy as np
from numpy.typing import NDArray

from resmem_service.bundle.manifest import Interval, ScoreTable
from resmem_service.fit.batches import batches
from resmem_service.fit.neighbours import Neighbours
from resmem_service.fit.tuning import Outputs, Setting
from resmem_service.inference.residuals import Task, base_prediction, residuals

__all__ = [
    "Answers",
    "HeldOut",
    "Marks",
    "held_out_answers",
    "label_votes",
    "mark",
    "score_table",
    "votes",
]

HeldOut = Literal["leave-one-out", "unseen", "test"]

_Z: Final = 1.959963984540054
"""97.5 % quantile of the normal distribution."""
_RESAMPLES: Final = 500


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What the three predictors say to n rows, each `[n, L]`, and what is true."""

    base: NDArray[np.float32]
    knn: NDArray[np.float32]
    resmem: NDArray[np.float32]
    targets: NDArray[Any]
    """int32 `[n]` class indices, or float32 `[n, L]`."""


@dataclass(frozen=True, slots=True, eq=False)
class Marks:
    """How far off the three predictors were on n rows, a number `[n]` each.

    For classification 1 where the label is wrong and 0 where it is right; for regression the
    squared error, its mean over the L numbers.
    """

    metric: Literal["accuracy", "rmse"]
    base: NDArray[np.float64]
    knn: NDArray[np.float64]
    resmem: NDArray[np.float64]

    @classmethod
    def of(cls, answers: Iterable[Answers]) -> Self:
        """Mark batches of answers, at least one."""
        metric: Literal["accuracy", "rmse"] = "accuracy"
        parts: list[list[NDArray[np.float64]]] = []
        for batch in answers:
            metric = "accuracy" if batch.targets.ndim == 1 else "rmse"
            outputs = (batch.base, batch.knn, batch.resmem)
            parts.append([mark(scores, batch.targets) for scores in outputs])
        base, knn, resmem = (np.concatenate(column) for column in zip(*parts, strict=True))
        return cls(metric, base, knn, resmem)

    def wrong(self) -> NDArray[np.bool_]:
        """Rows `[n]` whose label ResMem gets wrong; for regression every row."""
        return (self.resmem > 0) | (self.metric == "rmse")


def mark(scores: NDArray[np.float32], targets: NDArray[Any]) -> NDArray[np.float64]:
    """How far off scores `[n, L]` are, `[n]`: see `Marks`."""
    if targets.ndim == 1:
        return np.asarray(scores.argmax(axis=1) != targets, np.float64)
    off: NDArray[np.float64] = np.square(scores.astype(np.float64) - targets).mean(axis=1)
    return off


def votes(neighbours: Neighbours, setting: Setting) -> NDArray[np.float64]:
    """Weights `w_i` `[q, k]` of the first k neighbours, all of importance 1 (design formula)."""
    distances = neighbours.distances[:, : setting.k]
    if not distances.shape[1]:
        return np.empty(distances.shape)
    nearest = distances[:, :1]
    powers = np.exp((nearest - distances) / setting.sigma)
    total = powers.sum(axis=1, keepdims=True)
    if setting.alpha > 0:
        # alpha / exp(-nearest / sigma) is infinite where every memory is far: the weights are 0.
        with np.errstate(over="ignore"):
            total = total + setting.alpha * np.exp(nearest / setting.sigma)
    weights: NDArray[np.float64] = powers / total
    return weights


def label_votes(
    weights: NDArray[np.float64], targets: NDArray[Any], width: int
) -> NDArray[np.float32]:
    """Plain soft kNN `[q, L]`: the weighted one-hot targets of the neighbours, or their mean.

    `weights` `[q, k]`, without shrinkage; `targets` `[q, k]` class indices, or `[q, k, L]`.
    """
    result = np.zeros((len(weights), width), np.float32)
    if targets.ndim == 3:
        result[:] = np.einsum("qk,qkl->ql", weights, targets)
    else:
        np.add.at(result, (np.arange(len(weights))[:, None], targets), weights)
    return result


def held_out_answers(
    queries: Outputs, neighbours: Neighbours, memories: Outputs, task: Task, setting: Setting
) -> Iterator[Answers]:
    """Answer q queries by the formula, from exact neighbours that hold no memory of the query.

    Yields the answers to a few queries at a time, in their order.
    """
    near = Neighbours(neighbours.rows[:, : setting.k], neighbours.distances[:, : setting.k])
    plain = Setting(setting.k, setting.sigma, setting.temperature, alpha=0.0)
    width = queries.logits.shape[1]
    for rows in batches(len(near.rows), near.rows.shape[1] * width):
        asked, some = queries.part(rows), near.part(rows.start, rows.stop)
        base = base_prediction(asked.logits, task, setting.temperature)
        flat = memories.part(some.rows.ravel())
        table = residuals(
            base_prediction(flat.logits, task, setting.temperature), flat.targets, task
        ).reshape(*some.rows.shape, width)
        targets = flat.targets.reshape(*some.rows.shape, *flat.targets.shape[1:])
        knn = label_votes(votes(some, plain), targets, width)
        correction = np.einsum("qk,qkl->ql", votes(some, setting), table)
        yield Answers(base, knn, (base + correction).astype(np.float32), asked.targets)


def score_table(marks: Marks, held_out: HeldOut) -> ScoreTable:
    """Accuracy with Wilson's interval, or RMSE with a bootstrap interval over the rows, at 95 %."""
    judge = _accuracy if marks.metric == "accuracy" else _rmse
    return ScoreTable(
        held_out=held_out,
        rows=len(marks.base),
        metric=marks.metric,
        base=judge(marks.base),
        knn=judge(marks.knn),
        resmem=judge(marks.resmem),
    )


def _accuracy(wrong: NDArray[np.float64]) -> Interval:
    """Wilson, "Probable inference", JASA 22 (1927)."""
    n = len(wrong)
    p = float((wrong == 0).mean())
    middle = (p + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * float(np.sqrt(p * (1 - p) / n + _Z**2 / (4 * n**2)))
    return Interval(value=p, low=max(0.0, middle - half), high=min(1.0, middle + half))


def _rmse(squares: NDArray[np.float64]) -> Interval:
    random = np.random.default_rng(0)
    means = [
        squares[random.integers(len(squares), size=len(squares))].mean() for _ in range(_RESAMPLES)
    ]
    low, high = np.sqrt(np.quantile(means, [0.025, 0.975]))
    return Interval(value=float(np.sqrt(squares.mean())), low=float(low), high=float(high))
