"""A file without a name in which a process leaves the stacks of its threads when it dies or hangs.

The supervisor makes it, the worker inherits it: what `faulthandler` writes there in a signal
handler, with the event loop stuck or the interpreter lock held, is read once the worker is gone.
"""

import faulthandler
import os
import signal
from typing import Final

from resmem_service.telemetry.metric_storage import anonymous_file

__all__ = ["StackDump", "write_stacks_to"]

_ASK: Final = signal.SIGUSR1
_MOST_BYTES: Final = 65_536


class StackDump:
    """The supervisor's end."""

    def __init__(self) -> None:
        self.descriptor = anonymous_file("resmem-stacks")

    def ask(self, pid: int) -> None:
        """Has the process write its stacks; it goes on, if it can."""
        os.kill(pid, _ASK)

    def read(self) -> str:
        """What was written, and closes the file."""
        try:
            return os.pread(self.descriptor, _MOST_BYTES, 0).decode(errors="replace")
        finally:
            os.close(self.descriptor)


def write_stacks_to(descriptor: int) -> None:
    """The worker's end: its stacks go there on a fatal signal, and when it is asked for them."""
    faulthandler.enable(descriptor)
    faulthandler.register(_ASK, descriptor)
