"""The choice of k, sigma, T and alpha: every combination scored on held-out rows."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from resmem_service.fit.batches import batches
from resmem_service.fit.neighbours import Neighbours
from resmem_service.inference.residuals import Task, base_prediction, residuals

__all__ = ["Grid", "Outputs", "Setting", "Trials", "choose", "score_grid"]

_NOISE: Final = 0.5
"""Standard errors of the accuracy within which settings count as equally accurate."""
_LOSS_TOLERANCE: Final = 0.005
"""Relative loss that a simpler setting may cost."""
_SCALE_RANK: Final = 10
"""sigma is sought in units of the median distance to this neighbour."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One combination of parameters, in the units of the formula."""

    k: int
    sigma: float
    temperature: float
    alpha: float


@dataclass(frozen=True, slots=True)
class Grid:
    """What is tried. The paper's CIFAR-100 setting (k = 53, T = 1.4) lies on it."""

    ks: tuple[int, ...] = (1, 2, 4, 8, 14, 20, 30, 53, 80, 120)
    sigmas: tuple[float, ...] = (0.03, 0.06, 0.12, 0.25, 0.5, 1.0)
    """In units of the median distance to the tenth neighbour."""
    temperatures: tuple[float, ...] = (0.7, 1.0, 1.4, 2.0, 3.0)
    """For classification; regression has none."""
    alphas: tuple[float, ...] = (0.0, 0.1, 0.3, 1.0)
    """In units of the median sum of weights `sum_j exp(-d_j / sigma)`."""


@dataclass(frozen=True, slots=True, eq=False)
class Outputs:
    """What the base says to some rows, and what is true."""

    logits: NDArray[np.float32]
    """`[n, L]`."""
    targets: NDArray[Any]
    """int32 `[n]` class indices, or float32 `[n, L]`."""

    def part(self, rows: slice | NDArray[np.int64]) -> "Outputs":
        """Some of the rows."""
        return Outputs(self.logits[rows], self.targets[rows])


@dataclass(slots=True, eq=False)
class Trials:
    """Every setting tried on q rows, with what it scored."""

    rows: int
    settings: list[Setting] = field(default_factory=list)
    errors: list[float] = field(default_factory=list)
    """Wrong labels; 0 for regression."""
    losses: list[float] = field(default_factory=list)
    """Mean over the rows: Brier score, or squared error in units of the targets' variance."""


def score_grid(
    queries: Outputs, neighbours: Neighbours, memories: Outputs, task: Task, grid: Grid
) -> Trials:
    """Score every setting of the grid on q queries with the neighbours given.

    The neighbours `[q, K]` are found once; a smaller k uses the first k of them.
    """
    available = neighbours.rows.shape[1]
    ks = [k for k in grid.ks if k <= available] or [available]
    neighbours = Neighbours(neighbours.rows[:, : ks[-1]], neighbours.distances[:, : ks[-1]])
    unit = float(np.median(neighbours.distances[:, min(_SCALE_RANK, ks[-1]) - 1])) or 1.0
    widths = [_width(neighbours.distances, unit * sigma, ks, grid.alphas) for sigma in grid.sigmas]
    trials = Trials(len(queries.logits))
    for temperature in grid.temperatures if task == "classification" else (1.0,):
        shape = (len(widths), len(ks), len(grid.alphas))
        errors, losses = np.zeros(shape), np.zeros(shape)
        for rows in batches(trials.rows, ks[-1] * queries.logits.shape[1]):
            batch = _Batch.of(queries, neighbours, memories, task, temperature, rows)
            for at, width in enumerate(widths):
                for which, scores in enumerate(batch.scores(width, ks)):
                    wrong, loss = batch.judge(scores)
                    errors[at, :, which] += wrong
                    losses[at, :, which] += loss
        for at, width in enumerate(widths):
            for (step, which), alpha in np.ndenumerate(width.alphas):
                trials.settings.append(Setting(ks[step], width.sigma, temperature, float(alpha)))
                trials.errors.append(float(errors[at, step, which]))
                trials.losses.append(float(losses[at, step, which]) / trials.rows)
    return trials


