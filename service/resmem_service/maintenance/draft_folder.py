"""A folder in the making: hidden beside the place it is for, and gone again unless published."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from resmem_service.errors import BundleError

__all__ = ["draft_folder"]


@contextmanager
def draft_folder(final: Path) -> Iterator[Path]:
    """An empty folder to fill and to rename to `final`; what a killed process left of one goes.

    Raises:
        BundleError: another process is making the same one, or there is no place for it.
    """
    draft = final.with_name(f".{final.name}.partial")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        draft.mkdir(exist_ok=True)
        descriptor = os.open(draft, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        raise BundleError(f"cannot write beside {final}: {error.strerror}") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BundleError(f"{draft}: another process is at work on it") from None
        for path in draft.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        try:
            yield draft
        finally:
            # Once published, another process may have begun one of the same name.
            if draft.exists() and draft.stat().st_ino == os.fstat(descriptor).st_ino:
                shutil.rmtree(draft, ignore_errors=True)
    finally:
        os.close(descriptor)
