"""When a server that is told to stop does what: one timetable for the whole stop.

    told      not ready any more; requests are taken and answered as before
    halfway   every answer closes its connection, so that clients that keep one open move elsewhere
    delay     no new connections; what is under way is answered, idle connections get a moment
    drain     what is not answered by now never will be

Closing an idle connection can always meet a request that is on its way, which then fails. So idle
connections are closed last, when a proxy that looks at readiness has long gone elsewhere, and a
request that still comes on one is answered.
"""

from typing import Final

__all__ = ["STOP_GRACE_S", "StopTimetable"]

STOP_GRACE_S: Final = 5.0
"""What a server may take to end, the journal and its processes, beyond the time for requests."""
_IDLE_S: Final = 1.0
"""For idle connections, after the last request was taken on a new one."""


class StopTimetable:
    """All times on the clock that gave `now`."""

    def __init__(self, now: float, *, delay_s: float, drain_s: float) -> None:
        self._close_at = now + delay_s / 2
        self._refuse_at = now + delay_s
        self._idle_until = self._refuse_at + min(_IDLE_S, drain_s)
        self._deadline = self._refuse_at + drain_s

    def closes_connections(self, now: float) -> bool:
        """Whether every answer is to close its connection."""
        return now >= self._close_at

    def refuses_connections(self, now: float) -> bool:
        """Whether no connection is to be accepted any more."""
        return now >= self._refuse_at

    def is_over(self, now: float, *, in_flight: int, connections: int) -> bool:
        """Whether to wait no longer, with so many requests and connections."""
        if now >= self._deadline:
            return True
        if in_flight or now < self._refuse_at:
            return False
        return not connections or now >= self._idle_until

    def left_s(self, now: float) -> float:
        """Seconds until the last request must be answered."""
        return max(0.0, self._deadline - now)
