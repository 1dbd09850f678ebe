"""Compressed bodies: `Content-Encoding` of requests, `Accept-Encoding` for answers.

`gzip` and `deflate` always, `zstd` where the extra of that name is installed. The limit of a body
is that of what comes out of it: no more than that is ever unpacked, and every step of it is counted
as memory in flight. What is quickly done is done where it is, the rest in another thread, since
zlib and zstd give up the GIL, and only for as long as the beginning looks like a body that could be
answered.

An answer is compressed for a client that names exactly one coding. Most HTTP libraries list all
that they know with every request and mean no wish by it, and compressing costs more time than a
fast network saves.
"""

import asyncio
import zlib
from collections.abc import Callable, Iterable
from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from resmem_service.api.large_bodies import LargeBodies
from resmem_service.errors import BodyTooLarge, MalformedBody, UnsupportedEncoding
from resmem_service.excerpt import excerpt

if TYPE_CHECKING:
    from typing_extensions import Buffer
else:
    Buffer = object

__all__ = ["CODINGS", "body_too_large", "compress", "expand", "wished_coding"]

_WORTH: Final = 1024
"""Bytes below which an answer stays as it is: it fits a packet or two either way."""
_QUICK: Final = 2**16
"""Bytes that are compressed or expanded in less than a millisecond."""
_STEP: Final = 2**20
"""Bytes that are made before they are counted and their limit is looked at."""
_INPUT: Final = 2**18
_FAST: Final = 1
_GZIP: Final = zlib.MAX_WBITS | 16
_ZLIB: Final = zlib.MAX_WBITS
"""What HTTP calls `deflate` is a zlib stream (RFC 9110, section 8.4.1.2)."""


class Stream(Protocol):
    """A decompressor as the standard library has them; raises ValueError for what is damaged."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: Buffer, max_length: int) -> bytes: ...


class Coding(NamedTuple):
    """Compression and decompression of one content coding."""

    compress: Callable[[bytes], bytes]
    stream: Callable[[], Stream]


async def expand(
    body: bytes,
    coding: bytes,
    limit: int,
    charge: Callable[[int], None],
    large_bodies: LargeBodies,
    check: Callable[[memoryview], None] | None = None,
) -> bytes:
    """Decompresses a body that was sent with this `Content-Encoding`.

    Args:
        body: compressed.
        coding: the name of its coding.
        limit: bytes that may come out.
        charge: is told of the memory that it takes before more is made, and may raise; what it was
            told is not taken back, since the compressed body is in use for as long as the caller
            keeps it.
        large_bodies: runs each step of what takes long.
        check: raises what is wrong with the beginning of a body; it is called after the first MB
            and each time that twice as much has come out, so that all calls together look at no
            more than twice the body.

    Raises:
        UnsupportedEncoding: the coding is unknown, or there are several.
        BodyTooLarge: more than `limit` bytes come out.
        MalformedBody: it is damaged. And whatever `charge` and `check` raise.
    """
    name = coding.strip().lower()
    if name == b"identity":
        return body
    known = CODINGS.get(name.removeprefix(b"x-"))
    if known is None:
        listed = b", ".join(CODINGS).decode()
        raise UnsupportedEncoding(
            f"the body is encoded as {excerpt(name)}; the known encodings are {listed}"
        )
    expander = _Expander(known.stream(), body)
    content = BytesIO()  # gives away what was written without a copy
    quick, next_check = len(body) <= _QUICK, _STEP
    while not expander.complete:
        bound = min(_QUICK if quick else _STEP, limit + 1 - content.tell())
        try:
            if quick:
                piece = expander.step(bound)
            else:
                piece = await large_bodies.run(expander.step, bound)
        except ValueError as error:
            raise MalformedBody(f"the body is not in its Content-Encoding: {error}") from None
        charge(len(piece))
        content.write(piece)
        if content.tell() > limit:
            raise body_too_large(limit)
        quick = False  # there is more of it than its size let expect
        if check is not None and content.tell() >= next_check and not expander.complete:
            next_check = 2 * content.tell()
            beginning = content.getbuffer()
            try:
                await large_bodies.run(check, beginning)
            finally:
                # Python complains of a BytesIO that ends before its buffer is released. A request
                # that was cancelled cannot release it: the thread may still be looking at it.
                with suppress(BufferError):
                    beginning.release()
    return content.getvalue()


async def compress(body: bytes, coding: bytes) -> bytes:
    """Compresses a body with one of `CODINGS`."""
    known = CODINGS[coding]
    if len(body) <= _QUICK:
        return known.compress(body)
    return await asyncio.to_thread(known.compress, body)


def wished_coding(headers: Iterable[tuple[bytes, bytes]], size: int) -> bytes | None:
    """The coding that a request wants its answer of so many bytes in; None: as it is."""
    if size < _WORTH:
        return None
    named = []
    for header, value in headers:
        if header == b"accept-encoding":
            for each in value.lower().split(b","):
                name, _, weight = each.partition(b";")
                if name.strip() not in (b"identity", b"") and not _is_zero(weight):
                    named.append(name.strip())
    return named[0] if len(named) == 1 and named[0] in CODINGS else None


def body_too_large(limit: int) -> BodyTooLarge:
    """Makes the error for a body of more than `limit` bytes."""
    return BodyTooLarge(f"the body is over the limit of {limit} bytes")


class _Expander:
    """A compressed body, taken apart step by step; each runs in one thread, after the last."""

    __slots__ = ("_at", "_body", "_stream")

    def __init__(self, stream: Stream, body: bytes) -> None:
        self._stream = stream
        self._body = memoryview(body)
        self._at = 0

    @property
    def complete(self) -> bool:
        """Whether all of it has come out."""
        return self._stream.eof

    def step(self, bound: int) -> bytes:
        """The next bytes, `bound` of them or fewer at the end.

        Raises:
            ValueError: it is damaged, cut short or followed by something else.
        """
        pieces: list[bytes] = []
        wanted = bound
        while wanted and not self._stream.eof:
            part = self._body[self._at : self._at + _INPUT] if self._stream.needs_input else b""
            self._at += len(part)
            piece = self._stream.decompress(part, wanted)
            if not piece and not self._stream.eof and self._at == len(self._body):
                raise ValueError("it is cut short")
            pieces.append(piece)
            wanted -= len(piece)
        if self._stream.eof and (self._stream.unused_data or self._at < len(self._body)):
            raise ValueError("something follows its end")
        return b"".join(pieces)


def _is_zero(weight: bytes) -> bool:
    """Whether `q=0` says that a coding is not acceptable."""
    _, _, number = weight.partition(b"=")
    return bool(number) and not number.strip(b" 0.")


class _Inflation:
    """zlib's decompressor, which keeps the input that it has not used where others keep it."""

    __slots__ = ("_stream", "needs_input")

    def __init__(self, header: int) -> None:
        self._stream = zlib.decompressobj(header)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data

    def decompress(self, data: Buffer, max_length: int) -> bytes:
        try:
            piece = self._stream.decompress(self._stream.unconsumed_tail or data, max_length)
        except zlib.error as error:
            raise ValueError(str(error)) from None
        self.needs_input = len(piece) < max_length
        return piece


def _of_zlib(header: int) -> Coding:
    return Coding(lambda body: zlib.compress(body, _FAST, header), lambda: _Inflation(header))


CODINGS: Final = {b"gzip": _of_zlib(_GZIP), b"deflate": _of_zlib(_ZLIB)}
"""By name."""

with suppress(ImportError):
    from resmem_service.api import zstd_coding

    CODINGS[b"zstd"] = Coding(zstd_coding.compress, zstd_coding.Expansion)
