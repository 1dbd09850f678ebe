"""Progressive validation: each memorized row is scored as it was predicted before it was learned.

Source: Blum, Kalai and Langford, "Beating the hold-out: bounds for k-fold and progressive
cross-validation", COLT 1999.
"""

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from resmem_service.inference.observer import OnlineScores
from resmem_service.inference.residuals import Task

__all__ = ["LEAST_PROBABILITY", "online_scores"]

LEAST_PROBABILITY: Final = 1e-6
"""Scores may leave [0, 1]; below this they count as this, a loss of 13.8."""


def online_scores(
    base: NDArray[np.float32], scores: NDArray[np.float32], targets: NDArray[Any], task: Task
) -> OnlineScores:
    """Losses and errors of base and ResMem, summed over the rows; see `OnlineScores`.

    `base` and `scores` are `[n, L]`; `targets` are class indices `[n]`, or numbers `[n, L]` for
    regression.
    """
    measure = _classification if task == "classification" else _regression
    base_loss, base_errors = measure(base, targets)
    resmem_loss, resmem_errors = measure(scores, targets)
    return OnlineScores(len(targets), base_loss, resmem_loss, base_errors, resmem_errors)


def _classification(scores: NDArray[np.float32], targets: NDArray[Any]) -> tuple[float, int]:
    true = scores[np.arange(len(targets)), targets].astype(np.float64)
    loss = -np.log(np.clip(true, LEAST_PROBABILITY, 1.0)).sum()
    return float(loss), int((scores.argmax(axis=1) != targets).sum())


def _regression(values: NDArray[np.float32], targets: NDArray[Any]) -> tuple[float, int]:
    errors = values.astype(np.float64) - targets
    return float((errors**2).mean(axis=1).sum()), 0
