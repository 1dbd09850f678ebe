"""Memory that large bodies took goes back to the operating system when they are gone."""

import ctypes
import os
from typing import Final

__all__ = ["return_large_blocks"]

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_LARGE_BLOCK_BYTES: Final = 2**20
_KEPT_BYTES: Final = 8 * 2**20


def return_large_blocks() -> bool:
    """Has the C library map each block of 1 MiB or more by itself, and unmap it when it is freed.

    By default glibc does so until the first such block is freed, then up to 32 MiB no more: after
    some large bodies it keeps 100 MB for each thread that has seen one. Variables of the
    environment that set these thresholds (`MALLOC_MMAP_THRESHOLD_`, `MALLOC_TRIM_THRESHOLD_`) have
    precedence. False: this C library has no such thresholds.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is None:
        return False
    done = 1
    for variable, option, value in (
        ("MALLOC_MMAP_THRESHOLD_", _M_MMAP_THRESHOLD, _LARGE_BLOCK_BYTES),
        ("MALLOC_TRIM_THRESHOLD_", _M_TRIM_THRESHOLD, _KEPT_BYTES),
    ):
        if not os.environ.get(variable):
            done = done and set_option(option, value)
    return bool(done)
