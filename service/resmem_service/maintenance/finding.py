"""One thing that a check found, in words for the person who has to act."""

from dataclasses import dataclass
from typing import Literal

__all__ = ["Finding", "Level"]

Level = Literal["ok", "note", "fault"]


@dataclass(frozen=True, slots=True)
class Finding:
    """A line of `resmem verify`."""

    level: Level
    """`note`: worth knowing, nothing is lost or served wrong."""
    subject: str
    """What was looked at: a few words."""
    detail: str
    """What was found there; for a fault, what is wrong, with the file."""
    advice: str | None = None
    """For a fault: what is safe all the same, and what to do."""