def choose(candidates: Sequence[Trials]) -> tuple[int, Setting]:
    """Choose among the trials of several embeddings, the simplest embedding first.

    Most accurate wins, settings within the noise of the best being equals; of those the one with
    the smallest loss; and of those within half a per cent of it the simplest: no shrinkage, an
    earlier embedding, a smaller k, a temperature nearer to 1. Regression goes by loss alone.
    """
    where = np.concatenate([np.full(len(t.settings), at) for at, t in enumerate(candidates)])
    settings = [setting for trials in candidates for setting in trials.settings]
    errors = np.concatenate([trials.errors for trials in candidates])
    losses = np.concatenate([trials.losses for trials in candidates])
    rate = errors.min() / candidates[0].rows
    noise = _NOISE * np.sqrt(rate * (1 - rate) * candidates[0].rows)
    able = errors <= errors.min() + noise
    able &= losses <= losses[able].min() * (1 + _LOSS_TOLERANCE)
    _, best = min(
        (
            (
                settings[at].alpha > 0,
                where[at],
                settings[at].k,
                abs(np.log(settings[at].temperature)),
                losses[at],
            ),
            at,
        )
        for at in np.flatnonzero(able)
    )
    return int(where[best]), settings[best]


@dataclass(frozen=True, slots=True, eq=False)
class _Width:
    """One sigma, with what does not depend on the temperature."""

    sigma: float
    alphas: NDArray[np.float64]
    """`[ks, alphas]`."""
    mass: NDArray[np.float64]
    """`log sum_{j <= k} exp(-d_j / sigma)` `[q, ks]`, which may be far below 0."""


def _width(
    distances: NDArray[np.float64], sigma: float, ks: Sequence[int], alphas: Sequence[float]
) -> _Width:
    powers = np.exp((distances[:, :1] - distances) / sigma).cumsum(axis=1)
    mass = np.log(powers[:, np.array(ks) - 1]) - distances[:, :1] / sigma
    return _Width(sigma, np.outer(np.exp(np.median(mass, axis=0)), alphas), mass)


@dataclass(frozen=True, slots=True, eq=False)
class _Batch:
    """Some of the queries at one temperature."""

    task: Task
    rows: slice
    base: NDArray[np.float32]
    targets: NDArray[Any]
    distances: NDArray[np.float64]
    residuals: NDArray[np.float32]
    """`[c, K, L]`: those of the neighbours."""
    scale: NDArray[np.float32]

    @classmethod
    def of(
        cls,
        queries: Outputs,
        neighbours: Neighbours,
        memories: Outputs,
        task: Task,
        temperature: float,
        rows: slice,
    ) -> "_Batch":
        some, near = queries.part(rows), neighbours.part(rows.start, rows.stop)
        flat = memories.part(near.rows.ravel())
        table = residuals(base_prediction(flat.logits, task, temperature), flat.targets, task)
        return cls(
            task,
            rows,
            base_prediction(some.logits, task, temperature),
            some.targets,
            near.distances,
            table.reshape(*near.rows.shape, -1),
            _loss_scale(memories, task),
        )

    def scores(self, width: _Width, ks: Sequence[int]) -> Iterator[NDArray[np.float32]]:
        """Scores `[c, ks, L]` at each alpha."""
        powers = np.exp((self.distances[:, :1] - self.distances) / width.sigma)
        table = self.residuals * powers.astype(np.float32)[:, :, None]
        sums = np.add.reduceat(table, [0, *ks[:-1]], axis=1).cumsum(axis=1)
        total = powers.cumsum(axis=1)[:, np.array(ks) - 1]
        mass = width.mass[self.rows]
        for alphas in width.alphas.T:
            with np.errstate(divide="ignore"):
                share = mass - np.logaddexp(mass, np.log(alphas))
            weight = (np.exp(share) / total).astype(np.float32)
            yield self.base[:, None] + sums * weight[:, :, None]

    def judge(self, scores: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Wrong labels and summed losses `[ks]`."""
        wrong = np.zeros(scores.shape[1])
        if self.task == "classification":
            wrong += (scores.argmax(axis=2) != self.targets[:, None]).sum(axis=0)
            scores[np.arange(len(scores)), :, self.targets] -= 1
        else:
            scores -= self.targets[:, None]
            scores *= self.scale
        return wrong, np.square(scores).sum(axis=(0, 2), dtype=np.float64)


def _loss_scale(memories: Outputs, task: Task) -> NDArray[np.float32]:
    """What makes several regression outputs comparable: one over their standard deviation."""
    if task == "classification":
        return np.ones(1, np.float32)
    deviation = memories.targets.std(axis=0, dtype=np.float64)
    return np.asarray(1 / np.where(deviation > 0, deviation, 1.0), np.float32)
