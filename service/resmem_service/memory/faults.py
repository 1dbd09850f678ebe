"""What is wrong with a memory that goes on all the same: reasons for `/readyz` and for alerts."""

import errno
from typing import Final, NamedTuple

__all__ = ["Fault", "is_shortage"]

_SHORTAGES: Final = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN}


class Fault(NamedTuple):
    """One thing that is wrong now.

    Attributes:
        reason: a short name that stays the same from version to version.
        message: what it is and what comes of it, in a sentence that names no path and no memory's
            id, since `/readyz` needs no key.
        fatal: True where predictions fail.
    """

    reason: str
    message: str
    fatal: bool = False


def is_shortage(error: BaseException) -> bool:
    """Whether descriptors or memory ran out: nothing is damaged, and later it may work."""
    return isinstance(error, MemoryError) or (
        isinstance(error, OSError) and error.errno in _SHORTAGES
    )
