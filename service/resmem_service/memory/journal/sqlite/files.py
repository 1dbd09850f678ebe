"""Whether the names of a journal's files still lead to the files that are open.

A file that was removed, replaced or cut can be written to as before by whoever has it open, and all
of it is gone once that process ends. So no commit may be acknowledged that went into such a file.

The database itself is never opened here: closing it would end the locks that SQLite holds on it in
this process (sqlite.org/howtocorrupt.html, section 2.2). Its log bears no locks.
"""

import os
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Final, NamedTuple

from resmem_service.errors import JournalUnavailable

__all__ = ["JournalFiles"]

_SUFFIXES: Final = ("", "-wal", "-shm")
_LOG_HEADER_BYTES: Final = 32
_MAGIC: Final = 0x377F0682
_LOOKS: Final = 3
_BETWEEN_LOOKS_S: Final = 0.05
_READ_HEADER: Final = "import sys; sys.stdout.buffer.write(open(sys.argv[1], 'rb').read(100))"


class _Identity(NamedTuple):
    device: int
    inode: int


class JournalFiles:
    """The database, its log and the log's index, as they were when the database was opened.

    Args:
        path: of the database.
    """

    def __init__(self, path: Path) -> None:
        self._paths = {suffix: path.with_name(path.name + suffix) for suffix in _SUFFIXES}
        self._known: dict[str, _Identity] = {}
        self._sizes: dict[str, int] = {}
        self._salts: bytes | None = None
        for suffix in _SUFFIXES:
            self._look(suffix)

    def check(self) -> None:
        """To be called before a commit, and after it before it is acknowledged.

        Raises:
            JournalUnavailable: a file was removed, replaced or cut; the message names it.
        """
        for suffix in _SUFFIXES:
            self._look(suffix)

    def check_log(self) -> None:
        """To be called after a commit: whether its log begins as a log does.

        Raises:
            JournalUnavailable: it does not, so that what was committed is lost on the next start.
        """
        log = self._paths["-wal"]
        header = _header(log)
        if not header:  # a checkpoint has just emptied it
            return
        if len(header) < _LOG_HEADER_BYTES or int.from_bytes(header[:4], "big") & ~1 != _MAGIC:
            raise _cut(log)
        self._salts = header[16:24]

    def _look(self, suffix: str) -> None:
        path = self._paths[suffix]
        try:
            found = path.stat()
        except OSError as error:
            if suffix in self._known:
                raise JournalUnavailable(
                    f"{path}: {error.strerror}; it was removed while the journal is open. Put it "
                    "back as it was, or restart with a restored backup"
                ) from error
            return  # the log and its index appear with the first reading
        identity = _Identity(found.st_dev, found.st_ino)
        if self._known.setdefault(suffix, identity) != identity:
            raise JournalUnavailable(
                f"{path} is no longer the file that is open: it was replaced. Put back the one "
                "that was there, or restart to go on with the new one"
            )
        if found.st_size < self._sizes.get(suffix, 0) and self._was_cut(suffix, found.st_size):
            raise _cut(path)
        self._sizes[suffix] = found.st_size

    def _was_cut(self, suffix: str, size: int) -> bool:
        """Whether a file is shorter than SQLite would have made it: compaction does so as well."""
        path = self._paths[suffix]
        if suffix == "-wal":
            # Cut to nothing by a checkpoint, and begun again with other salts.
            return size > 0 and self._salts is not None and _header(path)[16:24] == self._salts
        if suffix == "-shm" or size == 0:
            return True
        for _ in range(_LOOKS):
            if path.stat().st_size >= _bytes_due(path):
                return False
            time.sleep(_BETWEEN_LOOKS_S)  # a checkpoint may be writing it
        return True


def _header(path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return b""
    try:
        return os.read(descriptor, _LOG_HEADER_BYTES)
    finally:
        os.close(descriptor)


def _bytes_due(path: Path) -> int:
    """What the header of a database says of its size; read by a process that holds no locks."""
    command = [sys.executable, "-I", "-S", "-c", _READ_HEADER, str(path)]
    header = subprocess.run(command, capture_output=True, check=False, timeout=30).stdout  # noqa: S603
    if len(header) < 100:
        return sys.maxsize
    (page_bytes,) = struct.unpack_from(">H", header, 16)
    (pages,) = struct.unpack_from(">I", header, 28)
    return int(pages) * (65536 if page_bytes == 1 else int(page_bytes))


def _cut(path: Path) -> JournalUnavailable:
    return JournalUnavailable(
        f"{path} was cut while the journal is open; restart with a restored backup, or repair it "
        "with `resmem repair`"
    )
