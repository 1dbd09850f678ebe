"""The write-ahead log beside a journal: damage in it that SQLite passes over in silence.

When SQLite opens a log that a killed process left, it takes the frames up to the first one whose
checksum fails; what was committed after that is gone without a word. A torn end is normal: it was
never acknowledged. But every commit is synced before the next transaction begins, so a bad frame
with a commit and more behind it is damage.

Format: 32 bytes of header, then frames of 24 bytes and a page. Source: sqlite.org/fileformat2.html,
section 4.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

__all__ = ["damage_in"]

_HEADER: Final = struct.Struct(">8I")
_FRAME_HEADER_BYTES: Final = 24
_MAGIC: Final = 0x377F0682
_READINGS: Final = 3
_FRAMES_AT_ONCE: Final = 2048

_Sums = NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class _Frames:
    """What is to know of every frame of a log, one array element each."""

    ours: NDArray[np.bool_]
    """False for those of an earlier round, which SQLite writes over from the start of the file."""
    good: NDArray[np.bool_]
    """The checksum fits."""
    commits: NDArray[np.bool_]
    """The last of its transaction."""


def damage_in(path: Path) -> str | None:
    """What is wrong with a log, in words; None for one that is whole, empty or missing.

    A process may write to it meanwhile: what looks like damage must look so again.
    """
    found = None
    for _ in range(_READINGS):
        try:
            with path.open("rb") as file:
                again = _damage(file)
        except FileNotFoundError:
            return None
        if again is None or again == found:
            return again
        found = again
    return None


def _damage(file: BinaryIO) -> str | None:
    header = file.read(_HEADER.size)
    if len(header) < _HEADER.size or not header.strip(b"\0"):
        return None
    magic, _, page_bytes, _, salt1, salt2, *sums = _HEADER.unpack(header)
    order = ">" if magic & 1 else "<"
    words = np.frombuffer(header[:24], f"{order}u4").reshape(1, -1)
    last = np.array([sums], np.uint32)
    if magic & ~1 != _MAGIC or (_checksums(np.zeros_like(last), words) != last).any():
        return "its header is damaged, and SQLite takes nothing of it"
    parts = list(_read_frames(file, page_bytes, (salt1, salt2), last, order))
    if not parts:
        return None
    ours, good, commits = (
        np.concatenate([getattr(part, name) for part in parts]) for name in _Frames.__slots__
    )
    bad = int(np.argmin(good)) if not good.all() else len(good)
    behind = np.flatnonzero(ours[bad + 1 :]) + bad + 1
    ends = behind[commits[behind]]
    if len(behind) == 0 or not (commits[bad] or (len(ends) > 0 and ends[0] < behind[-1])):
        return None
    return f"frame {bad + 1} is damaged, and SQLite takes none of the {len(behind)} behind it"


def _read_frames(
    file: BinaryIO, page_bytes: int, salts: tuple[int, int], last: _Sums, order: str
) -> Iterator[_Frames]:
    size = _FRAME_HEADER_BYTES + page_bytes
    while count := len(block := file.read(size * _FRAMES_AT_ONCE)) // size:
        frames = np.frombuffer(block, np.uint8, count * size).reshape(count, size)
        headers = np.ascontiguousarray(frames[:, :_FRAME_HEADER_BYTES]).view(">u4")
        stored = headers[:, 4:6].astype(np.uint32)
        # Each sum goes on from the one before, which is in the file: all can be done at once.
        before = np.concatenate([last, stored[:-1]])
        words = np.concatenate([frames[:, :8], frames[:, _FRAME_HEADER_BYTES:]], axis=1)
        fits = (_checksums(before, words.view(f"{order}u4")) == stored).all(axis=1)
        ours = (headers[:, 2:4] == np.array(salts)).all(axis=1)
        yield _Frames(ours=ours, good=ours & fits, commits=headers[:, 1] > 0)
        last = stored[-1:]


def _checksums(start: _Sums, words: NDArray[np.unsignedinteger]) -> _Sums:
    """SQLite's checksums of n runs of words, `start` being `[n, 2]` and `words` `[n, even]`."""
    sums = start.copy()
    for column in range(0, words.shape[1], 2):
        sums[:, 0] += words[:, column].astype(np.uint32) + sums[:, 1]
        sums[:, 1] += words[:, column + 1].astype(np.uint32) + sums[:, 0]
    return sums
