"""Files that survive power loss: synced before they are named, and named in one step."""

import hashlib
import os
from pathlib import Path
from typing import Final

__all__ = [
    "make_folder",
    "publish_folder",
    "sha256_of",
    "sha256_of_open",
    "sync",
    "write_atomically",
]

_READ_BYTES: Final = 1 << 18


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_of_open(descriptor: int) -> str:
    """The SHA-256, in hex, of the whole of a file that is open; where it is read from stays."""
    digest, buffer, offset = hashlib.sha256(), bytearray(_READ_BYTES), 0
    view = memoryview(buffer)
    while count := os.preadv(descriptor, [buffer], offset):
        digest.update(view[:count])
        offset += count
    return digest.hexdigest()


def sync(path: Path) -> None:
    """Flushes a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(path: Path) -> None:
    """Makes a folder and its parents where they are missing."""
    if not path.is_dir():
        path.mkdir(parents=True, exist_ok=True)
        sync(path.parent)


def write_atomically(path: Path, content: bytes) -> None:
    """Replaces `path` by `content`: whoever reads it sees the old content or the new, whole."""
    temporary = path.with_name(f".{path.name}.new")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync(path.parent)


def publish_folder(temporary: Path, final: Path) -> None:
    """Syncs every file of `temporary` and renames it to `final`, which must not exist.

    Raises:
        FileExistsError: `final` is there already.
    """
    if final.exists():
        raise FileExistsError(f"{final} exists already")
    for folder, _, names in os.walk(temporary):
        for name in names:
            sync(Path(folder) / name)
        sync(Path(folder))
    temporary.rename(final)
    sync(final.parent)
