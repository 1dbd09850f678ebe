"""What the memory tells whoever watches it; telemetry implements this, the memory imports none."""

from typing import Protocol

__all__ = ["MemoryObserver", "SilentMemoryObserver"]


class MemoryObserver(Protocol):
    """Called from the memory's own threads, after the fact; must not raise or block."""

    def on_commit(self, seconds: float) -> None:
        """One journal transaction took this long."""

    def on_memorized(self, *, created: int, replaced: int, unchanged: int) -> None:
        """One append request was committed."""

    def on_forgotten(self, rows: int) -> None:
        """This many memories were forgotten."""

    def on_sealed(self, seconds: float, rows: int) -> None:
        """A segment of this many rows was built and published."""

    def on_seal_failed(self) -> None:
        """A segment could not be built or published; the rows stay where they are."""


class SilentMemoryObserver:
    """The observer of a memory that nobody watches."""

    def on_commit(self, seconds: float) -> None:
        """Ignores it."""

    def on_memorized(self, *, created: int, replaced: int, unchanged: int) -> None:
        """Ignores it."""

    def on_forgotten(self, rows: int) -> None:
        """Ignores it."""

    def on_sealed(self, seconds: float, rows: int) -> None:
        """Ignores it."""

    def on_seal_failed(self) -> None:
        """Ignores it."""
