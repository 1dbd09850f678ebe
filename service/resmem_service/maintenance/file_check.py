"""One file held against what a manifest says of it."""

from pathlib import Path

from resmem_service.bundle.manifest import FileEntry
from resmem_service.durable import sha256_of

__all__ = ["fault_in"]


def fault_in(file: Path, entry: FileEntry) -> str | None:
    """What is wrong with a file, naming it; None for nothing. Reads all of it."""
    try:
        if not file.is_file():
            return f"{file} is missing"
        size = file.stat().st_size
        if size != entry.bytes:
            return f"{file} has {size} bytes instead of {entry.bytes}"
        if sha256_of(file) != entry.sha256:
            return f"{file} differs from its checksum"
    except OSError as error:
        return f"{file} cannot be read: {error.strerror}"
    return None
