"""The SQLite library that keeps the journals: APSW's own, refused where it can lose commits.

SQLite 3.7.0 to 3.51.2 can lose committed pages when one connection resets the write-ahead log
while another one writes ("the WAL-reset bug", https://sqlite.org/wal.html#walresetbug): the shape
of several workers on one journal. No module imports `sqlite3` beside this: POSIX locks belong to a
process, and of two SQLite libraries in one process, each ends the locks of the other on a file.
"""

from typing import Final

import apsw

from resmem_service.errors import UnsafeLibrary

__all__ = ["check_library", "is_affected", "library_version"]

_FIRST_AFFECTED: Final = (3, 7, 0)
_FIRST_FIXED: Final = (3, 51, 3)
_BACKPORTS: Final[dict[tuple[int, ...], int]] = {(3, 44): 6, (3, 50): 7}
"""The first patch release with the fix of older branches that have one."""


def library_version() -> str:
    """The version of the SQLite library that is loaded, such as "3.51.3"."""
    return apsw.sqlite_lib_version()


def is_affected(version: str) -> bool:
    """Whether a version of SQLite can lose committed pages; one that cannot be read counts so."""
    try:
        numbers = tuple(int(part) for part in version.split("."))
    except ValueError:
        return True
    if not _FIRST_AFFECTED <= numbers < _FIRST_FIXED:
        return False
    fixed = _BACKPORTS.get(numbers[:2])
    return fixed is None or numbers < (*numbers[:2], fixed)


def check_library() -> None:
    """Makes sure that the SQLite library is safe to write a journal with.

    Raises:
        UnsafeLibrary: it is affected; the message names its version and what to install.
    """
    version = library_version()
    if is_affected(version):
        raise UnsafeLibrary(
            f"SQLite {version} can lose memories that were committed "
            "(https://sqlite.org/wal.html#walresetbug), and APSW "
            f"{apsw.apsw_version()} brings or loads it: run `pip install -U apsw`, or install "
            "SQLite 3.51.3, 3.50.7 or 3.44.6, or a later release of these, for an APSW that was "
            "built against the system's library"
        )
