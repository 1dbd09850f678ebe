"""A bound on the memory of a process and of all below it, by a cgroup where this system lets us."""

import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import psutil

__all__ = ["MemoryLimit", "tree_memory_mb"]

_V2: Final = Path("/sys/fs/cgroup")
_V1: Final = Path("/sys/fs/cgroup/memory")


class MemoryLimit:
    """Use it in a `with`; the group is gone afterwards.

    Args:
        megabytes: the bound. What is beyond it is killed by the kernel.
    """

    def __init__(self, megabytes: int) -> None:
        self._bytes = megabytes * 2**20
        self._group: Path | None = None
        self.kind = "none: this system lets us make no cgroup, memory is only watched"

    def __enter__(self) -> Self:
        name = f"resmem-{uuid.uuid4().hex[:8]}"
        for root, file, kind in (
            (_V2, "memory.max", "cgroup v2"),
            (_V1, "memory.limit_in_bytes", "cgroup v1"),
        ):
            group = root / name
            try:
                if not (root / "cgroup.procs").exists():  # a folder like any other
                    continue
                group.mkdir()
            except OSError:
                continue
            try:
                with (group / file).open("r+") as bound:  # which is there where there is memory
                    bound.write(str(self._bytes))
            except OSError:
                group.rmdir()
                continue
            self._group, self.kind = group, kind
            break
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._group is not None:
            with suppress(OSError):  # something in it still ends
                self._group.rmdir()

    def command(self, command: Sequence[str]) -> list[str]:
        """The same command, run under the bound from its first instruction on."""
        if self._group is None:
            return list(command)
        into = 'echo $$ >"$0" && exec "$@"'
        return ["sh", "-c", into, str(self._group / "cgroup.procs"), *command]

    def kills(self) -> int:
        """How many processes the kernel has killed for want of memory."""
        if self._group is None:
            return 0
        for name in ("memory.events", "memory.oom_control"):
            with suppress(OSError):
                words = dict(line.split() for line in (self._group / name).read_text().splitlines())
                return int(words.get("oom_kill", 0))
        return 0


def tree_memory_mb(root: int) -> float:
    """The proportional set size of a process and of all below it, pages of files included."""
    kilobytes = 0
    with suppress(psutil.Error):
        process = psutil.Process(root)
        for one in (process, *process.children(recursive=True)):
            with suppress(OSError):
                rollup = Path(f"/proc/{one.pid}/smaps_rollup").read_text()
                kilobytes += next(
                    int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")
                )
    return kilobytes / 1024
