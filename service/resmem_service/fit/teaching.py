"""The recommended teaching weight: how much importance makes one correction count at once.

A person who corrects the service wants the next answer to the same row to be right. Let a memory of
that row, at distance 0 and with importance m, push the farthest of the k neighbours out. With
`e_j = exp(-d_j / sigma)` over the other k - 1, `D = alpha + sum_j m_j e_j`, and `score` what they
alone would give (weights `m_j e_j / D`), the new score is, since the taught residual is
`onehot(y) - base`,

    score'_c = (D score_c + m [c = y]) / (D + m)

so y wins over c exactly if `m > D (score_c - score_y)`. For regression the remaining error is
`D / (D + m)` times theirs, and a tenth of it remains at `m = 9 D`.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from resmem_service.fit.batches import batches
from resmem_service.fit.neighbours import Neighbours
from resmem_service.fit.scores import votes
from resmem_service.fit.tuning import Outputs, Setting
from resmem_service.inference.residuals import Task, base_prediction, residuals

__all__ = ["recommended_weight", "required_weights"]

_QUANTILE: Final = 0.99
_MARGIN: Final = 1.2
_REMAINING: Final = 0.1
"""Share of a regression's error that may remain at the taught row."""


def required_weights(
    queries: Outputs, neighbours: Neighbours, memories: Outputs, task: Task, setting: Setting
) -> NDArray[np.float64]:
    """Importance `[q]` that a taught memory of each query must exceed; `neighbours` without it.

    For regression, the importance that leaves a tenth of the error.
    """
    others = setting.k - 1
    near = Neighbours(neighbours.rows[:, :others], neighbours.distances[:, :others])
    mass: NDArray[np.float64] = np.exp(-near.distances / setting.sigma).sum(axis=1)
    mass += setting.alpha
    if task == "regression":
        mass *= 1 / _REMAINING - 1
        return mass
    for rows in batches(len(mass), max(1, others) * queries.logits.shape[1]):
        some = queries.part(rows)
        mass[rows] *= _lead(some, near.part(rows.start, rows.stop), memories, setting)
    return mass


def _lead(
    queries: Outputs, near: Neighbours, memories: Outputs, setting: Setting
) -> NDArray[np.float32]:
    """`score_c - score_y` `[q]` of the strongest other class c; 0 where y leads."""
    base = base_prediction(queries.logits, "classification", setting.temperature)
    flat = memories.part(near.rows.ravel())
    table = residuals(
        base_prediction(flat.logits, "classification", setting.temperature),
        flat.targets,
        "classification",
    ).reshape(*near.rows.shape, base.shape[1])
    scores = base + np.einsum("qk,qkl->ql", votes(near, setting), table)
    at = np.arange(len(scores))
    own = scores[at, queries.targets]
    scores[at, queries.targets] = -np.inf
    lead: NDArray[np.float32] = np.maximum(scores.max(axis=1) - own, 0.0)
    return lead


def recommended_weight(required: NDArray[np.float64]) -> float:
    """The importance that suffices for 99 of 100 of the wrong answers `[n]`, with a margin.

    Rounded up to two significant digits; never below 1, the importance of any other memory.
    """
    if not len(required):
        return 1.0
    weight = _MARGIN * float(np.quantile(required, _QUANTILE))
    if weight <= 1:
        return 1.0
    unit = 10.0 ** (np.floor(np.log10(weight)) - 1)
    return float(round(np.ceil(weight / unit) * unit, 6))
