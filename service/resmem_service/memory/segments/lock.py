"""The lock on the segments of a state: of all processes that serve it, one builds and removes."""

import errno
import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

from resmem_service.memory.faults import is_shortage

__all__ = ["try_lock", "wait_for_lock"]

_POLL_S: Final = 0.05
_NOT_FOR_FOLDERS: Final = {errno.EBADF, errno.EINVAL, errno.ENOLCK, errno.ENOTSUP, errno.EISDIR}


@contextmanager
def try_lock(path: Path) -> Iterator[int | None]:
    """Holds the lock inside the block; None where another process has it.

    It locks the file, `segments.lock`, and the folder beside it, `segments`, which is
    made where it is missing: whoever removes the file while it is locked lets no second process in.

    The value is a file descriptor. A child that inherits it shares the lock, which ends when its
    last holder does, kill -9 included.
    """
    with ExitStack() as opened:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        opened.callback(os.close, file)
        folder = _open_folder(path.with_suffix(""))
        if folder is not None:
            opened.callback(os.close, folder)
        yield _locked(file, folder)


def _open_folder(path: Path) -> int | None:
    """The descriptor of the folder; None where it cannot be there: the file has to do."""
    try:
        path.mkdir(exist_ok=True)
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        if is_shortage(error):
            raise
        return None


def _locked(file: int, folder: int | None) -> int | None:
    """The descriptor that carries the lock; None where either is locked by another process."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if folder is None:
            return file
        fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return None
    except OSError as error:
        # Network file systems lock no folder.
        if error.errno not in _NOT_FOR_FOLDERS:
            raise
        return file
    return folder


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
