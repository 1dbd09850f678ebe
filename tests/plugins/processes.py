"""The processes of a run of the tests, from `/proc`.

A process belongs to a run when it descends from the one that runs pytest, or has inherited its mark
from the environment: the second holds after those between the two have ended.
"""

import os
import signal
import time
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Final

__all__ = ["MARK", "command_of", "kill", "living", "parents", "processes_of", "wait_for_end"]

MARK: Final = "PYTEST_RUN_MARK"
"""The environment variable that tells the processes of one run from those of another."""
_PROC: Final = Path("/proc")
_ENDED: Final = "ZX"


def living() -> set[int]:
    """The ids of all processes of the machine."""
    return {int(name) for name in os.listdir(_PROC) if name.isdigit()}  # noqa: PTH208


def parents(processes: Collection[int]) -> dict[int, int]:
    """The parent of each process that has not ended."""
    found = {}
    for process in processes:
        with suppress(OSError):
            state, parent = (_PROC / f"{process}/stat").read_text().rpartition(")")[2].split()[:2]
            if state not in _ENDED:
                found[process] = int(parent)
    return found


def processes_of(run: int, mark: str, candidates: Collection[int]) -> dict[int, int]:
    """Those of some processes that belong to a run, with their parents; never pytest itself.

    Args:
        run: the process that runs pytest.
        mark: what it has put into its environment.
        candidates: what to look at.
    """
    found = {}
    ancestors = parents(living())
    for process in candidates:
        if process == run or process not in ancestors:
            continue
        above = ancestors[process]
        while above not in (0, 1, run):
            above = ancestors.get(above, 0)
        if above == run or _is_marked(process, mark):
            found[process] = ancestors[process]
    return found


def command_of(process: int) -> str:
    """Its command line, empty where it has ended."""
    try:
        words = (_PROC / f"{process}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except OSError:
        return ""
    return b" ".join(words).decode(errors="replace")


def wait_for_end(processes: Collection[int], seconds: float) -> set[int]:
    """Gives those that still live after this time, as soon as there are none."""
    deadline = time.monotonic() + seconds
    while (left := parents(processes).keys()) and time.monotonic() < deadline:
        time.sleep(0.02)
    return set(left)


def kill(processes: Collection[int]) -> None:
    """Ends them at once."""
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def _is_marked(process: int, mark: str) -> bool:
    try:
        environment = (_PROC / f"{process}/environ").read_bytes()
    except OSError:  # it has ended, or is of another user
        return False
    return f"{MARK}={mark}".encode() in environment
