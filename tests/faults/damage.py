"""Ways to damage a file."""

import shutil
from pathlib import Path


def flip(path: Path, at: int, bit: int = 0) -> None:
    """Turns one bit round, in place."""
    with path.open("r+b") as file:
        file.seek(at)
        (value,) = file.read(1)
        file.seek(at)
        file.write(bytes([value ^ 1 << bit]))


def copy_of(folder: Path, name: str) -> Path:
    """A copy beside it; one that is there goes first."""
    target = folder.with_name(name)
    shutil.rmtree(target, ignore_errors=True)
    return Path(shutil.copytree(folder, target))
