"""How many rows of large requests are scored before they are learned."""

from collections.abc import Callable
from time import monotonic
from typing import Final

__all__ = ["ScoringBudget"]

_ROWS_PER_REQUEST: Final = 16
_ROWS_PER_SECOND: Final = 200.0
_MOST_SAVED: Final = 64.0


class ScoringBudget:
    """Decides how many rows of a request are scored: all of a small one, a sample of others.

    To search for a row takes many times what it takes to learn it, and nobody needs more than some
    hundred losses a second to see whether the memory helps.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._saved = _MOST_SAVED
        self._looked = clock()

    def step(self, rows: int) -> int:
        """Returns n where every n-th row of a request is to be scored; 1 for up to 16 rows."""
        if rows <= _ROWS_PER_REQUEST:
            return 1
        now = self._clock()
        earned = (now - self._looked) * _ROWS_PER_SECOND
        self._saved = min(_MOST_SAVED, self._saved + earned)
        self._looked = now
        step = -(-rows // max(1, min(_ROWS_PER_REQUEST, int(self._saved))))
        self._saved = max(0.0, self._saved - rows / step)
        return step
