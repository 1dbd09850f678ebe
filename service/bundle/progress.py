"""What a person sees while `resmem fit` works: lines, and a bar for what takes long."""

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from importlib.util import find_spec
from typing import Protocol

__all__ = ["Progress", "Silent", "Terminal"]

Advance = Callable[[int], None]


class Progress(Protocol):
    """Told what happens."""

    def say(self, line: str) -> None:
        """One line for a person to read."""

    def bar(self, label: str, total: int) -> AbstractContextManager[Advance]:
        """A bar of `total` rows; what it yields moves it by so many rows."""


class Silent:
    """Tells nobody."""

    def say(self, line: str) -> None:
        """Drop the line."""

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Advance]:  # noqa: ARG002 - the protocol's
        """Draw nothing."""
        yield lambda _: None


class Terminal:
    """Writes to standard error; bars only where that is a terminal and tqdm is installed."""

    def say(self, line: str) -> None:
        """Write the line."""
        sys.stderr.write(line + "\n")
        sys.stderr.flush()

    @contextmanager
    def bar(self, label: str, total: int) -> Iterator[Advance]:
        """Draw a bar with the rate and the time that is left."""
        if find_spec("tqdm") is None:
            yield lambda _: None
            return
        from tqdm import tqdm

        # disable=None: nothing where standard error is a file.
        with tqdm(total=total, desc=label, unit=" rows", unit_scale=True, disable=None) as bar:
            yield bar.update
