"""The output tensors that a model has, and what each of them is of the predictions."""

from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from resmem_service.api.inference_protocol.datatypes import BYTES, FP32
from resmem_service.api.model_metadata import ModelMetadata
from resmem_service.inference.predictions import Predictions
from resmem_service.inference.residuals import Task

__all__ = ["LABEL", "NUMBERS", "output_names", "outputs_of"]

LABEL: Final = "label"
"""The class with the highest score, as a string; of a classification alone."""

Numbers = Callable[[Predictions], NDArray[np.float32]]
"""Predictions of n rows -> `[n, L]`."""

NUMBERS: Final[dict[Task, dict[str, Numbers]]] = {
    "classification": {
        "scores": lambda predictions: predictions.scores,
        "base": lambda predictions: predictions.base,
        "correction": lambda predictions: predictions.correction.residuals,
    },
    "regression": {
        "value": lambda predictions: predictions.scores,
        "base": lambda predictions: predictions.base,
        "correction": lambda predictions: predictions.correction.residuals,
    },
}
"""By task: the outputs of numbers, in their order. The names are those of `/predict`."""

_NAMES: Final[dict[Task, tuple[str, ...]]] = {
    "classification": (*NUMBERS["classification"], LABEL),
    "regression": tuple(NUMBERS["regression"]),
}


def output_names(task: Task) -> tuple[str, ...]:
    """Every output of a task, in the order that an answer has where none are asked for."""
    return _NAMES[task]


def outputs_of(metadata: ModelMetadata) -> list[tuple[str, str, tuple[int, ...]]]:
    """Name, datatype and shape of every output of a model; -1 is the batch axis."""
    return [
        (name, BYTES, (-1,)) if name == LABEL else (name, FP32, (-1, metadata.outputs))
        for name in output_names(metadata.task)
    ]
