"""One place in a file of memories: a line of JSON Lines, a row of Parquet."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

__all__ = ["Entry", "EntryReader", "EntryWriter"]


@dataclass(frozen=True, slots=True)
class Entry:
    """What stands there."""

    number: int
    """Line or row, counted from 1."""
    size: int
    """How far it moves the progress, in the reader's unit."""
    value: object
    """As a JSON decoder leaves it; an exception where it cannot be read."""


class EntryReader(Protocol):
    """A file that is read from its beginning; iterate once."""

    total: int
    unit: str
    """Of the progress."""
    noun: str
    """What an entry is called: `line` or `row`."""

    def __iter__(self) -> Iterator[Entry]:
        """The entries in their order."""


class EntryWriter(Protocol):
    """A file that is written from its beginning."""

    def write(self, values: list[dict[str, object]]) -> None:
        """Adds objects, whose arrays may be numpy's."""

    def close(self) -> None:
        """Ends the file; not synced."""
