"""The processes below a process, from `/proc`."""

from collections import defaultdict
from pathlib import Path

__all__ = ["descendants", "running"]


def descendants(root: int) -> dict[int, str]:
    """The command line of each process below one, by its id; the oldest generation first."""
    children: dict[int, list[int]] = defaultdict(list)
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                stat = (folder / "stat").read_text()
            except OSError:  # it has ended meanwhile
                continue
            children[int(stat.rpartition(")")[2].split()[1])].append(int(folder.name))
    found: dict[int, str] = {}
    generation = [root]
    while generation:
        generation = [child for parent in generation for child in children[parent]]
        found |= {child: _command(child) for child in generation}
    return found


def running(root: int, module: str) -> list[int]:
    """The processes below one that run a Python module."""
    return [process for process, command in descendants(root).items() if module in command]


def _command(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""
