"""Refuses on sight what the queue would refuse once it was decoded.

Decoding costs nearly as much as serving: a server that decodes what it then refuses has no time
left for what it accepted.
"""

from typing import Final, Protocol

__all__ = ["Admission"]

_DECAY: Final = 0.99


class _Queue(Protocol):
    def check_room(self, rows: int) -> None:
        """Raises QueueFull where there is no room for so many rows."""


class Admission:
    """Guesses a request's rows from the size of its body; for one endpoint."""

    def __init__(self) -> None:
        self._row_bytes = 0.0

    def check(self, body: bytes, queue: _Queue) -> None:
        """Passes what the queue may have room for; a guess errs on the side of too few rows.

        Raises:
            QueueFull: even the fewest rows that the body is likely to hold are too many now.
        """
        queue.check_room(max(1, int(len(body) / self._row_bytes)) if self._row_bytes else 1)

    def note(self, body: bytes, rows: int) -> None:
        """Learns from a request that was decoded: the largest rows of late count."""
        self._row_bytes = max(len(body) / rows, _DECAY * self._row_bytes)
