"""The body of an answer to `/predict`: arrays go to the encoder as they are, in one pass."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import orjson
from numpy.typing import NDArray

from resmem_service.api.memory_body import target_of
from resmem_service.api.model_metadata import ModelMetadata
from resmem_service.api.ranking import best_class, best_classes
from resmem_service.inference.predictions import Predictions
from resmem_service.inference.residuals import Task
from resmem_service.memory.journal.journal import MemoryRecord
from resmem_service.memory.memory import ResidualMemory
from resmem_service.memory.search.soft_knn import Correction

__all__ = ["FIELDS", "Neighbour", "Selection", "encode_predictions", "nearest_memories"]

FIELDS: Final[dict[Task, tuple[str, ...]]] = {
    "classification": ("label", "scores", "base", "correction"),
    "regression": ("value", "base", "correction"),
}

Column = tuple[str, Iterable[object]]
"""A key of each prediction, and its value for each row."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The parts of the predictions that a request asks for."""

    fields: frozenset[str]
    neighbours: int = 0
    top: int | None = None
    """Only this many of the best classes; None for all of them, in the model's order."""


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A memory that took part in a prediction."""

    record: MemoryRecord
    distance: float
    weight: float


async def nearest_memories(
    correction: Correction, memory: ResidualMemory, count: int
) -> list[list[Neighbour]]:
    """For each row its `count` nearest memories, nearest first.

    A row has fewer where there are fewer memories or fewer than `count` take part; one that was
    forgotten in the meantime is left out. The journal is read in another thread.
    """
    wanted = correction.sequences[:, :count].tolist()
    distances = correction.distances[:, :count].tolist()
    weights = correction.weights[:, :count].tolist()
    flat = list({sequence for row in wanted for sequence in row if sequence})
    records = await asyncio.to_thread(memory.records.describe, flat)
    known = dict(zip(flat, records, strict=True))
    result = []
    for row in zip(wanted, distances, weights, strict=True):
        found = []
        for sequence, distance, weight in zip(*row, strict=True):
            record = known.get(sequence)
            if record is not None:
                found.append(Neighbour(record, distance, weight))
        result.append(found)
    return result


def encode_predictions(
    predictions: Predictions,
    neighbours: Sequence[Sequence[Neighbour]] | None,
    selection: Selection,
    metadata: ModelMetadata,
) -> bytes:
    """The JSON body for n rows; `neighbours` has one entry for each of them, or is None."""
    columns = _COLUMNS[metadata.task](predictions, selection, metadata)
    if neighbours is not None:
        columns.append(("neighbours", [_neighbours(each, metadata) for each in neighbours]))
    rows: list[dict[str, object]] = [{} for _ in range(len(predictions))]
    for key, values in columns:
        for row, value in zip(rows, values, strict=True):
            row[key] = value
    return orjson.dumps(
        {
            "model": {"name": metadata.name, "version": metadata.version},
            "memory": {
                "size": predictions.memory_size,
                "revision": predictions.revision,
                "used": predictions.memory_size > 0,
            },
            "predictions": rows,
        },
        option=orjson.OPT_SERIALIZE_NUMPY,
    )


def _classification(
    predictions: Predictions, selection: Selection, metadata: ModelMetadata
) -> list[Column]:
    fields, labels = selection.fields, metadata.labels
    scores, base = predictions.scores, predictions.base
    residuals = predictions.correction.residuals
    columns: list[Column] = []
    if "label" in fields:
        columns.append(("label", _best_labels(scores, labels)))
    if selection.top is not None:
        rows = zip(scores, base, residuals, strict=True)
        columns.append(("top", [_top(row, selection.top, fields, labels) for row in rows]))
        return columns
    if "scores" in fields:
        columns.append(("scores", scores))
    if "base" in fields:
        pairs = zip(_best_labels(base, labels), base, strict=True)
        columns.append(("base", [{"label": label, "scores": row} for label, row in pairs]))
    if "correction" in fields:
        columns.append(("correction", residuals))
    return columns


def _regression(
    predictions: Predictions, selection: Selection, metadata: ModelMetadata
) -> list[Column]:
    values = (predictions.scores, predictions.base, predictions.correction.residuals)
    return [
        (key, array[:, 0] if metadata.outputs == 1 else array)
        for key, array in zip(FIELDS["regression"], values, strict=True)
        if key in selection.fields
    ]


_COLUMNS: Final = {"classification": _classification, "regression": _regression}


def _best_labels(scores: NDArray[np.float32], labels: Sequence[str]) -> list[str]:
    return [labels[index] for index in best_class(scores)]


def _top(
    row: tuple[NDArray[np.float32], ...], top: int, fields: frozenset[str], labels: Sequence[str]
) -> list[dict[str, Any]]:
    """The best classes of one row, the best first."""
    scores, base, correction = row
    order = best_classes(scores, top)
    columns: list[Column] = [("label", [labels[index] for index in order.tolist()])]
    for field, key, values in (
        ("scores", "score", scores),
        ("base", "base", base),
        ("correction", "correction", correction),
    ):
        if field in fields:
            columns.append((key, values[order]))
    keys = [key for key, _ in columns]
    return [
        dict(zip(keys, entry, strict=True))
        for entry in zip(*(values for _, values in columns), strict=True)
    ]


def _neighbours(row: Sequence[Neighbour], metadata: ModelMetadata) -> list[dict[str, Any]]:
    return [
        {
            "id": neighbour.record.id,
            "distance": neighbour.distance,
            "weight": neighbour.weight,
            "target": target_of(neighbour.record, metadata),
            "source": neighbour.record.source,
        }
        for neighbour in row
    ]
