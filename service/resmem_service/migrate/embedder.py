"""Stored memories embedded by another base model, and those of them that it does not take."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Final

import numpy as np
from numpy.typing import NDArray

from resmem_service.bundle.manifest import Manifest
from resmem_service.errors import CorruptFile, InvalidInput
from resmem_service.inference.base_model import BaseModel
from resmem_service.inference.residuals import base_prediction, residuals
from resmem_service.memory.journal.journal import Memories, StoredMemory
from resmem_service.memory.journal.sqlite.takeover import Arrivals
from resmem_service.memory.rows import MemoryShape
from resmem_service.migrate.translation import Translation

__all__ = ["Embedded", "Embedder"]


@dataclass(frozen=True, slots=True)
class Embedded:
    """A batch, sorted out."""

    arrivals: list[Arrivals]
    """What fits, in its old order; neighbours of one source together."""
    unfit: list[tuple[StoredMemory, str]]
    """What does not, and why."""


@dataclass(slots=True)
class _Columns:
    """Of n memories; rows that do not fit are filled in with nothing."""

    inputs: list[bytes]
    targets: NDArray[np.int32] | NDArray[np.float32]
    embeddings: NDArray[np.float32]
    residuals: NDArray[np.float32]


class Embedder:
    """Runs memories of one version of a model through another.

    Args:
        model: the new base model, warmed up: what it then refuses is the row's fault.
        manifest: of the new version.
        translation: from the old version to the new one.
    """

    def __init__(self, model: BaseModel, manifest: Manifest, translation: Translation) -> None:
        self._model = model
        self._manifest = manifest
        self._shape: Final[MemoryShape] = manifest.memory_shape()
        self._translation = translation

    def embed(self, batch: Sequence[StoredMemory]) -> Embedded:
        """Embeddings and residuals of a batch, at least one memory.

        Raises:
            NotReady: the model fails on every row.
        """
        n, shape = len(batch), self._shape
        targets = (
            np.zeros(n, np.int32)
            if shape.task == "classification"
            else np.zeros((n, shape.width), np.float32)
        )
        columns = _Columns(
            inputs=[b""] * n,
            targets=targets,
            embeddings=np.zeros((n, shape.dim), np.float32),
            residuals=np.zeros((n, shape.width), np.float32),
        )
        reasons: dict[int, str] = {}
        by_size: dict[int, list[int]] = {}
        # Rows of different shapes cannot run together.
        for index, memory in enumerate(batch):
            by_size.setdefault(len(memory.input), []).append(index)
        for indices in by_size.values():
            self._fill(columns, batch, indices, reasons)
        fit = [index for index in range(n) if index not in reasons]
        return Embedded(
            arrivals=[
                _arrivals(columns, batch, list(indices))
                for _, indices in groupby(fit, lambda index: batch[index].record.source)
            ],
            unfit=[(batch[index], reasons[index]) for index in sorted(reasons)],
        )

    def _fill(
        self,
        columns: _Columns,
        batch: Sequence[StoredMemory],
        indices: list[int],
        reasons: dict[int, str],
    ) -> None:
        """Computes some rows; by bisection, those at fault are found and the others kept."""
        try:
            self._compute(columns, [batch[index] for index in indices], indices)
        except (InvalidInput, CorruptFile) as error:
            if len(indices) == 1:
                reasons[indices[0]] = error.message
                return
            middle = len(indices) // 2
            self._fill(columns, batch, indices[:middle], reasons)
            self._fill(columns, batch, indices[middle:], reasons)

    def _compute(
        self, columns: _Columns, memories: Sequence[StoredMemory], indices: list[int]
    ) -> None:
        rows = self._translation.rows([memory.input for memory in memories])
        targets = self._translation.targets([memory.record for memory in memories])
        output = self._model.run(rows)
        if not (np.isfinite(output.logits).all() and np.isfinite(output.embeddings).all()):
            raise InvalidInput("the model answers it with NaN or infinity", "inputs")
        manifest, shape = self._manifest, self._shape
        base = base_prediction(output.logits, manifest.task, manifest.parameters.temperature)
        remaining = residuals(base, targets, manifest.task)
        try:
            shape.codec.encode(remaining)
        except ValueError as error:
            raise InvalidInput(str(error), "targets") from error
        for index, encoded in zip(indices, rows.encode(), strict=True):
            columns.inputs[index] = encoded
        columns.targets[indices] = targets
        columns.embeddings[indices] = output.embeddings
        columns.residuals[indices] = remaining


def _arrivals(columns: _Columns, batch: Sequence[StoredMemory], indices: Sequence[int]) -> Arrivals:
    records = [batch[index].record for index in indices]
    memories = Memories(
        ids=[record.id for record in records],
        inputs=[columns.inputs[index] for index in indices],
        targets=columns.targets[list(indices)],
        embeddings=columns.embeddings[list(indices)],
        residuals=columns.residuals[list(indices)],
        weights=np.array([record.weight for record in records]),
        source=records[0].source,
        created_ms=[record.created_ms or 0 for record in records],
    )
    return Arrivals(memories, records)
