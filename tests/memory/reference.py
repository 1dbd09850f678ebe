"""The formula of the paper and its two extensions in float64, written without the kernel."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def soft_knn(
    query: Floats,
    embeddings: Floats,
    residuals: Floats,
    importance: Floats,
    *,
    k: int,
    sigma: float,
    alpha: float,
) -> tuple[NDArray[np.int64], Floats, Floats]:
    """Neighbours (nearest first, of equal ones the last row first), weights, correction."""
    distances = np.sqrt(((embeddings - query) ** 2).sum(axis=1))
    order = np.lexsort((-np.arange(len(distances)), distances))[:k]
    weights = weigh(distances[order], importance[order], sigma=sigma, alpha=alpha)
    return order, weights, weights @ residuals[order]


def weigh(distances: Floats, importance: Floats, *, sigma: float, alpha: float) -> Floats:
    """w_i = m_i e_i / (alpha + sum_j m_j e_j), through logarithms so that nothing underflows."""
    if len(distances) == 0:
        return np.zeros(0)
    logs = np.log(importance) - distances / sigma
    terms = [*logs, np.log(alpha)] if alpha > 0 else list(logs)
    highest = max(terms)
    total = highest + np.log(sum(np.exp(term - highest) for term in terms))
    weights: Floats = np.exp(logs - total)
    return weights
