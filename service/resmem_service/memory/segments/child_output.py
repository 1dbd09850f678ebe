"""Waits for a child process and keeps the end of what it writes, however much that is."""

import os
import selectors
import subprocess
import time
from typing import Final, NamedTuple

__all__ = ["Ending", "wait_for_end"]

_KEPT_BYTES: Final = 8192
_CHUNK_BYTES: Final = 65536
_LOOK_S: Final = 1.0
"""How often the process is looked at while its pipes are silent: a grandchild may hold them."""


class Ending(NamedTuple):
    """How a process ended."""

    status: int
    """Its exit status, or the signal's number below 0."""
    output: str
    """The last kilobytes of its standard output."""
    errors: str
    """The last kilobytes of its standard error."""
    timed_out: bool
    """Whether it was killed because its time was over."""


def wait_for_end(process: "subprocess.Popen[bytes]", seconds: float) -> Ending:
    """Reads both pipes of a process until it has ended, side by side.

    Read one after the other, a process that fills the second pipe (64 KB) before it closes the
    first would wait for ever. Memory is bounded: of each pipe the last 8 KB are kept.

    Args:
        process: started with pipes for stdout and stderr.
        seconds: killed if it has not ended by then.
    """
    deadline = time.monotonic() + seconds
    timed_out = False
    kept: dict[int, bytes] = {}
    with selectors.DefaultSelector() as selector:
        pipes = [pipe for pipe in (process.stdout, process.stderr) if pipe is not None]
        for pipe in pipes:
            kept[pipe.fileno()] = b""
            selector.register(pipe, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(_LOOK_S)
            for key, _ in ready:
                chunk = os.read(key.fd, _CHUNK_BYTES)
                kept[key.fd] = (kept[key.fd] + chunk)[-_KEPT_BYTES:]
                if not chunk:
                    selector.unregister(key.fileobj)
            if not timed_out and time.monotonic() >= deadline:
                timed_out = True
                process.kill()
            if not ready and process.poll() is not None:
                break
    try:
        status = process.wait(max(0.0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        timed_out = True
        process.kill()
        status = process.wait()
    output, errors = (kept[pipe.fileno()].decode(errors="replace") for pipe in pipes)
    return Ending(status, output, errors, timed_out)
