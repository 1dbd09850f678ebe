"""A body in chunks (RFC 9112, section 7.1): what has arrived in, pieces of the body out.

Chunk extensions and trailers are read over. They cost no memory, and together with the framing
itself no more bytes than a head may have, plus eight for each byte of the body: as much as chunks
of a single byte need.
"""

import re
from enum import Enum, auto
from typing import Final

from resmem_service.api.content_coding import body_too_large
from resmem_service.errors import HeadTooLarge, MalformedRequest

__all__ = ["ChunkedBody"]

_SIZE_LINE: Final = re.compile(rb"([0-9a-fA-F]{1,15})[ \t]*(?:;[\t\x20-\x7e\x80-\xff]*)?")
_PLAIN_SIZE: Final = re.compile(rb"([0-9a-fA-F]{1,15})\r\n")
_TRAILER: Final = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*")
_FRAMING_PER_BYTE: Final = 8


class _Expected(Enum):
    SIZE = auto()
    DATA = auto()
    LINE_END = auto()
    TRAILER = auto()
    NOTHING = auto()


class ChunkedBody:
    """One body, fed as it arrives."""

    __slots__ = ("_allowed", "_expected", "_limit", "_line", "_remaining", "_room")

    def __init__(self, max_framing_bytes: int, max_body_bytes: int) -> None:
        self._expected = _Expected.SIZE
        self._line = b""
        self._remaining = 0
        self._allowed = max_framing_bytes
        self._limit = self._room = max_body_bytes

    @property
    def complete(self) -> bool:
        """Whether the last chunk and the trailers have been read."""
        return self._expected is _Expected.NOTHING

    def feed(self, data: bytes) -> tuple[list[bytes], int]:
        """The pieces of the body in what has arrived, and how many bytes of it belong to the body.

        All of it does, unless the body is complete with it.

        Raises:
            MalformedRequest: it is not in chunks.
            HeadTooLarge: there is too much around the chunks.
            BodyTooLarge: so much was announced that the body is over its limit.
        """
        pieces: list[bytes] = []
        at, end = self._take_whole(data, 0, pieces), len(data)
        while at < end and self._expected is not _Expected.NOTHING:
            if self._expected is _Expected.DATA:
                piece = data[at : at + self._remaining]
                pieces.append(piece)
                at += len(piece)
                self._remaining -= len(piece)
                self._allowed += _FRAMING_PER_BYTE * len(piece)
                if not self._remaining:
                    self._expected = _Expected.LINE_END
                continue
            line_end = data.find(b"\n", at) + 1
            stop = line_end or end
            self._allowed -= stop - at
            if self._allowed < 0:
                raise HeadTooLarge("there are too many bytes around the chunks of the body")
            self._line += data[at:stop]
            at = stop
            if line_end:
                line, self._line = self._line, b""
                if not line.endswith(b"\r\n"):
                    raise MalformedRequest("a line between the chunks does not end with CRLF")
                self._take_line(line[:-2])
                at = self._take_whole(data, at, pieces)
        return pieces, at

    def _take_whole(self, data: bytes, at: int, pieces: list[bytes]) -> int:
        """Takes the chunks that are there from end to end, and returns the place behind them.

        Most are, and this costs a third of taking them line by line, which matters where each
        chunk has a single byte. It leaves alone whatever is not plain: extensions, the last chunk,
        what is wrong and what is over a limit.
        """
        if self._expected is not _Expected.SIZE or self._line:
            return at
        match_size = _PLAIN_SIZE.match
        while match := match_size(data, at):
            size, begin = int(match[1], 16), match.end()
            stop = begin + size
            allowed = self._allowed + at - begin - 2
            if not size or size > self._room or allowed < 0 or data[stop : stop + 2] != b"\r\n":
                break
            pieces.append(data[begin:stop])
            self._allowed = allowed + _FRAMING_PER_BYTE * size
            self._room -= size
            at = stop + 2
        return at

    def _take_line(self, line: bytes) -> None:
        if self._expected is _Expected.SIZE:
            match = _SIZE_LINE.fullmatch(line)
            if match is None:
                raise MalformedRequest("a chunk does not begin with its size in hexadecimal")
            self._remaining = int(match[1], 16)
            self._room -= self._remaining
            if self._room < 0:
                raise body_too_large(self._limit)
            self._expected = _Expected.DATA if self._remaining else _Expected.TRAILER
        elif self._expected is _Expected.LINE_END:
            if line:
                raise MalformedRequest("a chunk is longer than the size that it begins with")
            self._expected = _Expected.SIZE
        elif not line:
            self._expected = _Expected.NOTHING
        elif _TRAILER.fullmatch(line) is None:
            raise MalformedRequest("a line after the last chunk is not a header")
