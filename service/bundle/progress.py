"""What a person sees while a command works: lines, and a bar for what takes long."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from importlib.util import find_spec
from typing import Final, Protocol

__all__ = ["Progress", "Silent", "Terminal"]

Advance = Callable[[int], None]

_LINE_S: Final = 10.0


class Progress(Protocol):
    """Told what happens."""

    def say(self, line: str) -> None:
        """One line for a person to read."""

    def bar(self, label: str, total: int, *, unit: str = "rows") -> AbstractContextManager[Advance]:
        """A bar of `total` rows, or another unit; what it yields moves it by so many."""


class Silent:
    """Tells nobody."""

    def say(self, line: str) -> None:
        """Drop the line."""

    @contextmanager
    def bar(self, label: str, total: int, *, unit: str = "rows") -> Iterator[Advance]:  # noqa: ARG002
        """Draw nothing."""
        yield lambda _: None


class Terminal:
    """Writes to standard error: bars where that is a terminal and tqdm is installed, else lines."""

    def __init__(self) -> None:
        self._write: Callable[[str], object] = _write_line

    def say(self, line: str) -> None:
        """Write the line, above a bar that stands there."""
        self._write(line)

    @contextmanager
    def bar(self, label: str, total: int, *, unit: str = "rows") -> Iterator[Advance]:
        """Draw a bar with the rate and the time that is left, or write a line now and then."""
        if find_spec("tqdm") is None or not sys.stderr.isatty():
            yield _Lines(label, total, unit).advance
            return
        from tqdm import tqdm

        with tqdm(total=total, desc=label, unit=f" {unit}", unit_scale=True) as bar:
            self._write = partial(tqdm.write, file=sys.stderr)
            try:
                yield bar.update
            finally:
                self._write = _write_line


class _Lines:
    """A bar for a log: a line every ten seconds."""

    def __init__(self, label: str, total: int, unit: str) -> None:
        self._label, self._total, self._unit = label, total, unit
        self._done = 0
        self._said = time.monotonic()

    def advance(self, rows: int) -> None:
        self._done += rows
        now = time.monotonic()
        if now - self._said >= _LINE_S:
            self._said = now
            _write_line(f"{self._label}: {self._done} of {self._total} {self._unit}")


def _write_line(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
