"""Memories as the rows of a segment: residuals are coded batch by batch and wait in a file."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from resmem_service.fit.base_pass import Represented
from resmem_service.fit.batches import batches
from resmem_service.fit.scratch import Scratch
from resmem_service.fit.transform import AffineMap
from resmem_service.inference.residuals import Task, base_prediction, residuals
from resmem_service.memory.rows import SegmentRows
from resmem_service.memory.search.codec import ResidualCodec

__all__ = ["encode_rows", "largest_residual"]


def encode_rows(
    parts: Sequence[Represented],
    task: Task,
    temperature: float,
    transform: AffineMap,
    codec: ResidualCodec,
    scratch: Scratch,
) -> SegmentRows:
    """The memories of all parts in their order, as fitted rows: sequence -1 - row, weight 1.

    Raises:
        OSError: the disk refused.
    """
    codes = (codec.encode(some) for some in _residuals(parts, task, temperature))
    table: NDArray[Any] = scratch.keep(codes)
    return SegmentRows(
        embeddings=np.concatenate([transform.apply(part.embeddings) for part in parts]),
        residuals=table,
        targets=np.concatenate([part.outputs.targets for part in parts]),
        sequences=-1 - np.arange(len(table), dtype=np.int64),
        weights=np.ones(len(table), np.float32),
    )


def largest_residual(parts: Sequence[Represented], task: Task) -> float:
    """The largest absolute residual of any memory; of probabilities it is at most 1."""
    if task == "classification":
        return 1.0
    return max(float(np.abs(some).max()) for some in _residuals(parts, task, 1.0))


def _residuals(
    parts: Sequence[Represented], task: Task, temperature: float
) -> Iterator[NDArray[np.float32]]:
    for part in parts:
        for rows in batches(len(part), part.outputs.logits.shape[1]):
            some = part.outputs.part(rows)
            base = base_prediction(some.logits, task, temperature)
            yield residuals(base, some.targets, task)
