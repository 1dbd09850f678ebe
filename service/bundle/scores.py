"""Scores on held-out rows: base alone, plain kNN on the labels and ResMem, with intervals."""

from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from service.bundle.manifest import Interval, ScoreTable
from service.bundle.neighbours import Neighbours
from service.bundle.tuning import Outputs, Setting
from service.inference.residuals import Task, base_prediction, residuals

__all__ = ["Answers", "HeldOut", "held_out_answers", "label_votes", "score_table", "votes"]

HeldOut = Literal["leave-one-out", "unseen", "test"]

_Z: Final = 1.959963984540054
"""97.5 % quantile of the normal distribution."""
_RESAMPLES: Final = 500
_ROWS: Final = 512


@dataclass(frozen=True, slots=True, eq=False)
class Answers:
    """What the three predictors say to n rows, each `[n, L]`, and what is true."""

    base: NDArray[np.float32]
    knn: NDArray[np.float32]
    resmem: NDArray[np.float32]
    targets: NDArray[Any]
    """int32 `[n]` class indices, or float32 `[n, L]`."""

    def wrong(self) -> NDArray[np.bool_]:
        """Rows `[n]` whose label ResMem gets wrong; for regression every row."""
        if self.targets.ndim == 2:
            return np.ones(len(self.targets), np.bool_)
        wrong: NDArray[np.bool_] = np.not_equal(self.resmem.argmax(axis=1), self.targets)
        return wrong


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
) -> Answers:
    """Answer q queries by the formula, from exact neighbours that hold no memory of the query."""
    near = Neighbours(neighbours.rows[:, : setting.k], neighbours.distances[:, : setting.k])
    base = base_prediction(queries.logits, task, setting.temperature)
    knn, resmem = np.empty_like(base), np.empty_like(base)
    plain = Setting(setting.k, setting.sigma, setting.temperature, alpha=0.0)
    for start in range(0, len(base), _ROWS):
        some = near.part(start, start + _ROWS)
        flat = memories.part(some.rows.ravel())
        table = residuals(
            base_prediction(flat.logits, task, setting.temperature), flat.targets, task
        ).reshape(*some.rows.shape, -1)
        targets = flat.targets.reshape(*some.rows.shape, *flat.targets.shape[1:])
        rows = slice(start, start + len(some.rows))
        knn[rows] = label_votes(votes(some, plain), targets, base.shape[1])
        correction = np.einsum("qk,qkl->ql", votes(some, setting), table)
        resmem[rows] = base[rows] + correction
    return Answers(base, knn, resmem, queries.targets)


def score_table(answers: Answers, held_out: HeldOut) -> ScoreTable:
    """Accuracy with Wilson's interval, or RMSE with a bootstrap interval over the rows, at 95 %."""
    classification = answers.targets.ndim == 1
    judge = _accuracy if classification else _rmse
    return ScoreTable(
        held_out=held_out,
        rows=len(answers.targets),
        metric="accuracy" if classification else "rmse",
        base=judge(answers.base, answers.targets),
        knn=judge(answers.knn, answers.targets),
        resmem=judge(answers.resmem, answers.targets),
    )


def _accuracy(scores: NDArray[np.float32], targets: NDArray[Any]) -> Interval:
    """Wilson, "Probable inference", JASA 22 (1927)."""
    n = len(targets)
    p = float((scores.argmax(axis=1) == targets).mean())
    middle = (p + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z / (1 + _Z**2 / n) * float(np.sqrt(p * (1 - p) / n + _Z**2 / (4 * n**2)))
    return Interval(value=p, low=max(0.0, middle - half), high=min(1.0, middle + half))


def _rmse(scores: NDArray[np.float32], targets: NDArray[Any]) -> Interval:
    squares = np.square(scores.astype(np.float64) - targets).mean(axis=1)
    random = np.random.default_rng(0)
    means = [
        squares[random.integers(len(squares), size=len(squares))].mean() for _ in range(_RESAMPLES)
    ]
    low, high = np.sqrt(np.quantile(means, [0.025, 0.975]))
    return Interval(value=float(np.sqrt(squares.mean())), low=float(low), high=float(high))
