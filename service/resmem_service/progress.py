"""What a person sees while a command works: lines, and a bar for what takes long."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Final, Protocol

from resmem_service.printable import printable
from resmem_service.runtime import installed
from resmem_service.telemetry.logs import LogFormat

__all__ = ["Logged", "Progress", "Silent", "Terminal", "progress_for"]

Advance = Callable[[int], None]

_LINE_S: Final = 10.0

_log = logging.getLogger(__name__)


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
        self._write(printable(line))

    @contextmanager
    def bar(self, label: str, total: int, *, unit: str = "rows") -> Iterator[Advance]:
        """Draw a bar with the rate and the time that is left, or write a line now and then."""
        if not installed("tqdm") or not sys.stderr.isatty():
            yield _Lines(label, total, unit, self._write).advance
            return
        from tqdm import tqdm

        with tqdm(total=total, desc=label, unit=f" {unit}", unit_scale=True) as bar:
            self._write = partial(tqdm.write, file=sys.stderr)
            try:
                yield bar.update
            finally:
                self._write = _write_line


class Logged:
    """Writes to the log, for whoever reads nothing else, whatever its level."""

    def __init__(self) -> None:
        _log.setLevel(logging.INFO)

    def say(self, line: str) -> None:
        """Log the line."""
        _log.info("%s", line)

    @contextmanager
    def bar(self, label: str, total: int, *, unit: str = "rows") -> Iterator[Advance]:
        """Log a line now and then."""
        yield _Lines(label, total, unit, self.say).advance


def progress_for(log_format: LogFormat) -> Progress:
    """What tells the user of a command how far it has come, given the setting `log_format`."""
    return Logged() if log_format == "json" else Terminal()


class _Lines:
    """A bar for a log: a line every ten seconds."""

    def __init__(self, label: str, total: int, unit: str, write: Callable[[str], object]) -> None:
        self._label, self._total, self._unit = label, total, unit
        self._write = write
        self._done = 0
        self._said = time.monotonic()

    def advance(self, rows: int) -> None:
        self._done += rows
        now = time.monotonic()
        if now - self._said >= _LINE_S:
            self._said = now
            self._write(f"{self._label}: {self._done} of {self._total} {self._unit}")


def _write_line(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
