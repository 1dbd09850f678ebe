"""What inference tells whoever watches it; telemetry implements this, inference imports none."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["InferenceObserver", "OnlineScores", "SilentInferenceObserver", "Stage"]

Stage = Literal["base", "search", "combine"]


@dataclass(frozen=True, slots=True)
class OnlineScores:
    """How well n rows were predicted before they were learned (progressive validation).

    Loss of a row: classification `-log(p)` of its true class, `p` clipped to [1e-6, 1] since scores
    may leave [0, 1]; regression the squared error, averaged over the outputs. Error of a row: its
    label is wrong; regression has none.
    """

    rows: int
    base_loss: float
    """Sum over the rows, as all that follow."""
    resmem_loss: float
    base_errors: int
    resmem_errors: int


class InferenceObserver(Protocol):
    """Called after the fact, from the batch thread or the event loop; must not raise or block."""

    def on_batch(self, rows: int, waits: Sequence[float]) -> None:
        """A batch of this many rows begins; its new requests waited these seconds."""

    def on_stage(self, stage: Stage, seconds: float) -> None:
        """One stage of one batch took this long."""

    def on_corrections(self, nearest: NDArray[np.float64], magnitudes: NDArray[np.float32]) -> None:
        """Distances to the nearest memory `[n]`, infinite if none, and L2 norms `[n]`."""

    def on_learned(self, scores: OnlineScores) -> None:
        """Rows were predicted, then learned."""


class SilentInferenceObserver:
    """The observer of a predictor that nobody watches."""

    def on_batch(self, rows: int, waits: Sequence[float]) -> None:
        """Ignores it."""

    def on_stage(self, stage: Stage, seconds: float) -> None:
        """Ignores it."""

    def on_corrections(self, nearest: NDArray[np.float64], magnitudes: NDArray[np.float32]) -> None:
        """Ignores it."""

    def on_learned(self, scores: OnlineScores) -> None:
        """Ignores it."""
