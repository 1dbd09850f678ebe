"""The lock on the segments of a state: of all processes that serve it, one builds and removes."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["try_lock", "wait_for_lock"]

_POLL_S = 0.05


@contextmanager
def try_lock(path: Path) -> Iterator[int | None]:
    """Holds the lock inside the block; None where another process has it.

    The value is a file descriptor. A child that inherits it shares the lock, which ends when its
    last holder does, kill -9 included.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield None
        else:
            yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def wait_for_lock(path: Path, *, seconds: float) -> Iterator[int | None]:
    """As `try_lock`, but waits for the other holder; None where it took longer than `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        with try_lock(path) as descriptor:
            if descriptor is not None or time.monotonic() >= deadline:
                yield descriptor
                return
        time.sleep(_POLL_S)
