"""Cursors: where a page of memories ends, in text that clients hand back as they got it.

A cursor holds a sequence number, which no replacing, forgetting or adding of memories ever moves.
An id says where its memory is now: at the end once it was replaced, nowhere once it was forgotten.
"""

import base64
import binascii
import struct
import zlib
from typing import Final

__all__ = ["cursor_of", "sequence_in"]

_MARK: Final = "~"
_SEQUENCE: Final = struct.Struct(">q")
_CHECKED: Final = struct.Struct(">qI")


def cursor_of(sequence: int) -> str:
    """The cursor behind the memory of a sequence."""
    checksum = zlib.crc32(_SEQUENCE.pack(sequence))
    return _MARK + base64.urlsafe_b64encode(_CHECKED.pack(sequence, checksum)).decode()


def sequence_in(text: str) -> int | None:
    """The sequence in a cursor; None for what is none, such as an id."""
    if not text.startswith(_MARK) or not text.isascii():
        return None
    try:
        sequence, _ = _CHECKED.unpack(base64.urlsafe_b64decode(text[len(_MARK) :]))
    except (binascii.Error, struct.error):
        return None
    return int(sequence) if cursor_of(sequence) == text else None
