"""The formula of ResMem once more: float64, loops, from the paper and not from our code."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from resmem_service.fit.tuning import Outputs, Setting

Vector = NDArray[np.float64]

__all__ = ["base_of", "correction_of", "residual_of", "score_of"]


def base_of(outputs: Outputs, row: int, setting: Setting) -> Vector:
    z: Vector = outputs.logits[row].astype(np.float64)
    if outputs.targets.ndim == 2:
        return z
    powers = np.exp(z / setting.temperature - (z / setting.temperature).max())
    return np.asarray(powers / powers.sum())


def residual_of(outputs: Outputs, row: int, setting: Setting) -> Vector:
    base = base_of(outputs, row, setting)
    target = outputs.targets[row]
    if outputs.targets.ndim == 1:
        return np.asarray(np.eye(len(base))[target] - base)
    return np.asarray(target.astype(np.float64) - base)


def correction_of(
    residuals: Sequence[Vector],
    distances: Sequence[float],
    importances: Sequence[float],
    setting: Setting,
) -> Vector:
    masses = [
        importance * math.exp(-distance / setting.sigma)
        for distance, importance in zip(distances, importances, strict=True)
    ]
    weights = [mass / (setting.alpha + sum(masses)) for mass in masses]
    return np.asarray(sum(w * r for w, r in zip(weights, residuals, strict=True)))


def score_of(
    queries: Outputs,
    row: int,
    memories: Outputs,
    near: Sequence[int],
    distances: Sequence[float],
    setting: Setting,
) -> Vector:
    residuals = [residual_of(memories, memory, setting) for memory in near[: setting.k]]
    ones = [1.0] * len(residuals)
    correction = correction_of(residuals, distances[: setting.k], ones, setting)
    return np.asarray(base_of(queries, row, setting) + correction)
