"""A process beside pytest that outlives it: `python -m tests.plugins.watchdog PYTEST MARK`.

On its standard input it is told what pytest does and how many seconds that may take. When the time
is over, which the limits of the tests themselves have not prevented, pytest hangs where no signal
handler of Python runs: in compiled code, while it collects, or at the end of the interpreter. It is
sent SIGABRT, upon which it prints the stacks of all threads and ends. However pytest ends, what it
has left running is killed.
"""

import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Final

from tests.plugins.processes import command_of, kill, living, processes_of, wait_for_end

__all__ = ["Dog"]

_GRACE_S: Final = 5.0


class Dog:
    """The end of the pipe that pytest holds.

    Args:
        descriptor: what its messages are written to.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def allow(self, seconds: float, what: str) -> None:
        """From now on this may take so long; 0 seconds are no limit."""
        with suppress(BrokenPipeError):  # somebody has killed it: the tests go on
            os.write(self._descriptor, f"{seconds} {what}\n".encode())


def _watch(run: int) -> None:
    """Returns when pytest has ended, by itself or since its time was over."""
    deadline, doing = 0.0, ""
    try:
        ended = os.pidfd_open(run)
    except ProcessLookupError:
        return
    open_ends = [0, ended]
    while True:
        left = max(0.0, deadline - time.monotonic()) if deadline else None
        ready, _, _ = select.select(open_ends, [], [], left)
        if ended in ready:
            return
        if 0 in ready:
            told = os.read(0, 65536).decode()
            if not told:
                open_ends.remove(0)
                continue
            seconds, _, doing = told.splitlines()[-1].partition(" ")
            deadline = time.monotonic() + float(seconds) if float(seconds) else 0.0
        elif not ready:  # the time is over
            _say(f"pytest hangs and is ended: {doing}")
            for end in (signal.SIGABRT, signal.SIGKILL):
                with suppress(ProcessLookupError):
                    os.kill(run, end)
                if select.select([ended], [], [], _GRACE_S)[0]:
                    return


def _left_by(run: int, mark: str) -> Iterator[int]:
    """What a run that has ended has left, and does not end by itself in a few seconds."""
    for _ in range(10):  # what is killed may just have started another one
        left = wait_for_end(processes_of(run, mark, living() - {os.getpid()}), _GRACE_S)
        if not left:
            return
        yield from left


def _say(line: str) -> None:
    sys.stderr.write(f"tests: {line}\n")
    sys.stderr.flush()


def main(run: int, mark: str) -> None:
    """Watches one run of pytest from its beginning to its end."""
    _watch(run)
    for process in _left_by(run, mark):
        _say(f"killed what the tests have left: {process} {command_of(process)}")
        kill([process])


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
