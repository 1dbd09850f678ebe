"""Refuses a request before it is decoded where the queue has no room for it.

Decoding costs nearly as much as serving: a server that decodes what it then refuses has no time
left for what it accepted.
"""

from typing import Final, Protocol

__all__ = ["Admission"]

_DECAY: Final = 0.99


class _Queue(Protocol):
    def check_room(self, rows: int) -> None:
        """Raises QueueFull where the queue has no room for this many rows."""


class Admission:
    """Estimates the rows of one endpoint's requests from the sizes of their bodies."""

    def __init__(self) -> None:
        self._row_bytes = 0.0

    def check(self, body: bytes, queue: _Queue) -> None:
        """Lets a body pass if the queue may have room for it; the estimate is rather too low.

        Raises:
            QueueFull: even the fewest rows that the body is likely to hold are too many now.
        """
        queue.check_room(max(1, int(len(body) / self._row_bytes)) if self._row_bytes else 1)

    def note(self, body: bytes, rows: int) -> None:
        """Notes the size of a request that was decoded; the largest recent rows count."""
        self._row_bytes = max(len(body) / rows, _DECAY * self._row_bytes)
