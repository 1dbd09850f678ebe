"""Predictions for rows: base, correction, scores, and the state of the memory they used."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from resmem_service.memory.search.soft_knn import Correction

__all__ = ["Predictions"]


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """Predictions for n rows."""

    base: NDArray[np.float32]
    """`[n, L]`: `base(x)`."""
    scores: NDArray[np.float32]
    """`[n, L]`: `base(x) + correction(x)`; not clipped, they may leave [0, 1]."""
    embeddings: NDArray[np.float32]
    """`[n, d]`: `phi(x)`."""
    correction: Correction
    memory_size: int
    """Memories there were when the first of the rows was corrected."""
    revision: int
    """Revision of the memory then; no row was corrected from an older one."""

    def __len__(self) -> int:
        return len(self.base)

    def slice(self, start: int, stop: int) -> Self:
        """Return the predictions of rows `start` up to, not including, `stop`; a view."""
        correction = self.correction
        return type(self)(
            base=self.base[start:stop],
            scores=self.scores[start:stop],
            embeddings=self.embeddings[start:stop],
            correction=Correction(
                residuals=correction.residuals[start:stop],
                sequences=correction.sequences[start:stop],
                distances=correction.distances[start:stop],
                weights=correction.weights[start:stop],
            ),
            memory_size=self.memory_size,
            revision=self.revision,
        )

    @classmethod
    def concatenate(cls, parts: Sequence[Self]) -> Self:
        """Join the predictions of one request's parts, at least one, in order."""
        if len(parts) == 1:
            return parts[0]
        corrections = [part.correction for part in parts]
        return cls(
            base=np.concatenate([part.base for part in parts]),
            scores=np.concatenate([part.scores for part in parts]),
            embeddings=np.concatenate([part.embeddings for part in parts]),
            correction=Correction(
                residuals=np.concatenate([one.residuals for one in corrections]),
                sequences=np.concatenate([one.sequences for one in corrections]),
                distances=np.concatenate([one.distances for one in corrections]),
                weights=np.concatenate([one.weights for one in corrections]),
            ),
            memory_size=parts[0].memory_size,
            revision=parts[0].revision,
        )
