"""The rows of a segment, as arrays: read from the journal, copied to RAM, built into files."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from resmem_service.memory.search.codec import FLOAT32, ResidualCodec

__all__ = ["MemoryShape", "SegmentRows", "Targets"]

Targets = NDArray[np.int32] | NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class MemoryShape:
    """The sizes that every memory of one model shares."""

    dim: int
    """d: length of an embedding."""
    width: int
    """L: length of a residual."""
    task: Literal["classification", "regression"]
    codec: ResidualCodec = FLOAT32
    """How residuals are stored."""


@dataclass(frozen=True, slots=True)
class SegmentRows:
    """n rows, n at least 1.

    Raises:
        ValueError: the arrays disagree in length, hold no row, or an embedding is not finite
            (hnswlib accepts NaN, and its graph is then ruined for every other row).
    """

    embeddings: NDArray[np.float32]
    """`[n, d]`."""
    residuals: NDArray[Any]
    """`[n, ...]`: residuals as the codec of the model stores them; float32 `[n, L]` by default."""
    targets: Targets
    """Class indexes int32 `[n]`, or float32 `[n, L]` for regression."""
    sequences: NDArray[np.int64]
    """`[n]`, sorted."""
    weights: NDArray[np.float32]
    """`[n]`: importance."""

    def __post_init__(self) -> None:
        n = len(self.embeddings)
        if n == 0 or any(len(getattr(self, field.name)) != n for field in fields(self)):
            raise ValueError("a segment needs rows, and as many in each array")
        if not np.isfinite(self.embeddings).all():
            raise ValueError("an embedding is not finite")

    def __len__(self) -> int:
        return len(self.sequences)

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Joins parts, at least one, in their order."""
        return cls(
            *(
                np.concatenate([getattr(part, field.name) for part in parts])
                for field in fields(cls)
            )
        )
